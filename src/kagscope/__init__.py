"""kagscope: Kolmogorov-Arnold geometry of neural networks, measured exactly.

``import kagscope as kag`` is the whole interface; heavy modules load when a name is first used.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_PUBLIC: dict[str, str] = {
    "KagscopeError": "base.errors",
    "InputError": "base.errors",
    "DataError": "base.errors",
    "OutputError": "base.errors",
    "UndefinedScore": "base.errors",
    "Selection": "columns.selections",
    "All": "columns.selections",
    "Ball": "columns.selections",
    "Apart": "columns.selections",
    "SameChannel": "columns.selections",
    "Shell": "columns.selections",
    "Window": "columns.selections",
    "Subsets": "columns.selections",
    "parse_selection": "columns.selections",
    "Moments": "minors.moments",
    "minor_moments": "minors.engine",
    "factored_minor_moments": "minors.factored",
    "FactoredMoments": "minors.factored",
    "column_pair_map": "minors.maps",
    "window_moments": "minors.maps",
    "row_means": "minors.row_means",
    "warm_up": "minors",
    "limit_threads": "minors.threads",
    "haar_mean_s1": "minors.rotations",
    "rotation_ratio": "minors.rotations",
    "published_scores": "minors.published",
    "zero_rows": "scores.of_jacobians",
    "axis_alignment": "scores.of_jacobians",
    "functional": "scores",
    "effective_rank": "scores.of_jacobians",
    "stable_rank": "scores.of_jacobians",
    "sv_participation": "scores.of_jacobians",
    "column_divergence": "scores.of_jacobians",
    "kl_init": "minors.moment_scores",
    "GeometryPenalty": "steering.penalty",
    "prune": "pruning.prune",
    "Pruning": "pruning.pruning",
    "measure": "measuring.api",
    "measure_series": "measuring.api",
    "measure_matrices": "measuring.matrices",
    "MeasureSpec": "measuring.spec",
    "Budget": "measuring.spec",
    "Report": "measuring.report",
    "Finding": "base.messages",
    "Tracker": "tracking.tracker",
    "compare_studies": "studies.side_by_side",
    "open_study": "studies.opened",
    "Study": "studies.opened",
}

__all__ = ["__version__", *_PUBLIC]


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        value = getattr(importlib.import_module(f"kagscope.{_PUBLIC[name]}"), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'kagscope' has no attribute {name!r}; public names: {', '.join(sorted(__all__))}")


def __dir__() -> list[str]:
    return sorted(__all__)
