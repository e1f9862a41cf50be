"""What the comparison of estimates says of errors that are known."""

import numpy as np

from bench.cost import NETWORKS, summarize
from minibutter.nn.probes import PROBES


def test_errors_are_summed_up_as_they_are():
    measured_us = np.array([10.0, 20.0, 40.0])
    said = summarize(measured_us, measured_us * [1.0, 1.1, 0.5])
    assert said == ("median error 10.0%, root mean square of the logarithm 0.404, worst ratio 2.00")


def test_no_network_is_judged_that_was_fitted():
    fitted = {(probe.network.n_inputs, probe.network.widths) for probe in PROBES}
    assert not fitted & {(n_inputs, widths) for n_inputs, widths, _, _ in NETWORKS}
