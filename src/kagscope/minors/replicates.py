"""What replicates of a sampled sum tell: whether their spread can be trusted, and what a known sum makes up for."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
UNEVEN = 8.0  # kurtosis of independent estimates beyond which few of them carry the variance of their mean
CARRIED = 16.0  # draws that carry the variance of a sum: with fewer, its error is not known


def carried(draws: FloatArray) -> float:
    """How many of some draws carry the variance of their mean: (sum of d^2)^2 / sum of d^4 of their deviations d."""
    return float(carried_each(draws.reshape(1, -1), np.ones((1, draws.size), dtype=bool))[0])


def carried_each(draws: FloatArray, inside: NDArray[np.bool_]) -> FloatArray:
    """(S,) as :func:`carried`, of those of the draws (S, D) in each row that are ``inside``; infinite where none varies."""
    mean = np.where(inside, draws, 0.0).sum(axis=1, keepdims=True) / np.maximum(inside.sum(axis=1, keepdims=True), 1)
    deviation, sizes = np.abs(np.where(inside, draws - mean, 0.0)), np.abs(np.where(inside, draws, 0.0))
    largest = deviation.max(axis=1, initial=0.0)
    varies = largest > 1e-12 * sizes.max(axis=1, initial=0.0)
    squares = (deviation / np.where(varies, largest, 1.0)[:, None]) ** 2
    return np.asarray(np.where(varies, squares.sum(axis=1) ** 2 / np.maximum((squares**2).sum(axis=1), 1e-300), np.inf))


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
