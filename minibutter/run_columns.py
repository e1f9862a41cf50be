"""What is known of a run before it is trained, as columns of the table `runs`."""

from typing import Any

from minibutter import hierarchy
from minibutter.experiments import TILING_SIZES, Experiment
from minibutter.nn.network import Network
from minibutter.sweeps import identity

_USED_SIZES = {f"{size}_used": size for size in TILING_SIZES}


def identity_columns(experiment: Experiment, repetition: int, sweep: str) -> dict[str, Any]:
    """Everything about a run that is known before it starts."""
    spec, info, network = experiment.spec, experiment.info, experiment.network
    known = spec.model_dump(exclude={"widths", "task", "measure"})
    return known | {
        "run_id": identity.run_id(experiment.experiment_id, repetition),
        "experiment_id": experiment.experiment_id,
        "repetition": repetition,
        "sweep": sweep,
        "task_override": spec.task,
        "measure": ",".join(spec.measure) or None,
        "depth": experiment.depth,
        "dataset_digest": info.digest if info else None,
        "task": info.task if info else None,
        "n_inputs": info.n_inputs if info else None,
        "n_outputs": info.n_outputs if info else None,
        "n_train": experiment.n_train,
        "n_test": experiment.n_test,
        "widths": list(network.widths) if network else None,
        "num_parameters": network.num_parameters if network else None,
        "data_source": None,
        "data_sha256": None,
        "lanes": None,
        **hierarchy.work_columns(experiment.workload),
        **dict.fromkeys(hierarchy.TRAFFIC_COLUMNS),
        **dict.fromkeys(_USED_SIZES),
    }


def used_sizes(network: Network) -> dict[str, Any]:
    """The sizes of tiles and cache blocks that a network is trained with on this machine."""
    used = network.tiling.resolved(network.dtype)
    return {column: getattr(used, size) for column, size in _USED_SIZES.items()}
