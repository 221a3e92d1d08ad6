"""Scores along training, with test accuracy beneath."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from kagscope.base.errors import NothingToPlot
from kagscope.figures.looks import Settings
from kagscope.figures.panels import study_panels
from kagscope.figures.style import (
    DOUBLE_COLUMN,
    SINGLE_COLUMN,
    figure_legend,
    legend_above,
    new_axes,
    new_figure,
    not_measured,
    reference_line,
    style,
)
from kagscope.labels import FRACTIONS, layer_label, short_label
from kagscope.tables.intervals import half_width
from kagscope.tables.means import layers_of, layers_with, over_runs, per_run, select


class Row(NamedTuple):
    """One row of the figure: a score, which measure of it, its label."""

    score: str
    measure: str
    label: str


ROWS = (
    Row("pr", "ratio", "PR\ntrained / initial"),
    Row("kl_uniform", "difference", "KL from uniform\ntrained − initial (nats)"),
    Row("rr_pr", "value", "rotation ratio\nof PR"),
    Row("zero_rows", "value", "zero rows\n(fraction)"),
)
START = {"ratio": 1.0, "difference": 0.0}  # of the untrained net
MEASURED = {"ratio": ", trained / initial", "difference": ", trained − initial", "value": "", "baseline": ", initial"}


def plot_score_by_step(
    results: pd.DataFrame,
    *,
    score: str = "pr",
    measure: str = "ratio",
    layer: str | None = None,
    k: int = 2,
    selection: str = "all",
    training: str | None = None,
    ax: Axes | None = None,
    legend: bool = True,
) -> Axes:
    """``score`` against optimiser step, a line for each width and training with the 95% interval over seeds as a band.

    Args:
        results: the ``results`` table, or :func:`~kagscope.tables.means.per_run` of it.
        score: any score; one without an order (``kernel_alignment``) is found whatever ``k``.
        measure: "ratio", "difference" (from initialisation), "value" or "baseline".
        layer: which layer; the first by default.
        k: order of the minors.
        selection: canonical string of the column selection.
        training: which training alone; all by default.
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
    label, fraction = f"{short_label(score)}{MEASURED[measure]}", score in FRACTIONS and measure in ("value", "baseline")
    ax = _plot_lines(table, measure, Settings.of(reduced), training, label, ax, legend, fraction=fraction)
    if measure in START:
        reference_line(ax, START[measure])
    return ax


def plot_accuracy(results: pd.DataFrame, *, training: str | None = None, ax: Axes | None = None, legend: bool = True) -> Axes:
    """Test accuracy (R² of a regression) against optimiser step, mean and 95% interval over seeds.

    Arguments as for :func:`plot_score_by_step`.

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
    fraction = bool(table["accuracy"].min() >= 0)  # R² may lie below
    return _plot_lines(table, "accuracy", Settings.of(reduced), training, "test accuracy", ax, legend, fraction=fraction)


def figure_scores_by_step(results: pd.DataFrame, image_shape: tuple[int, int]) -> Figure:
    """A row for each score of ``ROWS`` that was followed along training and one for accuracy; a column for each layer."""
    reduced = per_run(results)
    along = select(reduced, selection="all")
    followed = [row for row in ROWS if _followed(select(along, score=row.score), row.measure)]
    if not followed:
        raise NothingToPlot("no score was measured at more than one training step")
    layers, settings = layers_with(along, [row.score for row in followed]), Settings.of(reduced)
    if settings.crowded:
        return study_panels(along, partial(_panel, along, followed[0]), score=followed[0].score)
    with style():
        figure = new_figure(SINGLE_COLUMN if len(layers) == 1 else DOUBLE_COLUMN, 1.25 * (len(followed) + 1) + 0.7)
        axes = figure.subplots(len(followed) + 1, len(layers), squeeze=False, sharex=True, sharey="row")
        for column, layer in enumerate(layers):
            for place, row in enumerate(followed):
                ax = axes[place][column]
                try:
                    plot_score_by_step(reduced, score=row.score, measure=row.measure, layer=layer, ax=ax, legend=False)
                except NothingToPlot:
                    not_measured(ax)
                if row.score == "rr_pr":
                    reference_line(ax, 1.0)
                _label(ax, row.label, column, last=False)
            try:
                plot_accuracy(reduced, ax=axes[-1][column], legend=False)
            except NothingToPlot:
                not_measured(axes[-1][column], "not recorded")
            _label(axes[-1][column], "test accuracy", column, last=True)
            axes[0][column].set_title(layer_label(layer, layers))
        figure_legend(figure, settings.handles())
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


def _panel(along: pd.DataFrame, row: Row, layer: str, training: str | None, ax: Axes) -> Axes:
    ax = plot_score_by_step(along, score=row.score, measure=row.measure, layer=layer, training=training, ax=ax, legend=False)
    ax.set_ylabel(row.label)
    return ax


def _plot_lines(
    table: pd.DataFrame,
    measure: str,
    settings: Settings,
    training: str | None,
    ylabel: str,
    ax: Axes | None,
    legend: bool,
    *,
    fraction: bool,
) -> Axes:
    with style():
        ax = new_axes(ax)
        for width, name in settings.pairs(training):
            line = select(table, width=width, training=name).sort_values("step")
            look = settings.look(width, name, alone=training is not None) | {"markersize": 3, "markeredgewidth": 0.8}
            ax.plot(line["step"], line[measure], **look)
            low, high = line[f"{measure}_low"], line[f"{measure}_high"]
            ax.fill_between(line["step"], low, high, color=look["color"], alpha=0.15, linewidth=0)
        step_axis(ax, table["step"].to_numpy(dtype=float))
        ax.set_xlabel("training step")
        ax.set_ylabel(ylabel)
        if fraction:
            within_unit(ax)
        if legend:
            handles = settings.handles(training)
            legend_above(ax, len(handles), handles)
    return ax


def within_unit(ax: Axes) -> None:
    """Cuts a fraction's axis at 0 and 1, which its interval of Student's t may pass but the fraction cannot."""
    low, high = ax.get_ylim()
    ax.set_ylim(max(low, -0.02 * min(high, 1.0)), min(high, 1.02))
