"""From a sweep to its experiments: identity, network, cost, and what stands in their way.

Nothing is trained here and no data are read but to learn their shape. `runs` executes what is
planned. Start reading at `experiment.py`; `planning.py` does the same for all cells of a sweep.
"""

from minibutter.experiments.experiment import CHECKS, Experiment, plan_experiment
from minibutter.experiments.plan import Plan
from minibutter.experiments.planning import plan_experiments, read_sweep
from minibutter.experiments.resolved import BUTTER_BATCH_SIZE, TILING_SIZES

__all__ = [
    "BUTTER_BATCH_SIZE",
    "CHECKS",
    "TILING_SIZES",
    "Experiment",
    "Plan",
    "plan_experiment",
    "plan_experiments",
    "read_sweep",
]
