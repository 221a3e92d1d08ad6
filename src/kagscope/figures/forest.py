"""Forest plots: effects or correlations with their intervals, a row for each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from kagscope.base.errors import NothingToPlot
from kagscope.figures.core import name_ticks, tidy
from kagscope.figures.labels import axis_label, layer_label, outcome_label, score_label, short_label
from kagscope.figures.line_styles import line_colours, line_looks
from kagscope.figures.style import DOUBLE_COLUMN, interval_lengths, legend_above, new_axes, reference_line, style
from kagscope.tables.means import corrected_p, layers_of, require_columns, select
from kagscope.tables.schema import ALPHA

CORRELATION = "correlation over seeds within settings"
PITCH = 0.17  # inches for a row
DERIVED = ("pr_normalized", "effective_minors")  # equivalent to PR
COMPARED = (
    "axis",
    "first",
    "category",
    "layer",
    "k",
    "selection",
    "score",
    "measure",
    "effect",
    "low",
    "high",
    "p_holm",
    "p_joint",
)


def plot_correlations(
    relations: pd.DataFrame,
    *,
    outcome: str = "accuracy",
    layer: str | None = None,
    ax: Axes | None = None,
    legend: bool = True,
) -> Axes:
    """Plot correlations of scores with an outcome over seeds within settings, with 95% intervals; a row for each score.

    An asterisk at the right marks those that differ from 0 after correction for all pairs of the table (p < 0.05).

    Args:
        relations: ``relations.csv`` of a study (:func:`kagscope.studies.relations.relations`): ``layer``, ``k``, ``score``,
            ``outcome``, ``rho``, ``rho_low``, ``rho_high``, ``p_joint``.
        outcome: name of the outcome; see :func:`~kagscope.figures.labels.outcome_label`.
        layer: a single layer; all by default, in order.
        ax: where to draw; a new figure by default.
        legend: whether to draw one.

    Raises:
        NothingToPlot: there is no such outcome, or too few seeds.
        InputError: the table lacks columns.
    """
    require_columns(relations, ("layer", "k", "score", "outcome", "rho", "rho_low", "rho_high", "p_joint"), "relations")
    table = select(relations.astype({"layer": str}), outcome=outcome, layer=layer)
    if table.empty:
        available = ", ".join(map(str, pd.unique(relations["outcome"]))) or "none"
        raise NothingToPlot(f"no correlations with {outcome}; outcomes are {available}")
    if table["rho"].isna().all():
        raise NothingToPlot(f"no setting has seeds enough for correlations with {outcome}")
    layers = [name for name in layers_of(table) if name]
    table = table.sort_values("layer", key=lambda names: names.map({name: i for i, name in enumerate(layers)}), kind="stable")
    names = [
        f"{short_label(row['score'])}{_order(row['k'])}{_layer_suffix(row['layer'], layers, layer)}"
        for row in table.to_dict("records")
    ]
    rows = table.assign(place=range(len(table)))
    dots = tidy(rows.assign(kind="rho"), "place", "rho", "kind")
    with style():
        ax = row_axes(ax, names)
        draw_rows(ax, dots, {"rho": line_looks(["rho"])["rho"] | {"label": CORRELATION}})
        for row in np.flatnonzero((table["p_joint"] < ALPHA).to_numpy()):
            ax.text(1.0, row + 0.1, "*", ha="right", va="center", transform=ax.get_yaxis_transform())
        reference_line(ax, 0.0, vertical=True)
        ax.set_xlim(-1.02, 1.02)
        ax.set_xticks([-1, -0.5, 0, 0.5, 1], ["−1", "", "0", "", "1"])
        ax.grid(True, axis="x")
        ax.set_xlabel("correlation with\n" + outcome_label(outcome).replace(" (", "\n("))
        if legend:
            legend_above(ax, 1)
    return ax


def plot_comparison(
    comparisons: pd.DataFrame, *, axis: str, category: str | None = None, selection: str = "all", ax: Axes | None = None
) -> Axes:
    """Plot ratios of a category to the first one with 95% intervals, a row for each score, a colour for each layer.

    Filled dots differ significantly from 1 after correction for all scores, hollow ones do not.

    Args:
        comparisons: ``comparisons.csv`` of a study (:func:`kagscope.studies.inference.comparisons.comparisons`), or what
            ``kagscope report A B`` writes, where the axis is "study".
        axis: axis of the study, such as "training".
        category: category of the axis; the last one by default.
        selection: canonical string of the column selection.
        ax: where to draw; a new figure by default.

    Raises:
        NothingToPlot: no score of that axis is compared as a ratio.
        InputError: the table lacks columns.
    """
    require_columns(comparisons, COMPARED, "comparisons")
    chosen = comparisons[(comparisons["axis"] == axis) & (comparisons["selection"] == selection)]
    category = category if category is not None or chosen.empty else str(chosen["category"].iloc[-1])
    chosen = chosen[(chosen["category"].astype(str) == category) & (chosen["measure"] == "ratio")]
    chosen = chosen[~chosen["score"].isin(DERIVED) & (chosen["effect"] > 0)].astype({"layer": str})
    if chosen.empty:
        raise NothingToPlot(f"no score is compared as a ratio between categories of {axis}")
    scores = list(dict.fromkeys(chosen["score"]))
    rows = sorted(set(zip(chosen["score"], chosen["k"], strict=True)), key=lambda row: (scores.index(row[0]), row[1]))
    layers = layers_of(chosen)
    clear = corrected_p(chosen) < ALPHA
    row_of = [rows.index(pair) for pair in zip(chosen["score"], chosen["k"], strict=True)]
    effects = chosen.rename(columns={"low": "effect_low", "high": "effect_high"}).assign(place=row_of, clear=clear)
    names = [score_label(score) + (f", k = {k}" if k else "") for score, k in rows]
    with style():
        ax = row_axes(ax, names, pitch=0.2, width=5.2)
        for number, (layer, colour) in enumerate(zip(layers, line_colours(len(layers)), strict=True)):
            mine = tidy(effects[effects["layer"] == layer], "place", "effect", "clear")
            mine["x"] += 0.5 * ((number + 0.5) / len(layers) - 0.5)
            look = {"marker": "o", "color": colour, "markersize": 4.5}
            draw_rows(ax, mine, {True: look, False: look | {"markerfacecolor": "white"}})
            ax.plot([], [], linestyle="", marker="o", color=colour, label=layer_label(layer))
        reference_line(ax, 1.0, vertical=True)
        ratio_axis(ax, float(chosen[["low", "effect"]].min().min()), float(chosen[["high", "effect"]].max().max()))
        ax.set_xlabel(f"{axis_label(axis)}: {_short(category or '')} over {_short(str(chosen['first'].iloc[0]))}")
        ax.legend(loc="lower center", bbox_to_anchor=(0.4, 1.0), ncols=min(len(layers), 4))
    return ax


def ratio_axis(ax: Axes, low: float, high: float) -> None:
    """A log axis of ratios from ``low`` to ``high``, including 1, with a few round numbers labelled."""
    low, high = max(min(low, 0.9), 1e-3) / 1.08, min(max(high, 1.1), 1e4) * 1.08
    ladder = (
        [10.0**e for e in range(-3, 5)]
        if high / low > 60
        else [0.1, 0.2, 0.5, 1, 2, 5, 10]
        if high / low > 4
        else [0.5, 0.7, 0.8, 0.9, 1, 1.1, 1.2, 1.5, 2, 3]
    )
    ax.set_xscale("log")
    ax.set_xlim(low, high)
    name_ticks(ax.xaxis, [tick for tick in ladder if low <= tick <= high])
    ax.grid(True, axis="x")


def _order(k: int | None) -> str:
    return f", k = {k}" if k else ""


def _layer_suffix(layer: str, layers: Sequence[str], only: str | None) -> str:
    return "" if only is not None or not layer or len(layers) < 2 else f", {layer}"


def row_axes(ax: Axes | None, names: Sequence[str], pitch: float = PITCH, width: float | None = None) -> Axes:
    """Axes with a named row for each effect, from top to bottom."""
    wide = min(DOUBLE_COLUMN, 2.3 + 0.062 * max(map(len, names))) if width is None else width
    ax = new_axes(ax, wide, pitch * len(names) + 0.9)
    ax.set_yticks(range(len(names)), list(names))
    ax.set_ylim(len(names) - 0.4, -0.6)
    ax.tick_params(axis="y", length=0)
    ax.grid(False, axis="y")
    for between in range(len(names) - 1):
        ax.axhline(between + 0.5, color="#ececec", linewidth=0.6, zorder=0)
    return ax


def draw_rows(ax: Axes, means: pd.DataFrame, looks: Mapping[Any, Mapping[str, Any]], spread: float = 0.0) -> None:
    """Draw dots with their intervals, slightly apart within a row.

    Args:
        ax: axes from :func:`row_axes`.
        means: result of :func:`~kagscope.figures.core.tidy`, with the number of the row as ``x``.
        looks: Matplotlib keywords of the dots by hue.
        spread: share of the row's height over which its dots are spread.
    """
    dots = dict(iter(means.groupby("hue", sort=False, observed=True)))
    for i, (hue, look) in enumerate(looks.items()):
        if hue in dots:
            row = dots[hue]
            y = row["x"] + spread * ((i + 0.5) / len(looks) - 0.5)
            usual: dict[str, Any] = {"linestyle": "", "markersize": 3.5, "elinewidth": 0.9, "capsize": 0}
            ax.errorbar(row["mean"], y, xerr=interval_lengths(row), **(usual | dict(look)))


def _short(name: str) -> str:
    return name if len(name) <= 40 else f"…{name[-39:]}"
