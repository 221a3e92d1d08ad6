"""The largest minor against those of random rotations of the rows (MATH.md section 3: rr_max)."""

from __future__ import annotations

import math

import numpy as np
from numba import njit
from numpy.typing import NDArray

from kagscope.base.checks import is_whole
from kagscope.base.errors import InputError
from kagscope.minors.det2 import KERNEL, det2
from kagscope.minors.haar import NEARLY_PARALLEL, BoolArray
from kagscope.minors.plan import Estimate
from kagscope.minors.routes.hull import column_pair_tops, top
from kagscope.minors.routes.zonogon import FloatArray
from kagscope.minors.scaling import times_power_of_two
from kagscope.minors.threads import one_blas_thread
from kagscope.minors.underflow import LEAST

NEARLY_RANK_ONE = 1e-6  # residual of one elimination step over the largest entry: a smaller one would be lost in rotating


@one_blas_thread()
def random_orthogonal(m: int, count: int, seed: int | np.random.Generator, columns: int | None = None) -> FloatArray:
    """(count, m, columns) first columns (by default all m) of independent matrices uniform on O(m).

    QR of Gaussians with the signs of R's diagonal moved into Q.
    """
    generator = np.random.default_rng(seed)
    q, r = np.linalg.qr(generator.standard_normal((count, m, columns or m)))
    signs = np.where(np.diagonal(r, axis1=1, axis2=2) < 0, -1.0, 1.0)
    return np.asarray(q * signs[:, None, :])


def _top(J: FloatArray, k: int, listed: NDArray[np.int64] | None) -> float:
    if k == 1:
        return float(np.abs(J).max(initial=0.0))
    if listed is None:
        return top(J)
    return float(column_pair_tops(J, listed).max(initial=0.0))


@one_blas_thread()
def _qr_core(J: FloatArray) -> FloatArray:
    """R of J = UR where J is tall: QU is distributed as the first columns of a uniform Q. Otherwise J itself."""
    return np.asarray(np.linalg.qr(J, mode="r")) if J.shape[0] > J.shape[1] else J


def _rotate(core: FloatArray, m: int, generator: np.random.Generator) -> FloatArray:
    """QJ for a uniform random Q, from the :func:`_qr_core` of a J of ``m`` rows."""
    with one_blas_thread():
        return np.asarray(random_orthogonal(m, 1, generator, len(core))[0] @ core)


def _split_rank_one(J: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray] | None:
    """l, u and S with J = l u^T + S, where S is too small for J to hold its digits; None where it is not.

    By one step of elimination from the largest entry, each entry of S to full precision.
    """
    i, p = np.unravel_index(int(np.argmax(np.abs(J))), J.shape)
    if np.abs(J - np.outer(J[:, p] / J[i, p], J[i])).max() > 2 * NEARLY_RANK_ONE * np.abs(J).max():
        return None  # clearly, whatever the rounding
    rest = np.array([[det2(J[i, p], x, y, z) for x, z in zip(J[i], row, strict=True)] for y, row in zip(J[:, p], J, strict=True)])
    rest /= J[i, p]
    return (J[:, p] / J[i, p], J[i].copy(), rest) if np.abs(rest).max() < NEARLY_RANK_ONE * np.abs(J).max() else None


def _split_top(split: tuple[FloatArray, FloatArray, FloatArray], generator: np.random.Generator) -> float:
    """Largest 2-minor of Q (l u^T + S), Q uniform: that of rows i, j is the one of p_i u + s_i and s_j - (p_j / p_i) s_i."""
    left, u, rest = split
    both = np.column_stack([left, rest])
    both = _rotate(_qr_core(both), len(both), generator)
    p, s = both[:, 0], both[:, 1:]
    order = np.argsort(-np.abs(p))
    best = 0.0
    for start, i in enumerate(order[:-1]):
        row = p[i] * u + s[i]
        others = s[order[start + 1 :]] - np.outer(p[order[start + 1 :]] / p[i], s[i])
        best = max(best, *(top(np.stack([row, other])) for other in others))
    return best


@njit(**KERNEL)
def _residuals(V, pairs, rest):  # type: ignore[no-untyped-def]
    """rest[q] (m,): the second of two rows of V less a multiple of the first, zero at the largest entry of the first."""
    for q in range(pairs.shape[0]):
        x, y = V[pairs[q, 0]], V[pairs[q, 1]]
        p = 0
        for i in range(x.size):
            if abs(x[i]) > abs(x[p]):
                p = i
        for i in range(x.size):
            rest[q, i] = det2(x[p], x[i], y[p], y[i]) / x[p]


def _add_residual_columns(J: FloatArray, listed: NDArray[np.int64]) -> tuple[FloatArray, NDArray[np.int64]]:
    """J with columns added, and column pairs with the same minors as those listed, none nearly parallel.

    Rotations would lose minors of nearly parallel columns: they equal those of one column and the residual of the other, whose
    entries have full precision.
    """
    V = np.ascontiguousarray(J.T)
    unit = times_power_of_two(V, -np.frexp(np.abs(V).max(axis=1, initial=0.0))[1].astype(np.int64)[:, None])
    with one_blas_thread():
        gram = unit @ unit.T
    a, b = listed.T
    whole = gram[a, a] * gram[b, b]
    near = np.flatnonzero(whole - gram[a, b] ** 2 < NEARLY_PARALLEL * whole)
    rest, pairs = np.empty((len(near), len(J))), listed.copy()
    _residuals(V, listed[near], rest)
    pairs[near, 1] = len(V) + np.arange(len(near))
    return np.concatenate([V, rest]).T, pairs


def max_rotation_ratio(
    J: FloatArray,
    k: int = 2,
    columns: BoolArray | None = None,
    pairs: BoolArray | None = None,
    *,
    rotations: int = 32,
    seed: int = 0,
) -> Estimate:
    """top(J) / E[top(QJ)] over random rotations Q (MATH.md section 3: rr_max), with the standard error from the rotations.

    Args:
        J: (m, n) float64.
        k: 1 or 2.
        columns: (n,) bool, which columns take part; None means all.
        pairs: (n, n) symmetric bool, which two columns may stand together; None means any.
        rotations: number of random Q, at least 2; the largest minor of each QJ is exact.
        seed: of the random Q.

    Returns:
        Value and standard error; NaN where J has no non-zero minor, and where all are so small that rotations lose them.

    Raises:
        InputError: another k, or fewer rotations.
    """
    if k not in (1, 2):
        raise InputError(f"k={k}, expected 1 or 2: larger minors would all have to be visited; kind='pr' takes any k")
    J = np.asarray(J, dtype=np.float64)
    if columns is not None:
        J, pairs = J[:, columns], None if pairs is None else pairs[np.ix_(columns, columns)]
    with np.errstate(under="ignore"):
        J = np.ldexp(J, -int(np.frexp(np.abs(J).max(initial=0.0))[1]))
    if not is_whole(rotations, 2):
        raise InputError(f"rotations={rotations!r}, expected a whole number of at least 2 so that the mean has a standard error")
    listed = None if pairs is None or k == 1 else np.argwhere(np.triu(pairs, 1))
    largest = _top(J, k, listed)
    if largest == 0:
        return Estimate(math.nan, math.nan)
    if k == len(J):
        return Estimate(1.0, 0.0)  # there is one row set, whose minors no rotation changes
    if largest < LEAST:
        return Estimate(math.nan, math.nan)  # minors so far below the products of entries leave the range in rotated rows
    generator = np.random.default_rng(seed)
    split = _split_rank_one(J) if k == 2 and listed is None else None
    J, listed = (J, None) if listed is None else _add_residual_columns(J, listed)
    core = _qr_core(J)
    tops = np.array(
        [
            _top(_rotate(core, len(J), generator), k, listed) if split is None else _split_top(split, generator)
            for _ in range(rotations)
        ]
    )
    mean = float(tops.mean())
    if mean == 0:
        return Estimate(math.nan, math.nan)  # rotated rows are so mixed that their minors leave the range
    return Estimate(largest / mean, largest / mean * (float(tops.std(ddof=1)) / mean) / math.sqrt(rotations))
