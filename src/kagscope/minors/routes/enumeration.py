"""Every 2-minor and 3-minor over any selections in one pass, each minor visited once (MATH.md 4.6)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kagscope.base.errors import InputError
from kagscope.columns.selections import Subsets
from kagscope.minors._numba import SLOTS
from kagscope.minors.moments import CHEAP, SUMS
from kagscope.minors.plan import BYTES_A_SUBSET, reference_seconds
from kagscope.minors.routes import Kind, register
from kagscope.minors.routes.power_grams import pair_powers
from kagscope.minors.scaling import nonzero_rows
from kagscope.minors.subsets import MAX_SELECTIONS, SubsetList, cached_subsets, sublist, sum_over_selections
from kagscope.minors.sweeps import enumerate_all, enumerate_s1, enumerate_sums
from kagscope.minors.task import EVERY_MOMENT, RouteResult, SlotCounts, Task, make_result, trim_histogram

FloatArray = NDArray[np.float64]
FEW_ROWS = 48  # up to here enumerating S2 and S4 with S1 beats Gram matrices


@register
class Enumeration:
    """Every moment of k = 2 and 3, for any selections, which share the pass."""

    name = "enumeration of every minor"
    kind: Kind = "visit"

    def provides(self, task: Task) -> frozenset[str]:
        return EVERY_MOMENT if task.k in (2, 3) else frozenset()

    def steps(self, task: Task) -> dict[str, float]:
        rows, columns = task.shape
        minors = float(task.minors)
        if task.k == 2 and task.wanted <= CHEAP and rows > FEW_ROWS:
            return {"s1 of pairs": minors, "Grams": 3.0 * rows * columns * columns}
        if task.k == 2 and task.wanted <= CHEAP | {"top"}:
            return {"sums of pairs": minors}
        return {"pairs" if task.k == 2 else "triples": minors}

    def run(self, tasks: list[Task]) -> list[RouteResult | None]:
        for task in tasks:
            check_listable(task, self.steps(task))
        results: dict[int, RouteResult] = {}
        for indices in group_passes(tasks):
            subsets = cached_subsets(tuple(tasks[index].selection for index in indices), tasks[0].layout, tasks[0].k)
            sums, hists = self._pass(tasks[indices[0]], subsets)
            for i, index in enumerate(indices):
                hists_of_task = None if hists is None else [hist[i] for hist in hists]
                results[index] = make_result(
                    tasks[index], self._route(tasks[index]), tasks[index].matrices.exponent, sums[:, i], hists_of_task
                )
        return [results[index] for index in range(len(tasks))]

    def _route(self, task: Task) -> str:
        if task.k == 2 and task.wanted <= CHEAP:
            return "S1 by enumeration without logarithms, S2 and S4 by power Grams, pairs that cancel enumerated"
        return self.name

    def _pass(self, task: Task, subsets: SubsetList) -> tuple[FloatArray, list[list[SlotCounts]] | None]:
        """(B, selections, 5) sums, and for each matrix the histogram of each selection."""
        sums, hists = [], []
        for matrix in task.matrices.normalised:
            row_sums, hist = selection_sums(matrix, task.k, subsets, task.wanted)
            sums.append(row_sums)
            if hist is not None:
                hists.append([trim_histogram(row) for row in hist])
        return np.stack(sums), hists or None


def group_passes(tasks: list[Task]) -> list[list[int]]:
    """Indices of tasks that share a pass: explicit subsets have their own, and histograms of many cells must fit the budget."""
    passes = [[index] for index, task in enumerate(tasks) if isinstance(task.selection, Subsets)]
    rest = [index for index, task in enumerate(tasks) if not isinstance(task.selection, Subsets)]
    for start in range(0, len(rest), MAX_SELECTIONS):
        passes += _split_pass(tasks, rest[start : start + MAX_SELECTIONS])
    return passes


def _split_pass(tasks: list[Task], indices: list[int]) -> list[list[int]]:
    task = tasks[indices[0]]
    subsets = cached_subsets(tuple(tasks[index].selection for index in indices), task.layout, task.k)
    cells = len(subsets.membership)
    if cells > 1 and len(indices) > 1 and "histogram" in task.wanted and cells * 80_000 > task.memory_budget // 4:
        half = len(indices) // 2
        return [*_split_pass(tasks, indices[:half]), *_split_pass(tasks, indices[half:])]
    return [indices]


def check_listable(task: Task, work: dict[str, float]) -> None:
    """Raise :class:`InputError` where the list of column subsets would not fit in the memory budget."""
    count = task.count or 0
    if count * BYTES_A_SUBSET > task.memory_budget:
        raise InputError(
            f"k={task.k} over {task.selection} lists {count:.2e} column subsets, {count * BYTES_A_SUBSET / 2**30:.1f} GiB and "
            f"about {reference_seconds(work):.1e} s a matrix, beyond memory_budget={task.memory_budget}; "
            'raise it, or use method="auto" or "sampled"'
        )


def selection_sums(
    matrix: FloatArray, k: int, subsets: SubsetList, wanted: frozenset[str]
) -> tuple[FloatArray, NDArray[np.int64] | None]:
    """(selections, 5) normalised sums of one normalised matrix, and (selections, SLOTS) its histograms."""
    active = nonzero_rows(matrix)
    if len(active) < k or len(subsets.last) == 0:
        sums, hist = np.zeros((5, len(subsets.last))), None
    elif k == 2 and wanted <= CHEAP | {"top"}:
        sums, hist = pair_sums(active, subsets, wanted), None
    else:
        swept = enumerate_all(active, subsets, k, "histogram" in wanted)
        sums, hist = swept.sums, swept.hist
    cells, chosen = len(subsets.membership), subsets.membership.shape[1]
    by_cell = np.zeros((5, cells))
    for row in (SUMS.index(name) for name in SUMS[:4] if name in wanted or name == "s1"):
        by_cell[row] = np.bincount(subsets.cells, weights=sums[row], minlength=cells)
    if "top" in wanted:
        np.fmax.at(by_cell[4], subsets.cells, sums[4])
    totals = sum_over_selections(by_cell, subsets.membership)
    if "histogram" not in wanted:
        return totals, None
    if hist is None or not cells:
        return totals, np.zeros((chosen, SLOTS), dtype=np.int64)
    return totals, subsets.membership.T.astype(np.int64) @ hist


def pair_sums(active: FloatArray, subsets: SubsetList, wanted: frozenset[str]) -> FloatArray:
    """(5, P) S1, S2, S4, -, top over row pairs of each column pair of ``subsets``, without logarithms (top only where wanted)."""
    if "top" in wanted or len(active) <= FEW_ROWS:
        return enumerate_sums(active, subsets)
    first = np.repeat(subsets.prefixes[:, 0], np.diff(subsets.starts))
    sums = np.zeros((5, len(subsets.last)))
    s1 = enumerate_s1(active, subsets) if "s1" in wanted else 0.0
    sums[1], sums[2], cancels = pair_powers(active, first, subsets.last)
    if cancels.mean() > 0.5:
        return enumerate_sums(active, subsets)
    sums[0] = s1
    again = np.flatnonzero(cancels)
    if again.size:
        hard = sublist(first[again], subsets.last[again])
        sums[:, again] = enumerate_sums(active, hard)
    return sums
