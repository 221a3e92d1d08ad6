"""Bootstrap intervals of numbers measured at many data points of a few networks.

The units of evidence are networks ("nets"); data points only sharpen the mean of each net.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kagscope.base.errors import InputError
from kagscope.studies.statistics.student import Array, Estimate, t_interval

Statistic = Callable[[Array], Array]
"""From net means (draws, quantities, nets) to components (draws, components)."""

_DRAWS_AT_ONCE = 256  # keeps the weights of 10,000 points at 20 MB


@dataclass(frozen=True)
class Bootstrap:
    """A statistic of the data and of resampled data.

    Attributes:
        estimate: The statistic of the data, (components,).
        draws: The statistic of each resample, (resamples, components).
        df: Degrees of freedom of the variance between nets: nets minus 1.
    """

    estimate: Array
    draws: Array
    df: int

    def t_intervals(self) -> tuple[Array, Array]:
        """Estimate -+ Student's t times the standard deviation of the draws (Efron & Tibshirani 1993, section 12.5).

        For two to five nets, as percentiles are limited by the draws: those of three nets cover at most 75%.

        Returns:
            Lower and upper ends, (components,) each; NaN without degrees of freedom.
        """
        return t_interval(Estimate(self.estimate, self.draws.std(axis=0, ddof=1), self.df))


def defined_means(values: Array) -> Array:
    """Means over the last axis of what is defined; NaN where nothing is."""
    defined = np.isfinite(values)
    counts = defined.sum(axis=-1)
    sums = np.where(defined, values, 0.0).sum(axis=-1)
    return np.divide(sums, counts, out=np.full(sums.shape, np.nan), where=counts > 0)


def plain_mean(means: Array) -> Array:
    """Mean over nets of every quantity."""
    return means.mean(axis=-1)


def hierarchical_bootstrap(
    values: ArrayLike,
    statistic: Statistic = plain_mean,
    *,
    resamples: int = 4000,
) -> Bootstrap:
    """Two-level bootstrap over nets (or seeds, averaged over their nets) and data points within nets.

    Points with the same index are the same test image in every net, so each resample draws points once for all nets (the
    pigeonhole bootstrap, Owen 2007). Of n nets n - 1 are drawn, which makes the variance of a mean unbiased (McCarthy & Snowden
    1985). Quantities of one net are drawn together: pairs stay pairs.

    Args:
        values: (nets, points) or (quantities, nets, points); NaN where not measured or undefined. Every net needs a defined
            value of every quantity.
        statistic: Vectorised over resamples, see :data:`Statistic`; by default the mean of every quantity.
        resamples: Number of resamples, which do not depend on the values.

    Returns:
        The statistic of the data and of every resample.

    Raises:
        InputError: Shapes do not fit, or a net has no defined value.
    """
    array = np.asarray(values, dtype=np.float64)
    array = array[None] if array.ndim == 2 else array
    if array.ndim != 3 or 0 in array.shape:
        raise InputError(f"values must be (nets, points) or (quantities, nets, points) and not empty, got shape {array.shape}")
    nets = array.shape[1]
    means = defined_means(array)
    if np.isnan(means).any():
        raise InputError("every net needs at least one defined value of every quantity: leave out nets that have none")
    rng = np.random.default_rng(0)
    drawn = rng.integers(nets, size=(resamples, max(nets - 1, 1)))
    draws = [
        statistic(np.take_along_axis(resampled, chosen[:, None, :], axis=2))
        for resampled, chosen in _resampled_means(array, means, drawn, rng)
    ]
    return Bootstrap(statistic(means[None])[0], np.concatenate(draws), nets - 1)


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
        # a net measured at few points may have none among those drawn; it then keeps its mean
        yield np.where(counts > 0, sums / np.maximum(counts, 1.0), means[None]), chosen


def _point_weights(points: int, draws: int, rng: np.random.Generator) -> Array:
    """Counts of each point in points - 1 draws with replacement, (draws, points)."""
    size = max(points - 1, 1)
    flat = rng.integers(points, size=(draws, size)) + points * np.arange(draws)[:, None]
    return np.bincount(flat.ravel(), minlength=draws * points).reshape(draws, points).astype(np.float64)
