"""Figures of one measured model: what :class:`kagscope.measuring.report.Report` draws."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from kagscope.figures.style import (
    BLUE,
    GREY,
    OKABE_ITO,
    SINGLE_COLUMN,
    errors,
    new_axes,
    new_figure,
    reference_line,
    score_label,
    style,
)
from kagscope.figures.tables import NothingToPlot, layer_label, layers_of, select, with_scale
from kagscope.intervals import half_width

FLOOR = 1e-6
MANY = 6  # layers; more get shades instead of colours


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
        ax = _axes(ax, len(layers))
        steps = _side_by_side(len(layers), 0.02 * float(scaled["scale"].max()))
        for layer, colour, step in zip(layers, layer_colours(len(layers)), steps, strict=True):
            line = select(scaled, layer=layer).sort_values("scale")
            look: dict[str, Any] = {"color": colour, "marker": "o", "elinewidth": 0.9, "label": layer_label(layer, layers)}
            ax.errorbar(line["scale"] + step, line[measure], errors(line, measure), **look)
        if measure == "ratio":
            reference_line(ax, 1.0)
        ax.set_xticks(sorted(scaled["scale"].unique()))
        ax.set_xlabel("largest distance in a pair of columns" if axis == "ball" else "least distance in a pair of columns")
        ax.set_ylabel(_ylabel(score, measure))
        _legend(ax, len(layers))
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
        ax = ax if ax is not None else new_figure(max(SINGLE_COLUMN, 0.32 * len(names) + 1.2), 2.6).subplots()
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
        _legend(ax, 2)
    return ax


def plot_zipf(curves: pd.DataFrame, *, layer: str | None = None, k: int = 2, ax: Axes | None = None) -> Axes:
    """Row means of the k-minor matrix over their mean, by falling rank over the number of rows; log scale.

    Raises:
        NothingToPlot: there is no such curve.
    """
    table, layer = _curve(curves, "zipf", layer, k)
    with style():
        ax = new_axes(ax)
        for network, look in (("baseline", {"color": GREY, "linestyle": (0, (4, 1.6))}), ("model", {"color": BLUE})):
            line = table[table["network"] == network].sort_values("x")
            if len(line):
                ax.plot(line["x"] / line["x"].max(), line["y"].clip(lower=FLOOR), label=network, **look)
        ax.set_yscale("log")
        ax.set_xlim(0, 1.02)
        ax.set_title(layer_label(layer, [layer]))
        ax.set_xlabel("rank / number of rows")
        ax.set_ylabel(f"row mean / overall mean, k = {k}")
        ax.legend(loc="upper right")
    return ax


def plot_histogram(curves: pd.DataFrame, *, layer: str | None = None, k: int = 2, ax: Axes | None = None) -> Axes:
    """Histogram of log2(M / mean M) in bins of 1/8; the legend says how many minors are exactly zero.

    Raises:
        NothingToPlot: there is no such histogram.
    """
    table, layer = _curve(curves, "histogram", layer, k)
    finite = table[np.isfinite(table["x"]) & (table["y"] > 0)]
    if finite.empty:
        raise NothingToPlot("every minor is exactly zero")
    left, right = float(np.floor(finite.loc[finite["y"] > 1e-6, "x"].min())), float(finite["x"].max()) + 0.25
    edges = np.arange(round(left * 8), round(right * 8) + 2) / 8
    with style():
        ax = new_axes(ax)
        looks: dict[str, dict[str, Any]] = {
            "baseline": {"color": "#c9c9c9", "fill": True},
            "model": {"color": BLUE, "linewidth": 1.2},
        }
        for network, look in looks.items():
            line = table[table["network"] == network]
            if line.empty:
                continue
            heights = line[np.isfinite(line["x"])].groupby("x")["y"].sum().reindex(edges[:-1], fill_value=0.0)
            zeros = float(line.loc[np.isneginf(line["x"]), "y"].sum())
            label = network + (f" ({zeros:.2g} exactly zero)" if zeros else "")
            ax.stairs(heights.to_numpy(), edges, label=label, **look)
        ax.set_yscale("log")
        ax.set_title(layer_label(layer, [layer]))
        ax.set_xlabel(r"$\log_2$(minor / mean minor)")
        ax.set_ylabel(f"fraction per ⅛ octave, k = {k}")
        ax.legend(loc="upper left")
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
        ax = _axes(ax, len(layers))
        steps = _side_by_side(len(layers), 0.1)
        for name, colour, step in zip(layers, layer_colours(len(layers)), steps, strict=True):
            grouped = select(chosen, layer=name).groupby("token")[measure]
            mean, half = grouped.mean(), half_width(grouped.std().to_numpy(), grouped.count().to_numpy())
            look: dict[str, Any] = {"color": colour, "marker": "o", "elinewidth": 0.8, "label": layer_label(name, layers)}
            ax.errorbar(mean.index + step, mean, np.nan_to_num(half), **look)
        if measure == "ratio":
            reference_line(ax, 1.0)
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        ax.set_xlabel("token")
        ax.set_ylabel(_ylabel(score, measure))
        _legend(ax, len(layers))
    return ax


def _curve(curves: pd.DataFrame, curve: str, layer: str | None, k: int) -> tuple[pd.DataFrame, str]:
    table = select(curves, curve=curve, k=k, selection="all")
    if table.empty:
        raise NothingToPlot(f"no {curve} with k = {k}: too many minors to look at, or k was not measured")
    layer = layer if layer is not None else layers_of(table)[0]
    found = select(table, layer=layer)
    if found.empty:
        raise NothingToPlot(f"no {curve} with k = {k} of layer {layer}; there are {', '.join(layers_of(table))}")
    return found, layer


def layer_colours(count: int) -> list[str]:
    """A colour for each layer; more than :data:`MANY` get shades, in the order of the network."""
    import matplotlib as mpl

    if count <= MANY:
        return list(OKABE_ITO[:count])
    return [mpl.colors.to_hex(shade) for shade in mpl.colormaps["cividis"](np.linspace(0, 0.9, count))]


def _side_by_side(count: int, width: float) -> np.ndarray:
    """Small shifts along the axis, so that error bars of several lines do not cover each other."""
    return (np.arange(count) - (count - 1) / 2) * width / max(1, count / 3)


def _axes(ax: Axes | None, lines: int) -> Axes:
    """``ax``, or new axes with room for the legend."""
    return ax if ax is not None else new_figure(SINGLE_COLUMN + (1.4 if lines > MANY else 0.0), 2.6).subplots()


def _legend(ax: Axes, entries: int) -> None:
    """Outside, where it covers no error bar: above the axes, beside them where it is long."""
    if entries <= MANY:
        ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2 if entries > 1 else 1, borderaxespad=0.2)
    else:
        ax.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))


def _ylabel(score: str, measure: str) -> str:
    name = "PR" if score == "pr" else score_label(score)
    return f"{name}, model / baseline" if measure == "ratio" else name
