"""Do rounding errors decide what a network learns? From the learning rate on at which it is held.

Sun, Gong, Lao, Sundaramoorthi et al., *Surprising instabilities in training deep networks and a
theoretical analysis*, NeurIPS 2022, arXiv:2206.02001, on small networks, and then the same question
of the kernels that we train with: what does it take to part two trainings?
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from minibutter.plots import edge as edge_figures
from minibutter.plots import instability as figures
from minibutter.studies.catalogue import StudyError
from minibutter.studies.data import load_split
from minibutter.studies.instability import conclusions, stages
from minibutter.studies.instability.demonstrations import OneLayerNetwork
from minibutter.studies.instability.differences import PARTED
from minibutter.studies.instability.pairs import ends_of, growth_rates
from minibutter.studies.instability.sizes import (
    DEEP,
    EASY,
    FULL,
    KERNELS,
    QUICK,
    EdgeRun,
    Sizes,
)
from minibutter.studies.instability.spread import analyse_spread
from minibutter.studies.instability.trajectories import Recipe
from minibutter.studies.study import Conclusion, Course, Measurements, Settings, Step
from minibutter.studies.verdict import Criterion, judge

_EDGE_INPUTS = 196
"""Of pooled images of MNIST, for which the numbers of the edge of stability were found."""


@dataclass(frozen=True)
class Instability:
    """The study.

    Attributes
    ----------
    quick, full : how much of everything.
    """

    name: str = "instability"
    question: str = "do rounding errors decide what a network learns, and from which step on?"
    quick: Sizes = QUICK
    full: Sizes = FULL

    def outline(self, settings: Settings) -> list[Step]:
        """All stages; a failed self-check ends the study after the first."""
        return [Step.of(stage) for stage in self._stages(settings)]

    def course(self, settings: Settings) -> Course:
        """The stages, and what they say."""
        _refuse_small_data(settings, self._sizes(settings))
        tables: dict[str, pd.DataFrame] = {}
        for stage in self._stages(settings):
            tables[stage.name] = yield stage
            if stage.name == "self-check":
                check = conclusions.judge_instrument(tables[stage.name])
                if check.state != "reproduced":
                    return Conclusion((check,), {"self_check": tables[stage.name]}, {})
        return self._conclude(settings, check, tables)

    def _sizes(self, settings: Settings) -> Sizes:
        return self.quick if settings.scale == "quick" else self.full

    def _stages(self, settings: Settings) -> list[Measurements]:
        sizes = self._sizes(settings)
        return [
            stages.self_check(settings, sizes),
            stages.known_systems(sizes),
            stages.other_systems(),
            stages.kernel_bits(settings, sizes),
            stages.divergence(settings, sizes),
            stages.kernel_divergence(settings, sizes),
            stages.spread(settings, sizes),
            stages.edge(settings, sizes),
            stages.network_sharpness(settings, sizes),
        ]

    def _conclude(
        self, settings: Settings, check: Criterion, tables: dict[str, pd.DataFrame]
    ) -> Conclusion:
        pairs, kernel_pairs = tables["divergence"], tables["kernel-divergence"]
        ends = ends_of(pairs)
        deep = _select(ends, network=DEEP, rule="nesterov", dtype="float32")
        # The reference of the kernels is of the same start.
        kernel_ends = pd.concat(
            [
                ends_of(kernel_pairs),
                _select(deep, variant="k = 3", start=0),
            ],
            ignore_index=True,
        )
        perturbations = [f"k = {k}" for k in range(3, 12)]
        rates = growth_rates(pairs)
        runs, rng = tables["spread"], np.random.default_rng(settings.seed)
        spreads = {
            network: analyse_spread(_select(runs, network=network), rng)
            for network in runs["network"].unique()
        }
        criteria = [
            check,
            *conclusions.judge_exact(tables["one-layer"], tables["known-systems"]),
            *conclusions.judge_threshold(deep, perturbations),
            conclusions.judge_control(_select(ends, network=EASY, rule="plain")),
            *conclusions.judge_kernels(kernel_ends, tables["kernel-bits"], KERNELS),
            *(
                conclusions.judge_spread(network, spread)
                for network, spread in spreads.items()
                if network.startswith("relu")
            ),
            *_judge_edges(tables["edge"], self._sizes(settings).edge_runs),
        ]
        spread_table = pd.DataFrame(
            [{"label": network, **asdict(spread)} for network, spread in spreads.items()]
        )
        return Conclusion(
            tuple(criteria),
            {
                "self_check": tables["self-check"],
                "one_layer": tables["one-layer"],
                "known_systems": tables["known-systems"],
                "kernel_bits": tables["kernel-bits"],
                "divergence": pairs,
                "growth": rates,
                "kernel_divergence": kernel_pairs,
                "accuracies": runs.drop(columns="right"),
                "spread": spread_table,
                "edge": tables["edge"],
                "sharpness": tables["sharpness"],
            },
            _figures(tables, ends, kernel_ends, rates, spread_table),
            _context(self._sizes(settings), ends, tables),
        )


def _refuse_small_data(settings: Settings, sizes: Sizes) -> None:
    """Raise a StudyError where the rows that are there do not fill a batch."""
    data = load_split(
        *(settings.dataset, settings.data_dir, sizes.n_train, sizes.n_test, settings.seed)
    )
    if len(data.x_train) < Recipe.batch_size:
        raise StudyError(
            f"{settings.dataset} leaves {len(data.x_train)} rows to train on and "
            f"{len(data.x_test)} to test with; this study trains in batches of "
            f"{Recipe.batch_size}: take a larger data set, as in --dataset digits"
        )


def _select(table: pd.DataFrame, **values: Any) -> pd.DataFrame:
    """Rows in which columns have these values."""
    chosen = np.logical_and.reduce([table[name] == value for name, value in values.items()])
    return table[chosen]


def _judge_edges(edge: pd.DataFrame, runs: Sequence[EdgeRun]) -> list[Criterion]:
    """Sharpness at the threshold on all rows, batch sharpness there in minibatches."""
    if edge["n_inputs"].iloc[0] != _EDGE_INPUTS:
        return [
            judge(
                "edge of stability",
                "sharpness / (2 / step) late in descent on all rows",
                None,
                expected=(0.98, 1.02),
                reason=f"its numbers are those of images of {_EDGE_INPUTS} pixels",
            )
        ]
    criteria = []
    for run in runs:
        if run.judged_from is None:
            continue
        rows = edge[edge["label"] == run.label]
        late = rows[(rows["step"] >= run.judged_from) | rows["has_ended"]]
        if run.keywords["batch_size"] is None:
            criteria.append(
                conclusions.judge_edge(
                    f"edge, {run.label}",
                    f"sharpness / threshold from step {run.judged_from} on, all rows in a batch",
                    *(late, "sharpness", 0.02),
                )
            )
        else:
            share = (late["sharpness"] / late["threshold"]).mean()
            criteria.append(
                conclusions.judge_edge(
                    f"batch sharpness, {run.label}",
                    "batch sharpness / (2 / step) of minibatches whose step has grown to the edge",
                    *(late, "batch_sharpness", 0.1),
                    reason=f"the sharpness of all rows is at {share:.2f}",
                )
            )
    return criteria


def _figures(
    tables: dict[str, pd.DataFrame],
    ends: pd.DataFrame,
    kernel_ends: pd.DataFrame,
    rates: pd.DataFrame,
    spreads: pd.DataFrame,
) -> dict[str, Any]:
    def labelled(table: pd.DataFrame) -> pd.DataFrame:
        label = table["network"] + ", " + table["rule"]
        is_double = table["dtype"] == "float64"
        return table.assign(label=label.where(~is_double, label + ", float64"))

    pairs = _select(tables["divergence"], start=0, variant="k = 3")
    in_time = pairs[pairs["rule"] == "nesterov"]
    lines = _select(rates, start=0, variant="k = 3")
    name = {"label": lambda table: table["network"]}
    edge = tables["edge"]
    has_batches = edge["batch_size"].notna()
    return {
        "divergence": partial(
            figures.draw_divergence,
            labelled(ends[ends["variant"].str.startswith("k")]),
            kernel_ends.assign(label=kernel_ends["variant"]),
            PARTED,
            conclusions.TOGETHER,
        ),
        "growth": partial(
            figures.draw_growth,
            in_time.assign(**name),
            _select(lines, rule="nesterov").assign(**name),
        ),
        "spread": partial(figures.draw_spreads, spreads),
        "sharpness": partial(
            edge_figures.draw_sharpness, edge[~has_batches], edge[has_batches], tables["sharpness"]
        ),
        "band": partial(
            edge_figures.draw_band, tables["one-layer"], OneLayerNetwork().restrained_band()
        ),
    }


def _context(sizes: Sizes, ends: pd.DataFrame, tables: dict[str, pd.DataFrame]) -> dict[str, Any]:
    impossible = tables["kernel-bits"]
    impossible = impossible[impossible["reason"] != ""]
    return {
        "n_train": sizes.n_train,
        "n_test": sizes.n_test,
        "epochs_at_the_largest_rate": sizes.epochs,
        "largest_rate": sizes.first_rate,
        "diverged": int(ends["l1"].isna().sum()),
        "kernels_not_run": dict(zip(impossible["variant"], impossible["reason"], strict=True)),
    }


STUDY = Instability()
