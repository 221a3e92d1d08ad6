"""Map of the ratio inside windows over the image."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from kagscope.base.errors import NothingToPlot
from kagscope.figures.colours import ratio_colours, ratio_norm
from kagscope.figures.core import name_ticks
from kagscope.figures.labels import layer_label, short_label
from kagscope.figures.panels import Panel, columns_for, draw_grid, wrap, wrap_name
from kagscope.figures.study import study_means
from kagscope.figures.style import DOUBLE_COLUMN, new_axes, style
from kagscope.tables.means import last_step, layers_of, select, select_windows, trainings_of, widths_of


def window_grid(table: pd.DataFrame, measure: str = "ratio") -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Row and column coordinates of window centres, and the (rows, columns) array of a measure; NaN without a window."""
    rows, columns = np.unique(table["row"]), np.unique(table["column"])
    grid = np.full((len(rows), len(columns)), np.nan)
    grid[np.searchsorted(rows, table["row"]), np.searchsorted(columns, table["column"])] = table[measure]
    return rows, columns, grid


def plot_window_map(
    results: pd.DataFrame,
    *,
    layer: str | None = None,
    k: int = 2,
    score: str = "pr",
    width: int | None = None,
    training: str | None = None,
    radius: float | None = None,
    image_shape: tuple[int, ...] | None = None,
    norm: Normalize | None = None,
    ax: Axes | None = None,
    colorbar: bool = True,
) -> Axes:
    """Plot a map over the image of the ratio of ``score`` to initialisation in windows around each centre, mean over seeds.

    Args:
        results: the ``results`` table, or :func:`~kagscope.figures.study.study_means` of it.
        layer: which layer; the first by default.
        k: order of the minors.
        score: any score with a ratio.
        width: which width; the largest by default.
        training: which training; "standard" by default where present.
        radius: radius of the windows; the one with most centres by default.
        image_shape: (H, W) or (C, H, W) in pixels, for the frame.
        norm: colour scale; by default :func:`~kagscope.figures.colours.ratio_norm` of the ratios: symmetric about 1 on a log
            scale if they lie on both sides of it, else from the smallest to the largest.
        ax: where to draw; a new figure by default.
        colorbar: whether to draw one.

    Raises:
        NothingToPlot: no windows were measured.
    """
    table = _window_table(results, layer, k, score, width, training, radius)
    rows, columns, grid = window_grid(table)
    with style():
        ax = new_axes(ax)
        norm = norm if norm is not None else ratio_norm(grid)
        step_y, step_x = _spacing(rows), _spacing(columns)
        extent = (columns[0] - step_x / 2, columns[-1] + step_x / 2, rows[-1] + step_y / 2, rows[0] - step_y / 2)
        image = ax.imshow(grid, cmap=ratio_colours(norm), norm=norm, extent=extent, interpolation="nearest", aspect="equal")
        if image_shape is not None:
            ax.set_xlim(-0.5, image_shape[-1] - 0.5)
            ax.set_ylim(image_shape[-2] - 0.5, -0.5)
        ax.set_facecolor("#e9e9e9")
        ax.grid(False)
        ax.spines[["top", "right"]].set_visible(True)
        ax.set_xlabel("pixel column")
        ax.set_ylabel("pixel row")
        if colorbar:
            shown = layer_label(str(table["layer"].iloc[0]), k)
            add_colorbar(image, [ax], f"{short_label(score)} in window, trained / initial\n({shown})")
    return ax


def figure_window_map(
    results: pd.DataFrame, image_shape: Sequence[int], names: tuple[str, str] = ("trained", "initial")
) -> Figure:
    """A map for each layer and training of the largest width, with one colour scale.

    Rows are layers and columns trainings; where there are many trainings, each layer takes several rows. ``names`` are those of
    the networks compared.
    """
    means = study_means(results)
    table = select_windows(last_step(select(means, score="pr")))
    table = table[table["ratio"].notna()]
    if table.empty:
        raise NothingToPlot("no window(…) selections were measured")
    layers, trainings, width = layers_of(table), trainings_of(table), widths_of(table)[-1]
    k = 2 if (table["k"] == 2).any() else int(table["k"].iloc[0])
    columns = columns_for(len(trainings))
    grids = []
    for layer in layers:
        for training in trainings:
            with contextlib.suppress(NothingToPlot):
                grids.append(window_grid(_window_table(means, layer, k, "pr", width, training, None))[2])
    norm = ratio_norm(np.concatenate([grid.ravel() for grid in grids]))
    panel = min(2.3, (DOUBLE_COLUMN - 1.2) / columns)
    tall = panel * min(1.0, image_shape[-2] / image_shape[-1])
    below = [wrap_name(training, int(15 * panel)) for training in trainings] if len(trainings) > 1 else [""]
    lines = 1 + max(name.count("\n") for name in below)
    shown: dict[str, Any] = {"k": k, "width": width, "image_shape": image_shape, "norm": norm, "colorbar": False}

    def draw(layer: str, training: str, ax: Axes) -> None:
        plot_window_map(means, layer=layer, training=training, ax=ax, **shown)
        ax.label_outer()

    panels: list[Sequence[Panel]] = []
    for layer in layers:
        above = layer_label(layer) if len(layers) > 1 or len(trainings) == 1 else ""
        titled = zip(trainings, below, strict=True)
        panels += wrap([Panel(partial(draw, layer, training), f"{above}\n{name}".strip()) for training, name in titled], columns)
    height = (tall + 0.14 * lines + 0.3) * len(panels) + 0.4
    figure = draw_grid(panels, panel * columns + 1.2, height, sharex=True, sharey=True, title_look={"fontsize": 7.5})
    with style():
        image = next(ax.images[0] for ax in figure.axes if ax.images)
        width_of = f"width {width}, " if len(widths_of(table)) > 1 else ""
        add_colorbar(image, figure.axes, f"PR in window, {' / '.join(names)} ({width_of}k = {k})")
    return figure


def add_colorbar(image: AxesImage, axes: list[Axes], label: str) -> None:
    """A colour bar with ticks at round ratios."""
    figure = axes[0].figure
    bar = figure.colorbar(image, ax=axes, label=label, shrink=0.85, aspect=24, pad=0.02)
    low, high = (float(value or 1.0) for value in image.get_clim())
    name_ticks(bar.ax.yaxis, ratio_ticks(low, high))
    bar.outline.set_linewidth(0.5)


def ratio_ticks(low: float, high: float) -> list[float]:
    """Round ratios between ``low`` and ``high``, from the coarsest ladder with at least four of them."""
    ladders = (
        [0.01, 0.1, 1.0, 10.0, 100.0],
        [0.25, 0.5, 1.0, 2.0, 4.0],
        [0.25, 0.5, 0.7, 1.0, 1.5, 2.0, 3.0, 4.0],
        [round(0.2 * step, 1) for step in range(1, 21)],
        [round(0.1 * step, 1) for step in range(1, 41)],
        [round(0.05 * step, 2) for step in range(1, 81)],
        [round(0.02 * step, 2) for step in range(1, 201)],
        [round(0.01 * step, 2) for step in range(1, 401)],
    )
    inside = ([tick for tick in ladder if low <= tick <= high] for ladder in ladders)
    return next((ticks for ticks in inside if len(ticks) >= 4), [])


def _window_table(
    results: pd.DataFrame, layer: str | None, k: int, score: str, width: int | None, training: str | None, radius: float | None
) -> pd.DataFrame:
    table = select_windows(select(last_step(study_means(results)), k=k, score=score))
    table = table[table["ratio"].notna()]
    if table.empty:
        raise NothingToPlot(f"no ratio of {score} with k = {k} for window(…) selections")
    layer = layer if layer is not None else layers_of(table)[0]
    width = width if width is not None else widths_of(table)[-1]
    training = training if training is not None else trainings_of(table)[0]
    table = select(table, layer=layer, width=width, training=training)
    if table.empty:
        raise NothingToPlot(f"no windows of layer {layer} at width {width} with {training} training")
    radius = radius if radius is not None else float(table["radius"].value_counts().index[0])
    return select(table, radius=radius)


def _spacing(places: np.ndarray) -> float:
    return float(np.diff(places).min()) if len(places) > 1 else 1.0
