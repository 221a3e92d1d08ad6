"""Overview of all scores: ratios to initialisation by layer."""

from __future__ import annotations

from functools import partial
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from kagscope import registry
from kagscope.base.errors import NothingToPlot
from kagscope.figures.core import tidy
from kagscope.figures.forest import draw_rows, ratio_axis, row_axes
from kagscope.figures.labels import layer_label, score_label
from kagscope.figures.line_styles import Settings, legend_line
from kagscope.figures.panels import Panel, draw_grid
from kagscope.figures.study import SETTING, first_layer, study_means
from kagscope.figures.style import DOUBLE_COLUMN, GREY, SINGLE_COLUMN, legend_above, reference_line, style
from kagscope.tables.means import last_step, layers_of, select
from kagscope.tables.schema import BOOKKEEPING

FILLS: tuple[dict[str, Any], ...] = ({}, {"markerfacecolor": "white"}, {"fillstyle": "left", "markerfacecoloralt": "white"})


def plot_scores_overview(
    results: pd.DataFrame,
    *,
    layer: str | None = None,
    k: int = 2,
    selection: str = "all",
    scores: list[str] | None = None,
    ax: Axes | None = None,
    legend: bool = True,
) -> Axes:
    """Plot a row of dots for each score: ratios to initialisation by width and training, with 95% intervals over seeds.

    Trainings too many to distinguish share the look of their width. An interval that reaches 0
    extends to the left edge.

    Args:
        results: the ``results`` table, or :func:`~kagscope.figures.study.study_means` of it.
        layer: which layer; the first by default.
        k: order of the minors, for the scores that have one.
        selection: canonical string of the column selection.
        scores: scores from top to bottom; by default all that have a positive ratio.
        ax: where to draw; a new figure by default.
        legend: whether to draw one.

    Raises:
        NothingToPlot: no score has a ratio.
    """
    means = last_step(study_means(results))
    layer = layer if layer is not None else first_layer(means)
    table = select(_ratios(means, k, selection), layer=layer)
    scores = scores if scores is not None else list_scores(table)
    table = table[table["score"].astype(str).isin(scores)]
    if table.empty:
        raise NothingToPlot(f"no score of layer {layer} has a ratio to initialisation")
    settings = Settings.of(means)
    row_of = {score: row for row, score in enumerate(scores)}
    fills = _fills(settings)
    small = {"markersize": 2, "elinewidth": 0.5, "alpha": 0.8} if settings.is_crowded and not fills else {"elinewidth": 0.8}
    looks = {
        pair: look | {"linestyle": ""} | small | fills.get(pair[1], {})
        for pair, look in settings.looks(plain=settings.is_crowded).items()
    }
    with style():
        ax = row_axes(ax, [score_label(score) for score in scores], _pitch(settings), SINGLE_COLUMN)
        rows = table.assign(place=table["score"].astype(str).map(row_of))
        draw_rows(ax, tidy(rows, "place", "ratio", SETTING), looks, spread=0.7)
        reference_line(ax, 1.0, vertical=True)
        _ratio_axis(ax, table)
        ax.set_xlabel("trained / initial")
        if legend:
            handles = _handles(settings)
            legend_above(ax, len(handles), handles, layer_label(layer, k))
    return ax


def list_scores(table: pd.DataFrame) -> list[str]:
    """The scores of ``table``, known ones first in the order of MATH.md."""
    present = {str(score) for score in pd.unique(table["score"])}
    if "effective_minors" in present:
        present -= {"pr_normalized"}  # differs from PR by a constant factor, so its ratio is the same
    known = [score for score in registry.names() if score in present]
    return known + sorted(present - set(known))


def figure_scores_overview(results: pd.DataFrame) -> Figure:
    """:func:`plot_scores_overview` for every layer, the same scores in each."""
    means = last_step(study_means(results))
    orders = sorted(int(order) for order in means["k"].unique() if order > 0)
    k = 2 if 2 in orders or not orders else orders[0]
    table = _ratios(means, k, "all")
    if table.empty:
        raise NothingToPlot("no score has a ratio to initialisation")
    layers, scores, settings = layers_of(table), list_scores(table), Settings.of(means)

    def draw(layer: str, ax: Axes) -> None:
        plot_scores_overview(means, layer=layer, k=k, scores=scores, ax=ax, legend=False)
        _ratio_axis(ax, table)

    panels = [Panel(partial(draw, layer), layer_label(layer)) for layer in layers]  # those that have a ratio
    width, height = min(DOUBLE_COLUMN, 2.6 * len(layers) + 1.7), _pitch(settings) * len(scores) + 0.9
    return draw_grid([panels], width, height, sharex=True, sharey=True, handles=_handles(settings))


def _fills(settings: Settings) -> dict[str, dict[str, Any]]:
    """Fills of dots by training, if these are not distinguished otherwise; empty if there are more trainings than fills."""
    fills = settings.is_crowded and len(settings.trainings) <= len(FILLS)
    return dict(zip(settings.trainings, FILLS, strict=False)) if fills else {}


def _pitch(settings: Settings) -> float:
    """Height of a score's row in inches."""
    return 0.28 if settings.is_crowded and not _fills(settings) else min(0.36, 0.075 + 0.045 * len(settings.looks()))


def _handles(settings: Settings) -> list[Line2D]:
    """Legend entries; widths only, if there are too many trainings to distinguish."""
    named = settings.handles(settings.trainings[0] if settings.is_crowded else None)
    return named + [
        legend_line(color=GREY, marker="o", linestyle="", label=name, **look) for name, look in _fills(settings).items()
    ]


def _ratios(means: pd.DataFrame, k: int, selection: str) -> pd.DataFrame:
    """Rows with a positive ratio; an interval that reaches 0 is extended beyond the left edge of the log axis."""
    table = select(means, selection=selection)
    table = table[table["k"].isin([0, k]) & ~table["score"].astype(str).isin(BOOKKEEPING) & (table["ratio"] > 0)]
    return table.assign(ratio_low=table["ratio_low"].clip(lower=1e-9 * table["ratio"]))


def _ratio_axis(ax: Axes, table: pd.DataFrame) -> None:
    inside = table["ratio_low"] > 1e-6 * table["ratio"]
    low = min(float(table["ratio"].min()), float(table["ratio_low"].where(inside, 1.0).min()))
    ratio_axis(ax, low, float(table[["ratio", "ratio_high"]].max().max()))
