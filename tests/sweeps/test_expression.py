"""Conditions as text: what they mean, and what is said about text that means nothing."""

import itertools

import numpy as np
import pytest

from minibutter.sweeps.expression import parse_condition
from minibutter.sweeps.runspec import SweepError

VALUES = {
    "dataset": ["mnist", "sleep"],
    "size": [None, 32, 1024],
    "depth": [3, 5, 12],
    "batch_size": [256],
    "evaluate_train": [False, True],
}


class Cells:
    """All combinations of `VALUES`."""

    combinations = tuple(itertools.product(*VALUES.values()))

    def __len__(self):
        return len(self.combinations)

    def values(self, key):
        return VALUES[key]

    def codes(self, key):
        place = list(VALUES).index(key)
        return np.array([VALUES[key].index(each[place]) for each in self.combinations])


def refuse_unknown_sets(value):
    if value not in ("mnist", "sleep", "201_pol"):
        raise ValueError("there is no such data set")


def parse(text):
    return parse_condition(text, f"x.toml: exclude = {text!r}", {"dataset": refuse_unknown_sets})


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("depth > 10", lambda d, s, n, b, e: n > 10),
        ("depth != 5", lambda d, s, n, b, e: n != 5),
        ("depth = 5", lambda d, s, n, b, e: n == 5),
        ("3 < depth <= 12", lambda d, s, n, b, e: 3 < n <= 12),
        ("depth in [3, 12]", lambda d, s, n, b, e: n in (3, 12)),
        ("depth not in (3, 12)", lambda d, s, n, b, e: n not in (3, 12)),
        ("depth >= -1.5e0", lambda d, s, n, b, e: True),
        ("size >= 2**10", lambda d, s, n, b, e: s == 1024),
        ("dataset == 'mnist'", lambda d, s, n, b, e: d == "mnist"),
        ("dataset=mnist and depth<=5", lambda d, s, n, b, e: d == "mnist" and n <= 5),
        ("dataset in [sleep, '201_pol']", lambda d, s, n, b, e: d == "sleep"),
        ("evaluate_train", lambda d, s, n, b, e: e),
        ("evaluate_train == false", lambda d, s, n, b, e: not e),
        ("not evaluate_train or depth < 5", lambda d, s, n, b, e: not e or n < 5),
        ("not (depth < 5 or depth > 10)", lambda d, s, n, b, e: n == 5),
        ("depth < 5 or depth > 9 and evaluate_train", lambda d, s, n, b, e: n < 5 or (n > 9 and e)),
        ("depth > 3\n  and depth < 9", lambda d, s, n, b, e: n == 5),
    ],
)  # fmt: skip
def test_a_condition_means_what_python_means(text, holds):
    expected = [holds(*each) for each in Cells.combinations]
    assert parse(text).holds(Cells()).tolist() == expected
    assert parse(text).text == text


def test_keys_are_compared_with_each_other():
    expected = [s is not None and s > b for _, s, _, b, _ in Cells.combinations]
    assert parse("size > batch_size").holds(Cells()).tolist() == expected
    assert parse("batch_size < size").holds(Cells()).tolist() == expected


@pytest.mark.parametrize("text", ["size == 32", "size != 32", "size < 9**9", "size in [32, 1024]"])
def test_a_comparison_with_an_open_key_does_not_hold(text):
    is_open = np.array([each[1] is None for each in Cells.combinations])
    assert not parse(text).holds(Cells())[is_open].any()
    assert parse(f"not ({text})").holds(Cells())[is_open].all()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("depht > 3", "depht: unknown key; did you mean depth?"),
        ("shpae == rectangle", "shpae: unknown key; did you mean shape?"),
        ("size < mnist", "mnist: unknown key"),
        ("repetitions > 3", "repetitions: unknown key"),
        ("depth", "depth is no comparison"),
        ("5 < 6", "5 is compared, but with no key"),
        ("widths == 3", "widths cannot be compared; depth counts their layers"),
        ("measure == noise_scale", "measure cannot be compared$"),
        ("shape < 'a'", "shape has no order; compare with ==, != or in"),
        ("evaluate_train > 1", "evaluate_train has no order"),
        ("depth == 'x'", "depth is a number, and 'x' text"),
        ("size == true", "size is a number, and True true or false"),
        ("dataset == 3", "dataset is text, and 3 a number"),
        ("dataset == size", "dataset is text, and size a number"),
        ("dataset == mnits", "dataset = 'mnits': there is no such data set"),
        ("dataset in [mnist, mnits]", "dataset = 'mnits': there is no such data set"),
        ("dtype == float16", "dtype = 'float16': must be 'float32' or 'float64'"),
        ("depth in 3", "3 follows `in`, but is no list"),
        ("depth in [size]", r"\[size\] lists a key; list values"),
        ("depth is 3", "compare with =="),
        ("depth + 1 > 3", r"depth \+ 1 is neither a key nor a number nor text"),
        ("-size > 3", "-size is neither"),
        ("2**9**9 > size", r"2 \*\* 9 \*\* 9 is neither"),
        ("size > 10**100000", r"10 \*\* 100000 is neither"),
        ("dataset == f'{depth}'", "is neither"),
        ("__import__('os').system('ls')", r"__import__\('os'\)\.system\('ls'\) is no comparison"),
        ("depth.real == 3", "depth.real is neither"),
        ("(lambda: depth)() > 3", "is neither"),
        ("[n for n in (1, 2)] == depth", "is neither"),
        ("dataset = 201_pol", "cannot be read .invalid decimal literal.; .* with quotes around"),
        ("(depth > 3", "cannot be read"),
        ("", "cannot be read"),
        ("depth > 3; 1", "cannot be read"),
        ("depth > 3\0", "cannot be read"),
        ("not " * 5000 + "evaluate_train", "cannot be read"),
        (3, "must be a string"),
    ],
)
def test_what_is_no_condition_is_refused_with_the_part_that_is_wrong(text, message):
    with pytest.raises(SweepError, match=message) as raised:
        parse(text)
    assert str(raised.value).startswith("x.toml: exclude = ")
