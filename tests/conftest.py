"""Where the tests find real data: files that are not part of the repository.

The folder is that of MINIBUTTER_TEST_DATA, else `shared/data` beside the repository. Tests that
need it are skipped, with the reason, where it is absent.
"""

import os
from pathlib import Path

import pytest


def _test_data(name: str) -> Path:
    default = Path(__file__).parents[2] / "shared" / "data"
    folder = Path(os.environ.get("MINIBUTTER_TEST_DATA", default)) / name
    if not folder.is_dir():
        pytest.skip(f"there is no folder {folder}; MINIBUTTER_TEST_DATA can name another")
    return folder


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Folder with the `.tsv.gz` files of 12 BUTTER data sets, all but mnist."""
    return _test_data("pmlb")


@pytest.fixture(scope="session")
def mnist_dir() -> Path:
    """Folder with the 10,000 test images of MNIST and their labels, as IDX files."""
    return _test_data("mnist")
