"""Means over columns of the minors of each row subset (MATH.md section 3, zero rows)."""

from __future__ import annotations

from math import comb
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from kagscope.base.errors import InputError
from kagscope.minors._input import MatrixLike, as_matrices, check_k, device_of, placed
from kagscope.minors.routes.determinants import row_subsets
from kagscope.minors.routes.zonogon import balanced_rows, row_pair_areas
from kagscope.minors.routes.zonotope import row_triple_volumes

if TYPE_CHECKING:
    from torch import Tensor

FloatArray = NDArray[np.float64]


def row_means(J: MatrixLike, k: int = 1) -> FloatArray | Tensor:
    """Mean of the |k-minors| over all columns for each row subset, in lexicographic order: Zipf curves and zero rows.

    Args:
        J: (m, n) or (B, m, n) NumPy array or torch tensor.
        k: 1 to 3; exact.

    Returns:
        (C(m, k),) float64 array, or (B, C(m, k)) for a batch; tensors on the device of J if that is CUDA.

    Raises:
        InputError: an unusable matrix, or k beyond 3.
    """
    matrices, batched = as_matrices(J)
    _, m, n = matrices.shape
    k = check_k(k, m, n)
    if k > 3:
        raise InputError(f"k={k}: row means are exact for k = 1, 2, 3; choose one of these")
    with np.errstate(over="ignore", under="ignore"):
        means = np.stack([_row_sums(np.ascontiguousarray(matrix), k) for matrix in matrices]) / comb(n, k)
    return placed(means if batched else means[0], device_of(J))


def _row_sums(matrix: FloatArray, k: int) -> FloatArray:
    """Sums over the columns for each row subset, every row scaled by a power of two of its own on the way."""
    if k == 1:
        rows, exponents = balanced_rows(matrix)
        return np.ldexp(np.abs(rows).sum(axis=1), exponents)
    if k == 2:
        return row_pair_areas(matrix)
    return row_triple_volumes(matrix, row_subsets(len(matrix), 3))
