"""FLOPs, working sets and traffic of an epoch."""

import dataclasses
import itertools

import pytest

from minibutter.nn.loops import Cache, Loop, Margin, Use, analyse, footprint
from minibutter.nn.network import Network
from minibutter.nn.traffic import Workload, predict_epoch

LEVELS = [Cache(2**9), Cache(2**14), Cache(2**18)]
HUGE = Cache(2**40)


@pytest.fixture
def workload():
    return Workload(Network(7, (20, 30, 3), "classification"), 1000, 250, 256)


def test_flops_are_two_for_every_product_that_is_added(workload):
    forward = 2 * (8 * 20 + 21 * 30 + 31 * 3)
    to_inputs = 2 * (20 * 30 + 30 * 3)  # nobody needs the gradient of the data
    assert workload.flops == 1000 * (2 * forward + to_inputs) + 250 * forward
    traffic = predict_epoch(workload, LEVELS)
    assert sum(phase.flops for phase in traffic.phases) == workload.flops
    both = dataclasses.replace(workload, evaluate_train=True)
    assert both.flops == workload.flops + 1000 * forward


def test_working_sets_are_those_of_butter_e(workload):
    parameters = 8 * 20 + 21 * 30 + 31 * 3
    units = 7 + 20 + 30 + 3
    assert workload.working_sets == {
        "parameter": 4 * parameters + 4 * 256 * 50,
        "parameter2x": 8 * parameters + 4 * 256 * units,
        "parameter2x_dataset": 8 * parameters + 4 * 256 * units + 4 * 1250 * 10,
        "bwd_layer": 4 * 256 * 50,
    }


@pytest.mark.parametrize("kernel", ["naive", "blocked", "tiled"])
@pytest.mark.parametrize("activation", ["relu", "tanh"])
@pytest.mark.parametrize("shape", ["rectangle", "rectangle_residual"])
def test_what_fits_moves_nothing_when_warm_and_everything_once_when_cold(kernel, activation, shape):
    network = Network(7, (20, 20, 3), "classification", activation, shape, kernel=kernel)
    workload = Workload(network, 1000, 250, 256)
    warm = predict_epoch(workload, [HUGE])
    cold = predict_epoch(workload, [HUGE], "cold")
    assert warm.bytes[1] == 0
    data = 1250 * (7 + 3) * 4
    parameters = 4 * network.num_parameters
    # Weights, gradients and both slots, of which the first is never written but by the update.
    least = data + 4 * parameters
    assert least < cold.bytes[1] < 6 * (least + 256 * 4 * 4 * 50)
    assert cold.bytes[0] == warm.bytes[0]


def test_smaller_caches_never_move_less(workload):
    sizes = [2**power for power in range(4, 20)]
    moved = [predict_epoch(workload, [Cache(lines)]).bytes[1] for lines in sizes]
    assert all(less <= 1.02 * more for more, less in itertools.pairwise(moved))
    assert moved[0] > moved[-1] == 0


def test_the_optimizer_moves_what_its_text_says(workload):
    """Adam reads w, both slots and dw and writes all but dw; sgd has one slot."""
    steps, parameters = 4, workload.network.num_parameters
    for optimizer, numbers in (("adam", 7), ("rmsprop", 7), ("sgd", 5)):
        phases = predict_epoch(dataclasses.replace(workload, optimizer=optimizer), LEVELS).phases
        (update,) = [phase for phase in phases if phase.name == "update"]
        assert update.bytes[0] == steps * numbers * 4 * parameters


def test_traffic_of_blas_is_not_known():
    network = Network(7, (20, 3), "classification", kernel="blas")
    with pytest.raises(ValueError, match="blas"):
        predict_epoch(Workload(network, 100, 25, 50), LEVELS)


def test_a_loop_shares_what_one_iteration_leaves():
    """Ten walks through 32 lines: fetched once where they fit, ten times where they do not."""
    walks = (Loop("again", 10, (Loop("line", 32, (Use("a", 64, {"line": 64}, read=64),)),)),)
    assert analyse(walks, Cache(32), Margin())["a"].fetched == 32
    margin = Margin()
    assert analyse(walks, Cache(16), margin)["a"].fetched == 320
    assert margin.factor == 2


def test_lines_of_a_column_are_as_many_as_its_numbers_and_of_all_columns_a_block():
    column = Loop("i", 100, (Use("a", 4, {"i": 4 * 50, "j": 4}, read=4),))
    assert footprint((column,))["a"] == 100
    assert footprint((Loop("j", 50, (column,)),))["a"] == -(-100 * 50 * 4 // 64)


def test_rows_that_alias_are_near_although_few():
    """64 lines 4 KiB apart all fall into one set of 64."""
    column = (Loop("again", 9, (Loop("i", 64, (Use("a", 4, {"i": 4096}, read=4),)),)),)
    margin = Margin()
    analyse(column, Cache(512, sets=64), margin)
    assert margin.factor == pytest.approx(8)
    analyse(column, Cache(4096, sets=64), margin)
    assert margin.factor == 1
