"""Scores of Jacobians, of representations and of units; importing this package registers every score.

A new score is a new module here, with :func:`kagscope.registry.register` above its function: nothing else has to know of it.
"""

from __future__ import annotations

import importlib
import pkgutil

import kagscope.minors.moment_scores as _moment_scores  # noqa: F401  scores of moments register where moments stand

for _module in sorted(module.name for module in pkgutil.iter_modules(__path__)):
    importlib.import_module(f"{__name__}.{_module}")
