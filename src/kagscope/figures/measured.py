"""Figures of one measured model: what :class:`kagscope.measuring.report.Report` draws."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from kagscope.base.errors import NothingToPlot
from kagscope.figures.looks import line_looks
from kagscope.figures.style import BLUE, GREY, MANY, SINGLE_COLUMN, errors, legend_above, new_axes, reference_line, style
from kagscope.labels import layer_label, score_label, short_label
from kagscope.tables.intervals import half_width
from kagscope.tables.means import layers_of, select, with_scale


def plot_scales(summary: pd.DataFrame, *, score: str = "pr", k: int = 2, axis: str = "ball", ax: Axes | None = None) -> Axes:
    """A score over the baseline's (without one: the score) against ball radius or minimum distance, a line for each layer.

    Args:
        summary: of :func:`kagscope.measuring.summary.summarise`.
        score, k: which.
        axis: "ball" or "apart".
        ax: where to draw; a new figure by default.

    Raises:
        NothingToPlot: there are no such selections.
    """
    table = with_scale(select(summary, score=score, k=k), axis)
    measure = "ratio" if table["ratio"].notna().any() else "value"
    table = table[table[measure].notna()]
    scaled = table[table["scale"].notna()]
    if scaled.empty:
        raise NothingToPlot(f"no {score} with k = {k} for {axis}(…) selections; measure with selections=[kag.Ball(r), …]")
    layers = layers_of(scaled)
    with style():
        ax = new_axes(ax, SINGLE_COLUMN + 1.4 * (len(layers) > MANY))
        steps = _side_by_side(len(layers), 0.02 * float(scaled["scale"].max()))
        for (layer, look), step in zip(line_looks(layers).items(), steps, strict=True):
            line = select(scaled, layer=layer).sort_values("scale")
            name = layer_label(layer, layers)
            ax.errorbar(line["scale"] + step, line[measure], errors(line, measure), elinewidth=0.9, label=name, **look)
        if measure == "ratio":
            reference_line(ax, 1.0)
        ax.set_xticks(sorted(scaled["scale"].unique()))
        ax.set_xlabel("largest distance in a pair of columns" if axis == "ball" else "least distance in a pair of columns")
        ax.set_ylabel(_ylabel(score, measure))
        legend_above(ax, len(layers))
    return ax


def plot_layers(summary: pd.DataFrame, *, score: str = "pr", k: int = 2, selection: str = "all", ax: Axes | None = None) -> Axes:
    """A score of every layer in the order of the network, beside the baseline's where there is one.

    Raises:
        NothingToPlot: the score was not measured.
    """
    table = select(summary, score=score, k=k, selection=selection)
    table = table[table["value"].notna()]
    if table.empty:
        raise NothingToPlot(f"no {score} with k = {k} for selection {selection}")
    names = [str(name) for name in table["layer"]]
    with style():
        ax = new_axes(ax, max(SINGLE_COLUMN, 0.32 * len(names) + 1.2))
        x = np.arange(len(names))
        if table["baseline"].notna().any():
            look: dict[str, Any] = {"color": GREY, "marker": "s", "markerfacecolor": "white", "linestyle": ""}
            ax.errorbar(x - 0.1, table["baseline"], errors(table, "baseline"), label="baseline", **look)
        ax.errorbar(x + 0.1, table["value"], errors(table, "value"), color=BLUE, marker="o", linestyle="", label="model")
        ax.set_xticks(
            x, names, rotation=45 if max(map(len, names)) > 3 else 0, ha="right" if max(map(len, names)) > 3 else "center"
        )
        ax.set_ylabel(score_label(score))
        ax.set_xlim(-0.5, len(names) - 0.5)
        legend_above(ax, 2)
    return ax


def plot_tokens(table: pd.DataFrame, *, layer: str | None = None, score: str = "pr", k: int = 2, ax: Axes | None = None) -> Axes:
    """A score over the baseline's (without one: the score) against the token, with 95% intervals over points.

    Raises:
        NothingToPlot: no layer has tokens.
    """
    if "token" not in table.columns:
        raise NothingToPlot("no layer has tokens; they come with layers on sequences (points, tokens, n)")
    chosen = select(table, score=score, k=k, selection="all", layer=layer)
    chosen = chosen[chosen["token"] >= 0]
    if chosen.empty:
        raise NothingToPlot(f"no {score} with k = {k} of tokens" + (f" of layer {layer}" if layer else ""))
    measure = "ratio" if chosen["ratio"].notna().any() else "value"
    layers = layers_of(chosen)
    with style():
        ax = new_axes(ax, SINGLE_COLUMN + 1.4 * (len(layers) > MANY))
        steps = _side_by_side(len(layers), 0.1)
        for (name, look), step in zip(line_looks(layers).items(), steps, strict=True):
            grouped = select(chosen, layer=name).groupby("token")[measure]
            mean, half = grouped.mean(), half_width(grouped.std().to_numpy(), grouped.count().to_numpy())
            ax.errorbar(mean.index + step, mean, np.nan_to_num(half), elinewidth=0.8, label=layer_label(name, layers), **look)
        if measure == "ratio":
            reference_line(ax, 1.0)
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        ax.set_xlabel("token")
        ax.set_ylabel(_ylabel(score, measure))
        legend_above(ax, len(layers))
    return ax


def _side_by_side(count: int, width: float) -> np.ndarray:
    """Small shifts along the axis, so that error bars of several lines do not cover each other."""
    return (np.arange(count) - (count - 1) / 2) * width / max(1, count / 3)


def _ylabel(score: str, measure: str) -> str:
    name = short_label(score)
    return f"{name}, model / baseline" if measure == "ratio" else name
