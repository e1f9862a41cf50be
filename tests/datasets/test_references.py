"""One string names a data set: which kind it is, what is refused, and what is not even opened."""

import doctest
import subprocess
import sys

import numpy as np
import pytest

from minibutter.datasets import (
    DatasetError,
    canonical_reference,
    catalog,
    check_reference,
    describe,
    ensure_available,
    load,
    references,
    split,
)
from minibutter.datasets.dataset import Dataset, DatasetInfo


@pytest.mark.parametrize(
    "reference",
    [
        "mnist",
        "digits",
        "gaussian_regression",
        "gaussian_classification:classes=4",
        "no/such/file.csv",
        "no_such_file.tsv.gz",
        "no/such/folder",
        "train-images-idx3-ubyte.gz",
    ],
)
def test_whatever_can_be_a_data_set_passes_the_check(reference):
    assert check_reference(reference) is None


@pytest.mark.parametrize(
    ("reference", "fragments"),
    [
        ("wine_quality", ["no data set 'wine_quality'", "did you mean 'wine_quality_white'?"]),
        ("gausian_regression:rows=5", ["did you mean 'gaussian_regression'?"]),
        ("xyz", ["no data set 'xyz'", "`minibutter data list`", ".parquet"]),
        ("", ["no data set ''"]),
        ("iris:seed=1", ["iris takes no arguments"]),
        ("data.xlsx", ["no data set 'data.xlsx'"]),
    ],
)
def test_unknown_names_are_refused_with_a_suggestion(reference, fragments):
    for function in (check_reference, canonical_reference, describe, load, ensure_available):
        with pytest.raises(DatasetError) as caught:
            function(reference)
        assert all(fragment in str(caught.value) for fragment in fragments), str(caught.value)


@pytest.mark.parametrize(
    ("reference", "canonical"),
    [
        ("mnist", "mnist"),
        ("iris", "iris"),
        ("/some/where/steel.csv", "steel.csv"),
        ("steel.csv", "steel.csv"),
        ("~/fashion/", "fashion"),
    ],
)
def test_canonical_reference_drops_folders_only(reference, canonical):
    assert canonical_reference(reference) == canonical


@pytest.mark.parametrize("reference", ["mnist", "iris", "gaussian_regression"])
@pytest.mark.parametrize("options", [{"target": "y"}, {"task": "regression"}])
def test_target_and_task_are_for_local_tables_only(reference, options):
    for function in (describe, load):
        with pytest.raises(DatasetError, match="leave it out"):
            function(reference, **options)


@pytest.mark.parametrize("reference", ["iris", "gaussian_classification:rows=10"])
def test_data_from_a_package_have_no_file(reference):
    assert ensure_available(reference) is None


def test_local_files_are_checked_without_being_read(tmp_path):
    (tmp_path / "broken.csv").write_text("no table")
    (tmp_path / "table.xlsx").write_text("no table")
    assert ensure_available(f"{tmp_path}/broken.csv") == tmp_path / "broken.csv"
    with pytest.raises(DatasetError, match="there is no file"):
        ensure_available(f"{tmp_path}/missing.csv")
    with pytest.raises(DatasetError, match="is not known"):
        ensure_available(f"{tmp_path}/table.xlsx")
    with pytest.raises(DatasetError, match="holds neither"):
        ensure_available(str(tmp_path))


def test_catalog_lists_all_names_and_each_can_be_described(tmp_path):
    entries = catalog(tmp_path)
    kinds = [entry.kind for entry in entries]
    assert (kinds.count("BUTTER"), kinds.count("embedded"), kinds.count("generator")) == (13, 5, 2)
    for entry in entries:
        assert describe(entry.info.name) == entry.info
        assert entry.is_local or entry.kind == "BUTTER"


def test_arrays_of_a_data_set_can_not_be_written():
    info = DatasetInfo("mine", "regression", 2, 1, 1)
    dataset = Dataset(info, np.zeros((2, 1), "f4"), np.zeros((2, 1), "f4"), "here", None)
    for array in (dataset.x, dataset.y):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1


def test_planning_imports_neither_pandas_nor_scikit_learn():
    program = """
import sys
from minibutter import datasets
for reference in ("mnist", "iris", "gaussian_regression", "t.csv"):
    datasets.check_reference(reference)
    datasets.canonical_reference(reference)
for reference in ("mnist", "iris", "gaussian_regression"):
    datasets.describe(reference)
assert not {"pandas", "pooch", "sklearn"} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.parametrize("module", [references, split])
def test_examples_of_the_docstrings_run(module):
    result = doctest.testmod(module, optionflags=doctest.ELLIPSIS)
    assert result.attempted > 0
    assert result.failed == 0


def test_readers_are_imported_before_the_first_run_and_only_where_they_are_needed():
    program = (
        "import sys; from minibutter import datasets; "
        "datasets.prepare_reading(['wave.csv']); assert 'sklearn' not in sys.modules; "
        "datasets.prepare_reading(['wave.csv', 'iris']); "
        "packages = lambda: {name.partition('.')[0] for name in sys.modules}; before = packages(); "
        "datasets.load('iris'); assert packages() == before, packages() - before"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
