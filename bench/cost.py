"""How good the estimates of a training step are here, before and after calibration.

`python -m bench.cost` calibrates (half a minute), then times networks that are none of the probes,
alone and, where that may pay, in all lanes, and compares both estimates with what was measured: of
each network the ratio of estimated to measured, of all the median error, the root mean square of
its logarithm, and how often the estimate chose right between one by one and packed. Processor time,
the least of some epochs, on the core that it is bound to: `taskset -c 0 python -m bench.cost`.
"""

import time

import numpy as np

from minibutter.calibration import calibrate
from minibutter.nn.cost import BUILT_IN, step_us
from minibutter.nn.kernels.layout import lanes_of
from minibutter.nn.network import Network
from minibutter.nn.probes import Probe, measure_step_us
from minibutter.nn.shapes import format_widths
from minibutter.provenance import read_cpu_model

NETWORKS = (
    # inputs, widths, task, batch: networks of BUTTER's data sets and sizes, and two odd ones.
    (4, (4, 4, 1), "regression", 256),
    (36, (16, 16, 6), "classification", 256),
    (2, (37, 18, 9, 4, 2, 1), "regression", 256),
    (11, (18, 18, 18, 7), "classification", 256),
    (4, (*[12] * 19, 1), "regression", 256),
    (26, (41, 41, 41, 41, 41, 4), "classification", 256),
    (81, (60, 60, 1), "binary", 256),
    (124, (50, 50, 50, 1), "regression", 192),
    (784, (20, 20, 10), "classification", 256),
    (8, (4, 4, 1), "regression", 32),
    (64, (64, 64, 64, 10), "classification", 32),
    (141, (201, 119, 70, 41, 24, 14, 8, 5), "classification", 256),
    (26, (141, 141, 141, 141, 11), "classification", 256),
    (8, (251, 251, 1), "regression", 256),
    (784, (76, 38, 38, 38, 10), "classification", 256),
    (126, (629, *[39] * 18, 3), "classification", 256),
    (287, (300, 300, 3), "classification", 256),
    (11, (900, 900, 7), "classification", 32),
    (784, (596, 479, 362, 244, 127, 10), "classification", 256),
    (141, (1000, 1000, 5), "classification", 256),
    (784, (2600, 10), "classification", 256),
    (2, (*[480] * 18, 1), "regression", 256),
    (784, (1800, 1800, 10), "classification", 256),
    (784, (3700, 3700, 10), "classification", 256),
)
MAX_PACKED_PARAMETERS = 20_000


def summarize(measured_us: np.ndarray, estimated_us: np.ndarray) -> str:
    """Errors of some estimates, arrays (n,), in words."""
    errors = np.abs(np.log(estimated_us / measured_us))
    return (
        f"median error {np.expm1(np.median(errors)):.1%}, root mean square of the logarithm "
        f"{np.sqrt(np.mean(errors**2)):.3f}, worst ratio {np.exp(errors.max()):.2f}"
    )


def main() -> None:
    """Measure and print."""
    begun_s = time.process_time()
    calibration = calibrate(read_cpu_model())
    print(
        f"{calibration.cpu_model}; calibrated in {time.process_time() - begun_s:.0f} s of "
        "processor time\n\nestimated / measured: built-in, calibrated"
    )
    models = (BUILT_IN, calibration.model)
    found: dict[bool, list[list[float]]] = {False: [], True: []}
    right = np.zeros(2, int)
    for n_inputs, widths, task, batch_size in NETWORKS:
        network = Network(n_inputs, widths, task)
        packs = network.num_parameters <= MAX_PACKED_PARAMETERS
        for is_packed in (False, True)[: 1 + packs]:
            probe = Probe(network, batch_size, is_packed)
            measured_us = measure_step_us(probe)
            estimated_us = [
                step_us(network, batch_size, probe.repetitions, model) for model in models
            ]
            found[is_packed].append([measured_us, *estimated_us])
            ratios = "  ".join(f"{estimate / measured_us:5.2f}" for estimate in estimated_us)
            print(
                f"{ratios}  {measured_us:9.1f} us  {'packed' if is_packed else 'alone ':6}  "
                f"{n_inputs} inputs, {format_widths(widths)}, batch {batch_size}",
                flush=True,
            )
        if packs:
            alone = lanes_of(network.dtype) * np.array(found[False][-1])
            pays = np.array(found[True][-1]) < alone
            right += pays[1:] == pays[0]
    for is_packed, rows in found.items():
        measured_us, *estimates = np.array(rows).T
        for name, estimated_us in zip(("built-in", "calibrated"), estimates, strict=True):
            kind = "packed" if is_packed else "alone"
            print(f"\n{kind}, {len(rows)} networks, {name}: ", end="")
            print(summarize(measured_us, estimated_us), end="")
    print(f"\n\nchose right of {len(found[True])}: built-in {right[0]}, calibrated {right[1]}")


if __name__ == "__main__":
    main()
