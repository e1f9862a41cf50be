"""Where a number came from: versions, processor, host and source revision, once per process."""

import os
import platform
import subprocess
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import minibutter


@dataclass(frozen=True)
class Provenance:
    """What may change a result between two machines; columns of the `runs` table.

    Attributes
    ----------
    git_commit : revision of a source checkout, with "-dirty" when files differ from it; None for
        an installed package.
    blas : name, version and architecture of the BLAS of the compiled kernels; None if not found.
    """

    hostname: str
    cpu_model: str
    platform: str
    python_version: str
    minibutter_version: str
    git_commit: str | None
    numpy_version: str
    numba_version: str
    llvmlite_version: str
    blas: str | None

    def columns(self) -> dict[str, Any]:
        """The fields by name."""
        return dict(vars(self))


@cache
def read_provenance() -> Provenance:
    """Describe this process's machine and software."""
    return Provenance(
        hostname=platform.node(),
        cpu_model=read_cpu_model(),
        platform=platform.platform(),
        python_version=platform.python_version(),
        minibutter_version=minibutter.__version__,
        git_commit=_git_commit(),
        numpy_version=metadata.version("numpy"),
        numba_version=metadata.version("numba"),
        llvmlite_version=metadata.version("llvmlite"),
        blas=read_blas(),
    )


def read_cpu_model() -> str:
    """Model name from /proc/cpuinfo (x86) or what the platform module knows (elsewhere)."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def read_blas() -> str | None:
    """Name, version and architecture of the BLAS behind numba's `np.dot`, which is SciPy's.

    The architecture is what the library chose for this processor, and decides the order of its
    sums. None where no BLAS is found.
    """
    import scipy.linalg.cython_blas
    from threadpoolctl import threadpool_info

    assert scipy.linalg.cython_blas
    found = [library for library in threadpool_info() if library["user_api"] == "blas"]
    # SciPy's wheel brings its own; where there is none, NumPy and SciPy share the system's.
    of_scipy = [library for library in found if "scipy.libs" in library["filepath"]]
    names = {
        f"{library['internal_api']} {library['version']} ({library.get('architecture', 'unknown')})"
        for library in of_scipy or found
    }
    return ", ".join(sorted(names)) or None


def _git_commit() -> str | None:
    """Revision of the checkout that this package runs from, if it runs from one.

    Only a repository whose top level is the package's parent folder counts: an environment
    inside somebody else's repository must not lend its revision.
    """
    folder = Path(__file__).resolve().parent.parent
    if not (folder / ".git").exists():
        return None
    environment = {**os.environ, "GIT_OPTIONAL_LOCKS": "0"}
    command = ["git", "-C", str(folder), "describe", "--always", "--abbrev=40", "--dirty"]
    try:
        described = subprocess.run(
            command, capture_output=True, text=True, timeout=10, env=environment, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return described.stdout.strip() or None
