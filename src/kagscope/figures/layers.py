"""Scores of one network by layer and by token."""

from __future__ import annotations

from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from kagscope.base.errors import NothingToPlot
from kagscope.figures.core import cut_to_fraction, draw_layers, tidy
from kagscope.figures.labels import is_fraction, score_label
from kagscope.figures.style import (
    BLUE,
    GREY,
    SINGLE_COLUMN,
    interval_lengths,
    legend_above,
    new_axes,
    style,
)
from kagscope.tables.means import average, select


def plot_layers(summary: pd.DataFrame, *, score: str = "pr", k: int = 2, selection: str = "all", ax: Axes | None = None) -> Axes:
    """Plot a score of every layer in the order of the network, beside that of the baseline if there is one.

    Raises:
        NothingToPlot: the score was not measured.
    """
    table = select(summary, score=score, k=k, selection=selection)
    table = table[table["value"].notna()]
    if table.empty:
        raise NothingToPlot(f"no {score} with k = {k} for selection {selection}")
    names = [str(name) for name in table["layer"]]
    places = table.assign(place=range(len(names)))
    longest = max(map(len, names))
    with style():
        ax = new_axes(ax, max(SINGLE_COLUMN, 0.32 * len(names) + 1.2))
        kinds: tuple[tuple[str, float, dict[str, Any]], ...] = (
            ("baseline", -0.1, {"color": GREY, "marker": "s", "markerfacecolor": "white", "label": "baseline"}),
            ("value", 0.1, {"color": BLUE, "marker": "o", "label": "model"}),
        )
        for measure, shift, look in kinds:
            means = tidy(places, "place", measure, "layer")
            if len(means):
                ax.errorbar(means["x"] + shift, means["mean"], interval_lengths(means), linestyle="", **look)
        ax.set_xticks(range(len(names)), names, rotation=45 if longest > 3 else 0, ha="right" if longest > 3 else "center")
        ax.set_ylabel(score_label(score) + (f", k = {k}" if k else ""))
        ax.set_xlim(-0.5, len(names) - 0.5)
        if is_fraction(score):
            cut_to_fraction(ax)
        legend_above(ax, 2)
    return ax


def plot_depth(summary: pd.DataFrame, *, score: str = "pr", k: int = 2, selection: str = "all", ax: Axes | None = None) -> Axes:
    """Plot a score against depth, by block in the order of the network, for the model and its baseline.

    Bars are 95% intervals of the means over points and tokens.

    Raises:
        NothingToPlot: the score was not measured.
    """
    ax = plot_layers(summary, score=score, k=k, selection=selection, ax=ax)
    for container in list(ax.containers):
        line = container[0]
        line.set_linestyle("-")
    ax.set_xlabel("block")
    return ax


def plot_tokens(table: pd.DataFrame, *, layer: str | None = None, score: str = "pr", k: int = 2, ax: Axes | None = None) -> Axes:
    """Plot a score's ratio to the baseline (without one, the score) against the token, with 95% intervals over points.

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
    means = tidy(average(chosen, ["layer", "token"], measure), "token", measure, "layer")
    with style():
        ax = draw_layers(ax, means, score, measure, k, "token")
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    return ax
