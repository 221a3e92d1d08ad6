"""Draw column sets with probability proportional to their volumes, column by column (MATH.md 4.11).

Each column is drawn in proportion to its length orthogonal to those before it (its residual), a tenth uniformly, so that a set
of volume zero is hardly ever drawn, and 1 / probability times the volume varies little. A set can be drawn in any of k! orders,
some of them too rare ever to occur: its weight is shared among them in proportion to their probabilities when its columns alone
are drawn in this way. Where scales of rows and columns are mixed, some sets are still drawn far too rarely: for k above 3, if
there are few sets, all volumes are computed and sets are drawn by these.
"""

from __future__ import annotations

from functools import cached_property
from itertools import combinations
from math import comb

import numpy as np
from numpy.typing import NDArray

from kagscope.minors._numba import SLOTS, bin_edges
from kagscope.minors.histograms import scale_to_total
from kagscope.minors.plan import Estimate
from kagscope.minors.replicates import CARRIED, GROUPS, REPLICATES, effective_draws
from kagscope.minors.routes.determinants import row_subsets
from kagscope.minors.routes.spectral import elementary_symmetric
from kagscope.minors.routes.volume_kernels import UNIFORM, draw_rows, draw_sets
from kagscope.minors.subsets import SubsetList
from kagscope.minors.sweeps import SubsetSums, enumerate_all
from kagscope.minors.threads import run_parts

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
WHOLE = 100_000  # row sets of a column set up to which all are visited; beyond, rows are drawn as well
ROW_DRAWS = 8  # sets of k - 1 rows drawn for each column set then, each combined with every last row
HISTOGRAM, HISTOGRAM_UNITS = 1 << 20, 1  # seed offset of uniform draws, and their prefixes in each replicate
FIRST, DEAR = 2 * REPLICATES, 2.0**36  # prefixes at least, and work beyond which fewer sets are visited: some seconds
LISTED = 1 << 14  # for k > 3, column sets up to which all volumes are computed: column by column some are drawn far too rarely
FEW = 8192  # column sets up to which each is visited once, rather than each time it is drawn
FAN = 32  # last columns that share the k - 1 before them: drawn systematically by their lengths


class Sets:
    """The column sets of a matrix to draw from, and estimates of sums over them.

    Args:
        J: (m, n) normalised, without zero rows.
        k: order of the minors.
        allowed: (n, n) which columns may be combined; None: any.
        listed: (count, k) an explicit list instead.

    Attributes:
        clique: whether any columns may be combined.
    """

    slots = SLOTS

    def __init__(self, J: FloatArray, k: int, allowed: NDArray[np.bool_] | None = None, listed: IntArray | None = None) -> None:
        self.J, self.k, self.listed = np.ascontiguousarray(J), k, listed
        rows = np.frexp(np.abs(J).max(axis=1, initial=0.0))[1] if len(J) == k else np.zeros(len(J), dtype=np.int64)
        self.scale = 2.0 ** float(rows.sum())  # of all minors, where there is one row set: its rows are drawn at equal scales
        self.vectors = np.ascontiguousarray(np.ldexp(self.J, -rows[:, None]).T)
        self.allowed = np.zeros((0, 0), dtype=np.bool_) if allowed is None else np.ascontiguousarray(allowed)
        self.lengths = np.linalg.norm(self.vectors, axis=1)
        self.row_sets = comb(len(J), k)
        self.whole = k in (2, 3) and self.row_sets <= WHOLE
        self.clique = listed is None and not self.allowed.size
        if listed is None and k > 3 and comb(J.shape[1], k) <= LISTED:
            self.listed = self._list_sets()
        self.volumes = np.zeros(0) if self.listed is None else spanned_volumes(self.vectors, self.listed)
        self.fan, self.row_draws = FAN, ROW_DRAWS
        while not self.whole and self.steps(FIRST) > DEAR and self.row_draws > 1:
            self.row_draws //= 2
        while not self.whole and self.steps(FIRST) > DEAR and self.fan > 1:
            self.fan //= 2

    @property
    def empty(self) -> bool:
        """Whether there is no row set, or no column set of positive volume."""
        return min(self.J.shape) < self.k or (self.listed is not None and not self.volumes.any())

    def steps(self, units: int) -> float:
        """Work for ``units`` units, in minors of an enumeration."""
        m = len(self.J)
        inner = self.row_sets if self.whole else 16 * self.row_draws * m * self.k**2
        return float(units * (self.fan * inner + self.vectors.size * self.k * 4))

    def bound(self) -> float:
        """Upper bound of the root of S2: the root of e_k of the squared column lengths."""
        with np.errstate(over="ignore"):
            return self.scale * float(np.sqrt(elementary_symmetric(self.lengths[self.lengths > 0] ** 2, self.k)))

    def estimates(self, seed: int, turn: int, units: int) -> tuple[FloatArray, float]:
        """(5, REPLICATES, units) estimates of S1, S2, S4, entropy, largest minors; and the share of S1 that may be rounding."""
        parts = run_parts(lambda i: self._draw_sets([seed, turn, i], units, False), REPLICATES)
        columns, weights = (np.stack(arrays) for arrays in zip(*parts, strict=True))
        sums = self._sum_rows(columns, [seed, turn, REPLICATES])
        shaped = sums.reshape(-1, REPLICATES, units, self.fan)
        results = np.stack([*(shaped[:4] * weights).sum(axis=3), np.where(weights > 0, shaped[4], 0.0).max(axis=2)])
        if self.whole:
            return results, 0.0  # every minor to full precision, or NaN
        return results, float((shaped[5] * weights).sum()) / max(float(results[0].sum()), 1e-300)

    def histogram(self, seed: int) -> tuple[FloatArray, float]:
        """(GROUPS, SLOTS) estimated shares of these columns' minors by slot, from draws of their own, and the work for that."""
        parts = run_parts(lambda i: self._draw_sets([seed, HISTOGRAM, i], HISTOGRAM_UNITS, True), REPLICATES)
        columns, weights = np.stack([w for w, _ in parts]), np.stack([w for _, w in parts])
        if self.whole:  # one histogram for the sets of a group that weigh the same
            keys = np.stack([np.repeat(np.arange(GROUPS), weights.size // GROUPS), weights.ravel()], axis=1)
            keys, cells = np.unique(keys, axis=0, return_inverse=True)
            hist = np.asarray(self._enumerate_rows(columns.reshape(-1, self.k), self._alike, cells.ravel(), len(keys)).hist)
            groups = np.stack([keys[keys[:, 0] == g, 1] @ hist[keys[:, 0] == g] for g in range(GROUPS)])
        else:
            _, hist = self._draw_rows(columns.reshape(-1, self.k), True, [seed, HISTOGRAM, REPLICATES])
            groups = np.stack([w @ i for w, i in zip(weights.reshape(GROUPS, -1), hist.reshape(GROUPS, -1, SLOTS), strict=True)])
        return scale_to_total(groups, np.ones(())), self.steps(REPLICATES * HISTOGRAM_UNITS)

    def _draw_sets(self, seed: list[int], units: int, uniform: bool) -> tuple[IntArray, FloatArray]:
        """(units, fan, k) column sets, those of a unit sharing all but the last unless listed, and (units, fan) weights.

        The sum over a unit of weight times f(set) estimates the sum of f over all allowed sets, without bias.
        """
        generator = np.random.default_rng(seed)
        if self.listed is not None:
            chance = self._chance_by_octave if uniform else self.volumes + UNIFORM * self.volumes.mean()
            ends = np.cumsum(chance)
            # one point in each of FAN equal strata with a random start: with equal spacing, no replicate might show how rarely
            # a set is drawn once more or less
            places = (
                (np.arange(self.fan) + generator.random((units, 1)) + generator.random((units, self.fan)))
                % self.fan
                / self.fan
                * ends[-1]
            )
            index = np.minimum(np.searchsorted(ends, places, side="right"), len(ends) - 1)
            return self.listed[index], ends[-1] / chance[index] / self.fan
        columns, weights = np.empty((units, self.fan, self.k), dtype=np.int64), np.empty((units, self.fan))
        lengths = np.ones(len(self.lengths)) if uniform else self.lengths
        draw_sets(self.vectors, lengths, self.allowed, uniform, generator.random((units, self.k)), columns, weights)
        return columns, weights

    def _sum_rows(self, columns: IntArray, seed: list[int]) -> FloatArray:
        """(5 or 6, P) sums over row sets for each of the column sets, flat; the sixth, where rows are drawn, is what rounding may
        have done to S1."""
        flat = columns.reshape(-1, self.k)
        if not self.whole:
            return self._draw_rows(flat, False, seed)[0]
        if self._exact_table is not None:
            codes, table = self._exact_table
            return table[:, np.searchsorted(codes, self._codes(flat))]
        return self._enumerate_rows(flat, self._alike).sums

    def _draw_rows(self, flat: IntArray, uniform: bool, seed: list[int]) -> tuple[FloatArray, FloatArray]:
        """(6, P) sums over drawn row sets of column sets (P, k), and with ``uniform`` (P, SLOTS) histograms."""
        sums, hist = np.zeros((len(flat), 6)), np.zeros((len(flat), SLOTS if uniform else 0))
        step = 512

        def work(i: int) -> None:
            block = slice(i * step, (i + 1) * step)
            u = np.random.default_rng([*seed, i]).random((len(flat[block]), self.row_draws, self.k - 1))
            draw_rows(self.J, flat[block], uniform, u, bin_edges(), sums[block], hist[block])

        run_parts(work, -(-len(flat) // step))
        return sums.T, hist

    @property
    def _alike(self) -> int:
        """Number of drawn column sets that share all but the last column, in a row."""
        return 1 if self.listed is not None else self.fan

    def _enumerate_rows(self, flat: IntArray, size: int, cells: IntArray | None = None, count: int = 1) -> SubsetSums:
        """All row sets of column sets (P, k), of which each ``size`` share all but the last; with ``cells`` (P,) a histogram of
        each of ``count``."""
        groups = flat.reshape(-1, size, self.k)
        subsets = SubsetList(
            np.ascontiguousarray(groups[:, 0, :-1]),
            np.arange(len(groups) + 1) * size,
            np.ascontiguousarray(flat[:, -1]),
            np.zeros(len(flat), dtype=np.int64) if cells is None else cells,
            np.ones((count, 1), dtype=bool),
        )
        return enumerate_all(self.J, subsets, self.k, cells is not None)

    @cached_property
    def _chance_by_octave(self) -> FloatArray:
        """Of listed sets: half uniform, half even over the octaves of their volumes, of which few may hold much of the minors
        near zero."""
        _, octaves = np.unique(np.frexp(self.volumes)[1], return_inverse=True)
        counts = np.bincount(octaves)
        return 1.0 / len(octaves) + 1.0 / (len(counts) * counts[octaves])

    @property
    def exact_sums(self) -> FloatArray | None:
        """(5,) sums over all column sets, where all their row sets are visited anyway; else None."""
        if not self.whole or self._exact_table is None:
            return None
        table = self._exact_table[1]
        sums = np.append(table[:4].sum(axis=1), table[4].max(initial=0.0))
        return sums if np.isfinite(sums).all() else None

    @property
    def steps_of_exact_sums(self) -> float:
        """Minors that :attr:`exact_sums` visits."""
        return 0.0 if self._exact_table is None else float(len(self._exact_table[0]) * self.row_sets)

    def _codes(self, sets: IntArray) -> IntArray:
        """One number for each column set (P, k), whatever its order."""
        return np.asarray(np.sort(sets, axis=1) @ len(self.lengths) ** np.arange(self.k))

    def _list_sets(self) -> IntArray:
        """(count, k) column sets that may be drawn."""
        every = row_subsets(len(self.lengths), self.k)
        if not self.allowed.size:
            return every
        return every[np.all([self.allowed[first, second] for first, second in combinations(every.T, 2)], axis=0)]

    @cached_property
    def _exact_table(self) -> tuple[IntArray, FloatArray] | None:
        """Sorted codes of all column sets and their (5, P) sums, where they are few enough for each to be visited once."""
        n = len(self.lengths)
        if self.listed is not None:
            sets = self.listed if len(self.listed) <= FEW else None
        else:
            sets = self._list_sets() if comb(n, self.k) <= FEW else None
        if sets is None:
            return None
        codes = self._codes(sets)
        order = np.argsort(codes)
        return codes[order], self._enumerate_rows(sets[order], 1).sums


def spanned_volumes(vectors: FloatArray, subsets: IntArray) -> FloatArray:
    """(count,) volumes that listed vectors span, by QR of each."""
    values = np.empty(len(subsets))
    for start in range(0, len(subsets), 4096):
        block = slice(start, start + 4096)
        r = np.linalg.qr(np.swapaxes(vectors[subsets[block]], 1, 2), mode="r")
        values[block] = np.abs(np.prod(np.diagonal(r, axis1=1, axis2=2), axis=1))
    return values


def count_sets(allowed: NDArray[np.bool_], k: int, seed: int) -> Estimate:
    """Estimated number of k-subsets of columns whose pairs are all allowed, to about half a percent; the error is NaN where few
    draws carry it."""
    units = 20_000
    allowed = allowed & ~np.eye(len(allowed), dtype=bool)
    columns, weights = np.empty((units, 1, k), dtype=np.int64), np.empty((units, 1))
    u = np.random.default_rng([seed, HISTOGRAM]).random((units, k))
    draw_sets(np.zeros((len(allowed), 1)), np.ones(len(allowed)), np.ascontiguousarray(allowed), True, u, columns, weights)
    error = float(weights.std(ddof=1)) / units**0.5
    return Estimate(round(float(weights.mean())), error if effective_draws(weights) >= CARRIED else np.nan)
