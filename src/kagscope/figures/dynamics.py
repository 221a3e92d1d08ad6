"""Scores and accuracy along training as another axis of a study varies: one line per difficulty, a column per width."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from kagscope.base.errors import NothingToPlot
from kagscope.figures.style import DOUBLE_COLUMN, figure_legend, new_figure, not_measured, reference_line, style
from kagscope.tables.intervals import half_width
from kagscope.tables.means import layers_of, per_run, select

MOST_LINES, MOST_COLUMNS = 8, 3
FEWEST_STEPS = 4  # of fewer a curve says no more than the map at the end


class Row(NamedTuple):
    """One row of panels: score, order, measure, label, and its value at initialisation where that is fixed."""

    score: str
    k: int
    measure: str
    label: str
    start: float | None


ROWS = (
    Row("pr", 2, "ratio", "PR\ntrained / initial", 1.0),
    Row("rr_pr", 2, "ratio", "rotation ratio\ntrained / initial", 1.0),
    Row("zero_rows", 1, "value", "zero rows\n(fraction)", None),
)


def figure_dynamics(
    results: pd.DataFrame,
    runs: pd.DataFrame,
    by: str,
    along: str | None = None,
    layer: str | None = None,
    accuracy: str = "accuracy",
) -> Figure:
    """Accuracy, PR, rotation ratio and zero rows against the step; means over runs with 95% intervals of Student's t.

    Args:
        results: the ``results`` table of a study.
        runs: its runs table.
        by: column of ``runs``: a line for each value, at most eight of them, evenly chosen.
        along: column of ``runs``: a column of panels for its first, middle and last value; None for one column.
        layer: which layer; the first by default.
        accuracy: what test accuracy is called.

    Raises:
        NothingToPlot: nothing was measured at four steps or more.
    """
    wanted = results["score"].isin([row.score for row in ROWS]) & (results["selection"] == "all")
    reduced = per_run(results[wanted]).astype({"run": str})
    axes = [name for name in (by, along) if name is not None]
    reduced = reduced.join(runs.set_index("run")[axes].add_prefix("axis_"), on="run")
    if (steps := reduced["step"].nunique()) < FEWEST_STEPS:
        raise NothingToPlot(f"measured at {steps} steps; a curve along training needs {FEWEST_STEPS}")
    layer = layer if layer is not None else (layers_of(reduced) or [""])[0]
    lines = _some(runs[by], MOST_LINES)
    columns = _some(runs[along], MOST_COLUMNS) if along is not None else [None]
    colours = dict(zip(lines, mpl.colormaps["viridis"](np.linspace(0, 0.92, len(lines))), strict=True))
    with style():
        figure = new_figure(max(3.6, min(DOUBLE_COLUMN, 2.5 * len(columns))), 1.25 * (len(ROWS) + 1) + 0.6)
        panels = figure.subplots(len(ROWS) + 1, len(columns), squeeze=False, sharex=True, sharey="row")
        for place, value in enumerate(columns):
            part = reduced if value is None else reduced[reduced[f"axis_{along}"] == value]
            _lines(panels[0][place], part.drop_duplicates(["run", "step"]), "accuracy", by, colours)
            panels[0][place].set_title("" if value is None else f"{along} {_said(value)}")
            for row, ax in zip(ROWS, panels[1:, place], strict=True):
                chosen = select(part, score=row.score, k=row.k, layer=layer, selection="all")
                _lines(ax, chosen, row.measure, by, colours)
                if row.start is not None:
                    reference_line(ax, row.start)
            panels[-1][place].set_xlabel("optimiser step")
        for ax, label in zip(panels[:, 0], [f"test {accuracy}", *(row.label for row in ROWS)], strict=True):
            ax.set_ylabel(label)
        panels[0][0].set_ylim(bottom=max(panels[0][0].get_ylim()[0], -0.3))  # R² of an untrained net may be far below 0
        handles = [Line2D([], [], color=colour, linewidth=2, label=_said(value)) for value, colour in colours.items()]
        figure_legend(figure, handles, by.replace("_", " "))
        figure.align_ylabels(panels[:, 0])
    return figure


def _lines(ax: Axes, rows: pd.DataFrame, measure: str, by: str, colours: dict[Any, Any]) -> None:
    rows = rows[rows[measure].notna()]
    if rows.empty:
        not_measured(ax)
        return
    for value, colour in colours.items():
        table = rows[rows[f"axis_{by}"] == value].groupby("step")[measure].agg(["mean", "std", "count"]).reset_index()
        half = np.nan_to_num(half_width(table["std"].to_numpy(dtype=float), table["count"].to_numpy()))
        ax.plot(table["step"], table["mean"], color=colour, marker="o", markersize=2.2, linewidth=1.1)
        ax.fill_between(table["step"], table["mean"] - half, table["mean"] + half, color=colour, alpha=0.18, linewidth=0)
    ax.set_xscale("symlog", linthresh=1)


def _some(values: pd.Series[Any], most: int) -> list[Any]:
    """Distinct values, numbers in order and names as they come; at most so many, evenly chosen, both ends among them."""
    found: Sequence[Any] = list(pd.unique(values))
    found = sorted(found) if pd.api.types.is_numeric_dtype(values) else found
    places = np.unique(np.linspace(0, len(found) - 1, min(most, len(found))).round().astype(int))
    return [found[place] for place in places]


def _said(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
