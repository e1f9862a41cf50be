"""Generators: what their arguments may be, that a seed pins them, and that they can be learnt."""

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from minibutter.datasets import DatasetError, canonical_reference, check_reference, describe, load
from minibutter.datasets.synthetic import ARGUMENTS


@pytest.mark.parametrize("generator", ARGUMENTS)
def test_same_seed_gives_the_same_bits_and_another_seed_does_not(generator):
    first, again, other = (load(f"{generator}:seed={seed}") for seed in (5, 5, 6))
    assert first.x.tobytes() == again.x.tobytes()
    assert first.y.tobytes() == again.y.tobytes()
    assert first.x.tobytes() != other.x.tobytes()
    assert first.y.tobytes() != other.y.tobytes()


@pytest.mark.parametrize(
    "reference",
    [
        *ARGUMENTS,
        "gaussian_classification:classes=2,rows=31,dimension=3",
        "gaussian_classification:classes=7,rows=7,dimension=1,noise=0",
        "gaussian_regression:rows=2,dimension=1,seed=9223372036854775807",
    ],
)
def test_description_agrees_with_the_data(reference):
    dataset = load(reference)
    assert dataset.info == describe(reference)
    assert dataset.info.name == canonical_reference(reference)
    assert dataset.x.shape == (dataset.info.n_rows, dataset.info.n_inputs)
    assert dataset.y.shape == (dataset.info.n_rows, dataset.info.n_outputs)
    assert dataset.x.dtype == dataset.y.dtype == np.float32
    assert dataset.x.flags.c_contiguous
    assert not dataset.y.flags.writeable
    assert dataset.info.digest is None


@pytest.mark.parametrize(
    "spelling",
    [
        "gaussian_regression",
        "gaussian_regression:",
        "gaussian_regression:seed=0",
        "gaussian_regression:rows=1000,noise=.1",
        "gaussian_regression:noise=1e-1, rows = 01000 ,dimension=8",
    ],
)
def test_every_spelling_has_one_canonical_form(spelling):
    canonical = "gaussian_regression:dimension=8,noise=0.1,rows=1000,seed=0"
    assert canonical_reference(spelling) == canonical
    assert canonical_reference(canonical) == canonical


def test_other_arguments_have_another_canonical_form():
    assert canonical_reference("gaussian_classification:classes=4,noise=1") == (
        "gaussian_classification:classes=4,dimension=8,noise=1.0,rows=1000,seed=0"
    )


def test_two_classes_are_binary():
    dataset = load("gaussian_classification:classes=2")
    assert (dataset.info.task, dataset.info.n_outputs) == ("binary", 1)
    assert sorted(np.unique(dataset.y)) == [0, 1]


def test_classes_are_equally_frequent_and_in_random_order():
    y = load("gaussian_classification:classes=3,rows=1000").y
    assert sorted(y.sum(axis=0)) == [333, 333, 334]
    assert_array_equal(y.sum(axis=1), 1)
    assert set(y[:50].argmax(axis=1)) == {0, 1, 2}
    assert (y[:999].argmax(axis=1) != np.arange(999) % 3).any()


def test_clouds_have_the_standard_deviation_of_noise_around_separate_centres():
    dataset = load("gaussian_classification:dimension=40,classes=3,rows=30000,noise=0.25")
    labels = dataset.y.argmax(axis=1)
    centres = np.stack([dataset.x[labels == label].mean(axis=0) for label in range(3)])
    # 400,000 values for each class: four standard errors are 0.0011.
    for label in range(3):
        std = (dataset.x[labels == label] - centres[label]).std()
        assert abs(std - 0.25) < 0.0012
    # |a - b|² has the mean 2 and the standard deviation √(8 / 40) = 0.45.
    for a, b in [(0, 1), (0, 2), (1, 2)]:
        assert 0.2 < ((centres[a] - centres[b]) ** 2).sum() < 3.8


def test_regression_inputs_are_standard_normal_and_targets_fill_zero_to_one():
    dataset = load("gaussian_regression:rows=20000")
    assert abs(dataset.x.mean()) < 0.01
    assert abs(dataset.x.std() - 1) < 0.01
    assert (dataset.y.min(), dataset.y.max()) == (0, 1)


def test_regression_target_is_a_bent_curve_of_one_direction():
    dataset = load("gaussian_regression:rows=200000,dimension=3,noise=0")
    y = dataset.y[:, 0].astype(np.float64)
    # E[x y] points along the direction (Stein's lemma); across it y does not change.
    direction = dataset.x.T @ (y - y.mean())
    direction /= np.linalg.norm(direction)
    u = dataset.x @ direction
    curve = u / (1 + u**2) + 0.5
    assert np.abs(y - curve).max() < 0.05
    residual = y - np.polyval(np.polyfit(u, y, 1), u)
    assert residual.std() > 0.3 * y.std()  # a straight line leaves much unexplained


def test_noise_spreads_the_targets_of_a_regression():
    def roughness(reference):
        dataset = load(reference)
        order = dataset.x[:, 0].argsort()
        return np.diff(dataset.y[order, 0]).std()

    quiet = roughness("gaussian_regression:dimension=1,rows=5000,noise=0")
    loud = roughness("gaussian_regression:dimension=1,rows=5000,noise=0.3")
    assert loud > 10 * quiet


@pytest.mark.parametrize(
    ("arguments", "fragments"),
    [
        ("row=5", ["no argument 'row'", "did you mean 'rows'?", "classes, dimension, noise"]),
        ("rows", ["'rows' in", "argument=value"]),
        ("rows=5,,seed=1", ["'' in", "argument=value"]),
        ("rows=5,rows=6", ["rows is given twice"]),
        ("rows=many", ["rows is 'many'", "an integer from 2 to"]),
        ("rows=1e3", ["rows is '1e3'", "an integer"]),
        ("rows=1", ["rows is '1'", "from 2"]),
        ("dimension=0", ["dimension is '0'", "from 1"]),
        ("classes=1", ["classes is '1'", "from 2"]),
        ("seed=-1", ["seed is '-1'", "from 0"]),
        (f"seed={2**63}", [f"seed is '{2**63}'", f"to {2**63 - 1}"]),
        ("noise=-0.5", ["noise is '-0.5'", "a number from 0.0"]),
        ("noise=nan", ["noise is 'nan'"]),
        ("noise=", ["noise is ''"]),
        ("classes=9,rows=8", ["rows is 8", "number of classes, 9"]),
        ("rows=100000000,dimension=1000", ["rows × dimension", "at most"]),
    ],
)
def test_wrong_arguments_are_named(arguments, fragments):
    reference = f"gaussian_classification:{arguments}"
    for function in (check_reference, canonical_reference, describe, load):
        with pytest.raises(DatasetError) as caught:
            function(reference)
        assert all(fragment in str(caught.value) for fragment in fragments), str(caught.value)


def test_regression_has_no_classes():
    with pytest.raises(DatasetError, match="no argument 'classes'"):
        check_reference("gaussian_regression:classes=3")
