"""Monotone trends over ordered levels: Kendall's S, within blocks (seeds and settings of a study)."""

from __future__ import annotations

from itertools import permutations, product
from math import factorial

import numpy as np
from scipy.special import ndtri

from kagscope.studies.statistics.permutation import ENUMERATED, draw_count
from kagscope.studies.statistics.student import Array, Estimate, t_interval


def pair_signs(values: Array) -> Array:
    """Signs of all differences between levels, later minus earlier: (..., levels) to (..., pairs); 0 for ties and NaN."""
    first, second = np.triu_indices(values.shape[-1], 1)
    return np.nan_to_num(np.sign(values[..., second] - values[..., first]))


def order_count(levels: int, blocks: int) -> float:
    """Number of ways to permute the levels within every block."""
    return float(factorial(min(levels, 20))) ** min(blocks, 10)  # far beyond what is enumerated


def level_orders(levels: int, blocks: int, draws: int = ENUMERATED) -> Array:
    """Pair signs of the levels after permuting them within every block, (draws, blocks, pairs): all orders or drawn ones."""
    if order_count(levels, blocks) > draws:
        orders = np.random.default_rng(0).permuted(np.tile(np.arange(levels), (draws, blocks, 1)), axis=2)
        orders[0] = np.arange(levels)
        return pair_signs(orders.astype(float))
    orders = np.array(list(permutations(range(levels))), dtype=float)
    chosen = np.array(list(product(range(len(orders)), repeat=blocks)))
    return pair_signs(orders[chosen])


def trend_draws(signs: Array, levels: int) -> Array:
    """Kendall's S summed over blocks, of levels permuted within each block, (draws, tests).

    Args:
        signs: (tests, blocks, pairs) signs of the differences between levels, from :func:`pair_signs`, or sums of these.
        levels: number of levels, ascending.
    """
    tests, blocks, pairs = signs.shape
    orders = level_orders(levels, blocks, draw_count(max(tests, blocks * pairs)))
    return np.asarray(orders.reshape(len(orders), -1) @ signs.reshape(tests, -1).T)


def mean_tau(scores: Array, pairs: Array, levels: int) -> tuple[Array, Array, Array]:
    """Mean over seeds of Kendall's tau (S over the number of pairs) and a 95% interval.

    The interval is the wider of two: Student's t over seeds, and the score interval of Kendall's upper bound of the variance of
    one series, 2 (1 - tau^2) / levels (Kendall & Gibbons 1990, chapter 4), which stays positive even if all seeds agree.

    Args:
        scores: (keys, seeds) S of each seed.
        pairs: (keys, seeds) numbers of pairs; seeds without any are left out.
        levels: number of values of the axis.

    Returns:
        tau, low, high, (keys,) each, within [-1, 1]; NaN without pairs.
    """
    taus = np.divide(scores, pairs, out=np.full(scores.shape, np.nan), where=pairs > 0)
    n = np.isfinite(taus).sum(axis=1)
    n_or_1 = np.maximum(n, 1)
    tau = np.where(n > 0, np.nansum(taus, axis=1) / n_or_1, np.nan)
    series = np.maximum(pairs.sum(axis=1) / (levels * (levels - 1) / 2), 1.0)
    c = ndtri(0.025) ** 2 * 2 / (levels * series)
    reach = np.sqrt(c * np.maximum(1 + c - tau**2, 0.0))
    low, high = (tau - reach) / (1 + c), (tau + reach) / (1 + c)
    spread = np.sqrt(np.nansum((taus - tau[:, None]) ** 2, axis=1) / np.maximum(n - 1, 1))
    t_low, t_high = t_interval(Estimate(tau, spread / np.sqrt(n_or_1), n - 1))
    return tau, np.clip(np.fmin(low, t_low), -1, 1), np.clip(np.fmax(high, t_high), -1, 1)
