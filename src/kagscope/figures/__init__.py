"""Figures from tables: each a function that takes the ``results`` or ``curves`` table and optional axes and returns the axes.

========================= ==================================================
:func:`plot_pr_by_radius`    ratio to initialisation against ball radius
:func:`plot_pr_by_distance`  the same against minimum distance
:func:`plot_valid_subsets`   how many column subsets a minimum distance leaves
:func:`plot_k_comparison`    the same against the order of the minors
:func:`plot_score_by_step`   a score along training
:func:`plot_accuracy`        test accuracy along training
:func:`plot_zipf`            row means by rank
:func:`plot_minor_histogram` sizes of the minors
:func:`plot_window_map`      where in the image
:func:`plot_scores_overview` every score at one glance
:func:`write_figures`        all of them, as PNG and PDF
========================= ==================================================
"""

from __future__ import annotations

from kagscope.figures.distributions import plot_minor_histogram, plot_zipf
from kagscope.figures.overview import plot_scores_overview
from kagscope.figures.scales import plot_k_comparison, plot_pr_by_distance, plot_pr_by_radius, plot_valid_subsets
from kagscope.figures.steps import plot_accuracy, plot_score_by_step
from kagscope.figures.tables import NothingToPlot
from kagscope.figures.windows import plot_window_map
from kagscope.figures.write import FAMILIES, WrittenFigures, draw_figures, write_figures

__all__ = [
    "FAMILIES",
    "NothingToPlot",
    "WrittenFigures",
    "draw_figures",
    "plot_accuracy",
    "plot_k_comparison",
    "plot_minor_histogram",
    "plot_pr_by_distance",
    "plot_pr_by_radius",
    "plot_score_by_step",
    "plot_scores_overview",
    "plot_valid_subsets",
    "plot_window_map",
    "plot_zipf",
    "write_figures",
]
