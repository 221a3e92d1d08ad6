"""Figures of a study along its axes, in addition to the standard ones."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import pandas as pd

from kagscope.data.functions import accuracy_name
from kagscope.studies.phase_diagram import two_axes

if TYPE_CHECKING:
    from kagscope.figures.write import Drawing

FEW_LINES = 6  # maximum in a figure over one axis
MANY_LINES = 12  # maximum in a figure with room for the legend


def study_drawings(
    nets: pd.DataFrame,
    runs: pd.DataFrame,
    *,
    summary: pd.DataFrame,
    related: pd.DataFrame,
    occurs: pd.DataFrame,
    axes: Sequence[str],
) -> dict[str, Drawing]:
    """Functions that draw ``map_<layer>`` over the two axes with most values, ``by_<axis>_<layer>``, ``training_<layer>``,
    ``relations``, ``robustness``.

    Figures that the study does not allow are left out: a map needs two axes, the others a numeric one, steps in between, eight
    runs, and attacks, respectively.

    Args:
        nets: :func:`~kagscope.figures.study.net_means` of the ``results`` table.
        runs: the runs table.
        summary: result of :func:`~kagscope.studies.setting_tables.settings_summary`.
        related: result of :func:`~kagscope.studies.relations.relations`.
        occurs: result of :func:`~kagscope.studies.phase_diagram.phase_diagram`.
        axes: axes that vary, other than the seed.
    """
    from kagscope.figures import figure_by_axis, figure_dynamics, figure_phase, figure_relations, figure_robustness
    from kagscope.tables.means import layers_of

    means = nets[nets["selection"] == "all"]
    wide = sorted(axes, key=lambda name: -summary[name].nunique())
    coloured = "width" if "width" in axes or not wide else wide[0]
    drawn: dict[str, Drawing] = {
        "relations": partial(figure_relations, means, runs, related, coloured),
        "robustness": partial(figure_robustness, runs, _distinguishing_axes(runs, axes)),
    }
    accuracy = accuracy_name(runs["data"])
    numeric = [name for name in wide if pd.api.types.is_numeric_dtype(summary[name])]
    mapped = _drop_shuffled(summary, wide[:2])
    for layer in [name for name in layers_of(summary) if name]:
        if len(wide) > 1:
            drawn[f"map_{safe_name(layer)}"] = partial(figure_phase, mapped, wide[0], wide[1], layer, accuracy)
        for name in numeric:
            others = [other for other in axes if other != name]
            if not others or len(summary[others].drop_duplicates()) <= FEW_LINES:
                drawn[f"by_{name}_{safe_name(layer)}"] = partial(figure_by_axis, summary, name, layer, accuracy)
    if axes and len(occurs):
        by, along = two_axes(occurs, axes)
        assert by is not None
        followed = _drop_shuffled(runs, (by, along))
        for layer in occurs["layer"].unique():
            drawn[f"training_{safe_name(layer)}"] = partial(
                figure_dynamics,
                means[means["run"].isin(followed["run"])],
                followed,
                by,
                along,
                layer,
                accuracy,
            )
    return drawn


def _distinguishing_axes(runs: pd.DataFrame, axes: Sequence[str]) -> Sequence[str]:
    """Axes that distinguish the lines of a figure: all axes if these give few lines, else width and training."""
    return axes if axes and len(runs[[*axes]].drop_duplicates()) <= MANY_LINES else ("width", "training")


def _drop_shuffled(table: pd.DataFrame, shown: Sequence[str | None]) -> pd.DataFrame:
    """Drop nets on shuffled labels, which should not enter means, unless labels are an axis shown or all are shuffled."""
    true = table[table["labels"] == "true"] if "labels" in table and "labels" not in shown else table
    return true if len(true) else table


def safe_name(layer: str) -> str:
    """A layer's name as part of a file name."""
    return re.sub(r"[^A-Za-z0-9_.-]", "_", layer) or "net"
