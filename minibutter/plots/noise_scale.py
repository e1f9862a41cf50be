"""Figures of the study of the gradient noise scale."""

from pathlib import Path

import matplotlib.ticker
import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from minibutter.plots.drawing import finish_axis, save

_COLUMN_INCHES = (5.2, 3.9)
_SCALES = {
    "B_simple": ("#1f77b4", "o", r"$B_\mathrm{simple}$ = tr$\,\Sigma$ / $|G|^2$"),
    "B_noise": ("#2ca02c", "s", r"$B_\mathrm{noise}$ = tr$\,H\Sigma$ / $G^\top\! H G$"),
    "B_crit": ("#d62728", "D", r"$B_\mathrm{crit}$ of the sweep"),
}


def draw_noise_scales(along: pd.DataFrame, scales: pd.DataFrame, path: Path) -> None:
    """B_simple, B_noise and B_crit against the training error, as in the paper's figure 14.

    Parameters
    ----------
    along : one row a checkpoint: `error`, `trace`, `squared_gradient`.
    scales : one row a `scale` and `goal`: `value`, `low`, `high`.
    path : file to write; its ending chooses the format.
    """
    figure, axis = _one_axis()
    known = along[along["error"] > 0]
    axis.scatter(
        *(known["error"], known["trace"] / known["squared_gradient"]),
        s=5, color=_SCALES["B_simple"][0], alpha=0.25, linewidths=0,
        label=r"$B_\mathrm{simple}$ of single checkpoints",
    )  # fmt: skip
    for name, (colour, marker, label) in _SCALES.items():
        rows = scales[scales["scale"] == name].sort_values("goal")
        if rows.empty:
            continue
        axis.errorbar(
            *(rows["goal"], rows["value"]),
            yerr=_whiskers(rows["value"], rows["low"], rows["high"]),
            color=colour, marker=marker, markersize=4.5, linewidth=1.3, capsize=2, label=label,
        )  # fmt: skip
    axis.set_xscale("log")
    axis.set_yscale("log")
    axis.invert_xaxis()
    smallest = max(scales["goal"].min() / 3 if len(scales) else 0, known["error"].min())
    axis.set_xlim(right=smallest)
    # An interval of two seeds may span decades; the values are what the axis is for.
    values = pd.concat([scales["value"], known["trace"] / known["squared_gradient"]])
    axis.set_ylim(values.min() / 3, values.max() * 12)
    axis.set_xlabel("train error", fontsize=9)
    axis.set_ylabel("batch size [examples]", fontsize=9)
    _plain_ticks(axis.xaxis)
    axis.legend(fontsize=8, frameon=False, loc="upper left")
    save(figure, path)


def draw_frontier(points: pd.DataFrame, fits: pd.DataFrame, path: Path) -> None:
    """Examples against steps at every goal, with the hyperbola that was fitted.

    Parameters
    ----------
    points : one row a `goal` and `batch_size`: `steps`, `examples`.
    fits : one row a goal: `least_steps`, `least_examples`, `critical_batch_size`.
    path : file to write.
    """
    figure, axis = _one_axis()
    colours = _colours_of(fits["goal"])
    for fit in fits.itertuples():
        rows = points[points["goal"] == fit.goal]
        colour = colours[fit.goal]
        axis.plot(rows["steps"], rows["examples"], "o", color=colour, markersize=4)
        if not np.isfinite(fit.critical_batch_size):
            continue
        sizes = np.geomspace(rows["batch_size"].min() / 1.5, rows["batch_size"].max() * 1.5, 200)
        steps = fit.least_steps * (1 + fit.critical_batch_size / sizes)
        axis.plot(steps, steps * sizes, color=colour, linewidth=1.1, label=f"{fit.goal:g}")
        axis.plot(
            2 * fit.least_steps, 2 * fit.least_examples,
            "x", color=colour, markersize=7, markeredgewidth=1.6,
        )  # fmt: skip
    axis.plot([], [], "x", color="0.3", markersize=7, label=r"$B = B_\mathrm{crit}$")
    axis.set_xscale("log")
    axis.set_yscale("log")
    axis.set_xlabel("steps S", fontsize=9)
    axis.set_ylabel("examples E = B S", fontsize=9)
    figure.legend(
        title="train error", fontsize=8, title_fontsize=8, frameon=False, loc="outside right upper"
    )
    save(figure, path)


def draw_smoothing(exact: pd.DataFrame, smoothed: pd.DataFrame, path: Path) -> None:
    """B_crit of the same runs by the exact error, and by a moving average of their batches' errors.

    Parameters
    ----------
    exact, smoothed : one row a goal: `goal`, `critical_batch_size` with `_low` and `_high`.
    path : file to write.
    """
    figure, axis = _one_axis()
    name = "critical_batch_size"
    for rows, colour, marker, label in (
        (exact, "#d62728", "D", "exact error on fixed rows"),
        (smoothed, "0.4", "o", "moving average of the batches' error"),
    ):
        known = rows.dropna(subset=[name]).sort_values("goal")
        axis.errorbar(
            *(known["goal"], known[name]),
            yerr=_whiskers(known[name], known[f"{name}_low"], known[f"{name}_high"]),
            color=colour, marker=marker, markersize=4.5, linewidth=1.3, capsize=2, label=label,
        )  # fmt: skip
    axis.set_xscale("log")
    axis.set_yscale("log")
    axis.invert_xaxis()
    axis.set_xlabel("goal: train error", fontsize=9)
    axis.set_ylabel(r"$B_\mathrm{crit}$ [examples]", fontsize=9)
    _plain_ticks(axis.xaxis)
    _plain_ticks(axis.yaxis)
    axis.legend(fontsize=8, frameon=False)
    save(figure, path)


def draw_best_steps(best_steps: pd.DataFrame, laws: pd.DataFrame, path: Path) -> None:
    """The best step against the batch size: measured, fitted with (2.6), and predicted.

    Parameters
    ----------
    best_steps : one row a `seed`, `step` of training and `batch_size`: `best_step` with `_low` and
        `_high`, and `level`, of the training error.
    laws : one row a seed and step: `fitted_step`, `fitted_scale`, `largest_step`, `noise_scale`.
    path : file to write.
    """
    levels = sorted(best_steps["level"].unique(), reverse=True)
    figure = Figure(figsize=(2.9 * len(levels) + 0.2, 3.3), layout="constrained")
    axes = np.atleast_1d(figure.subplots(1, len(levels), sharey=True))
    for axis, level in zip(axes, levels, strict=True):
        rows = best_steps[best_steps["level"] == level]
        colours = _colours_of(rows["seed"])
        for (seed, step), points in rows.groupby(["seed", "step"]):
            colour, points = colours[seed], points.sort_values("batch_size")
            axis.errorbar(
                *(points["batch_size"], points["best_step"]),
                yerr=_whiskers(
                    points["best_step"], points["best_step_low"], points["best_step_high"]
                ),
                fmt="o", color=colour, markersize=4, capsize=2, linewidth=1,
            )  # fmt: skip
            law = laws[(laws["seed"] == seed) & (laws["step"] == step)]
            sizes = np.geomspace(points["batch_size"].min(), points["batch_size"].max(), 100)
            for fit in law.itertuples():
                axis.plot(
                    sizes, fit.fitted_step / (1 + fit.fitted_scale / sizes),
                    color=colour, linewidth=1.2,
                )  # fmt: skip
                axis.plot(
                    sizes, fit.largest_step / (1 + fit.noise_scale / sizes),
                    color=colour, linewidth=1.2, linestyle="--",
                )  # fmt: skip
        axis.set_title(f"train error about {level:g}", fontsize=9)
        axis.set_xscale("log")
        axis.set_yscale("log")
        finish_axis(axis)
        _plain_ticks(axis.yaxis)
    axes[0].plot([], [], "o", color="0.3", markersize=4, label="measured, 95 %")
    axes[0].plot([], [], color="0.3", label="fit of (2.6)")
    axes[0].plot([], [], "--", color="0.3", label="from Hessian products")
    axes[0].legend(
        title="a colour a seed", title_fontsize=7.5, fontsize=7.5, frameon=False, loc="lower right"
    )
    figure.supxlabel("batch size [examples]", fontsize=9)
    figure.supylabel("best learning rate of one step", fontsize=9)
    save(figure, path)


def draw_temperature(table: pd.DataFrame, begin: int, end: int, path: Path) -> None:
    """B_simple along runs whose learning rate is lower for a while.

    Parameters
    ----------
    table : one row a `seed` and `step`: `trace`, `squared_gradient`, `learning_rate`.
    begin, end : steps of the window.
    path : file to write.
    """
    figure = Figure(figsize=(_COLUMN_INCHES[0], 4.2), layout="constrained")
    axis, below = figure.subplots(2, 1, sharex=True, height_ratios=(3.2, 1))
    table = table.assign(log_scale=np.log(table["trace"] / table["squared_gradient"]))
    for axis_ in (axis, below):
        axis_.axvspan(begin, end, color="0.92", linewidth=0)
        finish_axis(axis_)
    for _, run in table.groupby("seed"):
        axis.plot(run["step"], np.exp(run["log_scale"]), color="#1f77b4", linewidth=0.5, alpha=0.35)
    mean = table.groupby("step")["log_scale"].mean()
    smooth = np.exp(mean.rolling(5, center=True, min_periods=1).mean())
    axis.plot(smooth.index, smooth, color="#1f77b4", linewidth=1.8, label="geometric mean")
    axis.plot([], [], color="#1f77b4", linewidth=0.5, alpha=0.5, label="single seeds")
    axis.set_yscale("log")
    axis.set_ylabel(r"$B_\mathrm{simple}$ [examples]", fontsize=9)
    axis.legend(fontsize=8, frameon=False, loc="upper left")
    first = table[table["seed"] == table["seed"].iloc[0]]
    below.step(first["step"], first["learning_rate"], where="pre", color="0.3", linewidth=1.2)
    below.set_yscale("log")
    below.set_ylabel("learning rate", fontsize=9)
    below.set_xlabel("step", fontsize=9)
    save(figure, path)


def draw_adaptive(
    points: pd.DataFrame, fits: pd.DataFrame, gains: pd.DataFrame, path: Path
) -> None:
    """Steps and examples over their minima: fixed batches, and batches that follow the noise.

    Parameters
    ----------
    points : one row a `goal` and `batch_size`: `steps`, `examples`.
    fits : one row a goal: `least_steps`, `least_examples`.
    gains : one row a seed, goal and exchange rate: `steps_ratio`, `examples_ratio`,
        `predicted_gamma`.
    path : file to write.
    """
    figure, axis = _one_axis()
    colours = _colours_of(fits["goal"])
    fixed = points.merge(fits[["goal", "least_steps", "least_examples"]], on="goal")
    means = gains.groupby(["goal", "exchange_rate"])[["steps_ratio", "examples_ratio"]].agg(
        lambda values: np.exp(np.log(values).mean())
    )
    for goal, colour in colours.items():
        rows = fixed[fixed["goal"] == goal]
        axis.plot(
            rows["steps"] / rows["least_steps"], rows["examples"] / rows["least_examples"],
            "o", color=colour, markersize=4, alpha=0.55, markeredgewidth=0,
        )  # fmt: skip
        if goal in means.index:
            followed = means.loc[goal]
            axis.plot(
                followed["steps_ratio"], followed["examples_ratio"],
                "*", color=colour, markersize=9, markeredgecolor="black", markeredgewidth=0.4,
                label=f"{goal:g}",
            )  # fmt: skip
    excess = np.geomspace(0.03, 60, 200)
    axis.plot(1 + excess, 1 + 1 / excess, color="0.2", linewidth=1, label=r"$\gamma = 1$")
    gamma = float(gains["predicted_gamma"].mean())
    if np.isfinite(gamma):
        axis.plot(
            1 + excess, 1 + gamma / excess, "--", color="0.2", linewidth=1,
            label=rf"$\gamma$ = {gamma:.2f}" + "\n(predicted)",
        )  # fmt: skip
    axis.plot([], [], "o", color="0.5", markersize=4, label="fixed batch")
    axis.plot([], [], "*", color="0.5", markersize=9, label=r"$B = \sqrt{r B_\mathrm{simple}}$")
    axis.set_xscale("log")
    axis.set_yscale("log")
    axis.set_xlim(0.9, 70)
    axis.set_ylim(0.9, 70)
    axis.set_xlabel(r"$S / S_\mathrm{min}$", fontsize=9)
    axis.set_ylabel(r"$E / E_\mathrm{min}$", fontsize=9)
    figure.legend(
        title="train error", fontsize=8, title_fontsize=8, frameon=False, loc="outside right upper"
    )
    save(figure, path)


def _one_axis() -> tuple[Figure, Axes]:
    figure = Figure(figsize=_COLUMN_INCHES, layout="constrained")
    axis = figure.subplots()
    finish_axis(axis)
    return figure, axis


def _whiskers(values: pd.Series, low: pd.Series, high: pd.Series) -> np.ndarray:
    """Distances (2, n) to the ends of the intervals; none where an end is not known."""
    below, above = (values - low).clip(lower=0), (high - values).clip(lower=0)
    return np.nan_to_num(np.array([below, above], np.float64))


def _colours_of(values: pd.Series) -> dict:
    """A colour for every value, from large to small."""
    distinct = sorted(values.unique(), reverse=True)
    scale = colormaps["viridis"]
    return {value: scale(0.9 * i / max(len(distinct) - 1, 1)) for i, value in enumerate(distinct)}


def _plain_ticks(axis: "matplotlib.axis.Axis") -> None:
    """Ticks of a logarithmic axis as numbers and not as powers."""
    axis.set_major_locator(matplotlib.ticker.LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(matplotlib.ticker.FormatStrFormatter("%g"))
    axis.set_minor_formatter(matplotlib.ticker.NullFormatter())
