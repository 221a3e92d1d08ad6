"""A score over two axes of a study as a map: width and difficulty, learning rate and weight decay, whatever two things vary."""

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

from kagscope.base.errors import NothingToPlot
from kagscope.figures.axes import study_axes
from kagscope.figures.colours import SEQUENTIAL, ratio_colours, ratio_norm, to_lab
from kagscope.figures.style import DOUBLE_COLUMN, draw_each, new_axes, new_figure, style
from kagscope.labels import layer_label, score_label
from kagscope.tables.means import layers_of, require, select

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
    ax: Axes | None = None,
) -> Axes:
    """Map of a score over two axes of a study, each field with its number; means over everything else.

    Args:
        summary: ``summary.csv`` of a study: a column for each axis, ``layer``, ``k``, ``selection``, ``score``, ``value``,
            ``ratio``, ``accuracy``.
        x, y: two of the axes.
        score, k, layer, selection: which score; the first layer by default.
        measure: "ratio" to initialisation or "value"; the ratio where there is one.
        ax: where to draw; a new figure by default.

    Raises:
        NothingToPlot: the score was not measured.
        InputError: ``x`` or ``y`` is no column.
    """
    require(summary, [x, y, "layer", "k", "selection", "score"], "summary")
    if score == "accuracy":
        table, measure = summary.drop_duplicates(study_axes(summary)), "accuracy"
    else:
        layer = layer if layer is not None else (layers_of(summary) or [""])[0]
        table = select(summary, score=score, k=k, selection=selection, layer=layer)
        measure = measure or ("ratio" if score in ("pr", "kl_uniform", "rr_pr") and table["ratio"].notna().any() else "value")
    table = table[table[measure].notna()]
    if table.empty:
        raise NothingToPlot(f"no {score} with k = {k} for selection {selection}")
    columns, rows = _ordered(summary[x]), _ordered(summary[y])
    means = table.groupby([y, x], observed=True)[measure].mean()
    grid = np.array([[means.get((row, column), np.nan) for column in columns] for row in rows], dtype=float)
    norm = _norm(grid, measure)
    with style():
        ax = new_axes(ax)
        ax.grid(False)
        colours = ratio_colours(norm) if measure == "ratio" else mpl.colormaps[SEQUENTIAL]
        ax.imshow(grid, cmap=colours, norm=norm, origin="lower", aspect="auto")
        for (i, j), value in np.ndenumerate(grid):
            if np.isfinite(value):
                dark = to_lab(np.array(colours(norm(value))[:3]))[0] < 60
                ax.text(j, i, _number(value, grid), ha="center", va="center", fontsize=6.5, color="white" if dark else "black")
        ax.spines[:].set_visible(False)
        ax.tick_params(length=0)
        names = [_said(value) for value in columns]
        slanted: dict[str, Any] = {"rotation": 40, "ha": "right", "rotation_mode": "anchor"}
        ax.set_xticks(range(len(names)), names, **(slanted if sum(map(len, names)) > 20 else {}))
        ax.set_yticks(range(len(rows)), [_said(value) for value in rows])
        ax.set_xlabel(x.replace("_", " "))
        ax.set_ylabel(y.replace("_", " "))
        ax.set_title(_title(score, k, measure), fontsize=8)
    return ax


def figure_phase(summary: pd.DataFrame, x: str, y: str, layer: str | None = None) -> Figure:
    """:func:`plot_phase` for accuracy (R² of a regression) and the main scores of one layer."""
    layers = layers_of(summary)
    layer = layer if layer is not None else layers[0]
    names = [_said(value) for value in _ordered(summary[x])]
    height = 0.22 * summary[y].nunique() + 0.5
    with style():
        slanted = 0.05 * max(map(len, names)) if sum(map(len, names)) > 20 else 0.0
        figure = new_figure(DOUBLE_COLUMN, 2 * height + slanted + 0.6)
        axes = figure.subplots(2, 3, sharex=True, sharey=True).ravel()

        def draw(score: str, k: int, ax: Axes) -> None:
            plot_phase(summary, x=x, y=y, score=score, k=k, layer=layer, ax=ax)

        draw_each([(ax, partial(draw, score, k)) for ax, (score, k) in zip(axes, SCORES, strict=True)])
        for ax in axes:
            ax.label_outer()
        figure.suptitle(layer_label(layer, layers), fontsize=9)
    return figure


def _norm(grid: np.ndarray, measure: str) -> Normalize:
    if measure == "ratio":
        return ratio_norm(grid)
    low, high = float(np.nanmin(grid)), float(np.nanmax(grid))
    return Normalize(low, high if high > low else low + 1)


def _number(value: float, grid: np.ndarray) -> str:
    """Two decimals, more where all numbers are small, fewer where they are large."""
    largest = float(np.nanmax(np.abs(grid)))
    if largest >= 100 or (0 < largest < 1e-3):
        return f"{value:.2g}"
    return f"{value:.{2 if largest >= 0.1 else 3 if largest >= 0.01 else 4}f}".replace("-", "−")


def _ordered(values: pd.Series[Any]) -> Sequence[Any]:
    """Numbers by size, names as they come."""
    found = list(pd.unique(values))
    return sorted(found) if all(isinstance(value, int | float | np.number) for value in found) else found


def _said(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _title(score: str, k: int, measure: str) -> str:
    if score == "accuracy":
        return "test accuracy or R²"
    name = {"pr": "PR", "rr_pr": "rotation ratio", "kl_uniform": "KL"}.get(score, score_label(score))
    ratio = " / initial" if measure == "ratio" else ""
    return f"{name}{ratio}" + (f" (k = {k})" if k else "")
