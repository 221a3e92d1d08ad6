"""A score over two axes of a study as a map, such as width and difficulty, or learning rate and weight decay."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from kagscope.figures.axes import choose
from kagscope.figures.colours import SEQUENTIAL, ratio_colours, ratio_norm, to_lab
from kagscope.figures.labels import axis_label, layer_label, score_label
from kagscope.figures.line_styles import value_label
from kagscope.figures.panels import Panel, draw_grid, wrap
from kagscope.figures.study import first_layer
from kagscope.figures.style import DOUBLE_COLUMN, new_axes, style
from kagscope.tables.means import require_columns

LETTER = 0.62  # width of a digit relative to the font size
SCORES = (("accuracy", 0), ("pr", 2), ("rr_pr", 2), ("zero_rows", 1), ("column_divergence", 1), ("kl_uniform", 2))


def plot_phase(
    summary: pd.DataFrame,
    *,
    x: str,
    y: str,
    score: str = "pr",
    k: int = 2,
    layer: str | None = None,
    selection: str = "all",
    measure: str | None = None,
    accuracy: str = "accuracy",
    ax: Axes | None = None,
) -> Axes:
    """Plot a score over two axes of a study as a map of labelled cells; means over everything else.

    Args:
        summary: ``summary.csv`` of a study: a column for each axis, ``layer``, ``k``, ``selection``, ``score``, ``value``,
            ``ratio``, ``accuracy``.
        x, y: two axes of the study.
        score, k, layer, selection: which score; the first layer by default.
        measure: "ratio" to initialisation or "value"; by default the ratio if there is one.
        accuracy: label of test accuracy: "R²" for a regression.
        ax: where to draw; a new figure by default.

    Raises:
        NothingToPlot: the score was not measured.
        InputError: ``x`` or ``y`` is not a column.
    """
    require_columns(summary, [x, y, "layer", "k", "selection", "score"], "summary")
    table, measure = choose(summary, score, k, layer, selection, measure)
    columns, rows = _sort(summary[x]), _sort(summary[y])
    means = table.groupby([y, x], observed=True)[measure].mean()
    grid = np.array([[means.get((row, column), np.nan) for column in columns] for row in rows], dtype=float)
    norm = _norm(grid, measure)
    with style():
        ax = new_axes(ax)
        ax.grid(False)
        colours = ratio_colours(norm) if measure == "ratio" else mpl.colormaps[SEQUENTIAL]
        ax.imshow(grid, cmap=colours, norm=norm, origin="lower", aspect="auto")
        texts = {index: _number(value, grid) for index, value in np.ndenumerate(grid) if np.isfinite(value)}
        inches = ax.get_position().width * float(ax.figure.bbox.width) / float(ax.figure.dpi)
        wide = 72 * inches / len(columns)  # width of a cell in points
        size = min(6.5, wide / (LETTER * max(map(len, texts.values()), default=1)))
        for (i, j), value in np.ndenumerate(grid):
            if np.isfinite(value):
                dark = to_lab(np.array(colours(norm(value))[:3]))[0] < 60
                ax.text(j, i, texts[i, j], ha="center", va="center", fontsize=size, color="white" if dark else "black")
        ax.spines[:].set_visible(False)
        ax.tick_params(length=0)
        names = [value_label(value) for value in columns]
        slanted: dict[str, Any] = {"rotation": 40, "ha": "right", "rotation_mode": "anchor"}
        ax.set_xticks(range(len(names)), names, **(slanted if sum(map(len, names)) > 20 else {}))
        ax.set_yticks(range(len(rows)), [value_label(value) for value in rows])
        ax.set_xlabel(axis_label(x, unit=True))
        ax.set_ylabel(axis_label(y, unit=True))
        ax.set_title(_title(score, k, measure, accuracy), fontsize=8)
    return ax


def figure_phase(summary: pd.DataFrame, x: str, y: str, layer: str | None = None, accuracy: str = "accuracy") -> Figure:
    """:func:`plot_phase` for accuracy (with label ``accuracy``: "R²" for a regression) and the main scores of one layer."""
    layer = layer if layer is not None else first_layer(summary)
    names = [value_label(value) for value in _sort(summary[x])]
    draw = partial(plot_phase, summary, x=x, y=y, layer=layer, accuracy=accuracy)
    height = 0.22 * summary[y].nunique() + 0.5
    slanted = 0.05 * max(map(len, names)) if sum(map(len, names)) > 20 else 0.0
    rows = wrap([Panel(partial(draw, score=score, k=k)) for score, k in SCORES], 3)
    figure = draw_grid(rows, DOUBLE_COLUMN, 2 * height + slanted + 0.6, sharex=True, sharey=True)
    with style():
        figure.suptitle(layer_label(layer), fontsize=9)
    return figure


def _norm(grid: np.ndarray, measure: str) -> Normalize:
    if measure == "ratio":
        return ratio_norm(grid)
    low, high = float(np.nanmin(grid)), float(np.nanmax(grid))
    return Normalize(low, high if high > low else low + 1)


def _number(value: float, grid: np.ndarray) -> str:
    """Format a number with two decimals, more if all are small, fewer if they are large."""
    largest = float(np.nanmax(np.abs(grid)))
    if largest >= 100 or (0 < largest < 1e-3):
        return f"{value:.2g}"
    return f"{value:z.{2 if largest >= 0.1 else 3 if largest >= 0.01 else 4}f}".replace("-", "−")


def _sort(values: pd.Series[Any]) -> Sequence[Any]:
    """Sort numbers; keep names in order of appearance."""
    distinct = list(pd.unique(values))
    return sorted(distinct) if all(isinstance(value, int | float | np.number) for value in distinct) else distinct


def _title(score: str, k: int, measure: str, accuracy: str) -> str:
    if score == "accuracy":
        return f"test {accuracy}"
    name = {"pr": "PR", "rr_pr": "rotation ratio", "kl_uniform": "KL"}.get(score, score_label(score))
    ratio = " / initial" if measure == "ratio" else ""
    return f"{name}{ratio}" + (f" (k = {k})" if k else "")
