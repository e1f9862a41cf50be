"""The pure parts of `bench`: what is counted, compared, written; no clock is asked."""

import itertools
import json

import numpy as np
import pytest

from bench import peers
from bench.figure import draw_peers, spread
from bench.markers import README, read_table
from bench.sides import BATCH_SIZE, LANES_SIDES, SINGLE_SIDES, NumpyReference, Packed, Problem
from bench.turns import (
    TOLERANCE,
    Child,
    Disagreement,
    check_agreement,
    count_flops,
    quartiles,
    serve,
    summarize_turns,
    three_digits,
)
from minibutter.nn import reference


def make_side(microseconds, ratios=None, missing=None):
    return {
        "us_per_step": microseconds,
        "us_per_step_quartiles": None if microseconds is None else [microseconds] * 3,
        "ratio_quartiles": ratios,
        "first_epoch_s": None if microseconds is None else 2.0,
        "difference": None if microseconds is None else 1e-6,
        "missing": missing,
    }


def make_row(name, num_parameters, sides, repetitions=1):
    return {
        "name": name,
        "n_inputs": 64,
        "widths": [4, 4, 10],
        "num_parameters": num_parameters,
        "repetitions": repetitions,
        "rounds": 3,
        "flops_per_step": 500_000,
        "ceiling_gflops": 100.0,
        "core_share_quartiles": [0.99, 1.0, 1.0],
        "share_of_ceiling_quartiles": [0.09, 0.1, 0.11],
        "sides": sides,
    }


@pytest.fixture
def document():
    """A measurement of two networks, one of them without `torch.compile`, and of lanes."""
    return {
        "machine": {"cpu_model": "a core", "python_version": "3.13", "numba_version": "0.65"},
        "versions": {"torch": "2.13.0", "jax": None},
        "dtype": "float32",
        "batch_size": 256,
        "ceiling_gflops": {"float32": 100.0, "float64": 50.0},
        "networks": [
            make_row(
                "4x2",
                330,
                {
                    "minibutter_metrics": make_side(50.04),
                    "pytorch": make_side(500.0, [9.0, 10.0, 12.0]),
                    "pytorch_compiled": make_side(None, missing="RuntimeError: no compiler"),
                    "jax": make_side(75.26, [1.4, 1.5, 1.625]),
                },
            ),
            make_row(
                "32x3",
                4522,
                {
                    "minibutter_metrics": make_side(100.0),
                    "pytorch": make_side(1234.5, [12.0, 12.3, 13.0]),
                    "pytorch_compiled": make_side(1000.0, [9.0, 10.0, 11.0]),
                    "jax": make_side(200.0, [1.9, 2.0, 2.1]),
                },
            ),
            make_row(
                "2-8-8-2",
                114,
                {
                    "minibutter_metrics": make_side(2.0),
                    "pytorch": make_side(600.0, [290.0, 300.0, 310.0]),
                    "jax": make_side(30.0, [14.0, 15.0, 16.0]),
                },
                repetitions=16,
            ),
        ],
    }


def test_table_has_a_row_a_network_and_dashes_for_what_is_missing(document):
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in peers.as_markdown(document).splitlines()
        if line.startswith("|")
    ]
    assert rows[0] == [
        "network", "parameters", "minibutter + metrics", "PyTorch", "torch.compile", "JAX",
        "PyTorch / ours", "JAX / ours", "of the FMA ceiling",
    ]  # fmt: skip
    assert rows[2:] == [
        ["4x2", "330", "50", "500", "-", "75.3",
         "10 [9, 12]", "1.50 [1.40, 1.62]", "10 %"],
        ["32x3", "4,522", "100", "1,234", "1,000", "200",
         "12 [12, 13]", "2.00 [1.90, 2.10]", "10 %"],
        ["16 of 2-8-8-2", "114", "2", "600", "-", "30",
         "300 [290, 310]", "15 [14, 16]", "10 %"],
    ]  # fmt: skip


def test_what_is_missing_is_named_with_its_reason(document):
    assert "torch.compile is missing for 4x2: RuntimeError: no compiler" in peers.as_markdown(
        document
    )


def test_a_core_that_was_shared_is_reported(document):
    row = document["networks"][0]
    assert "disturbed" not in peers.as_line(row)
    assert "Disturbed" not in peers.as_markdown(document)
    row["core_share_quartiles"] = [0.6, 0.9, 1.0]
    assert "disturbed" in peers.as_line(row)
    assert "measure again: 4x2." in peers.as_markdown(document)


def test_the_readme_shows_the_stored_measurement():
    stored = peers.as_markdown(json.loads(peers.JSON.read_text()))
    shown = read_table(peers.NAME, README)
    assert shown == stored, "write it anew: python -m bench.peers --from-json --readme"


def test_every_side_has_a_label_and_ours_come_first():
    for sides in (SINGLE_SIDES, LANES_SIDES):
        assert set(sides) <= set(peers.LABELS)
        assert next(iter(sides)).startswith("minibutter")


class CountingArray(np.ndarray):
    """Adds up the operations of every matrix product that it takes part in."""

    flops = 0

    def __array_ufunc__(self, ufunc, method, *inputs, **options):
        plain = [np.asarray(i) if isinstance(i, CountingArray) else i for i in inputs]
        result = getattr(ufunc, method)(*plain, **options)
        if ufunc is np.matmul:
            CountingArray.flops += 2 * plain[0].shape[0] * plain[0].shape[1] * plain[1].shape[1]
        return result.view(CountingArray) if isinstance(result, np.ndarray) else result


def test_flops_are_those_that_the_reference_makes():
    problem = Problem(5, (7, 3), 4)
    x, y, starts = problem.draw()
    batch = x[0, :BATCH_SIZE].view(CountingArray), y[0, :BATCH_SIZE]
    CountingArray.flops = 0
    reference.backward(
        problem.layers(starts[0]), problem.network.skip, "relu", "classification", *batch
    )
    # The reference also computes the gradient of the network's input, which nobody needs.
    unneeded = 2 * BATCH_SIZE * 7 * 5
    assert count_flops(problem) == CountingArray.flops - unneeded


def test_ratios_and_shares_are_taken_within_rounds():
    ours = np.array([1.0, 2.0, 4.0, 8.0, 16.0])
    peer = ours * np.array([3.0, 1.0, 2.0, 5.0, 4.0])
    ceilings = np.full(5, 100.0)
    times, ratios, share = summarize_turns({"ours": ours, "peer": peer}, ceilings, 200_000)
    assert times == {"ours": quartiles(ours), "peer": quartiles(peer)}
    # The median of ratios is 3; the ratio of medians would be 2.
    assert ratios == {"peer": [2.0, 3.0, 4.0]}
    # 200,000 operations in 4 us are 50 GFLOP/s, half of the ceiling.
    assert share == [0.25, 0.5, 1.0]


def test_tables_show_three_digits_and_never_an_exponent():
    values = (0.012345, 1.5, 99.94, 99.96, 100.4, 1e3, 54_321.0)
    texts = ["0.0123", "1.5", "99.9", "100", "100", "1,000", "54,321"]
    assert [three_digits(value) for value in values] == texts


def test_sides_that_end_elsewhere_are_not_timed():
    starts = np.zeros((1, 4))
    ours = np.array([[3.0, 0.0, 4.0, 0.0]])
    near = ours + np.array([[0.0, 1e-4, 0.0, 0.0]])
    assert check_agreement({"ours": ours, "near": near}, starts, 1e-3)["near"] == pytest.approx(
        2e-5
    )
    for far in (ours * 1.01, np.full_like(ours, np.nan)):
        with pytest.raises(Disagreement, match="far went elsewhere"):
            check_agreement({"ours": ours, "far": far}, starts, 1e-3)


@pytest.mark.parametrize("repetitions", [1, 3])
def test_our_kernels_and_the_reference_take_the_same_steps(repetitions):
    problem = Problem(5, (7, 3), 4, repetitions)
    sides = {"minibutter": Packed(problem), "numpy": NumpyReference(problem)}
    for side in sides.values():
        for order in itertools.islice(problem.orders(), 2):
            side.run_epoch(side.load_order(order))
    ends = {name: side.parameters() for name, side in sides.items()}
    assert ends["minibutter"].shape == (repetitions, problem.network.num_parameters)
    check_agreement(ends, problem.draw()[2], TOLERANCE)


def test_repetitions_have_their_own_rows_and_first_weights():
    x, y, starts = Problem(2, (8, 8), 2, repetitions=2).draw()
    for arrays in (x, y, starts):
        assert not np.array_equal(arrays[0], arrays[1])


def test_a_child_times_the_epochs_that_it_is_told():
    problem = Problem(2, (2,), 2)
    with Child(problem, "numpy") as child:
        duration_s, cpu_s = child.time_epochs(2)
        end = child.end
    expected = NumpyReference(problem)
    expected.run_epoch(next(problem.orders()))
    np.testing.assert_array_equal(end, expected.parameters())
    assert duration_s > 0
    assert cpu_s > 0


def test_a_side_that_fails_sends_the_reason():
    sent = []

    class Connection:
        send = staticmethod(sent.append)

    serve(Connection(), Problem(2, (2,), 2), "nobody")
    assert sent == [("KeyError: 'nobody'", None)]


def test_labels_move_apart_in_their_order_and_no_further_than_needed():
    np.testing.assert_allclose(
        spread(np.array([5.0, 0.0, 0.2, 0.1]), 1.0), [5.0, -0.9, 1.1, 0.1], rtol=1e-12, atol=1e-12
    )
    # A pair takes the room of two: what lies 1.2 below its middle is in its way.
    np.testing.assert_allclose(
        spread(np.array([0.0, 1.2, 1.2]), 1.0), [-0.2, 0.8, 1.8], rtol=1e-12, atol=1e-12
    )
    np.testing.assert_array_equal(spread(np.array([3.0, 1.0]), 1.0), [3.0, 1.0])


def test_the_figure_is_drawn_without_what_is_missing(document, tmp_path):
    draw_peers(document, peers.LABELS, tmp_path / "figures" / "peers.png")
    assert (tmp_path / "figures" / "peers.png").stat().st_size > 10_000
