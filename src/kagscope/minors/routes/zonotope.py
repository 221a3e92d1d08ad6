"""S1 for k = 3 as volumes of zonotopes (MATH.md 4.4).

sum_{a<b<c} |det(v_a, v_b, v_c)| = 1/3 sum_a |v_a| (zonogon area of the others projected along v_a). The projection needs no
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

from kagscope.minors.det2 import KERNEL
from kagscope.minors.precise_determinants import integers
from kagscope.minors.routes import register
from kagscope.minors.routes.one_moment import NarrowSide
from kagscope.minors.routes.zonogon import (
    BLOCK_ENTRIES,
    FloatArray,
    IndexArray,
    drop_zero_columns,
    fold_areas,
    index_bits,
    normalise_rows,
    write_keys,
)
from kagscope.minors.task import Task
from kagscope.minors.threads import map_blocks

CANCELLATION = 1e3  # uncancelled over cancelled size above which a triple is recomputed in exact coordinates
UNIT = float(np.finfo(np.float64).eps)
MOST_BITS = 150  # between columns: products of six entries stay in the range
ENTRY_BITS = 450  # between entries of a row: products of two stay in the range, with all their digits
TRIPLES = 1 << 16  # row triples listed at a time


@njit(**KERNEL)
def store_planar(x, y, p, X, Y, coarse_x, coarse_y, x_norms, y_norms):  # type: ignore[no-untyped-def]
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
    """Project the vectors V[:, b] along each listed one; return how large the areas could be without cancellation."""
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
        store_planar(x, y, p, X, Y, coarse_x, coarse_y, x_norms, y_norms)
        bound += pivots[p] * (x_size * y_norms[p] + y_size * x_norms[p] + UNIT * x_size * y_size)  # all may be lost
    return bound


class Planar:
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


def _volume(V: FloatArray, planar: Planar) -> tuple[float, float]:
    """Volume of the zonotope of the columns of V (3, n), and its size without cancellation."""
    total, bound, size = 0.0, 0.0, planar.keys.shape[0]
    for start in range(0, V.shape[1], size):
        columns = np.arange(start, min(start + size, V.shape[1]))
        bound += _project(V, columns, *planar.arguments())
        total += float(planar.volumes(columns.size, True).sum())
    return total / 3, bound / 3


def _pivot(rows: NDArray[np.object_]) -> tuple[int, int]:
    return tuple(np.unravel_index(int(np.argmax(np.abs(rows))), rows.shape))  # type: ignore[return-value]


def _local_coordinates(V: FloatArray) -> tuple[float, FloatArray] | None:
    """|D| and the (3, n) coordinates of the columns of V in a basis of three of them with determinant D; None if coplanar.

    In integers, hence exact until the last rounding, however nearly coplanar the columns are.
    """
    U, exponent = integers(V)
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


def row_triple_volumes(J: FloatArray, triples: IndexArray) -> FloatArray:
    """Sum over all column triples of |det J[R, C]| for each row triple R (MATH.md 4.4), O(n^2 log n) each.

    Args:
        J: (m, n) float64.
        triples: (T, 3) row indices.

    Returns:
        (T,) float64; nearly coplanar rows lose no digits, and dependent ones give 0.
    """
    rows, exponents = normalise_rows(np.ascontiguousarray(J, dtype=np.float64))
    rows = drop_zero_columns(rows)
    n = rows.shape[1]
    volumes = np.zeros(len(triples))
    if n < 3 or not len(triples):
        return volumes
    listed = np.asarray(triples, dtype=np.int64)

    def work(part: slice) -> None:
        planar = Planar(min(n, max(1, BLOCK_ENTRIES // n)), n)
        for t in range(part.start, part.stop):
            V = rows[listed[t]]
            volume, bound = _volume(V, planar)
            if volume * CANCELLATION < bound:
                local = _local_coordinates(V)
                volume = local[0] * _volume(local[1], planar)[0] if local else 0.0
            volumes[t] = volume

    map_blocks(work, len(listed), max(1, 20 * BLOCK_ENTRIES // n**2))
    with np.errstate(under="ignore", over="ignore"):
        return np.ldexp(volumes, exponents[listed].sum(axis=1))


def zonotope_s1(J: FloatArray) -> float:
    """S1 over all 3-minors of J from its row triples; pass ``J.T`` where there are fewer column triples."""
    triples, total = combinations(range(J.shape[0]), 3), 0.0
    while part := list(islice(triples, TRIPLES)):
        total += float(row_triple_volumes(J, np.array(part, dtype=np.int64)).sum())
    return total


@register
class Zonotope(NarrowSide):
    """S1 of all 3-minors of some columns."""

    name = "zonotope volumes"
    k, moment = 3, "s1"
    column_bits, entry_bits = MOST_BITS, ENTRY_BITS

    def steps(self, task: Task) -> dict[str, float]:
        few, many = sorted(task.shape)
        return {"zonogons": math.comb(few, 3) * many**2 * math.log2(max(many, 2))}

    def side_value(self, side: FloatArray) -> float:
        return zonotope_s1(side) if min(side.shape) >= 3 else 0.0
