"""What removing units changes, against the tolerance below which a unit counts as constant."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullLocator

from kagscope.figures.style import BLUE, SINGLE_COLUMN, log_ticks, new_axes, new_figure, style
from kagscope.figures.tables import NothingToPlot, require

LABELS = {
    "units": "units removed",
    "parameters": "parameters left",
    "largest_change": "largest change /\nlargest output",
    "largest_absolute_change": "largest change of\nan output",
    "accuracy": "accuracy",
}
ROWS = ("units", "largest_change", "accuracy")
ROUNDING = 1e-17  # of float64: changes at or below are drawn at it, a log axis has no zero


def plot_pruning(curve: pd.DataFrame, *, measure: str = "units", ax: Axes | None = None) -> Axes:
    """What each tolerance removes or changes; tolerance 0 stands at the left of the log axis.

    Args:
        curve: of :meth:`kagscope.Pruning.curve`: ``tolerance``, ``units``, ``parameters``, ``largest_change``,
            ``largest_absolute_change``, ``accuracy``.
        measure: one of its columns but the first.
        ax: where to draw; a new figure by default.

    Raises:
        NothingToPlot: the measure is undefined, as accuracy is without labels.
        InputError: the table lacks columns.
    """
    require(curve, ("tolerance", measure), "curve")
    table = curve[curve[measure].notna()].sort_values("tolerance")
    if table.empty:
        raise NothingToPlot(f"{measure} is undefined at every tolerance" + ("; give labels" if measure == "accuracy" else ""))
    logarithmic = measure.startswith("largest") and float(table[measure].max()) > 0
    with style():
        ax = new_axes(ax)
        values = table[measure].clip(lower=ROUNDING) if logarithmic else table[measure]
        ax.plot(table["tolerance"], values, color=BLUE, marker="o", markersize=3, drawstyle="steps-post")
        _tolerance_axis(ax, table["tolerance"].to_numpy(dtype=float))
        if logarithmic:
            ax.set_yscale("log")
            log_ticks(ax.yaxis)
        ax.set_ylabel(LABELS.get(measure, measure.replace("_", " ")))
        ax.set_xlabel("tolerance (share of the layer's largest)")
    return ax


def figure_pruning(curve: pd.DataFrame) -> Figure:
    """:func:`plot_pruning` of units removed, largest change and, where labels were given, accuracy, one below the other."""
    rows = [name for name in ROWS if curve[name].notna().any()]
    with style():
        figure = new_figure(SINGLE_COLUMN, 1.3 * len(rows) + 0.4)
        axes = figure.subplots(len(rows), 1, squeeze=False, sharex=True).ravel()
        for name, ax in zip(rows, axes, strict=True):
            plot_pruning(curve, measure=name, ax=ax)
            ax.label_outer()
        figure.align_ylabels(axes)
    return figure


def _tolerance_axis(ax: Axes, tolerances: np.ndarray) -> None:
    """Logarithmic, with room for 0."""
    positive = tolerances[tolerances > 0]
    if not len(positive):
        return
    first, last = float(positive.min()), float(positive.max())
    if last / first < 10:
        return
    ax.set_xscale("symlog", linthresh=first, linscale=0.4)
    decades = [tick for tick in LogLocator(numticks=5).tick_values(first, last) if first <= tick <= last]
    ax.xaxis.set_major_locator(FixedLocator([*([0.0] if (tolerances == 0).any() else []), *decades]))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: "0" if value == 0 else f"$10^{{{round(np.log10(value))}}}$"))
    ax.set_xlim(0 if (tolerances == 0).any() else first, last * 1.2)
