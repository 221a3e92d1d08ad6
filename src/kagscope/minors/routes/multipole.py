"""Entropy of all 2-minors in nearly linear time (MATH.md 4.10): a fast multipole sum over the angles of each row pair.

With the vectors v_a of a row pair in polar coordinates (r, t), M_ab = r_a r_b sin|t_a - t_b|. Vectors sorted by angle make
boxes of equal counts, halved to leaves. Between boxes further apart than they are long, on the ring of circumference pi,
sin ln sin is interpolated at Chebyshev nodes, and the terms in ln r are of rank 2 in sums over boxes; the rest is summed minor
by minor.
Gimbutas, Marshall & Rokhlin 2020, arXiv 1907.03873.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit
from numpy.typing import NDArray

from kagscope.minors._numba import LN2, fma, prefer_wide_vectors, split
from kagscope.minors.det2 import KERNEL
from kagscope.minors.routes import Kind, register
from kagscope.minors.routes.one_moment import NarrowSide
from kagscope.minors.routes.zonogon import ENTRY_BITS, MOST_BITS, drop_zero_columns, index_bits, normalise_rows
from kagscope.minors.task import Task
from kagscope.minors.threads import map_blocks

FloatArray = NDArray[np.float64]
IndexArray = NDArray[np.int64]

NODES = 16  # of a box, in two vectors; relative error 1e-13
LEAF = 32  # vectors of a leaf, at most
PARALLEL = 1e3  # sum of r_a r_b over S1 beyond which angles have lost too many digits
BLOCK_ENTRIES = 50_000  # keys sorted at a time

_POINTS = np.cos(np.pi * (np.arange(NODES) + 0.5) / NODES)
_BASIS = np.cos(np.arange(NODES)[:, None] * np.arccos(_POINTS)) * 2 / NODES  # T_j at the nodes: from moments to nodes
_BASIS[0] /= 2


@njit(**KERNEL)
def _write_keys(X, first, second, bits, keys):  # type: ignore[no-untyped-def]
    """keys[p, a]: the angle of vector a in [0, pi) in the upper bits, a in the lower ``bits``."""
    scale = 2.0 ** (62 - bits) / math.pi
    last = np.int64(2.0 ** (62 - bits) - 1)
    for p in range(len(first)):
        x, y = X[first[p]], X[second[p]]
        for a in range(X.shape[1]):
            t = math.atan2(y[a], x[a])
            t = t + math.pi if t < 0 else t
            keys[p, a] = (min(np.int64(t * scale), last) << bits) | a


@njit(**KERNEL)
def _moments(weights, angles, low, high, basis, values):  # type: ignore[no-untyped-def]
    """Weights at the nodes of [low, high] that interpolate ``weights`` at ``angles``, added to ``values`` (NODES,)."""
    nodes = len(values)
    centre, half = 0.5 * (low + high), max(0.5 * (high - low), 1e-300)
    sums = np.zeros(nodes)
    for a in range(len(angles)):
        z, w = (angles[a] - centre) / half, weights[a]
        before, now = 1.0, z
        sums[0] += w
        for j in range(1, nodes):
            sums[j] += w * now
            before, now = now, 2 * z * now - before
    for j in range(nodes):
        for k in range(nodes):
            values[k] += sums[j] * basis[j, k]


@njit(**KERNEL)
def _near(x, y, a0, a1, b0, b1, half):  # type: ignore[no-untyped-def]
    """(S1, entropy) of the vectors a0 … a1 with b0 … b1, minor by minor; ``half``: a box with itself."""
    prefer_wide_vectors()
    u, v = x[b0:b1], y[b0:b1]
    s1, ent = np.zeros(b1 - b0), np.zeros(b1 - b0)
    for a in range(a0, a1):
        p, q = x[a], y[a]
        for b in range(b1 - b0):
            M = abs(p * v[b] - u[b] * q)
            e, ln = split(M)
            s1[b] += M
            ent[b] = fma(M, fma(e, LN2, ln), ent[b])
    share = 0.5 if half else 1.0
    return share * s1.sum(), share * ent.sum()


@njit(**KERNEL)
def _far(weights, cosines, sines, left, right):  # type: ignore[no-untyped-def]
    """Sum of r_a r_b sin ln sin between two boxes at their nodes."""
    prefer_wide_vectors()
    nodes = weights.shape[1]
    wb, cb, sb = weights[right], cosines[right], sines[right]
    acc = np.zeros(nodes)
    for k in range(nodes):
        w, c, s = weights[left, k], cosines[left, k], sines[left, k]
        for b in range(nodes):
            M = abs(c * sb[b] - cb[b] * s)
            e, ln = split(M)
            acc[b] = fma(w * wb[b], M * fma(e, LN2, ln), acc[b])
    return acc.sum()


@njit(**KERNEL)
def _fill_boxes(r, ln, t, u, v, points, basis, ends, flat, weights, cosines, sines):  # type: ignore[no-untyped-def]
    """Of each box, from the leaves (the last half) up to box 1 with all vectors: ``ends`` of its angles, ``flat`` sums of (u, v)
    and of (u, v) ln r, and ``weights`` at nodes with these ``cosines`` and ``sines``."""
    leaves, n = len(ends) // 2, len(r)
    for box in range(2 * leaves - 1, 0, -1):
        if box >= leaves:
            start, stop = (box - leaves) * n // leaves, (box - leaves + 1) * n // leaves
            ends[box, 0], ends[box, 1] = t[start:stop].min(), t[start:stop].max()
            _moments(r[start:stop], t[start:stop], ends[box, 0], ends[box, 1], basis, weights[box])
            for a in range(start, stop):
                flat[box, 0] += u[a]
                flat[box, 1] += v[a]
                flat[box, 2] += u[a] * ln[a]
                flat[box, 3] += v[a] * ln[a]
        else:
            left, right = 2 * box, 2 * box + 1
            ends[box, 0], ends[box, 1] = min(ends[left, 0], ends[right, 0]), max(ends[left, 1], ends[right, 1])
            for child in (left, right):
                at = 0.5 * (ends[child, 0] + ends[child, 1]) + 0.5 * (ends[child, 1] - ends[child, 0]) * points
                _moments(weights[child], at, ends[box, 0], ends[box, 1], basis, weights[box])
                flat[box] += flat[child]
        for k in range(len(points)):
            angle = 0.5 * (ends[box, 0] + ends[box, 1]) + 0.5 * (ends[box, 1] - ends[box, 0]) * points[k]
            cosines[box, k], sines[box, k] = math.cos(angle), math.sin(angle)


@njit(**KERNEL)
def _one_pair(u, v, points, basis, leaf):  # type: ignore[no-untyped-def]
    """(S1, entropy, sum of r_a r_b) over the pairs of vectors (u, v) of the upper half-plane, sorted by angle."""
    n, nodes = len(u), len(points)
    leaves = 1
    while leaves * leaf < n:
        leaves *= 2
    r, ln, t = np.empty(n), np.empty(n), np.empty(n)
    whole, before = 0.0, 0.0
    for a in range(n):
        r[a] = math.sqrt(u[a] * u[a] + v[a] * v[a])
        ln[a] = math.log(r[a]) if r[a] > 0 else 0.0
        t[a] = math.atan2(v[a], u[a])
        whole += r[a] * before
        before += r[a]
    ends, flat, weights = np.empty((2 * leaves, 2)), np.zeros((2 * leaves, 4)), np.zeros((2 * leaves, nodes))
    cosines, sines = np.empty((2 * leaves, nodes)), np.empty((2 * leaves, nodes))
    _fill_boxes(r, ln, t, u, v, points, basis, ends, flat, weights, cosines, sines)
    s1, ent = 0.0, 0.0
    stack = np.empty((256, 2), np.int64)  # pairs of boxes that are still to be summed over
    stack[0] = 1
    size = 1
    while size > 0:
        size -= 1
        left, right = stack[size, 0], stack[size, 1]
        if left == right and left >= leaves:
            start, stop = (left - leaves) * n // leaves, (left - leaves + 1) * n // leaves
            s, e = _near(u, v, start, stop, start, stop, True)
            s1 += s
            ent += e
            continue
        if left == right:
            stack[size], stack[size + 1] = 2 * left, 2 * left + 1
            stack[size + 2, 0], stack[size + 2, 1] = 2 * left, 2 * left + 1
            size += 3
            continue
        length_a, length_b = ends[left, 1] - ends[left, 0], ends[right, 1] - ends[right, 0]
        gap = min(ends[right, 0] - ends[left, 1], math.pi - (ends[right, 1] - ends[left, 0]))
        if gap > 0 and gap >= max(length_a, length_b):
            f, g = flat[left], flat[right]
            s1 += f[0] * g[1] - f[1] * g[0]
            ent += (f[2] * g[1] - f[3] * g[0]) + (f[0] * g[3] - f[1] * g[2]) + _far(weights, cosines, sines, left, right)
        elif left >= leaves and right >= leaves:
            s, e = _near(
                u, v, (left - leaves) * n // leaves, (left - leaves + 1) * n // leaves,
                (right - leaves) * n // leaves, (right - leaves + 1) * n // leaves, False,
            )  # fmt: skip
            s1 += s
            ent += e
        elif right >= leaves or (left < leaves and length_a > length_b):
            for child in (2 * left, 2 * left + 1):
                stack[size, 0], stack[size, 1] = child, right
                size += 1
        else:
            for child in (2 * right, 2 * right + 1):
                stack[size, 0], stack[size, 1] = left, child
                size += 1
    return s1, ent, whole


@njit(**KERNEL)
def _fold(X, first, second, keys, mask, points, basis, leaf, sums):  # type: ignore[no-untyped-def]
    """sums[p] = S1, entropy and sum of r_a r_b of row pair p, its vectors in the order of keys[p]."""
    n = X.shape[1]
    u, v = np.empty(n), np.empty(n)
    for p in range(len(first)):
        x, y = X[first[p]], X[second[p]]
        for index in range(n):
            a = keys[p, index] & mask
            flip = y[a] < 0 or (y[a] == 0 and x[a] < 0)
            u[index], v[index] = (-x[a], -y[a]) if flip else (x[a], y[a])
        sums[p, 0], sums[p, 1], sums[p, 2] = _one_pair(u, v, points, basis, leaf)


def entropy_by_multipoles(matrix: FloatArray) -> float | None:
    """Sum of M ln M over all 2-minors of ``matrix`` (m, n) float64, normalised, m <= n; its error is below 1e-11 of S1.

    None where columns, over row pairs, are so nearly parallel that their angles have lost too many digits.
    """
    rows, exponents = normalise_rows(np.ascontiguousarray(matrix))
    rows = drop_zero_columns(rows)
    n = rows.shape[1]
    if len(rows) < 2 or n < 2:
        return 0.0
    first, second = (index.astype(np.int64) for index in np.triu_indices(len(rows), 1))
    sums = np.zeros((len(first), 3))
    bits = index_bits(n)

    def work(block: slice) -> None:
        keys = np.empty((len(first[block]), n), dtype=np.int64)
        _write_keys(rows, first[block], second[block], bits, keys)
        keys.sort(axis=1)
        _fold(rows, first[block], second[block], keys, 2**bits - 1, _POINTS, _BASIS, LEAF, sums[block])

    map_blocks(work, len(first), max(1, BLOCK_ENTRIES // n))
    powers = exponents[first] + exponents[second]
    with np.errstate(under="ignore", over="ignore"):
        s1, ent, whole = np.ldexp(sums, powers[:, None]).T
    if not whole.sum() <= PARALLEL * s1.sum():
        return None
    return float((ent + s1 * powers * LN2).sum())


@register
class Multipole(NarrowSide):
    """The entropy of k = 2 over every pair of some columns."""

    name = "fast multipoles over angles"
    kind: Kind = "expansion"
    k, moment = 2, "entropy"
    column_bits, entry_bits = MOST_BITS, ENTRY_BITS

    def steps(self, task: Task) -> dict[str, float]:
        few, many = sorted(task.shape)
        return {"multipoles": float(math.comb(few, 2) * many)}

    def side_value(self, side: FloatArray) -> float | None:
        return entropy_by_multipoles(side)
