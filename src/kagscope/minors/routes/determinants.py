"""Minors of any order, one by one, in chunks: for k >= 4 when there are few, and as a simple reference in tests."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from itertools import chain, combinations
from math import ceil, comb, lgamma, log, log2

import numpy as np
from numpy.typing import NDArray

from kagscope.base.errors import InputError
from kagscope.columns.selections import Subsets
from kagscope.minors._numba import SLOTS
from kagscope.minors.plan import RATES
from kagscope.minors.precise_determinants import MOST_EXACT, bareiss_dets, exact_minors, integers, twofold_dets
from kagscope.minors.rank import rank_below, singular
from kagscope.minors.routes import Kind, register
from kagscope.minors.routes.entries import entry_sums
from kagscope.minors.scaling import bit_span, bits, is_exact, nonzero_rows, on_host, times_power_of_two
from kagscope.minors.subsets import SubsetList
from kagscope.minors.task import EVERY_MOMENT, RouteResult, Task, make_result, trim_histogram

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
MAX_ENTRIES = 2**26
LARGE = 64  # order of minors beyond which products of k factors below 1 may leave the range
COUNTLESS = 10**300  # minors: larger counts are not distinguished
MOST_BITS = 900  # of a product of k entries: beyond, square matrices are scaled one by one
TINY = float(np.finfo(np.float64).tiny)
SMALL = 1e-6  # a minor below this share of what random columns of its lengths span is done again in twice the precision
SMALLER = 1e-19  # and below this in whole numbers


def row_subsets(m: int, k: int) -> IntArray:
    """(C(m, k), k) row subsets in lexicographic order."""
    return np.fromiter(chain.from_iterable(combinations(range(m), k)), dtype=np.int64, count=comb(m, k) * k).reshape(-1, k)


def clique_subsets(adjacency: NDArray[np.bool_], k: int) -> IntArray:
    """(count, k) subsets whose pairs are all allowed, in lexicographic order."""
    n = len(adjacency)
    subsets = np.arange(n)[:, None]
    for _ in range(k - 1):
        grown = []
        for subset in subsets:
            later = np.flatnonzero(adjacency[subset, subset[-1] + 1 :].all(axis=0)) + subset[-1] + 1
            grown.append(np.concatenate([np.tile(subset, (len(later), 1)), later[:, None]], axis=1))
        subsets = np.concatenate(grown) if grown else np.empty((0, subsets.shape[1] + 1), dtype=np.int64)
    return subsets.astype(np.int64)


def _columns_of_blocks(rows: IntArray, columns: IntArray) -> Iterator[IntArray]:
    step = max(1, 2**20 // max(1, len(rows) * rows.shape[1] ** 2))
    for start in range(0, len(columns), step):
        yield columns[start : start + step]


class Minors:
    """|det J[R, C]| / 2^(k power), where small ones that rounding may have spoilt are recomputed.

    Where products of k entries may leave the range, each square matrix is scaled separately.
    """

    def __init__(self, J: FloatArray, k: int, power: int = 0) -> None:
        self.wide = k * bit_span(J) > MOST_BITS or k > LARGE
        self.rows = np.zeros(len(J), dtype=np.int64) if self.wide else _below_largest(J)
        self.J, self.power = (J, power) if self.wide else (times_power_of_two(J, -power - self.rows[:, None]), 0)
        self.k, self.left = k, MOST_EXACT
        self.typical = (lgamma(k + 1) - k * log(k)) / log(4)  # log2 of what random columns of length 1 span
        self.unit = 2.0 ** (k * bits(self.J)[1]) if is_exact(self.J, k) else 0.0

    @cached_property
    def _whole(self) -> tuple[NDArray[np.object_], int]:
        return integers(self.J)

    def of(self, rows: IntArray, columns: IntArray) -> FloatArray:
        """(…) minors of the row sets and column sets (…, k), which broadcast; NaN where there are too many small ones."""
        A = self.J[rows[..., :, None], columns[..., None, :]]
        A, powers = _balance(A) if self.wide else (A, np.zeros(A.shape[:-2], dtype=np.int64))
        dets, more = _split_det(A)
        if self.unit:  # determinants of small integers are integers: rounding to the nearest removes all errors
            return self._restore_rows(np.rint(dets / self.unit) * self.unit, rows)
        with np.errstate(divide="ignore"):
            spanned = np.log2(np.linalg.norm(A, axis=-2)).sum(axis=-1) + self.typical
            small = ~(np.log2(dets) + more >= spanned + log2(SMALL))
            if self.k <= LARGE and small.any():
                dets[small] = twofold_dets(A[small])
                small[small] = ~(np.log2(dets[small]) >= spanned[small] + log2(SMALLER))
        if self.wide:
            with np.errstate(under="ignore"):
                dets = np.ldexp(dets, powers + more - self.k * self.power)
        sets = (np.broadcast_to(index_sets, (*small.shape, self.k))[small] for index_sets in (rows, columns))
        dets[small] = self._recompute(*sets)
        dets = self._restore_rows(dets, rows)
        dets[dets < TINY] = 0.0  # with too few digits for a bin of the histogram
        return dets

    def _restore_rows(self, dets: FloatArray, rows: IntArray) -> FloatArray:
        """Minors of scaled rows as those of the rows themselves."""
        return dets if self.wide else times_power_of_two(dets, self.rows[rows].sum(axis=-1))

    def _recompute(self, rows: IntArray, columns: IntArray) -> FloatArray:
        dets = np.zeros(len(rows))
        nonzero = np.flatnonzero(~singular(self.J, rows, columns))
        self.left -= len(nonzero)
        dets[nonzero] = np.nan
        if self.left >= 0 and len(nonzero):
            whole, exponent = self._whole
            dets[nonzero] = exact_minors(whole[rows[nonzero][:, :, None], columns[nonzero][:, None, :]], exponent - self.power)
        return dets


def _below_largest(J: FloatArray) -> IntArray:
    """(m,) powers of two by which rows are smaller than the largest: minors of small ones, left so, would look cancelled."""
    sizes = np.abs(J).max(axis=1)
    exponents = np.frexp(sizes)[1].astype(np.int64)
    return np.where(sizes > 0, exponents - exponents[sizes > 0].max(initial=-10_000), 0)


def precise_blocks(J: FloatArray, rows: IntArray, columns: IntArray, power: int = 0) -> Iterator[FloatArray]:
    """:class:`Minors` for blocks of column subsets, each (row subsets, block)."""
    minors = Minors(J, rows.shape[1], power)
    for block in _columns_of_blocks(rows, columns):
        yield minors.of(rows[:, None], block[None])


def _peak_exponent(J: FloatArray, columns: IntArray) -> int | None:
    """About log2 of the largest minor over some column subsets, had none cancelled; None where all are zero.

    Where floats show none, in integers, unless there are too many.
    """
    k = columns.shape[1]
    rows, peak = row_subsets(len(J), k), []
    for block_columns in _columns_of_blocks(rows, columns):
        A, powers = _balance(J[rows[:, None, :, None], block_columns[None, :, None, :]])
        block, more = _split_det(A)
        peak += [int((powers + more + np.frexp(block)[1])[block > 0].max())] if block.any() else []
    if not peak and len(rows) * len(columns) <= MOST_EXACT:
        whole, exponent = integers(J)
        for block_columns in _columns_of_blocks(rows, columns):
            dets = bareiss_dets(whole[rows[:, None, :, None], block_columns[None, :, None, :]])
            peak += [k * exponent + max(int(x).bit_length() for x in dets.ravel())] if dets.any() else []
    return max(peak, default=None)


def _balance(A: FloatArray) -> tuple[FloatArray, IntArray]:
    """(…, k, k), rows and columns over powers of two, and by how much; no column is longer than 1, so no determinant above 1."""
    sizes = np.where(A != 0, np.frexp(A)[1], -10_000)
    rows = sizes.max(axis=-1, keepdims=True)
    columns = (sizes - rows).max(axis=-2, keepdims=True) + ceil(log2(A.shape[-1]) / 2)
    with np.errstate(under="ignore"):
        return np.ldexp(A, -(rows + columns)), rows.sum(axis=(-2, -1)) + columns.sum(axis=(-2, -1))


def _split_det(A: FloatArray) -> tuple[FloatArray, IntArray]:
    """|det| of (…, k, k) over powers of two, and these: 0 but for large k, where rows of 1 span far less than 1."""
    if A.shape[-1] <= LARGE:
        return np.abs(_det(A)), np.zeros(A.shape[:-2], dtype=np.int64)
    logs = np.linalg.slogdet(A)[1] / log(2)
    powers = np.where(np.isfinite(logs), np.ceil(logs), 0).astype(np.int64)
    return np.exp2(logs - powers), powers


def _det(A: FloatArray) -> FloatArray:
    """Determinants of (…, k, k). For k <= 3 those of whole numbers are exact; LAPACK's pivots would leave rounding for a zero."""
    k = A.shape[-1]
    if k == 2:
        return np.asarray(A[..., 0, 0] * A[..., 1, 1] - A[..., 0, 1] * A[..., 1, 0])
    if k == 3:
        return np.asarray(sum(A[..., 0, i] * _det(A[..., 1:, [(i + 1) % 3, (i + 2) % 3]]) for i in range(3)))
    with np.errstate(all="ignore"):  # of intermediate overflow
        return np.asarray(np.linalg.det(A))


def minor_matrix(J: FloatArray, k: int, power: int = 0) -> FloatArray:
    """(C(m, k), C(n, k)) all |minors| of J / 2^power. Raises :class:`InputError` beyond 2^26 of them."""
    m, n = J.shape
    if comb(m, k) * comb(n, k) > MAX_ENTRIES:
        raise InputError(
            f"the {k}-minor matrix of a {m} x {n} matrix has {comb(m, k) * comb(n, k):.2e} entries, more than {MAX_ENTRIES}; "
            f"use a smaller k or fewer columns"
        )
    if k == 1:
        return np.abs(times_power_of_two(J, np.array(-power)))
    return np.concatenate(list(precise_blocks(J, row_subsets(m, k), row_subsets(n, k), power)), axis=1)


@register
class Determinants:
    """Every moment of k >= 4, for any selection, minor by minor."""

    name = "every determinant by LU"
    kind: Kind = "visit"

    def provides(self, task: Task) -> frozenset[str]:
        return EVERY_MOMENT if task.k >= 4 else frozenset()

    def steps(self, task: Task) -> dict[str, float]:
        return {"determinants": float(min(task.minors, COUNTLESS)) if task.count is not None else float("inf")}

    def run(self, tasks: list[Task]) -> list[RouteResult | None]:
        return [self._run_task(task) for task in tasks]

    def run_rescaled(self, task: Task) -> RouteResult:
        """Every moment of k >= 2, normalised by the largest minor of the selection, however far below the matrix's it lies."""
        columns = self._columns(task)
        peaks = [_peak_exponent(matrix, columns) for matrix in on_host(task.matrices.given)]
        whole = zip(peaks, task.matrices.exponent, strict=True)
        exponents = np.array([exponent if peak is None else -(-peak // task.k) for peak, exponent in whole], dtype=np.int64)
        result = self._enumerate(task, columns, exponents)
        size = np.frexp(np.where(result.sums["s1"] > 0, result.sums["s1"], 1.0))[1] // task.k
        cancelled = (size < -MOST_BITS // 8).any()
        return self._enumerate(task, columns, result.exponent + size) if cancelled else result

    def _run_task(self, task: Task) -> RouteResult:
        shift = int(np.ceil(np.log2(task.k) / 2))  # so that lengths of columns are at most 1
        return self._enumerate(task, self._columns(task), task.matrices.exponent + shift)

    def _enumerate(self, task: Task, columns: IntArray, exponents: IntArray) -> RouteResult:
        """Sums over minors of the matrices over 2^exponents."""
        sums, hists = np.zeros((task.matrices.shape[0], 5)), []
        for index, (matrix, power) in enumerate(zip(on_host(task.matrices.given), exponents, strict=True)):
            active = nonzero_rows(matrix)
            hist = np.zeros(SLOTS, dtype=np.int64)
            nothing = rank_below(active, task.k)
            for block in () if nothing else precise_blocks(active, row_subsets(len(active), task.k), columns, int(power)):
                block_sums, part_hist = entry_sums(block, SubsetList.singletons(block.shape[1]))
                sums[index, :4] += block_sums[0, :4]
                sums[index, 4] = max(sums[index, 4], block_sums[0, 4])
                hist += part_hist[0]
            hists.append(trim_histogram(hist))
        return make_result(task, self.name, exponents, sums, hists)

    def _columns(self, task: Task) -> IntArray:
        """(count, k) column subsets. Raises :class:`InputError` where they would not fit in the memory budget."""
        k, rows = task.k, task.shape[0]
        if task.count is None:
            raise InputError(f'k={k} over {task.selection} has too many column subsets to list; use method="auto" or "sampled"')
        if task.count * k * 8 > task.memory_budget or comb(rows, k) * k * 8 > task.memory_budget:
            raise InputError(
                f"k={k} over {task.selection} has {task.minors:.2e} minors (about {task.minors / RATES['determinants']:.1e} s "
                f'exactly), and listing their subsets exceeds memory_budget={task.memory_budget}; use method="auto" or "sampled"'
            )
        if isinstance(task.selection, Subsets):
            return task.selection.array(task.layout, k)
        if task.selection.clique:
            inside = np.flatnonzero(task.selection.columns(task.layout))
            return np.asarray(inside[row_subsets(len(inside), k)])
        return clique_subsets(task.selection.pairs(task.layout) & ~np.eye(task.layout.columns, dtype=bool), k)
