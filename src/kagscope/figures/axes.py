"""A score against one numeric axis of a study, such as width, learning rate or label noise."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from kagscope.base.errors import InputError, NothingToPlot
from kagscope.figures.core import draw_means, measure_label, tidy
from kagscope.figures.labels import axis_label, is_fraction, layer_label
from kagscope.figures.line_styles import line_looks
from kagscope.figures.panels import Panel, draw_grid, wrap
from kagscope.figures.study import first_layer
from kagscope.figures.style import DOUBLE_COLUMN, MANY, figure_legend, legend_above, new_axes, reference_line, style
from kagscope.tables.means import layers_of, require_columns, select

KNOWN = ("layer", "k", "selection", "score", "nets")
SCORES = (("accuracy", 0), ("pr", 2), ("rr_pr", 2), ("zero_rows", 1), ("kl_uniform", 2), ("effective_rank", 0))
GEOMETRIC = 5.0  # ratio of largest to smallest value from which the axis is logarithmic


def study_axes(summary: pd.DataFrame) -> list[str]:
    """Columns of a study's summary that are axes, not keys or values of scores."""
    numbers = ("value", "baseline", "ratio", "difference", "accuracy")
    return [str(name) for name in summary.columns if name not in KNOWN and not str(name).startswith(numbers)]


def plot_by_axis(
    summary: pd.DataFrame,
    *,
    x: str = "width",
    score: str = "pr",
    k: int = 2,
    layer: str | None = None,
    selection: str = "all",
    measure: str | None = None,
    where: Mapping[str, object] | None = None,
    accuracy: str = "accuracy",
    ax: Axes | None = None,
    legend: bool = True,
) -> Axes:
    """Plot a score against a numeric axis of a study, a line per combination of the others; bars are 95% intervals over seeds.

    Args:
        summary: ``summary.csv`` of a study: a column for each axis, ``layer``, ``k``, ``selection``, ``score``, ``value`` and
            ``ratio`` with ``_low`` and ``_high``, ``accuracy``.
        x: numeric axis.
        score, k, layer, selection: which score, including "accuracy"; the first layer by default.
        measure: "ratio" to initialisation or "value"; by default the ratio for PR, KL and rotation ratios, else the value.
        where: fixed values of other axes, such as ``{"training": "standard"}``.
        accuracy: what test accuracy is called: "R²" of a regression.
        ax: where to draw; a new figure by default.
        legend: whether to draw one.

    Raises:
        NothingToPlot: the score was not measured.
        InputError: ``x`` or a column of ``where`` is missing or not numeric; or there are too many lines to distinguish.
    """
    where = dict(where or {})
    require_columns(summary, [x, *where, *KNOWN[:4]], "summary")
    if not pd.api.types.is_numeric_dtype(summary[x]):
        raise InputError(f"the axis {x} is not numeric; plot_phase draws axes of names")
    table, measure = choose(select(summary.astype({"layer": str}), **where), score, k, layer, selection, measure)
    others = [name for name in study_axes(summary) if name not in (x, *where) and table[name].nunique() > 1]
    table = table.sort_values(others)
    table = table.assign(line=[group_name(row) for row in table[others].to_dict("records")])
    looks = {name: look | {"label": name} for name, look in line_looks(list(pd.unique(table["line"]))).items()}
    if len(looks) > 2 * MANY:
        raise InputError(f"{len(looks)} lines cannot be told apart: hold one of {', '.join(others)} with where={{…}}")
    means = tidy(table, x, measure, "line")
    positions = sorted(means["x"].unique())
    with style():
        ax = new_axes(ax)
        positive = [position for position in positions if position > 0]
        if len(positions) > 2 and positions[0] >= 0 and positive[-1] / positive[0] >= GEOMETRIC:
            if positions[0] > 0:
                ax.set_xscale("log")
            else:  # leave room for 0 beside the smallest
                ax.set_xscale("symlog", linthresh=positive[0], linscale=0.6)
            ax.xaxis.set_minor_locator(NullLocator())
        draw_means(ax, means, looks)
        if measure == "ratio":
            reference_line(ax, 1.0)
        ax.set_xticks(positions, [f"{position:g}" for position in positions])
        ax.set_xlabel(axis_label(x, unit=True))
        ax.set_ylabel(f"test {accuracy}" if score == "accuracy" else measure_label(score, measure, k))
        if measure == "value" and is_fraction(score):
            ax.set_ylim(bottom=max(ax.get_ylim()[0], -0.02 * ax.get_ylim()[1]))
        if legend and len(looks) > 1:
            legend_above(ax, len(looks), title="" if score == "accuracy" else layer_label(layers_of(table)[0]))
    return ax


def figure_by_axis(summary: pd.DataFrame, x: str = "width", layer: str | None = None, accuracy: str = "accuracy") -> Figure:
    """Panels of :func:`plot_by_axis` for accuracy and the main scores of one layer.

    Args:
        summary: ``summary.csv`` of a study.
        x: the axis, numeric.
        layer: which layer; the first by default.
        accuracy: what test accuracy is called: "R²" of a regression.

    Raises:
        NothingToPlot: nothing was measured.
        InputError: as :func:`plot_by_axis`.
    """
    layer = layer if layer is not None else first_layer(summary)
    handles: list[list[Artist]] = [[]]

    def draw(ax: Axes, score: str, k: int) -> None:
        plot_by_axis(summary, x=x, score=score, k=k, layer=layer, accuracy=accuracy, ax=ax, legend=False)
        handles.append(ax.get_legend_handles_labels()[0])

    measured = {"accuracy", *select(summary.astype({"layer": str}), layer=layer, selection="all")["score"].astype(str)}
    rows = wrap([Panel(partial(draw, score=score, k=k)) for score, k in SCORES if score in measured], 3)
    figure = draw_grid(rows, DOUBLE_COLUMN, 2.1 * len(rows), sharex=True)
    lines = max(handles, key=len)
    with style():
        if len(lines) > 1:
            figure_legend(figure, lines, title=layer_label(layer))
        else:
            figure.suptitle(layer_label(layer), fontsize=9)
    return figure


def choose(
    summary: pd.DataFrame, score: str, k: int, layer: str | None, selection: str, measure: str | None
) -> tuple[pd.DataFrame, str]:
    """Select the rows of a score with finite values (for accuracy one per setting), and resolve the measure.

    Raises:
        NothingToPlot: there are none.
    """
    if score == "accuracy":
        table, measure = summary.drop_duplicates(study_axes(summary)), "accuracy"
    else:
        layer = layer if layer is not None else first_layer(summary)
        table = select(summary, score=score, selection=selection, layer=layer)
        table = table[table["k"].isin([0, k])]
        measure = measure or ("ratio" if score in ("pr", "kl_uniform", "rr_pr") and table["ratio"].notna().any() else "value")
    table = table[table[measure].notna()]
    if table.empty:
        raise NothingToPlot(f"no {score} with k = {k} of layer {layer} for selection {selection}")
    return table, measure


def group_name(values: Mapping[Any, object]) -> str:
    """Name of a line: the values of the axes, numeric ones with the axis's name; true labels are not mentioned."""

    def label(name: str, value: object) -> str:
        if isinstance(value, int | float):
            return f"{axis_label(name)} {value:g}"
        return f"{value} labels" if name == "labels" else str(value)

    shown = {name: value for name, value in values.items() if (name, value) != ("labels", "true")} or values
    return ", ".join(label(str(name), value) for name, value in shown.items())
