"""Distributions behind the scores: Zipf curves of row means and histograms of the minors, trained against initial."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, LogLocator, NullFormatter, NullLocator

from kagscope.figures.style import (
    BLUE,
    DOUBLE_COLUMN,
    GREEN,
    ORANGE,
    PURPLE,
    VERMILLION,
    figure_legend,
    new_axes,
    new_figure,
    not_measured,
    style,
)
from kagscope.figures.tables import (
    NothingToPlot,
    curve_means,
    final,
    layer_label,
    layers_of,
    per_run,
    select,
    trainings_of,
    widths_of,
)

TRAINING_COLOURS = (BLUE, VERMILLION, GREEN, PURPLE, ORANGE)
INITIAL = "#4d4d4d"
FLOOR = 1e-6  # row means below this share of the mean are drawn at it: a log axis has no zero


def plot_zipf(
    curves: pd.DataFrame,
    *,
    results: pd.DataFrame | None = None,
    layer: str | None = None,
    k: int = 2,
    width: int | None = None,
    selection: str = "all",
    ax: Axes | None = None,
    legend: bool = True,
) -> Axes:
    """Row means of the k-minor matrix by falling rank, trained and initial, over the overall mean; log scale.

    A dot marks where zero rows begin: at 99% of the rows of the untrained net, by definition of the threshold (MATH.md 3), and
    at one minus the ``zero_rows`` score of the trained one.

    Args:
        curves: the ``curves`` table.
        results: the ``results`` table, for the fraction of zero rows; without it only the initial curve is marked.
        layer: which layer; the first by default.
        k: order of the minors.
        width: which width; the largest by default.
        selection: canonical string of the column selection.
        ax: where to draw; a new figure by default.
        legend: whether to draw one.

    Raises:
        NothingToPlot: there are no such curves.
    """
    table, width, layer = _chosen(curves, "zipf", layer, k, width, selection)
    with style():
        ax = new_axes(ax)
        for name, colour, line in _lines(table):
            rank = line["x"].to_numpy(dtype=float) / line["x"].max()
            mean = line["y"].clip(lower=FLOOR).to_numpy()
            look = (0, (4, 1.6)) if name == "initial" else "-"
            ax.plot(rank, mean, color=colour, linestyle=look, drawstyle="steps-mid" if len(line) < 40 else "default")
            ax.fill_between(
                rank, line["y_low"].clip(lower=FLOOR), line["y_high"].clip(lower=FLOOR), color=colour, alpha=0.15, linewidth=0
            )
            start = _zero_rows_start(results, name, layer, k, width, selection)
            if start is not None:
                at = min(int(np.searchsorted(rank, start)), len(rank) - 1)
                ax.plot(rank[at], mean[at], marker="o", color=colour, markersize=4.5, markeredgecolor="white", zorder=5)
        ax.set_yscale("log")
        low = max(FLOOR, float(table["y"].clip(lower=FLOOR).min()) / 2)
        ax.set_ylim(low, max(float(table["y"].max()), 2 * FLOOR) * 2)
        ax.yaxis.set_major_locator(LogLocator(numticks=5))
        ax.yaxis.set_minor_formatter(NullFormatter())
        ax.set_xlim(0, 1.02)
        ax.set_xlabel("rank / number of rows")
        ax.set_ylabel("row mean / overall mean")
        if legend:
            ax.legend(handles=_handles(trainings_of(table)), loc="lower left")
    return ax


def plot_minor_histogram(
    curves: pd.DataFrame,
    *,
    layer: str | None = None,
    k: int = 2,
    width: int | None = None,
    selection: str = "all",
    ax: Axes | None = None,
    legend: bool = True,
) -> Axes:
    """Histogram of log2(M / mean M) in bins of 1/8, trained and initial; exact zeros are the bars at the left end.

    Arguments as for :func:`plot_zipf`.

    Raises:
        NothingToPlot: there are no such histograms.
    """
    table, width, layer = _chosen(curves, "histogram", layer, k, width, selection)
    finite = table[np.isfinite(table["x"])]
    if not (finite["y"] > 0).any():
        raise NothingToPlot("every minor is exactly zero")
    left, right = _range(finite)
    zeros_at = left - max(1.6, 0.08 * (right - left))
    with style():
        ax = new_axes(ax)
        lines = _lines(table)
        for place, (name, colour, line) in enumerate(lines):
            shown = line[np.isfinite(line["x"]) & (line["x"] >= left)].set_index("x")["y"]
            edges = np.arange(round(left * 8), round(right * 8) + 2) / 8
            heights = shown.reindex(edges[:-1], fill_value=0.0).to_numpy()
            if name == "initial":
                ax.stairs(heights, edges, color="#c9c9c9", fill=True, zorder=1)
            ax.stairs(heights, edges, color=colour, linewidth=1.1, zorder=2 + place)
            zero = float(line.loc[np.isneginf(line["x"]), "y"].sum())
            if zero > 0:
                bar = max(0.9, 0.06 * (right - left)) / len(lines)
                ax.bar(zeros_at + (place - (len(lines) - 1) / 2) * bar, zero, bar, color=colour, zorder=3)
        ax.set_yscale("log")
        top = float(table["y"].max())
        ax.set_ylim(max(1e-6, float(finite.loc[(finite["x"] >= left) & (finite["y"] > 0), "y"].min()) / 1.5, top * 1e-5), top * 2)
        ax.yaxis.set_major_locator(LogLocator(numticks=5))
        ax.yaxis.set_minor_formatter(NullFormatter())
        _octave_ticks(ax, left, right, zeros_at)
        ax.set_xlabel("minor / mean minor")
        ax.set_ylabel("fraction per ⅛ octave")
        if legend:
            ax.legend(handles=_handles(trainings_of(table)))
    return ax


def figure_zipf(curves: pd.DataFrame, results: pd.DataFrame | None = None) -> Figure:
    """:func:`plot_zipf` of the largest width: a row for each layer, a column for each k."""
    return _grid(curves, "zipf", lambda layer, k, ax: plot_zipf(curves, results=results, layer=layer, k=k, ax=ax, legend=False))


def figure_minor_histogram(curves: pd.DataFrame, results: pd.DataFrame | None = None) -> Figure:
    """:func:`plot_minor_histogram` of the largest width: a row for each layer, a column for each k."""
    return _grid(curves, "histogram", lambda layer, k, ax: plot_minor_histogram(curves, layer=layer, k=k, ax=ax, legend=False))


def _chosen(
    curves: pd.DataFrame, curve: str, layer: str | None, k: int, width: int | None, selection: str
) -> tuple[pd.DataFrame, int, str]:
    table = curve_means(curves)
    table = select(table, curve=curve, k=k, selection=selection)
    table = table[(table["stage"] != "between") & table["y"].notna()]
    if table.empty:
        raise NothingToPlot(f"no {curve} curves with k = {k} for selection {selection}")
    width = width if width is not None else widths_of(table)[-1]
    layer = layer if layer is not None else layers_of(table)[0]
    table = select(table, width=width, layer=layer)
    if table.empty:
        raise NothingToPlot(f"no {curve} curves with k = {k} of layer {layer} at width {width}")
    return table, width, layer


def _lines(table: pd.DataFrame) -> list[tuple[str, str, pd.DataFrame]]:
    """(name, colour, curve): one initial state (all trainings start from the same nets), then each training."""
    trainings = trainings_of(table)
    lines = []
    initial = table[table["stage"] == "initial"]
    if not initial.empty:
        first = trainings_of(initial)[0]
        lines.append(("initial", INITIAL, select(initial, training=first).sort_values("x")))
    for place, training in enumerate(trainings):
        trained = select(table[table["stage"] == "trained"], training=training).sort_values("x")
        if not trained.empty:
            lines.append((training, TRAINING_COLOURS[place % len(TRAINING_COLOURS)], trained))
    return lines


def _zero_rows_start(results: pd.DataFrame | None, name: str, layer: str, k: int, width: int, selection: str) -> float | None:
    """The share of rows that are not zero rows; None where it is not known or nothing is below the threshold."""
    if name == "initial":
        return 0.99
    if results is None:
        return None
    fraction = select(
        final(per_run(results)), layer=layer, k=k, width=width, selection=selection, training=name, score="zero_rows"
    )["value"].mean()
    return float(1 - fraction) if fraction > 0 else None


def _handles(trainings: Sequence[str]) -> list[Line2D]:
    trained = [
        Line2D([], [], color=colour, label=f"trained, {name}") for name, colour in zip(trainings, TRAINING_COLOURS, strict=False)
    ]
    return [Line2D([], [], color=INITIAL, linestyle=(0, (4, 1.6)), label="initial"), *trained]


def _range(finite: pd.DataFrame) -> tuple[float, float]:
    """The span of log2 shown: what lies left of it holds less than 1e-4 of the minors in every line."""
    lefts = []
    for _, line in finite.groupby(["training", "stage"], observed=True):
        ordered = line.sort_values("x")
        below = ordered["y"].cumsum()
        lefts.append(float(ordered.loc[below >= 1e-4, "x"].min()))
    left = np.nanmin(lefts) if not np.isnan(lefts).all() else finite["x"].min()
    return float(np.floor(left)), float(finite.loc[finite["y"] > 0, "x"].max()) + 1 / 8


def _octave_ticks(ax: Axes, left: float, right: float, zeros_at: float) -> None:
    span = right - left
    every = next(step for step in (1, 2, 4, 5, 10, 20, 50, 100, 1000) if span / step <= 6)
    octaves = [o for o in range(int(np.ceil(left)), int(np.floor(right)) + 1) if o % every == 0 and o - zeros_at > 0.14 * span]
    labels = ["1" if o == 0 else f"$2^{{{o}}}$" for o in octaves]
    ax.set_xlim(2 * zeros_at - left + 0.4, right + 0.3)
    ax.xaxis.set_major_locator(FixedLocator([zeros_at, *octaves]))
    ax.set_xticks([zeros_at, *octaves], ["0", *labels])
    ax.xaxis.set_minor_locator(NullLocator())
    ax.axvline((zeros_at + left) / 2, color="#bdbdbd", linewidth=0.7, linestyle=(0, (2, 2)), zorder=0)


def _grid(curves: pd.DataFrame, curve: str, draw: Callable[[str, int, Axes], object]) -> Figure:
    table = select(curve_means(curves), curve=curve)
    table = table[table["stage"] != "between"]
    if table.empty:
        raise NothingToPlot(f"no {curve} curves were recorded")
    width = widths_of(table)[-1]
    layers, orders = layers_of(table), sorted(int(k) for k in table["k"].unique())[:4]
    with style():
        figure = new_figure(max(3.6, min(DOUBLE_COLUMN, 2.4 * len(orders))), 1.95 * len(layers) + 0.5)
        axes = figure.subplots(len(layers), len(orders), squeeze=False, sharey=curve == "zipf")
        for row, layer in enumerate(layers):
            for column, k in enumerate(orders):
                ax = axes[row][column]
                try:
                    draw(layer, k, ax)
                except NothingToPlot:
                    not_measured(ax)
                ax.set_title(f"{layer_label(layer, layers)}, k = {k}")
                if column:
                    ax.set_ylabel("")
                if row < len(layers) - 1:
                    ax.set_xlabel("")
        handles = _handles(trainings_of(table))
        handles.append(Line2D([], [], linestyle="", label=f"(width {width})"))
        figure_legend(figure, handles)
    return figure
