"""From a sweep to its plan: identity, network and cost of every experiment.

The cells of a sweep are not made one by one. What a question depends on is looked up on the axes
(`sweeps.grid`), and it is answered once for every combination that occurs: one network for a data
set, a shape, a size and a depth, say, whatever the learning rates. Only ids are worked out for
every cell.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from minibutter.experiments.experiment import (
    CHECKS,
    CONTENT_DEPENDS_ON,
    check_name,
    identity_content,
)
from minibutter.experiments.plan import US_PER_H, Plan
from minibutter.experiments.resolved import (
    RESOLVED_KEYS,
    Asked,
    Resolved,
    predict_epoch_us,
    resolve,
)
from minibutter.nn.cost import BUILT_IN, CostModel
from minibutter.sweeps import identity, options, selection
from minibutter.sweeps.grid import Columns, Grid
from minibutter.sweeps.spec import SPEC_KEYS, Sweep, SweepError, load_sweep

MAX_CELLS = 20_000_000
"""Ids and columns of so many take some gigabytes, and minutes."""


def read_sweep(
    source: str,
    assignments: Sequence[str] = (),
    condition: str | None = None,
    limit: int | None = None,
    budget: str | None = None,
) -> Sweep:
    """A sweep as a command line asks for it, with all its names checked.

    Parameters
    ----------
    source : path of a file, or a name from the catalogue.
    assignments : texts of `--set`.
    condition, limit, budget : of `--filter`, `--limit` and `--budget`; None for all of it.

    Raises
    ------
    SweepError
        If the sweep or an option cannot be understood.
    """
    selected = options.read_selection(condition, limit, budget, CHECKS)
    return load_sweep(source, CHECKS, options.parse_assignments(assignments), selected)


def plan_experiments(
    sweep: Sweep, data_dir: Path | None = None, cost_model: CostModel = BUILT_IN
) -> Plan:
    """Give every experiment of a sweep its identity and its network; nothing is trained.

    The same experiment asked for twice is listed once, with the larger number of repetitions.

    Parameters
    ----------
    sweep : from `minibutter.sweeps.spec`; what it selects is planned.
    data_dir : where local data sets lie; only files are read, registered sets are known.
    cost_model : rates of the machine that is to run it.

    Raises
    ------
    SweepError
        If a value names something that no room knows, no machine has such tiles, or what the sweep
        selects is nothing.
    """
    whole, experiments = _plan_all(sweep, data_dir, cost_model)
    if sweep.selection == selection.EVERYTHING:
        return whole
    numbers = _choose(sweep, whole, experiments)
    core_h = whole.work_us[numbers].sum() / US_PER_H
    return whole.chosen(
        numbers,
        f"chosen: {len(numbers)} of {len(whole)} experiments ({sweep.selection.text}), about "
        f"{core_h:.3g} core-hours",
    )


def _plan_all(
    sweep: Sweep, data_dir: Path | None, cost_model: CostModel
) -> tuple[Plan, np.ndarray]:
    """The plan of a whole sweep, and for every cell the number of its experiment."""
    if len(sweep.experiments) > MAX_CELLS:
        raise SweepError(
            f"{sweep.name} asks for {len(sweep.experiments)} experiments, and {MAX_CELLS} can be "
            "planned; take some away with exclude, or write several sweeps"
        )
    ids: list[str] = []
    distinct: list[Resolved] = []
    known: dict[tuple, int] = {}
    codes_of_cells = []
    for grid in sweep.grids:
        columns = grid.columns()
        for key in CHECKS:
            for value in dict.fromkeys(columns.values(key)):
                check_name(key, value)
        cells, codes = columns.distinct(RESOLVED_KEYS)
        rows = columns.rows(RESOLVED_KEYS, cells)
        for row in rows:
            # Other grids may have met it.
            if row not in known:
                known[row] = len(distinct)
                distinct.append(resolve(Asked(*row), data_dir, cost_model))
        codes = np.array([known[row] for row in rows], np.int64)[codes]
        codes_of_cells.append(codes)
        ids += _identify(grid, columns, distinct, codes)
    numbers: dict[str, int] = {}
    experiments = np.fromiter(
        (numbers.setdefault(each, len(numbers)) for each in ids), np.int64, len(ids)
    )
    repetitions = np.repeat([grid.repetitions for grid in sweep.grids], list(map(len, sweep.grids)))
    # The first of the cells that ask for most repetitions stands for an experiment.
    order = np.lexsort((-repetitions, experiments))
    _, firsts = np.unique(experiments[order], return_index=True)
    cells = order[firsts]
    plan = Plan(
        name=sweep.name,
        sweep_cells=sweep.experiments,
        experiment_ids=list(numbers),
        cells=cells,
        n_cells=np.bincount(experiments),
        repetitions=repetitions[cells],
        epochs=sweep.experiments.numbers_of("epochs")[cells].astype(np.int64),
        distinct=distinct,
        codes=np.concatenate(codes_of_cells)[cells],
    )
    return plan, experiments


def _identify(
    grid: Grid, columns: Columns, distinct: list[Resolved], codes: np.ndarray
) -> list[str]:
    """Ids of the cells of a grid; `codes` says which of `distinct` each of them has."""
    content = {}
    for key in SPEC_KEYS:
        cells, content_codes = columns.distinct(CONTENT_DEPENDS_ON.get(key, (key,)))
        values = [
            identity_content(grid[cell], distinct[codes[cell]]).get(key, identity.ABSENT)
            for cell in cells.tolist()
        ]
        content[key] = (values, content_codes)
    return identity.experiment_ids(content)


def _choose(sweep: Sweep, plan: Plan, experiments: np.ndarray) -> np.ndarray:
    """Numbers, ascending, of the experiments that a sweep selects.

    `experiments` has for every cell of the sweep the number of its experiment.
    """
    wanted = sweep.selection
    chosen = np.arange(len(plan))
    if wanted.condition is not None:
        # Wherever it holds in one of the cells that ask for an experiment.
        where = [grid.columns().where(wanted.condition) for grid in sweep.grids]
        chosen = np.unique(experiments[np.concatenate(where)])
        if not len(chosen):
            raise SweepError(f"--filter {wanted.condition.text!r} leaves nothing of {sweep.name}")
    if wanted.limit is None and wanted.budget_core_h is None:
        return chosen
    # What is counted, or paid for, is to be of use.
    chosen = chosen[~plan.has_problem[chosen]][: wanted.limit]
    if not len(chosen):
        raise SweepError(f"nothing that is chosen of {sweep.name} can be run")
    if wanted.budget_core_h is None:
        return chosen
    cost_h = plan.work_us[chosen] / US_PER_H
    # The order is that of the built-in rates, the same on every machine and after a calibration;
    # only how far along it the money goes is a matter of the machine.
    order = selection.nested_order(
        plan.repetitions[chosen] * plan.epochs[chosen] * _built_in_epoch_us(plan)[chosen],
        np.round(np.log2(plan.num_parameters[chosen])).astype(np.int64),
        plan.sweep_cells.are_corners(plan.cells[chosen]),
        [plan.experiment_ids[number] for number in chosen.tolist()],
    )
    n_paid = np.searchsorted(np.cumsum(cost_h[order]), wanted.budget_core_h, side="right")
    if not n_paid:
        raise SweepError(
            f"--budget {wanted.budget_core_h:g}core-h is too little: the cheapest experiment "
            f"of {sweep.name} takes about {cost_h[order[0]]:.2g} core-hours"
        )
    return np.sort(chosen[order[:n_paid]])


def _built_in_epoch_us(plan: Plan) -> np.ndarray:
    """Microseconds of an epoch by the rates that come with the package; 0 where there is none."""
    batch_sizes = plan.sweep_cells.numbers_of("batch_size")[plan.cells]
    used, firsts = np.unique(plan.codes, return_index=True)
    epoch_us = np.zeros(len(plan.distinct))
    for code, batch_size in zip(used.tolist(), batch_sizes[firsts].tolist(), strict=True):
        each = plan.distinct[code]
        if each.problem is None:
            epoch_us[code] = predict_epoch_us(
                each.network, each.n_train, each.n_test, int(batch_size)
            )
    return epoch_us[plan.codes]
