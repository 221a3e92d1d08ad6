"""Two studies side by side: each score of one over that of the other."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from kagscope.base.errors import NothingToPlot
from kagscope.figures.forest import ratio_axis
from kagscope.figures.looks import line_colours
from kagscope.figures.style import new_figure, reference_line, style
from kagscope.labels import layer_label, score_label
from kagscope.tables.means import layers_of
from kagscope.tables.schema import ALL_SETTINGS

LEVEL = 0.05
DERIVED = ("pr_normalized", "effective_minors")  # say the same as PR
WIDTH, ROW = 5.2, 0.2  # inches


def plot_versus(
    table: pd.DataFrame, names: tuple[str, str] = ("A", "B"), *, setting: str = ALL_SETTINGS, ax: Axes | None = None
) -> Axes:
    """A row for each score that is compared as a ratio: B over A with its 95% interval, a colour for each layer.

    Filled dots differ from 1 after Holm's correction, hollow ones do not.

    Args:
        table: of :class:`kagscope.studies.versus.Comparison`.
        names: of the two studies.
        setting: which rows of the table; by default those over all settings.
        ax: where to draw; a new figure by default.

    Raises:
        NothingToPlot: no score is compared as a ratio.
    """
    chosen = table[(table["setting"] == setting) & (table["selection"] == "all") & (table["effect"] == "ratio")]
    chosen = chosen[~chosen["score"].isin(DERIVED) & (chosen["estimate"] > 0)]
    if chosen.empty:
        raise NothingToPlot("no score is compared as a ratio")
    scores = list(dict.fromkeys(chosen["score"]))
    rows = sorted(set(zip(chosen["score"], chosen["k"], strict=True)), key=lambda row: (scores.index(row[0]), row[1]))
    layers = layers_of(chosen)
    colours = dict(zip(layers, line_colours(len(layers)), strict=True))
    with style():
        ax = ax if ax is not None else new_figure(WIDTH, 0.9 + ROW * len(rows)).subplots()
        for layer in layers:
            part = chosen[chosen["layer"] == layer]
            shift = 0.5 * ((layers.index(layer) + 0.5) / len(layers) - 0.5)
            y = np.array([rows.index(pair) for pair in zip(part["score"], part["k"], strict=True)]) + shift
            x = part["estimate"].to_numpy(float)
            ends = np.nan_to_num(np.stack([x - part["low"].to_numpy(float), part["high"].to_numpy(float) - x]), nan=0.0)
            colour = colours[layer]
            ax.errorbar(x, y, xerr=ends, fmt="none", ecolor=colour, linewidth=1)
            for clear, face in ((True, colour), (False, "white")):
                here = (part["p_holm"] < LEVEL).to_numpy() == clear
                ax.plot(x[here], y[here], linestyle="", marker="o", color=colour, markerfacecolor=face, markersize=4.5)
            ax.plot([], [], linestyle="", marker="o", color=colour, label=layer_label(layer, layers))
        reference_line(ax, 1.0, vertical=True)
        ax.set_yticks(range(len(rows)), [_label(score, k) for score, k in rows])
        ax.set_ylim(len(rows) - 0.5, -0.5)
        ratio_axis(ax, float(chosen[["low", "estimate"]].min().min()), float(chosen[["high", "estimate"]].max().max()))
        ax.grid(visible=True, axis="x")
        ax.set_xlabel(f"{_short(names[1])} over {_short(names[0])}")
        ax.legend(loc="lower center", bbox_to_anchor=(0.4, 1.0), ncols=min(len(layers), 4))
    return ax


def _label(score: str, k: int) -> str:
    return score_label(score) + (f", k = {k}" if k else "")


def _short(name: str) -> str:
    return name if len(name) <= 40 else f"…{name[-39:]}"
