"""Misses of the kernels by `valgrind --tool=cachegrind`, for comparison with our cache simulator.

Valgrind runs a process that loads the compiled kernels and then, for every product, forks twice:
one child makes the product once, the other several times. Children leave what cachegrind has
counted from the very start, so that the difference of the two holds nothing but the further
products, made with the caches as the first one left them.

Valgrind knows AVX2 but not AVX-512: kernels are compiled for AVX2, whatever this processor has.
Caches are given explicitly; what cachegrind finds out by itself can be wrong on virtual machines.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

FEATURES = "+sse2,+avx,+avx2,+fma"
VECTOR_BYTES = 32
ENVIRONMENT = {
    "NUMBA_CPU_NAME": "generic",
    "NUMBA_CPU_FEATURES": FEATURES,
    "PYTHONHASHSEED": "0",
}

_MOST_FLOPS = 2**24  # of the child that makes more products; a second or two under valgrind
_MOST_TIMES = 101
_I1 = "65536,8,64"  # all code of a product: none of it may push data out of the last level
_ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Case:
    """A product of a layer on a rung.

    Attributes
    ----------
    kernel : "naive", "blocked" or "tiled".
    product : "forward", "backward_parameters" or "backward_input".
    fan_in, fan_out : of the layer.
    batch_size : rows.
    dtype : "float32" or "float64".
    tiling : the five sizes of a `Tiling`.
    """

    kernel: str
    product: str
    fan_in: int
    fan_out: int
    batch_size: int
    dtype: str
    tiling: tuple[int, int, int, int, int]

    @property
    def times(self) -> tuple[int, int]:
        """Products that the two children make: the interpreter's own misses vanish in many."""
        flops = 2 * self.fan_in * self.fan_out * self.batch_size
        return 1, min(max(_MOST_FLOPS // flops, 5), _MOST_TIMES)


@dataclass(frozen=True)
class Counts:
    """What cachegrind counts in one product, once the caches are warm.

    Attributes
    ----------
    accesses : data reads and writes, also of the stack.
    d1_misses, ll_misses : accesses that missed the first and the last level.
    addresses : where the arrays of the product lay, by name, and `stack`: where the return address
        of its kernel lay.
    """

    accesses: float
    d1_misses: float
    ll_misses: float
    addresses: dict[str, int]


def why_not() -> str | None:
    """Why cachegrind cannot be run here; None where it can."""
    if shutil.which("valgrind") is None:
        return "valgrind is not installed (Debian: apt-get install valgrind)"
    flags = Path("/proc/cpuinfo").read_text().partition("flags")[2].partition("\n")[0].split()
    if not {"avx2", "fma"} <= set(flags):
        return "this processor has no AVX2, for which the kernels are compiled"
    return None


def count_misses(cases: Sequence[Case], d1: str, ll: str) -> list[Counts]:
    """Run every case under cachegrind.

    Parameters
    ----------
    cases : products.
    d1, ll : geometry of the first and the last level as cachegrind takes it, "bytes,ways,line".

    Raises
    ------
    RuntimeError
        With what was printed, if a process fails.
    """
    command = [sys.executable, "-m", "bench.cachegrind"]
    with tempfile.TemporaryDirectory() as folder:
        asked = Path(folder) / "cases.json"
        asked.write_text(json.dumps([asdict(case) for case in cases]))
        # Compiled outside of valgrind, and only loaded there.
        _run([*command, str(asked), "compile"])
        valgrind = ["valgrind", "--tool=cachegrind", f"--I1={_I1}", f"--D1={d1}", f"--LL={ll}"]
        valgrind += ["--cache-sim=yes", f"--cachegrind-out-file={folder}/%p.out", "-q"]
        told = json.loads(_run([*valgrind, *command, str(asked), "count"]))
        found = []
        for case, answer in zip(cases, told, strict=True):
            few, many = (_read_summary(Path(folder) / f"{pid}.out") for pid in answer["pids"])
            n_products = case.times[1] - case.times[0]
            each = {name: (many[name] - few[name]) / n_products for name in many}
            found.append(
                Counts(
                    each["Dr"] + each["Dw"],
                    each["D1mr"] + each["D1mw"],
                    each["DLmr"] + each["DLmw"],
                    answer["addresses"],
                )
            )
        return found


def _run(command: list[str]) -> str:
    done = subprocess.run(
        command, env=os.environ | ENVIRONMENT, cwd=_ROOT, capture_output=True, text=True
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}:\n{done.stdout[-2000:]}{done.stderr[-4000:]}")
    return done.stdout.strip().rpartition("\n")[2]


def _read_summary(path: Path) -> dict[str, int]:
    """Totals of a process by the names of cachegrind's events."""
    lines = dict(line.partition(":")[::2] for line in path.read_text().splitlines() if ":" in line)
    return dict(zip(lines["events"].split(), map(int, lines["summary"].split()), strict=True))


# ---------------------------------------------------------------------------------------------
# Inside the process


def _main(asked: str, mode: str) -> None:
    from bench.cachegrind_products import prepare

    told = []
    for case in (Case(**values) for values in json.loads(Path(asked).read_text())):
        repeat, addresses = prepare(case)
        if mode == "compile":
            repeat(1)
            continue
        pids = []
        for times in case.times:
            pid = os.fork()
            if pid == 0:
                repeat(times)
                os._exit(0)
            _, status = os.waitpid(pid, 0)
            if status:
                raise SystemExit(f"{case} ended with status {status}")
            pids.append(pid)
        told.append({"pids": pids, "addresses": addresses})
    print(json.dumps(told))


if __name__ == "__main__":
    _main(*sys.argv[1:])
