"""What replicates of a sampled sum tell: whether their spread can be trusted, and what a known sum makes up for."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
UNEVEN = 8.0  # kurtosis of independent estimates beyond which few of them carry the variance of their mean
CARRIED = 16.0  # draws that carry the variance of a sum: with fewer, its error is not known


def carried(draws: FloatArray) -> float:
    """How many of some draws carry the variance of their mean: (sum of d^2)^2 / sum of d^4 of their deviations d."""
    if not draws.size:
        return np.inf
    deviation = draws - draws.mean()
    largest = np.abs(deviation).max()
    if largest <= 1e-12 * np.abs(draws).max():
        return np.inf
    squares = (deviation / largest) ** 2
    return float(squares.sum() ** 2 / (squares**2).sum())


def controlled(s1: FloatArray, entropy: FloatArray, known: float, draws: FloatArray | None = None) -> FloatArray:
    """Replicates of the entropy corrected by how far those of S1 miss what is known of it (control variate).

    ``draws`` (2, D): what each draw adds to both, by which the slope is fitted; by default the replicates.
    """
    return entropy + slope(*((s1, entropy) if draws is None else draws)) * (known - s1)


def slope(x: FloatArray, y: FloatArray) -> float:
    """Of the line through y against x; 0 where x does not vary.

    Both from their means: what rounding leaves of an x that does not vary would turn the mean of y into anything.
    """
    x, y = (one - one.sum() / max(one.size, 1) for one in (x, y))
    return float(x @ y) / float(x @ x) if x.any() else 0.0
