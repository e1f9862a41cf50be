"""The columns of the two tables: names, types, units and meaning, as explicit Arrow schemas.

One row of `runs` is one run and one row of `epochs` is one epoch of one run; `run_id` joins them.
Every field carries metadata that travels inside each Parquet file: a `description`, a `unit`
where it has one, and its `kind`:

* identity: what was asked for, or a key derived from it;
* computed: follows from what was asked for, bitwise the same in every execution;
* modelled: predicted from what was asked for and the caches of the machine, never measured;
* measured: durations and energies, the only results that may differ between two executions;
* provenance: when, where and with which software a run was executed, and its error message.

NaN and infinity are values: a diverged run is a result. Null means "not measured" or "not known",
and only the fields inside `_or_null` may be null. Names and order of the metrics are BUTTER's.
"""

from functools import partial

import pyarrow as pa

SCHEMA_VERSION = 5
"""Raised when a column changes its name, type or meaning; written to every file and every run."""

METRICS = (
    "loss",
    "accuracy",
    "mean_squared_error",
    "mean_absolute_error",
    "root_mean_squared_error",
    "mean_squared_logarithmic_error",
    "hinge",
    "squared_hinge",
    "cosine_similarity",
    "kullback_leibler_divergence",
)

STATUSES = ("failed", "stopped", "completed")
"""Outcomes of a run, the one that says least first; a table keeps the best of two entries."""

ENERGY_QUALITIES = (
    "unavailable",
    "simulated",
    "modelled",
    "interpolated",
    "measured_shared",
    "measured_divided",
    "measured",
)
"""What an energy is worth, the weakest first. `simulated` was put in by a power model and measured
from its counters; `modelled` is an estimate of the host of a virtual machine; `interpolated` is
shared out by time over a window that was measured; `measured_shared` is a part by processor time of
packages that other ranks use, too; `measured_divided` is an equal part of the energy of repetitions
of one experiment that were trained at the same time, in the lanes of one rank or by the ranks of a
gang."""

ENERGY_MODES = {
    "alone": "all that the packages have drawn",
    "shared": "a part by processor time of packages that other ranks use, too",
    "gang": "an equal part: all ranks of the packages trained repetitions of one experiment",
}
"""How `energy_j` follows from the packages' energy."""

TILING_SIZES = {
    "tile_rows": "rows of the register tile",
    "tile_columns": "columns of the register tile",
    "block_rows": "rows of a cache block",
    "block_depth": "products of a sum in a cache block",
    "block_columns": "columns of a cache block",
}
"""Each has two columns: what was asked for, the same for all runs of an experiment, and what was
used, which follows from the caches of the machine where nothing was asked for."""

WORKING_SETS = {
    "parameter": "parameters, and a layer's units for a batch",
    "parameter2x": "parameters, gradients, and all units for a batch",
    "parameter2x_dataset": "parameters, gradients, all units for a batch, and the data set",
    "bwd_layer": "what the largest layer takes in and puts out for a batch",
}
TRAFFIC_LEVELS = {
    "l1": "registers and level 1",
    "l2": "levels 1 and 2",
    "l3": "levels 2 and 3",
    "dram": "the last level and memory",
}

COUNTERS = {
    "cycles": "cycles of the processor",
    "instructions": "instructions retired",
    "l1d_loads": "loads from the first level's data cache",
    "l1d_load_misses": "loads that the first level's data cache missed",
    "llc_loads": "loads from the last level of cache",
    "llc_load_misses": "loads that the last level of cache missed",
}
"""Hardware counters of the thread that trained."""

TEXT, FLAG = pa.string(), pa.bool_()
INT32, INT64 = pa.int32(), pa.int64()
FLOAT32, FLOAT64 = pa.float32(), pa.float64()
WIDTHS = pa.list_(pa.field("element", INT32))  # The name that Parquet gives to elements.


def _field(
    kind: str, name: str, type_: pa.DataType, description: str, unit: str | None = None
) -> pa.Field:
    metadata = {"kind": kind, "description": description} | ({"unit": unit} if unit else {})
    return pa.field(name, type_, nullable=False, metadata=metadata)


_identity = partial(_field, "identity")
_computed = partial(_field, "computed")
_modelled = partial(_field, "modelled")
_measured = partial(_field, "measured")
_provenance = partial(_field, "provenance")


def _or_null(field: pa.Field) -> pa.Field:
    return field.with_nullable(True)


def _metrics(prefix: str, where: str) -> list[pa.Field]:
    return [_computed(f"{prefix}_{name}", FLOAT32, f"{name} {where}") for name in METRICS]


def _energy(of: str) -> list[pa.Field]:
    return [
        _or_null(_measured("energy_j", FLOAT64, f"energy of processor and memory {of}", "J")),
        _or_null(_measured("energy_source", TEXT, "the counters that energy_j was read from")),
        _measured("energy_quality", TEXT, f"one of {', '.join(ENERGY_QUALITIES)}"),
        _or_null(_measured("energy_reason", TEXT, "why energy_j is null")),
        _or_null(
            _measured(
                "energy_resolution_j",
                FLOAT64,
                "how far off energy_j may be: two updates of the counters at mean power",
                "J",
            )
        ),
    ]


NOISE_STATES = {
    "resolved": "an interval of 95 % with both ends",
    "lower bound": "the squared gradient cannot be told from 0, the scale is at least so large",
    "upper bound": "the trace cannot be told from 0, the scale is at most so large",
    "unresolved": "no interval: too few steps, or nothing positive and finite to divide by",
}
"""What `noise_simple_scale_low` and `noise_simple_scale_high` say."""

_NOISE = [
    _computed(
        "noise_trace",
        FLOAT64,
        "tr Σ of the gradients of single rows, mean over the epoch's steps; null: not asked for",
    ),
    _computed(
        "noise_squared_gradient",
        FLOAT64,
        "|G|² of the training rows' loss without penalty, unbiased, mean over the epoch's steps",
    ),
    _computed(
        "noise_simple_scale",
        FLOAT64,
        "noise_trace / noise_squared_gradient; null where the latter is not positive",
        "rows",
    ),
    *(
        _computed(f"noise_simple_scale_{end}", FLOAT64, f"{end} end; null: see noise_state", "rows")
        for end in ("low", "high")
    ),
    _computed("noise_state", TEXT, f"one of {', '.join(NOISE_STATES)}; null: not asked for"),
]

_FILE_METADATA = {"minibutter_schema_version": str(SCHEMA_VERSION)}

EPOCHS_SCHEMA = pa.schema(
    [
        _identity("run_id", TEXT, "the run that this epoch belongs to"),
        _identity("epoch", INT32, "number of the epoch, from 1"),
        *_metrics("train", "over the training rows as visited, while the weights moved"),
        _computed("train_penalty", FLOAT32, "l1 and l2 penalty during the epoch, not in the loss"),
        *_metrics("test", "over the test rows, after the epoch"),
        _computed("test_penalty", FLOAT32, "l1 and l2 penalty after the epoch, not in the loss"),
        *map(_or_null, _metrics("trained", "over the training rows, after the epoch, if asked")),
        _computed("batch_size_used", INT32, "rows of a step; the last may have fewer", "rows"),
        _computed("steps", INT32, "updates that the optimizer made in the epoch"),
        *map(_or_null, _NOISE),
        _measured("duration_s", FLOAT64, "wall-clock time of the epoch, divided by lanes", "s"),
        *_energy("over the epoch, divided by lanes"),
        _or_null(
            _measured(
                "energy_window_s",
                FLOAT64,
                "measured window that energy_j is a share of by time; null: the epoch alone",
                "s",
            )
        ),
        *(
            _or_null(
                _measured(name, INT64, f"{what} in user space, divided by lanes; null: not counted")
            )
            for name, what in COUNTERS.items()
        ),
    ],
    metadata=_FILE_METADATA,
)

_KEYS = [
    _identity("run_id", TEXT, "identifies the experiment and the repetition"),
    _identity("experiment_id", TEXT, "identifies everything asked for but the repetition"),
    _identity("repetition", INT32, "index of the repetition, from 0"),
    _provenance("sweep", TEXT, "name of the sweep that the run was done for"),
]

_ASKED_FOR = [
    _identity("dataset", TEXT, "name of the data set"),
    _or_null(_identity("target", TEXT, "column to predict")),
    _or_null(_identity("task_override", TEXT, "task to train for, where not the data set's own")),
    _or_null(_identity("dataset_digest", TEXT, "hash of the content of a data file")),
    _identity("shape", TEXT, "outline of the layer widths"),
    _or_null(_identity("size", INT64, "trainable parameters to come near to")),
    _identity("depth", INT32, "dense layers, the output layer included"),
    _identity("activation", TEXT, "activation of the hidden layers"),
    _identity("initializer", TEXT, "distribution of the initial weights"),
    _identity("parameterization", TEXT, "how scales and rates of layers follow from the widths"),
    _identity("sigma0", FLOAT64, "of gaussian initial weights: variance sigma0² / fan_in"),
    _identity("bias_multiplier", FLOAT64, "β of z = m V x + β c, of the parameterization ntk"),
    _or_null(_identity("base_width", INT32, "of the parameterization mup; null: another one")),
    _identity("optimizer", TEXT, "update rule"),
    _identity("learning_rate", FLOAT64, "step size of the optimizer"),
    _or_null(
        _identity(
            "learning_rate_step_epochs", INT32, "epochs between its changes; null: it is constant"
        )
    ),
    _identity("learning_rate_gamma", FLOAT64, "what it is multiplied by in a change"),
    _identity("momentum", FLOAT64, "momentum of the optimizer"),
    _identity("nesterov", FLAG, "whether the momentum of sgd is Nesterov's"),
    _identity("momentum_form", TEXT, "of sgd: keras, learning rate in the buffer, or torch"),
    _identity("perturbation", INT32, "k of the step (k η) (d / k) of sgd; 1: the usual step"),
    _identity("batch_size", INT32, "rows in one step", "rows"),
    _identity("batch_rule", TEXT, "fixed, or noise_scale: from batch_size to batch_size_max rows"),
    _or_null(_identity("batch_exchange_rate", FLOAT64, "examples that a step is worth")),
    _or_null(_identity("batch_size_max", INT32, "most rows in one step, by the rule", "rows")),
    _identity("sampling", TEXT, "of the rows of an epoch: shuffle, or replacement: by lot"),
    _identity("epochs", INT32, "passes over the training rows to do"),
    _identity("l1", FLOAT64, "weight of the sum of absolute weights in the penalty"),
    _identity("l2", FLOAT64, "weight of the sum of squared weights in the penalty"),
    _identity("label_noise", FLOAT64, "fraction of training labels made wrong"),
    _identity("test_split", FLOAT64, "fraction of the rows kept for testing"),
    _identity("split_method", TEXT, "how rows are dealt to training and testing"),
    _identity("dtype", TEXT, "floating-point type of data, weights and gradients"),
    _identity("kernel", TEXT, "rung of the matrix products"),
    *(
        _or_null(_identity(size, INT32, f"{what} asked for; null: the machine's default"))
        for size, what in TILING_SIZES.items()
    ),
    _identity("cache_state", TEXT, "caches at the start of an epoch: warm, or cold: emptied"),
    _identity("slices", INT32, "parts of a batch whose gradients are added; 1: not cut"),
    _identity("seed", INT64, "root of all random streams"),
    _identity("evaluate_train", FLAG, "whether the columns trained_* are filled"),
    _or_null(_identity("measure", TEXT, "what is measured beside the metrics; null: nothing")),
    _identity("on_divergence", TEXT, "what happens once the loss is not finite"),
]

_FACTS = [
    _or_null(_computed("task", TEXT, "what is predicted: a number, a class, one of two")),
    _or_null(_computed("widths", WIDTHS, "units of each layer, the output included")),
    _or_null(_computed("num_parameters", INT64, "trainable parameters, weights and biases")),
    _or_null(_computed("n_inputs", INT32, "columns of the encoded data")),
    _or_null(_computed("n_outputs", INT32, "columns of the encoded targets")),
    _or_null(_computed("n_train", INT32, "training rows", "rows")),
    _or_null(_computed("n_test", INT32, "test rows", "rows")),
    _or_null(_computed("flops_per_epoch", FLOAT64, "of the matrix products of an epoch", "flop")),
    *(
        _or_null(_computed(f"working_set_{name}_bytes", FLOAT64, f"BUTTER-E's: {what}", "B"))
        for name, what in WORKING_SETS.items()
    ),
]

_OUTCOME = [
    _computed("status", TEXT, f"one of {', '.join(STATUSES)}"),
    _or_null(_computed("diverged", FLAG, "whether the loss left the finite numbers")),
    _or_null(_computed("diverged_epoch", INT32, "first epoch whose loss was not finite")),
    _computed("epochs_completed", INT32, "rows of the run in the table of epochs"),
    _or_null(_provenance("error", TEXT, "why the run failed")),
    _or_null(
        _measured(
            "duration_s",
            FLOAT64,
            "wall-clock time from the first epoch to the last, divided by lanes",
            "s",
        )
    ),
    *map(_or_null, _energy("over all epochs, divided by lanes")),
    _or_null(_measured("energy_idle_j", FLOAT64, "of energy_j: what idling would have drawn", "J")),
    _or_null(
        _measured("energy_dynamic_j", FLOAT64, "of energy_j: what came on top of idling", "J")
    ),
    _or_null(
        _measured(
            "energy_package_j",
            FLOAT64,
            "of the packages and their memory while the run trained, whoever worked there",
            "J",
        )
    ),
    _or_null(_measured("energy_mode", TEXT, f"one of {', '.join(ENERGY_MODES)}")),
    _or_null(
        _measured("energy_ranks", INT32, "ranks that the packages' energy was shared out among")
    ),
    _or_null(
        _measured(
            "energy_tail_j",
            FLOAT64,
            "of the packages, from the first rank of the gang that finished to the last",
            "J",
        )
    ),
    _or_null(
        _measured("finish_spread_s", FLOAT64, "between the first and the last of the gang", "s")
    ),
    _or_null(
        _measured("foreign_load", FLOAT64, "part of the node's processor time of others", "1")
    ),
    _or_null(
        _measured(
            "begun_ns",
            INT64,
            "CLOCK_MONOTONIC before the first epoch; null: several parts",
            "ns",
        )
    ),
    _or_null(
        _measured(
            "ended_ns", INT64, "CLOCK_MONOTONIC after the last epoch; null: several parts", "ns"
        )
    ),
    _or_null(_measured("counters_reason", TEXT, "which hardware counters are null, and why")),
    _or_null(_measured("meter_reads", INT64, "readings of the counters while its group trained")),
    _or_null(_measured("meter_cpu_s", FLOAT64, "processor time that these readings took", "s")),
    _or_null(
        _provenance("parts", INT32, "executions that trained it; more than 1: it was interrupted")
    ),
    _or_null(
        _provenance(
            "parts_cut",
            INT32,
            "parts that a kill has ended: what came after their last checkpoint counts nowhere",
        )
    ),
]

_ORIGIN = [
    *(
        _or_null(
            _modelled(
                f"traffic_{level}_bytes",
                FLOAT64,
                f"predicted for an epoch: moved between {between}; null: not known",
                "B",
            )
        )
        for level, between in TRAFFIC_LEVELS.items()
    ),
    *(
        _or_null(_provenance(f"{size}_used", INT32, f"{what} that the run was trained with"))
        for size, what in TILING_SIZES.items()
    ),
    _provenance("started_at", pa.timestamp("us", tz="UTC"), "start of the run, in UTC"),
    _provenance("hostname", TEXT, "machine"),
    _provenance("cpu_model", TEXT, "processor"),
    _provenance("platform", TEXT, "operating system"),
    _provenance("python_version", TEXT, "version of Python"),
    _provenance("minibutter_version", TEXT, "version of minibutter"),
    _or_null(_provenance("git_commit", TEXT, "commit of minibutter, in a checkout")),
    _provenance("numpy_version", TEXT, "version of NumPy"),
    _provenance("numba_version", TEXT, "version of Numba"),
    _provenance("llvmlite_version", TEXT, "version of llvmlite"),
    _or_null(_provenance("blas", TEXT, "BLAS behind np.dot: version and architecture chosen")),
    _provenance("affinity", TEXT, "CPUs that the process could use, as 0-3,8"),
    _or_null(_provenance("governor", TEXT, "frequency governor of these CPUs")),
    _or_null(_provenance("turbo", FLAG, "whether the clock could rise above its nominal rate")),
    _or_null(_provenance("smt", FLAG, "whether cores ran several threads at once")),
    _or_null(_provenance("microcode", TEXT, "revision of the processor's microcode")),
    _or_null(_provenance("hypervisor", TEXT, "none, the name of a hypervisor, or unknown")),
    _or_null(_provenance("transparent_huge_pages", TEXT, "always, madvise or never")),
    _or_null(_provenance("boot_id", TEXT, "the kernel since its start: whose clock begun_ns is")),
    _or_null(_provenance("package", INT32, "socket of the rank; null: several, or not looked for")),
    _or_null(_provenance("energy_reader_rank", INT32, "rank that read; null: each for itself")),
    _or_null(_provenance("data_source", TEXT, "where the data came from")),
    _or_null(_provenance("data_sha256", TEXT, "SHA-256 of the data as fetched")),
    _or_null(_provenance("lanes", INT32, "repetitions that were trained together; 1: alone")),
    _provenance("rank", INT32, "MPI rank that did the run, or wrote it down"),
    _provenance("n_ranks", INT32, "MPI ranks of the job"),
    _provenance("ranks_together", INT32, "ranks that shared out the slices of the run; 1: alone"),
    _provenance("schema_version", INT32, "version of these columns"),
]

RUNS_SCHEMA = pa.schema(
    [*_KEYS, *_ASKED_FOR, *_FACTS, *_OUTCOME, *_ORIGIN], metadata=_FILE_METADATA
)

EXPERIMENT_COLUMNS = tuple(field.name for field in [*_ASKED_FOR, *_FACTS])
"""Columns of `runs` that are the same for all repetitions of an experiment."""


def columns_of_kind(schema: pa.Schema, kind: str) -> tuple[str, ...]:
    """Names of the columns of one kind, in the order of the schema.

    Parameters
    ----------
    schema : `RUNS_SCHEMA` or `EPOCHS_SCHEMA`.
    kind : "identity", "computed", "measured" or "provenance".
    """
    return tuple(field.name for field in schema if field.metadata[b"kind"] == kind.encode())


MEASURED_EPOCH_COLUMNS = columns_of_kind(EPOCHS_SCHEMA, "measured")
"""Columns to leave out when two executions of the same runs are compared bit for bit."""
