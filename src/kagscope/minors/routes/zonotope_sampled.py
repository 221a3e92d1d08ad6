"""S1 for any k >= 3 by sampling rows and all but two columns, the sum over those two exact (MATH.md 4.4, Rao–Blackwell)."""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from kagscope.base.errors import InputError
from kagscope.minors.det2 import KERNEL
from kagscope.minors.routes.zonogon import FloatArray, IndexArray, normalise_rows
from kagscope.minors.routes.zonotope import Planar, store_planar
from kagscope.minors.threads import map_blocks

DRAWS = 128  # per block of sampling; results for a seed depend on it


@njit(**KERNEL)
def _draw(J, rows, uniforms, X, Y, coarse_x, coarse_y, x_norms, y_norms, weights):  # type: ignore[no-untyped-def]
    """Draw k - 2 columns for each set of k rows, each in proportion to its length orthogonal to those before."""
    n, k = J.shape[1], rows.shape[1]
    V, lengths = np.empty((k, n)), np.empty(n)
    for p in range(rows.shape[0]):
        for i in range(k):
            for b in range(n):
                V[i, b] = J[rows[p, i], b]
        weights[p] = 1.0
        for step in range(k - 2):
            total, seen = 0.0, 0
            for b in range(n):
                square = 0.0
                for i in range(step, k):
                    square += V[i, b] * V[i, b]
                lengths[b] = math.sqrt(square)
                total += lengths[b]
                seen += lengths[b] > 0
            by_length = uniforms[p, step] < 0.5
            target = 2 * uniforms[p, step] * total if by_length else (2 * uniforms[p, step] - 1) * seen
            a, passed = -1, 0.0
            for b in range(n):
                if lengths[b] > 0:
                    a = b
                    passed += lengths[b] if by_length else 1.0
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
            weights[p] *= abs(V[step, a]) / (0.5 * lengths[a] / total + 0.5 / seen)
            for i in range(step + 1, k):
                f = V[i, a] / V[step, a]
                for b in range(n):
                    V[i, b] -= f * V[step, b]
                V[i, a] = 0.0
        store_planar(V[k - 2], V[k - 1], p, X, Y, coarse_x, coarse_y, x_norms, y_norms)


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


def s1_draws(J: FloatArray, k: int, rel_error: float = 0.01, seed: int = 0, max_draws: int = 1 << 20) -> FloatArray:
    """Unbiased estimates of S1 over all k-minors, k >= 3: of drawn rows and k - 2 drawn columns, exact over the last two
    (Rao–Blackwell).

    Row sets are drawn in proportion to the product of their lengths, each column half by its length orthogonal to those before
    it; the zonogon of the remaining coordinates sums over all n^2 / 2 pairs of further columns at once. The number of draws
    doubles until the standard error is small enough.

    Args:
        J: (m, n) float64.
        k: order of the minors.
        rel_error: standard error over value at which to stop.
        seed: of the draws; the same seed gives the same bits, whatever the number of threads and the time it takes.
        max_draws: largest number of draws.

    Raises:
        InputError: k is not in 3 … min(m, n).
    """
    m, n = J.shape
    if not 3 <= k <= min(m, n):
        raise InputError(
            f"k={k}, expected 3 to {min(m, n)} for a matrix of {m} rows and {n} columns; S1 of smaller minors is exact and fast"
        )
    rows, exponents = normalise_rows(np.ascontiguousarray(J, dtype=np.float64))
    rows = np.ascontiguousarray(rows[np.any(rows != 0, axis=1)][:, np.any(rows != 0, axis=0)])
    exponents = exponents[np.any(J != 0, axis=1)]
    if min(rows.shape) < k:
        return np.zeros(4 * DRAWS)
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
        planar = Planar(count, rows.shape[1])
        _draw(rows, chosen, generator.random((count, k - 2)), *planar.arguments())
        return planar.volumes(count, False)

    values, target = np.empty(0), 4 * DRAWS
    while True:
        more = map_blocks(work, target - values.size, DRAWS)
        values = np.concatenate([values, *more])
        mean, error = float(values.mean()), float(values.std(ddof=1) / math.sqrt(values.size))
        if error <= rel_error * mean or 2 * target > max_draws:
            with np.errstate(over="ignore", under="ignore"):
                return np.asarray(np.ldexp(values * total, k * shift))
        target *= 2
