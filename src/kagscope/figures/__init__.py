"""Figures from tables: ``plot_…`` takes a table and optional axes and returns the axes; ``figure_…`` combines several panels.

All share one style (colour-blind safe, legible at a paper's column width), use no pyplot state and leave your settings alone.
:func:`save` writes a figure as PDF, SVG or PNG (:func:`save_all` in several of these): text stays text, and the same table
gives the same bytes.

Tables of a study (``results.parquet``, ``curves.parquet``):

============================ ===============================================================
:func:`plot_pr_by_radius`    ratio to initialisation against ball radius
:func:`plot_pr_by_distance`  the same against minimum distance
:func:`plot_valid_subsets`   number of column subsets by minimum distance
:func:`plot_k_comparison`    the ratio against the order of the minors
:func:`plot_score_by_step`   a score along training
:func:`plot_accuracy`        test accuracy along training
:func:`plot_zipf`            row means by rank, also of one measured model
:func:`plot_minor_histogram` sizes of the minors, also of one measured model
:func:`plot_window_map`      the ratio over positions in the image
:func:`plot_scores_overview` every score at a glance
:func:`write_figures`        all that a study allows, as PNG and PDF
============================ ===============================================================

Tables of a study from a file (``summary.csv``, ``runs.parquet``, ``relations.csv``):

============================ ===============================================================
:func:`plot_phase`           a score over two axes of the study, as a map
:func:`plot_by_axis`         a score against one numeric axis
:func:`figure_dynamics`      accuracy and scores along training, by two axes
:func:`plot_relation`        an outcome against geometry, a point for each net
:func:`plot_correlations`    correlations within settings, with intervals
:func:`plot_comparison`      effect of a category of an axis, or of another study, on every score
:func:`plot_robustness`      adversarial accuracy against the size of the attack
============================ ===============================================================

Of one model (:meth:`kagscope.Report.summary`, :meth:`kagscope.Tracker.summary`, :meth:`kagscope.Pruning.curve`, weights):

============================ ===============================================================
:func:`plot_scales`          a score against ball radius or minimum distance
:func:`plot_layers`          a score of every layer
:func:`plot_tokens`          a score against the token
:func:`plot_by_step`         a score along training, onset marked
:func:`plot_pruning`         effect of removing units
:func:`plot_unit_weights`    each unit's incoming weights as an image
:func:`plot_row_norms`       lengths of the rows, by rank, with a threshold
============================ ===============================================================
"""

from __future__ import annotations

import importlib
from typing import Any

_PUBLIC: dict[str, str] = {
    "NothingToPlot": "style",
    "plot_pr_by_radius": "scales",
    "plot_pr_by_distance": "scales",
    "plot_valid_subsets": "scales",
    "plot_k_comparison": "scales",
    "figure_by_radius": "scales",
    "figure_by_distance": "scales",
    "figure_k_comparison": "scales",
    "plot_score_by_step": "steps",
    "plot_accuracy": "steps",
    "figure_scores_by_step": "steps",
    "plot_zipf": "distributions",
    "plot_minor_histogram": "distributions",
    "figure_zipf": "distributions",
    "figure_minor_histogram": "distributions",
    "plot_window_map": "windows",
    "figure_window_map": "windows",
    "plot_scores_overview": "overview",
    "figure_scores_overview": "overview",
    "plot_comparison": "forest",
    "plot_phase": "phase",
    "figure_phase": "phase",
    "figure_dynamics": "steps",
    "plot_by_axis": "axes",
    "figure_by_axis": "axes",
    "plot_relation": "relations",
    "plot_correlations": "forest",
    "figure_relations": "relations",
    "plot_robustness": "robustness",
    "figure_robustness": "robustness",
    "plot_scales": "scales",
    "plot_layers": "layers",
    "plot_tokens": "layers",
    "plot_by_step": "steps",
    "figure_by_step": "steps",
    "plot_pruning": "pruning",
    "figure_pruning": "pruning",
    "plot_unit_weights": "units",
    "plot_row_norms": "units",
    "save": "style",
    "save_all": "style",
    "net_means": "study",
    "study_means": "study",
    "FAMILIES": "write",
    "WrittenFigures": "write",
    "draw_figures": "write",
    "write_all": "write",
    "write_figures": "write",
}

__all__ = list(_PUBLIC)


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        value = getattr(importlib.import_module(f"kagscope.figures.{_PUBLIC[name]}"), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'kagscope.figures' has no attribute {name!r}; public names: {', '.join(sorted(_PUBLIC))}")


def __dir__() -> list[str]:
    return sorted(__all__)
