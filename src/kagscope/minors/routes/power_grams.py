"""S2 and S4 of 2-minors from Gram and power-Gram matrices (MATH.md 4.1 and 4.2), and the pairs where these cancel."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kagscope.minors.plan import BYTES_A_SUBSET
from kagscope.minors.routes import Kind, register
from kagscope.minors.scaling import narrow, nonzero_rows
from kagscope.minors.subsets import cached_subsets, pairs_of, sublist
from kagscope.minors.sweeps import enumerate_sums
from kagscope.minors.task import RouteResult, Task
from kagscope.minors.threads import one_blas_thread

FloatArray = NDArray[np.float64]
BLOCK = 1 << 18  # pairs
CANCELS = 1e-4  # a difference below this share of its terms has lost four of its sixteen digits: enumerate that pair instead


def pair_powers(
    J: FloatArray, first: NDArray[np.int64], second: NDArray[np.int64]
) -> tuple[FloatArray, FloatArray, NDArray[np.bool_]]:
    """S2 and S4 over row pairs for the column pairs (first, second), and where either cancels.

    The same threshold bounds what the kernel ``s1_pairs`` leaves on nearly parallel columns: their S1 is at least sqrt(S2), so
    where S2 >= 1e-4 G_aa G_bb, its relative error is below 100 u m.
    """
    n = J.shape[1]
    with one_blas_thread(), np.errstate(over="ignore", invalid="ignore"):
        square = J * J
        p31, p22 = (square * J).T @ J, square.T @ square
        del square
        gram = J.T @ J
    p40, diagonal = np.diagonal(p22), np.diagonal(gram)
    s2, s4, cancels = np.empty(len(first)), np.empty(len(first)), np.empty(len(first), dtype=bool)
    for start in range(0, len(first), BLOCK):  # each number of a pair, at once for all, would take as much as half a matrix
        part = slice(start, start + BLOCK)
        a, b = first[part], second[part]
        ab, ba = a * n + b, b * n + a
        with np.errstate(over="ignore", invalid="ignore"):
            whole2 = diagonal[a] * diagonal[b]
            s2[part] = whole2 - gram.take(ab) ** 2
            mixed = 4 * p31.take(ab) * p31.take(ba)
            whole4 = p40[a] * p40[b] + 3 * p22.take(ab) ** 2
            s4[part] = whole4 - mixed
        lost = ~np.isfinite(s2[part]) | ~np.isfinite(s4[part])  # with very mixed scales
        cancels[part] = lost | (s2[part] < CANCELS * whole2) | (s4[part] < CANCELS * (whole4 + np.abs(mixed)))
    return s2, s4, cancels


def accurate_row_pair_sums(matrix: FloatArray) -> tuple[FloatArray, FloatArray]:
    """S2 and S4 over all column pairs for each row pair."""
    return accurate_pair_sums(np.ascontiguousarray(matrix.T), *np.triu_indices(len(matrix), 1))


def accurate_pair_sums(J: FloatArray, first: NDArray[np.int64], second: NDArray[np.int64]) -> tuple[FloatArray, FloatArray]:
    """S2 and S4 over all row pairs for the column pairs (first, second), by power Grams; where those cancel, by enumeration."""
    s2, s4, cancels = pair_powers(J, first, second)
    again = np.flatnonzero(cancels)
    if again.size:
        hard = sublist(first[again], second[again])
        s2[again], s4[again] = enumerate_sums(J, hard)[1:3]
    return s2, s4


@register
class PowerGrams:
    """S2 and S4 of k = 2: over every pair of some columns on the side with fewer pairs, over other selections pair by pair."""

    name = "power Grams"
    kind: Kind = "formula"

    def provides(self, task: Task) -> frozenset[str]:
        listable = (task.count or 0) * BYTES_A_SUBSET <= task.memory_budget
        return frozenset({"s2", "s4"}) if task.k == 2 and (task.clique or listable) else frozenset()

    def steps(self, task: Task) -> dict[str, float]:
        few, many = sorted(task.shape) if task.clique else task.shape[::-1]
        return {"Grams": 3.0 * few * few * many}

    def run(self, tasks: list[Task]) -> list[RouteResult | None]:
        return [self._run_task(task) for task in tasks]

    def _run_task(self, task: Task) -> RouteResult:
        both = [self._sums(nonzero_rows(matrix), task) for matrix in task.inside.normalised]
        sums = {name: np.array([pair[index] for pair in both]) for index, name in enumerate(("s2", "s4")) if name in task.wanted}
        return RouteResult(task.inside.exponent, sums, {"s2": "Gram matrix", "s4": self.name})

    def _sums(self, matrix: FloatArray, task: Task) -> tuple[float, float]:
        if min(matrix.shape) < 2:
            return 0.0, 0.0
        if task.clique:
            s2, s4 = accurate_row_pair_sums(narrow(matrix))
        else:
            s2, s4 = accurate_pair_sums(matrix, *pairs_of(cached_subsets((task.selection,), task.layout, 2)))
        return float(s2.sum()), float(s4.sum())
