"""Choosing which of the inputs are measured."""

from __future__ import annotations

import numpy as np
from jaxtyping import Int64


def choose_points(count: int, wanted: int | None = None) -> Int64[np.ndarray, " points"]:
    """Choose ``wanted`` of ``count`` points, the same for every network, drawn once without replacement; any prefix is a sample.

    None takes all of them, in that order.
    """
    return np.random.default_rng(0).permutation(count)[:wanted]
