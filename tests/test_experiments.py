"""What a sweep means: identities, networks, and what is refused before anything is trained."""

import pytest

from minibutter.experiments import plan_experiments
from minibutter.nn.kernels.tiling import Tiling
from minibutter.sweeps.spec import Sweep, SweepError


def test_sizes_of_tiles_reach_the_network(plan):
    sizes = {"tile_rows": 4, "tile_columns": 32, "block_depth": 64}
    assert plan(**sizes).network.tiling == Tiling(**sizes)


def test_an_unknown_data_set_is_refused_with_the_nearest_name(plan):
    with pytest.raises(SweepError, match=r"dataset = 'iriss': .*did you mean 'iris'"):
        plan(dataset="iriss")


@pytest.mark.parametrize(
    ("key", "value"),
    [("shape", "blob"), ("activation", "mish"), ("optimizer", "adagrad"), ("kernel", "magic")],
)
def test_an_unknown_name_is_refused_with_the_known_ones(plan, key, value):
    with pytest.raises(SweepError, match=f"{key} = '{value}': unknown; it must be one of"):
        plan(**{key: value})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tile_rows": 17}, "tile_rows is 17; it must be at most 16"),
        ({"tile_columns": 24}, "tile_columns is 24; for float32 it must be a multiple of 16"),
        ({"tile_columns": 12, "dtype": "float64"}, "tile_columns is 12; .* a multiple of 8"),
        ({"tile_columns": 144}, "tile_columns is 144; .* at most 128"),
    ],
)
def test_a_tile_that_no_machine_has_is_refused_with_its_rule(plan, changes, message):
    with pytest.raises(SweepError, match=message):
        plan(**changes)
    assert plan(tile_columns=24, dtype="float64").problem is None


def test_a_batch_larger_than_the_training_set_becomes_a_problem(plan):
    assert plan(batch_size=121).problem == (
        "batch_size is 121, but iris has 120 training rows; it must be between 1 and 120"
    )
    assert plan(batch_size=120).problem is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"slices": 17}, "slices is 17; a batch of 16 rows can be cut into 1 to 16"),
        # BUTTER's 256 rows are cut down to the training set, and slices are parts of what is left.
        ({"slices": 121, "batch_size": 256}, "slices is 121; a batch of 120 rows"),
        ({"slices": 2, "kernel": "blas"}, "kernel is 'blas', whose order of summation may depend"),
    ],
)
def test_slices_that_cannot_be_become_a_problem(plan, changes, message):
    assert message in plan(**changes).problem
    assert plan(**changes | {"slices": 1}).problem is None


def test_slices_are_another_experiment_with_the_same_random_numbers(plan):
    whole, sliced = plan(), plan(slices=4)
    assert sliced.experiment_id != whole.experiment_id
    assert sliced.stream_id == whole.stream_id == whole.experiment_id
    assert plan(slices=4, learning_rate=0.5).stream_id != whole.stream_id


def test_explicit_widths_must_end_with_the_outputs_of_the_data_set(plan):
    experiment = plan(size=None, depth=None, widths=(5, 4))
    assert "the last width must be 3" in experiment.problem
    assert plan(size=None, depth=None, widths=(5, 3)).problem is None


def test_residual_widths_must_be_equal(plan):
    experiment = plan(size=None, depth=None, widths=(5, 4, 3), shape="rectangle_residual")
    assert "all hidden layers must have the same width" in experiment.problem


def test_one_id_is_one_network_whatever_its_shape_is_called(plan):
    """A hidden layer of the exponential shape is never narrower than the output, but at depth 2."""
    shapes = ("exponential", "rectangle", "trapezoid")
    planned = [plan(dataset="digits", size=310, depth=2, shape=shape) for shape in shapes]
    assert len({experiment.experiment_id for experiment in planned}) == 1
    assert {experiment.network.widths for experiment in planned} == {(4, 10)}


def test_an_experiment_asked_for_twice_is_planned_once_with_the_larger_number_of_runs(plan):
    spec, deeper = plan().spec, plan(depth=4).spec
    sweep = Sweep("twice", "", ((spec, 2), (deeper, 1), (spec, 5), (spec, 3)), {})
    planned = plan_experiments(sweep)
    assert [(e.spec.depth, e.repetitions) for e in planned] == [(3, 5), (4, 1)]


def test_two_spellings_of_a_generator_are_one_experiment(plan):
    one = plan(dataset="gaussian_regression:noise=0.10,rows=200")
    other = plan(dataset="gaussian_regression:rows=200")
    assert one.experiment_id == other.experiment_id


def test_a_local_file_is_known_by_its_content_and_not_by_its_name(plan, tmp_path):
    rows = "a,y\n" + "".join(f"{i},{i % 3}\n" for i in range(60))
    ids = []
    for name, text in (("one", rows), ("two", rows), ("three", rows + "60,0\n")):
        path = tmp_path / f"{name}.csv"
        path.write_text(text)
        ids.append(plan(dataset=str(path), target="y").experiment_id)
    assert ids[0] == ids[1] != ids[2]
    asked = plan(dataset=str(tmp_path / "one.csv"), target="y", task="classification")
    assert asked.experiment_id == ids[0]


def test_a_batch_that_takes_all_rows_is_the_same_experiment_however_it_is_written(plan):
    assert plan(batch_size=256).experiment_id == plan(batch_size=120).experiment_id
    assert plan(batch_size=256).trains_in_one_batch
    assert not plan(batch_size=120).trains_in_one_batch


@pytest.mark.parametrize("batch_sizes", [(120, 5000), (5000, 120)])
def test_a_batch_that_is_refused_does_not_take_the_place_of_one_that_is_not(plan, batch_sizes):
    specs = [plan(batch_size=size).spec for size in batch_sizes]
    planned = plan_experiments(Sweep("s", "", tuple((spec, 1) for spec in specs), {}))
    assert {e.spec.batch_size: e.problem is None for e in planned} == {120: True, 5000: False}
