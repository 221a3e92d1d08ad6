"""What counts as a number given by a user: Python's or NumPy's, and no truth value."""

from __future__ import annotations

import math
from typing import Any

import numpy as np


def is_whole(value: Any, low: float = -math.inf, high: float = math.inf) -> bool:
    """Whether ``value`` is a whole number from ``low`` to ``high``."""
    return isinstance(value, int | np.integer) and not isinstance(value, bool) and bool(low <= value <= high)


def is_real(value: Any, low: float = -math.inf, high: float = math.inf) -> bool:
    """Whether ``value`` is a finite real number from ``low`` to ``high``."""
    number = isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)
    return number and math.isfinite(value) and bool(low <= value <= high)
