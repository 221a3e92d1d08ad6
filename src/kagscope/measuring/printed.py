"""Printed figures of the page of one model: what its charts show, for paper and for readers without scripts."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING

import pandas as pd
from matplotlib.figure import Figure

from kagscope.base.errors import NothingToPlot
from kagscope.figures.distributions import plot_minor_histogram, plot_zipf
from kagscope.figures.layers import plot_layers
from kagscope.figures.panels import Panel, draw_grid, wrap
from kagscope.figures.scales import plot_scales
from kagscope.figures.steps import figure_by_step
from kagscope.figures.style import DOUBLE_COLUMN, SINGLE_COLUMN
from kagscope.figures.windows import figure_window_map
from kagscope.tables.means import layers_of

if TYPE_CHECKING:
    from kagscope.measuring.report import Report

SCORES = (("pr", 2), ("kl_uniform", 2), ("rr_pr", 2), ("zero_rows", 1))
MOST = 4  # layers whose minors are drawn

Printed = tuple[str, str, Figure]
"""Section of the page, caption, figure."""


def network_names(report: Report) -> tuple[str, str]:
    """Names for what is measured and for what it is compared with."""
    return ("matrix", "rotated") if report.provenance.get("matrices") else ("model", "baseline")


def report_figures(report: Report, results: pd.DataFrame) -> list[Printed]:
    """Figures of a report; ``results`` is its table in the form of studies, for the map over the image."""
    figures = []
    for section, caption, draw in _drawings(report, results):
        with contextlib.suppress(NothingToPlot):
            figures.append((section, caption, draw()))
    return figures


def _drawings(report: Report, results: pd.DataFrame) -> Iterator[tuple[str, str, Callable[[], Figure]]]:
    summary, curves, shape = report._last_summary(), report._last().curves, report.settings.get("image_shape")
    over = "bars are 95% intervals over points" if summary["value_low"].notna().any() else "there are no intervals"
    each = "matrix" if report.provenance.get("matrices") else "layer"
    yield "scales", f"The main scores of each {each} over all columns; {over}.", partial(_layers, summary)
    if not report.steps:
        caption = f"The participation ratio against the radius within which the columns of a minor lie (k = 2); {over}."
        yield "scales", caption, partial(_scales, summary)
    if len(curves):
        caption = (
            "Left: how large the minors are, relative to their mean; left of the dashed line, minors that are exactly zero and "
            "those too small for the axis. Right: means of the rows of the k-minor matrix, ordered by rank, over the mean of all."
        )
        yield "minors", caption, partial(_minors, curves, report._curve_order(None))
    if shape:
        caption = "Where in the image: the participation ratio over the baseline's within a window around each pixel."
        yield "where", caption, partial(figure_window_map, results, shape, names=network_names(report))
    if len(report.steps) > 1:
        caption = "Scores against training step over all columns; bands are 95% intervals over points."
        yield "training", caption, lambda: figure_by_step(report.summary())


def _layers(summary: pd.DataFrame) -> Figure:
    measured = {(str(score), int(k)) for score, k in zip(summary["score"], summary["k"], strict=True)}
    shown = [(score, k) for score, k in SCORES if (score, k) in measured]
    rows = wrap([Panel(partial(plot_layers, summary, score=score, k=k)) for score, k in shown], 2)
    if not rows:
        raise NothingToPlot("none of the main scores was measured")
    longest = max(len(name) for name in layers_of(summary))
    return draw_grid(rows, DOUBLE_COLUMN, (2.2 + 0.05 * longest) * len(rows))


def _scales(summary: pd.DataFrame) -> Figure:
    return draw_grid([[Panel(partial(plot_scales, summary))]], 1.4 * SINGLE_COLUMN, 2.6)


def _minors(curves: pd.DataFrame, k: int) -> Figure:
    rows = []
    for layer in layers_of(curves)[:MOST]:
        rows.append([Panel(partial(draw, curves, layer=layer, k=k)) for draw in (plot_minor_histogram, plot_zipf)])
    return draw_grid(rows, DOUBLE_COLUMN, 2.5 * len(rows))
