"""What results cost on the disk, and how fast they come back.

`python -m bench.storage` trains real networks, each with its 20 metrics in every epoch, and
measures: the bytes of an epoch, in the shards of a running sweep and after `minibutter compact`; a
million epochs read into pandas; and the compaction of 10,000 runs as large as the quick start's.
Runs are copied under other ids where only the time or the number of files counts. On one core, in
its processor time, so that who else wants the core does not count, and in memory where there is a
folder for it, so that the disk does not.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from minibutter import runs, store
from minibutter.datasets import DatasetError, ensure_available
from minibutter.energy import open_meter
from minibutter.experiments import plan_experiment
from minibutter.provenance import read_provenance
from minibutter.runs import RunResult
from minibutter.sweeps.spec import RunSpec

LIMIT_BYTES, LIMIT_S, LIMIT_FILES = 62.0, 2.0, 50
N_EPOCHS, N_SHORT_RUNS, SHORT_EPOCHS, RUNS_OF_A_SHARD = 1_000_000, 10_000, 60, 20


def train(
    dataset: str, size: int, n_runs: int, epochs: int, data_dir: Path | None
) -> list[RunResult]:
    """Repetitions of one experiment with BUTTER's settings; DatasetError if there are no data."""
    ensure_available(dataset, data_dir=data_dir)
    spec = RunSpec(dataset=dataset, size=size, depth=4, epochs=epochs)
    experiment = plan_experiment(spec, data_dir=data_dir)
    with open_meter() as meter:
        return runs.execute_group(
            experiment,
            range(n_runs),
            meter=meter,
            provenance=read_provenance(),
            sweep="bench",
            data_dir=data_dir,
        )


def copies(results: list[RunResult], n_runs: int) -> Iterator[RunResult]:
    """So many runs with different ids and the numbers of those given."""
    for number in range(n_runs):
        result = results[number % len(results)]
        run_id = f"{number // 30:032x}-{number % 30:04d}"
        yield RunResult(result.run | {"run_id": run_id}, result.epochs)


def write(directory: Path, results: Iterator[RunResult], runs_of_a_shard: int) -> None:
    """Store runs in shards of so many."""
    with store.ShardWriter(directory, "rank0", interval_s=1e9) as writer:
        for number, result in enumerate(results, start=1):
            writer.add(result.run, result.epochs)
            if number % runs_of_a_shard == 0:
                writer.flush()


def bytes_of_epoch(directory: Path) -> float:
    """Size of the files of `epochs`, for each of its rows."""
    paths = list((directory / "epochs").glob("*.parquet"))
    n_epochs = len(pd.read_parquet(directory / "epochs", columns=["epoch"]))
    return sum(path.stat().st_size for path in paths) / n_epochs


def seconds(function, rounds: int = 5) -> float:
    """Median processor time of a call."""
    durations_s = []
    for _ in range(rounds):
        begun_s = time.process_time()
        function()
        durations_s.append(time.process_time() - begun_s)
    return statistics.median(durations_s)


def say(what: str, value: str, is_kept: bool) -> None:
    """One line with its verdict."""
    print(f"{what:66} {value:>12}  {'kept' if is_kept else 'EXCEEDED'}", flush=True)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", default="wine_quality_white")
    parser.add_argument("--data-dir", type=Path, help="folder of local .tsv.gz data sets")
    parser.add_argument("--epochs", type=int, default=3000)
    parser.add_argument("--runs", type=int, default=8)
    options = parser.parse_args()
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    try:
        trained = train(options.dataset, 1024, options.runs, options.epochs, options.data_dir)
    except DatasetError as error:
        raise SystemExit(f"{error}; --dataset digits ships with scikit-learn") from None
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        real = Path(folder) / "real"
        write(real, iter(trained), 1)
        for name in ("of a run's own shard", "after compact"):
            size = bytes_of_epoch(real)
            say(f"bytes an epoch, {name}", f"{size:.1f}", size <= LIMIT_BYTES)
            store.compact(real)

        million = Path(folder) / "million"
        n_runs = -(-N_EPOCHS // options.epochs)
        write(million, copies(trained, n_runs), 10)
        for name in ("from shards of 10 runs", "after compact"):
            for reader, read in (
                ("read_epochs", lambda: store.read_epochs(million)),
                ("pandas", lambda: pd.read_parquet(million / "epochs")),
            ):
                took_s = seconds(read)
                say(
                    f"seconds for a million epochs, {reader}, {name}",
                    f"{took_s:.2f}",
                    took_s < LIMIT_S,
                )
            store.compact(million)

        short = Path(folder) / "short"
        few = train("digits", 1024, options.runs, SHORT_EPOCHS, None)
        write(short, copies(few, N_SHORT_RUNS), RUNS_OF_A_SHARD)
        begun_s = time.process_time()
        done = store.compact(short)
        took_s = time.process_time() - begun_s
        n_files = sum(path.is_file() for path in short.rglob("*"))
        say(
            f"files of {N_SHORT_RUNS} short runs, {done.files_before} before compact",
            str(n_files),
            n_files < LIMIT_FILES,
        )
        print(f"{'seconds that this compaction took':66} {took_s:12.2f}")


if __name__ == "__main__":
    main()
