"""A score against one numeric axis of a study: width, learning rate, label noise, whatever was varied."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import NullLocator

from kagscope.base.errors import InputError, NothingToPlot
from kagscope.figures.looks import line_looks
from kagscope.figures.style import (
    DOUBLE_COLUMN,
    MANY,
    draw_each,
    errors,
    figure_legend,
    legend_above,
    new_axes,
    new_figure,
    reference_line,
    style,
)
from kagscope.labels import FRACTIONS, layer_label, short_label
from kagscope.tables.means import layers_of, require, select

KNOWN = ("layer", "k", "selection", "score", "nets")
SCORES = (("accuracy", 0), ("pr", 2), ("rr_pr", 2), ("zero_rows", 1), ("kl_uniform", 2), ("effective_rank", 0))
GEOMETRIC = 5.0  # largest over smallest value from which the axis is logarithmic


def study_axes(summary: pd.DataFrame) -> list[str]:
    """The columns of a study's summary that are axes: neither what was measured nor numbers of it."""
    numbers = ("value", "baseline", "ratio", "accuracy")
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
    ax: Axes | None = None,
    legend: bool = True,
) -> Axes:
    """A score against a numeric axis of a study, a line for each combination of the others; bars are 95% intervals over seeds.

    Args:
        summary: ``summary.csv`` of a study: a column for each axis, ``layer``, ``k``, ``selection``, ``score``, ``value`` and
            ``ratio`` with ``_low`` and ``_high``, ``accuracy``.
        x: the axis, numeric.
        score, k, layer, selection: which score, "accuracy" among them; the first layer by default.
        measure: "ratio" to initialisation or "value"; the ratio of PR, KL and rotation ratios, else the value.
        where: values at which other axes are held, such as ``{"training": "standard"}``.
        ax: where to draw; a new figure by default.
        legend: whether to draw one.

    Raises:
        NothingToPlot: the score was not measured.
        InputError: ``x`` or a column of ``where`` is none, or is not numeric; or more lines than can be told apart.
    """
    where = dict(where or {})
    require(summary, [x, *where, *KNOWN[:4]], "summary")
    if not pd.api.types.is_numeric_dtype(summary[x]):
        raise InputError(f"the axis {x} is not numeric; plot_phase draws axes of names")
    table, measure = _chosen(select(summary.astype({"layer": str}), **where), score, k, layer, selection, measure)
    others = [name for name in study_axes(summary) if name not in (x, *where) and table[name].nunique() > 1]
    groups = {group_name(others, values): part for values, part in _groups(table, others)}
    if len(groups) > 2 * MANY:
        raise InputError(f"{len(groups)} lines cannot be told apart: hold one of {', '.join(others)} with where={{…}}")
    places = np.array(sorted(table[x].unique()), dtype=float)
    nudges = (np.arange(len(groups)) - (len(groups) - 1) / 2) * 0.012
    log = len(places) > 2 and places[0] > 0 and places[-1] / places[0] >= GEOMETRIC
    with style():
        ax = new_axes(ax)
        for (name, line), look, nudge in zip(groups.items(), line_looks(list(groups)).values(), nudges, strict=True):
            line = line.sort_values(x)
            at = line[x].to_numpy(dtype=float)
            at = at * (places[-1] / places[0]) ** nudge if log else at + nudge * np.ptp(places)
            bars = errors(line, measure) if f"{measure}_low" in line else None
            ax.errorbar(at, line[measure], bars, elinewidth=0.9, label=name, **look)
        if measure == "ratio":
            reference_line(ax, 1.0)
        if log:
            ax.set_xscale("log")
            ax.xaxis.set_minor_locator(NullLocator())
        ax.set_xticks(places, [f"{place:g}" for place in places])
        ax.set_xlabel(x.replace("_", " "))
        ax.set_ylabel(_label(score, k, measure))
        if measure == "value" and score in FRACTIONS:
            ax.set_ylim(bottom=max(ax.get_ylim()[0], -0.02 * ax.get_ylim()[1]))
        if legend and len(groups) > 1:
            legend_above(ax, len(groups))
    return ax


def figure_by_axis(summary: pd.DataFrame, x: str = "width", layer: str | None = None) -> Figure:
    """:func:`plot_by_axis` for accuracy (R² of a regression) and the main scores of one layer.

    Raises:
        NothingToPlot: nothing was measured.
        InputError: as :func:`plot_by_axis`.
    """
    layers = [name for name in layers_of(summary) if name]
    layer = layer if layer is not None else layers[0]
    with style():
        figure = new_figure(DOUBLE_COLUMN, 4.2)
        axes = figure.subplots(2, 3, sharex=True).ravel()

        def draw(score: str, k: int, ax: Axes) -> None:
            plot_by_axis(summary, x=x, score=score, k=k, layer=layer, ax=ax, legend=False)

        draw_each([(ax, partial(draw, score, k)) for ax, (score, k) in zip(axes, SCORES, strict=True)])
        for ax in axes[:3]:
            ax.set_xlabel("")
        handles, names = max((ax.get_legend_handles_labels() for ax in axes), key=lambda found: len(found[1]))
        figure_legend(figure, handles if len(names) > 1 else [Line2D([], [], linestyle="")], title=layer_label(layer, layers))
    return figure


def group_name(others: list[str], values: tuple[object, ...]) -> str:
    """What a line is called: the axes' values, names of numeric ones before them."""
    said = [
        f"{name.replace('_', ' ')} {value:g}" if isinstance(value, (int, float)) else str(value)
        for name, value in zip(others, values, strict=True)
    ]
    return ", ".join(said)


def _groups(table: pd.DataFrame, others: list[str]) -> list[tuple[tuple[object, ...], pd.DataFrame]]:
    if not others:
        return [((), table)]
    return [(tuple(values), part) for values, part in table.groupby(others, sort=True, observed=True)]


def _chosen(
    summary: pd.DataFrame, score: str, k: int, layer: str | None, selection: str, measure: str | None
) -> tuple[pd.DataFrame, str]:
    if score == "accuracy":
        table, measure = summary.drop_duplicates(study_axes(summary)), "accuracy"
    else:
        named = [name for name in layers_of(summary) if name]
        layer = layer if layer is not None else (named or [""])[0]
        table = select(summary, score=score, selection=selection, layer=layer)
        table = table[table["k"].isin([0, k])]
        measure = measure or ("ratio" if score in ("pr", "kl_uniform", "rr_pr") and table["ratio"].notna().any() else "value")
    table = table[table[measure].notna()]
    if table.empty:
        raise NothingToPlot(f"no {score} with k = {k} of layer {layer} for selection {selection}")
    return table, measure


def _label(score: str, k: int, measure: str) -> str:
    if score == "accuracy":
        return "test accuracy or R²"
    name = short_label(score)
    name += f", k = {k}" if k else ""
    return f"{name},\ntrained / initial" if measure == "ratio" else name
