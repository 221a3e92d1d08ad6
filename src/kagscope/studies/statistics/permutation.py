"""Permutation tests of the mean for many numbers at once, under the hypothesis that training or group makes no difference.

All numbers of a draw are permuted together, so the draws keep the dependence between numbers, which
:func:`~kagscope.studies.statistics.multiple_testing.step_down` uses.
A table of draws is (draws, tests); its first row is the observed data.
"""

from __future__ import annotations

from itertools import product

import numpy as np

from kagscope.studies.statistics.student import Array

ENUMERATED = 10_000  # maximum number of enumerated permutations; of more, as many are drawn
NUMBERS_AT_ONCE = 2**24  # in a table of draws: 128 MB
ROUNDING = 1e-9  # sums that differ by less count as equal
FEWEST_DRAWS = 999


def sign_flips(n: int, draws: int = ENUMERATED, seed: int = 0) -> Array:
    """Signs of n differences, (draws, n) of -1 and 1: all 2^n if at most ``draws``, else random ones."""
    if 2**n <= draws:
        return np.array(list(product((1.0, -1.0), repeat=n))).reshape(2**n, n)
    signs = np.random.default_rng(seed).choice([-1.0, 1.0], size=(draws, n))
    signs[0] = 1
    return signs


def flip_draws(differences: Array) -> Array:
    """Sums of (n, tests) paired differences under flipped signs, (draws, tests): Fisher's permutation test of the mean.

    The numbers of one pair (one row) flip together. NaN are left out.
    """
    d = np.where(np.isfinite(differences), differences, 0.0)
    return np.asarray(sign_flips(len(d), draw_count(d.shape[1])) @ d)


def draw_count(width: int) -> int:
    """Maximum number of permutations of ``width`` numbers to draw, limited by memory."""
    return int(np.clip(NUMBERS_AT_ONCE // max(width, 1), FEWEST_DRAWS + 1, ENUMERATED))


def one_sided(draws: Array) -> Array:
    """(tests,) share of the draws that are at least as large as the data."""
    reach = draws[0] - ROUNDING * np.abs(draws).max(axis=0)
    return np.asarray((draws >= reach).mean(axis=0))


def fewest_pairs(alpha: float) -> int:
    """Smallest number of pairs for which all 2^n sign flips can reach a one-sided p-value below ``alpha``."""
    return next(n for n in range(1, 60) if 2.0**-n < alpha)


def two_sided(draws: Array) -> Array:
    """(tests,) share of the draws that are at least as far from 0 as the data."""
    return np.asarray((np.abs(draws) >= (1 - ROUNDING) * np.abs(draws[0])).mean(axis=0))
