"""Scores of one run's checkpoints by step: what :class:`kagscope.measuring.series.Series` draws."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from kagscope.figures.measured import layer_colours
from kagscope.figures.steps import step_axis
from kagscope.figures.style import figure_legend, new_axes, new_figure, reference_line, score_label, style
from kagscope.figures.tables import NothingToPlot, layers_of, select

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
    ax: Axes | None = None,
    legend: bool = True,
) -> Axes:
    """A score against the step, a line for each layer, with its 95% interval over points as a band.

    Args:
        summary: of :meth:`kagscope.measuring.series.Series.summary`.
        score, k, selection: which.
        measure: "ratio" (over the baseline's; where there is no baseline, "value") or "value".
        ax: where to draw; a new figure by default.
        legend: whether to draw one.

    Raises:
        NothingToPlot: the score was measured at fewer than two steps.
    """
    table = select(summary, score=score, k=k, selection=selection)
    measure = "value" if table["ratio"].isna().all() else measure
    table = table[table[measure].notna()]
    if table["step"].nunique() < 2:
        raise NothingToPlot(f"{score} with k = {k} for selection {selection} was measured at fewer than two steps")
    layers = layers_of(table)
    with style():
        ax = new_axes(ax)
        for layer, colour in zip(layers, layer_colours(len(layers)), strict=True):
            line = select(table, layer=layer).sort_values("step")
            ax.plot(line["step"], line[measure], color=colour, marker="o", markersize=3, label=layer)
            low, high = line[f"{measure}_low"].to_numpy(dtype=float), line[f"{measure}_high"].to_numpy(dtype=float)
            ax.fill_between(line["step"], low, high, color=colour, alpha=0.15, linewidth=0)
        for name in (measure, score):
            if name in REFERENCE:
                reference_line(ax, REFERENCE[name])
        _steps(ax, np.unique(table["step"].to_numpy(dtype=float)))
        ax.set_xlabel("training step")
        name = "PR" if score == "pr" else score_label(score)
        ax.set_ylabel(f"{name}, k = {k}" + ("\n/ baseline" if measure == "ratio" else ""))
        if legend:
            ax.legend(title="layer")
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
        handles = [Line2D([], [], label=f"layer {line.get_label()}", color=line.get_color()) for line in axes[0].get_lines()]
        figure_legend(figure, [handle for handle in handles if not str(handle.get_label()).startswith("layer _")])
    return figure


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
