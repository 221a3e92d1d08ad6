"""kagscope: Kolmogorov-Arnold geometry of neural networks, measured exactly.

``import kagscope as kag`` is the whole interface; heavy modules load when a name is first used.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_PUBLIC: dict[str, str] = {
    "KagscopeError": "errors",
    "InputError": "errors",
    "DataError": "errors",
    "OutputError": "errors",
    "UndefinedScore": "errors",
    "Selection": "selections",
    "All": "selections",
    "Ball": "selections",
    "Apart": "selections",
    "Shell": "selections",
    "Window": "selections",
    "Subsets": "selections",
    "parse_selection": "selections",
    "Moments": "minors.moments",
    "minor_moments": "minors.engine",
    "factored_minor_moments": "minors.factored",
    "FactoredMoments": "minors.factored",
    "column_pair_map": "minors.maps",
    "window_moments": "minors.maps",
    "row_means": "minors.rows",
    "warm_up": "minors",
    "limit_threads": "minors.threads",
    "haar_mean_s1": "minors.rotations",
    "rotation_ratio": "minors.rotations",
    "zero_rows": "scores",
    "axis_alignment": "scores",
    "effective_rank": "scores",
    "stable_rank": "scores",
    "sv_participation": "scores",
    "column_divergence": "scores",
    "kl_init": "scores",
    "prune": "applications.prune",
    "Pruning": "applications.pruning",
    "measure": "measuring.api",
    "measure_series": "measuring.series_api",
    "Series": "measuring.series",
    "MeasureSettings": "measuring.settings",
    "Report": "measuring.report",
    "Tracker": "tracking.tracker",
    "Trajectory": "tracking.trajectory",
    "compare_studies": "studies.versus",
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
