"""How many bytes the tables of a sweep take: measured once, for plans.

Of 24 runs over 1,500 epochs (digits and wine, 256 to 1,024 parameters) with simulated energy
counters, of 1,200 runs over one epoch, and of runs with metrics of the training set. Metrics are
noise in their last bits, so that zstd and byte streams leave two thirds of their float32.
"""

EPOCH_BYTES = 57
"""Of a row of `epochs` with ten metrics of the test set and energies; 46 where none is measured."""

TRAIN_BYTES = 34
"""More, with ten metrics of the training set."""

RUN_BYTES = 85
"""Of a row of `runs` among many: what is the same for all of them is stored once a shard."""

SHARD_BYTES = 84_000
"""Of a pair of files beside their rows: names, types and statistics of all columns."""


def table_bytes(n_epochs: int, n_train_epochs: int, n_runs: int, n_shards: int) -> int:
    """Bytes of both tables.

    Parameters
    ----------
    n_epochs : rows of `epochs`.
    n_train_epochs : those of them that have metrics of the training set.
    n_runs : rows of `runs`.
    n_shards : pairs of files that hold them.
    """
    return (
        EPOCH_BYTES * n_epochs
        + TRAIN_BYTES * n_train_epochs
        + RUN_BYTES * n_runs
        + SHARD_BYTES * n_shards
    )
