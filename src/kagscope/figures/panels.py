"""Grids of panels with titles, outer labels, and one legend above all."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from textwrap import fill
from typing import Any, Literal, NamedTuple

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from kagscope.figures.labels import layer_label
from kagscope.figures.line_styles import Settings
from kagscope.figures.style import DOUBLE_COLUMN, SINGLE_COLUMN, draw_each, figure_legend, new_figure, style
from kagscope.tables.means import layers_with


class Panel(NamedTuple):
    """One panel.

    Attributes:
        draw: draws the panel, given as ``ax``, without legend, or raises ``NothingToPlot``.
        title: title above the panel.
        label: label of the vertical axis, in place of the one that ``draw`` sets.
        absent: text if there is nothing to draw.
    """

    draw: Callable[..., object]
    title: str = ""
    label: str | None = None
    absent: str = "not measured"


Row = Sequence[Panel]
Shared = bool | Literal["row", "col"]
LETTERS = 13  # letters of an axis label per inch of a panel
SMALL: dict[str, Any] = {"fontsize": 7, "fontweight": "normal"}


def draw_grid(
    rows: Sequence[Row],
    width: float,
    height: float,
    *,
    sharex: Shared = False,
    sharey: Shared = False,
    outer: bool | None = None,
    heights: Sequence[float] | None = None,
    handles: Sequence[Line2D] = (),
    legend: str = "",
    title_look: dict[str, Any] | None = None,
) -> Figure:
    """Draw panels in rows; shared axes are labelled at the outer side only. Short rows leave their last cells empty.

    Args:
        rows: the panels.
        width, height: size of the figure in inches.
        sharex, sharey: as :meth:`matplotlib.figure.Figure.subplots` takes them.
        outer: label horizontal axes at the lowest panels only; by default if they are shared.
        heights: relative heights of the rows.
        handles: legend entries.
        legend: title of the legend.
        title_look: Matplotlib keywords of the panels' titles.

    Raises:
        NothingToPlot: no panel could be drawn.
    """
    columns = max(map(len, rows))
    with style():
        figure = new_figure(width, height)
        axes = figure.subplots(len(rows), columns, squeeze=False, sharex=sharex, sharey=sharey, height_ratios=heights)
        panels_by_axes = [(axes[down][column], panel) for down, row in enumerate(rows) for column, panel in enumerate(row)]
        draw_each([(ax, panel.draw, panel.absent) for ax, panel in panels_by_axes])
        for down, row in enumerate(rows):
            for column, panel in enumerate(row):
                ax = axes[down][column]
                if panel.title:
                    ax.set_title(panel.title, **(title_look or {}))
                ax.set_ylabel("" if sharey and column else ax.get_ylabel() if panel.label is None else panel.label)
                if (name := ax.get_xlabel()) and "\n" not in name:
                    ax.set_xlabel(fill(name, int(LETTERS * width / columns)))
                below = down + 1 < len(rows) and column < len(rows[down + 1])
                if not below:  # also above an empty cell, where a shared axis would hide them
                    ax.tick_params(labelbottom=True)
                if below and (bool(sharex) if outer is None else outer):
                    ax.set_xlabel("")
            for ax in axes[down][len(row) :]:
                ax.remove()
        figure_legend(figure, handles, title=legend)
        figure.align_ylabels(axes[:, 0])
    return figure


def wrap(panels: Row, columns: int) -> list[Row]:
    """Arrange panels in rows of ``columns``."""
    return [panels[start : start + columns] for start in range(0, len(panels), columns)]


def study_panels(
    means: pd.DataFrame, draw: Callable[..., object], *, score: str = "pr", handles: Sequence[Line2D] | None = None
) -> Figure:
    """A figure of ``draw(layer=…, training=…, ax=…)``: a panel per layer or, if that gets too crowded, per layer and training.

    Args:
        means: table with ``layer``, ``score``, ``width`` and ``training``.
        draw: draws one panel without legend, or raises ``NothingToPlot``; ``training`` is None if one panel holds all.
        score: layers without this score have no panel.
        handles: legend entries; by default one for each width and training.

    Raises:
        NothingToPlot: no panel could be drawn.
    """
    layers, settings = layers_with(means, [score]), Settings.of(means)
    if not settings.is_crowded:
        rows = wrap([Panel(partial(draw, layer=layer, training=None), layer_label(layer)) for layer in layers], 3)
        width = SINGLE_COLUMN if len(layers) == 1 else DOUBLE_COLUMN
        legend = settings.handles() if handles is None else handles
        return draw_grid(rows, width, 2.4 * len(rows) + 0.3, sharey=True, handles=legend)
    columns = columns_for(len(settings.trainings))
    names = [wrap_name(training, 84 // columns) for training in settings.trainings]
    rows = []
    for layer in layers:
        above = f"{layer_label(layer)}\n" if len(layers) > 1 else ""
        titled = zip(settings.trainings, names, strict=True)
        rows += wrap([Panel(partial(draw, layer=layer, training=training), above + name) for training, name in titled], columns)
    lines = 1 + max(name.count("\n") for name in names) + (len(layers) > 1)
    legend = settings.handles(settings.trainings[0]) if handles is None else handles
    tall = (1.35 + 0.13 * lines) * len(rows) + 0.5
    return draw_grid(rows, DOUBLE_COLUMN, tall, sharey=True, outer=True, handles=legend, title_look=SMALL)


def columns_for(count: int) -> int:
    """Number of panels per row: at most four, with rows as full as possible."""
    return count if count <= 4 else 3 if count in (5, 6, 9) else 4


def wrap_name(training: str, width: int = 26) -> str:
    """Wrap the name of a setting into lines of about ``width`` letters, broken after commas."""
    lines = [""]
    for word in training.split(", "):
        if lines[-1] and len(lines[-1]) + len(word) + 2 > width:
            lines.append(word)
        else:
            lines[-1] = f"{lines[-1]}, {word}" if lines[-1] else word
    return ",\n".join(lines)
