"""IDX files written by the test, and the real test images of MNIST."""

import gzip
import struct

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from minibutter.datasets import DatasetError, describe, load


def idx_bytes(array):
    array = np.asarray(array, dtype=np.uint8)
    header = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    return header + array.tobytes()


def write_pair(folder, part, pixels, labels, suffix=""):
    folder.mkdir(exist_ok=True)
    for kind, array in [("images-idx3", pixels), ("labels-idx1", labels)]:
        content = idx_bytes(array)
        path = folder / f"{part}-{kind}-ubyte{suffix}"
        path.write_bytes(gzip.compress(content) if suffix else content)
    return folder / f"{part}-images-idx3-ubyte{suffix}"


def images(n, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, size=(n, 3, 2)), rng.integers(0, 10, size=n)


def refusal(reference, **options):
    with pytest.raises(DatasetError) as caught:
        load(str(reference), **options)
    return str(caught.value)


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_pixels_and_labels_come_back(tmp_path, suffix):
    pixels, labels = images(7)
    path = write_pair(tmp_path, "train", pixels, labels, suffix)
    dataset = load(str(path))
    assert_array_equal(dataset.x, (pixels.reshape(7, 6) / 255).astype(np.float32))
    assert_array_equal(dataset.y, np.eye(10)[labels])
    assert dataset.info.name == path.name
    assert (dataset.info.task, dataset.info.n_outputs) == ("classification", 10)
    assert dataset.info == describe(str(path))
    assert dataset.x.flags.c_contiguous
    assert not dataset.x.flags.writeable


def test_folder_holds_training_images_first(tmp_path):
    train, test = images(5, seed=1), images(3, seed=2)
    folder = tmp_path / "fashion"
    write_pair(folder, "t10k", *test, suffix=".gz")
    write_pair(folder, "train", *train)
    dataset = load(f"{folder}/")
    both = [np.concatenate(pair) for pair in zip(train, test, strict=True)]
    assert_array_equal(dataset.x, (both[0].reshape(8, 6) / 255).astype(np.float32))
    assert_array_equal(dataset.y.argmax(axis=1), both[1])
    assert dataset.info.name == "fashion"


def test_digest_is_that_of_the_content(tmp_path):
    pixels, labels = images(4)
    one = load(str(write_pair(tmp_path / "one", "train", pixels, labels))).info
    two = load(str(write_pair(tmp_path / "two", "train", pixels, labels, ".gz"))).info
    assert one.digest == two.digest
    labels = (labels + 1) % 10
    other = load(str(write_pair(tmp_path / "other", "train", pixels, labels))).info
    assert other.digest != one.digest


def test_real_test_images_of_mnist_are_read(mnist_dir):
    dataset = load(str(mnist_dir))
    assert dataset.x.shape == (10_000, 784)
    assert (dataset.x.min(), dataset.x.max()) == (0, 1)
    # The first digits of the set and the number of sevens in it are well known.
    assert dataset.y[:10].argmax(axis=1).tolist() == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]
    assert dataset.y.sum(axis=0)[7] == 1028


def test_name_of_an_image_file_is_enough_in_the_working_directory(tmp_path, monkeypatch):
    write_pair(tmp_path, "t10k", *images(4), suffix=".gz")
    monkeypatch.chdir(tmp_path)
    assert load("t10k-images-idx3-ubyte.gz").info.n_rows == 4


def test_folder_without_images_is_refused(tmp_path):
    assert f"the folder {tmp_path} holds neither train-images" in refusal(tmp_path)


def test_missing_file_is_refused(tmp_path):
    path = tmp_path / "train-images-idx3-ubyte"
    assert f"there is no file {path}" in refusal(path)


def test_images_without_labels_are_refused(tmp_path):
    path = write_pair(tmp_path, "train", *images(4))
    (tmp_path / "train-labels-idx1-ubyte").unlink()
    message = refusal(path)
    assert "no labels: put train-labels-idx1-ubyte or train-labels-idx1-ubyte.gz" in message


def test_images_and_labels_of_different_number_are_refused(tmp_path):
    pixels, labels = images(4)
    message = refusal(write_pair(tmp_path, "train", pixels, labels[:3]))
    assert "holds 4 images" in message
    assert "holds 3 labels" in message


def test_training_and_test_images_of_different_size_are_refused(tmp_path):
    pixels, labels = images(4)
    write_pair(tmp_path, "train", pixels, labels)
    write_pair(tmp_path, "t10k", pixels[:, :2], labels)
    assert "differ in size" in refusal(tmp_path)


def test_label_beyond_nine_is_refused(tmp_path):
    pixels, _ = images(3)
    assert "the label 10 in image 2" in refusal(write_pair(tmp_path, "train", pixels, [0, 10, 3]))


@pytest.mark.parametrize("pixels", [np.zeros((0, 3, 2)), np.zeros((2, 0, 2))])
def test_images_without_pixels_are_refused(tmp_path, pixels):
    path = write_pair(tmp_path, "train", pixels, np.zeros(len(pixels)))
    assert "holds no pixels" in refusal(path)


def test_swapped_files_are_refused_by_their_magic_number(tmp_path):
    pixels, labels = images(4)
    path = write_pair(tmp_path, "train", labels, pixels)
    assert "begins with the bytes 00000801" in refusal(path)


@pytest.mark.parametrize("n_bytes", [0, 3, 4, 9, 16, 39])
def test_truncated_file_is_refused(tmp_path, n_bytes):
    path = write_pair(tmp_path, "train", *images(4))
    path.write_bytes(path.read_bytes()[:n_bytes])
    message = refusal(path)
    assert str(path) in message
    assert ("begins with" if n_bytes < 4 else f"holds {n_bytes} bytes") in message


def test_file_longer_than_its_header_says_is_refused(tmp_path):
    path = write_pair(tmp_path, "train", *images(4))
    path.write_bytes(path.read_bytes() + b"\0")
    assert "holds 41 bytes, but its header promises 40" in refusal(path)


@pytest.mark.parametrize("cut", [slice(None, -9), slice(4, None)])
def test_damaged_gzip_is_refused(tmp_path, cut):
    path = write_pair(tmp_path, "train", *images(4), suffix=".gz")
    path.write_bytes(path.read_bytes()[cut])
    assert f"{path} is a damaged or truncated gzip file" in refusal(path)


def test_target_and_task_are_refused_for_images(tmp_path):
    path = write_pair(tmp_path, "train", *images(4))
    assert "leave it out" in refusal(path, target="label")
    assert "leave it out" in refusal(tmp_path, task="regression")
