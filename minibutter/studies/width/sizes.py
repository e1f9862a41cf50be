"""How much of everything the width study does, by scale."""

from dataclasses import dataclass

PARAMETERIZATIONS = ("standard", "ntk", "mup")
COORDINATE_LAYERS = 2
COORDINATE_RATES = {"standard": 0.05, "ntk": 1.0, "mup": 0.05}
BASE_WIDTH = 32
"""Of muP: where it is the standard parameterization."""


@dataclass(frozen=True)
class Scan:
    """A learning rate at which the best batch size of every width is looked for.

    Attributes
    ----------
    parameterization : "ntk" or "standard".
    learning_rate : of plain SGD.
    n_steps : of every run. Rates of a parameterization have equal products of the two.
    widths : of the hidden layers.
    batch_sizes : the coarse grid, powers of two.
    """

    parameterization: str
    learning_rate: float
    n_steps: int
    widths: tuple[int, ...]
    batch_sizes: tuple[int, ...]


@dataclass(frozen=True)
class Sizes:
    """How much of everything.

    Attributes
    ----------
    scans : of batch sizes.
    n_repetitions : of every run; a multiple of 16 wastes no lane.
    n_looks : at the test rows, late in a run.
    stability_widths, stability_steps, stability_rows, stability_repetitions : of the largest stable
        learning rates.
    coordinate_widths, coordinate_steps, coordinate_rows : of the coordinate check.
    n_train, n_test : rows of a repetition.
    hidden_layers : of the scans and of the largest rates; the check has two.
    sigma0 : of the first weights.
    n_draws : of the bootstrap.
    """

    scans: tuple[Scan, ...]
    n_repetitions: int
    stability_widths: tuple[int, ...]
    coordinate_widths: tuple[int, ...]
    n_looks: int = 10
    stability_steps: int = 40
    stability_rows: int = 128
    stability_repetitions: int = 16
    coordinate_steps: tuple[int, ...] = (1, 2, 4, 8)
    coordinate_rows: int = 256
    n_train: int = 2000
    n_test: int = 8000
    hidden_layers: int = 1
    sigma0: float = 1.0
    n_draws: int = 1000


def _scans(widths: tuple[int, ...], duration: int, standard_octaves: int = 6) -> tuple[Scan, ...]:
    """Two rates of both parameterizations, that differ by two, as do their batch sizes.

    The best batch size goes with the rate, about. These rates keep it between 3 rows and an eighth
    of the training rows at all widths, and lie below the largest stable one of every width.

    Parameters
    ----------
    widths : of the hidden layers.
    duration : steps at the rate 8 of NTK.
    standard_octaves : batch sizes of the standard parameterization's grids: after many steps the
        best one of the narrowest networks comes near to the end of six.
    """
    return tuple(
        Scan(
            name,
            rate,
            round(duration / share),
            widths,
            tuple(smallest * 2**octave for octave in range(n_octaves)),
        )
        for name, rate, share, smallest, n_octaves in (
            ("ntk", 8.0, 1.0, 4, 6),
            ("ntk", 4.0, 0.5, 2, 6),
            ("standard", 0.2, 2.0, 4, standard_octaves),
            ("standard", 0.1, 1.0, 2, standard_octaves),
        )
    )


QUICK = Sizes(
    scans=_scans((8, 16, 32, 64, 128), 4000),
    n_repetitions=16,
    stability_widths=(8, 16, 32, 64, 128, 256, 512, 1024),
    coordinate_widths=(64, 128, 256, 512),
)
FULL = Sizes(
    scans=_scans((8, 16, 32, 64, 128, 256), 8000, standard_octaves=7),
    n_repetitions=32,
    stability_widths=(8, 16, 32, 64, 128, 256, 512, 1024, 2048),
    coordinate_widths=(64, 128, 256, 512, 1024),
    stability_rows=512,
    stability_steps=64,
)
