"""Rows as the room `runs` would hand them over: made here so that no test needs to train."""

from datetime import UTC, datetime

import numpy as np
import pytest

from minibutter.store import METRICS, SCHEMA_VERSION, ShardWriter
from minibutter.store.schema import (
    COUNTERS,
    EPOCHS_SCHEMA,
    TILING_SIZES,
    TRAFFIC_LEVELS,
    WORKING_SETS,
)

PARTS_OF_ENERGY = ("energy_idle_j", "energy_dynamic_j", "energy_package_j", "energy_mode",
                   "energy_ranks")  # fmt: skip


@pytest.fixture(scope="session")
def make_run():
    """A function: a completed run; keyword arguments replace columns."""

    def make(run_id="r0", experiment_id="e0", repetition=0, epochs=3, **columns):
        run = {
            "run_id": run_id,
            "experiment_id": experiment_id,
            "repetition": repetition,
            "sweep": "first look",
            "dataset": "iris",
            "target": None,
            "task_override": None,
            "dataset_digest": None,
            "shape": "rectangle",
            "size": 512,
            "depth": 3,
            "activation": "relu",
            "initializer": "glorot_uniform",
            "parameterization": "standard",
            "sigma0": 1.0,
            "bias_multiplier": 1.0,
            "base_width": None,
            "optimizer": "adam",
            "learning_rate": 1e-4,
            "learning_rate_step_epochs": None,
            "learning_rate_gamma": 0.1,
            "momentum": 0.0,
            "nesterov": False,
            "momentum_form": "keras",
            "perturbation": 1,
            "batch_size": 256,
            "batch_rule": "fixed",
            "batch_exchange_rate": None,
            "batch_size_max": None,
            "sampling": "shuffle",
            "epochs": epochs,
            "l1": 0.0,
            "l2": 0.0,
            "label_noise": 0.0,
            "test_split": 0.2,
            "split_method": "shuffled",
            "dtype": "float32",
            "kernel": "tiled",
            **dict.fromkeys(TILING_SIZES),
            "cache_state": "warm",
            "slices": 1,
            "seed": 0,
            "evaluate_train": False,
            "measure": None,
            "on_divergence": "continue",
            "task": "classification",
            "widths": [18, 18, 3],
            "num_parameters": 489,
            "n_inputs": 4,
            "n_outputs": 3,
            "n_train": 120,
            "n_test": 30,
            "flops_per_epoch": 4.1e5,
            **{f"working_set_{name}_bytes": 2e4 for name in WORKING_SETS},
            "status": "completed",
            "diverged": False,
            "diverged_epoch": None,
            "epochs_completed": epochs,
            "error": None,
            "duration_s": 0.5,
            "energy_j": 12.25,
            "energy_source": "powercap:package",
            "energy_quality": "measured",
            "energy_reason": None,
            **{f"traffic_{level}_bytes": 1e5 for level in TRAFFIC_LEVELS},
            "energy_resolution_j": 0.05,
            "energy_idle_j": 4.0,
            "energy_dynamic_j": 8.25,
            "energy_package_j": 12.25,
            "energy_mode": "alone",
            "energy_ranks": 1,
            "energy_tail_j": None,
            "finish_spread_s": None,
            "foreign_load": None,
            "begun_ns": 1_000_000_000,
            "ended_ns": 1_500_000_000,
            "counters_reason": "nobody counted",
            "meter_reads": 8,
            "meter_cpu_s": 1e-4,
            "parts": 1,
            "parts_cut": 0,
            **{f"{size}_used": 8 for size in TILING_SIZES},
            "started_at": datetime(2026, 1, 2, 3, 4, 5, 678, tzinfo=UTC),
            "hostname": "node-1",
            "cpu_model": "a processor",
            "platform": "Linux",
            "python_version": "3.11.7",
            "minibutter_version": "0.1.0",
            "git_commit": None,
            "numpy_version": "2.4.6",
            "numba_version": "0.61",
            "llvmlite_version": "0.44",
            "blas": "openblas 0.3.30 (SkylakeX)",
            "affinity": "0-3",
            "governor": "performance",
            "turbo": True,
            "smt": False,
            "microcode": "0x1",
            "hypervisor": "none",
            "transparent_huge_pages": "madvise",
            "boot_id": "6d0bf1a0-0000-4000-8000-00000000000a",
            "package": None,
            "energy_reader_rank": None,
            "data_source": "scikit-learn",
            "data_sha256": None,
            "lanes": 1,
            "rank": 0,
            "n_ranks": 1,
            "ranks_together": 1,
            "schema_version": SCHEMA_VERSION,
        }
        run |= columns
        if run["energy_j"] is None:
            run |= dict.fromkeys(PARTS_OF_ENERGY) | columns
        return run

    return make


@pytest.fixture(scope="session")
def make_epochs():
    """A function: smooth noisy curves of one run; keyword arguments replace columns."""

    def make(n=3, seed=0, **columns):
        rng = np.random.default_rng(seed)
        n_test, n_classes = 980, 7
        epoch = np.arange(1, n + 1)

        def curve(start, end, noise):
            decay = np.exp(-epoch / (0.1 * n + 1) * rng.uniform(0.5, 2))
            return (end + (start - end) * decay) * (1 + noise * rng.standard_normal(n))

        epochs = {"epoch": epoch.astype(np.int32)}
        # The wine-quality curves of BUTTER move by about as much from one epoch to the next.
        for side, noise in (("train", 0.001), ("test", 0.005)):
            mse, mae = curve(0.12, 0.08, noise), curve(0.24, 0.15, noise)
            loss = curve(1.9, 0.8, noise)
            correct = np.rint(n_test * (1 - curve(0.8, 0.3, noise)))
            values = {
                "loss": loss,
                "accuracy": correct / n_test,
                "mean_squared_error": mse,
                "mean_absolute_error": mae,
                "root_mean_squared_error": np.sqrt(mse),
                "mean_squared_logarithmic_error": curve(0.06, 0.04, noise),
                "hinge": mae + 1 - 1 / n_classes,
                "squared_hinge": mse + mae + 1 - 1 / n_classes,
                "cosine_similarity": curve(0.4, 0.7, noise),
                "kullback_leibler_divergence": loss - 8e-6,
            }
            epochs |= {f"{side}_{name}": values[name].astype(np.float32) for name in METRICS}
            epochs[f"{side}_penalty"] = np.zeros(n, np.float32)
        duration_s = 0.05 * (1 + 0.02 * rng.standard_normal(n))
        epochs |= {f"trained_{name}": None for name in METRICS}
        epochs |= {"batch_size_used": np.full(n, 256, np.int32), "steps": np.full(n, 8, np.int32)}
        epochs |= dict.fromkeys(name for name in EPOCHS_SCHEMA.names if name.startswith("noise_"))
        epochs |= {
            "duration_s": duration_s,
            "energy_j": np.rint(duration_s * 80e6 * (1 + 0.01 * rng.standard_normal(n))) / 1e6,
            "energy_source": ["powercap:package"] * n,
            "energy_quality": ["measured"] * n,
            "energy_reason": None,
            "energy_resolution_j": np.rint(rng.normal(160.0, 2.0, n)) / 1024,
            "energy_window_s": None,
            **dict.fromkeys(COUNTERS),
        }
        return epochs | columns

    return make


@pytest.fixture(scope="session")
def store_runs(make_run, make_epochs):
    """A function: write runs of the given ids, three epochs each, into one shard."""

    def store(directory, *run_ids, **columns):
        with ShardWriter(directory, "rank0", interval_s=1e9) as writer:
            for run_id in run_ids:
                run = make_run(run_id, **columns)
                writer.add(run, make_epochs(3, seed=sum(run_id.encode())))

    return store
