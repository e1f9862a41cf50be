"""Real data sets that come with scikit-learn: small, and at hand without a network.

They are encoded by BUTTER's rules like everything else, except that `digits` is an image: grey
values / 16, and pixels that are always white stay. The table below answers questions of planning
without importing scikit-learn.
"""

from minibutter.datasets.dataset import Dataset, DatasetInfo
from minibutter.datasets.encoding import encode_inputs, encode_pixels, encode_target

_EMBEDDED_SETS = (
    # name, task, rows, inputs, outputs
    DatasetInfo("breast_cancer", "binary", 569, 30, 1),
    DatasetInfo("diabetes", "regression", 442, 10, 1),
    DatasetInfo("digits", "classification", 1_797, 64, 10),
    DatasetInfo("iris", "classification", 150, 4, 3),
    DatasetInfo("wine", "classification", 178, 13, 3),
)
EMBEDDED = {info.name: info for info in _EMBEDDED_SETS}


def import_reader() -> None:
    """Import what `load_embedded` needs, which takes a second."""
    import sklearn.datasets  # noqa: F401


def load_embedded(name: str) -> Dataset:
    """Read and encode a data set of scikit-learn.

    Parameters
    ----------
    name : str, a key of `EMBEDDED`

    Returns
    -------
    dataset : Dataset
    """
    import sklearn
    from sklearn import datasets

    info = EMBEDDED[name]
    bunch = getattr(datasets, f"load_{name}")(as_frame=True)
    if name == "digits":
        x = encode_pixels(bunch.data.to_numpy(dtype=int), white=16)
    else:
        x = encode_inputs(bunch.data, name)
    task = "regression" if info.task == "regression" else "classification"
    y, _ = encode_target(bunch.target, task, f"the target of {name}")
    return Dataset(info, x, y, source=f"scikit-learn {sklearn.__version__}", sha256=None)
