"""What ranks bring: throughput of two against one, what a grant takes, and what is no kernel.

`python -m bench.ranks` trains three sweeps, 2,000 tiny runs, 40 medium ones and 10 that take longer
than a second each, by one rank and by two in turn, each on a core of its own, and by two jobs of
one rank side by side: what a second core brings on this machine at all. Medians over rounds.

* *throughput*: seconds from the begin of the first run to the end of the last, of one rank divided
  by those of two. What starting takes is shown beside it: the same for any number of ranks.
* *wait*: for how long a rank has nothing to do until it hears what rank 0, which trains, has for
  it: the answer to a question that it asked a moment before its last group ended. The first one of
  a launch is part of starting: rank 0 may not be there yet.
* *outside*: part of one rank's seconds that no training or evaluating kernel has; wanted is little
  of it in the long runs.
"""

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from bench.markers import ROOT, write_table
from minibutter.provenance import read_provenance

NAME = "bench.ranks"
RESULTS = Path(__file__).parent / "results" / "ranks.json"
DOCUMENT = ROOT / "docs" / "sweeps.md"

SWEEPS = {
    # 25 x 80 runs of some 10 ms.
    "2,000 tiny runs": """
        name = "tiny"
        dataset = "iris"
        size = [64, 128, 256, 512, 1024]
        depth = 3
        learning_rate = [1e-4, 3e-4, 1e-3, 3e-3, 1e-2]
        batch_size = 32
        epochs = 40
        repetitions = 80
    """,
    # Of some tenths of a second, one by one.
    "40 medium runs": """
        name = "medium"
        dataset = "digits"
        size = [65536, 131072]
        depth = [3, 4]
        learning_rate = 1e-3
        batch_size = 128
        epochs = 40
        repetitions = 10
    """,
    "10 long runs": """
        name = "long"
        dataset = "digits"
        size = 524288
        depth = 3
        learning_rate = 1e-3
        batch_size = 128
        epochs = 40
        repetitions = 10
    """,
}
LIMITS = {"speedup": 1.9, "wait_p99_ms": 2.0, "outside": 0.03}


class Watch:
    """Counts, within a rank, the seconds of kernels, of the whole, and of every grant."""

    def __init__(self) -> None:
        from minibutter import runs
        from minibutter.launch import desk, working
        from minibutter.nn import groups

        self.kernel_s, self.waits_s, self.span_s = 0.0, [], None
        kernels = groups.epoch
        for name in ("train_epoch", "evaluate"):
            setattr(kernels, name, self._timed(getattr(kernels, name)))
        ask, work, execute = desk.Desk.ask, working.work_through, runs.execute_group

        def timed_ask(asker: object) -> object:
            begun_s = time.perf_counter()
            deal = ask(asker)
            self.waits_s.append(time.perf_counter() - begun_s)
            return deal

        def timed_execute(*arguments: object, **options: object) -> object:
            self.span_s = self.span_s or (time.monotonic(), 0.0)
            return execute(*arguments, **options)

        def timed_work(*arguments: object) -> None:
            work(*arguments)
            self.span_s = (self.span_s[0], time.monotonic())

        desk.Desk.ask, working.work_through = timed_ask, timed_work
        runs.execute_group = timed_execute

    def _timed(self, kernel: object) -> object:
        def call(*arguments: object) -> object:
            begun_s = time.perf_counter()
            result = kernel(*arguments)
            self.kernel_s += time.perf_counter() - begun_s
            return result

        return call


class Silent:
    """A reporter that says nothing."""

    def begin(self, *_: object) -> None: ...
    def update(self, *_: object) -> None: ...
    def end(self, *_: object) -> None: ...
    def close(self) -> None: ...


def be_a_rank(sweep: Path, out: Path, cpus: list[int]) -> None:
    """Train a sweep as one of the ranks, bound to a core, and leave what was counted in a file."""
    rank = int(os.environ.get("PMI_RANK", "0"))
    os.sched_setaffinity(0, {cpus[rank % len(cpus)]})
    from minibutter import launch
    from minibutter.experiments import read_sweep

    watch = Watch()
    launch.run_sweep(lambda: read_sweep(str(sweep)), reporter=Silent(), out=out)
    # Rank 0 deals to itself.
    waits_s = watch.waits_s if rank else []
    counted = {"kernel_s": watch.kernel_s, "waits_s": waits_s, "span_s": watch.span_s}
    out.with_suffix(f".rank{rank}.json").write_text(json.dumps(counted))


class Launch:
    """A job that was started; waits when asked for what its ranks have counted."""

    def __init__(self, sweep: Path, out: Path, cpus: list[int]) -> None:
        command = [sys.executable, "-m", "bench.ranks", "--rank", str(sweep), str(out)]
        command += map(str, cpus)
        if len(cpus) > 1:
            command = [_find_mpirun(), "-n", str(len(cpus)), *command]
        self._out, self._n_ranks = out, len(cpus)
        self._begun_s = time.monotonic()
        self._process = subprocess.Popen(command)

    def wait(self) -> dict:
        """Seconds of work, of starting, of kernels over all ranks, and of waits."""
        if self._process.wait() != 0:
            raise SystemExit("a rank has failed; what it says stands above")
        whole_s = time.monotonic() - self._begun_s
        files = [self._out.with_suffix(f".rank{rank}.json") for rank in range(self._n_ranks)]
        ranks = [json.loads(file.read_text()) for file in files]
        shutil.rmtree(self._out)
        work_s = max(r["span_s"][1] for r in ranks) - min(r["span_s"][0] for r in ranks)
        return {
            "work_s": work_s,
            "start_s": whole_s - work_s,
            "outside": 1 - sum(r["kernel_s"] for r in ranks) / (work_s * self._n_ranks),
            "waits_s": [wait_s for r in ranks for wait_s in r["waits_s"][1:]],
        }


def _find_mpirun() -> str:
    beside = Path(sys.executable).with_name("mpirun")
    return str(beside) if beside.exists() else "mpirun"


def measure(name: str, folder: Path, cpus: list[int], rounds: int) -> dict:
    """Figures of one sweep; lists have an entry a round."""
    sweep = folder / "sweep.toml"
    sweep.write_text(SWEEPS[name])
    first, second = [cpus[0]], [cpus[1]]
    alone, together, beside = [], [], []
    for _ in range(rounds):
        alone.append(Launch(sweep, folder / "one", first).wait())
        together.append(Launch(sweep, folder / "two", cpus).wait())
        jobs = [Launch(sweep, folder / "left", first), Launch(sweep, folder / "right", second)]
        beside.append(max((job.wait() for job in jobs), key=lambda found: found["work_s"]))
    waits_ms = np.array([s for found in together for s in found["waits_s"]]) * 1e3

    def median(values: list[float]) -> float:
        return round(statistics.median(values), 3)

    pairs = list(zip(alone, together, beside, strict=True))
    return {
        "sweep": name,
        "one_rank_s": median([one["work_s"] for one in alone]),
        "two_ranks_s": median([two["work_s"] for two in together]),
        "start_s": median([found["start_s"] for found in alone + together]),
        "speedup": median([one["work_s"] / two["work_s"] for one, two, _ in pairs]),
        "speedup_of_two_jobs": median([2 * one["work_s"] / job["work_s"] for one, _, job in pairs]),
        "waits": len(waits_ms),
        "wait_median_ms": round(float(np.median(waits_ms)), 3),
        "wait_p99_ms": round(float(np.quantile(waits_ms, 0.99)), 3),
        "outside": median([found["outside"] for found in alone]),
    }


def main() -> None:
    """Measure, print, and keep the figures if asked to."""
    if sys.argv[1:2] == ["--rank"]:
        sweep, out, *cpus = sys.argv[2:]
        be_a_rank(Path(sweep), Path(out), list(map(int, cpus)))
        return
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--docs", action="store_true", help=f"write them into {DOCUMENT.name} and {RESULTS.name}"
    )
    options = parser.parse_args()
    cpus = sorted(os.sched_getaffinity(0))[:2]
    if len(cpus) < 2:
        raise SystemExit("two ranks need two processors; this process may use one")
    rows = []
    for name in SWEEPS:
        with tempfile.TemporaryDirectory() as folder:
            rows.append(row := measure(name, Path(folder), cpus, options.rounds))
        print(
            f"{row['sweep']}: {row['one_rank_s']:.1f} s by one rank, {row['two_ranks_s']:.1f} s by "
            f"two: {row['speedup']:.2f} times as fast (two jobs side by side: "
            f"{row['speedup_of_two_jobs']:.2f}); starting takes {row['start_s']:.1f} s\n"
            f"    {row['waits']} waits for work, median {row['wait_median_ms']:.2f} ms, 99 % "
            f"within {row['wait_p99_ms']:.2f} ms; {row['outside']:.1%} outside kernels"
        )
    if options.docs:
        about = {"cpu": read_provenance().cpu_model, "python": platform.python_version()}
        RESULTS.write_text(json.dumps({**about, "limits": LIMITS, "sweeps": rows}, indent=1) + "\n")
        source = (
            f"{about['cpu']}, medians of {options.rounds} rounds. Written by `python -m "
            "bench.ranks --docs`."
        )
        write_table(NAME, f"{make_table(rows)}\n\n{source}", DOCUMENT)


def make_table(rows: list[dict]) -> str:
    """The figures as Markdown."""
    lines = [
        "| sweep | one rank | two ranks | times as fast | two jobs alone | wait for work; 99 % "
        "within | outside kernels |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    lines += [
        f"| {row['sweep']} | {row['one_rank_s']:.1f} s | {row['two_ranks_s']:.1f} s | "
        f"{row['speedup']:.2f} | {row['speedup_of_two_jobs']:.2f} | {row['wait_median_ms']:.1f}, "
        f"{row['wait_p99_ms']:.1f} ms | {row['outside']:.1%} |"
        for row in rows
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
