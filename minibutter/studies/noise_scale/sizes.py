"""How large the study is, at either scale."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Sizes:
    """Numbers of everything. Batches larger than a third of the training rows are left out.

    Attributes
    ----------
    n_train, n_test, hidden : rows, and units of the hidden layer.
    goals : levels of the training error, decreasing.
    evaluated_rows : on which goals are tested.
    trunk_batch, trunk_rate : of the run along which noise is measured, well tuned.
    along_seeds, last_step, checkpoint_ratio, decay : runs of it, their length, the spacing of their
        checkpoints, and the decay of the moving averages.
    curvature_seeds, curvature_levels, curvature_count, probes : where B_noise is measured: near
        which levels of the error, at how many checkpoints, with how many products.
    route_seeds, route_levels, route_epochs, slices : where and over what the three routes are
        compared.
    sweep_seeds, batch_sizes, multipliers, spacing : runs of the sweep, its grid of rates in the
        order in which they are tried, and the factor between evaluations.
    branch_levels, branch_seeds, branch_batches, branch_multipliers, branch_examples : branches.
    step_levels, step_seeds, step_batches, sampled_batches, step_rows : best steps.
    temperature_seeds, temperature_factor, temperature_begin, temperature_end,
        temperature_interval : the run whose rate is lower for a while.
    adaptive_seeds, adaptive_factors, adaptive_multipliers, adaptive_rows : exchange rates over
        E_min / S_min, and rows from which such a run measures its noise scale.
    """

    n_train: int = 8000
    n_test: int = 2000
    hidden: int = 128
    goals: tuple[float, ...] = (0.3, 0.2, 0.1, 0.05, 0.03, 0.02, 0.01)
    evaluated_rows: int = 4000
    trunk_batch: int = 128
    trunk_rate: float = 0.1
    along_seeds: int = 4
    last_step: int = 2500
    checkpoint_ratio: float = 1.12
    decay: float = 0.99
    curvature_seeds: int = 4
    curvature_levels: tuple[float, ...] = (0.3, 0.1, 0.03, 0.01)
    curvature_count: int = 2
    probes: int = 16
    route_seeds: int = 2
    route_levels: tuple[float, ...] = (0.3, 0.1, 0.02)
    route_epochs: int = 10
    slices: int = 8
    sweep_seeds: int = 3
    batch_sizes: tuple[int, ...] = (4, 16, 64, 256, 1024, 2048)
    multipliers: tuple[float, ...] = (1.0, 2.0, 0.5, 0.25)
    spacing: float = 1.06
    branch_levels: tuple[float, ...] = (0.2, 0.05)
    branch_seeds: int = 3
    branch_batches: tuple[int, ...] = (8, 16, 32, 64, 128, 256, 512, 1024)
    branch_multipliers: tuple[float, ...] = (0.125, 0.25, 0.5, 1.0, 2.0)
    branch_examples: int = 8192
    step_levels: tuple[float, ...] = (0.3, 0.05)
    step_seeds: int = 2
    step_batches: tuple[int, ...] = (4, 16, 64, 256, 1024)
    sampled_batches: int = 48
    step_rows: int = 4000
    temperature_seeds: int = 4
    temperature_factor: float = 16.0
    temperature_begin: int = 800
    temperature_end: int = 1800
    temperature_interval: int = 25
    adaptive_seeds: int = 3
    adaptive_factors: tuple[float, ...] = (0.25, 1.0, 4.0)
    adaptive_multipliers: tuple[float, ...] = (1.0, 2.0)
    adaptive_rows: int = 2000


QUICK = Sizes()

FULL = Sizes(
    along_seeds=20,
    last_step=4000,
    checkpoint_ratio=1.08,
    curvature_seeds=10,
    curvature_levels=(0.3, 0.2, 0.1, 0.05, 0.03, 0.02, 0.01),
    probes=48,
    route_seeds=5,
    route_levels=(0.3, 0.1, 0.05, 0.02, 0.01),
    route_epochs=30,
    sweep_seeds=20,
    batch_sizes=(2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048),
    branch_levels=(0.3, 0.2, 0.1, 0.05, 0.02),
    branch_seeds=20,
    step_levels=(0.3, 0.1, 0.05, 0.02),
    step_seeds=5,
    step_batches=(2, 4, 8, 16, 32, 64, 128, 256, 512, 1024),
    sampled_batches=64,
    temperature_seeds=20,
    adaptive_seeds=20,
    adaptive_factors=(0.0625, 0.25, 1.0, 4.0, 16.0),
    adaptive_multipliers=(0.5, 1.0, 2.0),
)
