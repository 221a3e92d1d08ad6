"""A score over two axes of a study as a map: width and difficulty, learning rate and weight decay, whatever two things vary."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure

from kagscope.figures.style import DOUBLE_COLUMN, draw_each, new_axes, new_figure, score_label, style
from kagscope.figures.tables import NothingToPlot, layer_label, layers_of, select

RATIO_COLOURS, VALUE_COLOURS = "PuOr_r", "cividis"
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
        summary: of :func:`kagscope.studies.gather.settings_summary`; accuracy is its column ``accuracy``.
        x, y: columns of it.
        score, k, layer, selection: which score; the first layer by default.
        measure: "ratio" to initialisation or "value"; the ratio where there is one.
        ax: where to draw; a new figure by default.

    Raises:
        NothingToPlot: the score was not measured.
    """
    if score == "accuracy":
        table, measure = summary.drop_duplicates([x, y, *_others(summary, x, y)]), "accuracy"
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
        ax.imshow(grid, cmap=RATIO_COLOURS if measure == "ratio" else VALUE_COLOURS, norm=norm, origin="lower", aspect="auto")
        for (i, j), value in np.ndenumerate(grid):
            if np.isfinite(value):
                dark = abs(float(norm(value)) - 0.5) > 0.32 if measure == "ratio" else float(norm(value)) < 0.45
                ax.text(j, i, f"{value:.2f}", ha="center", va="center", fontsize=6.5, color="white" if dark else "black")
        ax.set_xticks(range(len(columns)), [_said(value) for value in columns], rotation=30 if x == "data" else 0)
        ax.set_yticks(range(len(rows)), [_said(value) for value in rows])
        ax.set_xlabel(x.replace("_", " "))
        ax.set_ylabel(y.replace("_", " "))
        ax.set_title(_title(score, k, measure))
    return ax


def figure_phase(summary: pd.DataFrame, x: str, y: str, layer: str | None = None) -> Figure:
    """:func:`plot_phase` for accuracy (R² of a regression) and the main scores of one layer."""
    layers = layers_of(summary)
    layer = layer if layer is not None else layers[0]
    height = 0.26 * summary[y].nunique() + 1.0
    with style():
        figure = new_figure(DOUBLE_COLUMN, 2 * height + 0.4)
        axes = figure.subplots(2, 3).ravel()

        def draw(ax: Axes, score: str, k: int) -> None:
            plot_phase(summary, x=x, y=y, score=score, k=k, layer=layer, ax=ax)

        draw_each([(ax, lambda a, s=score, o=k: draw(a, s, o)) for ax, (score, k) in zip(axes, SCORES, strict=True)])  # type: ignore[misc]
        for place, ax in enumerate(axes):
            if place % 3:
                ax.set_ylabel("")
            if place < 3:
                ax.set_xlabel("")
        figure.suptitle(layer_label(layer, layers), fontsize=9)
    return figure


def _norm(grid: np.ndarray, measure: str) -> Normalize:
    if measure == "ratio" and np.nanmin(grid) > 0:
        reach = max(float(np.nanmax(np.abs(np.log(grid)))), 0.05)
        return LogNorm(np.exp(-reach), np.exp(reach))
    low, high = float(np.nanmin(grid)), float(np.nanmax(grid))
    return Normalize(low, high if high > low else low + 1)


def _others(summary: pd.DataFrame, x: str, y: str) -> list[str]:
    known = ["layer", "k", "selection", "score", "nets", "accuracy", x, y]
    return [name for name in summary.columns if name not in known and not name.startswith(("value", "baseline", "ratio"))]


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
    order = f", k = {k}" if k else ""
    return f"{name}{order}" + (" / initial" if measure == "ratio" else "")
