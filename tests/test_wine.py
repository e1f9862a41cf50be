"""BUTTER's own published history of one run, met under its own settings.

The run: wine_quality_white, widths 17-17-17-7, Adam 1e-3, the last 20 % of the rows as test set,
January 2021 (NREL's BUTTER framework, tests/data). It is a single repetition without its seed, so
the median of ours must come near, not agree: within 0.1 at epoch 10 and 0.05 at epoch 50, and in
proportion elsewhere, as repetitions differ more early (100 of ours span 1.16 to 1.63 at epoch 5).
"""

import numpy as np
import pytest

from minibutter import runs
from minibutter.energy import open_meter
from minibutter.experiments import plan_experiment
from minibutter.provenance import read_provenance
from minibutter.sweeps.spec import RunSpec

PUBLISHED_TEST_LOSS = {
    5: (1.3595, 0.15),
    10: (1.1839, 0.10),
    20: (1.1132, 0.075),
    50: (1.0362, 0.05),
}
PUBLISHED_TRAIN_LOSS = {
    5: (1.5419, 0.15),
    10: (1.3175, 0.10),
    20: (1.1853, 0.075),
    50: (1.1128, 0.05),
}


@pytest.fixture(scope="module")
def wine_histories(data_dir):
    spec = RunSpec(
        dataset="wine_quality_white",
        widths=(17, 17, 17, 7),
        learning_rate=1e-3,
        split_method="last",
        epochs=78,
    )
    experiment = plan_experiment(spec, 10, data_dir)
    with open_meter() as meter:
        return [
            runs.execute(
                experiment,
                repetition,
                meter=meter,
                provenance=read_provenance(),
                sweep="wine",
                data_dir=data_dir,
            )
            for repetition in range(10)
        ]


def test_the_network_has_the_published_942_parameters(wine_histories):
    assert {result.run["num_parameters"] for result in wine_histories} == {942}
    assert {(result.run["n_train"], result.run["n_test"]) for result in wine_histories} == {
        (3918, 980)
    }


@pytest.mark.parametrize(
    ("column", "published"),
    [("test_loss", PUBLISHED_TEST_LOSS), ("train_loss", PUBLISHED_TRAIN_LOSS)],
)
def test_the_median_of_ten_repetitions_lies_in_the_bands(wine_histories, column, published):
    median = np.median([result.epochs[column] for result in wine_histories], axis=0)
    for epoch, (value, band) in published.items():
        assert abs(median[epoch - 1] - value) < band, (epoch, median[epoch - 1], value)
