"""`minibutter warmup`: compile the kernels ahead of a job."""

import time
from typing import Annotated

import typer

from minibutter.cli.options import Mistake

_REMEDY = (
    "every process will compile for itself, which takes about half a minute; "
    "let NUMBA_CACHE_DIR name a folder that can be written"
)


def warmup(
    dtype: Annotated[str, typer.Option(help="float32, float64 or all.")] = "all",
    measure: Annotated[
        list[str] | None, typer.Option(help="noise_scale: also what runs with this key need.")
    ] = None,
) -> None:
    """Compile all kernels now and keep them on disk, so that no rank of a job has to.

    They are kept for this version of the kernels and its compilers and for this kind of processor.
    """
    import numba

    from minibutter.nn.kernels.jit import is_ready, kept
    from minibutter.nn.measured import compile_moment_kernels
    from minibutter.nn.network import DTYPES
    from minibutter.nn.training import compile_kernels

    if dtype not in (*DTYPES, "all"):
        raise Mistake(f"--dtype {dtype}: it must be one of {', '.join(DTYPES)}, all")
    if measure not in (None, [], ["noise_scale"]):
        raise Mistake(f"--measure {measure[0]}: it must be noise_scale")
    if numba.config.DISABLE_JIT:
        raise Mistake("NUMBA_DISABLE_JIT is set: nothing is compiled")
    if kept.directory is None:
        raise Mistake(f"there is no folder for compiled kernels: {_REMEDY}")
    print(f"kernels are kept in {kept.directory}", flush=True)
    for name in DTYPES if dtype == "all" else (dtype,):
        begun_s, n_before = time.perf_counter(), kept.n_kernels
        compile_kernels(name)
        if measure:
            compile_moment_kernels(name)
        duration_s, n_compiled = time.perf_counter() - begun_s, kept.n_kernels - n_before
        is_kept = is_ready(name) and (not measure or is_ready(f"{name}-moments"))
        if not is_kept:
            reason = kept.error or "its files cannot be made"
            raise Mistake(f"kernels cannot be kept in {kept.directory} ({reason}): {_REMEDY}")
        what = f"{n_compiled} kernels compiled" if n_compiled else "found"
        print(f"{name}: {what}, {duration_s:.1f} s", flush=True)
