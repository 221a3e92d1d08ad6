"""S1 for k = 3 as volumes of zonotopes (MATH.md 4.4), and for any k >= 3 by sampling rows and all but two columns.

sum_{a<b<c} |det(v_a, v_b, v_c)| = 1/3 sum_a |v_a| (zonogon area of the others seen along v_a). "Seen along v_a" needs no
rotation: one step of elimination with the largest entry of v_a as pivot leaves two coordinates in which the same identity
holds.
"""

from __future__ import annotations

import math
from fractions import Fraction
from itertools import combinations, islice
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from kagscope.base.errors import InputError
from kagscope.minors.determinants import KERNEL
from kagscope.minors.haar import Estimate
from kagscope.minors.parallel import map_blocks
from kagscope.minors.zonogon import (
    BLOCK_ENTRIES,
    FloatArray,
    IndexArray,
    balanced_rows,
    fold_areas,
    index_bits,
    without_zero_columns,
    write_keys,
)

CANCELLATION = 1e3  # uncancelled over cancelled size above which a triple is done again in exactly computed coordinates
TRIPLES = 1 << 16  # row triples listed at a time
DRAWS = 128  # per block of sampling; part of what a seed means


@njit(**KERNEL)
def _store(x, y, p, X, Y, coarse_x, coarse_y, x_norms, y_norms):  # type: ignore[no-untyped-def]
    """Row p of the 2-D problem, and its copy for the keys, both coordinates there of mean size 1 so that slopes spread out."""
    n = x.size
    s = t = 0.0
    for b in range(n):
        X[p, b] = x[b]
        Y[p, b] = y[b]
        s += abs(x[b])
        t += abs(y[b])
    x_norms[p] = s
    y_norms[p] = t
    s = n / s if s > 0 else 0.0
    t = n / t if t > 0 else 0.0
    for b in range(n):
        coarse_x[p, b] = np.float32(x[b] * s)
        coarse_y[p, b] = np.float32(y[b] * t)


@njit(**KERNEL)
def _project(V, columns, X, Y, coarse_x, coarse_y, x_norms, y_norms, pivots):  # type: ignore[no-untyped-def]
    """The vectors V[:, b] seen along each listed one; returns how large the areas could be had nothing cancelled."""
    n = V.shape[1]
    x, y = np.empty(n), np.empty(n)
    bound = 0.0
    for p in range(columns.size):
        a = columns[p]
        r = 0
        for i in range(1, 3):
            if abs(V[i, a]) > abs(V[r, a]):
                r = i
        pivots[p] = abs(V[r, a])
        s, t = (r + 1) % 3, (r + 2) % 3
        f = V[s, a] / V[r, a] if V[r, a] != 0 else 0.0
        g = V[t, a] / V[r, a] if V[r, a] != 0 else 0.0
        x_size = y_size = 0.0
        for b in range(n):
            x[b] = V[s, b] - f * V[r, b]
            y[b] = V[t, b] - g * V[r, b]
            x_size += abs(V[s, b]) + abs(f * V[r, b])
            y_size += abs(V[t, b]) + abs(g * V[r, b])
        x[a] = y[a] = 0.0
        _store(x, y, p, X, Y, coarse_x, coarse_y, x_norms, y_norms)
        bound += pivots[p] * (x_size * y_norms[p] + y_size * x_norms[p])
    return bound


class _Planar:
    """Buffers for ``size`` zonogons of n vectors, and their areas."""

    def __init__(self, size: int, n: int) -> None:
        self.exact = np.empty((2, size, n))
        self.coarse = np.empty((2, size, n), dtype=np.float32)
        self.norms = np.empty((2, size))
        self.keys = np.empty((size, n), dtype=np.int32)
        self.factors = np.empty(size)
        self.bits = index_bits(n)

    def arguments(self) -> tuple[Any, ...]:
        return (*self.exact, *self.coarse, *self.norms, self.factors)

    def volumes(self, count: int, careful: bool) -> FloatArray:
        """factors * areas of the first ``count``."""
        rows, keys, areas = np.arange(count), self.keys[:count], np.empty(count)
        write_keys(*self.coarse, rows, rows, self.bits, keys)
        keys.sort(axis=1)
        fold_areas(*self.exact, rows, rows, *self.norms, np.int32(2**self.bits - 1), keys, careful, areas)
        return self.factors[:count] * areas


def _volume(V: FloatArray, planar: _Planar) -> tuple[float, float]:
    """Volume of the zonotope of the columns of V (3, n), and how large it would be had nothing cancelled."""
    total, bound, size = 0.0, 0.0, planar.keys.shape[0]
    for start in range(0, V.shape[1], size):
        columns = np.arange(start, min(start + size, V.shape[1]))
        bound += _project(V, columns, *planar.arguments())
        total += float(planar.volumes(columns.size, True).sum())
    return total / 3, bound / 3


def _integers(V: FloatArray) -> tuple[NDArray[np.object_], int]:
    """Exact integers and e with V = integers * 2^e."""
    mantissa, exponent = np.frexp(V)
    low = int(exponent[V != 0].min(initial=0)) - 53
    whole = [
        [int(x) << max(0, int(e) - 53 - low) for x, e in zip(xs, es, strict=True)]
        for xs, es in zip(np.ldexp(mantissa, 53), exponent, strict=True)
    ]
    return np.array(whole, dtype=object), low


def _pivot(rows: NDArray[np.object_]) -> tuple[int, int]:
    return tuple(np.unravel_index(int(np.argmax(np.abs(rows))), rows.shape))  # type: ignore[return-value]


def _own_coordinates(V: FloatArray) -> tuple[float, FloatArray] | None:
    """|D| and the (3, n) coordinates of the columns of V in a basis of three of them with determinant D; None if coplanar.

    In whole numbers, hence exact until the last rounding: however nearly coplanar the columns, their coordinates are right.
    """
    U, exponent = _integers(V)
    r, p = _pivot(U)
    first = U[r]
    if first[p] == 0:
        return None
    W = np.delete(U, r, axis=0)
    W = W * first[p] - np.outer(W[:, p], first)
    r, q = _pivot(W)
    second, third = W[r], W[1 - r]
    if second[q] == 0:
        return None
    Z = (third * second[q] - third[q] * second) // first[p]  # exact (Bareiss)
    s = int(np.argmax(np.abs(Z)))
    D = Z[s]
    if D == 0:
        return None
    middle = second * D - Z * second[s]  # times second[q] D
    upper = first * second[q] * D - middle * first[q] - Z * second[q] * first[s]  # times first[p] second[q] D
    scale = second[q] * D
    coordinates = [[int(x) / int(d) for x in row] for row, d in ((upper, first[p] * scale), (middle, scale), (Z, D))]
    return float(abs(Fraction(int(D))) * Fraction(2) ** (3 * exponent)), np.array(coordinates)


def row_triple_volumes(J: FloatArray, triples: IndexArray, threads: int | None = None) -> FloatArray:
    """Sum over all column triples of |det J[R, C]| for each row triple R (MATH.md 4.4), O(n^2 log n) each.

    Args:
        J: (m, n) float64.
        triples: (T, 3) row indices.
        threads: at most this many; None means all processors. The result does not depend on it.

    Returns:
        (T,) float64; nearly coplanar rows lose no digits, and dependent ones give 0.
    """
    rows, exponents = balanced_rows(np.ascontiguousarray(J, dtype=np.float64))
    rows = without_zero_columns(rows)
    n = rows.shape[1]
    volumes = np.zeros(len(triples))
    if n < 3 or not len(triples):
        return volumes
    listed = np.asarray(triples, dtype=np.int64)

    def work(part: slice) -> None:
        planar = _Planar(min(n, max(1, BLOCK_ENTRIES // n)), n)
        for t in range(part.start, part.stop):
            V = rows[listed[t]]
            volume, bound = _volume(V, planar)
            if volume * CANCELLATION < bound:
                own = _own_coordinates(V)
                volume = own[0] * _volume(own[1], planar)[0] if own else 0.0
            volumes[t] = volume

    map_blocks(work, len(listed), max(1, 20 * BLOCK_ENTRIES // n**2), threads)
    with np.errstate(under="ignore", over="ignore"):
        return np.ldexp(volumes, exponents[listed].sum(axis=1))


def zonotope_s1(J: FloatArray, threads: int | None = None) -> float:
    """S1 over all 3-minors of J from its row triples; pass ``J.T`` where there are fewer column triples."""
    triples, total = combinations(range(J.shape[0]), 3), 0.0
    while part := list(islice(triples, TRIPLES)):
        total += float(row_triple_volumes(J, np.array(part, dtype=np.int64), threads).sum())
    return total


@njit(**KERNEL)
def _draw(J, rows, uniforms, X, Y, coarse_x, coarse_y, x_norms, y_norms, weights):  # type: ignore[no-untyped-def]
    """For each set of k rows, k - 2 columns in turn, each with probability proportional to its length seen along those before."""
    n, k = J.shape[1], rows.shape[1]
    V, lengths = np.empty((k, n)), np.empty(n)
    for p in range(rows.shape[0]):
        for i in range(k):
            for b in range(n):
                V[i, b] = J[rows[p, i], b]
        weights[p] = 1.0
        for step in range(k - 2):
            total = 0.0
            for b in range(n):
                square = 0.0
                for i in range(step, k):
                    square += V[i, b] * V[i, b]
                lengths[b] = math.sqrt(square)
                total += lengths[b]
            target = uniforms[p, step] * total
            a, passed = -1, 0.0
            for b in range(n):
                if lengths[b] > 0:
                    a = b
                    passed += lengths[b]
                    if passed > target:
                        break
            if a < 0:
                weights[p] = 0.0
                break
            r = step
            for i in range(step, k):
                if abs(V[i, a]) > abs(V[r, a]):
                    r = i
            for b in range(n):
                V[step, b], V[r, b] = V[r, b], V[step, b]
            weights[p] *= abs(V[step, a]) * total / lengths[a]
            for i in range(step + 1, k):
                f = V[i, a] / V[step, a]
                for b in range(n):
                    V[i, b] -= f * V[step, b]
                V[i, a] = 0.0
        _store(V[k - 2], V[k - 1], p, X, Y, coarse_x, coarse_y, x_norms, y_norms)


def _symmetric_sums(weights: FloatArray, k: int) -> FloatArray:
    """(m + 1, k + 1): e_r of the first i weights."""
    table = np.zeros((len(weights) + 1, k + 1))
    table[:, 0] = 1.0
    for i, weight in enumerate(weights):
        table[i + 1, 1:] = table[i, 1:] + weight * table[i, :-1]
    return table


def _row_sets(weights: FloatArray, table: FloatArray, k: int, count: int, generator: np.random.Generator) -> IndexArray:
    """(count, k) row sets, each with probability proportional to the product of its weights, decided row by row from the last."""
    chosen = np.empty((count, k), dtype=np.int64)
    left = np.full(count, k)
    for i in range(len(weights) - 1, -1, -1):
        take = weights[i] * table[i, left - 1]
        keep = table[i, left]
        here = (left > 0) & (generator.random(count) * (take + keep) < take)
        chosen[here, left[here] - 1] = i
        left -= here
    return chosen


def s1_sampled(
    J: FloatArray,
    k: int,
    rel_error: float = 0.01,
    seed: int = 0,
    max_draws: int = 1 << 20,
    threads: int | None = None,
) -> Estimate:
    """S1 over all k-minors, k >= 3, unbiased: sampled rows and k - 2 sampled columns, exact over the last two (Rao–Blackwell).

    Row sets are drawn in proportion to the product of their lengths, each column to its length seen along those before it;
    the zonogon of what is left sums over all n^2 / 2 pairs of further columns at once. The number of draws doubles until the
    standard error is small enough.

    Args:
        J: (m, n) float64.
        k: order of the minors.
        rel_error: standard error over value at which to stop.
        seed: of the draws; the same seed gives the same bits, whatever the number of threads and the time it takes.
        max_draws: most draws.
        threads: at most this many; None means all processors.

    Raises:
        InputError: k is not in 3 … min(m, n).
    """
    m, n = J.shape
    if not 3 <= k <= min(m, n):
        raise InputError(
            f"k={k}, expected 3 to {min(m, n)} for a matrix of {m} rows and {n} columns; S1 of smaller minors is exact and fast"
        )
    rows, exponents = balanced_rows(np.ascontiguousarray(J, dtype=np.float64))
    rows = np.ascontiguousarray(rows[np.any(rows != 0, axis=1)][:, np.any(rows != 0, axis=0)])
    exponents = exponents[np.any(J != 0, axis=1)]
    if min(rows.shape) < k:
        return Estimate(0.0, 0.0)
    lengths = np.linalg.norm(rows, axis=1)
    rows /= lengths[:, None]
    shift = int(exponents.max())
    with np.errstate(under="ignore"):
        weights = np.ldexp(lengths, exponents - shift)
    table = _symmetric_sums(weights, k)
    total = table[-1, k] / (math.factorial(k) / 2)

    def work(part: slice) -> FloatArray:
        count = part.stop - part.start
        generator = np.random.default_rng([seed, (values.size + part.start) // DRAWS])
        chosen = _row_sets(weights, table, k, count, generator)
        planar = _Planar(count, rows.shape[1])
        _draw(rows, chosen, generator.random((count, k - 2)), *planar.arguments())
        return planar.volumes(count, False)

    values, target = np.empty(0), 4 * DRAWS
    while True:
        more = map_blocks(work, target - values.size, DRAWS, threads)
        values = np.concatenate([values, *more])
        mean, error = float(values.mean()), float(values.std(ddof=1) / math.sqrt(values.size))
        if error <= rel_error * mean or 2 * target > max_draws:
            with np.errstate(over="ignore", under="ignore"):
                return Estimate(float(np.ldexp(mean * total, k * shift)), float(np.ldexp(error * total, k * shift)))
        target *= 2
