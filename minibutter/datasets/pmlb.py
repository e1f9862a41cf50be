"""Files of the BUTTER data sets: where to look, how to tell a sound one, how to fetch one.

The data come from PMLB, the Penn Machine Learning Benchmarks. A file is looked for in the folder
that the caller names, in the folder of the environment variable MINIBUTTER_DATA and in the user's
cache; it is downloaded when none of them has it. PMLB keeps its files in git-LFS, whose quota has
run out more than once (pmlb issues 168 and 191), and compute nodes often have no network: so every
way to be without data has its own message and its own remedy.
"""

from __future__ import annotations

import gzip
import os
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from minibutter.datasets.dataset import Dataset, DatasetError, DatasetInfo
from minibutter.datasets.encoding import encode_inputs, encode_pixels, encode_target
from minibutter.datasets.files import file_sha256, read_table, split_target
from minibutter.datasets.registry import BUTTER, SHA256

if TYPE_CHECKING:
    import pandas as pd

PMLB_URL = "https://github.com/EpistasisLab/pmlb/raw/master/datasets"
DOWNLOAD_TIMEOUT_S = 60
LFS_MARK = b"version https://git-lfs"
IS_LFS_POINTER = "is a git-LFS pointer, which stands in the place of the data"


def load_butter(name: str, path: Path) -> Dataset:
    """Encode a BUTTER data set and hold it against the registry.

    Parameters
    ----------
    name : str, a key of `registry.BUTTER`
    path : Path that `find_or_fetch` gave

    Returns
    -------
    dataset : Dataset

    Raises
    ------
    DatasetError
        When the content is not that of `name`.
    """
    expected = BUTTER[name]
    is_mnist = name == "mnist"
    frame = read_table(path, dtype=np.float32 if is_mnist else None)
    inputs, column = split_target(frame, "target", str(path))
    task = "regression" if expected.task == "regression" else "classification"
    y, task = encode_target(column, task, f"column 'target' of {path}")
    x = _encode_mnist_pixels(inputs, path) if is_mnist else encode_inputs(inputs, str(path))
    info = DatasetInfo(name, task, *x.shape, y.shape[1])
    if info != expected:  # only an unpacked file gets here: it has no checksum to fail
        raise DatasetError(
            f"{path} encodes to {info.n_rows} rows, {info.n_inputs} inputs and {info.n_outputs}"
            f" outputs ({info.task}), but {name} has {expected.n_rows}, {expected.n_inputs} and"
            f" {expected.n_outputs} ({expected.task}); {_fetch_again(name)}"
        )
    return Dataset(info, x, y, source=str(path), sha256=file_sha256(path))


def _encode_mnist_pixels(inputs: pd.DataFrame, path: Path) -> np.ndarray:
    """BUTTER's exception: pixels / 255, and pixels that are always black stay."""
    pixels = inputs.to_numpy()
    if not ((pixels >= 0) & (pixels <= 255)).all():  # which is false for NaN, too
        raise DatasetError(f"{path} holds pixels outside 0 to 255; {_fetch_again('mnist')}")
    return encode_pixels(pixels.astype(np.uint8), white=255)


def search_folders(data_dir: str | Path | None = None) -> list[Path]:
    """Folders to look into, in order; the first is also where downloads go."""
    import pooch

    named = [data_dir, os.environ.get("MINIBUTTER_DATA")]
    cache = pooch.os_cache("minibutter") / "pmlb"
    return [*(Path(folder).expanduser() for folder in named if folder), cache]


def find_files(name: str, data_dir: str | Path | None = None) -> list[Path]:
    """Files that should hold a BUTTER data set, in the order of the search. Opens none of them."""
    # NAME/NAME.tsv.gz is the layout of PMLB's repository and of its Python package.
    layouts = (f"{name}.tsv.gz", f"{name}/{name}.tsv.gz", f"{name}.tsv")
    paths = [folder / layout for folder in search_folders(data_dir) for layout in layouts]
    return [path for path in paths if path.is_file()]


def find_or_fetch(name: str, data_dir: str | Path | None = None) -> Path:
    """Path of a sound file of a BUTTER data set; downloads it when there is no file at all.

    A damaged file is passed over when a sound one follows, so that fetching also mends what stands
    in a folder that can not be written.

    Raises
    ------
    DatasetError
        When all files there are damaged, or the download fails.
    """
    paths = find_files(name, data_dir)
    if not paths:
        return fetch(name, data_dir=data_dir)
    defects = []
    for path in paths:
        defect = _find_defect(path, name)
        if defect is None:
            return path
        remedy = _fetch_again(name)
        if defect == IS_LFS_POINTER:
            remedy = f"run `git lfs pull` in that folder or `minibutter data fetch {name}`"
        defects.append(f"{path} {defect}; {remedy}")
    raise DatasetError(defects[0])


def _fetch_again(name: str) -> str:
    return f"delete the file and run `minibutter data fetch {name}`"


def _find_defect(path: Path, name: str) -> str | None:
    """What is wrong with a file, as the end of a sentence; None when it is sound.

    For unpacked files PMLB gives no checksum; `load_butter` compares their dimensions instead.
    """
    try:
        with path.open("rb") as file:
            if file.read(len(LFS_MARK)) == LFS_MARK:
                return IS_LFS_POINTER
        if path.suffix == ".tsv":
            return None
        found = file_sha256(path)
    except OSError as error:
        return f"can not be read ({error})"
    if found in SHA256[name]:
        return None
    if _is_truncated(path):
        return f"is a truncated gzip file ({path.stat().st_size} bytes)"
    return f"has the SHA-256 {found} where {' or '.join(SHA256[name])} is expected"


def _is_truncated(path: Path) -> bool:
    try:
        with gzip.open(path) as file:
            while file.read(1 << 20):
                pass
    except EOFError:
        return True
    except (OSError, zlib.error):
        return False
    return path.stat().st_size == 0


def fetch(name: str, *, data_dir: str | Path | None = None, base_url: str = PMLB_URL) -> Path:
    """Download a BUTTER data set, unless a sound copy already stands where it would go.

    The file appears under its name only when it is complete and its checksum is right.

    Parameters
    ----------
    name : str, one of the 13 names of BUTTER
    data_dir : folder to write to; by default that of MINIBUTTER_DATA, else the user's cache
    base_url : str, the folder of PMLB's data sets or a mirror of it, without a slash at the end

    Returns
    -------
    path : Path of the `.tsv.gz` file

    Raises
    ------
    DatasetError
        When the name is unknown, the download fails, or something else than the data arrives.

    Examples
    --------
    >>> fetch("banana")  # doctest: +SKIP
    PosixPath('/home/ada/.cache/minibutter/pmlb/banana.tsv.gz')
    """
    import pooch

    if name not in BUTTER:
        raise DatasetError(
            f"{name!r} can not be fetched; BUTTER's data sets are {', '.join(BUTTER)}"
        )
    folder = search_folders(data_dir)[0]
    path = folder / f"{name}.tsv.gz"
    if path.is_file() and _find_defect(path, name) is None:
        return path
    url = f"{base_url}/{name}/{name}.tsv.gz"
    by_hand = (
        f"or place a copy of {path.name} in {folder}, or in a folder that you name with --data-dir"
        " or MINIBUTTER_DATA"
    )

    def download_and_check(url, output_file, _pooch):
        # Without stream=False a refusal of the server would leave the connection open.
        pooch.HTTPDownloader(timeout=DOWNLOAD_TIMEOUT_S, stream=False)(url, output_file, _pooch)
        defect = _find_defect(Path(output_file), name)
        if defect == IS_LFS_POINTER:
            raise DatasetError(
                f"{url} answered with a git-LFS pointer in the place of the data, which happens"
                f" when PMLB has used up its LFS quota; try again in some days, {by_hand}"
            )
        if defect is not None:
            raise DatasetError(
                f"what came from {url} {defect}; try again in case the transfer failed, {by_hand}"
            )

    try:
        pooch.retrieve(url, SHA256[name][0], path.name, folder, downloader=download_and_check)
        # pooch leaves a file that its owner alone can read, but a cluster's data are shared.
        path.chmod(0o644)
    except OSError as error:  # the exceptions of requests are OSErrors, too
        raise DatasetError(
            f"could not fetch {name} from {url} into {folder} ({type(error).__name__}: {error});"
            f" fetch it where there is a network, {by_hand}"
        ) from error
    return path
