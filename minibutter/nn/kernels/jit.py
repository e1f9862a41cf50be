"""How every kernel is compiled: one decorator, one policy.

`@kernel` compiles without the interpreter lock and with IEEE arithmetic. There is no fast-math:
no sum is reassociated, no multiply and add are fused behind our back, and NaN and inf survive,
because a run that diverges is a result. With `NUMBA_DISABLE_JIT=1` a kernel is plain Python and can
be stepped through.

Compiled code is kept on disk. Numba's cache does not notice a change in another file's callee
(numba documentation, "Notes on caching"), so the folder is keyed by a hash of all kernel sources,
of the versions of the compilers and of whether bounds are checked; numba adds the CPU's name and
features to it.
"""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import llvmlite
import numba


def cache_directory(sources: Path) -> Path | None:
    """Folder of the compiled kernels of exactly these sources; None where none can be written.

    It lies below `NUMBA_CACHE_DIR`, or else the user's cache folder (`XDG_CACHE_HOME`, `~/.cache`).

    Parameters
    ----------
    sources : folder of the modules that hold kernels.
    """
    digest = hashlib.blake2b(digest_size=8)
    for source in sorted(sources.glob("*.py")):
        digest.update(source.name.encode() + source.read_bytes())
    digest.update(f"numba {numba.__version__} llvmlite {llvmlite.__version__}".encode())
    # Code compiled without NUMBA_BOUNDSCHECK would otherwise be taken for checked code.
    digest.update(f"boundscheck {bool(numba.config.BOUNDSCHECK)}".encode())
    try:
        if numba.config.CACHE_DIR:
            base = Path(numba.config.CACHE_DIR)
        else:
            user_cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
            base = user_cache / "minibutter" / "kernels"
        directory = base / digest.hexdigest()
        directory.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError):  # RuntimeError: a user without a home folder
        return None
    return directory if os.access(directory, os.W_OK) else None


_CACHE_DIRECTORY = cache_directory(Path(__file__).parent)


def kernel(function: Callable) -> Callable:
    """Compile a kernel: no Python objects, no lock, IEEE arithmetic, kept on disk."""
    if _CACHE_DIRECTORY is None:
        return numba.njit(nogil=True, error_model="numpy")(function)
    # Numba reads the folder once, when it decorates; other packages' caches stay where they are.
    before = numba.config.CACHE_DIR
    numba.config.CACHE_DIR = str(_CACHE_DIRECTORY)
    try:
        return numba.njit(nogil=True, error_model="numpy", cache=True)(function)
    finally:
        numba.config.CACHE_DIR = before
