"""A score's ratio to initialisation against spatial scale: ball radius, minimum distance, and order k of the minors."""

from __future__ import annotations

from functools import partial

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from kagscope.base.errors import NothingToPlot
from kagscope.figures.looks import Settings
from kagscope.figures.panels import study_panels
from kagscope.figures.style import (
    DOUBLE_COLUMN,
    SINGLE_COLUMN,
    draw_each,
    errors,
    figure_legend,
    legend_above,
    log_ticks,
    new_axes,
    new_figure,
    not_measured,
    reference_line,
    style,
)
from kagscope.labels import layer_label, short_label
from kagscope.tables.means import final, layers_of, layers_with, over_runs, per_run, select, with_scale


def plot_pr_by_radius(
    results: pd.DataFrame,
    *,
    layer: str | None = None,
    k: int = 2,
    score: str = "pr",
    training: str | None = None,
    image_shape: tuple[int, int] | None = None,
    ax: Axes | None = None,
    legend: bool = True,
) -> Axes:
    """Ratio of ``score`` to initialisation against the radius of ``ball`` selections, a line for each width and training.

    Points are means over seeds of the means over data points, bars their 95% intervals. ``all`` stands at the image's diagonal,
    the radius from which a ball holds every pair.

    Args:
        results: the ``results`` table, or :func:`~kagscope.tables.means.per_run` of it.
        layer: which layer; the first by default.
        k: order of the minors.
        score: any score with a ratio.
        training: which training alone; all by default, told apart by line and filling.
        image_shape: height and width in pixels, to place ``all``; without it ``all`` stands a quarter beyond the largest radius.
        ax: where to draw; a new figure by default.
        legend: whether to draw one.

    Raises:
        NothingToPlot: no ball selections were measured.
    """
    table = _scaled(results, "ball", layer, k, score)
    largest = float(table["scale"].max())
    whole = float(np.hypot(image_shape[0] - 1, image_shape[1] - 1)) if image_shape else 0.0
    table["scale"] = table["scale"].fillna(whole if whole > 1.05 * largest else 1.25 * largest)
    return _plot_scales(table, results, score, training, "ball radius (pixels)", ax, legend)


def plot_pr_by_distance(
    results: pd.DataFrame,
    *,
    layer: str | None = None,
    k: int = 2,
    score: str = "pr",
    training: str | None = None,
    ax: Axes | None = None,
    legend: bool = True,
) -> Axes:
    """Ratio of ``score`` to initialisation against the minimum distance between columns; ``all`` stands at 0.

    Arguments as for :func:`plot_pr_by_radius`.

    Raises:
        NothingToPlot: no apart selections were measured.
    """
    table = _scaled(results, "apart", layer, k, score)
    table["scale"] = table["scale"].fillna(0.0)
    return _plot_scales(table, results, score, training, "minimum distance between columns (pixels)", ax, legend)


def plot_valid_subsets(results: pd.DataFrame, *, layer: str | None = None, k: int = 2, ax: Axes | None = None) -> Axes:
    """How many column subsets satisfy each minimum distance, on a log scale.

    Raises:
        NothingToPlot: the table does not say.
    """
    reduced = per_run(results)
    counts = select(final(reduced), layer=layer or layers_of(reduced)[0], k=k, score="column_subsets")
    counts = with_scale(counts, "apart").groupby("selection", observed=True)[["value", "scale"]].mean().fillna({"scale": 0.0})
    counts = counts[counts["value"] > 0].sort_values("scale")
    if counts.empty:
        raise NothingToPlot("the numbers of valid column subsets (score column_subsets) were not recorded")
    with style():
        ax = new_axes(ax)
        ax.plot(counts["scale"], counts["value"], color="black", marker=".", markersize=6, linewidth=1.0)
        ax.set_yscale("log")
        ax.set_ylim(counts["value"].min() / 3, counts["value"].max() * 3)
        log_ticks(ax)
        ax.set_ylabel("valid " + {1: "columns", 2: "pairs", 3: "triples"}.get(k, "subsets"))
        ax.set_xlabel("minimum distance between columns (pixels)")
    return ax


def plot_k_comparison(
    results: pd.DataFrame,
    *,
    layer: str | None = None,
    selection: str = "all",
    score: str = "pr",
    training: str | None = None,
    ax: Axes | None = None,
    legend: bool = True,
) -> Axes:
    """Ratio of ``score`` to initialisation against the order k of the minors.

    Arguments as for :func:`plot_pr_by_radius`.

    Raises:
        NothingToPlot: the score was not measured for any k.
    """
    reduced = final(per_run(results))
    chosen = select(reduced, layer=layer or (layers_of(reduced) or [""])[0], selection=selection, score=score)
    table = over_runs(chosen[chosen["k"] > 0])
    if table.empty or not table["ratio"].notna().any():
        raise NothingToPlot(f"no ratio of {score} for selection {selection}")
    ax = _plot_scales(table.assign(scale=table["k"].astype(float)), results, score, training, "order k of the minors", ax, legend)
    orders = sorted(int(k) for k in table["k"].unique())
    ax.set_xticks(orders, [str(k) for k in orders])
    return ax


def figure_by_radius(results: pd.DataFrame, image_shape: tuple[int, int]) -> Figure:
    """:func:`plot_pr_by_radius` for every layer."""
    reduced = per_run(results)

    def draw(layer: str, training: str | None, ax: Axes) -> Axes:
        return plot_pr_by_radius(reduced, layer=layer, training=training, image_shape=image_shape, ax=ax, legend=False)

    return study_panels(reduced, draw)


def figure_by_distance(results: pd.DataFrame, image_shape: tuple[int, int]) -> Figure:
    """:func:`plot_pr_by_distance` for every layer, and below it the number of valid pairs where there is room for it."""
    reduced = per_run(results)
    layers, settings = layers_with(reduced), Settings.of(reduced)

    def draw(layer: str, training: str | None, ax: Axes) -> Axes:
        return plot_pr_by_distance(reduced, layer=layer, training=training, ax=ax, legend=False)

    if settings.crowded or len(layers) > 3:
        return study_panels(reduced, draw)
    with style():
        figure = new_figure(SINGLE_COLUMN if len(layers) == 1 else DOUBLE_COLUMN, 3.7)
        axes = figure.subplots(2, len(layers), squeeze=False, sharex="col", sharey="row", height_ratios=(2.1, 1))
        draw_each([(ax, partial(draw, layer, None)) for layer, ax in zip(layers, axes[0], strict=True)])
        for place, layer in enumerate(layers):
            upper, lower = axes[0][place], axes[1][place]
            upper.set_xlabel("")
            upper.set_title(layer_label(layer, layers))
            try:
                plot_valid_subsets(reduced, layer=layer, ax=lower)
            except NothingToPlot:
                not_measured(lower, "numbers of pairs not recorded")
            if place:
                upper.set_ylabel("")
                lower.set_ylabel("")
        figure_legend(figure, settings.handles())
    return figure


def figure_k_comparison(results: pd.DataFrame, image_shape: tuple[int, int]) -> Figure:
    """:func:`plot_k_comparison` for every layer."""
    reduced = per_run(results)
    if select(reduced, score="pr", selection="all")["k"].nunique() < 2:
        raise NothingToPlot("PR was measured for one order k only")

    def draw(layer: str, training: str | None, ax: Axes) -> Axes:
        return plot_k_comparison(reduced, layer=layer, training=training, ax=ax, legend=False)

    return study_panels(reduced, draw)


def _scaled(results: pd.DataFrame, kind: str, layer: str | None, k: int, score: str) -> pd.DataFrame:
    reduced = final(per_run(results))
    chosen = select(reduced, layer=layer or (layers_of(reduced) or [""])[0], k=k, score=score)
    table = with_scale(over_runs(with_scale(chosen, kind)), kind)
    table = table[table["ratio"].notna()]
    if table["scale"].notna().sum() == 0:
        raise NothingToPlot(f"no ratio of {score} with k = {k} for {kind}(…) selections")
    return table


def _plot_scales(
    table: pd.DataFrame, results: pd.DataFrame, score: str, training: str | None, xlabel: str, ax: Axes | None, legend: bool
) -> Axes:
    settings = Settings.of(results)
    pairs = settings.pairs(training)
    nudge = 0.012 * (table["scale"].max() - table["scale"].min())  # so that bars do not hide one another
    with style():
        ax = new_axes(ax)
        for place, (width, name) in enumerate(pairs):
            line = select(table, width=width, training=name).sort_values("scale")
            look = settings.look(width, name, alone=training is not None)
            x = line["scale"] + nudge * (place - (len(pairs) - 1) / 2)
            ax.errorbar(x, line["ratio"], errors(line, "ratio"), elinewidth=0.9, **look)
        reference_line(ax, 1.0)
        places = table.drop_duplicates("scale").sort_values("scale")
        named = zip(places["selection"], places["scale"], strict=True)
        ax.set_xticks(places["scale"], ["all" if selection == "all" else f"{scale:g}" for selection, scale in named])
        ax.set_xlabel(xlabel)
        ax.set_ylabel(f"{short_label(score)}, trained / initial")
        if legend:
            handles = settings.handles(training)
            legend_above(ax, len(handles), handles)
    return ax
