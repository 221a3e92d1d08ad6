"""Scores of one network by step: what :class:`kagscope.measuring.series.Series` and :class:`kagscope.Tracker` draw."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from kagscope.base.errors import NothingToPlot
from kagscope.figures.looks import line_looks
from kagscope.figures.steps import step_axis, within_unit
from kagscope.figures.style import MANY, SINGLE_COLUMN, figure_legend, legend_above, new_axes, new_figure, reference_line, style
from kagscope.labels import FRACTIONS, short_label
from kagscope.tables.means import layers_of, require, select

FOLLOWED = (("pr", 2, "ratio"), ("kl_uniform", 2, "ratio"), ("rr_pr", 2, "value"), ("zero_rows", 1, "value"))
REFERENCE = {"ratio": 1.0, "rr_pr": 1.0}
GEOMETRIC = 20.0  # last step over first step from which the axis is logarithmic


def plot_by_step(
    summary: pd.DataFrame,
    *,
    score: str = "pr",
    k: int = 2,
    selection: str = "all",
    measure: str = "ratio",
    onsets: pd.DataFrame | None = None,
    ax: Axes | None = None,
    legend: bool = True,
) -> Axes:
    """A score against the step, a line for each layer, with its 95% interval over points as a band; a ring at each onset.

    Args:
        summary: ``step``, ``layer``, ``k``, ``selection``, ``score``, and ``ratio``, ``ratio_low``, ``ratio_high`` (or those of
            ``value``): :meth:`kagscope.measuring.series.Series.summary`, or :meth:`kagscope.Tracker.summary` (whose interval is
            called ``low`` and ``high``).
        score, k, selection: which.
        measure: "ratio" (over the baseline's; where there is no baseline, "value") or "value".
        onsets: rows of :func:`kagscope.tables.onset.find_onsets`, to mark the step at which each layer leaves the baseline.
        ax: where to draw; a new figure by default.
        legend: whether to draw one.

    Raises:
        NothingToPlot: the score was measured at fewer than two steps.
        InputError: the table lacks columns.
    """
    require(summary, ("step", "layer", "k", "selection", "score", "ratio", "value"), "summary")
    if "low" in summary.columns:
        summary = summary.rename(columns={"low": "ratio_low", "high": "ratio_high"})
    table = select(summary, score=score, k=k, selection=selection)
    measure = "value" if table["ratio"].isna().all() else measure
    table = table[table[measure].notna()]
    if table["step"].nunique() < 2:
        raise NothingToPlot(f"{score} with k = {k} for selection {selection} was measured at fewer than two steps")
    layers = layers_of(table)
    with style():
        ax = new_axes(ax, SINGLE_COLUMN + 1.4 * (len(layers) > MANY))
        for layer, look in line_looks(layers).items():
            line = select(table, layer=layer).sort_values("step")
            found = _onset(onsets, layer, score, k, selection)
            label = f"layer {layer}" + "".join(f", onset {step}" for step in found["step"])
            ax.plot(line["step"].to_numpy(float), line[measure].to_numpy(float), markersize=3, label=label, **look)
            if f"{measure}_low" in line:
                low, high = line[f"{measure}_low"].to_numpy(dtype=float), line[f"{measure}_high"].to_numpy(dtype=float)
                ax.fill_between(line["step"], low, high, color=look["color"], alpha=0.15, linewidth=0)
            at = found["step"].to_numpy(float), found["ratio"].to_numpy(float)
            ax.plot(*at, linestyle="", marker="o", markersize=8, markerfacecolor="none", color=look["color"])
        for name in {measure, score} & set(REFERENCE):
            reference_line(ax, REFERENCE[name])
        _steps(ax, np.unique(table["step"].to_numpy(dtype=float)))
        ax.set_xlabel("training step")
        order = f", k = {k}" if k else ""
        ax.set_ylabel(f"{short_label(score)}{order}" + ("\n/ baseline" if measure == "ratio" else ""))
        if measure == "value" and score in FRACTIONS:
            within_unit(ax)
        if legend:
            legend_above(ax, len(layers))
    return ax


def figure_by_step(summary: pd.DataFrame) -> Figure:
    """A panel for each score of :data:`FOLLOWED` that was measured at two steps or more.

    Raises:
        NothingToPlot: none was.
    """
    drawable = [one for one in FOLLOWED if _followed(summary, *one[:2])]
    if not drawable:
        raise NothingToPlot("no score was measured at more than one step")
    columns = min(2, len(drawable))
    rows = -(-len(drawable) // columns)
    with style():
        figure = new_figure(3.4 * columns, 2.1 * rows + 0.4)
        axes = figure.subplots(rows, columns, squeeze=False).ravel()
        for ax, (score, k, measure) in zip(axes, drawable, strict=False):
            plot_by_step(summary, score=score, k=k, measure=measure, ax=ax, legend=False)
        for ax in axes[len(drawable) :]:
            ax.set_visible(False)
        lines = [line for line in axes[0].get_lines() if str(line.get_label()).startswith("layer ")]
        figure_legend(
            figure,
            [Line2D([], [], label=str(line.get_label()), color=line.get_color(), marker=line.get_marker()) for line in lines],
        )
    return figure


def _onset(onsets: pd.DataFrame | None, layer: str, score: str, k: int, selection: str) -> pd.DataFrame:
    if onsets is None:
        return pd.DataFrame({"step": [], "ratio": []})
    found = select(onsets, layer=layer, score=score, k=k, selection=selection)
    return found[found["step"].notna()]


def _followed(summary: pd.DataFrame, score: str, k: int) -> bool:
    table = select(summary, score=score, k=k, selection="all")
    return bool(table.loc[table["value"].notna(), "step"].nunique() > 1)


def _steps(ax: Axes, steps: np.ndarray) -> None:
    """Logarithmic where steps grow geometrically, else linear."""
    positive = steps[steps > 0]
    even = len(steps) > 2 and np.ptp(np.diff(steps)) <= 0.5 * np.diff(steps).mean()
    if len(positive) > 1 and positive[-1] / positive[0] >= GEOMETRIC and not even:
        step_axis(ax, steps)
    else:
        ax.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
