"""Drawing k-subsets of rows or columns at random: uniformly, in proportion to lengths, or as cliques of a graph.

Every draw comes with 1 / its probability, so that sums over draws estimate sums over all subsets without bias.
"""

from __future__ import annotations

import math
from functools import lru_cache
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from kagscope.minors.det2 import KERNEL
from kagscope.minors.routes.zonogon import FloatArray

BoolArray = NDArray[np.bool_]
IndexArray = NDArray[np.int64]

GOLDEN = np.uint64(0x9E3779B97F4A7C15)  # 2^64 over the golden ratio: steps of the counter
LISTABLE = 2_000_000  # subsets that may be listed for drawing with unequal probabilities


class Source(NamedTuple):
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
) -> Source:
    chosen = np.ascontiguousarray(listed, dtype=np.int32)
    chance, alias, inverse = _alias_table(weights) if weights is not None else (np.ones(1), np.zeros(1, np.int32), np.ones(1))
    return Source(
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
def _mixed(counter):  # type: ignore[no-untyped-def]
    """A number in [0, 1) from a counter by SplitMix64 (Steele, Lea and Flood 2014): any block can start anywhere."""
    z = (counter ^ (counter >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.float64((z ^ (z >> np.uint64(31))) >> np.uint64(11)) * 2.0**-53


@njit(**KERNEL)
def _uniform(state):  # type: ignore[no-untyped-def]
    state[0] += GOLDEN
    return _mixed(state[0])


@njit(**KERNEL)
def _uniforms(state, count):  # type: ignore[no-untyped-def]
    out = np.empty(count)
    start = state[0]
    for i in range(count):
        out[i] = _mixed(start + np.uint64(i + 1) * GOLDEN)
    state[0] = start + np.uint64(count) * GOLDEN
    return out


@njit(**KERNEL)
def _draw_distinct(pool, state, out):  # type: ignore[no-untyped-def]
    """k distinct members of the pool, in any order; pairs and triples without branches, which nothing could predict."""
    count, k = out.shape
    n = pool.size
    u = _uniforms(state, count * k)
    if k == 2:
        for p in range(count):
            a, b = np.int64(u[2 * p] * n), np.int64(u[2 * p + 1] * (n - 1))
            b += np.int64(b >= a)
            out[p, 0], out[p, 1] = pool[a], pool[b]
    elif k == 3:
        for p in range(count):
            a, b, c = np.int64(u[3 * p] * n), np.int64(u[3 * p + 1] * (n - 1)), np.int64(u[3 * p + 2] * (n - 2))
            b += np.int64(b >= a)
            c += np.int64(c >= min(a, b))
            c += np.int64(c >= max(a, b))
            out[p, 0], out[p, 1], out[p, 2] = pool[a], pool[b], pool[c]
    else:
        for p in range(count):
            for i in range(k):  # the c-th of those not yet drawn, which stay sorted
                c = np.int64(u[k * p + i] * (n - i))
                j = 0
                while j < i and out[p, j] <= c:
                    c += 1
                    j += 1
                for l in range(i, j, -1):
                    out[p, l] = out[p, l - 1]
                out[p, j] = c
            for i in range(k):
                out[p, i] = pool[out[p, i]]


@njit(**KERNEL)
def _below(n, state):  # type: ignore[no-untyped-def]
    return min(np.int64(_uniform(state) * n), n - 1)


@njit(**KERNEL)
def draw_subsets(source, state, out, weights):  # type: ignore[no-untyped-def]
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
    if pool.size > 0:
        _draw_distinct(pool, state, out)
        for p in range(count):
            weights[p] *= total
        return
    size = listed.shape[0]
    weighted = alias.size == size
    u = _uniforms(state, count)
    for p in range(count):
        x = u[p] * size
        index = np.int64(x)
        if weighted:
            if x - index >= chance[index]:
                index = np.int64(alias[index])
            weights[p] *= inverse[index]
        else:
            weights[p] *= total
        for i in range(k):
            out[p, i] = listed[index, i]


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
        target = _uniform(state) * ends[-1]
        edge, high = 0, ends.size - 1  # first edge whose running total exceeds the target
        while edge < high:
            middle = (edge + high) // 2
            if ends[middle] > target:
                high = middle
            else:
                edge = middle + 1
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


def _lengths(vectors: FloatArray, subsets: NDArray[Any]) -> FloatArray:
    return np.asarray(np.prod(np.linalg.norm(vectors, axis=1)[subsets], axis=1))


def _as_bits(allowed: BoolArray) -> NDArray[np.uint64]:
    """(n, words) uint64 from (n, n) bool."""
    n = len(allowed)
    padded = np.zeros((n, -(-n // 64) * 64), dtype=np.bool_)
    padded[:, :n] = allowed
    packed = np.packbits(padded, axis=1, bitorder="little")
    return packed.view("<u8").astype(np.uint64)


@lru_cache(maxsize=4)
def _listed_rows(m: int, k: int) -> NDArray[np.int32]:
    """(C(m, k), k) all row sets; kept, since a batch and its selections ask for the same ones."""
    listed = np.array(list(combinations(range(m), k)), dtype=np.int32)
    listed.flags.writeable = False
    return listed


def row_source(rows: FloatArray, k: int, norms: bool) -> Source:
    m = rows.shape[0]
    if norms and math.comb(m, k) <= LISTABLE:
        listed = _listed_rows(m, k)
        return _source(len(listed), listed=listed, weights=_lengths(rows, listed))
    return _source(math.comb(m, k), pool=np.arange(m))


def column_source(
    vectors: FloatArray, k: int, columns: BoolArray | None, pairs: BoolArray | None, subsets: Any, norms: bool
) -> Source:
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
