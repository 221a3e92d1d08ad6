"""Accuracy under attack against the attack's size."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from kagscope.base.errors import NothingToPlot
from kagscope.figures.forest import NORM_LABELS
from kagscope.figures.looks import Settings
from kagscope.figures.style import DOUBLE_COLUMN, SINGLE_COLUMN, errors, figure_legend, legend_above, new_axes, new_figure, style
from kagscope.tables.intervals import half_width
from kagscope.tables.means import require, select


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
    settings = Settings.of(runs)
    with style():
        ax = new_axes(ax)
        for width, training in settings.pairs():
            nets = select(runs, width=width, training=training)
            if nets.empty:
                continue
            values = nets[["accuracy", *attacks.values()]].astype(float)
            mean, half = values.mean(), half_width(values.std().to_numpy(), values.count().to_numpy())
            line = pd.DataFrame({"y": mean, "y_low": mean - half, "y_high": mean + half})
            ax.errorbar([0.0, *attacks], line["y"], errors(line, "y"), elinewidth=0.9, **settings.look(width, training))
        ax.set_xticks([0.0, *attacks], [f"{radius:g}" for radius in (0.0, *attacks)])
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
    norms = [norm for norm in NORM_LABELS if attacks_of(runs, method, norm)]
    with style():
        figure = new_figure(SINGLE_COLUMN if len(norms) == 1 else DOUBLE_COLUMN, 2.7)
        axes = figure.subplots(1, len(norms), squeeze=False, sharey=True)[0]
        for norm, ax in zip(norms, axes, strict=True):
            plot_robustness(runs, norm=norm, method=method, ax=ax, legend=False)
            ax.label_outer()
        figure_legend(figure, Settings.of(runs).handles())
    return figure


def attacks_of(runs: pd.DataFrame, method: str, norm: str) -> dict[float, str]:
    """Radius to column of the attacks of a runs table, by radius."""
    start = f"{method}_{norm}_"
    found = {float(name[len(start) :]): str(name) for name in runs.columns if str(name).startswith(start)}
    return {radius: found[radius] for radius in np.sort(list(found)).tolist()}
