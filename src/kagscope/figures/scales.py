"""A score's ratio to initialisation against spatial scale: ball radius, minimum distance, and order k of the minors."""

from __future__ import annotations

from functools import partial

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from kagscope.base.errors import NothingToPlot
from kagscope.figures.core import draw_layers, draw_means, measure_label, tidy
from kagscope.figures.labels import layer_label
from kagscope.figures.line_styles import Settings
from kagscope.figures.panels import Panel, draw_grid, study_panels
from kagscope.figures.study import SETTING, first_layer, study_means
from kagscope.figures.style import (
    DOUBLE_COLUMN,
    SINGLE_COLUMN,
    legend_above,
    log_ticks,
    new_axes,
    reference_line,
    style,
)
from kagscope.tables.means import last_step, layers_of, layers_with, select, select_scale

BEYOND = 1.25  # position of "all" over the largest radius, if the image shape is unknown


def plot_pr_by_radius(
    results: pd.DataFrame,
    *,
    layer: str | None = None,
    k: int = 2,
    score: str = "pr",
    training: str | None = None,
    image_shape: tuple[int, ...] | None = None,
    ax: Axes | None = None,
    legend: bool = True,
) -> Axes:
    """Plot the ratio of ``score`` to initialisation against the radius of ``ball`` selections, a line per width and training.

    Points are means over seeds of the means over data points, bars their 95% intervals. ``all`` is at the image's diagonal,
    the radius from which a ball contains every pair.

    Args:
        results: the ``results`` table, or :func:`~kagscope.figures.study.study_means` of it.
        layer: which layer; the first by default.
        k: order of the minors.
        score: any score with a ratio.
        training: a single training; all by default, distinguished by dashes and fill.
        image_shape: (H, W) or (C, H, W) in pixels, for the position of ``all``; by default 1.25 times the largest radius.
        ax: where to draw; a new figure by default.
        legend: whether to draw one.

    Raises:
        NothingToPlot: no ball selections were measured.
    """
    means = study_means(results)
    table = _by_scale(means, "ball", layer, k, score)
    largest = float(table["scale"].max())
    diagonal = float(np.hypot(image_shape[-2] - 1, image_shape[-1] - 1)) if image_shape else 0.0
    table["scale"] = table["scale"].fillna(diagonal if diagonal > 1.05 * largest else BEYOND * largest)
    return _plot_ratios(table, Settings.of(means), score, k, training, "ball radius (pixels)", ax, legend)


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
    """Plot the ratio of ``score`` to initialisation against the minimum distance between columns; ``all`` is at 0.

    Arguments as for :func:`plot_pr_by_radius`.

    Raises:
        NothingToPlot: no apart selections were measured.
    """
    means = study_means(results)
    table = _by_scale(means, "apart", layer, k, score)
    table["scale"] = table["scale"].fillna(0.0)
    return _plot_ratios(table, Settings.of(means), score, k, training, "minimum distance between columns (pixels)", ax, legend)


def plot_valid_subsets(results: pd.DataFrame, *, layer: str | None = None, k: int = 2, ax: Axes | None = None) -> Axes:
    """Plot the number of column subsets at each minimum distance, on a log scale.

    Raises:
        NothingToPlot: the table has no such counts.
    """
    means = last_step(study_means(results))
    counts = select(means, layer=layer or first_layer(means), k=k, score="column_subsets")
    counts = select_scale(counts, "apart").groupby("selection", observed=True)[["value", "scale"]].mean().fillna({"scale": 0.0})
    counts = counts[counts["value"] > 0].sort_values("scale")
    if counts.empty:
        raise NothingToPlot("the numbers of valid column subsets (score column_subsets) were not recorded")
    with style():
        ax = new_axes(ax)
        ax.plot(counts["scale"], counts["value"], color="black", marker=".", markersize=6, linewidth=1.0)
        ax.set_yscale("log")
        ax.set_ylim(counts["value"].min() / 3, counts["value"].max() * 3)
        log_ticks(ax)
        _name_scales(ax, counts.reset_index())
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
    """Plot the ratio of ``score`` to initialisation against the order k of the minors.

    Arguments as for :func:`plot_pr_by_radius`.

    Raises:
        NothingToPlot: the score was not measured for any k.
    """
    means = last_step(study_means(results))
    table = select(means, layer=layer or first_layer(means), selection=selection, score=score)
    table = table[table["k"] > 0]
    if not table["ratio"].notna().any():
        raise NothingToPlot(f"no ratio of {score} for selection {selection}")
    table = table.assign(scale=table["k"].astype(float))
    ax = _plot_ratios(table, Settings.of(means), score, 0, training, "order k of the minors", ax, legend)
    orders = sorted(int(k) for k in table["k"].unique())
    ax.set_xticks(orders, [str(k) for k in orders])
    return ax


def figure_by_radius(results: pd.DataFrame, image_shape: tuple[int, ...]) -> Figure:
    """:func:`plot_pr_by_radius` for every layer."""
    means = study_means(results)
    return study_panels(means, partial(plot_pr_by_radius, means, image_shape=image_shape, legend=False))


def figure_by_distance(results: pd.DataFrame) -> Figure:
    """:func:`plot_pr_by_distance` for every layer, and below it the number of valid pairs if there is room."""
    means = study_means(results)
    layers, settings = layers_with(means), Settings.of(means)
    draw = partial(plot_pr_by_distance, means, legend=False)
    if settings.is_crowded or len(layers) > 3:
        return study_panels(means, draw)
    _by_scale(means, "apart", None, 2, "pr")
    ratios = [Panel(partial(draw, layer=layer), layer_label(layer)) for layer in layers]
    counts = [Panel(partial(plot_valid_subsets, means, layer=layer), absent="numbers of pairs not recorded") for layer in layers]
    width = SINGLE_COLUMN if len(layers) == 1 else DOUBLE_COLUMN
    handles = settings.handles()
    return draw_grid([ratios, counts], width, 3.7, sharex="col", sharey="row", heights=(2.1, 1), handles=handles)


def figure_k_comparison(results: pd.DataFrame) -> Figure:
    """:func:`plot_k_comparison` for every layer."""
    means = study_means(results)
    if select(means, score="pr", selection="all")["k"].nunique() < 2:
        raise NothingToPlot("PR was measured for one order k only")
    return study_panels(means, partial(plot_k_comparison, means, legend=False))


def plot_scales(summary: pd.DataFrame, *, score: str = "pr", k: int = 2, axis: str = "ball", ax: Axes | None = None) -> Axes:
    """Plot a score's ratio to the baseline (without one, the score) against ball radius or minimum distance, a line per layer.

    ``all`` is at 1.25 times the largest radius, or at minimum distance 0.

    Args:
        summary: summary of one network, such as :meth:`kagscope.Report.summary`.
        score, k: which.
        axis: "ball" or "apart".
        ax: where to draw; a new figure by default.

    Raises:
        NothingToPlot: there are no such selections.
    """
    table = select_scale(select(summary, score=score, k=k), axis)
    measure = "ratio" if table["ratio"].notna().any() else "value"
    largest = float(table["scale"].max())
    table["scale"] = table["scale"].fillna(BEYOND * largest if axis == "ball" else 0.0)
    means = tidy(table, "scale", measure, "layer")
    if means.empty or np.isnan(largest):
        raise NothingToPlot(f"no {score} with k = {k} for {axis}(…) selections; measure with selections=[kag.Ball(r), …]")
    with style():
        ax = draw_layers(ax, means, score, measure, k, "ball radius" if axis == "ball" else "minimum distance between columns")
        _name_scales(ax, table)
    return ax


def _by_scale(means: pd.DataFrame, kind: str, layer: str | None, k: int, score: str) -> pd.DataFrame:
    means = last_step(means)
    table = select_scale(select(means, layer=layer or first_layer(means), k=k, score=score), kind)
    table = table[table["ratio"].notna()]
    if table["scale"].notna().sum() == 0:
        raise NothingToPlot(f"no ratio of {score} with k = {k} for {kind}(…) selections")
    return table


def _plot_ratios(
    table: pd.DataFrame,
    settings: Settings,
    score: str,
    k: int,
    training: str | None,
    xlabel: str,
    ax: Axes | None,
    legend: bool,
) -> Axes:
    """Plot ratios of one layer against ``scale``, a line for each setting; ``all`` is labelled on the axis."""
    with style():
        ax = new_axes(ax)
        draw_means(ax, tidy(table, "scale", "ratio", SETTING), settings.looks(training))
        reference_line(ax, 1.0)
        _name_scales(ax, table)
        ax.set_xlabel(xlabel)
        ax.set_ylabel(measure_label(score, "ratio", k))
        if legend:
            handles = settings.handles(training)
            legend_above(ax, len(handles), handles, layer_label(layers_of(table)[0]))
    return ax


def _name_scales(ax: Axes, table: pd.DataFrame) -> None:
    """Set ticks at the measured scales, with ``all`` labelled as such."""
    places = table.drop_duplicates("scale").sort_values("scale")
    named = zip(places["selection"], places["scale"], strict=True)
    ax.set_xticks(places["scale"], ["all" if selection == "all" else f"{scale:g}" for selection, scale in named])
