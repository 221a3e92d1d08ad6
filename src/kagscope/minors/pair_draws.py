"""Column pairs drawn by the root of their S2, each with exact sums over its row pairs (MATH.md 4.11).

S2 of every column pair follows from one Gram matrix, and S1 of a pair is nearly proportional to its root q. So pairs are drawn
within each cell of the selections in proportion to q, partly uniformly and partly evenly over the octaves of q, in
:data:`REPLICATES` independent replicates; pairs with inclusion probability 1 are always taken. Sums of q, q ln q and, where S4
is computed, q ln(S4 / S2^2) over all pairs are known, and serve as auxiliary variables for S1 and the entropy (generalised
regression estimator: Särndal, Swensson & Wretman 1992, chapter 6).
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b
from math import comb

import numpy as np
from numpy.typing import NDArray

from kagscope.minors._numba import LOWEST_BIN, SLOTS
from kagscope.minors.histograms import place, scale_to_total
from kagscope.minors.pair_kernels import draw_probabilities, pair_sizes, parallel_sizes, visit_pairs
from kagscope.minors.replicates import GROUPS, REPLICATES
from kagscope.minors.threads import even_parts, map_blocks, one_blas_thread, run_parts

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
MOST_ROWS = 256  # up to here every row pair is visited; beyond, rows are drawn as well
ROW_DRAWS = 96  # rows drawn for each column pair then
WHOLE = 2.0**25  # minors up to which all are visited, however many rows
LOST = 1e-9  # share of S4 that may be rounding
MOST_RECOMPUTED = 2.0**27  # minors visited to recompute them
PARTS, FEWEST = 32, 256  # parts of the visits, and pairs in each at least: fixed, so that threads never change a bit


@dataclass(frozen=True)
class Draws:
    """Estimates of one stage.

    Attributes:
        draws: (cells,) number in each replicate.
        sums: (3, cells, REPLICATES) of S1, S4 where Grams cancel, entropy.
        spread: for each cell, (3, D) deviation of each draw's contribution from the mean.
        top: (cells,) largest minor visited.
        hist: (cells, GROUPS, slots) independent estimates of the counts of nonzero minors, or None.
        first: first slot of ``hist``.
        complete: whether every pair was visited in full, so that nothing is sampled.
        alike: (cells,) whether S1 over q takes few values among the drawn pairs, so that rarer values may have been missed.
        steps: minors visited.
    """

    draws: IntArray
    sums: FloatArray
    spread: list[FloatArray]
    top: FloatArray
    hist: FloatArray | None
    first: int
    complete: NDArray[np.bool_]
    alike: NDArray[np.bool_]
    steps: float


class PairDraws:
    """The column pairs of a matrix, cell by cell, and estimates of sums over them.

    Args:
        J: (m, n) normalised, without zero rows.
        pairs: (P, 2) columns, cell by cell.
        starts: (cells + 1,) where each cell begins.
        powers: whether S4 is wanted.

    Attributes:
        s2: (cells,) exact.
        s4: (cells,) exact, except for pairs whose power Grams cancel.
        live: (cells,) number of pairs with a nonzero minor.
    """

    def __init__(self, J: FloatArray, pairs: IntArray, starts: IntArray, powers: bool) -> None:
        self.VT = np.ascontiguousarray(J.T)
        self.pairs, self.starts, self.cells = pairs, starts, len(starts) - 1
        m = len(J)
        self.row_sets = comb(m, 2)
        self.rows_drawn = m > MOST_ROWS and len(self.pairs) * self.row_sets > WHOLE
        self.known, s4, rounding = pair_volumes(J, self.VT, self.pairs, powers)
        self.q = self.known[0]
        _remember_sums(J, pairs, self._by_cell(self.q))
        self.s2, self.live = self._by_cell(self.q**2), self._by_cell(self.q > 0)
        self.lost_s4 = self._recompute_cancelled(s4, rounding)
        self.s4 = self._by_cell(np.where(self.lost_s4, 0.0, s4))

    def _recompute_cancelled(self, s4: FloatArray, rounding: FloatArray) -> NDArray[np.bool_]:
        """Recompute, minor by minor, S4 of pairs lost to rounding where it matters; which are left because they are too many."""
        zero = self.q == 0
        s4[zero] = rounding[zero] = 0.0
        shows = ~(self._by_cell(rounding) <= LOST * self._by_cell(s4))
        lost = ~(rounding <= LOST * s4) & np.repeat(shows, np.diff(self.starts))  # NaN included
        again = np.flatnonzero(lost)
        if again.size and again.size * self.row_sets <= MOST_RECOMPUTED:
            sums, no_hist = np.zeros((again.size, 5)), np.zeros((0, 0))

            def visit(block: slice) -> None:
                u = np.zeros((block.stop - block.start, 0))
                visit_pairs(self.VT, self.pairs[again[block]], u, np.ones(len(u)), again[block], sums[block], no_hist)

            map_blocks(visit, again.size, 1 << 9)
            s4[again] = sums[:, 1]
            lost[again] = False
        return lost

    def _by_cell(self, values: NDArray[np.generic]) -> FloatArray:
        """(cells,) sums."""
        return np.add.reduceat(values.astype(np.float64, copy=False), self.starts[:-1])

    def steps(self, draws: IntArray) -> float:
        """Upper bound of the minors visited by ``draws`` (cells,) draws of each replicate."""
        inner = comb(ROW_DRAWS, 2) if self.rows_drawn else self.row_sets
        counts = draws * REPLICATES
        return float(inner * (counts if self.rows_drawn else np.minimum(counts, np.diff(self.starts))).sum())

    def draw(self, draws: IntArray, seed: list[int], histogram: bool, before: Draws | None = None) -> Draws:
        """Estimates from ``draws`` (cells,) draws of each replicate; cells with as many draws in ``before`` keep theirs."""
        redrawn = np.arange(self.cells) if before is None else np.flatnonzero(draws != before.draws)
        parts = run_parts(lambda i: self._draw_pairs(redrawn[i], int(draws[redrawn[i]]), [*seed, int(redrawn[i])]), len(redrawn))
        visits, weights, places = [], [], []
        for i, (sure, index, chance) in enumerate(parts):
            visits += [sure, index]
            weights += [np.ones(len(sure)), 1.0 / (index.size * chance) if index.size else np.zeros(0)]
            group = 1 + np.arange(REPLICATES) * GROUPS // REPLICATES  # 0: pairs taken with certainty
            places += [np.full(len(sure), i * (GROUPS + 1))]
            places += [i * (GROUPS + 1) + np.repeat(group, len(index) // REPLICATES)]
        visited_pairs = np.concatenate(visits)
        rows = len(redrawn) * (GROUPS + 1) if histogram else 0
        steps, visited, hist, first = self._visit(visited_pairs, np.concatenate(weights), np.concatenate(places), seed, rows)
        values = np.stack([visited[0], np.where(self.lost_s4[visited_pairs], visited[1], 0.0), visited[2]])
        sums, spread, top = np.empty((3, self.cells, REPLICATES)), [np.zeros((3, 0))] * self.cells, np.zeros(self.cells)
        alike, complete = np.zeros((2, self.cells), dtype=bool)
        if before is not None:
            sums[:], spread, top[:], alike[:] = before.sums, list(before.spread), before.top, before.alike
            complete[:] = before.complete
            steps += before.steps
        begin = 0
        for cell, (sure, index, chance) in zip(redrawn.tolist(), parts, strict=True):
            values_of_cell = values[:, begin : begin + len(sure) + len(index)]
            top[cell] = visited[3, begin : begin + values_of_cell.shape[1]].max(initial=0.0)
            begin += values_of_cell.shape[1]
            sums[:, cell], spread[cell] = self._estimate(cell, values_of_cell, sure, index, chance)
            alike[cell] = self._takes_few_values(values_of_cell[0, len(sure) :], index)
            complete[cell] = not len(index)
        combined = None
        if histogram:
            shares = hist.reshape(len(redrawn), GROUPS + 1, -1)
            certain, counts = shares[:, :1], GROUPS * shares[:, 1:]
            if not self.rows_drawn:  # the number of minors of live pairs is known; those counted for certain stay as they are
                counts = scale_to_total(counts, (self.live * self.row_sets)[redrawn] - certain.sum(axis=(1, 2)))
            first, combined = self._merge_hists(redrawn, (certain + counts)[:, :, 1:], first, before)
        return Draws(draws, sums, spread, top, combined, first, complete, alike, steps)

    def _merge_hists(self, redrawn: IntArray, counts: FloatArray, first: int, before: Draws | None) -> tuple[int, FloatArray]:
        """First slot and histograms of all cells: new counts for those ``redrawn``, the previous ones for the others."""
        if before is None or before.hist is None:
            return first, counts
        low = min(first, before.first)
        width = max(first + counts.shape[2], before.first + before.hist.shape[2]) - low
        combined = place(before.hist, [before.first - low] * self.cells, width)
        combined[redrawn] = place(counts, [first - low] * len(counts), width)
        return low, combined

    def _draw_pairs(self, cell: int, draws: int, seed: list[int]) -> tuple[IntArray, IntArray, FloatArray]:
        """Pairs of a cell taken with certainty, (REPLICATES * draws,) drawn pairs and the probability of each in one draw."""
        begin = self.starts[cell]
        q = self.q[begin : self.starts[cell + 1]]
        chance, state = np.empty(len(q)), np.empty(len(q), dtype=np.int8)
        count = draw_probabilities(q, draws * REPLICATES, not self.rows_drawn, chance, state)
        taken = begin + np.flatnonzero(state == 2)
        if not count:
            return taken, np.zeros(0, dtype=np.int64), np.zeros(0)
        left = np.flatnonzero(state == 1)
        chance = chance[left]
        # one point in each of equal strata: with equal spacing, no replicate might show how rare the drawn pairs are
        places = (np.arange(draws) + np.random.default_rng(seed).random((REPLICATES, draws))) / draws
        index = np.minimum(np.searchsorted(np.cumsum(chance), places.ravel(), side="right"), left.size - 1)
        return taken, begin + left[index], chance[index]

    def _visit(
        self, index: IntArray, weights: FloatArray, cells: IntArray, seed: list[int], rows: int
    ) -> tuple[float, FloatArray, FloatArray, int]:
        """Minors looked at, (5, V) sums of pairs, and weighted counts of each cell and group, in ``rows`` of histograms: those of
        zeros, and the slots in use from the first one on.

        Each pair is visited once, unless rows are drawn. One that several groups drew counts to the last of them.
        """
        inverse = np.arange(len(index))
        if not self.rows_drawn:
            index, inverse = np.unique(index, return_inverse=True)
            weights = np.bincount(inverse, weights, minlength=len(index)).astype(np.float64)
            cell_of = np.empty(len(index), dtype=np.int64)
            cell_of[inverse] = cells
            cells = cell_of
            order = np.argsort(cells, kind="stable")
            position = np.empty(len(index), dtype=np.int64)
            position[order] = np.arange(len(index))
            index, weights, cells, inverse = index[order], weights[order], cells[order], position[inverse]
        sums = np.zeros((len(index), 5))
        hist = np.zeros((rows, SLOTS))
        parts = min(PARTS, 1 + len(index) // FEWEST)
        bounds = np.unique(np.arange(parts + 1) * len(index) // parts)
        if rows and len(index):  # whole cells and groups: no two parts add to the same counts
            lengths = np.bincount(cells, minlength=rows)
            bounds = np.append(0, np.cumsum(lengths))[even_parts([float(length) for length in lengths], parts)]

        def work(part: int) -> None:
            block = slice(bounds[part], bounds[part + 1])
            u = np.zeros((block.stop - block.start, 0))
            if self.rows_drawn:
                u = np.sort(np.random.default_rng([*seed, self.cells, part]).random((len(u), ROW_DRAWS)), axis=1)
            visit_pairs(self.VT, self.pairs[index[block]], u, weights[block], cells[block], sums[block], hist)

        run_parts(work, len(bounds) - 1)
        inner = comb(ROW_DRAWS, 2) if self.rows_drawn else self.row_sets
        steps = float(len(index) * inner)
        low, high = _slots(sums[:, 4].min(initial=np.inf), sums[:, 3].max(initial=0.0))
        counts = np.concatenate([hist[:, :1], hist[:, low:high]], axis=1)
        return steps, sums.T[:, inverse], counts, low

    def _takes_few_values(self, s1: FloatArray, index: IntArray) -> bool:
        """Whether S1 / q takes fewer values than half the number of distinct pairs drawn."""
        distinct, first = np.unique(index, return_index=True)
        share = np.round(s1[first] / self.q[distinct] / np.sqrt(self.row_sets), 9)  # at most 1
        return bool(2 * np.unique(share).size < distinct.size)

    def _estimate(
        self, cell: int, values: FloatArray, sure: IntArray, index: IntArray, chance: FloatArray
    ) -> tuple[FloatArray, FloatArray]:
        """(3, REPLICATES) estimates of a cell from (3, …) sums of its visited pairs; each draw's deviation from the mean."""
        certain = values[:, : len(sure)].sum(axis=1)[:, None] + np.zeros(REPLICATES)
        if not index.size:
            return certain, np.zeros((3, 0))
        inside = slice(self.starts[cell], self.starts[cell + 1])
        total = self.known[:, inside].sum(axis=1) - self.known[:, sure].sum(axis=1)
        x = self.known[:, index] / chance
        y = values[:, len(sure) :] / chance
        draws = index.size // REPLICATES
        slopes, fitted = np.linalg.lstsq(x.T, y[[0, 2]].T, rcond=1e-10)[0].T, len(x) + 1  # of S1 and entropy
        rest = y.copy()
        rest[[0, 2]] -= slopes @ x
        mean = np.zeros(3)
        mean[[0, 2]] = slopes @ total
        middle = rest.mean(axis=1, keepdims=True)
        spread = (rest - middle) * np.sqrt((index.size + fitted) / (index.size - fitted))  # fitted slopes follow their draws
        replicates = (middle[..., None] + spread.reshape(3, REPLICATES, draws)).mean(axis=2)
        return certain + mean[:, None] + replicates, spread / draws


def _slots(least: float, top: float) -> tuple[int, int]:
    """First slot, and end, of the histogram slots that minors between these may fall in; from 1 on where some are subnormal."""
    if not top > 0 or least == np.inf:
        return 1, 1
    low, high = (int(np.floor(8 * np.log2(size))) - LOWEST_BIN + 1 for size in (least, top))
    return max(low - 1, 1), min(high + 2, SLOTS)


_sums: dict[bytes, tuple[IntArray, FloatArray]] = {}  # by digest of the matrix: pairs, and sums of q by cell; oldest first
REMEMBERED = 256


def volume_sums(J: FloatArray, pairs: IntArray, starts: IntArray) -> FloatArray:
    """(cells,) sums of q = sqrt(S2) over the column pairs of each cell, cached for matrices that pairs were drawn from.

    Args:
        J: (m, n) normalised, without zero rows.
        pairs, starts: as for :class:`PairDraws`.
    """
    known = _sums.get(_digest(J))
    if known is not None and known[0] is pairs:
        return known[1]
    return np.asarray(np.add.reduceat(pair_volumes(J, np.ascontiguousarray(J.T), pairs)[0][0], starts[:-1]))


def _remember_sums(J: FloatArray, pairs: IntArray, sums: FloatArray) -> None:
    _sums[_digest(J)] = pairs, sums
    while len(_sums) > REMEMBERED:
        _sums.pop(next(iter(_sums)), None)


def _digest(J: FloatArray) -> bytes:
    return blake2b(np.ascontiguousarray(J).data, person=str(J.shape[1]).encode()).digest()


def pair_volumes(
    J: FloatArray, VT: FloatArray, pairs: IntArray, powers: bool = False
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """(2, P) q and q ln q of each pair, with ``powers`` (3, P) S4's regressor too; (P,) S4 and a bound on its rounding."""
    with one_blas_thread(), np.errstate(over="ignore", under="ignore", invalid="ignore"):
        gram = J.T @ J  # one array twice: half the products
        square = J * J if powers else np.zeros((0, 0))
        p22, p31 = square.T @ square, (square * J).T @ J if powers else square
    grams = [array.ravel() for array in (gram, p22, p31)]
    diagonals = [np.diagonal(array).copy() for array in (gram, p22)]
    known, s4, rounding, hard = np.zeros((3, len(pairs))), *np.zeros((2, len(pairs))), np.empty(len(pairs), dtype=np.bool_)

    def size(block: slice) -> None:
        pair_sizes(*grams, *diagonals, pairs[block], *known[:, block], s4[block], rounding[block], hard[block])

    map_blocks(size, len(pairs), 1 << 16)
    again = np.flatnonzero(hard)
    if again.size:
        volumes = np.empty((2, again.size))
        map_blocks(lambda block: parallel_sizes(VT, pairs[again[block]], volumes[:, block]), again.size, 1 << 12)
        known[:2, again], known[2, again] = volumes, 0.0
    return known if powers else known[:2], s4, rounding
