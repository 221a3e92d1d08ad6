"""Scores along training, with test accuracy beneath."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from kagscope.figures.style import (
    DOUBLE_COLUMN,
    figure_legend,
    new_axes,
    new_figure,
    not_measured,
    reference_line,
    score_label,
    setting_handles,
    style,
    training_look,
    width_colours,
)
from kagscope.figures.tables import (
    NothingToPlot,
    layer_label,
    layers_of,
    layers_with,
    over_runs,
    per_run,
    select,
    trainings_of,
    widths_of,
)
from kagscope.intervals import half_width


class Row(NamedTuple):
    """One row of the figure: a score, which measure of it, its label, its value at initialisation (None: varies)."""

    score: str
    measure: str
    label: str
    start: float | None


ROWS = (
    Row("pr", "ratio", "PR\ntrained / initial", 1.0),
    Row("kl_uniform", "difference", "KL from uniform\ntrained − initial", 0.0),
    Row("rr_pr", "value", "rotation ratio\nof PR", 1.0),
    Row("zero_rows", "value", "zero rows\n(fraction)", None),
)


def plot_score_by_step(
    results: pd.DataFrame,
    *,
    score: str = "pr",
    measure: str = "ratio",
    layer: str | None = None,
    k: int = 2,
    selection: str = "all",
    ax: Axes | None = None,
    legend: bool = True,
) -> Axes:
    """``score`` against optimiser step, a line for each width and training with the 95% interval over seeds as a band.

    Args:
        results: the ``results`` table, or :func:`~kagscope.figures.tables.per_run` of it.
        score: any score; one without an order (``kernel_alignment``) is found whatever ``k``.
        measure: "ratio", "difference" (from initialisation), "value" or "baseline".
        layer: which layer; the first by default.
        k: order of the minors.
        selection: canonical string of the column selection.
        ax: where to draw; a new figure by default.
        legend: whether to draw one.

    Raises:
        NothingToPlot: the score was measured at fewer than two steps.
    """
    reduced = per_run(results)
    chosen = select(reduced, score=score, layer=layer or (layers_of(reduced) or [""])[0], selection=selection)
    table = over_runs(chosen[chosen["k"].isin([0, k])])
    table = table[table[measure].notna()]
    if table["step"].nunique() < 2:
        raise NothingToPlot(f"{score} was measured at fewer than two training steps")
    widths, trainings = widths_of(reduced), trainings_of(reduced)
    return _plot_lines(table, measure, widths, trainings, f"{score_label(score)} ({measure})", ax, legend)


def plot_accuracy(results: pd.DataFrame, *, ax: Axes | None = None, legend: bool = True) -> Axes:
    """Test accuracy against optimiser step, mean and 95% interval over seeds.

    Raises:
        NothingToPlot: no accuracies, or at fewer than two steps.
    """
    reduced = per_run(results)
    runs = reduced.drop_duplicates(["run", "step"])
    grouped = runs.groupby(["width", "training", "step"], observed=True)["accuracy"]
    table = grouped.agg(["mean", "std", "count"]).reset_index().rename(columns={"mean": "accuracy"})
    half = half_width(table["std"].to_numpy(dtype=float), table["count"].to_numpy())
    table = table.assign(accuracy_low=table["accuracy"] - half, accuracy_high=table["accuracy"] + half)
    table = table[table["accuracy"].notna()]
    if table["step"].nunique() < 2:
        raise NothingToPlot("test accuracy was recorded at fewer than two training steps")
    return _plot_lines(table, "accuracy", widths_of(reduced), trainings_of(reduced), "test accuracy", ax, legend)


def figure_scores_by_step(results: pd.DataFrame, image_shape: tuple[int, int]) -> Figure:
    """A row for each score of ``ROWS`` that was followed along training and one for accuracy; a column for each layer."""
    reduced = per_run(results)
    along = select(reduced, selection="all")
    followed = [row for row in ROWS if _followed(select(along, score=row.score), row.measure)]
    if not followed:
        raise NothingToPlot("no score was measured at more than one training step")
    layers = layers_with(along, [row.score for row in followed])
    widths, trainings = widths_of(reduced), trainings_of(reduced)
    with style():
        figure = new_figure(max(3.6, min(DOUBLE_COLUMN, 3.5 * len(layers))), 1.25 * (len(followed) + 1) + 0.7)
        axes = figure.subplots(len(followed) + 1, len(layers), squeeze=False, sharex=True, sharey="row")
        for column, layer in enumerate(layers):
            for place, row in enumerate(followed):
                ax = axes[place][column]
                try:
                    plot_score_by_step(reduced, score=row.score, measure=row.measure, layer=layer, ax=ax, legend=False)
                except NothingToPlot:
                    not_measured(ax)
                if row.start is not None:
                    reference_line(ax, row.start)
                _label(ax, row.label, column, last=False)
            try:
                plot_accuracy(reduced, ax=axes[-1][column], legend=False)
            except NothingToPlot:
                not_measured(axes[-1][column], "not recorded")
            _label(axes[-1][column], "test accuracy", column, last=True)
            axes[0][column].set_title(layer_label(layer, layers))
        figure_legend(figure, setting_handles(widths, trainings, width_colours(widths)))
        figure.align_ylabels(axes[:, 0])
    return figure


def step_axis(ax: Axes, steps: np.ndarray) -> None:
    """A logarithmic axis that has room for 0: linear up to the first step taken, decades after."""
    positive = steps[steps > 0]
    if not len(positive):
        return
    first, last = float(positive.min()), float(positive.max())
    ax.set_xscale("symlog", linthresh=first, linscale=0.6)
    decades = [10.0**e for e in range(int(np.ceil(np.log10(first))), int(np.floor(np.log10(last))) + 1)]
    if len(decades) < 2:
        decades = sorted({first, last})
    ax.xaxis.set_major_locator(FixedLocator([0.0, *decades]))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}".replace(",", "\u2009")))
    ax.set_xlim(-0.12 * first, last * 1.25)


def _followed(table: pd.DataFrame, measure: str) -> bool:
    return bool(table.loc[table[measure].notna(), "step"].nunique() > 1)


def _label(ax: Axes, label: str, column: int, last: bool) -> None:
    ax.set_ylabel("" if column else label)
    if not last:
        ax.set_xlabel("")


def _plot_lines(
    table: pd.DataFrame, measure: str, widths: list[int], trainings: list[str], ylabel: str, ax: Axes | None, legend: bool
) -> Axes:
    colours = width_colours(widths)
    with style():
        ax = new_axes(ax)
        for width in widths:
            for training in trainings:
                line = select(table, width=width, training=training).sort_values("step")
                look: dict[str, Any] = {**training_look(training), "markersize": 3, "markeredgewidth": 0.8}
                ax.plot(line["step"], line[measure], color=colours[width], **look)
                ax.fill_between(
                    line["step"], line[f"{measure}_low"], line[f"{measure}_high"], color=colours[width], alpha=0.15, linewidth=0
                )
        step_axis(ax, table["step"].to_numpy(dtype=float))
        ax.set_xlabel("training step")
        ax.set_ylabel(ylabel)
        if legend:
            ax.legend(handles=setting_handles(widths, trainings, colours))
    return ax
