"""Scores of the user's own: functions of moments, or of Jacobians, whose values stand in the table beside the others."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from kagscope.base.errors import InputError, UndefinedScore
from kagscope.tables.schema import BOOKKEEPING, SCORES

Score = Callable[[Any], Any]
NOT_A_NUMBER = "undefined: the score gave NaN"


def check_scores(option: str, given: Any) -> dict[str, Score]:
    """The functions by name. Raises :class:`InputError` for anything else, and for a name that a score of kagscope has."""
    if not isinstance(given, Mapping):
        raise InputError(f"{option} is {given!r:.80}; expected functions by name, such as {{'my_score': function}}")
    for name, function in given.items():
        if not isinstance(name, str) or not name.isidentifier():
            raise InputError(f"{option} has the name {name!r}; expected letters, digits and _, such as 'my_score'")
        if name in SCORES | BOOKKEEPING:
            raise InputError(f"{option} has the name {name!r}, which is a score of kagscope; choose another")
        if not callable(function):
            raise InputError(f"{option}: {name!r} is {function!r:.80}; expected a function")
    return dict(given)


def values_of(name: str, function: Score, given: Any, count: int) -> tuple[np.ndarray, str]:
    """What a score gives for a batch: (count,) float64, and why any of them is NaN.

    Raises:
        InputError: not one real number for each Jacobian.
    """
    try:
        found = function(given)
    except UndefinedScore as reason:
        return np.full(count, np.nan), f"undefined: {reason}"
    try:
        values = np.asarray(found.detach().cpu() if hasattr(found, "detach") else found, dtype=np.float64)
    except (TypeError, ValueError):
        values = np.empty(())
    if values.shape != (count,):
        raise InputError(f"score {name!r} gave {found!r:.80}; expected one number for each of the {count} Jacobians of a batch")
    return values, NOT_A_NUMBER
