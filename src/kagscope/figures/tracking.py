"""Ratios to the baseline along the training of one network."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from kagscope.figures.steps import step_axis
from kagscope.figures.style import OKABE_ITO, SINGLE_COLUMN, new_figure, reference_line, score_label, style
from kagscope.figures.tables import NothingToPlot

WIDE = 50  # a last step over the first beyond which the axis is logarithmic


def plot_ratio_by_step(summary: pd.DataFrame, onsets: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """Mean ratio against optimiser step, a line per layer with its interval as a band, a hollow circle at each onset.

    Args:
        summary: rows of :func:`kagscope.tracking.summary.summarise` for one score, order and selection.
        onsets: rows of :func:`kagscope.tracking.onset.find_onsets` for the same.
        ax: where to draw; a new figure by default.

    Raises:
        NothingToPlot: no ratio is defined.
    """
    table = summary[summary["ratio"].notna()]
    if table.empty:
        raise NothingToPlot("no ratio to the baseline is defined at any step")
    layers = [str(name) for name in pd.unique(table["layer"])]
    score, k, selection = (table[name].iloc[0] for name in ("score", "k", "selection"))
    with style():
        many = len(layers) > len(OKABE_ITO)
        ax = ax if ax is not None else new_figure(SINGLE_COLUMN + 1.6 * many, 2.6).subplots()
        for layer, colour in zip(layers, layer_colours(layers), strict=True):
            line = table[table["layer"] == layer].sort_values("step")
            found = onsets[(onsets["layer"] == layer) & onsets["step"].notna()]
            label = f"layer {layer}" + "".join(f", onset {step}" for step in found["step"])
            steps = line["step"].to_numpy(float)
            ax.plot(steps, line["ratio"].to_numpy(float), color=colour, marker="o", markersize=2.5, label=label)
            ax.fill_between(steps, line["low"], line["high"], color=colour, alpha=0.15, linewidth=0)
            at = found["step"].to_numpy(float), found["ratio"].to_numpy(float)
            ax.plot(*at, linestyle="", marker="o", markersize=8, markerfacecolor="none", color=colour)
        reference_line(ax, 1.0)
        every = table["step"].to_numpy(float)
        positive = every[every > 0]
        if len(positive) and positive.max() > WIDE * positive.min() and _is_geometric(np.unique(positive)):
            step_axis(ax, every)
        ax.set_xlabel("training step")
        what = "PR" if score == "pr" else score_label(str(score))
        which = ", ".join([*([f"k = {k}"] if k else []), *([] if selection == "all" else [str(selection)])])
        ax.set_ylabel(f"{what}, now / baseline" + (f"\n({which})" if which else ""))
        ax.legend(**({"loc": "center left", "bbox_to_anchor": (1.0, 0.5)} if many else {}))
    return ax


def layer_colours(layers: Sequence[str]) -> list[str]:
    """A colour for each layer: Okabe–Ito for up to six, else shades from dark to light in the order given."""
    if len(layers) <= len(OKABE_ITO):
        return list(OKABE_ITO[: len(layers)])
    return [mpl.colors.to_hex(shade) for shade in mpl.colormaps["cividis"](np.linspace(0, 0.9, len(layers)))]


def _is_geometric(steps: np.ndarray) -> bool:
    """Whether the gaps between steps grow: most measurements would crowd at the left of a linear axis."""
    return len(steps) > 3 and float(np.median(steps)) < 0.25 * float(steps[-1])
