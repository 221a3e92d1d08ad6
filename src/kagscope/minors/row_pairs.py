"""Compiled sums over pairs of rows of diag(d) W, of what there is for each pair (MATH.md 4.7 and 6).

Matrices over pairs are (m, m) and symmetric, factors d (B, m). What has the size of W is elsewhere.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from kagscope.minors.det2 import KERNEL


@njit(**KERNEL)
def row_squares(gram, nearly, squares):  # type: ignore[no-untyped-def]
    """S2 of every row pair from the Gram matrix, 0 on the diagonal; whether some squared sine is below ``nearly``."""
    near = False
    for i in range(len(gram)):
        squares[i, i] = 0.0
        for j in range(i):
            whole = gram[i, i] * gram[j, j]
            square = max(whole - gram[i, j] * gram[i, j], 0.0)
            near |= square < nearly * whole
            squares[i, j] = square
            squares[j, i] = square
    return near


@njit(**KERNEL)
def draw_pairs(squares, d, offset, first, second, weights):  # type: ignore[no-untyped-def]
    """Systematic draws of row pairs in proportion to sqrt(S2) times the sum of |d_i d_j|, as many as ``first`` has room for.

    ``offset`` is in [0, 1). How many there are, which is fewer where all have size 0; ``weights`` make sums over them unbiased.
    """
    m, count, total = len(squares), first.size, 0.0
    sizes, running = np.empty(m * m), np.empty(m * m)  # each pair twice
    line = np.empty(m)
    for i in range(m):
        for j in range(m):
            line[j] = 0.0
        for b in range(len(d)):
            factor = abs(d[b, i])
            for j in range(m):
                line[j] += factor * abs(d[b, j])
        for j in range(m):
            sizes[i * m + j] = math.sqrt(squares[i, j]) * line[j]
        for j in range(m):
            total += sizes[i * m + j]
            running[i * m + j] = total
    q = drawn = 0
    for c in range(count):
        target = (c + offset) * (total / count)
        while q < m * m - 1 and running[q] <= target:
            q += 1
        if sizes[q] > 0:
            first[drawn], second[drawn], weights[drawn] = q // m, q % m, total / (2 * count * sizes[q])
            drawn += 1
    return drawn


@njit(**KERNEL)
def row_sums(areas, first, second, squares, d, by_size, by_square, s1, s2):  # type: ignore[no-untyped-def]
    """S1 = sum over pairs of |d_i d_j| areas and S2 = that of d_i^2 d_j^2 squares, (B,); their parts by row, (B, m)."""
    m = len(squares)
    for b in range(len(d)):
        sums, others = by_size[b], by_square[b]
        for i in range(m):
            sums[i], others[i] = 0.0, 0.0
        for p in range(first.size):
            i, j = first[p], second[p]
            sums[i] += areas[p] * abs(d[b, j])
            sums[j] += areas[p] * abs(d[b, i])
        for j in range(m):
            factor = d[b, j] * d[b, j]
            for i in range(m):
                others[i] += factor * squares[j, i]
        s1[b], s2[b] = 0.0, 0.0
        for i in range(m):
            s1[b] += 0.5 * abs(d[b, i]) * sums[i]
            s2[b] += 0.5 * d[b, i] * d[b, i] * others[i]


@njit(**KERNEL)
def square_weights(of_s2, d, weights):  # type: ignore[no-untyped-def]
    """What S2 of each row pair weighs in a sum of S2 with factors ``of_s2`` (B,); 0 on the diagonal."""
    m = len(weights)
    for i in range(m):
        for j in range(m):
            weights[i, j] = 0.0
        for b in range(len(d)):
            factor = of_s2[b] * d[b, i] * d[b, i]
            for j in range(m):
                weights[i, j] += factor * (d[b, j] * d[b, j])
        weights[i, i] = 0.0


@njit(**KERNEL)
def toward_rows(weights, gram):  # type: ignore[no-untyped-def]
    """In place of the weights (m, m) what times the rows is the derivative of the weighted squares."""
    for i in range(len(gram)):
        total = 0.0
        for j in range(len(gram)):
            total += weights[i, j] * gram[j, j]
            weights[i, j] *= -2.0 * gram[i, j]
        weights[i, i] = 2.0 * total


@njit(**KERNEL)
def area_weights(of_s1, d, first, second, weights):  # type: ignore[no-untyped-def]
    """What the area of each pair weighs in a sum of S1 with factors ``of_s1`` (B,)."""
    for p in range(first.size):
        i, j = first[p], second[p]
        weights[p] = 0.0
        for b in range(len(d)):
            weights[p] += of_s1[b] * abs(d[b, i]) * abs(d[b, j])


@njit(**KERNEL)
def toward_factors(of_s1, of_s2, d, by_size, by_square, gradient):  # type: ignore[no-untyped-def]
    """The derivative with respect to d (B, m)."""
    for b in range(len(d)):
        for i in range(d.shape[1]):
            sign = 0.0 if d[b, i] == 0.0 else math.copysign(1.0, d[b, i])
            gradient[b, i] = of_s1[b] * sign * by_size[b, i] + 2.0 * of_s2[b] * d[b, i] * by_square[b, i]
