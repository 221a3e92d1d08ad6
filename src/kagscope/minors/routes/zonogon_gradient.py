"""Derivatives of the areas of zonogons (MATH.md section 6): flipped and sorted as for the areas, prefix sums again.

Of S = sum_{a<b} |det(v_a, v_b)|, sorted by slope: dS/dx_a = sum_{b>a} y_b - sum_{b<a} y_b, and
dS/dy_a = sum_{b<a} x_b - sum_{b>a} x_b, times the sign of the flip.
Parallel vectors add nothing to each other's derivative, as |t| has derivative 0 at t = 0.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from kagscope.minors.det2 import KERNEL, det2
from kagscope.minors.routes.zonogon import (
    BLOCK_ENTRIES,
    CANCELLATION,
    FloatArray,
    IndexArray,
    careful_area,
    index_bits,
    normalise_rows,
    write_keys,
)
from kagscope.minors.scaling import times_power_of_two
from kagscope.minors.threads import even_parts, run_parts

ALIKE = 2.0**8  # rows whose lengths differ by less are sorted as they are,
MODERATE = 2.0**64  # if these are between this and its inverse
MAX_PARTS = 16  # each has its own sum of derivatives, so that the order never depends on the threads


@njit(fastmath={"reassoc"}, **KERNEL)
def _survey(X, filled, norms, coarse):  # type: ignore[no-untyped-def]
    """Find nonzero columns, 1-norms of the rows, and X in single precision.

    Returns the least nonzero norm and the largest.
    """
    shortest, longest = math.inf, 0.0
    for a in range(X.shape[1]):
        filled[a] = False
    for i in range(X.shape[0]):
        total = 0.0
        for a in range(X.shape[1]):
            total += abs(X[i, a])
        for a in range(X.shape[1]):
            filled[a] |= X[i, a] != 0
        for a in range(X.shape[1]):
            coarse[i, a] = X[i, a]
        norms[i] = total
        shortest = min(shortest, total if total > 0 else math.inf)
        longest = max(longest, total)
    return shortest, longest


@njit(**KERNEL)
def _gather(x, y, keys, mask, u, v, flips, order):  # type: ignore[no-untyped-def]
    """The vectors flipped into the right half-plane in the order of ``keys``, zero vectors last."""
    for k in range(keys.size):
        a = np.uint32(keys[k] & mask)
        p, q = x[a], y[a]
        flip = math.copysign(1.0, q if p == 0 else p)
        u[k], v[k], flips[k], order[k] = p * flip, q * flip, flip, a


@njit(**KERNEL)
def _count_not_left(u, v, p, q):  # type: ignore[no-untyped-def]
    """How many vectors (p, q) do not lie to the left of (u, v)."""
    count = 0
    for k in range(u.size):
        count += u[k] * q[k] - p[k] * v[k] <= 0
    return count


@njit(**KERNEL)
def _repair_order(u, v, flips, order):  # type: ignore[no-untyped-def]
    """Insertion sort by exact slopes where neighbours are out of order; whether any two neighbours are parallel."""
    n = u.size
    ties = 0
    if _count_not_left(u[:-1], v[:-1], u[1:], v[1:]) == 0:  # slices, since an index k - 1 would be checked for its sign
        return False
    for start in range(1, n, 64):
        stop = min(start + 64, n)
        if _count_not_left(u[start - 1 : stop - 1], v[start - 1 : stop - 1], u[start:stop], v[start:stop]) > 0:
            for k in range(start, stop):
                p, q, f, a = u[k], v[k], flips[k], order[k]
                nonzero = p != 0 or q != 0
                j = k
                while j > 0 and (det2(u[j - 1], p, v[j - 1], q) < 0 or (nonzero and u[j - 1] == 0 and v[j - 1] == 0)):
                    u[j], v[j], flips[j], order[j] = u[j - 1], v[j - 1], flips[j - 1], order[j - 1]
                    j -= 1
                u[j], v[j], flips[j], order[j] = p, q, f, a
                ties += j > 0 and det2(u[j - 1], p, v[j - 1], q) == 0
    return ties > 0


@njit(**KERNEL)
def _slopes(X, first, second, norms, mask, keys, slopes, areas):  # type: ignore[no-untyped-def]
    """slopes[p] = (2, n) derivative of the area of rows (first[p], second[p]) of X, and that area in areas[p].

    Vectors before and after each are summed separately, so that one far longer than the others does not cancel in their sums.
    """
    n = X.shape[1]
    u, v, flips, order = np.empty(n), np.empty(n), np.empty(n), np.empty(n, dtype=np.uint32)
    after_x, after_y = np.zeros(n), np.zeros(n)
    for p in range(first.size):
        x, y = X[first[p]], X[second[p]]
        _gather(x, y, keys[p], mask, u, v, flips, order)
        gx, gy = slopes[p, 0], slopes[p, 1]
        before_x, before_y, twice = 0.0, 0.0, 0.0
        ties = _repair_order(u, v, flips, order)
        right, up = 0.0, 0.0
        for k in range(n - 1, -1, -1):
            after_x[k], after_y[k] = right, up
            right += u[k]
            up += v[k]
        if not ties:
            for k in range(n):
                f, a = flips[k], order[k]
                dx, dy = after_y[k] - before_y, before_x - after_x[k]
                gx[a], gy[a] = f * dx, f * dy
                twice += u[k] * dx + v[k] * dy  # of degree 2: Euler
                before_x += u[k]
                before_y += v[k]
        else:
            start = 0
            while start < n:  # vectors of one slope together
                stop, sx, sy = start + 1, u[start], v[start]
                while stop < n and det2(u[stop - 1], u[stop], v[stop - 1], v[stop]) == 0:
                    sx += u[stop]
                    sy += v[stop]
                    stop += 1
                dx, dy = after_y[stop - 1] - before_y, before_x - after_x[stop - 1]
                for k in range(start, stop):
                    a = order[k]
                    f = flips[k] if u[k] != 0.0 or v[k] != 0.0 else 0.0  # at the tip of a cone: the mean over all directions
                    gx[a], gy[a] = f * dx, f * dy
                twice += sx * dx + sy * dy
                before_x += sx
                before_y += sy
                start = stop
        areas[p] = 0.5 * twice
        bound = norms[first[p]] * norms[second[p]]
        if areas[p] * CANCELLATION < bound:
            areas[p] = careful_area(x, y) if bound > 0 else 0.0


@njit(**KERNEL)
def add_slopes(slopes, first, second, weights, gradient):  # type: ignore[no-untyped-def]
    """Add weights[p] times slopes[p], (2, n), to rows first[p] and second[p] of ``gradient``."""
    for p in range(first.size):
        x, y, gx, gy = gradient[first[p]], gradient[second[p]], slopes[p, 0], slopes[p, 1]
        w = weights[p]
        for a in range(x.size):
            x[a] += w * gx[a]
            y[a] += w * gy[a]


class _Rows:
    """Rows ready to be sorted in pairs: without zero columns, and scaled by powers of two where their lengths differ greatly."""

    def __init__(self, J: FloatArray) -> None:
        rows = np.ascontiguousarray(J, dtype=np.float64)
        keep, self.norms = np.empty(rows.shape[1], dtype=np.bool_), np.empty(len(rows))
        self.coarse = np.empty(rows.shape, dtype=np.float32)
        shortest, longest = _survey(rows, keep, self.norms, self.coarse)
        self.keep = np.flatnonzero(keep) if not keep.all() else slice(None)
        self.exponents = np.zeros(len(rows), dtype=np.int64)
        self.rows = rows
        if not keep.all():
            self.rows, self.coarse = np.ascontiguousarray(rows[:, keep]), np.ascontiguousarray(self.coarse[:, keep])
        if longest > 0 and not 1 / MODERATE < longest / ALIKE < shortest <= longest < MODERATE:
            self.rows, self.exponents = normalise_rows(self.rows)
            self.norms, self.coarse = np.abs(self.rows).sum(axis=1), self.rows.astype(np.float32)
        self.n = self.rows.shape[1]
        self.bits = index_bits(max(self.n, 1))

    def slopes(self, first: IndexArray, second: IndexArray) -> tuple[FloatArray, FloatArray]:
        """(P, 2, n) derivatives and (P,) areas of the scaled rows."""
        keys = np.empty((first.size, self.n), dtype=np.int32)
        write_keys(self.coarse, self.coarse, first, second, self.bits, keys)
        keys.sort(axis=1)
        slopes, areas = np.empty((first.size, 2, self.n)), np.empty(first.size)
        _slopes(self.rows, first, second, self.norms, np.int32(2**self.bits - 1), keys, slopes, areas)
        return slopes, areas


def pair_areas_and_slopes(J: FloatArray, first: IndexArray, second: IndexArray) -> tuple[FloatArray, FloatArray]:
    """Areas as :func:`~.zonogon.pair_areas` finds them, and their derivatives with respect to both rows, from one sort.

    Args:
        J: (m, n) float64.
        first, second: (P,) int64 row indices; few enough that 2 P n numbers fit.

    Returns:
        (P,) and (P, 2, n) float64.
    """
    given = _Rows(J)
    if given.n < 2 or not len(first):
        return np.zeros(len(first)), np.zeros((len(first), 2, J.shape[1]))
    slopes, areas = given.slopes(first, second)
    if given.exponents.any():
        e, f = given.exponents[first], given.exponents[second]
        areas = np.ldexp(areas, e + f)
        slopes = times_power_of_two(slopes, np.stack([f, e], axis=1)[:, :, None])
    if isinstance(given.keep, slice):
        return areas, slopes
    whole = np.zeros((len(first), 2, J.shape[1]))
    whole[:, :, given.keep] = slopes
    return areas, whole


def pair_area_gradient(J: FloatArray, first: IndexArray, second: IndexArray, weights: FloatArray) -> FloatArray:
    """Derivative with respect to J of sum_p weights[p] area_p, the areas being those of :func:`~.zonogon.pair_areas`.

    Args:
        J: (m, n) float64.
        first, second: (P,) int64 row indices, any number of them.
        weights: (P,) float64.

    Returns:
        (m, n) float64. Where a minor is 0, which has no derivative, it counts as 0.
    """
    given = _Rows(J)
    gradient = np.zeros(J.shape)
    if given.n < 2 or not len(first):
        return gradient
    block = max(1, BLOCK_ENTRIES // given.n)
    bounds = even_parts([1.0] * len(first), min(MAX_PARTS, -(-len(first) // block)))
    scaled = weights * np.exp2((given.exponents[first] + given.exponents[second]).astype(np.float64))

    def work(part: int) -> FloatArray:
        partial = np.zeros((len(given.rows), given.n))
        for start in range(bounds[part], bounds[part + 1], block):
            rows = slice(start, min(start + block, bounds[part + 1]))
            add_slopes(given.slopes(first[rows], second[rows])[0], first[rows], second[rows], scaled[rows], partial)
        return partial

    parts = run_parts(work, len(bounds) - 1)
    for part in parts[1:]:
        parts[0] += part
    gradient[:, given.keep] = times_power_of_two(parts[0], -given.exponents[:, None])
    return gradient
