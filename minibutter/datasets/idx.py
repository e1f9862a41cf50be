"""IDX files: images and labels in the format of MNIST, gzip or not.

An IDX file is a big-endian header (two zero bytes, a type, the number of axes, the length of each
axis) and then plain bytes. Images become rows of pixels / 255, labels ten one-hot columns; Fashion
MNIST and Kuzushiji MNIST come in the same files. Source: Y. LeCun's page of the MNIST database.
"""

import gzip
import zlib
from pathlib import Path

import numpy as np

from minibutter.datasets.dataset import Dataset, DatasetError, DatasetInfo, content_digest
from minibutter.datasets.encoding import encode_pixels, one_hot

UNSIGNED_BYTE = 8
N_CLASSES = 10
IMAGES, LABELS = "-images-idx3-ubyte", "-labels-idx1-ubyte"


def is_idx_name(name: str) -> bool:
    """Whether a file's name is that of an IDX file with images."""
    return name.removesuffix(".gz").endswith(IMAGES)


def load_idx(path: Path) -> Dataset:
    """Read images and labels from a folder, or from a file of images with its labels beside it.

    A folder holds `train-images-idx3-ubyte`, `t10k-images-idx3-ubyte` or both, each with its labels
    and each gzip or not; with both, the training images come first.

    Parameters
    ----------
    path : Path of a folder or of a `*-images-idx3-ubyte[.gz]` file

    Returns
    -------
    dataset : Dataset with 10 classes, named after the folder or the file

    Raises
    ------
    DatasetError
        When a file is missing, truncated or no IDX file, or images and labels do not belong
        together.
    """
    parts = [_read_pair(images, labels) for images, labels in find_idx_files(path)]
    if len({pixels.shape[1:] for pixels, _ in parts}) > 1:
        raise DatasetError(
            f"the training and the test images in {path} differ in size; they are not of one set"
        )
    pixels = np.concatenate([pixels for pixels, _ in parts])
    labels = np.concatenate([labels for _, labels in parts])
    x, y = encode_pixels(pixels.reshape(len(pixels), -1), white=255), one_hot(labels, N_CLASSES)
    digest = content_digest(x, y, "classification")
    info = DatasetInfo(path.name, "classification", *x.shape, N_CLASSES, digest)
    return Dataset(info, x, y, source=str(path), sha256=None)


def find_idx_files(path: Path) -> list[tuple[Path, Path]]:
    """Pairs (images, labels) that `load_idx` will read, in order. Opens no file.

    Raises
    ------
    DatasetError
        When there are no images, or images without labels.
    """
    if path.is_dir():
        found = [_with_or_without_gz(path / f"{part}{IMAGES}") for part in ("train", "t10k")]
        images = [file for file in found if file is not None]
        if not images:
            raise DatasetError(
                f"the folder {path} holds neither train{IMAGES} nor t10k{IMAGES} (or with .gz);"
                " name a folder with IDX files, or one file"
            )
    elif path.is_file():
        images = [path]
    else:
        raise DatasetError(f"there is no file {path}; check the path of the data set")
    pairs = []
    for file in images:
        beside = file.with_name(file.name.removesuffix(".gz").removesuffix(IMAGES) + LABELS)
        labels = _with_or_without_gz(beside)
        if labels is None:
            raise DatasetError(
                f"{file} has no labels: put {beside.name} or {beside.name}.gz beside it"
            )
        pairs.append((file, labels))
    return pairs


def _with_or_without_gz(path: Path) -> Path | None:
    zipped = path.with_name(path.name + ".gz")
    return path if path.is_file() else zipped if zipped.is_file() else None


def _read_pair(images: Path, labels: Path) -> tuple[np.ndarray, np.ndarray]:
    pixels, classes = _read_idx(images, n_axes=3), _read_idx(labels, n_axes=1)
    if len(pixels) != len(classes):
        raise DatasetError(
            f"{images} holds {len(pixels)} images, but {labels} holds {len(classes)} labels;"
            " get both files from the same place"
        )
    if len(pixels) == 0 or pixels[0].size == 0:
        raise DatasetError(f"{images} holds no pixels; it needs data to learn from")
    if classes.max() >= N_CLASSES:
        raise DatasetError(
            f"{labels} holds the label {classes.max()} in image {classes.argmax() + 1}; labels must"
            f" be 0 to {N_CLASSES - 1}"
        )
    return pixels, classes


def _read_idx(path: Path, n_axes: int) -> np.ndarray:
    """The bytes of one IDX file in the shape that its header says."""
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (EOFError, OSError, zlib.error) as error:
        raise DatasetError(
            f"{path} is a damaged or truncated gzip file ({error}); copy or download it again"
        ) from error
    magic = bytes([0, 0, UNSIGNED_BYTE, n_axes])
    if content[:4] != magic:
        raise DatasetError(
            f"{path} begins with the bytes {content[:4].hex()}; an IDX file of unsigned bytes with"
            f" {n_axes} axes begins with {magic.hex()}; check that it is the right file"
        )
    n_header_bytes = 4 + 4 * n_axes
    header = np.frombuffer(content[4:n_header_bytes].ljust(4 * n_axes, b"\0"), dtype=">u4")
    shape = tuple(int(length) for length in header)
    n_bytes = n_header_bytes + int(np.prod(shape, dtype=object))
    if len(content) != n_bytes:
        raise DatasetError(
            f"{path} holds {len(content)} bytes, but its header promises {n_bytes} for the shape"
            f" {shape}; the file is damaged: copy or download it again"
        )
    return np.frombuffer(content, dtype=np.uint8, offset=n_header_bytes).reshape(shape)
