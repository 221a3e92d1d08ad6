"""What a category of an axis changes: each score's effect with its interval, a row for each score."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from kagscope.base.errors import NothingToPlot
from kagscope.figures.forest import ratio_axis
from kagscope.figures.looks import line_colours
from kagscope.figures.style import new_axes, reference_line, style
from kagscope.labels import layer_label, score_label
from kagscope.tables.means import layers_of, require

LEVEL = 0.05
DERIVED = ("pr_normalized", "effective_minors")  # say the same as PR
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
    """A row for each score that is a ratio: a category over the first one with its 95% interval, a colour for each layer.

    Filled dots differ from 1 after correction for all scores, hollow ones do not.

    Args:
        comparisons: ``comparisons.csv`` of a study (:func:`kagscope.studies.inference.comparisons.comparisons`), or what
            ``kagscope report A B`` writes, where the axis is "study".
        axis: of the study, such as "training".
        category: of the axis; the last one by default.
        selection: of columns.
        ax: where to draw; a new figure by default.

    Raises:
        NothingToPlot: no score of that axis is compared as a ratio.
        InputError: the table lacks columns.
    """
    require(comparisons, NEEDED, "comparisons")
    chosen = comparisons[(comparisons["axis"] == axis) & (comparisons["selection"] == selection)]
    category = category if category is not None or chosen.empty else str(chosen["category"].iloc[-1])
    chosen = chosen[(chosen["category"].astype(str) == category) & (chosen["measure"] == "ratio")]
    chosen = chosen[~chosen["score"].isin(DERIVED) & (chosen["effect"] > 0)].astype({"layer": str})
    if chosen.empty:
        raise NothingToPlot(f"no score is compared as a ratio between categories of {axis}")
    scores = list(dict.fromkeys(chosen["score"]))
    rows = sorted(set(zip(chosen["score"], chosen["k"], strict=True)), key=lambda row: (scores.index(row[0]), row[1]))
    layers = layers_of(chosen)
    clear = (chosen["p_joint"].fillna(chosen["p_holm"]) < LEVEL).to_numpy()
    with style():
        ax = new_axes(ax, WIDTH, 0.9 + ROW * len(rows))
        for place, (layer, colour) in enumerate(zip(layers, line_colours(len(layers)), strict=True)):
            mine = (chosen["layer"] == layer).to_numpy()
            shift = 0.5 * ((place + 0.5) / len(layers) - 0.5)
            y = np.array([rows.index(pair) for pair in zip(chosen["score"], chosen["k"], strict=True)]) + shift
            low, x, high = (chosen[name].to_numpy(dtype=float) for name in ("low", "effect", "high"))
            ends = np.nan_to_num(np.stack([x - low, high - x]), nan=0.0)
            ax.errorbar(x[mine], y[mine], xerr=ends[:, mine], fmt="none", ecolor=colour, linewidth=1)
            for here, face in ((mine & clear, colour), (mine & ~clear, "white")):
                ax.plot(x[here], y[here], linestyle="", marker="o", color=colour, markerfacecolor=face, markersize=4.5)
            ax.plot([], [], linestyle="", marker="o", color=colour, label=layer_label(layer, layers))
        reference_line(ax, 1.0, vertical=True)
        ax.set_yticks(range(len(rows)), [score_label(score) + (f", k = {k}" if k else "") for score, k in rows])
        ax.set_ylim(len(rows) - 0.5, -0.5)
        ratio_axis(ax, float(chosen[["low", "effect"]].min().min()), float(chosen[["high", "effect"]].max().max()))
        ax.grid(visible=True, axis="x")
        ax.set_xlabel(f"{axis.replace('_', ' ')}: {_short(category or '')} over {_short(str(chosen['first'].iloc[0]))}")
        ax.legend(loc="lower center", bbox_to_anchor=(0.4, 1.0), ncols=min(len(layers), 4))
    return ax


def _short(name: str) -> str:
    return name if len(name) <= 40 else f"…{name[-39:]}"
