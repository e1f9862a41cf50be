"""Data sets: one string names one, `load` hands back encoded arrays.

The string, the *reference*, is the name of one of BUTTER's 13 sets, the name of a set that
scikit-learn ships, a generator with its arguments, or the path of a local file; the command
`minibutter data list` shows them. Encoding follows BUTTER, column by column. Start reading at
`references.py`, then `encoding.py`.
"""

from minibutter.datasets.dataset import Dataset, DatasetError, DatasetInfo
from minibutter.datasets.pmlb import PMLB_URL, fetch
from minibutter.datasets.references import (
    CatalogEntry,
    canonical_reference,
    catalog,
    check_reference,
    describe,
    ensure_available,
    load,
    prepare_reading,
)
from minibutter.datasets.split import add_label_noise, split_dataset, split_sizes

__all__ = [
    "PMLB_URL",
    "CatalogEntry",
    "Dataset",
    "DatasetError",
    "DatasetInfo",
    "add_label_noise",
    "canonical_reference",
    "catalog",
    "check_reference",
    "describe",
    "ensure_available",
    "fetch",
    "load",
    "prepare_reading",
    "split_dataset",
    "split_sizes",
]
