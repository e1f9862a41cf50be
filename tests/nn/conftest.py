"""What the tests of networks share: a comparison with explicit bounds, and the width vectors."""

import json
import os
from pathlib import Path

import numba
import numpy as np
import pytest


@pytest.fixture(autouse=True)
def _quiet_arithmetic_of_uncompiled_kernels():
    """Compiled kernels pass NaN and inf on silently; as plain Python, NumPy warns of each."""
    with np.errstate(all="ignore" if numba.config.DISABLE_JIT else None):
        yield


@pytest.fixture
def width_vectors():
    """The published widths: a folder `reference` lies beside the data folder of the tests."""
    default = Path(__file__).parents[2].parent / "shared" / "data"
    data = Path(os.environ.get("MINIBUTTER_TEST_DATA", default))
    vectors = data.parent / "reference" / "width_vectors.json"
    if not vectors.is_file():
        pytest.skip(f"there is no {vectors}; it lies beside the folder of MINIBUTTER_TEST_DATA")
    return json.loads(vectors.read_text())


@pytest.fixture
def assert_within():
    """assert_within(actual, expected, bound): |actual - expected| <= bound, entry by entry.

    NaN and infinities must stand at the same places. On failure the entry furthest beyond its
    bound is shown, with both numbers and how many times too far apart they are.
    """

    def check(actual, expected, bound, what=""):
        actual, expected = np.atleast_1d(actual), np.atleast_1d(expected)
        assert actual.shape == expected.shape, f"{what} shapes {actual.shape}, {expected.shape}"
        same = (actual == expected) | (np.isnan(actual) & np.isnan(expected))
        with np.errstate(invalid="ignore"):
            apart = np.abs(actual.astype(np.float64) - expected.astype(np.float64))
        excess = np.where(same, 0, apart) / np.maximum(bound, np.finfo(np.float64).tiny)
        excess = np.where(np.isnan(excess), np.inf, excess)
        worst = np.unravel_index(excess.argmax(), excess.shape)
        assert excess[worst] <= 1, (
            f"{what} at {tuple(map(int, worst))}: actual {actual[worst]!r}, expected "
            f"{expected[worst]!r}; {excess[worst]:.3g} times the bound; "
            f"{np.count_nonzero(excess > 1)} of {excess.size} entries are beyond it"
        )

    return check


@pytest.fixture
def layers_of():
    """layers_of(network, parameters): the list of (w, b) that `reference` wants."""

    def split(network, parameters):
        return [
            (network.weights(parameters, layer), network.biases(parameters, layer))
            for layer in range(network.depth)
        ]

    return split
