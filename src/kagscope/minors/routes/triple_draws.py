"""Column triples in cells, their volumes, and draws from them by volume (MATH.md 4.11)."""

from __future__ import annotations

from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from kagscope.columns.layout import Layout
from kagscope.columns.selections import Selection
from kagscope.minors._numba import SLOTS
from kagscope.minors.histograms import line_up
from kagscope.minors.replicates import GROUPS, REPLICATES
from kagscope.minors.routes.quartic import COEFFICIENTS, TERMS
from kagscope.minors.routes.triple_kernels import (
    OCTAVES,
    accumulate,
    count_octaves,
    count_triples,
    draw_thirds,
    sum_rows,
    sum_volumes,
)
from kagscope.minors.subsets import pair_codes, remember
from kagscope.minors.threads import even_parts, one_blas_thread, run_parts

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

MOST_LISTED = 1 << 17  # column triples that are listed to find those of selections
WHOLE = 2_000  # row triples of a column triple up to which all are visited; beyond, rows are drawn as well
MOST_SURVEYED = 1 << 20  # column triples, about, from which the numbers in the octaves of their volumes are estimated
ROW_DRAWS = 8  # row pairs drawn for each column triple then, each combined with every third row


class Cells(NamedTuple):
    """Column triples by the selections that they belong to.

    Attributes:
        classes: (n, n) class of each column pair, 0 where no selection has it.
        table: (D, D, D) cell of a triple by the classes of its pairs; one further cell for those in no selection.
        members: (selections, cells) whether a cell belongs to a selection.
        counts: (cells + 1, pairs) triples of each pair a < b with a column c > b, by cell.
    """

    classes: NDArray[Any]
    table: NDArray[np.int32]
    members: NDArray[np.bool_]
    counts: NDArray[np.uint16]

    @classmethod
    def of(cls, selections: tuple[Selection, ...], layout: Layout, columns: NDArray[np.bool_]) -> Cells:
        """Cells of at most 63 selections within some columns, cached."""
        key = ("cells", selections, layout.key, columns.tobytes())
        return remember(key, lambda: cls._of(pair_codes(selections, layout)[np.ix_(columns, columns)], len(selections)))

    @classmethod
    def whole(cls, n: int) -> Cells:
        """One cell of all triples of n columns."""
        return cls._of(np.ones((n, n), dtype=np.int64), 1)

    @classmethod
    def _of(cls, codes: IntArray, selections: int) -> Cells:
        n = len(codes)
        codes, classes = np.unique(np.append(codes.ravel(), 0), return_inverse=True)
        classes = classes[:-1].reshape(n, n).astype(np.int32)
        every = codes[:, None, None] & codes[:, None] & codes
        kept = np.unique(every[every != 0])
        table = np.where(every != 0, np.searchsorted(kept, every), len(kept)).astype(np.int32)
        counts = np.zeros((len(kept) + 1, n * (n - 1) // 2), dtype=np.uint16)
        count_triples(classes, table, counts)
        return cls(classes, table, (kept >> np.arange(selections)[:, None]) & 1 == 1, counts)


class Draws(NamedTuple):
    """Draws of all replicates.

    Attributes:
        cells: (draws,) cell of each draw, the same in every replicate.
        inverse: (REPLICATES, draws) 1 / probability.
        volumes: (REPLICATES, draws) of the column triples.
        sums: (5, REPLICATES, draws) S1, S2 (NaN), S4, entropy, top of their minors.
        hist: (GROUPS, cells, slots) ``inverse`` times the minors by slot, or no cells: zeros, then slots from ``first`` on.
        first: that slot.
    """

    cells: IntArray
    inverse: FloatArray
    volumes: FloatArray
    sums: FloatArray
    hist: FloatArray
    first: int

    def concatenate(self, more: Draws) -> Draws:
        """These and more draws."""
        first, counts = line_up([(d.first, d.hist[:, :, 1:]) for d in (self, more)])
        hist = np.concatenate([self.hist[:, :, :1] + more.hist[:, :, :1], counts.sum(axis=0)], axis=2)
        return Draws(
            np.concatenate([self.cells, more.cells]),
            np.concatenate([self.inverse, more.inverse], axis=1),
            np.concatenate([self.volumes, more.volumes], axis=1),
            np.concatenate([self.sums, more.sums], axis=2),
            hist,
            first,
        )


class Volumes:
    """The volumes of all column triples of one matrix by cell, and draws, a third each by volume, by its fourth power, uniform.

    For a histogram half of the last third is even over the octaves of the volumes: a few triples of small volume, which uniform
    draws would miss, may hold much of the small minors.

    Args:
        V: (n, m) columns, none of them zero.
        cells: of their triples.
        histogram: whether draws are for a histogram.

    Attributes:
        counts: (cells,) triples.
        sums: (cells, 5) sums over volumes v: v, about v log2 v, v^2, v^4, and squared products of the lengths.
        work: rows visited for a drawn triple, and the volumes, in minors.
    """

    def __init__(self, V: FloatArray, cells: Cells, histogram: bool = False) -> None:
        self.V, self.cells = V, cells
        self.lengths = np.linalg.norm(V, axis=1)
        unit = V / self.lengths[:, None]
        with one_blas_thread():
            self.cosines = unit @ unit.T
        n, m = V.shape
        number = cells.members.shape[1] + 1
        pairs = n * (n - 1) // 2
        known = self.cosines, self.lengths, cells.classes, cells.table
        self._top, self._octaves = 3 * int(np.frexp(self.lengths.max())[1]), np.zeros((0, 0))
        if histogram:
            counts = np.zeros((number, OCTAVES), dtype=np.int64)
            step = 1 + n * (n - 1) * (n - 2) // 6 // MOST_SURVEYED
            count_octaves(*known, step, self._top, counts)
            share = np.maximum(counts, step) * np.maximum((counts > 0).sum(axis=1, keepdims=True), 1)
            self._octaves = 1.0 / 6.0 / share
        running = np.zeros((3 if histogram else 2, number, pairs))
        bounds = even_parts([float((n - a) ** 2) for a in range(n)], 32)
        parts = np.zeros((len(bounds) - 1, number, 5))
        options = self._top, self._octaves, running
        run_parts(lambda p: sum_volumes(*known, bounds[p], bounds[p + 1], *options, parts[p]), len(parts))
        self.sums, self.counts = parts.sum(axis=0)[:-1], cells.counts[:-1].sum(axis=1, dtype=np.int64)
        totals = np.stack([self.sums[:, 0], self.sums[:, 3], self.counts])
        self._shares = 1.0 / 3.0 / np.where(totals > 0, totals, np.inf)
        self._shares[2] /= 2 if histogram else 1
        accumulate(running[:, :-1], cells.counts[:-1], self._shares)
        self._running = running[0, :-1]
        self.whole = m * (m - 1) * (m - 2) // 6 <= WHOLE
        self.work_of_draw = m * (m - 1) * (m - 2) / 6 if self.whole else 3.0 * m * ROW_DRAWS

    def count(self, most: int) -> IntArray | None:
        """(cells, SLOTS) minors of every triple by slot; None where there are more than so many triples, or rows are drawn."""
        n, cells = len(self.V), len(self.counts)
        if not self.whole or self.counts.sum() > most or n * (n - 1) * (n - 2) // 6 > MOST_LISTED:
            return None
        every = np.array(list(combinations(range(n), 3)), dtype=np.int64)
        a, b, c = every.T
        cell_of = self.cells.table[self.cells.classes[a, b], self.cells.classes[a, c], self.cells.classes[b, c]].astype(np.int64)
        inside = cell_of < cells
        every, cell_of = every[inside], cell_of[inside]
        sums, hist, u = np.zeros((len(every), 5)), np.zeros((cells, SLOTS)), np.zeros((len(every), 0, 2))
        sum_rows(self.V, every, np.ones(len(every)), cell_of, u, True, TERMS, COEFFICIENTS, sums, hist)
        return np.rint(hist).astype(np.int64)

    def draw(self, units: IntArray, seed: list[int], histogram: bool) -> Draws:
        """Draw ``units`` triples of each cell in each replicate, one from each of equal strata of the cumulative weights."""
        cell_of = np.repeat(np.arange(len(units)), units)
        stretch = np.concatenate([np.arange(count) for count in units]) if cell_of.size else cell_of
        generator = np.random.default_rng(seed)
        target = (stretch + generator.random((REPLICATES, len(cell_of)))) / units[cell_of]
        pair = np.empty(target.shape, dtype=np.int64)
        for cell in np.flatnonzero(units):
            sel = cell_of == cell
            target[:, sel] *= self._running[cell, -1]
            pair[:, sel] = np.searchsorted(self._running[cell], target[:, sel], side="right")
        pair = np.minimum(pair, self._running.shape[1] - 1)
        before = np.where(pair > 0, self._running[cell_of, np.maximum(pair - 1, 0)], 0.0)
        firsts, seconds = np.triu_indices(len(self.V), 1)
        flat = pair.ravel()
        columns = np.stack([firsts[flat], seconds[flat], np.full(len(flat), -1)], axis=1)
        chance, cells = np.empty((len(flat), 2)), np.tile(cell_of, REPLICATES)
        rest = (target - before).ravel()
        u = generator.random((len(flat), 0 if self.whole else ROW_DRAWS, 2))
        sums = np.zeros((len(flat), 5))
        hist = np.zeros((GROUPS, len(units) if histogram else 0, SLOTS))
        step = REPLICATES // GROUPS * len(cell_of)

        def work(part: int) -> None:
            sel = slice(part * step, (part + 1) * step)
            third = columns[sel, 2]
            draw_thirds(
                *(self.cosines, self.lengths, self.cells.classes, self.cells.table, columns[sel, 0], columns[sel, 1]),
                *(cells[sel], rest[sel], self._shares, self._top, self._octaves, third, chance[sel]),
            )
            chance[sel, 0] /= self._running[cells[sel], -1]  # 1 but for octaves of which the survey saw only a part
            inverse = 1.0 / chance[sel, 0]
            sum_rows(self.V, columns[sel], inverse, cells[sel], u[sel], self.whole, TERMS, COEFFICIENTS, sums[sel], hist[part])

        run_parts(work, GROUPS)
        shape = (REPLICATES, len(cell_of))
        used = 1 + np.flatnonzero(hist[:, :, 1:].any(axis=(0, 1)))
        first, end = (int(used[0]), int(used[-1]) + 1) if used.size else (1, 1)
        met = np.concatenate([hist[:, :, :1], hist[:, :, first:end]], axis=2)
        return Draws(
            cell_of, (1.0 / chance[:, 0]).reshape(shape), chance[:, 1].reshape(shape), sums.T.reshape(5, *shape), met, first
        )
