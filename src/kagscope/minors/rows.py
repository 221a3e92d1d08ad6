"""Sums over columns for each row subset: row means, and all column pairs at once by zonogons (MATH.md 4.3)."""

from __future__ import annotations

from math import comb
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kagscope.base.errors import InputError
from kagscope.minors._input import as_matrices, check_k, device_of, placed
from kagscope.minors.enumeration import enumerate_sums
from kagscope.minors.gram import pair_powers
from kagscope.minors.scaling import normalise
from kagscope.minors.subsets import SubsetList
from kagscope.minors.threads import threads
from kagscope.minors.zonogon import row_pair_areas

FloatArray = NDArray[np.float64]


def complete_pairs(n: int) -> SubsetList:
    """All pairs of n columns as one cell."""
    lengths = np.arange(n - 1, 0, -1, dtype=np.int64)
    starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    last = np.concatenate([np.arange(a + 1, n) for a in range(n - 1)] or [np.empty(0, dtype=np.int64)]).astype(np.int64)
    return SubsetList(np.arange(n - 1)[:, None], starts, last, np.zeros(len(last), dtype=np.int64), np.ones((1, 1), dtype=bool))


def row_pair_s1(J: FloatArray) -> FloatArray:
    """(m (m - 1) / 2,) sum of |minor| over all column pairs for each row pair."""
    return row_pair_areas(np.ascontiguousarray(J), threads())


def all_pair_sums(matrix: FloatArray, wanted: frozenset[str]) -> tuple[float, float, float]:
    """S1, S2, S4 of all 2-minors of one normalised matrix, on the side with fewer pairs."""
    if len(matrix) < 2:
        return 0.0, 0.0, 0.0
    side = np.ascontiguousarray(matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T)
    s2, s4 = repaired_row_pairs(side) if wanted & {"s2", "s4"} else (np.zeros(1), np.zeros(1))
    s1 = float(row_pair_s1(side).sum()) if "s1" in wanted else 0.0
    return s1, float(s2.sum()), float(s4.sum())


def repaired_row_pairs(matrix: FloatArray) -> tuple[FloatArray, FloatArray]:
    """S2 and S4 over all column pairs for each row pair, by power Grams; where those cancel, by enumeration."""
    first, second = np.triu_indices(len(matrix), 1)
    columns = np.ascontiguousarray(matrix.T)
    s2, s4, cancels = pair_powers(columns, first, second)
    again = np.flatnonzero(cancels)
    if again.size:
        hard = sublist(first[again], second[again])
        s2[again], s4[again] = enumerate_sums(columns, hard).sums[1:3]
    return s2, s4


def sublist(first: NDArray[np.int64], second: NDArray[np.int64]) -> SubsetList:
    """The pairs (first, second), sorted by first, as one cell."""
    starts = np.concatenate([[0], np.flatnonzero(np.diff(first)) + 1, [first.size]]).astype(np.int64)
    cells = np.zeros(first.size, dtype=np.int64)
    return SubsetList(
        first[starts[:-1]][:, None].astype(np.int64), starts, second.astype(np.int64), cells, np.ones((1, 1), dtype=bool)
    )


def row_means(J: Any, k: int = 1) -> Any:
    """Mean of the |k-minors| over all columns for each row subset, in lexicographic order: Zipf curves and zero rows.

    Args:
        J: (m, n) or (B, m, n) NumPy array or torch tensor.
        k: 1 to 3; exact.

    Returns:
        (C(m, k),) float64 array, or (B, C(m, k)) for a batch; tensors on the device of J if that is CUDA.

    Raises:
        InputError: an unusable matrix, or k beyond 3.
    """
    matrices, batched = as_matrices(J)
    _, m, n = matrices.shape
    k = check_k(k, m, n)
    if k > 3:
        raise InputError(f"k={k}: row means are exact for k = 1, 2, 3; choose one of these")
    normalised, exponent = normalise(matrices)
    sums = np.stack([_row_sums(matrix, k) for matrix in normalised])
    with np.errstate(over="ignore", under="ignore"):
        means = np.ldexp(sums / comb(n, k), k * exponent[:, None])
    return placed(means if batched else means[0], device_of(J))


def _row_sums(matrix: FloatArray, k: int) -> FloatArray:
    if k == 1:
        return np.abs(matrix).sum(axis=1)
    if k == 2:
        return row_pair_s1(matrix)
    from kagscope.minors.bruteforce import row_subsets
    from kagscope.minors.zonotope import row_triple_volumes

    return row_triple_volumes(np.ascontiguousarray(matrix), row_subsets(len(matrix), 3), threads())
