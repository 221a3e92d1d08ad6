"""Checks of values that a user gives; a number is Python's or NumPy's, and no truth value."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from kagscope.base.errors import InputError
from kagscope.base.messages import close_names


def is_whole(value: Any, low: float = -math.inf, high: float = math.inf) -> bool:
    """Whether ``value`` is a whole number from ``low`` to ``high``."""
    return isinstance(value, int | np.integer) and not isinstance(value, bool) and bool(low <= value <= high)


def is_real(value: Any, low: float = -math.inf, high: float = math.inf) -> bool:
    """Whether ``value`` is a finite real number from ``low`` to ``high``."""
    if isinstance(value, bool) or not isinstance(value, int | float | np.integer | np.floating):
        return False
    try:
        number = float(value)
    except OverflowError:  # a whole number of more than 308 digits
        return False
    return math.isfinite(number) and low <= number <= high


def check_choice(name: str, value: Any, choices: Iterable[str]) -> None:
    """Raise :class:`InputError`, with close ones, unless ``value`` is one of ``choices``."""
    known = list(choices)
    if not isinstance(value, str) or value not in known:
        raise InputError(f"{name} is {value!r}{close_names(str(value).lower(), known)}; expected one of {', '.join(known)}")
