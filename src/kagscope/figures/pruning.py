"""Effects of removing units, against the tolerance below which a unit counts as constant."""

from __future__ import annotations

from functools import partial

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from kagscope.base.errors import NothingToPlot
from kagscope.figures.core import name_ticks
from kagscope.figures.panels import Panel, draw_grid
from kagscope.figures.style import BLUE, SINGLE_COLUMN, new_axes, style
from kagscope.tables.means import require_columns

LABELS = {
    "units": "units removed",
    "parameters": "parameters left",
    "largest_change": "largest change /\nlargest output",
    "largest_absolute_change": "largest change of\nan output",
    "accuracy": "accuracy",
}
ROWS = ("units", "largest_change", "accuracy")


def plot_pruning(curve: pd.DataFrame, *, measure: str = "units", ax: Axes | None = None) -> Axes:
    """Plot what each tolerance removes or changes; tolerance 0 is at the left of the log axis.

    Args:
        curve: table of :meth:`kagscope.Pruning.curve`: ``tolerance``, ``units``, ``parameters``, ``largest_change``,
            ``largest_absolute_change``, ``accuracy``.
        measure: one of its columns other than the first.
        ax: where to draw; a new figure by default.

    Raises:
        NothingToPlot: the measure is undefined, as accuracy is without labels.
        InputError: the table lacks columns.
    """
    require_columns(curve, ("tolerance", measure), "curve")
    table = curve[curve[measure].notna()].sort_values("tolerance")
    if table.empty:
        raise NothingToPlot(f"{measure} is undefined at every tolerance" + ("; give labels" if measure == "accuracy" else ""))
    logarithmic = measure.startswith("largest") and float(table[measure].max()) > 0
    with style():
        ax = new_axes(ax)
        ax.plot(table["tolerance"], table[measure], color=BLUE, marker="o", markersize=3, drawstyle="steps-post")
        _tolerance_axis(ax, table["tolerance"].to_numpy(dtype=float))
        if logarithmic:
            _change_axis(ax, table[measure].to_numpy(dtype=float))
        ax.set_ylabel(LABELS.get(measure, measure.replace("_", " ")))
        ax.set_xlabel("tolerance (share of the layer's largest)")
    return ax


def figure_pruning(curve: pd.DataFrame) -> Figure:
    """:func:`plot_pruning` for units removed, largest change and, if labels were given, accuracy, one below the other."""
    rows = [name for name in ROWS if curve[name].notna().any()]
    panels = [[Panel(partial(plot_pruning, curve, measure=name))] for name in rows]
    return draw_grid(panels, SINGLE_COLUMN, 1.3 * len(rows) + 0.4, sharex=True)


def _tolerance_axis(ax: Axes, tolerances: np.ndarray) -> None:
    """Make the axis logarithmic, with room for 0, if tolerances span decades."""
    positive = tolerances[tolerances > 0]
    if len(positive) and positive.max() / positive.min() >= 10:
        ax.set_xscale("symlog", linthresh=float(positive.min()), linscale=0.8)
        _decades(ax.xaxis, tolerances)
        ax.set_xlim(-0.08 * float(positive.min()), float(positive.max()) * 1.4)


def _change_axis(ax: Axes, changes: np.ndarray) -> None:
    """Make the axis logarithmic, with room for 0."""
    positive = changes[changes > 0]
    ax.set_yscale("symlog", linthresh=float(positive.min()), linscale=0.8)
    _decades(ax.yaxis, changes)
    ax.set_ylim(-0.15 * float(positive.min()), float(positive.max()) * 3)


def _decades(axis: Axis, values: np.ndarray) -> None:
    """Set ticks at 0, if present, and at most five decades."""
    positive = values[values > 0]
    first, last = int(np.ceil(np.log10(positive.min()))), int(np.floor(np.log10(positive.max())))
    decades = [10.0**e for e in range(first, last + 1, max(1, -(-(last - first + 1) // 5)))]
    ticks = decades if len(decades) > 1 else [float(positive.max())]
    name_ticks(axis, [*([0.0] if (values == 0).any() else []), *ticks])
    axis.set_major_formatter(FuncFormatter(_power if len(decades) > 1 else lambda value, _: f"{value:.2g}"))


def _power(value: float, _: object) -> str:
    return "0" if value == 0 else f"$10^{{{round(np.log10(value))}}}$"
