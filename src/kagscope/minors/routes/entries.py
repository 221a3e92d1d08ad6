"""Minors of order 1: the entries."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kagscope.columns.selections import Subsets
from kagscope.minors._numba import LOWEST_BIN, SLOTS
from kagscope.minors.routes import Kind, register
from kagscope.minors.scaling import on_host, times_power_of_two
from kagscope.minors.subsets import SubsetList
from kagscope.minors.task import EVERY_MOMENT, RouteResult, Task, make_result, trim_histogram

FloatArray = NDArray[np.float64]


def entry_sums(matrix: FloatArray, subsets: SubsetList, exponent: int = 0) -> tuple[FloatArray, NDArray[np.int64]]:
    """Sums for k = 1: the minors are the entries, here over 2^exponent; those too small for a bin count as zeros."""
    sizes = np.abs(matrix[:, subsets.last])
    fractions, exponents = np.frexp(np.where(sizes > 0, sizes, 1.0))
    slots = np.floor(np.log2(fractions) * 8).astype(np.int64) + 8 * (exponents - exponent) - (LOWEST_BIN - 1)
    slots = np.where(sizes > 0, np.maximum(slots, 0), 0)
    values = times_power_of_two(sizes, np.array(-exponent))
    logs = np.log(np.where(values > 0, values, 1.0))
    chosen = subsets.membership.T
    totals, hists = np.zeros((len(chosen), 5)), []
    for index, member in enumerate(chosen):
        inside = member[subsets.cells] if len(member) else np.zeros(0, dtype=bool)
        M = values[:, inside]
        totals[index] = M.sum(), (M**2).sum(), (M**4).sum(), (M * logs[:, inside]).sum(), M.max(initial=0.0)
        hists.append(np.bincount(slots[:, inside].ravel(), minlength=SLOTS))
    return totals, np.stack(hists)


@register
class Entries:
    """Every moment of k = 1, for any selection."""

    name = "enumeration of every minor"
    kind: Kind = "visit"

    def provides(self, task: Task) -> frozenset[str]:
        return EVERY_MOMENT if task.k == 1 else frozenset()

    def steps(self, task: Task) -> dict[str, float]:
        return {"entries": float(task.shape[0] * (task.count or 0))}

    def run(self, tasks: list[Task]) -> list[RouteResult | None]:
        return [self._run_task(task) for task in tasks]

    def _run_task(self, task: Task) -> RouteResult:
        columns = task.selection.columns(task.layout)
        if isinstance(task.selection, Subsets):
            columns = np.isin(np.arange(task.layout.columns), task.selection.array(task.layout, 1))
        inside, subsets = task.matrices.inside(columns), SubsetList.singletons(int(columns.sum()))
        sums, hists = [], []
        for matrix, exponent in zip(on_host(inside.given), inside.exponent, strict=True):
            totals, hist = entry_sums(matrix, subsets, int(exponent))
            sums.append(totals[0])
            hists.append(trim_histogram(hist[0]))
        return make_result(task, self.name, inside.exponent, np.stack(sums), hists)
