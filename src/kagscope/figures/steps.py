"""Scores and accuracy along training: of a study, of one network, and along another axis of a study."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from kagscope.base.errors import NothingToPlot
from kagscope.figures.core import draw_by_step, measure_label, tidy
from kagscope.figures.labels import axis_label, layer_label
from kagscope.figures.line_styles import Settings, layer_looks, legend_line, line_looks, value_label
from kagscope.figures.panels import Panel, draw_grid, study_panels, wrap
from kagscope.figures.study import SETTING, first_layer, net_means, study_means
from kagscope.figures.style import DOUBLE_COLUMN, SINGLE_COLUMN, legend_above, new_axes, style, width_for
from kagscope.tables.means import layers_with, require_columns, select

MOST_LINES, MOST_COLUMNS = 8, 3
FEWEST_STEPS = 4  # with fewer, curves add little to the map at the end of training


class StepScore(NamedTuple):
    """A score, its order and measure to plot along training, and a short label."""

    score: str
    k: int
    measure: str
    label: str  # with {k} for the order


SCORES = (
    StepScore("pr", 2, "ratio", "PR, k = {k}\ntrained / initial"),
    StepScore("kl_uniform", 2, "difference", "KL, k = {k}, trained\n− initial (nats)"),
    StepScore("rr_pr", 2, "value", "rotation ratio\nof PR, k = {k}"),
    StepScore("zero_rows", 1, "value", "zero rows, k = {k}\n(fraction)"),
)
ACCURACY = StepScore("accuracy", 0, "value", "test accuracy")


def plot_score_by_step(
    results: pd.DataFrame,
    *,
    score: str = "pr",
    measure: str = "ratio",
    layer: str | None = None,
    k: int = 2,
    selection: str = "all",
    training: str | None = None,
    ax: Axes | None = None,
    legend: bool = True,
) -> Axes:
    """Plot ``score`` against optimiser step, a line per width and training with the 95% interval over seeds as a band.

    Args:
        results: the ``results`` table, or :func:`~kagscope.figures.study.study_means` of it.
        score: any score; ``k`` is ignored for one without an order (``kernel_alignment``).
        measure: "ratio", "difference" (from initialisation), "value" or "baseline".
        layer: which layer; the first by default.
        k: order of the minors.
        selection: canonical string of the column selection.
        training: which training alone; all by default.
        ax: where to draw; a new figure by default.
        legend: whether to draw one.

    Raises:
        NothingToPlot: the score was measured at fewer than two steps.
    """
    means = study_means(results)
    layer = first_layer(means) if layer is None else layer
    chosen = select(means, score=score, layer=layer, selection=selection)
    chosen = chosen[chosen["k"].isin([0, k])]
    order = int(chosen["k"].max()) if len(chosen) else k
    table = tidy(chosen, "step", measure, SETTING)
    settings = Settings.of(means)
    with style():
        ax = new_axes(ax)
        _draw_panel(table, settings.looks(training), StepScore(score, order, measure, measure_label(score, measure, order)), ax)
        if legend:
            handles = settings.handles(training)
            legend_above(ax, len(handles), handles, layer_label(layer) if layer else "")
    return ax


def plot_accuracy(results: pd.DataFrame, *, training: str | None = None, ax: Axes | None = None, legend: bool = True) -> Axes:
    """Plot test accuracy (R² for a regression) against optimiser step, mean and 95% interval over seeds.

    Arguments as for :func:`plot_score_by_step`.

    Raises:
        NothingToPlot: no accuracies, or at fewer than two steps.
    """
    return plot_score_by_step(results, score="accuracy", measure="value", layer="", training=training, ax=ax, legend=legend)


def figure_scores_by_step(results: pd.DataFrame) -> Figure:
    """A row for each score of :data:`SCORES` measured along training and one for accuracy; a column for each layer."""
    means = study_means(results)
    along = select(means, selection="all")
    scores = [s for s in (score._replace(k=2) for score in SCORES) if _steps(along, s) > 1]
    if not scores:
        raise NothingToPlot("no score was measured at more than one training step")
    settings = Settings.of(means)
    if settings.is_crowded:
        first = scores[0]

        def draw(ax: Axes, **chosen: Any) -> None:
            plot_score_by_step(means, score=first.score, measure=first.measure, ax=ax, legend=False, **chosen)
            ax.set_ylabel(first.label.format(k=first.k))

        return study_panels(along, draw, score=first.score)
    columns = {layer_label(layer): _layer_rows(along, layer) for layer in layers_with(along, [s.score for s in scores])}
    width = SINGLE_COLUMN if len(columns) == 1 else DOUBLE_COLUMN
    return _grid(columns, SETTING, settings.looks(), [*scores, ACCURACY], width, handles=settings.handles())


def figure_dynamics(
    results: pd.DataFrame,
    runs: pd.DataFrame,
    by: str,
    along: str | None = None,
    layer: str | None = None,
    accuracy: str = "accuracy",
) -> Figure:
    """Plot scores and accuracy against the step along an axis of the study; means over runs with 95% Student's t intervals.

    Args:
        results: the ``results`` table of a study, or :func:`~kagscope.figures.study.net_means` of it.
        runs: runs table of the study.
        by: column of ``runs``: a line for each value, at most eight of them, evenly chosen.
        along: column of ``runs``: a column of panels for its first, middle and last value; None for one column.
        layer: which layer; the first by default.
        accuracy: what test accuracy is called.

    Raises:
        NothingToPlot: nothing was measured at four steps or more.
    """
    chosen = results["score"].isin([s.score for s in (*SCORES, ACCURACY)]) & (results["selection"] == "all")
    nets = net_means(results[chosen])
    if (steps := nets["step"].nunique()) < FEWEST_STEPS:
        raise NothingToPlot(f"measured at {steps} steps; a curve along training needs {FEWEST_STEPS}")
    axes = {name: f"axis_{name}" for name in (by, along) if name is not None}
    values = runs.astype({"run": str}).set_index("run")[list(axes)].rename(columns=axes)
    means = study_means(nets.astype({"run": str}).join(values, on="run"), list(axes.values()))
    layer = first_layer(means) if layer is None else layer
    means = _layer_rows(means, layer)
    looks = line_looks(_spread_values(runs[by], MOST_LINES))
    columns = {"": means}
    if along is not None:
        shown = _spread_values(runs[along], MOST_COLUMNS)
        columns = {f"{axis_label(along)} {value_label(value)}": means[means[axes[along]] == value] for value in shown}
    scores = [*(s for s in SCORES if _steps(means, s)), ACCURACY._replace(label=f"test {accuracy}")]
    handles = [legend_line(label=value_label(value), **look) for value, look in looks.items()]
    width = max(3.6, min(DOUBLE_COLUMN, 2.5 * len(columns)))
    return _grid(columns, axes[by], looks, scores, width, handles=handles, legend=f"{layer_label(layer)}, {axis_label(by)}")


def plot_by_step(
    summary: pd.DataFrame,
    *,
    score: str = "pr",
    k: int = 2,
    selection: str = "all",
    measure: str = "ratio",
    onsets: pd.DataFrame | None = None,
    ax: Axes | None = None,
    legend: bool = True,
) -> Axes:
    """Plot a score of one network against the step, a line per layer; bands are 95% intervals over points, rings mark onsets.

    Args:
        summary: ``step``, ``layer``, ``k``, ``selection``, ``score``, and ``ratio``, ``ratio_low``, ``ratio_high`` (or those of
            ``value``), such as :meth:`kagscope.Tracker.summary`.
        score, k, selection: which.
        measure: "ratio" to the baseline ("value" if there is none) or "value".
        onsets: rows of :func:`kagscope.tables.onset.find_onsets`, to mark the step at which each layer leaves the baseline.
        ax: where to draw; a new figure by default.
        legend: whether to draw one.

    Raises:
        NothingToPlot: the score was measured at fewer than two steps.
        InputError: the table lacks columns.
    """
    require_columns(summary, ("step", "layer", "k", "selection", "score", "ratio", "value"), "summary")
    table = select(summary, score=score, k=k, selection=selection)
    measure = "value" if table["ratio"].isna().all() else measure
    means = tidy(table, "step", measure, "layer")
    if means["x"].nunique() < 2:
        raise NothingToPlot(f"{score} with k = {k} for selection {selection} was measured at fewer than two steps")
    looks = layer_looks(means["hue"])
    onset_rows = pd.DataFrame({"layer": [], "step": [], "ratio": []})
    if onsets is not None:
        onset_rows = select(onsets, score=score, k=k, selection=selection).dropna(subset=["step"]).astype({"layer": str})
    for layer, step in zip(onset_rows["layer"], onset_rows["step"], strict=True):
        looks[layer]["label"] += f", onset {int(step)}"
    label = measure_label(score, measure, k, ("", "baseline"), sep="\n")
    with style():
        ax = new_axes(ax, width_for(len(looks)))
        _draw_panel(means, looks, StepScore(score, k, measure, label), ax)
        for layer, step, ratio in zip(onset_rows["layer"], onset_rows["step"], onset_rows["ratio"], strict=True):
            ax.plot(int(step), ratio, linestyle="", marker="o", markersize=8, markerfacecolor="none", color=looks[layer]["color"])
        if legend:
            legend_above(ax, len(looks))
    return ax


def figure_by_step(summary: pd.DataFrame) -> Figure:
    """A panel for each score of :data:`SCORES` that was measured at two or more steps.

    Raises:
        NothingToPlot: there is none.
    """
    all_columns = select(summary, selection="all")
    scores = [s for s in SCORES if _steps(all_columns, s, "value") > 1]
    if not scores:
        raise NothingToPlot("no score was measured at more than one step")
    draw = partial(plot_by_step, summary, legend=False)
    measures = [s.measure if s.measure in summary.columns else "ratio" for s in scores]
    panels = [Panel(partial(draw, score=s.score, k=s.k, measure=m)) for s, m in zip(scores, measures, strict=True)]
    looks = layer_looks(select(all_columns, score=scores[0].score, k=scores[0].k)["layer"])
    handles = [legend_line(**look) for look in looks.values()]
    rows = wrap(panels, 2)
    return draw_grid(rows, 3.4 * min(2, len(scores)), 2.1 * len(rows) + 0.4, handles=handles)


def _draw_panel(means: pd.DataFrame, looks: Mapping[Any, Any], shown: StepScore, ax: Axes) -> None:
    """Draw one panel. Raises :class:`NothingToPlot` if there are fewer than two steps."""
    if means["x"].nunique() < 2:
        known = "test accuracy was recorded" if shown.score == "accuracy" else f"{shown.score} was measured"
        raise NothingToPlot(f"{known} at fewer than two training steps")
    draw_by_step(ax, means, looks, shown.score, shown.measure)
    ax.set_ylabel(shown.label.format(k=shown.k))


def _layer_rows(means: pd.DataFrame, layer: str) -> pd.DataFrame:
    """The rows of a layer, and those of the whole network."""
    return means[means["layer"].astype(str).isin([layer, ""])]


def _grid(
    columns: Mapping[str, pd.DataFrame],
    hue: str | Sequence[str],
    looks: Mapping[Any, Any],
    scores: Sequence[StepScore],
    width: float,
    **legend: Any,
) -> Figure:
    """A row for each score, a column for each title."""
    rows = []
    for column, s in enumerate(scores):
        row = []
        for title, table in columns.items():
            chosen = select(table, score=s.score, selection="all")
            means = tidy(chosen[chosen["k"].isin([0, s.k])], "step", s.measure, hue)
            absent = "not recorded" if s.score == "accuracy" else "not measured"
            row.append(Panel(partial(_draw_panel, means, looks, s), "" if column else title, s.label.format(k=s.k), absent))
        rows.append(row)
    return draw_grid(rows, width, 1.25 * len(rows) + 0.7, sharex=True, sharey="row", **legend)


def _steps(table: pd.DataFrame, shown: StepScore, measure: str | None = None) -> int:
    """Number of steps at which the score is known."""
    chosen = select(table, score=shown.score, k=shown.k)
    return int(chosen.loc[chosen[measure or shown.measure].notna(), "step"].nunique())


def _spread_values(values: pd.Series[Any], count: int) -> list[Any]:
    """At most ``most`` evenly chosen distinct values with both ends, numbers in order and names as they appear."""
    distinct: Sequence[Any] = list(pd.unique(values))
    distinct = sorted(distinct) if pd.api.types.is_numeric_dtype(values) else distinct
    indices = np.unique(np.linspace(0, len(distinct) - 1, min(count, len(distinct))).round().astype(int))
    return [distinct[index] for index in indices]
