"""Accuracy under attack against the attack's size."""

from __future__ import annotations

from functools import partial

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from kagscope.base.errors import NothingToPlot
from kagscope.figures.core import average, draw_means, tidy
from kagscope.figures.labels import NORM_LABELS
from kagscope.figures.looks import Settings
from kagscope.figures.panels import Panel, draw_grid
from kagscope.figures.study import SETTING
from kagscope.figures.style import DOUBLE_COLUMN, SINGLE_COLUMN, legend_above, new_axes, style
from kagscope.tables.means import require


def plot_robustness(
    runs: pd.DataFrame, *, norm: str = "linf", method: str = "pgd", ax: Axes | None = None, legend: bool = True
) -> Axes:
    """Accuracy against the radius ε of an attack, a line for each width and training; bars are 95% intervals over its nets.

    The nets of a line are all that share width and training: seeds, and whatever else the study varied. ε = 0 is the test
    accuracy.

    Args:
        runs: ``runs.parquet`` of a study with robustness: ``width``, ``training``, ``accuracy``, and a column
            ``<method>_<norm>_<ε>`` for each attack; ε in units of the input.
        norm: "linf" or "l2".
        method: "pgd" or "fgsm".
        ax: where to draw; a new figure by default.
        legend: whether to draw one.

    Raises:
        NothingToPlot: there are no such attacks.
        InputError: the table lacks columns.
    """
    require(runs, ("width", "training", "accuracy"), "runs")
    attacks = attacks_of(runs, method, norm)
    if not attacks:
        raise NothingToPlot(f"no {method} attacks in the norm {norm} in the runs table")
    radii = [0.0, *attacks]
    columns = dict(zip(["accuracy", *attacks.values()], radii, strict=True))
    nets = runs.astype({"training": str} | dict.fromkeys(columns, float)).melt(SETTING, list(columns), "attack", "accuracy_left")
    nets["radius"] = nets["attack"].map(columns)
    means = tidy(average(nets, [*SETTING, "radius"], "accuracy_left"), "radius", "accuracy_left", SETTING)
    settings = Settings.of(runs)
    with style():
        ax = new_axes(ax)
        draw_means(ax, means, settings.looks())
        ax.set_xticks(radii, [f"{radius:g}" for radius in radii])
        ax.set_ylim(-0.02, 1.02)
        ax.set_xlabel(f"attack radius ε ({NORM_LABELS.get(norm, norm)} norm, input units)")
        ax.set_ylabel(f"accuracy under {method.upper()}")
        if legend:
            handles = settings.handles()
            legend_above(ax, len(handles), handles)
    return ax


def figure_robustness(runs: pd.DataFrame) -> Figure:
    """:func:`plot_robustness` under PGD, else FGSM, in each norm that was tried.

    Raises:
        NothingToPlot: no attacks were tried.
    """
    method = next((name for name in ("pgd", "fgsm") if any(attacks_of(runs, name, norm) for norm in NORM_LABELS)), None)
    if method is None:
        raise NothingToPlot("no attacks were tried: the study has no robustness")

    def draw(norm: str, ax: Axes) -> None:
        plot_robustness(runs, norm=norm, method=method, ax=ax, legend=False)

    panels = [Panel(partial(draw, norm)) for norm in NORM_LABELS if attacks_of(runs, method, norm)]
    width = SINGLE_COLUMN if len(panels) == 1 else DOUBLE_COLUMN
    return draw_grid([panels], width, 2.7, sharey=True, handles=Settings.of(runs).handles())


def attacks_of(runs: pd.DataFrame, method: str, norm: str) -> dict[float, str]:
    """Radius to column of the attacks of a runs table, by radius."""
    start = f"{method}_{norm}_"
    found = {float(name[len(start) :]): str(name) for name in runs.columns if str(name).startswith(start)}
    return {radius: found[radius] for radius in np.sort(list(found)).tolist()}
