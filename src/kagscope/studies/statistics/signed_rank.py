"""Wilcoxon's signed-rank test of paired differences, one per network: what the claims are judged by."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from kagscope.studies.statistics.student import Alternative, Array

_EXACT_UP_TO = 50  # nets


@dataclass(frozen=True)
class TestResult:
    """A test's p-value and the number of nets it counted."""

    __test__ = False  # not a test case, whatever pytest makes of the name

    p_value: float
    n: int


def signed_rank_test(differences: ArrayLike, alternative: Alternative = "greater") -> TestResult:
    """Test that paired differences, one per net, lie on one side of 0 (Wilcoxon 1945).

    Exact up to 50 nets, ties by mean ranks; normal beyond.

    Args:
        differences: One per net; NaN are left out, zeros count for neither side.
        alternative: The side on which the differences are claimed to lie.

    Returns:
        p (1 if all differences are zero, NaN without any net), number of nets.
    """
    d = np.asarray(differences, dtype=np.float64).ravel()
    d = d[np.isfinite(d)]
    if d.size == 0:
        return TestResult(np.nan, 0)
    nonzero = d[d != 0]
    if nonzero.size == 0:
        return TestResult(1.0, int(d.size))
    if nonzero.size <= _EXACT_UP_TO:
        p_value = _exact_signed_rank(nonzero, alternative)
    else:
        p_value = float(stats.wilcoxon(nonzero, alternative=alternative, method="approx").pvalue)
    return TestResult(p_value, int(d.size))


def _exact_signed_rank(nonzero: Array, alternative: Alternative) -> float:
    """p under all assignments of signs, ties by mean ranks: the distribution of twice the rank sum, rank by rank.

    Counts stay below 2^50 and are exact in float64; scipy's exact method knows no ties, and its enumeration takes seconds.
    """
    doubled = np.rint(2 * stats.rankdata(np.abs(nonzero))).astype(np.int64)
    ways = np.ones(1)
    for rank in doubled:
        ways = np.concatenate([ways, np.zeros(rank)]) + np.concatenate([np.zeros(rank), ways])
    positive = int(doubled[nonzero > 0].sum())
    total = float(ways.sum())
    above, below = float(ways[positive:].sum()) / total, float(ways[: positive + 1].sum()) / total
    return {"greater": above, "less": below, "two-sided": min(1.0, 2 * min(above, below))}[alternative]


def equivalence_test(differences: ArrayLike, low: float, high: float) -> TestResult:
    """Two one-sided paired tests that the differences lie between ``low`` and ``high`` (Schuirmann 1987): the larger p-value."""
    d = np.asarray(differences, dtype=np.float64).ravel()
    above, below = signed_rank_test(d - low, "greater"), signed_rank_test(d - high, "less")
    return TestResult(max(above.p_value, below.p_value), above.n)
