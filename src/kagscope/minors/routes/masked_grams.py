"""S2 of the 3-minors over any condition on pairs of columns: Gram matrices with the forbidden pairs masked (MATH.md 4.1).

The sum over row triples of det^2 is the Gram determinant of the column triple, and the sum of Gram determinants over triangles of
the graph of allowed pairs is a handful of products of n x n matrices.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kagscope.columns.selections import Subsets
from kagscope.minors.routes import register
from kagscope.minors.routes.one_moment import OneMoment
from kagscope.minors.task import Task
from kagscope.minors.threads import one_blas_thread

FloatArray = NDArray[np.float64]
CANCELS = 1e-4  # a sum below this share of its terms has lost too many digits


def triangle_s2(J: FloatArray, allowed: NDArray[np.bool_]) -> float | None:
    """S2 over column triples whose pairs are all allowed; None where it cannot be distinguished from rounding."""
    mask = (allowed & ~np.eye(len(allowed), dtype=bool)).astype(np.float64)
    with one_blas_thread(), np.errstate(over="ignore", invalid="ignore"):
        gram = J.T @ J
        squares = np.diagonal(gram)
        # g_a g_b g_c + 2 g_ab g_bc g_ca - g_a g_bc^2 - g_b g_ca^2 - g_c g_ab^2, over ordered triples
        masked, weighted = mask * gram, mask * squares
        whole = float(squares @ ((mask @ (squares[:, None] * mask)) * mask) @ squares)
        cycle = float(((masked @ masked) * masked).sum())
        pairs = float(((weighted @ mask) * mask * gram**2).sum())
    total = whole + 2 * cycle - 3 * pairs
    size = whole + 2 * abs(cycle) + 3 * pairs
    if size != 0 and not CANCELS * size <= total < np.inf:
        return None
    return total / 6


@register
class MaskedGrams(OneMoment):
    """S2 of k = 3 over selections that are conditions on pairs."""

    name = "masked Gram matrices"
    moment = "s2"

    def provides(self, task: Task) -> frozenset[str]:
        pairwise = task.k == 3 and not task.selection.clique and not isinstance(task.selection, Subsets)
        return frozenset({"s2"}) if pairwise else frozenset()

    def steps(self, task: Task) -> dict[str, float]:
        rows, columns = task.shape
        return {"Grams": float(rows * columns**2 + 3 * columns**3)}

    def value(self, matrix: FloatArray, task: Task) -> float | None:
        return triangle_s2(matrix, task.selection.pairs(task.layout))
