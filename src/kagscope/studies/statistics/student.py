"""Student's t: tests and intervals for means over networks, for one sample, pairs and two groups."""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import stdtr, stdtrit

Array = NDArray[np.float64]
Alternative = Literal["greater", "less", "two-sided"]


class Estimate(NamedTuple):
    """An estimate with its standard error.

    Attributes:
        value: estimated values, any shape.
        error: their standard errors.
        freedom: degrees of freedom of the errors; below 1 there is neither test nor interval.
    """

    value: ArrayLike
    error: ArrayLike
    freedom: ArrayLike


def mean_of(values: Array) -> Estimate:
    """Mean over the first axis (networks, or differences of pairs); NaN if any value is."""
    n = len(values)
    spread = values.std(axis=0, ddof=1) if n > 1 else np.full(values.shape[1:], np.nan)
    return Estimate(values.mean(axis=0), spread / np.sqrt(n), n - 1)


def difference_of(x: Array, y: Array) -> Estimate:
    """Mean of ``x`` minus mean of ``y`` over the first axis, for two groups of unequal variance (Welch 1947)."""
    if min(len(x), len(y)) < 2:
        return Estimate(x.mean(axis=0) - y.mean(axis=0), np.nan, 0)
    var_x, var_y = x.var(axis=0, ddof=1) / len(x), y.var(axis=0, ddof=1) / len(y)
    noise = var_x**2 / (len(x) - 1) + var_y**2 / (len(y) - 1)
    freedom = np.divide((var_x + var_y) ** 2, noise, out=np.full(np.shape(noise), len(x) + len(y) - 2.0), where=noise > 0)
    return Estimate(x.mean(axis=0) - y.mean(axis=0), np.sqrt(var_x + var_y), freedom)


def t_test(estimate: Estimate, alternative: Alternative = "two-sided") -> Array:
    """p-value of the hypothesis that the true value is 0; NaN without degrees of freedom.

    For an estimate without error, p is 0 or 1.
    """
    value, error, freedom = (np.asarray(values, dtype=np.float64) for values in estimate)
    with np.errstate(divide="ignore", invalid="ignore"):
        t = np.where((error == 0) & (value == 0), 0.0, value / error)
    known = np.isfinite(value) & np.isfinite(error) & (freedom >= 1)
    df = np.where(known, freedom, 1.0)
    if alternative == "two-sided":
        p_value = np.where((error == 0) & (value == 0), 1.0, 2 * stdtr(df, -np.abs(t)))
    else:
        sided = t if alternative == "less" else -t
        p_value = np.where((error == 0) & (value == 0), 1.0, stdtr(df, sided))
    return np.where(known, p_value, np.nan)


def t_interval(estimate: Estimate, confidence: float = 0.95) -> tuple[Array, Array]:
    """Ends of the confidence interval; NaN without degrees of freedom."""
    value, error, freedom = (np.asarray(values, dtype=np.float64) for values in estimate)
    half = stdtrit(np.where(freedom >= 1, freedom, np.nan), (1 + confidence) / 2) * error
    return value - half, value + half
