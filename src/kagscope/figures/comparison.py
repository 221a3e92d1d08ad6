"""Effects of a category of an axis with their intervals, a row for each score."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes

from kagscope.base.errors import NothingToPlot
from kagscope.figures.core import tidy
from kagscope.figures.forest import draw_rows, ratio_axis, row_axes
from kagscope.figures.labels import axis_label, layer_label, score_label
from kagscope.figures.line_styles import line_colours
from kagscope.figures.style import reference_line, style
from kagscope.tables.means import corrected_p, layers_of, require_columns
from kagscope.tables.schema import ALPHA

DERIVED = ("pr_normalized", "effective_minors")  # equivalent to PR
WIDTH, ROW = 5.2, 0.2  # inches
NEEDED = (
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
    require_columns(comparisons, NEEDED, "comparisons")
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
        ax = row_axes(ax, names, ROW, WIDTH)
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


def _short(name: str) -> str:
    return name if len(name) <= 40 else f"…{name[-39:]}"
