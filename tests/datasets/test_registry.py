"""The table of BUTTER's data sets, held against the real files and the published dimensions."""

import pandas as pd
import pytest
from numpy.testing import assert_array_equal

from minibutter.datasets import describe, load, split_sizes
from minibutter.datasets.encoding import encode_inputs, encode_target
from minibutter.datasets.registry import BUTTER, SHA256

# Written down from BUTTER's framework a second time, on purpose: rows, inputs, outputs, and the
# sizes of its 80/20 split.
PUBLISHED = {
    "529_pollen": (3848, 4, 1, 3078, 770),
    "537_houses": (20640, 8, 1, 16512, 4128),
    "201_pol": (15000, 26, 11, 12000, 3000),
    "connect_4": (67557, 126, 3, 54045, 13512),
    "mnist": (70000, 784, 10, 56000, 14000),
    "sleep": (105908, 141, 5, 84726, 21182),
    "wine_quality_white": (4898, 11, 7, 3918, 980),
    "nursery": (12958, 26, 4, 10366, 2592),
    "adult": (48842, 81, 1, 39073, 9769),
    "505_tecator": (240, 124, 1, 192, 48),
    "294_satellite_image": (6435, 36, 6, 5148, 1287),
    "splice": (3188, 287, 3, 2550, 638),
    "banana": (5300, 2, 1, 4240, 1060),
}
REGRESSIONS = {"529_pollen", "537_houses", "505_tecator", "banana"}


def test_registry_holds_the_thirteen_data_sets_with_a_checksum_each():
    assert set(BUTTER) == set(SHA256) == set(PUBLISHED)
    assert all(len(digest) == 64 for digests in SHA256.values() for digest in digests)


@pytest.mark.parametrize("name", PUBLISHED)
def test_registry_has_the_published_dimensions_and_splits(name):
    info = BUTTER[name]
    dimensions = (info.n_rows, info.n_inputs, info.n_outputs)
    assert dimensions + split_sizes(info.n_rows, 0.2, "shuffled") == PUBLISHED[name]
    assert info.digest is None
    expected = "regression" if name in REGRESSIONS else "classification"
    assert info.task == ("binary" if name == "adult" else expected)


@pytest.mark.parametrize("name", sorted(set(PUBLISHED) - {"mnist"}))
def test_real_file_encodes_to_the_dimensions_of_the_registry(data_dir, name):
    dataset = load(name, data_dir=data_dir)
    assert dataset.info == describe(name)
    assert dataset.x.shape == (dataset.info.n_rows, dataset.info.n_inputs)
    assert dataset.y.shape == (dataset.info.n_rows, dataset.info.n_outputs)
    assert dataset.x.dtype == dataset.y.dtype == "float32"
    assert dataset.x.flags.c_contiguous
    assert not dataset.x.flags.writeable
    assert not dataset.y.flags.writeable
    assert dataset.x.min() == 0
    assert dataset.x.max() == 1
    assert (dataset.y.min(), dataset.y.max()) == (0, 1)
    if dataset.info.task == "classification":
        assert_array_equal(dataset.y.sum(axis=1), 1)
    assert dataset.source == str(data_dir / f"{name}.tsv.gz")
    assert dataset.sha256 in SHA256[name]


def test_both_codings_of_the_banana_target_encode_alike(data_dir, tmp_path):
    older = pd.read_csv(data_dir / "banana.tsv.gz", sep="\t")
    assert sorted(older["target"].unique()) == [-1, 1]
    present = older.assign(target=(older["target"] + 1) / 2)
    encoded = [encode_target(f["target"], "regression", "banana") for f in (older, present)]
    assert_array_equal(encoded[0][0], encoded[1][0])
    assert encoded[0][1] == encoded[1][1] == "regression"
    inputs = [encode_inputs(f.drop(columns="target"), "banana") for f in (older, present)]
    assert_array_equal(inputs[0], inputs[1])
    # And from end to end, by way of an unpacked file, which has no checksum.
    present.to_csv(tmp_path / "banana.tsv", sep="\t", index=False)
    mine, real = load("banana", data_dir=tmp_path), load("banana", data_dir=data_dir)
    assert_array_equal(mine.x, real.x)
    assert_array_equal(mine.y, real.y)


def test_mnist_keeps_black_pixels_and_divides_by_255(tmp_path):
    # Ten images, each seven thousand times: the dimensions of the real file, quickly written.
    images = [[(37 * label + 11 * pixel) % 256 for pixel in range(784)] for label in range(10)]
    for image in images:
        image[0] = 0
    lines = ["\t".join(map(str, [*image, label])) for label, image in enumerate(images)]
    path = tmp_path / "mnist.tsv"
    header = "\t".join([*(f"pixel{i}" for i in range(784)), "target"])
    path.write_text(header + "\n" + "".join(f"{line}\n" for line in lines) * 7000)
    dataset = load("mnist", data_dir=tmp_path)
    path.unlink()  # 200 megabytes
    assert dataset.info == describe("mnist")
    assert_array_equal(dataset.x[:, 0], 0)
    expected = pd.DataFrame(images).to_numpy() / 255
    assert_array_equal(dataset.x[-10:], expected.astype("float32"))
    assert_array_equal(dataset.y[:10].argmax(axis=1), range(10))
