"""Units of a layer: incoming weights as images, and row norms."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import CenteredNorm
from matplotlib.patches import Rectangle
from numpy.typing import ArrayLike

from kagscope.base.errors import InputError, NothingToPlot
from kagscope.columns.layout import join_channels
from kagscope.figures.colours import diverging
from kagscope.figures.style import BLUE, GREY, SINGLE_COLUMN, VERMILLION, legend_above, log_ticks, new_axes, reference_line, style

MOST = 256  # images in one grid


def plot_unit_weights(
    weights: pd.DataFrame | ArrayLike,
    *,
    image_shape: tuple[int, ...],
    units: list[int] | None = None,
    columns: int | None = None,
    threshold: float | None = None,
    ax: Axes | None = None,
    colorbar: bool = True,
) -> Axes:
    """Plot each unit's incoming weights as a numbered image, by decreasing row norm; all on one scale, white is 0.

    Args:
        weights: (m, inputs), a row for each unit; the index of a table gives the units' names.
        image_shape: (height, width), or (channels, height, width) with channels drawn side by side.
        units: indices of the rows to show, in this order; by default all by decreasing norm, at most 256.
        columns: images per row; by default about twice the number of rows.
        threshold: norm at or below which a unit's row counts as zero and gets a frame.
        ax: where to draw; a new figure by default.
        colorbar: whether to draw one.

    Raises:
        NothingToPlot: there are no units.
        InputError: the weights are not a matrix of finite numbers, or do not fit the image.
    """
    matrix, names = _matrix(weights)
    if matrix.shape[1] != math.prod(image_shape):
        raise InputError(f"{matrix.shape[1]} weights for each unit, but images of {' x '.join(map(str, image_shape))} pixels")
    pictures = join_channels(matrix, image_shape)
    high, across = pictures.shape[1:]
    norms = np.linalg.norm(matrix, axis=1)
    order = list(np.argsort(-norms, kind="stable")[:MOST]) if units is None else list(units)
    columns = columns or max(1, min(len(order), round(np.sqrt(2 * len(order)))))
    rows = -(-len(order) // columns)
    tall, wide = high + 1, across + 1
    mosaic = np.full((rows * tall - 1, columns * wide - 1), np.nan)
    for i, unit in enumerate(order):
        top, column = i // columns * tall, i % columns * wide
        mosaic[top : top + high, column : column + across] = pictures[unit]
    with style():
        ax = new_axes(ax, SINGLE_COLUMN, min(8.0, 0.78 * SINGLE_COLUMN * mosaic.shape[0] / mosaic.shape[1] + 0.25))
        ax.grid(False)
        norm = CenteredNorm(0.0, float(np.nanmax(np.abs(mosaic))) or 1.0)
        image = ax.imshow(mosaic, cmap=diverging(), norm=norm, interpolation="nearest")
        ax.axis("off")
        for i, unit in enumerate(order):
            above, before = i // columns * tall - 0.5, i % columns * wide - 0.5
            zero = threshold is not None and norms[unit] <= threshold
            look: dict[str, Any] = (
                {"edgecolor": VERMILLION, "linewidth": 1.2} if zero else {"edgecolor": "#cfcfcf", "linewidth": 0.4}
            )
            ax.add_patch(Rectangle((before, above), across, high, fill=False, **look))
            if columns <= 16:
                ax.text(before + 0.3, above + 0.3, names[unit], fontsize=4.5, va="top", color="#333333")
        if colorbar:
            bar = ax.figure.colorbar(image, ax=ax, label="weight", shrink=0.8, aspect=20, pad=0.02)
            bar.outline.set_linewidth(0.5)
    return ax


def plot_row_norms(
    weights: pd.DataFrame | ArrayLike,
    *,
    initial: pd.DataFrame | ArrayLike | None = None,
    threshold: float | None = None,
    ax: Axes | None = None,
    legend: bool = True,
) -> Axes:
    """Plot row norms of a matrix (weights or a Jacobian) in decreasing order, relative to its largest; log scale.

    Args:
        weights: (m, n), a row for each unit.
        initial: the same for the untrained network, dashed.
        threshold: norm at or below which a row counts as zero, drawn as a dotted line.
        ax: where to draw; a new figure by default.
        legend: whether to draw one.

    Raises:
        NothingToPlot: every row is zero.
        InputError: the weights are not a matrix of finite numbers.
    """
    norms = np.sort(np.linalg.norm(_matrix(weights)[0], axis=1))[::-1]
    lines: list[tuple[str, np.ndarray, dict[str, Any]]] = [("trained" if initial is not None else "rows", norms, {"color": BLUE})]
    if initial is not None:
        untrained = np.sort(np.linalg.norm(_matrix(initial)[0], axis=1))[::-1]
        lines.insert(0, ("initial", untrained, {"color": GREY, "linestyle": (0, (4, 1.6))}))
    positive = np.concatenate([line[line > 0] for _, line, _ in lines])
    if not len(positive):
        raise NothingToPlot("every row is zero")
    floor = max(float(positive.min()), 1e-12 * float(positive.max())) / 3
    with style():
        ax = new_axes(ax)
        for name, line, look in lines:
            zeros = int((line == 0).sum())
            label = name + (f" ({zeros} exactly zero)" if zeros else "")
            rank = np.arange(1, len(line) + 1) / len(line)
            ax.plot(rank, line.clip(min=floor), label=label, drawstyle="steps-mid" if len(line) < 40 else "default", **look)
        if threshold is not None and threshold > 0:
            reference_line(ax, threshold)
        ax.set_yscale("log")
        log_ticks(ax)
        ax.set_xlim(0, 1.02)
        ax.set_xlabel("rank / number of rows")
        ax.set_ylabel("norm of the row")
        if legend:
            legend_above(ax, len(lines))
    return ax


def _matrix(weights: pd.DataFrame | ArrayLike) -> tuple[np.ndarray, list[str]]:
    matrix = np.asarray(weights, dtype=float)
    if matrix.ndim != 2 or not np.isfinite(matrix).all():
        raise InputError(f"weights of shape {matrix.shape}; expected (units, inputs), all finite")
    if not matrix.size:
        raise NothingToPlot("there are no units")
    names = weights.index.tolist() if isinstance(weights, pd.DataFrame) else range(len(matrix))
    return matrix, [str(name) for name in names]
