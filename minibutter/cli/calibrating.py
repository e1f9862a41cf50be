"""`minibutter sweep calibrate`: the cost of training on this machine, measured and kept."""

import sys

import numpy as np

from minibutter import calibration
from minibutter.calibration import Calibration
from minibutter.cli.options import Mistake
from minibutter.cli.terminal import print_json
from minibutter.nn.cost import BUILT_IN, step_us
from minibutter.nn.probes import PROBES
from minibutter.provenance import read_cpu_model


def calibrate_and_show(as_json: bool) -> None:
    """Time the probes, keep the rates, and say how good they are beside the built-in ones."""
    cpu_model = read_cpu_model()
    path = calibration.calibration_path(cpu_model)
    if path is None:
        raise Mistake(
            "there is no folder for compiled kernels, to which a calibration belongs; let "
            "NUMBA_CACHE_DIR name one that can be written"
        )
    is_watched = sys.stderr.isatty()
    if not as_json:
        print(f"{cpu_model}: timing {len(PROBES)} small networks ...", flush=True)

    def show(number: int, n_probes: int) -> None:
        if is_watched:
            print(f"\r{number}/{n_probes}", end="", file=sys.stderr, flush=True)

    measured = calibration.calibrate(cpu_model, on_probe=show)
    if is_watched:
        print("\r       \r", end="", file=sys.stderr, flush=True)
    try:
        calibration.write_calibration(measured, path)
    except OSError as error:
        raise Mistake(
            f"{path} cannot be written ({error.strerror or error}); let XDG_CACHE_HOME name a "
            "folder that can"
        ) from None
    before = _errors(measured)
    if as_json:
        print_json(
            {
                "path": str(path),
                "cpu_model": cpu_model,
                "measured_at": measured.measured_at,
                "median_error": float(np.median(np.abs(measured.errors))),
                "built_in_median_error": float(np.median(np.abs(before))),
                "alone": measured.model.alone._asdict(),
                "packed": measured.model.packed._asdict(),
            }
        )
        return
    print(f"fitted rates:   {_summary(np.array(measured.errors))}")
    print(f"built-in rates: {_summary(before)}")
    print(path)


def describe_costs(found: Calibration | None) -> str:
    """Where predicted times come from, in a sentence."""
    if found is None:
        return "times are another processor's: `minibutter sweep calibrate` measures this one's"
    return f"times are those of this processor, as measured on {found.measured_at[:10]}"


def _errors(measured: Calibration) -> np.ndarray:
    """What the built-in rates make of each probe over what was measured, less 1."""
    predicted = [
        step_us(probe.network, probe.batch_size, probe.repetitions, BUILT_IN) for probe in PROBES
    ]
    return np.array(predicted) / np.array(measured.measured_us) - 1


def _summary(errors: np.ndarray) -> str:
    sizes = np.abs(errors)
    return f"half of the steps within {np.median(sizes):.0%}, all within {sizes.max():.0%}"
