"""Permutation tests of many numbers at once: what could have been had training, the group or the level made no difference.

All numbers of a draw are permuted together, so the draws keep how the numbers hang together; :func:`step_down` uses that.
A table of draws is (draws, tests); its first row is the data as they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations, product
from math import factorial

import numpy as np

from kagscope.studies.statistics import Array, holm

ENUMERATED = 10_000  # permutations, at most; beyond, as many are drawn
NUMBERS_AT_ONCE = 2**24  # of a table of draws: 128 MB
ROUNDING = 1e-9  # sums that differ by less are equal
FEWEST_DRAWS = 999


def sign_flips(n: int, draws: int = ENUMERATED, seed: int = 0) -> Array:
    """Signs of n differences, (draws, n) of -1 and 1: all 2^n where these are no more than ``draws``, else drawn ones."""
    if 2**n <= draws:
        return np.array(list(product((1.0, -1.0), repeat=n))).reshape(2**n, n)
    signs = np.random.default_rng(seed).choice([-1.0, 1.0], size=(draws, n))
    signs[0] = 1
    return signs


def pair_signs(values: Array) -> Array:
    """Signs of all differences between levels, later minus earlier: (..., levels) to (..., pairs); 0 for ties and NaN."""
    first, second = np.triu_indices(values.shape[-1], 1)
    return np.nan_to_num(np.sign(values[..., second] - values[..., first]))


def order_count(levels: int, blocks: int) -> float:
    """Number of ways to permute the levels within every block."""
    return float(factorial(min(levels, 20))) ** min(blocks, 10)  # far beyond what is enumerated


def level_orders(levels: int, blocks: int, draws: int = ENUMERATED, seed: int = 0) -> Array:
    """Pair signs of the levels after permuting them within every block, (draws, blocks, pairs): all orders or drawn ones."""
    if order_count(levels, blocks) > draws:
        orders = np.random.default_rng(seed).permuted(np.tile(np.arange(levels), (draws, blocks, 1)), axis=2)
        orders[0] = np.arange(levels)
        return pair_signs(orders.astype(float))
    each = np.array(list(permutations(range(levels))), dtype=float)
    which = np.array(list(product(range(len(each)), repeat=blocks)))
    return pair_signs(each[which])


def flip_draws(differences: Array, seed: int = 0) -> Array:
    """Sums of (n, tests) paired differences under flipped signs, (draws, tests): Fisher's permutation test of the mean.

    The numbers of one pair flip together. NaN are left out.

    Args:
        differences: one row per pair.
        seed: of the drawn signs, where not all 2^n are enumerated.
    """
    d = np.where(np.isfinite(differences), differences, 0.0)
    return np.asarray(sign_flips(len(d), _draws(d.shape[1]), seed) @ d)


def trend_draws(signs: Array, levels: int, seed: int = 0) -> Array:
    """Kendall's S summed over blocks, of levels permuted within each block, (draws, tests).

    Args:
        signs: (tests, blocks, pairs) signs of the differences between levels, as of :func:`pair_signs` or sums of such.
        levels: number of levels, ascending.
        seed: of the drawn orders, where not all are enumerated.
    """
    tests, blocks, pairs = signs.shape
    orders = level_orders(levels, blocks, _draws(max(tests, blocks * pairs)), seed)
    return np.asarray(orders.reshape(len(orders), -1) @ signs.reshape(tests, -1).T)


def _draws(width: int) -> int:
    return int(np.clip(NUMBERS_AT_ONCE // max(width, 1), FEWEST_DRAWS + 1, ENUMERATED))


def two_sided(draws: Array) -> Array:
    """(tests,) share of the draws that lie at least as far from 0 as the data do."""
    return np.asarray((np.abs(draws) >= (1 - ROUNDING) * np.abs(draws[0])).mean(axis=0))


def step_down(draws: Array) -> Array:
    """p-values adjusted for all tests together: Westfall & Young 1993, algorithm 4.1 (step-down max T).

    Controls the probability of any false rejection in the family, as Holm's method does, but counts numbers that move together
    as one. With n pairs it can reach 2 / 2^n however many numbers are tested, where Holm's method multiplies by their number.

    Returns:
        (tests,); 1 where every draw of a test is 0.
    """
    spread = np.sqrt((draws**2).mean(axis=0))
    size = np.abs(np.divide(draws, spread, out=np.zeros_like(draws), where=spread > 0))
    order = np.argsort(-size[0], kind="stable")
    largest = np.zeros(len(size), dtype=size.dtype)
    adjusted = np.empty(order.size)
    for place in order[::-1]:  # the largest of this test and all smaller ones
        largest = np.maximum(largest, size[:, place])
        adjusted[place] = (largest >= (1 - ROUNDING) * size[0, place]).mean()
    adjusted[order] = np.maximum.accumulate(adjusted[order])
    return adjusted


def holm_within(p_values: Sequence[float] | Array, families: Sequence[str]) -> Array:
    """Holm's adjustment within each family; NaN is no test."""
    p, names = np.asarray(p_values, dtype=float), np.asarray(families, dtype=object)
    adjusted = np.full(p.shape, np.nan)
    for family in dict.fromkeys(families):
        members = np.flatnonzero((names == family) & np.isfinite(p))
        adjusted[members] = holm(p[members].tolist())
    return adjusted
