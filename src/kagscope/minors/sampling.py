"""Moments from sampled minors, for any k and selection: unbiased, with standard errors, the same bits whatever the threads.

Row sets and column sets are drawn independently. "uniform" draws every allowed minor with the same probability; "norms" draws
row sets (and listed column sets) with probability proportional to the product of their lengths and reweights, which pays
where a few rows or columns carry the mass; "auto" tries both on one block and takes the one with the smaller variance of S1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from kagscope.errors import InputError
from kagscope.minors.fma import KERNEL
from kagscope.minors.parallel import map_blocks
from kagscope.minors.zonogon import FloatArray

BoolArray = NDArray[np.bool_]
IndexArray = NDArray[np.int64]

BLOCK = 1 << 15  # draws per block; part of what a seed means
LISTABLE = 2_000_000  # subsets that may be listed for drawing with unequal probabilities
LOWEST = -1100  # histogram: least exponent of a normalised minor
BINS = 8 * (64 - LOWEST)
EIGHTHS = 2.0 ** (np.arange(1, 8) / 8 - 1)  # the bin edges inside [1/2, 1)
SUMS = ("s1", "s2", "s4", "entropy")


@dataclass(frozen=True)
class SampledMoments:
    """Estimated sums over the minors of J / 2^exponent (MATH.md section 2).

    Attributes:
        count: number N of minors, exact; for k >= 4 with forbidden pairs an estimate.
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


class _Source(NamedTuple):
    """How k-subsets are drawn: from a list by alias table, or k distinct of ``pool`` members, or cliques grown from edges."""

    total: float  # number of subsets; of triangles when growing cliques
    reach: float  # number of subsets with positive probability: the others have a zero minor
    pool: IndexArray
    listed: NDArray[np.int32]
    chance: FloatArray
    alias: NDArray[np.int32]
    inverse: FloatArray  # 1 / probability of each listed subset
    ends: FloatArray  # cumulative weights of the listed edges, when growing
    allowed: NDArray[np.uint64]  # (n, words) neighbours of each column as bits, when growing


def _source(
    total: float, pool: Any = (), listed: Any = ((),), weights: Any = None, ends: Any = (), allowed: Any = ((0,),)
) -> _Source:
    chosen = np.ascontiguousarray(listed, dtype=np.int32)
    chance, alias, inverse = _alias_table(weights) if weights is not None else (np.ones(1), np.zeros(1, np.int32), np.ones(1))
    return _Source(
        float(total),
        float(total if weights is None else np.count_nonzero(weights)),
        np.asarray(pool, dtype=np.int64),
        chosen,
        chance,
        alias,
        inverse,
        np.asarray(ends, dtype=np.float64),
        np.ascontiguousarray(allowed, dtype=np.uint64),
    )


@njit(**KERNEL)
def _fill_alias(chance, alias):  # type: ignore[no-untyped-def]
    """Walker's alias method: ``chance`` holds probability * size on entry, the chance to stay on return."""
    n = chance.size
    small, large = np.empty(n, np.int64), np.empty(n, np.int64)
    s = t = 0
    for i in range(n):
        alias[i] = i
        if chance[i] < 1:
            small[s] = i
            s += 1
        else:
            large[t] = i
            t += 1
    while s > 0 and t > 0:
        s -= 1
        i, j = small[s], large[t - 1]
        alias[i] = j
        chance[j] -= 1 - chance[i]
        if chance[j] < 1:
            t -= 1
            small[s] = j
            s += 1
    for i in range(t):
        chance[large[i]] = 1.0
    for i in range(s):
        chance[small[i]] = 1.0


def _alias_table(weights: FloatArray) -> tuple[FloatArray, NDArray[np.int32], FloatArray]:
    total = float(weights.sum())
    chance, alias = weights * (len(weights) / total), np.empty(len(weights), dtype=np.int32)
    never = weights == 0
    _fill_alias(chance, alias)
    chance[never & (alias == np.arange(len(weights)))] = 0.0  # only rounding could leave a forbidden one standing
    with np.errstate(divide="ignore"):
        return chance, alias, np.where(never, 0.0, total / weights)


@njit(**KERNEL)
def _uniform(state):  # type: ignore[no-untyped-def]
    """Next of [0, 1) by SplitMix64 (Steele, Lea and Flood 2014): a counter, so that any block can start anywhere."""
    state[0] += np.uint64(0x9E3779B97F4A7C15)
    z = state[0]
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z = z ^ (z >> np.uint64(31))
    return np.float64(z >> np.uint64(11)) * 2.0**-53


@njit(**KERNEL)
def _below(n, state):  # type: ignore[no-untyped-def]
    return min(np.int64(_uniform(state) * n), n - 1)


@njit(**KERNEL)
def _draw_subsets(source, state, out, weights):  # type: ignore[no-untyped-def]
    """Fill ``out`` (count, k) with k-subsets and multiply ``weights`` by 1 / their probabilities."""
    listed, pool, chance, alias, inverse, total = (
        source.listed,
        source.pool,
        source.chance,
        source.alias,
        source.inverse,
        source.total,
    )
    if source.ends.size > 0:
        _draw_cliques(listed, source.ends, source.allowed, state, out, weights)
        return
    count, k = out.shape
    size, n = listed.shape[0], pool.size
    if n == 0:
        weighted = alias.size == size
        for p in range(count):
            x = _uniform(state) * size
            index = min(np.int64(x), size - 1)
            if weighted:
                if x - index >= chance[index]:
                    index = np.int64(alias[index])
                weights[p] *= inverse[index]
            else:
                weights[p] *= total
            for i in range(k):
                out[p, i] = listed[index, i]
        return
    for p in range(count):
        for i in range(k):  # the c-th of those not yet drawn, which stay sorted
            c = _below(n - i, state)
            j = 0
            while j < i and out[p, j] <= c:
                c += 1
                j += 1
            for l in range(i, j, -1):
                out[p, l] = out[p, l - 1]
            out[p, j] = c
        for i in range(k):
            out[p, i] = pool[out[p, i]]
        weights[p] *= total


@njit(**KERNEL)
def _bit_count(w):  # type: ignore[no-untyped-def]
    w -= (w >> np.uint64(1)) & np.uint64(0x5555555555555555)
    w = (w & np.uint64(0x3333333333333333)) + ((w >> np.uint64(2)) & np.uint64(0x3333333333333333))
    w = (w + (w >> np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
    return np.int64((w * np.uint64(0x0101010101010101)) >> np.uint64(56))


@njit(**KERNEL)
def _draw_cliques(edges, ends, allowed, state, out, weights):  # type: ignore[no-untyped-def]
    """An edge in proportion to its common neighbours, then one of those at random, and so on: uniform for triangles.

    ``allowed`` (n, words) holds the neighbours of each column as bits.
    """
    count, k = out.shape
    words = allowed.shape[1]
    one = np.uint64(1)
    common = np.empty(words, np.uint64)
    start = ends[-1] / (k * (k - 1) / 2)  # each clique starts from any of its edges
    for p in range(count):
        edge = min(np.searchsorted(ends, _uniform(state) * ends[-1], side="right"), ends.size - 1)
        out[p, 0], out[p, 1] = edges[edge, 0], edges[edge, 1]
        for i in range(words):
            common[i] = allowed[out[p, 0], i] & allowed[out[p, 1], i]
        weights[p] *= start
        for size in range(2, k):
            choices = 0
            for i in range(words):
                choices += _bit_count(common[i])
            if choices == 0:
                weights[p] = 0.0
                for i in range(size, k):
                    out[p, i] = out[p, 0]
                break
            if size > 2:
                weights[p] *= choices
            weights[p] /= size - 1  # the others may join in any order
            rank = _below(choices, state)
            i = 0
            here = _bit_count(common[0])
            while rank >= here:
                rank -= here
                i += 1
                here = _bit_count(common[i])
            word = common[i]
            for _ in range(rank):
                word &= word - one
            c = 64 * i + _bit_count((word & (~word + one)) - one)
            out[p, size] = c
            for i in range(words):
                common[i] &= allowed[c, i]


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
def _sample(columns, k, row_source, column_source, seed, draws, eighths, sums, products, bins):  # type: ignore[no-untyped-def]
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
        weights[:] = 1.0
        _draw_subsets(row_source, state, R, weights)
        _draw_subsets(column_source, state, C, weights)
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
            part, exponent = math.frexp(M)
            eighth = 0
            for i in range(7):
                eighth += part >= eighths[i]
            bins[max(0, 8 * (exponent - 1 - LOWEST) + eighth)] += weight
    sums[0], sums[1], sums[2], sums[3] = s1, s2, s4, e
    products[0, 0], products[1, 0], products[1, 1], products[2, 0], products[2, 1] = p11, p21, p22, p41, p42
    products[2, 2], products[3, 0], products[3, 1], products[3, 2], products[3, 3] = p44, pe1, pe2, pe4, pee
    return largest


def _lengths(vectors: FloatArray, subsets: NDArray[Any]) -> FloatArray:
    return np.asarray(np.prod(np.linalg.norm(vectors, axis=1)[subsets], axis=1))


def _as_bits(allowed: BoolArray) -> NDArray[np.uint64]:
    """(n, words) uint64 from (n, n) bool."""
    n = len(allowed)
    padded = np.zeros((n, -(-n // 64) * 64), dtype=np.bool_)
    padded[:, :n] = allowed
    packed = np.packbits(padded, axis=1, bitorder="little")
    return packed.view("<u8").astype(np.uint64)


def _row_source(rows: FloatArray, k: int, norms: bool) -> _Source:
    m = rows.shape[0]
    if norms and math.comb(m, k) <= LISTABLE:
        listed = np.array(list(combinations(range(m), k)), dtype=np.int32)
        return _source(len(listed), listed=listed, weights=_lengths(rows, listed))
    return _source(math.comb(m, k), pool=np.arange(m))


def _column_source(
    vectors: FloatArray, k: int, columns: BoolArray | None, pairs: BoolArray | None, subsets: Any, norms: bool
) -> _Source:
    pool = np.arange(len(vectors)) if columns is None else np.flatnonzero(columns)
    if subsets is not None:
        listed = np.asarray(subsets, dtype=np.int32).reshape(-1, k)
    elif pairs is None or k == 1:
        if not (norms and k <= 2 and math.comb(len(pool), k) <= LISTABLE):
            return _source(math.comb(len(pool), k), pool=pool)
        listed = (pool[np.array(np.triu_indices(len(pool), 1)).T] if k == 2 else pool[:, None]).astype(np.int32)
    else:
        allowed = np.zeros_like(pairs)
        allowed[np.ix_(pool, pool)] = pairs[np.ix_(pool, pool)]
        np.fill_diagonal(allowed, False)
        listed = np.argwhere(np.triu(allowed)).astype(np.int32)
        if k > 2:
            dense = allowed.astype(np.float64)
            ends = np.cumsum((dense @ dense)[listed[:, 0], listed[:, 1]])
            total = ends[-1] / 3 if len(ends) else 0.0
            return _source(total, listed=listed, ends=ends, allowed=_as_bits(allowed))
    if not len(listed):
        return _source(0)
    weights = _lengths(vectors, listed) if norms else None
    return _source(len(listed), listed=listed, weights=weights if weights is not None and weights.any() else None)


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

    def relative_error(self) -> float:
        mean = float(self.sums[0]) / self.draws
        return math.sqrt(float(self.covariance()[0, 0])) / mean if mean > 0 else 0.0


def _run(
    vectors: FloatArray, k: int, sources: tuple[_Source, _Source], seed: int, tally: _Tally, draws: int, threads: int | None
) -> None:
    done = tally.draws // BLOCK

    def work(part: slice) -> tuple[FloatArray, FloatArray, FloatArray, float]:
        sums, products, bins = np.zeros(6), np.zeros((4, 4)), np.zeros(BINS)
        start = np.random.SeedSequence([seed, done + part.start]).generate_state(1, np.uint64)[0]
        top = _sample(vectors, k, *sources, start, BLOCK, EIGHTHS, sums, products, bins)
        return sums, products, bins, top

    for result in map_blocks(work, draws // BLOCK - done, 1, threads):
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
    threads: int | None = None,
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
        threads: at most this many; None means all processors.

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
    candidates: list[tuple[str, tuple[_Source, _Source], _Tally]] = []
    number = 0.0
    for name in ("uniform", "norms") if proposal == "auto" else (proposal,):
        norms = name == "norms" and _rank_allows(rows, k)
        sources = (_row_source(rows, k, norms), _column_source(vectors, k, columns, pairs, subsets, norms))
        number = float(math.comb(m, k)) * sources[1].total
        if number == 0 or not rows.any():
            return SampledMoments(
                number, exponent, dict.fromkeys(SUMS, 0.0), np.zeros((4, 4)), 0.0, 0, np.zeros(0), number, 0, True, "uniform"
            )
        tally = _Tally()
        _run(vectors, k, sources, seed, tally, BLOCK, threads)
        candidates.append((name, sources, tally))
    used, sources, tally = min(candidates, key=lambda candidate: candidate[2].relative_error() or math.inf)
    while tally.relative_error() > rel_error and 2 * tally.draws <= max_draws:
        _run(vectors, k, sources, seed, tally, 2 * tally.draws, threads)
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
