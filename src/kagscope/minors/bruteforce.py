"""Minors of any order, one by one, in chunks: for k >= 4 when there are few, and as the plain reference in tests."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations
from math import comb

import numpy as np
from numpy.typing import NDArray

from kagscope.base.errors import InputError

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
MAX_ENTRIES = 2**26


def row_subsets(m: int, k: int) -> IntArray:
    """(C(m, k), k) row subsets in lexicographic order."""
    return np.array(list(combinations(range(m), k)), dtype=np.int64).reshape(-1, k)


def clique_subsets(adjacency: NDArray[np.bool_], k: int) -> IntArray:
    """(count, k) subsets whose pairs are all allowed, in lexicographic order."""
    n = len(adjacency)
    subsets = np.arange(n)[:, None]
    for _ in range(k - 1):
        grown = []
        for subset in subsets:
            later = np.flatnonzero(adjacency[subset, subset[-1] + 1 :].all(axis=0)) + subset[-1] + 1
            grown.append(np.concatenate([np.tile(subset, (len(later), 1)), later[:, None]], axis=1))
        subsets = np.concatenate(grown) if grown else np.empty((0, subsets.shape[1] + 1), dtype=np.int64)
    return subsets.astype(np.int64)


def minor_blocks(J: FloatArray, rows: IntArray, columns: IntArray, entries: int = 2**20) -> Iterator[FloatArray]:
    """|det J[R, C]| for blocks of column subsets, each (row subsets, block), at most about ``entries`` of them at a time."""
    step = max(1, entries // max(1, len(rows) * rows.shape[1] ** 2))
    for start in range(0, len(columns), step):
        block = columns[start : start + step]
        yield np.abs(_det(J[rows[:, None, :, None], block[None, :, None, :]]))


def _det(A: FloatArray) -> FloatArray:
    """Determinants of (…, k, k). For k <= 3 those of whole numbers are exact; LAPACK's pivots would leave rounding for a zero."""
    k = A.shape[-1]
    if k == 2:
        return np.asarray(A[..., 0, 0] * A[..., 1, 1] - A[..., 0, 1] * A[..., 1, 0])
    if k == 3:
        return np.asarray(sum(A[..., 0, i] * _det(A[..., 1:, [(i + 1) % 3, (i + 2) % 3]]) for i in range(3)))
    return np.asarray(np.linalg.det(A))


def minor_matrix(J: FloatArray, k: int) -> FloatArray:
    """(C(m, k), C(n, k)) all |minors| of one matrix. Raises :class:`InputError` beyond 2^26 of them."""
    m, n = J.shape
    if comb(m, k) * comb(n, k) > MAX_ENTRIES:
        raise InputError(
            f"the {k}-minor matrix of a {m} x {n} matrix has {comb(m, k) * comb(n, k):.2e} entries, more than {MAX_ENTRIES}; "
            f"use a smaller k or fewer columns"
        )
    if k == 1:
        return np.abs(J)
    return np.concatenate(list(minor_blocks(J, row_subsets(m, k), row_subsets(n, k))), axis=1)
