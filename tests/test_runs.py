"""One run: what it does with its specification, and what it stores when it cannot."""

import errno
from dataclasses import replace

import numpy as np
import pytest

from minibutter import hierarchy, preparation, runs, store
from minibutter.energy import open_meter
from minibutter.energy.counters import open_counters
from minibutter.energy.environment import read_environment
from minibutter.energy.simulated import PowerModel, build
from minibutter.nn.groups import TrainingGroup
from minibutter.nn.kernels import tiling
from minibutter.nn.kernels.metrics import METRICS
from minibutter.nn.kernels.tiling import Tiling
from minibutter.nn.optimizers import make_optimizer
from minibutter.nn.parameterization import make_parameterization
from minibutter.nn.schedules import StepSchedule
from minibutter.provenance import read_provenance
from minibutter.store.schema import COUNTERS
from minibutter.sweeps.identity import random_stream
from tests.counters import STEP, FakePackage
from tests.executions import bits, execute, execute_group, ticking_meter
from tests.partners import on_ranks


def test_a_result_has_exactly_the_columns_of_the_store(plan):
    result = execute(plan())
    assert set(result.run) == set(store.RUNS_SCHEMA.names)
    assert set(result.epochs) == set(store.EPOCHS_SCHEMA.names) - {"run_id"}
    assert result.run["status"] == "completed"
    assert result.run["widths"] == list(plan().network.widths)
    assert result.epochs["epoch"].tolist() == [1, 2, 3]


def test_a_failed_result_has_the_same_columns(plan):
    result = execute(plan(size=10_000, depth=2, dataset="diabetes", batch_size=5000))
    assert set(result.run) == set(store.RUNS_SCHEMA.names)
    assert set(result.epochs) == set(store.EPOCHS_SCHEMA.names) - {"run_id"}
    assert (result.run["status"], result.run["epochs_completed"]) == ("failed", 0)


def test_the_same_run_twice_gives_the_same_bits_and_another_repetition_does_not(plan):
    experiment = plan(label_noise=0.2, l1=1e-4)
    first, again, other = (execute(experiment, repetition) for repetition in (3, 3, 4))
    for part in ("train", "test"):
        for name in METRICS:
            column = f"{part}_{name}"
            assert first.epochs[column].tobytes() == again.epochs[column].tobytes()
    assert first.epochs["test_loss"].tobytes() != other.epochs["test_loss"].tobytes()


def test_the_rank_changes_provenance_and_nothing_else(plan):
    alone, third = execute(plan()), execute(plan(), rank=2, n_ranks=3)
    assert alone.epochs["train_loss"].tobytes() == third.epochs["train_loss"].tobytes()
    assert (third.run["rank"], third.run["n_ranks"]) == (2, 3)


def test_every_run_records_the_state_that_it_found_and_not_that_of_the_process_start(
    plan, monkeypatch
):
    found = replace(read_environment(), governor="performance", turbo=None, affinity="0-3,8")
    monkeypatch.setattr(runs, "recent_environment", lambda: found)
    first = execute(plan()).run
    monkeypatch.setattr(runs, "recent_environment", lambda: replace(found, governor="powersave"))
    assert {name: first[name] for name in found.columns()} == found.columns()
    assert execute(plan()).run["governor"] == "powersave"


def test_metrics_are_stored_in_float32_whatever_the_precision_of_training(plan):
    for dtype in ("float32", "float64"):
        assert execute(plan(dtype=dtype)).epochs["test_loss"].dtype == np.float32


def test_end_of_epoch_training_metrics_are_null_unless_asked_for(plan):
    assert execute(plan()).epochs["trained_loss"] == [None] * 3
    measured = execute(plan(evaluate_train=True)).epochs["trained_loss"]
    assert np.isfinite(measured).all()


def test_a_penalty_stands_apart_from_the_loss(plan):
    with_penalty = execute(plan(l2=0.5)).epochs
    without = execute(plan()).epochs
    assert (with_penalty["test_penalty"] > 0.1).all()
    assert (without["test_penalty"] == 0).all()


def test_a_diverged_run_is_recorded_to_its_end_or_stops_by_choice(plan):
    # With l2 = 1 every step multiplies the weights by -2e19, whatever the data: inf in two steps.
    wild = {"optimizer": "sgd", "learning_rate": 1e19, "l2": 1.0, "epochs": 6}
    goes_on = execute(plan(**wild))
    assert goes_on.run["status"] == "completed"
    assert goes_on.run["diverged"]
    assert not np.isfinite(goes_on.epochs["test_loss"][-1])
    stops = execute(plan(**wild, on_divergence="stop"))
    assert stops.run["status"] == "stopped"
    assert stops.run["epochs_completed"] == stops.run["diverged_epoch"] < 6
    assert len(stops.epochs["epoch"]) == stops.run["epochs_completed"]


def test_energy_is_a_number_with_a_source_or_null_with_a_reason(plan):
    result = execute(plan())
    for energy, source, reason in zip(
        [result.run["energy_j"], *result.epochs["energy_j"]],
        [result.run["energy_source"], *result.epochs["energy_source"]],
        [result.run["energy_reason"], *result.epochs["energy_reason"]],
        strict=True,
    ):
        assert (energy is None) == (reason is not None)
        assert (energy is None) == (source is None)
        assert energy is None or energy > 0


def test_rapl_counters_fill_the_energy_columns_where_they_can_be_read(plan, tmp_path):
    with ticking_meter(tmp_path) as meter:
        result = runs.execute(plan(), 0, meter=meter, provenance=read_provenance(), sweep="test")
    assert result.epochs["energy_j"] == [10.0, 10.0, 10.0]
    # One reading before the first epoch, two for each of three epochs, one at the end.
    assert result.run["energy_j"] == 7 * 10.0
    assert result.run["meter_reads"] == 8
    assert 0 < result.run["meter_cpu_s"] < 1
    # 5 W, for a tick and half of a reading of a second at each end, rounded up to eight bits.
    assert 5 * 2 * 0.501 <= result.run["energy_resolution_j"] < 1.01 * 5 * 2 * 0.501
    assert result.epochs["energy_resolution_j"] == [result.run["energy_resolution_j"]] * 3
    assert result.epochs["energy_window_s"] == [None, None, None]
    assert result.run["energy_source"] == "powercap:package"
    assert set(result.epochs["energy_quality"]) == {"measured"}
    assert set(result.epochs["energy_reason"]) == {None}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_repetitions_that_are_trained_together_have_the_bits_of_single_runs(plan, dtype):
    experiment = plan(dtype=dtype, label_noise=0.2, l2=1e-3, evaluate_train=True)
    wanted = [4, 0, 7]
    together = execute_group(experiment, wanted)
    for repetition, result in zip(wanted, together, strict=True):
        assert bits(result) == bits(execute(experiment, repetition))
        assert (result.run["repetition"], result.run["lanes"]) == (repetition, 3)
    assert bits(together[0]) != bits(together[1])
    assert execute(experiment).run["lanes"] == 1


def test_more_repetitions_than_lanes_and_other_rungs_are_trained_one_by_one(plan):
    for experiment, n in ((plan(epochs=1), 17), (plan(epochs=1, kernel="blocked"), 2)):
        results = execute_group(experiment, range(n))
        assert [result.run["repetition"] for result in results] == list(range(n))
        assert {result.run["lanes"] for result in results} == {1}
        assert {result.run["status"] for result in results} == {"completed"}


def test_repetitions_of_which_only_some_have_binary_targets_are_trained_one_by_one(plan, tmp_path):
    """Only one row has a target between 0 and 1, and it is a test row of some repetitions only."""
    path = tmp_path / "nearly.csv"
    rows = [f"{i},{i % 2}" for i in range(30)] + ["31,0.5"]
    path.write_text("a,y\n" + "\n".join(rows) + "\n")
    experiment = plan(dataset=str(path), target="y", task="regression", batch_size=8, epochs=1)
    results = execute_group(experiment, range(8))
    assert {result.run["lanes"] for result in results} == {1}
    assert [bits(result) for result in results] == [
        bits(execute(experiment, repetition)) for repetition in range(8)
    ]


def test_a_repetition_that_cannot_be_prepared_fails_alone(plan, monkeypatch):
    prepare = runs.prepare

    def exhaust(experiment, repetition, dataset):
        if repetition == 1:
            raise MemoryError("Unable to allocate 3.00 TiB")
        return prepare(experiment, repetition, dataset)

    monkeypatch.setattr(runs, "prepare", exhaust)
    results = execute_group(plan(), range(3))
    assert [result.run["status"] for result in results] == ["completed", "failed", "completed"]
    assert [result.run["lanes"] for result in results] == [2, None, 2]
    assert [bits(results[2])] == [bits(execute(plan(), 2))]


def test_a_group_that_wants_too_much_memory_is_trained_one_by_one(plan, monkeypatch):
    class Small(TrainingGroup):
        def __init__(self, network, starts, *arguments, **options):
            if len(starts) > 1:
                raise MemoryError
            super().__init__(network, starts, *arguments, **options)

    monkeypatch.setattr(preparation, "TrainingGroup", Small)
    results = execute_group(plan(), range(3))
    assert [(r.run["status"], r.run["lanes"]) for r in results] == [("completed", 1)] * 3


def test_a_repetition_that_stops_leaves_its_group_and_the_others_go_on(plan, monkeypatch):
    """The penalty multiplies weights by -3 in every step: the larger the first, the sooner inf."""
    prepare = runs.prepare

    def enlarge(experiment, repetition, dataset):
        start = prepare(experiment, repetition, dataset)
        start.parameters[:] *= 10 ** (5 * repetition)
        return start

    monkeypatch.setattr(runs, "prepare", enlarge)
    wild = {"optimizer": "sgd", "learning_rate": 1e-20, "l2": 2e20, "batch_size": 120}
    experiment = plan(**wild, epochs=20, on_divergence="stop")
    together = execute_group(experiment, range(3))
    completed = [result.run["epochs_completed"] for result in together]
    assert completed[0] == 20 > completed[1] > completed[2] > 1
    assert [r.run["status"] for r in together] == ["completed", "stopped", "stopped"]
    assert together[1].run["diverged_epoch"] == completed[1]
    assert together[2].run["duration_s"] < together[0].run["duration_s"]
    for repetition, result in enumerate(together):
        assert len(result.epochs["epoch"]) == result.run["epochs_completed"]
        assert bits(result) == bits(execute(experiment, repetition))


def test_a_group_ends_when_all_of_it_has_stopped(plan):
    wild = {"optimizer": "sgd", "learning_rate": 1e19, "l2": 1.0, "epochs": 100}
    seen = []
    execute_group(
        plan(**wild, on_divergence="stop"),
        range(4),
        on_epoch=lambda epoch, row: seen.append((epoch, row.is_finite)),
    )
    assert len(seen) < 100
    assert not seen[-1][1]


def test_durations_and_energies_of_a_group_are_shared_equally(plan, tmp_path):
    with ticking_meter(tmp_path) as meter:
        alone = runs.execute(plan(), 0, meter=meter, provenance=read_provenance(), sweep="test")
        together = execute_group(plan(), range(4), meter)
    for result in together:
        assert (result.epochs["energy_j"]) == [10.0 / 4] * 3
        assert result.run["energy_j"] == alone.run["energy_j"] / 4
        assert result.run["energy_quality"] == "measured_divided"
        assert set(result.epochs["energy_quality"]) == {"measured_divided"}
        assert result.run["duration_s"] >= result.epochs["duration_s"].sum() > 0
    assert len({result.run["duration_s"] for result in together}) == 1
    assert alone.run["energy_quality"] == "measured"


def test_a_simulated_machine_fills_the_columns_and_says_so(plan, tmp_path):
    """Static power of 44 W per socket, and what the declared work draws."""
    machine = build(tmp_path / "machine", "intel_server2", PowerModel(joules_per_flop=1e-6))
    experiment = plan(epochs=40)
    with open_meter(machine.root) as meter:
        (result,) = execute_group(experiment, [0], meter)
    run, epochs = result.run, result.epochs
    assert run["energy_source"] == "simulated:package+dram"
    assert {run["energy_quality"], *epochs["energy_quality"]} == {"simulated"}
    worked_j = 40 * experiment.flops_per_epoch * 1e-6
    static_j = 88.0 * run["duration_s"]
    # A tick at each end, and the moments between the meter's stamps and the clock's.
    assert run["energy_j"] == pytest.approx(static_j + worked_j, rel=0.05, abs=0.5)
    assert worked_j > 2.0
    assert sum(epochs["energy_j"]) <= run["energy_j"]


def test_epochs_too_short_for_the_counters_share_windows(plan, tmp_path):
    """Iris takes well under 10 ms an epoch."""
    machine = build(tmp_path / "machine", "amd_zen")
    with open_meter(machine.root) as meter:
        (result,) = execute_group(plan(epochs=60), [0], meter)
    epochs = result.epochs
    short = np.array(epochs["duration_s"]) < 0.0099
    assert short.sum() > 30
    assert all(epochs["energy_window_s"][i] >= 0.010 for i in np.flatnonzero(short))
    assert all(energy > 0 for energy in epochs["energy_j"])
    assert result.run["meter_reads"] >= 2 + 2 * 60


def test_counts_of_every_epoch_are_stored_and_lanes_share_them(plan):
    package = FakePackage()
    counters = open_counters(importer=package)
    alone = execute(plan(), counters=counters)
    assert {name: alone.epochs[name] for name in COUNTERS} == {
        name: [n] * 3 for name, n in STEP.items()
    }
    assert alone.run["counters_reason"] is None
    for result in execute_group(plan(), range(4), counters=counters):
        assert {name: result.epochs[name] for name in COUNTERS} == {
            name: [n // 4] * 3 for name, n in STEP.items()
        }
    # Opened before the first run, and never again.
    assert sorted(package.opened) == sorted(COUNTERS)


def test_an_epoch_that_was_not_counted_is_null_with_the_reason_in_its_run(plan):
    package = FakePackage()

    def disturb(epoch, row):
        package.off = {"llc_loads"} if epoch == 1 else set()

    result = execute(plan(), counters=open_counters(importer=package), on_epoch=disturb)
    assert result.epochs["llc_loads"] == [STEP["llc_loads"], None, STEP["llc_loads"]]
    assert result.epochs["cycles"] == [STEP["cycles"]] * 3
    assert result.run["counters_reason"].startswith("llc_loads: in 1 of 3 epochs off its counter")


def test_counters_that_cannot_be_opened_are_null_and_the_numbers_of_the_run_the_same(plan):
    package = FakePackage()
    counted = execute(plan(), counters=open_counters(importer=package))
    package.refused = dict.fromkeys(COUNTERS, errno.ENOENT)
    result = execute(plan(), counters=open_counters(importer=package))
    assert {name: result.epochs[name] for name in COUNTERS} == dict.fromkeys(COUNTERS)
    assert result.run["counters_reason"].startswith(f"{', '.join(COUNTERS)}: ENOENT: ")
    assert bits(result) == bits(counted)


def test_a_run_that_stops_early_has_the_counts_of_its_own_epochs(plan, monkeypatch):
    prepare = runs.prepare

    def enlarge(experiment, repetition, dataset):
        start = prepare(experiment, repetition, dataset)
        start.parameters[:] *= 10 ** (10 * repetition)
        return start

    monkeypatch.setattr(runs, "prepare", enlarge)
    wild = {"optimizer": "sgd", "learning_rate": 1e-20, "l2": 2e20, "batch_size": 120}
    package = FakePackage()

    def disturb(epoch, row):
        package.off = {"cycles"} if epoch == 19 else set()

    experiment = plan(**wild, epochs=20, on_divergence="stop")
    results = execute_group(
        experiment, range(2), counters=open_counters(importer=package), on_epoch=disturb
    )
    completed = [result.run["epochs_completed"] for result in results]
    assert completed[0] == 20 > completed[1]
    assert [len(result.epochs["cycles"]) for result in results] == completed
    assert results[0].epochs["cycles"][-1] is None
    assert "in 1 of 20 epochs" in results[0].run["counters_reason"]
    # What happened after its end is no matter of the second run.
    assert results[1].run["counters_reason"] is None


def test_a_failed_run_says_that_it_was_not_counted(plan):
    result = execute(plan(size=10_000, depth=2, dataset="diabetes", batch_size=5000))
    assert result.run["counters_reason"] == result.run["energy_reason"]
    assert {name: result.epochs[name] for name in COUNTERS} == dict.fromkeys(COUNTERS)


TILING = {"tile_rows": 4, "tile_columns": 32, "block_rows": 48, "block_depth": 64}


def test_sizes_of_tiles_are_stored_as_asked_for_and_as_used(plan):
    run = execute(plan(**TILING)).run
    used = Tiling(**TILING).resolved("float32")
    assert run["status"] == "completed"
    assert {size: run[size] for size in TILING} == TILING
    assert run["block_columns"] is None
    assert run["block_columns_used"] == used.block_columns > 0
    assert run["tile_rows_used"] == 4


def test_a_default_size_of_the_machine_does_not_enter_the_id(plan, monkeypatch):
    here, depth_here = plan(), execute(plan()).run["block_depth_used"]
    monkeypatch.setattr(tiling, "_CACHES", {1: 3 * 2**16, 2: 2**21, 3: 2**22})
    elsewhere = plan()
    assert elsewhere.experiment_id == here.experiment_id
    assert elsewhere.network == here.network
    run = execute(elsewhere).run
    depth_there = Tiling().resolved("float32").block_depth
    assert (run["block_depth"], run["block_depth_used"]) == (None, depth_there)
    assert depth_there != depth_here
    assert plan(tile_rows=4).experiment_id != here.experiment_id


# ---------------------------------------------------------------------------------------------
# Bad input


def test_an_unreachable_size_becomes_a_problem_that_names_the_nearest_reachable_size(plan):
    experiment = plan(dataset="mnist", size=1024, depth=2)
    assert "size 1024 is unreachable" in experiment.problem
    assert "nearest reachable size: 1006" in experiment.problem
    result = execute(experiment)
    assert result.run["error"] == experiment.problem
    assert result.run["energy_reason"]


def test_butters_own_batch_of_256_takes_a_smaller_training_set_whole(plan):
    """505_tecator has 192 training rows and was trained with batches of 256, as Keras allows."""
    experiment = plan(dataset="505_tecator", size=1024, batch_size=256)
    assert (experiment.n_train, experiment.problem) == (192, None)
    result = execute(plan(batch_size=256))
    assert result.run["status"] == "completed"


def test_a_file_with_a_missing_value_fails_the_run_and_not_the_sweep(plan, tmp_path):
    path = tmp_path / "holes.csv"
    path.write_text("a,b,y\n" + "".join(f"{i},{i * 2},{i % 2}\n" for i in range(30)) + "1,,0\n")
    experiment = plan(dataset=str(path), target="y")
    assert "'b'" in experiment.problem
    assert execute(experiment).run["status"] == "failed"


def test_running_out_of_memory_is_a_stored_result(plan, monkeypatch):
    def exhaust(*_):
        raise MemoryError("Unable to allocate 3.00 TiB")

    monkeypatch.setattr(runs, "prepare", exhaust)
    result = execute(plan())
    assert result.run["status"] == "failed"
    assert "out of memory: Unable to allocate 3.00 TiB; run fewer ranks" in result.run["error"]


def test_what_nobody_foresaw_is_not_stored_as_a_result(plan, monkeypatch):
    def bug(*_):
        raise ZeroDivisionError

    monkeypatch.setattr(runs, "prepare", bug)
    with pytest.raises(ZeroDivisionError):
        execute(plan())


def test_the_streams_of_a_run_follow_from_its_id_alone(plan, monkeypatch):
    asked = []
    original = preparation.identity.random_stream
    monkeypatch.setattr(
        preparation.identity,
        "random_stream",
        lambda *key: asked.append(key) or original(*key),
    )
    experiment = plan(label_noise=0.1, seed=7)
    execute(experiment, 3, rank=5, n_ranks=9)
    assert {key[:2] + key[3:] for key in asked} == {(experiment.experiment_id, 3, 7)}
    assert {key[2] for key in asked} == {"split", "init", "shuffle", "label_noise"}


@pytest.mark.parametrize(
    "momentum",
    [{}, {"momentum": 0.9, "momentum_form": "torch"}, {"momentum": 0.9, "nesterov": True}],
)
def test_perturbed_runs_start_where_the_others_do_and_see_the_same_batches(plan, momentum):
    options = {"optimizer": "sgd", "learning_rate": 0.1, "activation": "tanh"} | momentum

    def parts(experiment):
        start = runs.prepare(experiment, 0, runs.find_data(experiment, None))
        return start.parameters.tobytes(), start.data.x_train.tobytes(), start.shuffle.random()

    usual = plan(**options)
    results = {}
    for k in (1, 2, 3):
        experiment = plan(**options, perturbation=k)
        assert (experiment.experiment_id == usual.experiment_id) == (k == 1)
        assert experiment.stream_id == usual.experiment_id
        assert parts(experiment) == parts(usual)
        result = execute(experiment)
        assert result.run["perturbation"] == k
        results[k] = [result.epochs[f"test_{name}"].tobytes() for name in METRICS]
    assert results[2] == results[1]


@pytest.mark.parametrize(
    "options",
    [
        {"parameterization": "standard"},
        {"parameterization": "ntk", "bias_multiplier": 0.5},
        {"parameterization": "mup", "base_width": 4},
    ],
    ids=lambda options: options["parameterization"],
)
def test_a_run_has_its_parameterization_schedule_and_sampling(plan, options):
    experiment = plan(
        initializer="gaussian", sigma0=1.4, learning_rate=0.01, epochs=3, sampling="replacement",
        learning_rate_step_epochs=2, learning_rate_gamma=0.5, **options,
    )  # fmt: skip
    scales = make_parameterization(
        options["parameterization"], experiment.network, "adam", 1.4,
        options.get("bias_multiplier", 1.0), options.get("base_width"),
    )  # fmt: skip
    stream = random_stream(experiment.stream_id, 0, "init", 0)
    expected = scales.initial_parameters(experiment.network, stream)
    start = runs.prepare(experiment, 0, runs.find_data(experiment, None))
    assert start.parameters.tobytes() == expected.tobytes()
    group = TrainingGroup(
        experiment.network, [start], make_optimizer("adam", 0.01),
        batch_size=experiment.spec.batch_size, parameterization=scales,
        schedule=StepSchedule(2, 0.5), sampling="replacement",
    )  # fmt: skip
    result = execute(experiment)
    assert result.run["status"] == "completed"
    assert result.run["parameterization"] == options["parameterization"]
    expected = [group.run_epoch()[0].test[0] for _ in range(3)]
    assert result.epochs["test_loss"].tolist() == np.float32(expected).tolist()


@pytest.mark.usefixtures("server_caches")
def test_cold_caches_change_no_metric_but_the_id(plan):
    warm, cold = plan(), plan(cache_state="cold")
    assert warm.experiment_id != cold.experiment_id
    assert warm.stream_id == cold.stream_id == warm.experiment_id
    one, other = execute(warm), execute(cold)
    for name in METRICS:
        assert one.epochs[f"test_{name}"].tobytes() == other.epochs[f"test_{name}"].tobytes()
    assert (one.run["cache_state"], other.run["cache_state"]) == ("warm", "cold")
    # All of iris fits into a cache: nothing moves when warm, everything once when cold.
    assert one.run["traffic_dram_bytes"] == 0 < other.run["traffic_dram_bytes"]


@pytest.mark.usefixtures("server_caches")
def test_caches_are_flushed_before_every_epoch_and_outside_of_its_energy(
    plan, tmp_path, monkeypatch
):
    flushes = []
    monkeypatch.setattr(runs.CacheFlusher, "flush", lambda self: flushes.append(self))
    with ticking_meter(tmp_path) as meter:
        looked = meter.stamp

        def stamp():
            flushes.append("read")
            return looked()

        monkeypatch.setattr(meter, "stamp", stamp)
        execute_cold = plan(cache_state="cold", epochs=2)
        runs.execute(execute_cold, 0, meter=meter, provenance=read_provenance(), sweep="test")
    kinds = ["read" if entry == "read" else "flush" for entry in flushes]
    assert kinds == ["read", *["flush", "read", "read"] * 2, "read"]


@pytest.mark.usefixtures("server_caches")
def test_a_run_tells_what_an_epoch_computes_keeps_and_moves(plan):
    run = execute(plan()).run
    workload = plan().workload
    assert run["flops_per_epoch"] == workload.flops > 0
    sets = workload.working_sets
    assert {name: run[f"working_set_{name}_bytes"] for name in sets} == sets
    assert run["traffic_l1_bytes"] > run["flops_per_epoch"] / 100
    columns = [f"traffic_{level}_bytes" for level in ("l1", "l2", "l3", "dram")]
    assert all(run[column] >= 0 for column in columns)
    blas = execute(plan(kernel="blas")).run
    assert [blas[column] for column in columns] == [None] * 4
    assert blas["flops_per_epoch"] == run["flops_per_epoch"]


@pytest.mark.usefixtures("unknown_caches")
def test_without_the_sizes_of_the_caches_bytes_are_null_and_a_cold_run_fails(plan):
    run = execute(plan()).run
    assert run["status"] == "completed"
    assert [run[f"traffic_{level}_bytes"] for level in ("l1", "l2", "l3", "dram")] == [None] * 4
    assert run["working_set_parameter_bytes"] > 0
    cold = execute(plan(cache_state="cold")).run
    assert (cold["status"], cold["epochs_completed"], cold["energy_j"]) == ("failed", 0, None)
    assert "sysfs tells of no data cache of CPU 0-1" in cold["error"]


def test_traffic_of_packed_repetitions_is_not_known(plan):
    (first, _) = execute_group(plan(), [0, 1])
    assert first.run["lanes"] == 2
    assert first.run["traffic_l1_bytes"] is None
    assert first.run["flops_per_epoch"] > 0


def test_caches_that_cannot_be_emptied_here_fail_the_run_and_not_the_job(plan, monkeypatch):
    """As on a node that hides its caches, unlike the one that planned, or without memory."""
    cold = plan(cache_state="cold")

    def refuse():
        raise MemoryError("no 520 MiB")

    monkeypatch.setattr(hierarchy, "flushed_bytes", refuse)
    result = execute(cold)
    assert result.run["status"] == "failed"
    assert "out of memory: no 520 MiB" in result.run["error"]


# ---------------------------------------------------------------------------------------------
# Slices, on threads in the place of ranks


def execute_together(experiment, n_ranks, **options):
    """The result of every rank."""
    return on_ranks(n_ranks, lambda partners: execute(experiment, partners=partners, **options))


def test_ranks_that_share_out_slices_have_the_same_metrics_as_one(plan):
    experiment = plan(slices=5, l2=1e-4, evaluate_train=True)
    (alone,), together = execute_together(experiment, 1), execute_together(experiment, 3)
    assert [result.run["ranks_together"] for result in together] == [3, 3, 3]
    assert (alone.run["slices"], alone.run["ranks_together"]) == (5, 1)
    for result in together:
        assert result.run["run_id"] == alone.run["run_id"]
        for name in METRICS:
            for part in ("train", "test", "trained"):
                column = f"{part}_{name}"
                assert result.epochs[column].tobytes() == alone.epochs[column].tobytes()


def test_slices_change_no_metric_by_more_than_its_last_digits(plan):
    whole, sliced = execute(plan()), execute(plan(slices=4))
    assert whole.run["run_id"] != sliced.run["run_id"]
    np.testing.assert_allclose(sliced.epochs["test_loss"], whole.epochs["test_loss"], rtol=1e-5)


def test_traffic_of_slices_is_not_known(plan):
    run = execute(plan(slices=2)).run
    assert run["traffic_l1_bytes"] is None
    assert run["flops_per_epoch"] == execute(plan()).run["flops_per_epoch"]


def test_repetitions_with_slices_are_trained_one_by_one(plan):
    experiment = plan(slices=2)
    together = execute_group(experiment, [0, 1])
    assert [result.run["lanes"] for result in together] == [1, 1]
    for repetition, result in enumerate(together):
        alone = execute(experiment, repetition)
        assert result.epochs["test_loss"].tobytes() == alone.epochs["test_loss"].tobytes()


def test_a_rank_that_cannot_be_prepared_fails_the_run_on_all(plan, monkeypatch):
    experiment, prepare = plan(slices=2), runs.prepare
    names = iter(["first", "second"])

    def prepare_once(*arguments):
        if next(names) == "second":
            raise MemoryError("no room for the rows")
        return prepare(*arguments)

    monkeypatch.setattr(runs, "prepare", prepare_once)
    for result in execute_together(experiment, 2):
        assert (result.run["status"], result.run["epochs_completed"]) == ("failed", 0)
        assert "out of memory: no room for the rows" in result.run["error"]


def test_a_rank_without_memory_for_its_slices_fails_the_run_on_all(plan, monkeypatch):
    class Greedy(preparation.SlicedGroup):
        def __init__(self, *arguments, partners, **options):
            if partners.rank == 1:
                raise MemoryError("no room for gradients")
            super().__init__(*arguments, partners=partners, **options)

    monkeypatch.setattr(preparation, "SlicedGroup", Greedy)
    for result in execute_together(plan(slices=3), 2):
        assert result.run["status"] == "failed"
        assert "no room for gradients" in result.run["error"]
