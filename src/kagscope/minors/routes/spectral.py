"""S2 over all k-minors from the singular values (MATH.md 4.1)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kagscope.minors.routes import register
from kagscope.minors.routes.one_moment import OneMoment
from kagscope.minors.task import Task
from kagscope.minors.threads import one_blas_thread

FloatArray = NDArray[np.float64]


def elementary_symmetric(values: FloatArray, k: int) -> float:
    """e_k of non-negative numbers: sum of all products of k; only additions of non-negative terms, so nothing cancels."""
    e = np.zeros(k + 1)
    e[0] = 1.0
    for value in values:
        e[1:] += value * e[:-1]
    return float(e[k])


def spectral_s2(matrix: FloatArray, k: int) -> float | None:
    """S2 = e_k(squared singular values) (MATH.md 4.1); None where the k-th singular value is too small to be accurate."""
    with one_blas_thread():
        values = np.asarray(np.linalg.svd(matrix, compute_uv=False), dtype=np.float64)
    if len(values) < k or values[k - 1] < 1e-5 * values[0]:
        return None
    return elementary_symmetric(values**2, k)


@register
class Spectral(OneMoment):
    """S2 of all k-minors of some columns, k >= 3; for k = 2 a Gram matrix is cheaper and identifies nearly parallel rows."""

    name = "e_k of the squared singular values"
    moment = "s2"

    def provides(self, task: Task) -> frozenset[str]:
        return frozenset({"s2"}) if task.k >= 3 and task.clique else frozenset()

    def steps(self, task: Task) -> dict[str, float]:
        few, many = sorted(task.shape)
        return {"spectra": float(few * few * many)}

    def value(self, matrix: FloatArray, task: Task) -> float | None:
        return spectral_s2(matrix, task.k) if min(matrix.shape) >= task.k else 0.0
