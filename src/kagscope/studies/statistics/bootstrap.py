"""Bootstrap intervals of numbers measured at many data points of a few networks.

The units of all evidence are networks ("nets"); what is done at the level of data points only sharpens each net's
mean. Why each method was chosen, and what it cannot do, is in ``docs/claims.md``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from kagscope.base.errors import InputError
from kagscope.studies.statistics.student import Array, Estimate, t_interval

Strata = NDArray[np.int64]
Statistic = Callable[[Array, Strata], Array]
"""From net means (draws, quantities, nets) and each net's stratum (nets,) to components (draws, components)."""

_DRAWS_AT_ONCE = 256  # keeps the weights of 10,000 points at 20 MB


@dataclass(frozen=True)
class Interval:
    """A confidence interval; both ends NaN where the data cannot give one."""

    low: float
    high: float
    confidence: float


@dataclass(frozen=True)
class Bootstrap:
    """A statistic of the data and of resampled data.

    Attributes:
        estimate: The statistic of the data themselves, (components,).
        draws: The same of each resample, (resamples, components).
        df: Degrees of freedom of the variance between nets: nets minus strata.
    """

    estimate: Array
    draws: Array
    df: int

    def interval(self, confidence: float = 0.95, component: int = 0) -> Interval:
        """Expanded percentile interval (Hesterberg 2015, section 3.3).

        Percentiles are taken at the normal levels of Student's t quantiles, so few nets give wide intervals.

        Args:
            confidence: Coverage aimed at, in (0, 1).
            component: Which component of the statistic.

        Returns:
            The interval, or NaN ends if no stratum has two nets or if the statistic is undefined.
        """
        draws = self.draws[:, component]
        draws = draws[np.isfinite(draws)]
        if self.df < 1 or not np.isfinite(self.estimate[component]) or draws.size < self.draws.shape[0] / 2:
            return Interval(np.nan, np.nan, confidence)
        tail = stats.norm.sf(stats.t.isf((1 - confidence) / 2, self.df))
        low, high = np.quantile(draws, [tail, 1 - tail])
        return Interval(float(low), float(high), confidence)

    def t_intervals(self, confidence: float = 0.95) -> tuple[Array, Array]:
        """Estimate -+ Student's t times the standard deviation of the draws (Efron & Tibshirani 1993, section 12.5).

        For two to five nets: percentiles end at what was drawn, the widest of three nets covers 75% at most.

        Returns:
            Lower and upper ends, (components,) each; NaN without degrees of freedom.
        """
        return t_interval(Estimate(self.estimate, self.draws.std(axis=0, ddof=1), self.df), confidence)


def net_means(values: Array) -> Array:
    """Means over the last axis (points), NaN left out; NaN where a net has no defined value."""
    defined = np.isfinite(values)
    counts = defined.sum(axis=-1)
    sums = np.where(defined, values, 0.0).sum(axis=-1)
    return np.divide(sums, counts, out=np.full(sums.shape, np.nan), where=counts > 0)


def balanced_mean(means: Array, strata: Strata) -> Array:
    """Mean over strata of the mean over each stratum's nets (the last axis): every stratum weighs the same."""
    # means of means and not one weighted sum: where every net says 1 the answer is 1, to the last digit
    return np.stack([means[..., strata == stratum].mean(axis=-1) for stratum in np.unique(strata)], axis=-1).mean(axis=-1)


def hierarchical_bootstrap(
    values: ArrayLike,
    strata: ArrayLike | None = None,
    statistic: Statistic = balanced_mean,
    *,
    resamples: int = 4000,
    seed: int = 0,
) -> Bootstrap:
    """Two-level bootstrap: nets within strata, data points within nets.

    Points with the same index are the same test image in every net, so each resample draws points once for all nets (the
    pigeonhole bootstrap, Owen 2007). From a stratum of s nets s - 1 are drawn, which makes the variance of a mean unbiased
    (McCarthy & Snowden 1985; Rao & Wu 1988); a stratum of one net keeps it. Quantities of one net travel together: pairs stay
    pairs.

    Args:
        values: (nets, points) or (quantities, nets, points); NaN where not measured or undefined. Every net needs a defined
            value of every quantity.
        strata: Stratum of each net, integers (nets,); default one stratum.
        statistic: Vectorised over resamples, see :data:`Statistic`; default the balanced mean of every quantity.
        resamples: Number of resamples.
        seed: Seed of the draws. The same seed gives the same draws, whatever the values.

    Returns:
        The statistic of the data and of every resample.

    Raises:
        InputError: Shapes that do not fit or a net without any defined value.
    """
    array = np.asarray(values, dtype=np.float64)
    array = array[None] if array.ndim == 2 else array
    if array.ndim != 3 or 0 in array.shape:
        raise InputError(f"values must be (nets, points) or (quantities, nets, points) and not empty, got shape {array.shape}")
    nets = array.shape[1]
    groups = np.zeros(nets, dtype=np.int64) if strata is None else np.asarray(strata, dtype=np.int64)
    if groups.shape != (nets,):
        raise InputError(f"strata must have one entry per net ({nets}), got shape {groups.shape}")
    means = net_means(array)
    if np.isnan(means).any():
        raise InputError("every net needs at least one defined value of every quantity: leave out nets that have none")
    rng = np.random.default_rng(seed)
    drawn_nets, drawn_groups = _draw_nets(groups, resamples, rng)
    draws = [
        statistic(np.take_along_axis(resampled, chosen[:, None, :], axis=2), drawn_groups)
        for resampled, chosen in _resampled_means(array, means, drawn_nets, rng)
    ]
    estimate = statistic(means[None], groups)[0]
    return Bootstrap(estimate, np.concatenate(draws), nets - np.unique(groups).size)


def _draw_nets(strata: Strata, resamples: int, rng: np.random.Generator) -> tuple[NDArray[np.int64], Strata]:
    """Indices of drawn nets (resamples, drawn), s - 1 from each stratum of s, and the strata of the drawn ones (drawn,)."""
    columns, labels = [], []
    for stratum in np.unique(strata):
        members = np.flatnonzero(strata == stratum)
        size = max(members.size - 1, 1)
        columns.append(members[rng.integers(members.size, size=(resamples, size))])
        labels.append(np.full(size, stratum))
    return np.concatenate(columns, axis=1), np.concatenate(labels)


def _resampled_means(
    array: Array, means: Array, drawn_nets: NDArray[np.int64], rng: np.random.Generator
) -> Iterator[tuple[Array, NDArray[np.int64]]]:
    """Yield chunks of (net means at drawn points (draws, quantities, nets), drawn nets (draws, drawn))."""
    quantities, nets, points = array.shape
    defined = np.isfinite(array)
    complete = bool(defined.all())
    filled = np.where(defined, array, 0.0).reshape(-1, points)
    mask = defined.astype(np.float64).reshape(-1, points)
    for start in range(0, drawn_nets.shape[0], _DRAWS_AT_ONCE):
        chosen = drawn_nets[start : start + _DRAWS_AT_ONCE]
        weights = _point_weights(points, len(chosen), rng)
        sums = (filled @ weights.T).T.reshape(-1, quantities, nets)
        if complete:
            yield sums / weights.sum(axis=1)[:, None, None], chosen
            continue
        counts = (mask @ weights.T).T.reshape(-1, quantities, nets)
        # a net measured at few points may have none among those drawn: it then keeps its mean
        yield np.where(counts > 0, sums / np.maximum(counts, 1.0), means[None]), chosen


def _point_weights(points: int, draws: int, rng: np.random.Generator) -> Array:
    """How often each point is drawn, (draws, points): points - 1 draws with replacement."""
    size = max(points - 1, 1)
    flat = rng.integers(points, size=(draws, size)) + points * np.arange(draws)[:, None]
    return np.bincount(flat.ravel(), minlength=draws * points).reshape(draws, points).astype(np.float64)
