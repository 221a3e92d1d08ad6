"""Whether the rank of a matrix of floats, taken as exact numbers, is below k: every k-minor is then exactly zero."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from kagscope.minors.det2 import KERNEL

FloatArray = NDArray[np.float64]
PRIMES = (2147483629, 2147483587)  # below 2^31, so that products fit 64 bits


@njit(**KERNEL)
def _inverse(a, p):  # type: ignore[no-untyped-def]
    """a^(p - 2) modulo p."""
    result, power = np.int64(1), p - 2
    while power > 0:
        if power & 1:
            result = result * a % p
        a = a * a % p
        power >>= 1
    return result


@njit(**KERNEL)
def _pivots(A, k, p):  # type: ignore[no-untyped-def]
    """Pivots of elimination modulo p, at most k."""
    m, n = A.shape
    rank = 0
    for c in range(n):
        r = rank
        while r < m and A[r, c] == 0:
            r += 1
        if r == m:
            continue
        for j in range(c, n):
            A[rank, j], A[r, j] = A[r, j], A[rank, j]
        inverse = _inverse(A[rank, c], p)
        for i in range(rank + 1, m):
            f = A[i, c] * inverse % p
            if f:
                for j in range(c, n):
                    A[i, j] = (A[i, j] - f * A[rank, j]) % p
        rank += 1
        if rank == k:
            break
    return rank


@njit(**KERNEL)
def _all_dependent(residues, sets, p, results):  # type: ignore[no-untyped-def]
    """found[s]: whether the columns of each set are linearly dependent modulo p."""
    m, k = residues.shape[0], sets.shape[1]
    A = np.empty((k, m), np.int64)
    for s in range(sets.shape[0]):
        for j in range(k):
            for i in range(m):
                A[j, i] = residues[i, sets[s, j]]
        results[s] = _pivots(A, k, p) < k


@njit(**KERNEL)
def _all_singular(residues, rows, columns, p, results):  # type: ignore[no-untyped-def]
    """found[s]: whether the square matrix of each row set and column set is singular modulo p, for those that may be."""
    k = rows.shape[1]
    A = np.empty((k, k), np.int64)
    for s in range(rows.shape[0]):
        if results[s]:
            for i in range(k):
                for j in range(k):
                    A[i, j] = residues[rows[s, i], columns[s, j]]
            results[s] = _pivots(A, k, p) < k


def _residues(J: FloatArray, p: int) -> NDArray[np.int64]:
    """J 2^e modulo p, for an e that makes all entries whole."""
    mantissa, exponent = np.frexp(J)
    whole, low = np.ldexp(mantissa, 53).astype(np.int64), int(exponent[J != 0].min(initial=0))
    power = np.array([pow(2, e, p) for e in range(int((exponent - low)[J != 0].max(initial=0)) + 1)], dtype=np.int64)
    return np.asarray(whole % p * power[np.clip(exponent - low, 0, len(power) - 1)] % p)


def rank_below(J: FloatArray, k: int) -> bool:
    """Whether fewer than k rows of J (m, n) are linearly independent, as exact numbers.

    By elimination modulo two primes of 31 bits: the rank there is never above the true one, and below it for one matrix in 10^18.
    """
    return min(J.shape) < k or all(_pivots(_residues(J, p), k, np.int64(p)) < k for p in PRIMES)


def singular(J: FloatArray, rows: NDArray[np.int64], columns: NDArray[np.int64]) -> NDArray[np.bool_]:
    """(P,) whether the minor of each row set and column set, (P, k) both, is zero, as exact numbers; by the same elimination."""
    is_singular = np.ones(len(rows), dtype=np.bool_)
    for p in PRIMES:
        _all_singular(_residues(J, p), np.ascontiguousarray(rows), np.ascontiguousarray(columns), np.int64(p), is_singular)
    return is_singular


def dependent(J: FloatArray, sets: NDArray[np.int64]) -> NDArray[np.bool_]:
    """(P,) whether the columns of each set (P, k) are linearly dependent, as exact numbers; by the same elimination."""
    both = np.empty((2, len(sets)), dtype=np.bool_)
    for row, p in enumerate(PRIMES):
        _all_dependent(_residues(J, p), np.ascontiguousarray(sets), np.int64(p), both[row])
    return np.asarray(both.all(axis=0))
