"""Distributions behind the scores: Zipf curves of row means and histograms of the minors, trained against initial."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import NullLocator

from kagscope.base.errors import NothingToPlot
from kagscope.figures.labels import layer_label
from kagscope.figures.line_styles import LINES, Settings, legend_line
from kagscope.figures.panels import Panel, draw_grid, study_panels
from kagscope.figures.study import study_means
from kagscope.figures.style import (
    BLUE,
    DOUBLE_COLUMN,
    GREEN,
    ORANGE,
    PURPLE,
    SINGLE_COLUMN,
    VERMILLION,
    legend_above,
    log_ticks,
    new_axes,
    show_range,
    style,
)
from kagscope.tables.means import curve_means, last_step, layers_of, select, trainings_of, widths_of

TRAINING_COLOURS = (BLUE, VERMILLION, GREEN, PURPLE, ORANGE)
INITIAL = "#4d4d4d"
FLOOR = 1e-6  # row means below this share of the mean are drawn at it, as a log axis has no zero
SMALLEST = -48.0  # log2 of minor over mean below which all minors share one bar
OF_MODEL = ""  # value of "training" for curves of one measured model


class Line(NamedTuple):
    """One curve: its training (None: before training), label, colour, dashes, points."""

    training: str | None
    label: str
    colour: str
    dashes: Any
    points: pd.DataFrame


def plot_zipf(
    curves: pd.DataFrame,
    *,
    results: pd.DataFrame | None = None,
    layer: str | None = None,
    k: int = 2,
    width: int | None = None,
    training: str | None = None,
    selection: str = "all",
    ax: Axes | None = None,
    legend: bool = True,
) -> Axes:
    """Plot row means of the k-minor matrix in descending order, trained and initial, over the overall mean; log scale.

    A dot marks where zero rows begin: at 99% of the rows of the untrained network, by definition of the threshold (MATH.md 3),
    and at one minus the ``zero_rows`` score of the trained one. Bands are 95% intervals over seeds. Means are clipped at 1e-6.

    Args:
        curves: the ``curves`` table of a study (columns of :data:`kagscope.tables.schema.CURVE_COLUMNS`), or ``report.curves``
            of one measured model.
        results: the ``results`` table, for the fraction of zero rows; without it only the initial curve is marked.
        layer: which layer; the first by default.
        k: order of the minors.
        width: which width; the largest by default.
        training: a single training; all by default.
        selection: canonical string of the column selection.
        ax: where to draw; a new figure by default.
        legend: whether to draw one.

    Raises:
        NothingToPlot: there are no such curves.
        InputError: a table lacks columns.
    """
    table, width, layer = _select(curves, "zipf", layer, k, width, selection)
    lines = _lines(table, training)
    with style():
        ax = new_axes(ax)
        for line in lines:
            rank = line.points["x"].to_numpy(dtype=float) / line.points["x"].max()
            mean, low, high = (line.points[name].clip(lower=FLOOR).to_numpy(dtype=float) for name in ("y", "y_low", "y_high"))
            steps = "steps-mid" if len(rank) < 40 else "default"
            ax.plot(rank, mean, color=line.colour, linestyle=line.dashes, drawstyle=steps)
            ax.fill_between(rank, low, high, color=line.colour, alpha=0.15, linewidth=0)
            start = _zero_rows_start(results, line, layer, k, width, selection)
            if start is not None:
                at = min(int(np.searchsorted(rank, start)), len(rank) - 1)
                ax.plot(rank[at], mean[at], marker="o", color=line.colour, markersize=4.5, markeredgecolor="white", zorder=5)
        ax.set_yscale("log")
        shown = pd.concat([line.points["y"] for line in lines]).clip(lower=FLOOR)
        show_range(ax, float(shown.min()) / 1.5, float(shown.max()) * 1.5)
        log_ticks(ax)
        ax.set_xlim(0, 1.02)
        ax.set_xlabel("rank / number of rows")
        ax.set_ylabel("row mean / overall mean")
        if legend:
            handles = [*line_handles(lines), *([zero_rows_handle()] if width else [])]
            legend_above(ax, len(handles), handles, layer_label(layer, k))
    return ax


def plot_minor_histogram(
    curves: pd.DataFrame,
    *,
    layer: str | None = None,
    k: int = 2,
    width: int | None = None,
    training: str | None = None,
    selection: str = "all",
    ax: Axes | None = None,
    legend: bool = True,
) -> Axes:
    """Plot the histogram of log2(M / mean M) in bins of 1/8, trained and initial; log scale.

    Bars left of the dashed line are exact zeros and minors below 2^-48 of the mean.
    Arguments as for :func:`plot_zipf`.

    Raises:
        NothingToPlot: there are no such histograms.
        InputError: the table lacks columns.
    """
    table, width, layer = _select(curves, "histogram", layer, k, width, selection)
    if not (table["y"][np.isfinite(table["x"])] > 0).any():
        raise NothingToPlot("every minor is exactly zero")
    lines = _lines(table, training)
    left, right = histogram_range([line.points for line in lines])
    with style():
        ax = new_axes(ax)
        edges = np.arange(round(left * 8), round(right * 8) + 1) / 8
        unit = (right - left) / 12
        bars = [_bars(line.points, left) for line in lines]
        kinds = [name for name in ("tiny", "0") if any(heights[name] > 0 for heights in bars)]
        places = {name: left - (1.2 + 1.6 * order) * unit for order, name in enumerate(kinds)}
        for order, line in enumerate(lines):
            heights = line.points.set_index("x")["y"].reindex(edges[:-1], fill_value=0.0).to_numpy()
            if line.training is None:
                ax.stairs(heights, edges, color="#c9c9c9", fill=True, zorder=1)
            ax.stairs(heights, edges, color=line.colour, linestyle=line.dashes, linewidth=1.1, zorder=2 + order)
            bar = unit / len(lines)
            for name, at in places.items():
                if bars[order][name] > 0:
                    ax.bar(at + (order - (len(lines) - 1) / 2) * bar, bars[order][name], 0.86 * bar, color=line.colour, zorder=3)
        ax.set_yscale("log")
        highest = [float(line.points["y"].max()) for line in lines] + [max(heights.values()) for heights in bars]
        show_range(ax, 1e-6, 2 * max(highest))
        log_ticks(ax)
        _octave_ticks(ax, left, right, places)
        ax.set_xlabel("minor / mean minor")
        ax.set_ylabel("fraction per ⅛ octave")
        if legend:
            legend_above(ax, len(lines), line_handles(lines), layer_label(layer, k))
    return ax


def figure_zipf(curves: pd.DataFrame, results: pd.DataFrame | None = None) -> Figure:
    """:func:`plot_zipf` for the largest width: a row per layer, a column per k (or, if many, per training with k = 2)."""
    return _grid(curves, "zipf", partial(plot_zipf, curves, results=results, legend=False), [zero_rows_handle()])


def figure_minor_histogram(curves: pd.DataFrame) -> Figure:
    """:func:`plot_minor_histogram`, arranged as by :func:`figure_zipf`."""
    return _grid(curves, "histogram", partial(plot_minor_histogram, curves, legend=False))


def _select(
    curves: pd.DataFrame, curve: str, layer: str | None, k: int, width: int | None, selection: str
) -> tuple[pd.DataFrame, int, str]:
    table = select(curve_means(curves), curve=curve, k=k, selection=selection)
    table = table[table["y"].notna()]
    if table.empty:
        raise NothingToPlot(f"no {curve} curves with k = {k} for selection {selection}: not measured, or too many minors to see")
    width = width if width is not None else widths_of(table)[-1]
    layer = layer if layer is not None else layers_of(table)[0]
    rows = select(table, width=width, layer=layer)
    if rows.empty:
        available = f"layers {', '.join(layers_of(table))} and widths {', '.join(map(str, widths_of(table)))}"
        raise NothingToPlot(f"no {curve} curves with k = {k} of layer {layer} at width {width}; there are {available}")
    return rows, width, layer


def _lines(table: pd.DataFrame, only: str | None) -> list[Line]:
    """Lines of the initial state (shared by all trainings), then of each training, or of only one."""
    trainings = trainings_of(table)
    lines = []
    initial = table[table["stage"] == "initial"]
    if not initial.empty:
        first = only if only in trainings_of(initial) else trainings_of(initial)[0]
        label = "baseline" if first == OF_MODEL else "initial"
        lines.append(Line(None, label, INITIAL, (0, (4, 1.6)), select(initial, training=first).sort_values("x")))
    for index, name in enumerate(trainings):
        trained = select(table[table["stage"] == "trained"], training=name).sort_values("x")
        if not trained.empty and only in (None, name):
            label = "model" if name == OF_MODEL else "trained" if len(trainings) == 1 or only else f"trained, {name}"
            index = 0 if only else index
            lines.append(Line(name, label, TRAINING_COLOURS[index % len(TRAINING_COLOURS)], LINES[index % len(LINES)], trained))
    if not lines:
        raise NothingToPlot(f"no curves of training {only}; there are {', '.join(trainings)}")
    return lines


def _zero_rows_start(results: pd.DataFrame | None, line: Line, layer: str, k: int, width: int, selection: str) -> float | None:
    """Share of rows that are not zero rows; None if unknown or if no row is below the threshold."""
    if line.training is None:
        return 0.99 if width else None
    if results is None or not width:
        return None
    row_keys = {"layer": layer, "k": k, "width": width, "selection": selection, "training": line.training, "score": "zero_rows"}
    fraction = select(last_step(study_means(results)), **row_keys)["value"].mean()
    return float(1 - fraction) if fraction > 0 else None


def line_handles(lines: Sequence[Line]) -> list[Line2D]:
    """Legend entries of curves."""
    return [legend_line(color=line.colour, linestyle=line.dashes, label=line.label) for line in lines]


def zero_rows_handle() -> Line2D:
    """Legend entry of the dot of :func:`plot_zipf`."""
    return legend_line(color=INITIAL, marker="o", linestyle="", markersize=4.5, label="zero rows begin")


def histogram_range(lines: Sequence[pd.DataFrame]) -> tuple[float, float]:
    """Range of log2 shown: less than 1e-4 of the minors of each line, or only those below 2^-48, lie left of it."""
    lefts, rights = [], []
    for line in lines:
        ordered = line[np.isfinite(line["x"]) & (line["y"] > 0)].sort_values("x")
        if len(ordered):
            lefts.append(float(ordered.loc[ordered["y"].cumsum() >= min(1e-4, ordered["y"].sum() / 2), "x"].min()))
            rights.append(float(ordered["x"].max()))
    return max(float(np.floor(min(lefts))), SMALLEST), max(rights) + 1 / 8


def _bars(line: pd.DataFrame, left: float) -> dict[str, float]:
    """Fractions of exact zeros and of minors left of the range shown."""
    x, y = line["x"].to_numpy(dtype=float), line["y"].to_numpy(dtype=float)
    return {"0": float(y[np.isneginf(x)].sum()), "tiny": float(y[np.isfinite(x) & (x < left)].sum())}


def _octave_ticks(ax: Axes, left: float, right: float, places: dict[str, float]) -> None:
    span = right - left
    step = next(n for n in (1, 2, 4, 5, 10, 20, 50, 100, 1000) if span / n <= 5)
    octaves = [
        o for o in range(int(np.ceil(left)), int(np.floor(right)) + 1) if o % step == 0 and o - left > 0.12 * span * bool(places)
    ]
    names = {"0": "0", "tiny": f"$<2^{{{left:g}}}$"}
    ax.set_xticks(
        [*places.values(), *octaves], [*(names[name] for name in places), *("1" if o == 0 else f"$2^{{{o}}}$" for o in octaves)]
    )
    ax.set_xlim(min([left, *places.values()]) - span / 14 * bool(places), right + span / 40)
    ax.xaxis.set_minor_locator(NullLocator())
    if places:
        ax.axvline(left - span / 40, color="#bdbdbd", linewidth=0.7, linestyle=(0, (2, 2)), zorder=0)


def _grid(curves: pd.DataFrame, curve: str, draw: Callable[..., object], extra: Sequence[Line2D] = ()) -> Figure:
    """Panels of ``draw(layer=…, k=…, training=…, ax=…)``."""
    means = curve_means(curves)
    table = select(means, curve=curve)
    if table.empty:
        raise NothingToPlot(f"no {curve} curves were recorded")
    width, settings, layers = widths_of(table)[-1], Settings.of(table), layers_of(table)
    if settings.is_crowded:
        reduced = table.drop_duplicates(["layer", "width", "training"]).assign(score=curve)
        handles = line_handles(_lines(select(table, width=width, layer=layers[0]), settings.trainings[0]))
        legend = [*handles, *extra, _note(f"(width {width}, k = 2)")]
        return study_panels(reduced, partial(draw, k=2), score=curve, handles=legend)
    orders = sorted(int(k) for k in table["k"].unique())[:4]
    rows = []
    for layer in layers:
        named = [(k, layer_label(layer, k), None if k == orders[0] else "") for k in orders]
        rows.append([Panel(partial(draw, layer=layer, k=k), title, label) for k, title, label in named])
    wide = SINGLE_COLUMN if len(orders) == 1 else min(DOUBLE_COLUMN, 2.5 * len(orders))
    handles = [*line_handles(_lines(select(table, width=width), None)), *extra, _note(f"(width {width})")]
    return draw_grid(rows, wide, 1.95 * len(layers) + 0.5, sharey=curve == "zipf", outer=True, handles=handles)


def _note(text: str) -> Line2D:
    return legend_line(linestyle="", label=text)
