"""Two studies side by side: each score of one over that of the other."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, NullFormatter

from kagscope.figures.looks import line_colours
from kagscope.figures.style import new_figure, reference_line, score_label, style
from kagscope.figures.tables import NothingToPlot, layer_label, layers_of

LEVEL = 0.05
DERIVED = ("pr_normalized", "effective_minors")  # say the same as PR
WIDTH, ROW = 5.2, 0.2  # inches
ALL_SETTINGS = "all settings"


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
        ax.set_xscale("log")
        low, high = ax.get_xlim()
        ticks = [x for x in (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 0.8, 1, 1.25, 1.5, 2, 3, 5, 10, 20, 50, 100) if low < x < high]
        ax.set_xticks(ticks if high / low < 6 else [x for x in ticks if x not in (0.8, 1.25, 1.5, 3)])
        ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
        ax.xaxis.set_minor_formatter(NullFormatter())
        ax.tick_params(axis="x", which="minor", length=0)
        ax.grid(visible=True, axis="x")
        ax.set_xlabel(f"{_short(names[1])} over {_short(names[0])}")
        ax.legend(loc="lower center", bbox_to_anchor=(0.4, 1.0), ncols=min(len(layers), 4))
    return ax


def _label(score: str, k: int) -> str:
    return score_label(score) + (f", k = {k}" if k else "")


def _short(name: str) -> str:
    return name if len(name) <= 40 else f"…{name[-39:]}"
