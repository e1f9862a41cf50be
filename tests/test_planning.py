"""Plans of whole sweeps: the same as of one experiment after the other, but sooner."""

import itertools
import pickle
import re
import subprocess
import sys

import numpy as np
import pytest

from minibutter.experiments import (
    CHECKS,
    plan_experiment,
    plan_experiments,
    planning,
    read_sweep,
)
from minibutter.sweeps.options import read_selection
from minibutter.sweeps.spec import Sweep, SweepError, load_sweep, parse_sweep

SMALL = {"dataset": "iris", "size": 100, "depth": 3, "epochs": 3, "batch_size": 16}

# What sweeps can hold, and what must not be mistaken for something else.
SWEEPS = {
    "product": {"dataset": ["iris", "digits"], "size": [32, 1024], "learning_rate": [1e-3, 1e-4]},
    "depth 2": {"shape": ["trapezoid", "rectangle", "exponential"], "depth": [2, 3]},
    "batches": {"batch_size": [256, 120, 5000, 121], "dataset": ["iris", "digits"]},
    "splits": {"batch_size": 256, "test_split": [0.2, 0.5], "split_method": ["last", "shuffled"]},
    "generators": {"dataset": ["gaussian_regression:rows=200",
                               "gaussian_regression:noise=0.10,rows=200"]},
    "caches": {"cache_state": ["cold", "warm"], "seed": [1, 2]},
    "tiles": {"tile_rows": [3, 4], "dtype": ["float32", "float64"], "kernel": ["tiled", "naive"]},
    "zip": {"zip": {"a": {"optimizer": ["adam", "sgd", "sgd"], "momentum": [0.0, 0.0, 0.9]}}},
    "perturbed": {"optimizer": "sgd", "momentum": [0.0, 0.9], "momentum_form": ["torch", "keras"],
                  "nesterov": [False, True], "exclude": "nesterov == True and momentum == 0"},
    "widths": {"initializer": "gaussian", "sigma0": [1.0, 1.5], "zip": {"p": {
        "parameterization": ["standard", "ntk"], "learning_rate": [0.1, 1.0]}}},
    "schedules": {"learning_rate_step_epochs": [10, 20], "learning_rate_gamma": [0.1, 0.5]},
    "samplings": {"sampling": ["replacement", "shuffle"], "batch_size": [16, 32]},
    "rounding": {"optimizer": "sgd", "perturbation": [1, 3, 5], "seed": [1, 2]},
    "measured": {"measure": [[], ["noise_scale"]], "slices": [1, 2], "batch_size": [1, 16]},
    "followed": {"measure": "noise_scale", "batch_rule": "noise_scale", "batch_size_max": [64, 999],
                 "batch_exchange_rate": [9.0, 99.0], "slices": [1, 2]},
    "quotient": {"l1": {"values": [0.1, 0.2], "divided_by": "size"}, "size": [100, 200]},
    "grids": {"grid": [{"size": [100, 200], "repetitions": 2}, {"seed": [0, 1]},
                       {"size": [200, 300], "repetitions": 3, "exclude": "size == 300"}]},
    "flags": {"evaluate_train": [True, False], "on_divergence": ["stop", "continue"]},
}  # fmt: skip


def one_after_the_other(sweep):
    """What `plan_experiments` promises, in the plainest words."""
    planned = {}
    for spec, repetitions in sweep.experiments:
        experiment = plan_experiment(spec, repetitions)
        before = planned.get(experiment.experiment_id)
        if before is None or before.repetitions < repetitions:
            planned[experiment.experiment_id] = experiment
    return list(planned.values())


@pytest.mark.parametrize("name", SWEEPS)
def test_a_plan_is_what_planning_one_after_the_other_gives(name):
    sweep = parse_sweep(SMALL | SWEEPS[name], "s.toml", CHECKS)
    plan, expected = plan_experiments(sweep), one_after_the_other(sweep)
    assert list(plan) == expected
    assert plan.experiment_ids == [each.experiment_id for each in expected]
    assert plan.repetitions.tolist() == [each.repetitions for each in expected]
    assert plan.n_cells.sum() == len(sweep.experiments)
    assert plan.epochs.tolist() == [each.spec.epochs for each in expected]
    assert plan.epoch_us.tolist() == [each.epoch_us() for each in expected]
    assert plan.has_problem.tolist() == [each.problem is not None for each in expected]
    assert plan.requested == {each.experiment_id: each.repetitions for each in expected}
    assert {id_: plan.by_id[id_] for id_ in plan.by_id} == {e.experiment_id: e for e in expected}


def test_explicit_widths_are_planned_too():
    document = {"dataset": "iris", "widths": [[5, 3], [5, 5, 3], [5, 4]], "epochs": [1, 2]}
    document |= {"shape": ["rectangle", "rectangle_residual"]}
    sweep = parse_sweep(document, "s.toml", CHECKS)
    plan = plan_experiments(sweep)
    assert list(plan) == one_after_the_other(sweep)
    assert np.isnan(plan.sizes).all()
    assert plan.num_parameters[~plan.has_problem].tolist() == [43, 43, 73, 73, 73, 73]


@pytest.mark.parametrize(
    ("changes", "experiment_id"),
    [
        ({}, "91799b66324fe117c52f4f2ab99abbce"),
        ({"batch_size": 256}, "2a13970292ac407b1ede1820d8f978af"),
        ({"cache_state": "cold"}, "4d4fc077b4c971a72db5ee0792bea35f"),
        ({"shape": "exponential", "depth": 2}, "ebbace820dfa010184e052c0a6c1d85a"),
        ({"dataset": "gaussian_regression:rows=200"}, "0fe7479e93f97ecccb710c3bab0f25d0"),
        ({"dataset": "mnist", "size": 2**20, "learning_rate": 1e-3, "l2": 0.01, "tile_rows": 4,
          "dtype": "float64"}, "85e1e3ffc0bbd2c00df8d4e05910f893"),
    ],
)  # fmt: skip
def test_ids_of_experiments_stay_what_they_are(changes, experiment_id):
    """A changed id orphans every stored result."""
    sweep = parse_sweep(SMALL | {"seed": [1, 0]} | changes, "s.toml", CHECKS)
    assert plan_experiments(sweep).experiment_ids[1] == experiment_id
    assert plan_experiment(sweep.experiments[1][0]).experiment_id == experiment_id


def test_names_and_tiles_that_nobody_knows_are_refused_before_anything_is_planned():
    with pytest.raises(SweepError, match="optimizer = 'adagrad': unknown; it must be one of"):
        plan_experiments(parse_sweep(SMALL | {"optimizer": ["adam", "adagrad"]}, "s.toml"))
    with pytest.raises(SweepError, match="tile_rows is 17; it must be at most 16"):
        plan_experiments(parse_sweep(SMALL | {"tile_rows": [4, 17]}, "s.toml"))


def test_a_sweep_too_large_to_be_planned_is_refused_at_once():
    ranges = {key: {"first": 1, "last": 50_000} for key in ("size", "seed", "epochs")}
    sweep = parse_sweep(SMALL | ranges, "s.toml")
    with pytest.raises(
        SweepError, match=r"s asks for 125\d{12} experiments, and \d+ can be planned"
    ):
        plan_experiments(sweep)


def test_a_plan_passes_between_ranks():
    plan = plan_experiments(parse_sweep(SMALL | {"seed": [1, 2, 3]}, "s.toml"))
    experiments = list(plan)
    by_id = pickle.loads(pickle.dumps(plan.by_id))
    assert list(by_id.values()) == experiments
    assert experiments[0].experiment_id in by_id
    assert "nobody" not in by_id
    with pytest.raises(KeyError):
        by_id["nobody"]


def test_unreachable_sizes_of_primary_are_those_of_the_20_percent_rule():
    plan = plan_experiments(read_sweep("primary"))
    # The search itself misses 3,435, of which 16 are exponentials of depth 2: see primary.toml.
    counts = {
        int(np.log2(size)): plan.n_cells[plan.is_unreachable & (plan.sizes == size)].sum()
        for size in np.unique(plan.sizes[plan.is_unreachable])
    }
    assert counts == {5: 1164, 6: 944, 7: 621, 8: 375, 9: 203, 10: 76, 11: 22, 12: 13, 13: 1}
    assert plan.n_cells.sum() == 30_576
    assert len(plan) == 30_576 - 7 * 13 * 21
    assert (plan.has_problem == plan.is_unreachable).all()
    assert ((plan.epoch_us == 0) == plan.has_problem).all()


def test_all_butter_sweeps_are_planned_in_some_seconds_and_half_a_gigabyte(tmp_path):
    """Some 4 s on a core of its own; the bound leaves room for one that is shared."""
    path = tmp_path / "all.toml"
    path.write_text(
        'extends = ["butter", "learning_rate_batch_size", "size_adjusted_regularization"]'
    )
    code = (
        "import time\n"
        "from minibutter.experiments import plan_experiments, read_sweep\n"
        f"plan = plan_experiments(read_sweep({str(path)!r}))\n"
        "print(plan.n_cells.sum(), len(plan), time.process_time())\n"
        "print(open('/proc/self/status').read())\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    # Not ru_maxrss, which a child inherits from whoever starts it.
    mebibytes = int(re.search(r"VmHWM:\s+(\d+) kB", done.stdout)[1]) / 1024
    n_cells, n_experiments, seconds = map(float, done.stdout.split()[:3])
    assert n_cells == 352_004
    assert n_experiments < n_cells
    assert seconds < 12
    assert mebibytes < 500


# ---------------------------------------------------------------------------------------------
# A part of a sweep


PARTS = SMALL | {
    "dataset": ["iris", "digits"],
    "shape": ["rectangle", "trapezoid"],
    "size": [32, 128, 512, 2048],
    "depth": [2, 3, 4],
    "repetitions": 2,
}


def part(condition=None, limit=None, budget=None, **changes):
    selection = read_selection(condition, limit, budget, CHECKS)
    return plan_experiments(parse_sweep(PARTS | changes, "s.toml", CHECKS, selection=selection))


@pytest.fixture(scope="module")
def whole():
    return part()


def test_a_filter_chooses_where_one_of_the_cells_fulfils_it(whole):
    chosen = part("dataset=iris and shape=trapezoid")
    # At depth 2 the trapezoid is the rectangle, which stands for both.
    expected = [e for e in whole if e.spec.dataset == "iris"
                and (e.spec.shape == "trapezoid" or e.spec.depth == 2)]  # fmt: skip
    assert list(chosen) == expected
    assert chosen.requested == whole.requested
    assert chosen.notes[0].startswith(
        f"chosen: {len(expected)} of {len(whole)} experiments "
        "(--filter 'dataset=iris and shape=trapezoid'), about "
    )
    with pytest.raises(SweepError, match="--filter 'depth > 4' leaves nothing of s"):
        part("depth > 4")


def test_a_limit_chooses_the_first_that_can_be_run(whole):
    runnable = [each for each in whole if each.problem is None]
    assert 0 < len(runnable) < len(whole)
    assert list(part(limit=5)) == runnable[:5]
    assert list(part("depth=4", limit=3)) == [e for e in runnable if e.spec.depth == 4][:3]
    assert len(part(limit=10**6)) == len(runnable)
    with pytest.raises(SweepError, match="nothing that is chosen of s can be run"):
        part("dataset=digits and size=32", limit=3)


def test_a_larger_budget_buys_what_a_smaller_one_buys_and_spends_no_more_than_it_is(whole):
    parts = np.array([0.01, 0.03, 0.1, 0.3, 0.8, 1.0])
    budgets = (parts * whole.core_h * (1 + 1e-9)).tolist()
    plans = [part(budget=f"{budget}core-h") for budget in budgets]
    for smaller, larger in itertools.pairwise(plans):
        assert set(smaller.experiment_ids) < set(larger.experiment_ids)
    for budget, plan in zip(budgets, plans, strict=True):
        assert plan.core_h <= budget
        assert not plan.has_problem.any()
    assert len(plans[-1]) == (~whole.has_problem).sum()
    assert part(budget=f"{budgets[1]}core-h").experiment_ids == plans[1].experiment_ids
    # In the order of the sweep, not in that of the purchase.
    places = [whole.experiment_ids.index(each) for each in plans[2].experiment_ids]
    assert places == sorted(places)


def test_a_budget_that_buys_nothing_says_what_the_least_costs():
    with pytest.raises(
        SweepError, match=r"--budget 1e-12core-h is too little: the cheapest .* of s"
    ):
        part(budget="1e-12core-h")


def test_the_rest_of_a_sweep_is_not_asked_for_where_its_data_cannot_be_read():
    sets = ["iris", "no/such.csv"]
    chosen = part("dataset=iris", dataset=sets, shape="rectangle")
    assert set(chosen.requested) == set(chosen.experiment_ids)
    assert part("depth=3", dataset=sets, shape="rectangle").lacks_data.sum() == 4


def test_assignments_reach_the_plan(tmp_path):
    path = tmp_path / "s.toml"
    path.write_text('dataset = "iris"\nsize = [100, 200]\ndepth = 3\n')
    sweep = read_sweep(str(path), ["size=100,300", "epochs=2", "repetitions=4"], "size > 200")
    (only,) = plan_experiments(sweep)
    assert (only.spec.size, only.spec.epochs, only.repetitions) == (300, 2, 4)
    with pytest.raises(SweepError, match="--filter 'dataset=irsi': dataset = 'irsi': there is no"):
        read_sweep(str(path), condition="dataset=irsi")


def test_a_sweep_of_pairs_selects_nothing():
    pairs = tuple(load_sweep("quickstart").experiments[:3])
    assert len(plan_experiments(Sweep("pairs", "", pairs, {}))) == 3
    assert planning.MAX_CELLS > 352_004
