"""How every kernel is compiled: one decorator, one policy.

`@kernel` compiles without the interpreter lock and with IEEE arithmetic. There is no fast-math:
no sum is reassociated, no multiply and add are fused behind our back, and NaN and inf survive,
because a run that diverges is a result. With `NUMBA_DISABLE_JIT=1` a kernel is plain Python and can
be stepped through.

Compiled code is kept on disk. Numba's cache does not notice a change in another file's callee
(numba documentation, "Notes on caching"), so the folder is named by a hash of all that decides the
machine code: kernel sources, compilers, processor, settings. Processes may share it. That a kernel
is right depends on no lock: files appear whole, under names of their own, and what cannot be read
is compiled again. A lock only saves work: `compile_once` lets one process compile while the others
sleep.
"""

import fcntl
import gc
import hashlib
import os
import platform
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import llvmlite
import numba
import numpy as np
from numba.core import caching, cgutils
from numba.core.registry import cpu_target
from numba.extending import intrinsic

PATIENCE_S = 240.0
"""How long a process waits for another's compilation, which takes half a minute, before it
compiles for itself: the other may have been stopped (Ctrl-Z), or its node may hang."""

_NAP_S = 0.05

_SETTINGS = (
    "BOUNDSCHECK",
    "DEBUGINFO_DEFAULT",
    "DISABLE_JIT",
    "LOOP_VECTORIZE",
    "OPT",
    "SLP_VECTORIZE",
)
"""What else changes the machine code. Code compiled without NUMBA_BOUNDSCHECK, say, would be taken
for checked code."""


def cache_directory(sources: Path) -> Path | None:
    """Folder of the compiled kernels of exactly these sources; None where there can be none.

    It lies below `NUMBA_CACHE_DIR`, or else the user's cache folder (`XDG_CACHE_HOME`, `~/.cache`).
    One that exists but cannot be written serves too: what stands in it is loaded.

    Parameters
    ----------
    sources : folder of the modules that hold kernels.
    """
    try:
        directory = _cache_base() / code_id(sources)
        directory.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError):  # RuntimeError: a user without a home folder
        return None
    return directory


def code_id(sources: Path = Path(__file__).parent) -> str:
    """Hash of all that decides the machine code of kernels, and with it every bit that they
    compute: their sources, compilers, processor and settings.

    Parameters
    ----------
    sources : folder of the modules that hold kernels; that of all of ours when left out.
    """
    digest = hashlib.blake2b(digest_size=8)
    for source in sorted(sources.glob("*.py")):
        digest.update(source.name.encode() + source.read_bytes())
    digest.update(repr(_compilers()).encode())
    return digest.hexdigest()


def _cache_base() -> Path:
    if numba.config.CACHE_DIR:
        return Path(numba.config.CACHE_DIR)
    user_cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return user_cache / "minibutter" / "kernels"


def _compilers() -> tuple:
    """What makes machine code of the sources, and for which processor.

    A home folder may be shared by nodes of several kinds. Numba itself says what it compiles for:
    triple, processor and features, as NUMBA_CPU_NAME and NUMBA_CPU_FEATURES may have set them.
    """
    return (
        *(platform.python_version(), np.__version__, numba.__version__, llvmlite.__version__),
        *cpu_target.target_context.codegen().magic_tuple(),
        *(getattr(numba.config, name) for name in _SETTINGS),
    )


@dataclass
class Kept:
    """What this process did to the folder.

    Attributes
    ----------
    directory : where compiled kernels are kept; None where there is no folder.
    n_kernels : kernels that were compiled here and written, once for each type.
    error : why the last one that could not be written was not: quota, a full or closed disk.
    """

    directory: Path | None
    n_kernels: int = 0
    error: OSError | None = None


kept = Kept(None if numba.config.DISABLE_JIT else cache_directory(Path(__file__).parent))


class _Locator(caching._CacheLocator):
    """Where numba keeps a kernel: straight in our folder, whether or not it can be written."""

    def __init__(self, function: Callable, file: str) -> None:
        self._py_file = file  # the name by which numba's warnings know it
        self._first_line = function.__code__.co_firstlineno

    @classmethod
    def from_function(cls, function: Callable, file: str) -> "_Locator":
        return cls(function, file)

    def get_cache_path(self) -> str:
        return str(kept.directory)

    def get_source_stamp(self) -> str:
        """The text of the file and not its date, which differs between copies of the package."""
        return hashlib.blake2b(Path(self._py_file).read_bytes()).hexdigest()

    def get_disambiguator(self) -> str:
        return str(self._first_line)


class _Files(caching.CompileResultCacheImpl):
    _locator_classes = (_Locator,)


class _KernelCache(caching.FunctionCache):
    """Numba's cache of one kernel, for a folder that many processes write, and disks that fail.

    Numba numbers its files, and two processes that compile one kernel for two types at once would
    give both the same number: an index could then name the wrong machine code. Files with names of
    their own can at worst be missing from an index, and are compiled once more.
    """

    _impl_class = _Files

    def __init__(self, function: Callable) -> None:
        super().__init__(function)
        own = uuid.uuid4().hex[:12]
        self._cache_file._data_name_pattern = f"{self._impl.filename_base}.{{number:d}}-{own}.nbc"

    def load_overload(self, signature, target_context):
        """The compiled kernel; None where there is none, or only the torn file of a lost node."""
        try:
            return super().load_overload(signature, target_context)
        except OSError:
            return None
        except Exception:  # torn pickles raise all sorts (Python documentation, "pickle")
            with suppress(OSError):
                self.flush()  # or a torn index would stop `save_overload` too
            return None

    def save_overload(self, signature, compiled) -> None:
        """Keep a kernel on disk; where that fails, the run goes on with what it has in memory."""
        try:
            super().save_overload(signature, compiled)
            kept.n_kernels += 1
        except OSError as error:
            kept.error = error


def kernel(function: Callable) -> Callable:
    """Compile a kernel: no Python objects, no lock, IEEE arithmetic, kept on disk."""
    return _compile(function)


def inlined_kernel(function: Callable) -> Callable:
    """As `kernel`, for a function of a few numbers that always becomes part of its caller's code.

    Left to itself the compiler calls what it finds too long, and a loop around a call is not
    vectorised.
    """
    return _compile(function, forceinline=True)


def view(function: Callable) -> Callable:
    """A few lines that stand in place of their call in kernels: views into a workspace, mostly.

    As a kernel of its own each would take the hundreds of numbers that a workspace consists of.
    """
    return numba.njit(inline="always")(function)


def in_python(view: Callable) -> Callable:
    """A view to be called from Python, where it would otherwise be compiled first."""
    return getattr(view, "py_func", view)


def _compile(function: Callable, **options) -> Callable:
    # C has no calls for our kernels: `address_of` gives the address of the kernel itself.
    options |= {"nogil": True, "error_model": "numpy", "no_cfunc_wrapper": True}
    compiled = numba.njit(**options)(function)
    if kept.directory is not None:
        # As `cache=True` does, with our cache in the place of numba's.
        compiled._cache = _KernelCache(function)
    return compiled


_addressed: list[Callable] = []  # without the JIT an address is a place in this list


def address_of(kernel: Callable, *types: numba.types.Type) -> int:
    """Compile a kernel for these types of arguments, to be called by its address.

    A kernel that is called directly becomes part of its caller's code, and of that one's callers',
    and is optimised anew in each of them. What is large, or chosen at run time, goes behind an
    address instead: it is compiled once, and its callers know nothing but its types.
    """
    if numba.config.DISABLE_JIT:
        _addressed.append(kernel)
        return len(_addressed) - 1
    kernel.compile(types)
    compiled = kernel.overloads[types]
    return compiled.library.get_pointer_to_function(compiled.fndesc.llvm_func_name)


@intrinsic
def call(typing_context, address, arguments):
    """Call the kernel at an address with a tuple of arguments, of exactly its types.

    Only the layout of arrays may differ: a kernel compiled for any strides takes contiguous ones.
    Nothing is returned. An exception (NUMBA_BOUNDSCHECK) goes through.
    """

    def emit(context, builder, signature, values):
        types = signature.args[1].types
        function_type = context.call_conv.get_function_type(numba.types.none, types)
        function = builder.inttoptr(values[0], function_type.as_pointer())
        parts = cgutils.unpack_tuple(builder, values[1])
        status, _ = context.call_conv.call_function(
            builder, function, numba.types.none, types, parts
        )
        with cgutils.if_unlikely(builder, status.is_error):
            context.call_conv.return_status_propagate(builder, status)
        return context.get_dummy_value()

    return numba.types.void(numba.types.int64, arguments), emit


if numba.config.DISABLE_JIT:

    def call(address, arguments):
        _addressed[address](*arguments)


def is_ready(kernels: str) -> bool:
    """Whether a process has compiled and kept all that `compile_once` calls by this name."""
    return kept.directory is not None and _mark(kernels).exists()


@contextmanager
def compile_once(kernels: str) -> Iterator[None]:
    """Around the first call of some kernels: one process compiles, the others sleep, then load.

    Where all were compiled and kept before, nobody waits. A killed process leaves the lock, and the
    next one goes on from what that had kept. Where there are no locks (some network file systems)
    or no folder, every process compiles for itself.

    Parameters
    ----------
    kernels : a name for what is compiled within; it always means the same kernels and types.
    """
    if kept.directory is None or is_ready(kernels):
        yield
        return
    with _turn_to_compile(kernels), _without_collections():
        yield
        if kept.error is None:
            with suppress(OSError):
                _mark(kernels).touch()


@contextmanager
def _without_collections() -> Iterator[None]:
    """Python looks for garbage each time that there are many more objects, and the compiler makes
    millions: that takes a tenth of the compilation. Not to look takes 0.2 GB until it ends."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _mark(kernels: str) -> Path:
    return kept.directory / f"{kernels}.ready"


@contextmanager
def _turn_to_compile(kernels: str) -> Iterator[None]:
    """Sleep until it is our turn, or until somebody else has done it all.

    There is one turn for the whole folder: who compiles other types changes the same indices.
    """
    try:
        lock = (kept.directory / "compiling.lock").open("a")
    except OSError:
        yield
        return
    with lock:
        give_up_s = time.monotonic() + PATIENCE_S
        while not (is_ready(kernels) or _is_locked_by_us(lock) or time.monotonic() > give_up_s):
            time.sleep(_NAP_S)
        yield


def _is_locked_by_us(lock: IO) -> bool:
    """Try to lock; where the file system has no locks, everybody may go on.

    The system frees the lock of a process that ends, in whatever way. We look again and again: a
    call that waits would never come back from a lock server that hangs.
    """
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        pass
    return True
