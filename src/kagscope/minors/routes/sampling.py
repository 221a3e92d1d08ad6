"""Moments from sampled minors, for any k and selection: unbiased, with standard errors, the same bits whatever the threads.

Row sets and column sets are drawn independently. "uniform" draws every allowed minor with the same probability; "norms" draws
row sets (and listed column sets) with probability proportional to the product of their lengths and reweights, which pays
where a few rows or columns carry the mass; "auto" tries both on one block and takes the one with the smaller variance of S1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numba import njit

from kagscope.base.errors import InputError
from kagscope.minors.det2 import KERNEL
from kagscope.minors.routes.draws import BoolArray, IndexArray, Source, column_source, draw_subsets, row_source
from kagscope.minors.routes.zonogon import FloatArray
from kagscope.minors.threads import map_blocks

S4_FACTOR = 2.0
S4_DRAWS = 1 << 20
BLOCK = 1 << 15  # draws per block; part of what a seed means
LOWEST = -1100  # histogram: least exponent of a normalised minor
BINS = 8 * (64 - LOWEST)
MANTISSA = (1 << 52) - 1
# Mantissas of 2^(1/8) … 2^(7/8): one in each eighth of [1, 2) but the last, so that one comparison finds the bin.
EDGES = np.append((2.0 ** (np.arange(1, 8) / 8)).view(np.int64) & MANTISSA, MANTISSA + 1)
SUMS = ("s1", "s2", "s4", "entropy")


@dataclass(frozen=True)
class SampledMoments:
    """Estimated sums over the minors of J / 2^exponent (MATH.md section 2).

    Attributes:
        count: number N of minors, exact below 2^53; for k >= 4 with forbidden pairs an estimate.
        exponent: power of two that J was divided by.
        sums: "s1", "s2", "s4", "entropy" to estimates.
        covariance: (4, 4) of those estimates, in that order; the square roots of its diagonal are the standard errors.
        top: largest minor drawn: a lower bound on the largest there is.
        first: index j of the first histogram bin, 2^(j/8) <= M of the absolute M.
        counts: (bins,) estimated counts.
        zeros: estimated number of minors that are exactly zero.
        draws: how many minors were drawn.
        converged: whether ``rel_error`` was met for S1.
        proposal: "uniform" or "norms".
    """

    count: float
    exponent: int
    sums: dict[str, float]
    covariance: FloatArray
    top: float
    first: int
    counts: FloatArray
    zeros: float
    draws: int
    converged: bool
    proposal: str

    @property
    def stderr(self) -> dict[str, float]:
        """Standard error of each sum."""
        return dict(zip(SUMS, np.sqrt(np.diag(self.covariance)).tolist(), strict=True))


@njit(**KERNEL)
def _minors(columns, R, C, work, out):  # type: ignore[no-untyped-def]
    """out[p] = |det J[R[p], C[p]]|, ``columns`` being J transposed; unfused, so that equal products cancel to exactly 0."""
    count, k = R.shape
    if k == 1:
        for p in range(count):
            out[p] = abs(columns[C[p, 0], R[p, 0]])
    elif k == 2:
        for p in range(count):
            x, y, a, b = C[p, 0], C[p, 1], R[p, 0], R[p, 1]
            out[p] = abs(columns[x, a] * columns[y, b] - columns[x, b] * columns[y, a])
    elif k == 3:
        for p in range(count):
            x, y, z, a, b, c = C[p, 0], C[p, 1], C[p, 2], R[p, 0], R[p, 1], R[p, 2]
            ya, yb, yc, za, zb, zc = columns[y, a], columns[y, b], columns[y, c], columns[z, a], columns[z, b], columns[z, c]
            out[p] = abs(
                columns[x, a] * (yb * zc - yc * zb) - columns[x, b] * (ya * zc - yc * za) + columns[x, c] * (ya * zb - yb * za)
            )
    else:
        for p in range(count):
            for i in range(k):
                for j in range(k):
                    work[i, j] = columns[C[p, j], R[p, i]]
            out[p] = _eliminate(work)


@njit(**KERNEL)
def _eliminate(work):  # type: ignore[no-untyped-def]
    """|det| by elimination with row pivots, in place."""
    k = work.shape[0]
    det = 1.0
    for p in range(k):
        r = p
        for i in range(p, k):
            if abs(work[i, p]) > abs(work[r, p]):
                r = i
        if work[r, p] == 0:
            return 0.0
        for j in range(p, k):
            work[p, j], work[r, j] = work[r, j], work[p, j]
        det *= abs(work[p, p])
        for i in range(p + 1, k):
            f = work[i, p] / work[p, p]
            for j in range(p, k):
                work[i, j] -= f * work[p, j]
    return det


@njit(**KERNEL)
def _sample(columns, k, rows_from, columns_from, seed, draws, edges, sums, products, bins):  # type: ignore[no-untyped-def]
    """Write the sums of f / probability and of products of two such; add 1 / probability to bins; return the largest minor."""
    state = np.empty(1, np.uint64)
    state[0] = seed
    batch = min(draws, 512)
    R, C, work = np.empty((batch, k), np.int64), np.empty((batch, k), np.int64), np.empty((k, k))
    weights, minors = np.empty(batch), np.empty(batch)
    largest = 0.0
    s1 = s2 = s4 = e = 0.0
    p11 = p21 = p22 = p41 = p42 = p44 = pe1 = pe2 = pe4 = pee = 0.0
    for _ in range(draws // batch):
        for p in range(batch):
            weights[p] = 1.0
        draw_subsets(rows_from, state, R, weights)
        draw_subsets(columns_from, state, C, weights)
        _minors(columns, R, C, work, minors)
        for p in range(batch):
            weight, M = weights[p], minors[p]
            sums[4] += weight
            if weight == 0:
                continue
            if M == 0:
                sums[5] += weight
                continue
            largest = max(largest, M)
            f1 = weight * M
            f2 = f1 * M
            f4 = f2 * M * M
            fe = f1 * math.log(M)
            s1 += f1
            s2 += f2
            s4 += f4
            e += fe
            p11 += f1 * f1
            p21 += f2 * f1
            p22 += f2 * f2
            p41 += f4 * f1
            p42 += f4 * f2
            p44 += f4 * f4
            pe1 += fe * f1
            pe2 += fe * f2
            pe4 += fe * f4
            pee += fe * fe
            word = np.float64(M).view(np.int64)  # exponent above 52 bits of mantissa; subnormals count as 2^-1023
            linear = (word >> 49) & 7
            bins[8 * ((word >> 52) - 1023 - LOWEST) + linear + (word & MANTISSA >= edges[linear])] += weight
    sums[0], sums[1], sums[2], sums[3] = s1, s2, s4, e
    products[0, 0], products[1, 0], products[1, 1], products[2, 0], products[2, 1] = p11, p21, p22, p41, p42
    products[2, 2], products[3, 0], products[3, 1], products[3, 2], products[3, 3] = p44, pe1, pe2, pe4, pee
    return largest


class _Tally:
    """Sums of all blocks so far, added in the order of the blocks."""

    def __init__(self) -> None:
        self.sums, self.products, self.bins, self.top, self.draws = np.zeros(6), np.zeros((4, 4)), np.zeros(BINS), 0.0, 0

    def add(self, sums: FloatArray, products: FloatArray, bins: FloatArray, top: float) -> None:
        self.sums += sums
        self.products += products
        self.bins += bins
        self.top = max(self.top, top)
        self.draws += BLOCK

    def covariance(self) -> FloatArray:
        """Of the means: (E[f f^T] - E[f] E[f]^T) / (draws - 1)."""
        mean = self.sums[:4] / self.draws
        second = (self.products + np.tril(self.products, -1).T) / self.draws
        covariance = (second - np.outer(mean, mean)) / (self.draws - 1)
        index = np.arange(4)
        covariance[index, index] = np.maximum(np.diag(covariance), 0.0)
        return np.asarray(covariance)

    def relative_error(self, index: int = 0) -> float:
        """Standard error over value, of S1 or the sum with that index."""
        mean = float(self.sums[index]) / self.draws
        return math.sqrt(float(self.covariance()[index, index])) / mean if mean > 0 else 0.0


def _run(vectors: FloatArray, k: int, sources: tuple[Source, Source], seed: int, tally: _Tally, draws: int) -> None:
    done = tally.draws // BLOCK

    def work(part: slice) -> tuple[FloatArray, FloatArray, FloatArray, float]:
        sums, products, bins = np.zeros(6), np.zeros((4, 4)), np.zeros(BINS)
        start = np.random.SeedSequence([seed, done + part.start]).generate_state(1, np.uint64)[0]
        top = _sample(vectors, k, *sources, start, BLOCK, EDGES, sums, products, bins)
        return sums, products, bins, top

    for result in map_blocks(work, draws // BLOCK - done, 1):
        tally.add(*result)


def sampled_moments(
    J: FloatArray,
    k: int,
    columns: BoolArray | None = None,
    pairs: BoolArray | None = None,
    subsets: IndexArray | None = None,
    *,
    rel_error: float = 0.01,
    seed: int = 0,
    proposal: str = "auto",
    max_draws: int = 1 << 24,
    s4: bool = False,
) -> SampledMoments:
    """Estimates of all moments over the allowed minors, S1 within ``rel_error`` (standard error over value).

    To stratify by distance call once per shell with its ``pairs``: the estimates add and so do their variances.

    Args:
        J: (m, n) float64, finite.
        k: order of the minors.
        columns: (n,) bool, which columns take part; None means all.
        pairs: (n, n) symmetric bool, which two columns may stand together; None means any.
        subsets: (count, k) an explicit list of column subsets, instead of both.
        rel_error: the number of draws doubles until the standard error of S1 is this fraction of it.
        seed: non-negative; the same seed gives the same bits whatever the number of threads.
        proposal: "uniform", "norms" or "auto".
        max_draws: most draws; ``converged`` says whether they sufficed.
        s4: draw on, up to :data:`S4_DRAWS`, until the error of S4 is at most :data:`S4_FACTOR` times ``rel_error`` too: few
            minors carry most of S4, and while they have hardly been met its interval is too short.

    Raises:
        InputError: k or proposal is not one of the possible.
    """
    m, n = J.shape
    if not 1 <= k <= min(m, n):
        raise InputError(f"k={k}, expected 1 to {min(m, n)} for a matrix of {m} rows and {n} columns")
    if proposal not in ("auto", "uniform", "norms"):
        raise InputError(f"proposal={proposal!r}, expected 'auto', 'uniform' or 'norms'")
    exponent = int(np.frexp(np.abs(J).max(initial=0.0))[1])
    with np.errstate(under="ignore"):
        rows = np.ldexp(np.asarray(J, dtype=np.float64), -exponent)
    vectors = np.ascontiguousarray(rows.T)
    candidates: list[tuple[str, tuple[Source, Source], _Tally]] = []
    number = 0.0
    for name in ("uniform", "norms") if proposal == "auto" else (proposal,):
        norms = name == "norms" and _rank_allows(rows, k)
        sources = (row_source(rows, k, norms), column_source(vectors, k, columns, pairs, subsets, norms))
        number = float(math.comb(m, k)) * sources[1].total
        if number == 0 or not rows.any():
            return SampledMoments(
                number, exponent, dict.fromkeys(SUMS, 0.0), np.zeros((4, 4)), 0.0, 0, np.zeros(0), number, 0, True, "uniform"
            )
        tally = _Tally()
        _run(vectors, k, sources, seed, tally, BLOCK)
        candidates.append((name, sources, tally))
    used, sources, tally = min(candidates, key=lambda candidate: candidate[2].relative_error() or math.inf)
    while 2 * tally.draws <= max_draws and (
        tally.relative_error() > rel_error
        or (s4 and 2 * tally.draws <= S4_DRAWS and tally.relative_error(2) > S4_FACTOR * rel_error)
    ):
        _run(vectors, k, sources, seed, tally, 2 * tally.draws)
    if k >= 4 and pairs is not None and subsets is None:
        number = float(tally.sums[4]) / tally.draws
    full = np.flatnonzero(tally.bins)
    low, high = (int(full[0]), int(full[-1]) + 1) if full.size else (0, 0)
    counts = tally.bins[low:high] / tally.draws
    return SampledMoments(
        count=number,
        exponent=exponent,
        sums=dict(zip(SUMS, (tally.sums[:4] / tally.draws).tolist(), strict=True)),
        covariance=tally.covariance(),
        top=tally.top,
        first=low + 8 * LOWEST + 8 * k * exponent,
        counts=counts,
        zeros=float(tally.sums[5]) / tally.draws
        + max(0.0, float(sources[0].total * sources[1].total) - sources[0].reach * sources[1].reach),
        draws=tally.draws,
        converged=tally.relative_error() <= rel_error,
        proposal=used,
    )


def _rank_allows(rows: FloatArray, k: int) -> bool:
    """Whether some k rows are all non-zero, so that products of lengths are not all zero."""
    return int(np.any(rows != 0, axis=1).sum()) >= k
