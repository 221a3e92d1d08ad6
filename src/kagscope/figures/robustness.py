"""Accuracy under attack against the radius of the attack."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from kagscope.base.errors import NothingToPlot
from kagscope.figures.axes import group_name
from kagscope.figures.core import draw_means, tidy
from kagscope.figures.labels import NORM_LABELS
from kagscope.figures.line_styles import Settings, legend_line, line_looks
from kagscope.figures.panels import Panel, draw_grid
from kagscope.figures.study import SETTING
from kagscope.figures.style import DOUBLE_COLUMN, SINGLE_COLUMN, legend_above, legend_columns, new_axes, style
from kagscope.tables.means import average, require_columns


def plot_robustness(
    runs: pd.DataFrame,
    *,
    norm: str = "linf",
    method: str = "pgd",
    by: Sequence[str] = SETTING,
    ax: Axes | None = None,
    legend: bool = True,
) -> Axes:
    """Plot accuracy against the radius ε of an attack, a line for each setting; bars are 95% intervals over its networks.

    A line averages all networks that share ``by``, over seeds and other axes. ε = 0 is the test accuracy.

    Args:
        runs: ``runs.parquet`` of a study with robustness: ``width``, ``training``, ``accuracy``, and a column
            ``<method>_<norm>_<ε>`` for each attack; ε in units of the input.
        norm: "linf" or "l2".
        method: "pgd" or "fgsm".
        by: columns that distinguish the lines.
        ax: where to draw; a new figure by default.
        legend: whether to draw one.

    Raises:
        NothingToPlot: there are no such attacks.
        InputError: the table lacks columns.
    """
    require_columns(runs, (*by, "accuracy"), "runs")
    attacks = attacks_of(runs, method, norm)
    if not attacks:
        raise NothingToPlot(f"no {method} attacks in the norm {norm} in the runs table")
    radii = [0.0, *attacks]
    columns = dict(zip(["accuracy", *attacks.values()], radii, strict=True))
    names, looks, handles = _lines(runs, by)
    nets = runs.astype(dict.fromkeys(columns, float)).assign(line=names)
    nets = nets.melt("line", list(columns), "attack", "accuracy_left")
    nets["radius"] = nets["attack"].map(columns)
    means = tidy(average(nets, ["line", "radius"], "accuracy_left"), "radius", "accuracy_left", "line")
    with style():
        ax = new_axes(ax)
        draw_means(ax, means, looks)
        ax.set_xticks(radii, [f"{radius:g}" for radius in radii])
        ax.set_ylim(-0.02, 1.02)
        ax.set_xlabel(f"attack radius ε ({NORM_LABELS.get(norm, norm)} norm, input units)")
        ax.set_ylabel(f"accuracy under {method.upper()}")
        if legend:
            legend_above(ax, len(handles), handles)
    return ax


def _lines(runs: pd.DataFrame, by: Sequence[str]) -> tuple[list[str], dict[str, dict[str, Any]], list[Line2D]]:
    """Line of each run, looks of the lines, and legend entries: by width and training if ``by`` is these, else by setting."""
    names = [group_name(row) for row in runs[[*by]].to_dict("records")]
    if set(by) <= set(SETTING):
        settings = Settings.of(runs)
        setting_looks = settings.looks()
        pairs = zip(runs["width"], runs["training"].astype(str), strict=True)
        return names, {name: setting_looks[pair] for name, pair in zip(names, pairs, strict=True)}, settings.handles()
    looks = {name: look | {"label": name} for name, look in line_looks(list(dict.fromkeys(names))).items()}
    return names, looks, [legend_line(**look) for look in looks.values()]


def figure_robustness(runs: pd.DataFrame, by: Sequence[str] = SETTING) -> Figure:
    """:func:`plot_robustness` under PGD, else FGSM, for each measured norm.

    Raises:
        NothingToPlot: no attacks were measured.
    """
    method = next((name for name in ("pgd", "fgsm") if any(attacks_of(runs, name, norm) for norm in NORM_LABELS)), None)
    if method is None:
        raise NothingToPlot("no attacks were tried: the study has no robustness")
    draw = partial(plot_robustness, runs, method=method, by=by, legend=False)
    panels = [Panel(partial(draw, norm=norm)) for norm in NORM_LABELS if attacks_of(runs, method, norm)]
    width = SINGLE_COLUMN if len(panels) == 1 else DOUBLE_COLUMN
    handles = _lines(runs, by)[2]
    rows = -(-len(handles) // legend_columns(handles, width))
    return draw_grid([panels], width, 2.54 + 0.16 * rows, sharey=True, handles=handles)


def attacks_of(runs: pd.DataFrame, method: str, norm: str) -> dict[float, str]:
    """Columns of the attacks in a runs table by radius, in increasing order."""
    start = f"{method}_{norm}_"
    columns = {float(name[len(start) :]): str(name) for name in runs.columns if str(name).startswith(start)}
    return {radius: columns[radius] for radius in np.sort(list(columns)).tolist()}
