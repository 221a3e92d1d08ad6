"""What replicates of a sampled sum tell: whether their spread can be trusted, and what a known sum makes up for."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

FloatArray = NDArray[np.float64]
REPLICATES = 64  # independent repetitions of whatever is sampled
GROUPS = 16  # of replicates, each with a histogram of its own
UNEVEN = 8.0  # kurtosis of independent estimates beyond which few of them carry the variance of their mean
ROUNDING = 1e-12  # of their size, by which those that are the same differ for the order of their sums
CARRIED = 16.0  # draws that carry the variance of a sum: with fewer, its error is not known


def carried(draws: FloatArray) -> float:
    """How many of some draws carry the variance of their mean: (sum of d^2)^2 / sum of d^4 of their deviations d."""
    return float(carried_each(draws.reshape(1, -1), np.ones((1, draws.size), dtype=bool))[0])


def carried_each(draws: FloatArray, inside: NDArray[np.bool_]) -> FloatArray:
    """(S,) as :func:`carried`, of those of the draws (S, D) in each row that are ``inside``; infinite where none varies."""
    mean = np.where(inside, draws, 0.0).sum(axis=1, keepdims=True) / np.maximum(inside.sum(axis=1, keepdims=True), 1)
    deviation, sizes = np.abs(np.where(inside, draws - mean, 0.0)), np.abs(np.where(inside, draws, 0.0))
    largest = deviation.max(axis=1, initial=0.0)
    varies = largest > ROUNDING * sizes.max(axis=1, initial=0.0)
    squares = (deviation / np.where(varies, largest, 1.0)[:, None]) ** 2
    return np.asarray(np.where(varies, squares.sum(axis=1) ** 2 / np.maximum((squares**2).sum(axis=1), 1e-300), np.inf))


def few_carry(draws: FloatArray) -> NDArray[np.bool_]:
    """(...,) whether few of some independent estimates (..., D), or few events that they count, carry the variance of their mean.

    Where each counts rare events, the least stands as many of its standard errors below their mean as the root of the number of
    all that were met: of what is nearly always so, the largest above it. With a part that is the same in all, too. Of normal
    ones a tail would be so short three times in a thousand (D = 16).
    """
    mean, error = draws.mean(axis=-1), draws.std(axis=-1, ddof=1) / np.sqrt(draws.shape[-1])
    least, largest = draws.min(axis=-1), draws.max(axis=-1)
    tails = np.minimum(mean - least, largest - mean)
    varies = largest - least > ROUNDING * np.abs(draws).max(axis=-1)
    few = np.array([carried(one) < draws.shape[-1] / UNEVEN for one in draws.reshape(-1, draws.shape[-1])], dtype=bool)
    return few.reshape(mean.shape) | (varies & (tails < np.sqrt(CARRIED) * error))


def widened(groups: int) -> float:
    """What to widen a standard error from fewer than :data:`REPLICATES` groups by, so that intervals hold as often.

    Ratio of 97.5% quantiles of Student's t; 1 for as many groups.
    """
    return float(stdtrit(groups - 1, 0.975) / stdtrit(REPLICATES - 1, 0.975)) if 1 < groups < REPLICATES else 1.0


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
