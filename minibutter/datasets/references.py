"""The front door: one string names a data set, and the functions here say what it is or load it.

A *reference* is one of four things: the name of a BUTTER data set (`wine_quality_white`), the name
of a set that comes with scikit-learn (`iris`), a generator with arguments
(`gaussian_regression:rows=500`), or the path of a local file (`data/steel.csv`, a folder of IDX
files). Which one is told from the string alone, so that a sweep can be checked where no data are.
"""

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from minibutter.datasets.dataset import Dataset, DatasetError, DatasetInfo
from minibutter.datasets.embedded import EMBEDDED, import_reader, load_embedded
from minibutter.datasets.files import TABLE_SUFFIXES, load_table
from minibutter.datasets.idx import find_idx_files, is_idx_name, load_idx
from minibutter.datasets.pmlb import find_files, find_or_fetch, load_butter
from minibutter.datasets.registry import BUTTER
from minibutter.datasets.synthetic import (
    ARGUMENTS,
    canonical_generator,
    describe_generator,
    generate,
    is_generator,
    parse_generator,
)


@dataclass(frozen=True)
class CatalogEntry:
    """One line of `minibutter data list`.

    Attributes
    ----------
    info : name, task and dimensions; those of a generator are for its defaults
    kind : "BUTTER", "embedded" or "generator"
    origin : who provides the data
    is_local : whether `load` will work without a network (the file is there; it is not verified)
    """

    info: DatasetInfo
    kind: str
    origin: str
    is_local: bool


def catalog(data_dir: str | Path | None = None) -> list[CatalogEntry]:
    """All data sets that have a name.

    Parameters
    ----------
    data_dir : folder to look into first for the files of BUTTER's data sets

    Returns
    -------
    entries : list of CatalogEntry, BUTTER's first

    Examples
    --------
    >>> [entry.info.name for entry in catalog()][:2]
    ['201_pol', '294_satellite_image']
    """
    return [
        *(
            CatalogEntry(info, "BUTTER", "PMLB", bool(find_files(name, data_dir)))
            for name, info in BUTTER.items()
        ),
        *(CatalogEntry(info, "embedded", "scikit-learn", True) for info in EMBEDDED.values()),
        *(
            CatalogEntry(describe_generator(name), "generator", "minibutter", True)
            for name in ARGUMENTS
        ),
    ]


def check_reference(reference: str) -> None:
    """Refuse a string that can not name a data set. Opens no file and asks no network.

    Raises
    ------
    DatasetError
        When the name is unknown or the arguments of a generator are wrong. A path passes: whether
        there is a file is for `ensure_available` to see.

    Examples
    --------
    >>> check_reference("iris")
    >>> check_reference("irish")
    Traceback (most recent call last):
    minibutter.datasets.dataset.DatasetError: there is no data set 'irish'; did you mean 'iris'? ...
    """
    if is_generator(reference):
        parse_generator(reference)
        return
    if reference in BUTTER or reference in EMBEDDED or _is_file(reference):
        return
    name, colon, _ = reference.partition(":")
    if colon and (name in BUTTER or name in EMBEDDED):
        raise DatasetError(f"{name} takes no arguments, unlike in {reference!r}; write {name!r}")
    near = difflib.get_close_matches(name, [*BUTTER, *EMBEDDED, *ARGUMENTS], n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    raise DatasetError(
        f"there is no data set {reference!r}; {hint}`minibutter data list` shows all names, and a"
        f" local file needs a / or one of the endings {', '.join(TABLE_SUFFIXES)}"
    )


def canonical_reference(reference: str) -> str:
    """The spelling under which a data set enters the identity of a run.

    A generator gets all its arguments, sorted; a local file loses its folder, because its content
    is in the digest of its `DatasetInfo`; other names stay as they are.

    Raises
    ------
    DatasetError
        As `check_reference`.

    Examples
    --------
    >>> canonical_reference("gaussian_regression:rows=50")
    'gaussian_regression:dimension=8,noise=0.1,rows=50,seed=0'
    >>> canonical_reference("../steel/hot.csv")
    'hot.csv'
    """
    check_reference(reference)
    if is_generator(reference):
        return canonical_generator(reference)
    return _local_path(reference).name if _is_file(reference) else reference


def ensure_available(reference: str, *, data_dir: str | Path | None = None) -> Path | None:
    """Make sure that `load` will find its file: look, verify, and fetch if need be.

    The launcher calls this once before a sweep starts, so that a missing file stops it at once and
    ranks do not download side by side. Nothing is encoded.

    Parameters
    ----------
    reference : str
    data_dir : folder to look into first for BUTTER's data sets, and to download to

    Returns
    -------
    path : Path of the file or folder; None for data that come from a package

    Raises
    ------
    DatasetError
        When the reference names nothing, or its file is missing, damaged or can not be fetched.
    """
    check_reference(reference)
    if reference in BUTTER:
        return find_or_fetch(reference, data_dir)
    if not _is_file(reference):
        return None
    path = _local_path(reference)
    if _is_idx(path):
        find_idx_files(path)
    elif not path.is_file():
        raise DatasetError(f"there is no file {path}; check the path of the data set")
    elif not path.name.endswith(TABLE_SUFFIXES):
        raise DatasetError(
            f"the format of {path} is not known; name a file that ends in"
            f" {', '.join(TABLE_SUFFIXES)}, or IDX images (`*-images-idx3-ubyte`)"
        )
    return path


def describe(
    reference: str,
    *,
    target: str | None = None,
    task: str | None = None,
    data_dir: str | Path | None = None,
) -> DatasetInfo:
    """Task and dimensions of a data set. Only local files are read for it, whole.

    Parameters and errors are those of `load`.

    Examples
    --------
    >>> describe("iris").n_outputs
    3
    """
    _check_options(reference, target, task)
    if reference in BUTTER:
        return BUTTER[reference]
    if reference in EMBEDDED:
        return EMBEDDED[reference]
    if is_generator(reference):
        return describe_generator(reference)
    return load(reference, target=target, task=task, data_dir=data_dir).info


def load(
    reference: str,
    *,
    target: str | None = None,
    task: str | None = None,
    data_dir: str | Path | None = None,
) -> Dataset:
    """Read, verify and encode a data set.

    Parameters
    ----------
    reference : str, see the docstring of this module
    target : name of the target's column, for a local table and for nothing else
    task : "regression" or "classification" for a local table, to override what the target suggests
    data_dir : folder to look into first for BUTTER's data sets, and to download to

    Returns
    -------
    dataset : Dataset

    Raises
    ------
    DatasetError
        When the data set is unknown, missing, damaged, can not be fetched, or holds values that can
        not be encoded; the message says how to mend it.

    Examples
    --------
    >>> dataset = load("iris")
    >>> dataset.x.shape, dataset.y.shape
    ((150, 4), (150, 3))
    """
    _check_options(reference, target, task)
    path = ensure_available(reference, data_dir=data_dir)
    if reference in BUTTER:
        return load_butter(reference, path)
    if reference in EMBEDDED:
        return load_embedded(reference)
    if is_generator(reference):
        return generate(reference)
    return load_idx(path) if _is_idx(path) else load_table(path, target, task)


def prepare_reading(references: Iterable[str]) -> None:
    """Import what reading these data sets takes, so that no run is timed with it."""
    if any(reference in EMBEDDED for reference in references):
        import_reader()


def _check_options(reference: str, target: str | None, task: str | None) -> None:
    check_reference(reference)
    if target is None and task is None:
        return
    if not _is_file(reference) or _is_idx(_local_path(reference)):
        given = {"target": target, "task": task}
        names = " and ".join(f"{k} = {v!r}" for k, v in given.items() if v is not None)
        raise DatasetError(
            f"{names} given for {reference!r}, which has its own; leave it out (it is for local"
            " tables)"
        )


def _is_file(reference: str) -> bool:
    """Whether the string is that of a local file or folder; the disk is not asked."""
    if is_generator(reference):
        return False
    return "/" in reference or reference.endswith(TABLE_SUFFIXES) or is_idx_name(reference)


def _local_path(reference: str) -> Path:
    path = Path(reference)
    # The shell does not expand ~ in the file of a sweep.
    return (path.expanduser() if reference.startswith("~/") else path).absolute()


def _is_idx(path: Path) -> bool:
    return path.is_dir() or is_idx_name(path.name)
