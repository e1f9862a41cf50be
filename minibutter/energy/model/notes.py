"""What a reader has to know of a fit, in sentences, and how far its observations reach."""

from minibutter.energy.model.observations import Observations
from minibutter.energy.model.results import MIN_EXPERIMENTS, Form


def notes_on(observations: Observations, form: Form) -> list[str]:
    """What to know of observations, and of the form `hierarchy` fitted to them."""
    notes = []
    n_experiments = len(set(observations.experiments))
    if n_experiments < MIN_EXPERIMENTS:
        notes.append(
            f"{n_experiments} experiments are too few for intervals and held-out errors, which "
            f"need {MIN_EXPERIMENTS}"
        )
    if len(observations.cpu_models) > 1:
        notes.append(
            f"energies of {len(observations.cpu_models)} processors are fitted together; fit "
            f"each alone to compare them: {', '.join(observations.cpu_models)}"
        )
    notes += _on_packages(observations)
    if "measured_shared" in observations.qualities:
        notes.append("energies of packages that ranks shared are among them, and hold others' work")
    for each in form.dependences:
        notes.append(
            f"{' and '.join(each.terms)} are hard to tell apart (condition index "
            f"{each.condition_index:.0f}): their sum is known better than each"
        )
    if form.merged:
        notes.append(
            f"{', '.join(each.term for each in form.merged)} cannot be told from the other terms "
            "and stand in their coefficients; vary sizes, batches or tilings so that they do not "
            "grow together"
        )
    return notes


def _on_packages(observations: Observations) -> list[str]:
    """What to know of energies of packages that several runs used at once."""
    is_package = observations.is_package
    if not is_package.any():
        return []
    notes = [
        f"{observations.n_runs[is_package].sum()} runs were not alone on their package: its whole "
        "energy is fitted to the work of all runs there, of these results; their seconds are those "
        "of runs beside each other"
    ]
    n_mixed = observations.composition.n_mixed[is_package].mean()
    if n_mixed > 1.05:
        notes.append(
            f"such an energy holds {n_mixed:.1f} experiments on average; their errors partly "
            "cancel, and one left out is still in the rows of others: intervals allow for it, "
            "errors left out do not"
        )
    return notes


def ranges_of(observations: Observations) -> dict[str, tuple[float, float]]:
    """Least and largest value of each feature of a single run."""
    features = observations.features
    values = {"flops": features.flops, "steps": features.n_steps, "depth": features.depth}
    values |= {f"{level} bytes": moved for level, moved in features.traffic_bytes.items()}
    return {name: (float(each.min()), float(each.max())) for name, each in values.items()}
