"""Every score at one glance: its ratio to initialisation, layer by layer."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from kagscope.base.errors import NothingToPlot
from kagscope.figures.forest import ratio_axis
from kagscope.figures.looks import Settings
from kagscope.figures.style import DOUBLE_COLUMN, errors, figure_legend, legend_above, new_axes, new_figure, reference_line, style
from kagscope.labels import SCORE_LABELS, layer_label, score_label
from kagscope.tables.means import final, layers_of, over_runs, per_run, select
from kagscope.tables.schema import BOOKKEEPING


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
    """A row of dots for each score: the ratio to initialisation for each width and training, with 95% intervals over seeds.

    With more trainings than can be told apart, they share the look of their width. An interval that reaches 0
    runs to the left end.

    Args:
        results: the ``results`` table, or :func:`~kagscope.tables.means.per_run` of it.
        layer: which layer; the first by default.
        k: order of the minors, for the scores that have one.
        selection: canonical string of the column selection.
        scores: which, from top to bottom; by default all that have a positive ratio.
        ax: where to draw; a new figure by default.
        legend: whether to draw one.

    Raises:
        NothingToPlot: no score has a ratio.
    """
    reduced = per_run(results)
    layer = layer if layer is not None else (layers_of(reduced) or [""])[0]
    table = _ratios(reduced, k, selection)
    table = select(table, layer=layer)
    scores = scores if scores is not None else scores_shown(table)
    table = table[table["score"].astype(str).isin(scores)]
    if table.empty:
        raise NothingToPlot(f"no score of layer {layer} has a ratio to initialisation")
    settings = Settings.of(reduced)
    pairs = settings.pairs()
    with style():
        ax = new_axes(ax, height=_pitch(settings) * len(scores) + 0.9)
        for place, (width, training) in enumerate(pairs):
            dots = select(table, width=width, training=training)
            y = np.array([scores.index(str(score)) for score in dots["score"]]) + 0.7 * ((place + 0.5) / len(pairs) - 0.5)
            look = settings.look(width, training, alone=settings.crowded) | {"linestyle": "", "markersize": 3.5}
            if settings.crowded:
                look |= {"markersize": 2, "elinewidth": 0.5, "alpha": 0.8}
            ax.errorbar(dots["ratio"], y, xerr=_positive(dots), **({"elinewidth": 0.8, "capsize": 0} | look))
        reference_line(ax, 1.0, vertical=True)
        for between in range(len(scores) - 1):
            ax.axhline(between + 0.5, color="#ececec", linewidth=0.6, zorder=0)
        _ratio_axis(ax, table)
        ax.set_yticks(range(len(scores)), [score_label(score) for score in scores])
        ax.set_ylim(len(scores) - 0.45, -0.55)
        ax.tick_params(axis="y", length=0)
        ax.grid(False, axis="y")
        ax.set_xlabel("trained / initial")
        if legend:
            handles = _handles(settings)
            legend_above(ax, len(handles), handles)
    return ax


def scores_shown(table: pd.DataFrame) -> list[str]:
    """The scores of ``table``, known ones first in the order of MATH.md."""
    present = {str(score) for score in pd.unique(table["score"])}
    if "effective_minors" in present:
        present -= {"pr_normalized"}  # it differs by the number of minors only, so its ratio is the same
    known = [score for score in SCORE_LABELS if score in present]
    return known + sorted(present - set(known))


def figure_scores_overview(results: pd.DataFrame, image_shape: tuple[int, int]) -> Figure:
    """:func:`plot_scores_overview` for every layer, the same scores in each."""
    reduced = per_run(results)
    orders = sorted(int(order) for order in reduced["k"].unique() if order > 0)
    k = 2 if 2 in orders or not orders else orders[0]
    table = _ratios(reduced, k, "all")
    if table.empty:
        raise NothingToPlot("no score has a ratio to initialisation")
    layers, scores, settings = layers_of(table), scores_shown(table), Settings.of(reduced)
    with style():
        figure = new_figure(min(DOUBLE_COLUMN, 2.6 * len(layers) + 1.7), _pitch(settings) * len(scores) + 0.9)
        axes = figure.subplots(1, len(layers), squeeze=False, sharey=True, sharex=True)[0]
        for layer, ax in zip(layers, axes, strict=True):  # layers are those that have a ratio
            plot_scores_overview(reduced, layer=layer, k=k, scores=scores, ax=ax, legend=False)
            ax.set_title(layer_label(layer, layers))
        _ratio_axis(axes[0], table)
        figure_legend(figure, _handles(settings))
    return figure


def _pitch(settings: Settings) -> float:
    """Inches for a score."""
    return 0.28 if settings.crowded else min(0.36, 0.075 + 0.045 * len(settings.pairs()))


def _handles(settings: Settings) -> list[Line2D]:
    """Where there are too many trainings to tell them apart, widths alone."""
    return settings.handles(settings.trainings[0] if settings.crowded else None)


def _ratios(reduced: pd.DataFrame, k: int, selection: str) -> pd.DataFrame:
    chosen = select(final(reduced), selection=selection)
    chosen = chosen[chosen["k"].isin([0, k]) & ~chosen["score"].astype(str).isin(BOOKKEEPING)]
    table = over_runs(chosen)
    return table[table["ratio"].notna() & (table["ratio"] > 0)]


def _positive(dots: pd.DataFrame) -> np.ndarray:
    """Interval lengths; what reaches 0 or less runs out of a log axis at its left end."""
    ends = errors(dots, "ratio")
    ends[0] = np.minimum(ends[0], (1 - 1e-9) * dots["ratio"].to_numpy(dtype=float))
    return ends


def _ratio_axis(ax: Axes, table: pd.DataFrame) -> None:
    low = min(float(table["ratio"].min()), float(table["ratio_low"].where(table["ratio_low"] > 0).min(skipna=True) or 1.0))
    ratio_axis(ax, low, max(float(table["ratio"].max()), float(np.nan_to_num(table["ratio_high"].max(), nan=0.0))))
