"""Geometry against performance: a point for each network, and correlations."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from kagscope.base.errors import NothingToPlot
from kagscope.figures.forest import PITCH, plot_correlations
from kagscope.figures.labels import axis_label, outcome_label, short_label
from kagscope.figures.line_styles import line_looks, value_label
from kagscope.figures.study import net_means
from kagscope.figures.style import DOUBLE_COLUMN, draw_each, figure_legend, legend_columns, new_axes, new_figure, style, width_of
from kagscope.tables.means import last_step, layers_of, require_columns, select

OUTCOMES = ("accuracy", "generalization_gap", "calibration_error")
PANELS = 3


def plot_relation(
    results: pd.DataFrame,
    runs: pd.DataFrame,
    *,
    score: str = "pr",
    k: int = 2,
    layer: str | None = None,
    outcome: str = "accuracy",
    measure: str | None = None,
    relations: pd.DataFrame | None = None,
    by: str = "width",
    ax: Axes | None = None,
    legend: bool = True,
) -> Axes:
    """Plot an outcome against a score of the trained network over all columns: a point per network, colour and marker by width.

    The title gives the correlation over seeds within settings, from ``relations``, with its 95% interval; without that table,
    Spearman's rank correlation over networks, which may be driven by the axes of the study.

    Args:
        results: the ``results`` table, or :func:`~kagscope.figures.study.net_means` of it.
        runs: ``runs.parquet`` of the study: ``run``, the outcome, the column ``by``.
        score, k, layer: which score; the first layer by default.
        outcome: a numeric column of ``runs``.
        measure: "ratio" to initialisation or "value"; by default the ratio if every network has one.
        relations: ``relations.csv`` of the study, for correlations with intervals.
        by: column of ``runs`` for colours and markers.
        ax: where to draw; a new figure by default.
        legend: whether to draw one.

    Raises:
        NothingToPlot: the score was not measured.
        InputError: a table lacks columns.
    """
    require_columns(runs, ("run", outcome, by), "runs")
    chosen = select(last_step(net_means(results)), score=score, k=k, selection="all")
    layers = [name for name in layers_of(chosen) if name] or layers_of(chosen)
    layer = layer if layer is not None else (layers or [""])[0]
    chosen = select(chosen, layer=layer).astype({"run": str})
    if chosen.empty:
        raise NothingToPlot(f"no {score} with k = {k} of layer {layer}")
    measure = measure or ("ratio" if chosen["ratio"].notna().all() and (chosen["ratio"] != 1).any() else "value")
    geometry = chosen.set_index("run")[measure].rename("geometry")
    points = runs.astype({"run": str})[["run", outcome, by]].join(geometry, on="run").dropna()
    if points.empty:
        raise NothingToPlot(f"no net has both {score} and {outcome}")
    groups = list(pd.unique(points[by].sort_values()))
    with style():
        ax = new_axes(ax)
        for group, look in line_looks(groups).items():
            mine = points[points[by] == group]
            ax.plot(
                mine["geometry"],
                mine[outcome],
                **look,
                linestyle="",
                markersize=3.5,
                alpha=0.8,
                label=f"{axis_label(by)} {value_label(group)}",
            )
        label = f"{short_label(score)}{f', k = {k}' if k else ''},\n{layer or 'whole net'}"
        ax.set_xlabel(label + (", trained / initial" if measure == "ratio" else ""))
        ax.set_ylabel(outcome_label(outcome).replace(" (", "\n("))
        ax.set_title(_describe(points, relations, layer, k, score, outcome), fontsize=6.5, fontweight="normal", loc="left")
        if legend:  # above the title
            columns = min(len(groups), 3, legend_columns(ax.get_legend_handles_labels()[0], width_of(ax) - 0.3))
            ax.legend(loc="lower left", bbox_to_anchor=(0.0, 1.0), borderaxespad=3.2, ncols=columns, handletextpad=0.2)
    return ax


def figure_relations(results: pd.DataFrame, runs: pd.DataFrame, relations: pd.DataFrame, by: str = "width") -> Figure:
    """:func:`plot_correlations` for up to three outcomes, and below each :func:`plot_relation` of its strongest correlation.

    Outcomes are test accuracy, the generalisation gap and the attack with the widest spread of accuracies, if available;
    ``by`` is the column of ``runs`` for colours and markers.

    Raises:
        NothingToPlot: the table of relations is empty.
    """
    relations = relations[relations["rho"].notna()] if len(relations) else relations
    outcomes = _outcomes(runs, relations)
    if not outcomes:
        raise NothingToPlot("no correlations: fewer than five seeds in a setting, or no outcome that differs")
    nets = net_means(results)
    rows = max(len(select(relations, outcome=outcome)) for outcome in outcomes)
    with style():
        heights = PITCH * rows + 0.9, 2.4
        figure = new_figure(DOUBLE_COLUMN, sum(heights))
        upper, lower = figure.subfigures(2, 1, squeeze=False, height_ratios=heights).ravel()
        forests = upper.subplots(1, len(outcomes), squeeze=False, sharey=True)[0]
        scatters = lower.subplots(1, len(outcomes), squeeze=False)[0]
        for outcome, ax in zip(outcomes, forests, strict=True):
            plot_correlations(relations, outcome=outcome, ax=ax, legend=False)
        draw = partial(plot_relation, nets, runs, relations=relations, by=by, legend=False)
        best = [_strongest(select(relations, outcome=outcome)) for outcome in outcomes]
        draw_each([(ax, partial(draw, **relation), "not measured") for ax, relation in zip(scatters, best, strict=True)])
        figure_legend(lower, scatters[0].get_legend_handles_labels()[0])
    return figure


def _outcomes(runs: pd.DataFrame, relations: pd.DataFrame) -> list[str]:
    available = [str(name) for name in pd.unique(relations["outcome"])] if len(relations) else []
    attacks = [name for name in available if name.startswith(("pgd_", "fgsm_"))]
    widest = sorted(attacks, key=lambda name: -float(runs[name].to_numpy(dtype=float).std()))[:1]
    return [name for name in (*OUTCOMES[:2], *widest, *OUTCOMES[2:]) if name in available][:PANELS]


def _strongest(table: pd.DataFrame) -> dict[str, Any]:
    """Which relation has the largest correlation, as keywords of :func:`plot_relation`."""
    row = table.iloc[int(table["rho"].abs().to_numpy(dtype=float, na_value=0.0).argmax())]
    return {name: str(row[name]) for name in ("score", "layer", "measure", "outcome")} | {"k": int(row["k"])}


def _describe(points: pd.DataFrame, relations: pd.DataFrame | None, layer: str, k: int, score: str, outcome: str) -> str:
    n = len(points)
    if relations is not None:
        rows = select(relations.astype({"layer": str}), layer=layer, k=k, score=score, outcome=outcome)
        if len(rows):
            row = rows.iloc[0]
            if row["rho"] != row["rho"]:
                return "too few seeds for a correlation\nwithin settings"
            text = f"within settings r = {row['rho']:z.2f}, {row['n']} seeds\n({row['rho_low']:z.2f}, {row['rho_high']:z.2f})"
            chance = f", corrected p = {row['p_joint']:.2g}" if "p_joint" in rows else ""  # for all pairs asked for
            return text.replace("-", "−") + chance
    if n < 3 or points["geometry"].nunique() < 2 or points[outcome].nunique() < 2:
        return f"n = {n}"
    rho = np.corrcoef(points[["geometry", outcome]].rank().T)[0, 1]  # Spearman's
    return f"ρ = {rho:z.2f}, n = {n}".replace("-", "−")
