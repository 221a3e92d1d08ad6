"""S1 for k = 2 as areas of zonogons (MATH.md 4.3): O(n log n) per pair of rows instead of O(n^2), exact.

For 2-D vectors v_1 … v_n, sum_{a<b} |det(v_a, v_b)| is the area of the polygon that they generate: flip every v into the
right half-plane, sort by slope, and sum cross(running sum, next v). Sorting dominates, so it is done on 32-bit integer keys
(slope above, index below) by NumPy's SIMD sort; the order of slopes with equal keys is corrected afterwards by exact cross
products.
"""

from __future__ import annotations

import math
from hashlib import blake2b

import numpy as np
from numba import njit
from numpy.typing import NDArray

from kagscope.minors.det2 import KERNEL, det2
from kagscope.minors.plan import BYTES_A_SUBSET
from kagscope.minors.routes import register
from kagscope.minors.routes.one_moment import OneMoment
from kagscope.minors.scaling import column_span, entry_span, narrow, times_power_of_two
from kagscope.minors.subsets import cached_subsets, pairs_of
from kagscope.minors.task import Task
from kagscope.minors.threads import map_blocks

FloatArray = NDArray[np.float64]
IndexArray = NDArray[np.int64]

REMEMBERED = 2**25  # bytes of row-pair areas
BLOCK_ENTRIES = 100_000  # keys sorted at a time: two blocks stay in the second-level cache
CANCELLATION = 16.0  # |x|_1 |y|_1 over the area: beyond, the pair is recomputed in coordinates that do not cancel
MOVES = 4  # insertion moves per vector before the keys count as useless
MOST_BITS = 450  # between columns: products of two entries stay in the range
ENTRY_BITS = 900  # between entries of a row: beyond, some have fewer digits where the largest is 1


@njit(**KERNEL)
def write_keys(X, Y, x_rows, y_rows, bits, keys):  # type: ignore[no-untyped-def]
    """keys[p, a] = slope y / (|x| + |y|) of vector a in the upper bits, a in the lower ``bits``; zero vectors sort last."""
    n = X.shape[1]
    scale = np.float32(2.0 ** (31 - bits) - 2)
    last = np.int32(2 ** (31 - bits) - 1)
    shift = np.int32(bits)
    for p in range(x_rows.size):
        x, y, out = X[x_rows[p]], Y[y_rows[p]], keys[p]
        for a in range(n):
            u, v = x[a], y[a]
            size = abs(u) + abs(v)
            slope = v / size
            slope = -slope if u < 0 else slope  # the flip into the right half-plane; vertical vectors point up
            slope = abs(slope) if u == 0 else slope
            slope = np.float32(0) if size == 0 else slope
            level = np.int32(slope * scale)
            level = last if size == 0 else level
            out[a] = np.int32(level << shift) | np.int32(a)


@njit(**KERNEL)
def _gather(x, y, keys, mask, u, v):  # type: ignore[no-untyped-def]
    for k in range(keys.size):
        a = np.uint64(np.uint32(keys[k] & mask))
        p, q = x[a], y[a]
        u[k] = abs(p)
        v[k] = abs(q) if p == 0 else q * math.copysign(1.0, p)


@njit(**KERNEL)
def _repair(u, v):  # type: ignore[no-untyped-def]
    """Insertion sort by exact slopes where neighbours are out of order; False when the order was too far off to be worth it."""
    n = u.size
    moves = 0
    for start in range(1, n, 64):
        stop = min(start + 64, n)
        wrong = 0
        for k in range(start, stop):
            wrong += u[k - 1] * v[k] - u[k] * v[k - 1] < 0
        if wrong > 0:
            for k in range(start, stop):
                p, q = u[k], v[k]
                j = k
                while j > 0 and u[j - 1] * q - p * v[j - 1] < 0:
                    u[j], v[j] = u[j - 1], v[j - 1]
                    j -= 1
                u[j], v[j] = p, q
                moves += k - j
            if moves > MOVES * n + 64:
                return False
    return True


@njit(**KERNEL)
def _fold(u, v):  # type: ignore[no-untyped-def]
    """sum_k cross(v_1 + … + v_{k-1}, v_k), as four runs side by side so that no addition waits for the one before."""
    n = u.size
    run = n // 4
    s0 = t0 = a0 = s1 = t1 = a1 = s2 = t2 = a2 = s3 = t3 = a3 = 0.0
    for k in range(run):
        p, q = u[k], v[k]
        a0 += s0 * q - t0 * p
        s0 += p
        t0 += q
        p, q = u[k + run], v[k + run]
        a1 += s1 * q - t1 * p
        s1 += p
        t1 += q
        p, q = u[k + 2 * run], v[k + 2 * run]
        a2 += s2 * q - t2 * p
        s2 += p
        t2 += q
        p, q = u[k + 3 * run], v[k + 3 * run]
        a3 += s3 * q - t3 * p
        s3 += p
        t3 += q
    area = a0 + a1 + a2 + a3
    area += s0 * t1 - t0 * s1
    s0 += s1
    t0 += t1
    area += s0 * t2 - t0 * s2
    s0 += s2
    t0 += t2
    area += s0 * t3 - t0 * s3
    s0 += s3
    t0 += t3
    for k in range(4 * run, n):
        p, q = u[k], v[k]
        area += s0 * q - t0 * p
        s0 += p
        t0 += q
    return area


@njit(**KERNEL)
def _merge_sort(u, v):  # type: ignore[no-untyped-def]
    """Sort vectors of the right half-plane by slope, comparing cross products only: slow, but no input makes it slower."""
    n = u.size
    p, q = np.empty(n), np.empty(n)
    width = 1
    while width < n:
        for low in range(0, n, 2 * width):
            middle, high = min(low + width, n), min(low + 2 * width, n)
            i, j = low, middle
            for k in range(low, high):
                if i < middle and (j >= high or u[i] * v[j] - u[j] * v[i] >= 0):
                    p[k], q[k] = u[i], v[i]
                    i += 1
                else:
                    p[k], q[k] = u[j], v[j]
                    j += 1
        for k in range(n):  # slices would be shorter, but compile far longer
            u[k], v[k] = p[k], q[k]
        width *= 2


@njit(**KERNEL)
def to_own_basis(x, y, u, v):  # type: ignore[no-untyped-def]
    """Write into u, v coordinates of the vectors (x, y) in which every determinant is the same but for its sign.

    The basis are two of the vectors, chosen by pivoting, so that nearly parallel rows no longer are; False if all are parallel.
    With D = det(v_p, v_q): det(v_a, v_b) = (det(v_p, v_a) det(v_q, v_b) - det(v_p, v_b) det(v_q, v_a)) / D, where each of the
    small determinants has full relative precision.
    """
    n = x.size
    p, largest = 0, 0.0
    for a in range(n):
        size = max(abs(x[a]), abs(y[a]))
        if size > largest:
            p, largest = a, size
    q = 0
    for a in range(n):
        u[a] = det2(x[p], x[a], y[p], y[a])
        if abs(u[a]) > abs(u[q]):
            q = a
    D = abs(u[q])
    if D == 0:
        return False
    for a in range(n):
        u[a] /= D
        v[a] = det2(x[q], x[a], y[q], y[a])
    return True


@njit(**KERNEL)
def careful_area(x, y):  # type: ignore[no-untyped-def]
    """The area in the basis of two of the vectors: no cancellation, and exactly 0 when all are parallel."""
    n = x.size
    u, v = np.empty(n), np.empty(n)
    if not to_own_basis(x, y, u, v):
        return 0.0
    kept = 0
    for a in range(n):
        s, t = u[a], v[a]
        if s != 0 or t != 0:
            u[kept] = abs(s)
            v[kept] = abs(t) if s == 0 else t * math.copysign(1.0, s)
            kept += 1
    u, v = u[:kept], v[:kept]
    _merge_sort(u, v)
    return _fold(u, v)


@njit(**KERNEL)
def fold_areas(X, Y, x_rows, y_rows, x_norms, y_norms, mask, keys, careful, areas):  # type: ignore[no-untyped-def]
    """areas[p] of the vectors (X[x_rows[p]], Y[y_rows[p]]) in the order of keys[p]; doubtful ones recomputed if ``careful``."""
    n = X.shape[1]
    u, v = np.empty(n), np.empty(n)
    for p in range(x_rows.size):
        x, y = X[x_rows[p]], Y[y_rows[p]]
        bound = x_norms[x_rows[p]] * y_norms[y_rows[p]]
        areas[p] = 0.0
        if bound == 0:
            continue
        _gather(x, y, keys[p], mask, u, v)
        if _repair(u, v):
            areas[p] = _fold(u, v)
        else:
            areas[p] = -1.0
        if areas[p] < 0 or (careful and areas[p] * CANCELLATION < bound):
            areas[p] = careful_area(x, y)


def index_bits(n: int) -> int:
    """Bits that an index below ``n`` needs."""
    return max(1, (n - 1).bit_length())


def normalise_rows(J: FloatArray) -> tuple[FloatArray, NDArray[np.int64]]:
    """Rows over powers of two so that their mean |entry| lies in [1/2, 1), and those exponents: exact, and slopes spread out."""
    top = np.abs(J).max(axis=1, initial=0.0)
    first = np.frexp(top)[1].astype(np.int64)
    rows = times_power_of_two(J, -first[:, None])
    second = np.frexp(np.abs(rows).mean(axis=1) if J.shape[1] else top)[1].astype(np.int64)
    return times_power_of_two(rows, -second[:, None]), first + second


def drop_zero_columns(rows: FloatArray) -> FloatArray:
    """The columns that are not exactly zero; zero vectors have no area."""
    keep = rows.any(axis=0)
    return np.ascontiguousarray(rows if keep.all() else rows[:, keep])


def pair_areas(J: FloatArray, first: IndexArray, second: IndexArray) -> FloatArray:
    """sum_{a<b} |J_ia J_jb - J_ib J_ja| for the row pairs (i, j) = (first[p], second[p]).

    Args:
        J: (m, n) float64.
        first: (P,) row indices.
        second: (P,) row indices.

    Returns:
        (P,) float64, each within about 1e-14 of the exact area, and 0 where the two rows are parallel.
    """
    rows, exponents = normalise_rows(np.ascontiguousarray(J, dtype=np.float64))
    rows = drop_zero_columns(rows)
    n = rows.shape[1]
    areas = np.zeros(len(first))
    if n < 2 or not len(first):
        return areas
    coarse, norms, bits = rows.astype(np.float32), np.abs(rows).sum(axis=1), index_bits(n)
    mask = np.int32(2**bits - 1)
    first, second = np.ascontiguousarray(first, dtype=np.int64), np.ascontiguousarray(second, dtype=np.int64)

    def work(part: slice) -> None:
        i, j = first[part], second[part]
        keys = np.empty((i.size, n), dtype=np.int32)
        write_keys(coarse, coarse, i, j, bits, keys)
        keys.sort(axis=1)
        fold_areas(rows, rows, i, j, norms, norms, mask, keys, True, areas[part])

    map_blocks(work, len(first), max(1, BLOCK_ENTRIES // n))
    with np.errstate(under="ignore", over="ignore"):
        return np.ldexp(areas, exponents[first] + exponents[second])


_areas: dict[bytes, FloatArray] = {}  # by digest of the rows, oldest first


def row_pair_areas(J: FloatArray) -> FloatArray:
    """S1 per row pair: sum over all column pairs of |det J[{i, j}, {a, b}]| (MATH.md 4.3), O(m^2 n log n) for all of them.

    For a subset of the columns pass ``J[:, columns]``; for the areas of column pairs pass ``J.T``.

    Args:
        J: (m, n) float64.

    Returns:
        (m (m - 1) / 2,) float64 in lexicographic order of the pairs.
    """
    matrix = np.ascontiguousarray(J, dtype=np.float64)
    rows, exponents = normalise_rows(matrix)
    live = np.flatnonzero(rows.any(axis=1))
    if len(live) < len(matrix):
        rows, exponents = rows[live], exponents[live]
    first, second = np.triu_indices(len(live), 1)
    with np.errstate(under="ignore", over="ignore"):
        live_areas = np.ldexp(_normalised_row_areas(rows, first, second), exponents[first] + exponents[second])
    if len(live) == len(matrix):
        return live_areas
    areas, (i, j) = np.zeros(math.comb(len(matrix), 2)), (live[first], live[second])
    areas[i * len(matrix) - i * (i + 1) // 2 + j - i - 1] = live_areas
    return areas


def _normalised_row_areas(rows: FloatArray, first: IndexArray, second: IndexArray) -> FloatArray:
    """Areas of all row pairs of normalised nonzero rows, cached for a while: S1, row means and Zipf curves share them."""
    key = blake2b(np.ascontiguousarray(rows).data, person=str(rows.shape[1]).encode()).digest()
    areas = _areas.get(key)
    if areas is None:
        areas = _areas[key] = pair_areas(rows, first, second)
        while len(_areas) > 1 and sum(a.nbytes for a in list(_areas.values())) > REMEMBERED:
            _areas.pop(next(iter(_areas)), None)
    return areas


@register
class Zonogon(OneMoment):
    """S1 of k = 2: over every pair of some columns from the side with fewer pairs, over others column pair by column pair."""

    name = "zonogon areas"
    moment = "s1"

    def provides(self, task: Task) -> frozenset[str]:
        listable = (task.count or 0) * BYTES_A_SUBSET <= task.memory_budget
        return frozenset({"s1"}) if task.k == 2 and (task.clique or listable) else frozenset()

    def steps(self, task: Task) -> dict[str, float]:
        few, many = sorted(task.shape)
        zonogons, vectors = (math.comb(few, 2), many) if task.clique else (task.count or 0, task.shape[0])
        return {"zonogons": zonogons * vectors * math.log2(max(vectors, 2))}

    def value(self, matrix: FloatArray, task: Task) -> float | None:
        side = narrow(matrix) if task.clique else matrix.T
        if column_span(side) > MOST_BITS or entry_span(side) > ENTRY_BITS:
            return None
        if task.clique:
            return float(row_pair_areas(side).sum())
        return float(pair_areas(side, *pairs_of(cached_subsets((task.selection,), task.layout, 2))).sum())
