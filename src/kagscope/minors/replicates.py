"""Statistics of replicates of a sampled sum: whether their spread can be trusted, and control variates."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

FloatArray = NDArray[np.float64]
REPLICATES = 64  # independent repetitions of whatever is sampled
GROUPS = 16  # groups of replicates, each with its own histogram
UNEVEN = 8.0  # kurtosis of independent estimates beyond which few of them dominate the variance of their mean
ROUNDING = 1e-12  # relative difference of equal estimates due to the order of summation
S4_FACTOR = 2.0  # few minors carry most of S4: its error may be so many times rel_error
CARRIED = 16.0  # effective draws below which the error of a sum is unknown


def effective_draws(draws: FloatArray) -> float:
    """Effective number of draws behind the variance of their mean: (sum d^2)^2 / sum d^4 of the deviations d."""
    return float(effective_draws_by_row(draws.reshape(1, -1), np.ones((1, draws.size), dtype=bool))[0])


def effective_draws_by_row(draws: FloatArray, inside: NDArray[np.bool_]) -> FloatArray:
    """(S,) :func:`effective_draws` of the draws (S, D) of each row that are ``inside``; infinite if none varies."""
    mean = np.where(inside, draws, 0.0).sum(axis=1, keepdims=True) / np.maximum(inside.sum(axis=1, keepdims=True), 1)
    deviation, sizes = np.abs(np.where(inside, draws - mean, 0.0)), np.abs(np.where(inside, draws, 0.0))
    largest = deviation.max(axis=1, initial=0.0)
    varies = largest > ROUNDING * sizes.max(axis=1, initial=0.0)
    squares = (deviation / np.where(varies, largest, 1.0)[:, None]) ** 2
    return np.asarray(np.where(varies, squares.sum(axis=1) ** 2 / np.maximum((squares**2).sum(axis=1), 1e-300), np.inf))


def deviation(draws: FloatArray) -> FloatArray:
    """(...,) standard deviation of estimates (..., D), whose squares may leave the range."""
    exponent = np.frexp(np.abs(draws).max(axis=-1, initial=0.0))[1]
    return np.asarray(np.ldexp(np.ldexp(draws, -exponent[..., None]).std(axis=-1, ddof=1), exponent))


def dominated_by_few(draws: FloatArray) -> NDArray[np.bool_]:
    """(...,) whether few of the independent estimates (..., D), or few of the events they count, dominate their mean's variance.

    If each counts rare events, the smallest estimate lies about sqrt(number of events) standard errors below the mean; for events
    that nearly always occur, the largest lies as far above it. This also holds with a constant added to all. Normal estimates
    have such a short tail three times in a thousand (D = 16).
    """
    mean, error = draws.mean(axis=-1), deviation(draws) / np.sqrt(draws.shape[-1])
    least, largest = draws.min(axis=-1), draws.max(axis=-1)
    tails = np.minimum(mean - least, largest - mean)
    varies = largest - least > ROUNDING * np.abs(draws).max(axis=-1)
    few = np.array([effective_draws(r) < draws.shape[-1] / UNEVEN for r in draws.reshape(-1, draws.shape[-1])], dtype=bool)
    return few.reshape(mean.shape) | (varies & (tails < np.sqrt(CARRIED) * error))


def relative_error(name: str, replicates: Mapping[str, FloatArray]) -> float:
    """Relative standard error of a sum, of S4 over :data:`S4_FACTOR`; for the entropy the error of KL, which depends on S1."""
    values, total = replicates[name], float(replicates["s1" if name == "entropy" else name].mean())
    if not total > 0:
        return np.inf
    if name == "entropy":
        values = values - (float(values.mean()) / total + 1) * replicates["s1"]
    error = float(deviation(values)) / np.sqrt(values.size) / total
    return error / S4_FACTOR if name == "s4" else error


def student_factor(groups: int) -> float:
    """Factor that widens a standard error from fewer than :data:`REPLICATES` groups, so that intervals keep their coverage.

    Ratio of 97.5% quantiles of Student's t; 1 for :data:`REPLICATES` groups.
    """
    return float(stdtrit(groups - 1, 0.975) / stdtrit(REPLICATES - 1, 0.975)) if 1 < groups < REPLICATES else 1.0


def jackknife_error(left: FloatArray) -> FloatArray:
    """(…) jackknife standard error of a score from its values (parts, …) with one independent part left out each."""
    squares = ((left - left.mean(axis=0)) ** 2).sum(axis=0)
    return np.asarray(student_factor(len(left)) * np.sqrt((len(left) - 1) / len(left) * squares))


def apply_control_variate(s1: FloatArray, entropy: FloatArray, known: float, draws: FloatArray | None = None) -> FloatArray:
    """Replicates of the entropy, corrected by the deviation of those of S1 from its known value (control variate).

    ``draws`` (2, D): contributions of each draw to both, from which the slope is fitted; by default the replicates.
    """
    return entropy + slope(*((s1, entropy) if draws is None else draws)) * (known - s1)


def slope(x: FloatArray, y: FloatArray) -> float:
    """Slope of the regression of y on x; 0 if x does not vary.

    Both are centred first: otherwise rounding of a constant x would multiply the mean of y.
    """
    x, y = (values - values.sum() / max(values.size, 1) for values in (x, y))
    return float(x @ y) / float(x @ x) if x.any() else 0.0
