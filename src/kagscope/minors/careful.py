"""Minors of nearly dependent columns, which products of rounded numbers lose: done again to full precision.

The kernels subtract rounded products. Where the volume of k columns is below 1e-5 of the product of their lengths, what they
find is replaced: for k = 2 by determinants with both products' rounding errors, for k = 3 in twice the precision, beyond by
arithmetic in whole numbers.
"""

from __future__ import annotations

from math import comb

import numpy as np
from numba import njit
from numpy.typing import NDArray

from kagscope.minors._numba import SLOTS, bin_edges, fma
from kagscope.minors.det2 import KERNEL, det2
from kagscope.minors.rank import dependent
from kagscope.minors.threads import map_blocks, run_parts

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
HARD_LENGTH = 1e-5  # volume over the product of lengths below which a column set is done again
HARDER = 1e-18  # and below which twice the precision is not enough
MOST_EXACT = 500_000  # minors in whole numbers, some seconds
UNIT = float(np.finfo(np.float64).eps)


@njit(**KERNEL)
def _pair_sums(J, pairs, edges, sums, hist):  # type: ignore[no-untyped-def]
    """(P, 5) sums over row pairs of each column pair, and (P, slots or 0) histograms."""
    m = J.shape[0]
    for p in range(pairs.shape[0]):
        a, b = pairs[p, 0], pairs[p, 1]
        for i in range(m):
            for j in range(i + 1, m):
                M = abs(det2(J[i, a], J[i, b], J[j, a], J[j, b]))
                if hist.shape[1] > 0:
                    hist[p, np.searchsorted(edges, M, side="right")] += 1
                if M > 0:
                    sums[p, 0] += M
                    sums[p, 1] += M * M
                    sums[p, 2] += M * M * M * M
                    sums[p, 3] += M * np.log(M)
                    sums[p, 4] = max(sums[p, 4], M)


@njit(**KERNEL)
def _two_sum(a, b):  # type: ignore[no-untyped-def]
    """a + b and what rounding took from it (Knuth)."""
    s = a + b
    t = s - a
    return s, (a - (s - t)) + (b - t)


@njit(**KERNEL)
def _difference(a, b, c, d):  # type: ignore[no-untyped-def]
    """a b - c d as the sum of two numbers, to twice the precision."""
    p, q = a * b, c * d
    high, low = _two_sum(p, -q)
    return high, low + fma(a, b, -p) - fma(c, d, -q)


@njit(**KERNEL)
def _triple_sums(J, triples, edges, sums, hist):  # type: ignore[no-untyped-def]
    """(P, 5) sums over row triples of each column triple in twice the precision, and (P, slots or 0) histograms."""
    m = J.shape[0]
    for p in range(triples.shape[0]):
        a, b, c = triples[p, 0], triples[p, 1], triples[p, 2]
        for i in range(m):
            for j in range(i + 1, m):
                s, s_low = _difference(J[i, a], J[j, b], J[j, a], J[i, b])
                for h in range(j + 1, m):
                    t, t_low = _difference(J[i, a], J[h, b], J[h, a], J[i, b])
                    u, u_low = _difference(J[j, a], J[h, b], J[h, a], J[j, b])
                    x, y, z = J[h, c] * s, -J[j, c] * t, J[i, c] * u
                    low = fma(J[h, c], s, -x) + fma(-J[j, c], t, -y) + fma(J[i, c], u, -z)
                    low += J[h, c] * s_low - J[j, c] * t_low + J[i, c] * u_low
                    x, e = _two_sum(x, y)
                    x, f = _two_sum(x, z)
                    M = abs(x + (e + f + low))
                    if hist.shape[1] > 0:
                        hist[p, np.searchsorted(edges, M, side="right")] += 1
                    if M > 0:
                        sums[p, 0] += M
                        sums[p, 1] += M * M
                        sums[p, 2] += M * M * M * M
                        sums[p, 3] += M * np.log(M)
                        sums[p, 4] = max(sums[p, 4], M)


@njit(**KERNEL)
def _twofold_dets(A, found):  # type: ignore[no-untyped-def]
    """found[s] = |det A[s]| by elimination with numbers of twice the precision, each the sum of two."""
    k = A.shape[1]
    H, L = np.empty((k, k)), np.empty((k, k))
    for s in range(A.shape[0]):
        high, low = 1.0, 0.0
        for i in range(k):
            for j in range(k):
                H[i, j], L[i, j] = A[s, i, j], 0.0
        for c in range(k):
            p = c
            for i in range(c + 1, k):
                if abs(H[i, c]) > abs(H[p, c]):
                    p = i
            a, b = H[p, c], L[p, c]
            x = high * a
            high, low = _two_sum(x, fma(high, a, -x) + (high * b + low * a))
            if a == 0:
                break
            for j in range(c, k):
                H[c, j], H[p, j] = H[p, j], H[c, j]
                L[c, j], L[p, j] = L[p, j], L[c, j]
            for i in range(c + 1, k):
                q = H[i, c] / a
                q_low = (fma(-q, a, H[i, c]) + (L[i, c] - q * b)) / a
                for j in range(c + 1, k):
                    x = q * H[c, j]
                    e = fma(q, H[c, j], -x) + (q * L[c, j] + q_low * H[c, j])
                    y, f = _two_sum(H[i, j], -x)
                    H[i, j], L[i, j] = _two_sum(y, f + (L[i, j] - e))
        found[s] = abs(high)


def twofold_dets(A: FloatArray) -> FloatArray:
    """(S,) |det| of (S, k, k), right to about 1e-31 of the product of the columns' lengths."""
    found = np.empty(len(A))
    map_blocks(lambda some: _twofold_dets(A[some], found[some]), len(A), 1 << 12)
    return found


def integers(J: FloatArray) -> tuple[NDArray[np.object_], int]:
    """Python integers and e with J = integers 2^e, exactly."""
    mantissa, exponent = np.frexp(J)
    low = int(exponent[J != 0].min(initial=0)) - 53
    whole = np.ldexp(mantissa, 53).astype(np.int64).astype(object)
    shift = np.maximum(exponent - 53 - low, 0)
    return whole * np.vectorize(lambda s: 1 << int(s), otypes=[object])(shift), low


def exact_minors(A: NDArray[np.object_], exponent: int) -> FloatArray:
    """|det| of (…, k, k) integers times 2^exponent each, rounded once; NumPy's arrays of Python integers do the arithmetic."""
    k, found = A.shape[-1], eliminated(A)
    return np.vectorize(lambda x: _ldexp(x, k * exponent), otypes=[np.float64])(found) if found.size else np.zeros(found.shape)


def eliminated(A: NDArray[np.object_]) -> NDArray[np.object_]:
    """|det| of (…, k, k) integers, by elimination without fractions: every division leaves no rest (Bareiss 1968)."""
    *shape, k, _ = A.shape
    left = A.reshape(-1, k, k).copy()
    every, singular, before = np.arange(len(left)), np.zeros(len(left), dtype=bool), np.ones((len(left), 1, 1), dtype=object)
    for c in range(k - 1):
        row = c + (left[:, c:, c] != 0).argmax(axis=1)
        left[every, c], left[every, row] = left[every, row], left[every, c]
        singular |= left[:, c, c] == 0
        head = np.where(singular, 1, left[:, c, c])[:, None, None]
        rest = left[:, c + 1 :, c + 1 :] * head - left[:, c + 1 :, c : c + 1] * left[:, c : c + 1, c + 1 :]
        left[:, c + 1 :, c + 1 :], before = rest // before, head
    return np.asarray(np.where(singular, 0, np.abs(left[:, -1, -1])).reshape(shape), dtype=object)


def _ldexp(x: int, exponent: int) -> float:
    """x 2^exponent, however large x is."""
    spare = max(x.bit_length() - 64, 0)
    sticky = 1 if x & ((1 << spare) - 1) else 0
    return float(np.ldexp(float((x >> spare) | sticky), exponent + spare))


def moments_of(minors: FloatArray) -> FloatArray:
    """(5, P) S1, S2, S4, entropy and top over the first axis of (rows, P) absolute minors."""
    logs = np.log(np.where(minors > 0, minors, 1.0))
    parts = [minors.sum(axis=0), (minors**2).sum(axis=0), (minors**4).sum(axis=0), (minors * logs).sum(axis=0)]
    return np.stack([*parts, minors.max(axis=0, initial=0.0)])


def slots_of(minors: FloatArray) -> IntArray:
    """(P, SLOTS) histograms of the columns of (rows, P) absolute minors."""
    found = np.zeros((minors.shape[1], SLOTS), dtype=np.int64)
    for place, column in enumerate(minors.T):
        found[place] = np.bincount(np.searchsorted(bin_edges(), column, side="right"), minlength=SLOTS)
    return found


def hard_sets(J: FloatArray, sets: IntArray, s2: FloatArray) -> IntArray:
    """Indices of the column sets (P, k) whose S2 over row sets is too small a share of the product of squared lengths."""
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        lengths = np.sqrt((J * J).sum(axis=0))
        whole = np.ones(len(sets))
        for column in sets.T:
            whole *= lengths[column]
        return np.flatnonzero(
            np.asarray(J.any(axis=0))[sets].all(axis=1) & ~(s2 >= (HARD_LENGTH * whole) ** 2) | ~np.isfinite(whole)
        )


def again(J: FloatArray, sets: IntArray, total: float, histogram: bool) -> tuple[FloatArray, IntArray | None] | None:
    """(5, P) sums and (P, SLOTS) histograms of column sets (P, k), k = 2 or 3, to full precision.

    None where they are too many, and what rounding leaves would show beside ``total``; where it would not, zeros.
    """
    k = sets.shape[1]
    sums, hist = np.zeros((len(sets), 5)), np.zeros((len(sets), SLOTS if histogram else 0), dtype=np.int64)
    step = max(1, 2**20 // comb(len(J), k))
    parts = [slice(start, start + step) for start in range(0, len(sets), step)]
    kernel = _pair_sums if k == 2 else _triple_sums
    run_parts(lambda p: kernel(J, sets[parts[p]], bin_edges(), sums[parts[p]], hist[parts[p]]), len(parts))
    if k == 3:
        with np.errstate(over="ignore", invalid="ignore"):
            sizes = np.linalg.norm(J, axis=0)[sets].prod(axis=1)
            lost = np.flatnonzero(~(sums[:, 1] >= (HARDER * sizes) ** 2))  # sizes beyond the range, too
        if lost.size and not _in_whole_numbers(J, sets, lost, sums, hist, total + float(sums[:, 0].sum())):
            return None
    return sums.T, hist if histogram else None


def _in_whole_numbers(J: FloatArray, sets: IntArray, lost: IntArray, sums: FloatArray, hist: IntArray, total: float) -> bool:
    """Column triples that twice the precision loses, again into ``sums`` and ``hist``; False where they are too many."""
    rows = np.array(np.meshgrid(*[np.arange(len(J))] * 3, indexing="ij")).reshape(3, -1).T
    rows = rows[(rows[:, 0] < rows[:, 1]) & (rows[:, 1] < rows[:, 2])]
    sums[lost] = 0.0
    if hist.shape[1]:
        hist[lost] = 0
        hist[lost, 0] = len(rows)
    left = lost[np.flatnonzero(~dependent(J, sets[lost]))]
    if len(left) * len(rows) > MOST_EXACT:
        sizes = np.linalg.norm(J, axis=0)[sets[left]].prod(axis=1)
        return len(rows) * UNIT**2 * sizes.sum() <= 1e-11 * total
    whole, exponent = integers(J)
    for start in range(0, len(left), max(1, 20_000 // len(rows))):
        some = left[start : start + max(1, 20_000 // len(rows))]
        minors = exact_minors(whole[rows[:, None, :, None], sets[some][None, :, None, :]], exponent)
        sums[some] = moments_of(minors).T
        if hist.shape[1]:
            hist[some] = slots_of(minors)
    return True
