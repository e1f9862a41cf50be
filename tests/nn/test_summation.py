"""One tree of additions, however its leaves are shared out."""

import math

import pytest

from minibutter.nn.summation import Span, cut, find_nodes, pair_up


def add(texts, pairs):
    """The additions as texts with all their parentheses."""
    texts = list(texts)
    for into, what in pairs:
        texts[into] = f"({texts[into]}+{texts[what]})"
    return texts


def sum_on_ranks(n_leaves, n_ranks):
    """The sum as text where ranks add their own leaves first, and then what they are left with."""
    sums, nodes = [], []
    for share in cut(n_leaves, n_ranks):
        pairs, roots = pair_up([Span(leaf, leaf + 1) for leaf in range(*share)], n_leaves)
        texts = add(map(str, range(*share)), pairs)
        sums += [texts[root] for root in roots]
        nodes += find_nodes(share, n_leaves)
    assert len(sums) == len(nodes)
    pairs, roots = pair_up(nodes, n_leaves)
    assert roots == [0]
    return add(sums, pairs)[0]


def test_the_tree_of_seven_leaves_is_that_of_the_documentation():
    assert sum_on_ranks(7, 1) == "(((0+1)+(2+3))+((4+5)+6))"


@pytest.mark.parametrize("n_leaves", [1, 2, 3, 4, 5, 6, 7, 8, 9, 13, 16, 17, 31])
def test_the_order_of_additions_does_not_depend_on_the_number_of_ranks(n_leaves):
    alone = sum_on_ranks(n_leaves, 1)
    for n_ranks in range(2, n_leaves + 3):
        assert sum_on_ranks(n_leaves, n_ranks) == alone


@pytest.mark.parametrize("n_ranks", [1, 2, 4, 8])
def test_a_rank_with_as_many_leaves_as_the_others_is_left_with_one_sum(n_ranks):
    for share in cut(64, n_ranks):
        assert find_nodes(share, 64) == [share]


@pytest.mark.parametrize("n_ranks", [3, 5, 6, 7])
def test_a_rank_with_any_leaves_is_left_with_few_sums(n_ranks):
    for share in cut(64, n_ranks):
        nodes = find_nodes(share, 64)
        assert len(nodes) <= 2 * math.log2(share.size) + 1
        assert [nodes[0].begin, nodes[-1].end] == list(share)


@pytest.mark.parametrize(("size", "parts"), [(0, 3), (1, 1), (7, 7), (3, 8), (256, 8), (100, 7)])
def test_parts_follow_each_other_and_differ_by_one_at_most(size, parts):
    spans = cut(size, parts)
    assert [thing for span in spans for thing in range(*span)] == list(range(size))
    assert len(spans) == parts
    sizes = {span.size for span in spans}
    assert max(sizes) - min(sizes) <= 1
