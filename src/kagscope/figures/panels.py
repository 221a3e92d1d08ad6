"""Panels of a study: one for each layer, and where one cannot hold all settings, one for each training of each layer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from kagscope.figures.looks import Settings
from kagscope.figures.style import DOUBLE_COLUMN, SINGLE_COLUMN, draw_each, figure_legend, new_figure, style
from kagscope.labels import layer_label
from kagscope.tables.means import layers_with

Draw = Callable[[str, str | None, Axes], object]


def study_panels(
    reduced: pd.DataFrame, draw: Draw, *, height: float = 2.4, score: str = "pr", handles: Sequence[Line2D] | None = None
) -> Figure:
    """A figure of ``draw(layer, training, ax)``, ``training`` None where one panel holds all, with one legend.

    Args:
        reduced: of :func:`~kagscope.tables.means.per_run`.
        draw: draws one panel without legend, or raises ``NothingToPlot``.
        height: of a row of panels, in inches.
        score: layers without it have no panel.
        handles: of the legend; by default one for each width and training.

    Raises:
        NothingToPlot: no panel could be drawn.
    """
    layers, settings = layers_with(reduced, [score]), Settings.of(reduced)
    if settings.crowded:
        return _by_training(layers, settings, draw, handles)
    columns = min(len(layers), 3)
    rows = -(-len(layers) // columns)
    with style():
        figure = new_figure(SINGLE_COLUMN if columns == 1 else DOUBLE_COLUMN, height * rows + 0.3)
        axes = list(figure.subplots(rows, columns, squeeze=False, sharey=True).ravel())
        _fill(axes, columns, [(layer, None, layer_label(layer, layers)) for layer in layers], draw)
        figure_legend(figure, settings.handles() if handles is None else handles)
    return figure


def columns_for(count: int) -> int:
    """Panels in a row: at most four, rows as full as they can be."""
    return count if count <= 4 else 3 if count in (5, 6, 9) else 4


def wrapped(training: str, width: int = 26) -> str:
    """The name of a setting in lines of about ``width`` letters, broken after commas."""
    lines = [""]
    for part in training.split(", "):
        if lines[-1] and len(lines[-1]) + len(part) + 2 > width:
            lines.append(part)
        else:
            lines[-1] = f"{lines[-1]}, {part}" if lines[-1] else part
    return ",\n".join(lines)


def _by_training(layers: Sequence[str], settings: Settings, draw: Draw, handles: Sequence[Line2D] | None) -> Figure:
    columns = columns_for(len(settings.trainings))
    rows = -(-len(settings.trainings) // columns)
    names = [wrapped(training, 84 // columns) for training in settings.trainings]
    lines = 1 + max(name.count("\n") for name in names) + (len(layers) > 1)
    with style():
        figure = new_figure(DOUBLE_COLUMN, (1.35 + 0.13 * lines) * rows * len(layers) + 0.5)
        axes = figure.subplots(rows * len(layers), columns, squeeze=False, sharey=True)
        for place, layer in enumerate(layers):
            above = f"{layer_label(layer, layers)}\n" if len(layers) > 1 else ""
            panels = [(layer, training, above + name) for training, name in zip(settings.trainings, names, strict=True)]
            _fill(list(axes[place * rows : (place + 1) * rows].ravel()), columns, panels, draw, small=True)
        figure_legend(figure, settings.handles(settings.trainings[0]) if handles is None else handles)
    return figure


def _fill(axes: list[Axes], columns: int, panels: Sequence[tuple[str, str | None, str]], draw: Draw, small: bool = False) -> None:
    draw_each([(ax, partial(draw, layer, training)) for ax, (layer, training, _) in zip(axes, panels, strict=False)])
    for place, (ax, (_, _, title)) in enumerate(zip(axes, panels, strict=False)):
        look: dict[str, Any] = {"fontsize": 7, "fontweight": "normal"} if small else {}
        ax.set_title(title, **look)
        if place % columns:
            ax.set_ylabel("")
        if small and place + columns < len(panels):
            ax.set_xlabel("")
    for ax in axes[len(panels) :]:
        ax.remove()
