"""Means over columns of the minors of each row subset (MATH.md section 3, zero rows)."""

from __future__ import annotations

from math import comb
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from kagscope.base.errors import InputError
from kagscope.minors._input import MatrixLike, as_matrices, check_k, device_of, to_device
from kagscope.minors.engine import minor_moments
from kagscope.minors.routes.determinants import row_subsets
from kagscope.minors.routes.zonogon import normalise_rows, row_pair_areas
from kagscope.minors.routes.zonotope import ENTRY_BITS, MOST_BITS, row_triple_volumes
from kagscope.minors.scaling import column_span, entry_span

if TYPE_CHECKING:
    from torch import Tensor

FloatArray = NDArray[np.float64]


def row_means(J: MatrixLike, k: int = 1) -> FloatArray | Tensor:
    """Mean of the |k-minors| over all columns for each row subset, in lexicographic order: Zipf curves and zero rows.

    Args:
        J: (m, n) or (B, m, n) NumPy array or torch tensor.
        k: 1 to 3; exact.

    Returns:
        (C(m, k),) float64 array, or (B, C(m, k)) for a batch; tensors on the device of J if that is CUDA. A mean is 0 only where
        every minor is: below the range it is the smallest number above 0.

    Raises:
        InputError: an unusable matrix, or k beyond 3.
    """
    matrices, batched = as_matrices(J)
    _, m, n = matrices.shape
    k = check_k(k, m, n)
    if k > 3:
        raise InputError(f"k={k}: row means are exact for k = 1, 2, 3; choose one of these")
    sets = row_subsets(m, k)
    means = np.stack([_row_means(np.ascontiguousarray(matrix), k, sets) for matrix in matrices])
    return to_device(means if batched else means[0], device_of(J))


def _row_means(matrix: FloatArray, k: int, sets: NDArray[np.int64]) -> FloatArray:
    """Means for each row subset, each row scaled by its own power of two; nonzero means are never rounded to zero."""
    rows, powers = normalise_rows(matrix)
    exponents = powers[sets].sum(axis=1)
    if k > 1 and (column_span(matrix) > MOST_BITS or entry_span(matrix) > ENTRY_BITS):  # some would leave the range beside others
        results = [minor_moments(matrix[rows], k, moments=("s1",)) for rows in sets]
        sums, exponents = (
            np.array([value[0] for value in columns])
            for columns in zip(*((result.sums["s1"], k * result.exponent) for result in results), strict=True)
        )
    else:
        sums = np.abs(rows).sum(axis=1) if k == 1 else row_pair_areas(rows) if k == 2 else row_triple_volumes(rows, sets)
    with np.errstate(over="ignore", under="ignore"):
        means = np.ldexp(sums / comb(matrix.shape[1], k), exponents)
    return np.where(sums == 0, 0.0, np.maximum(means, np.finfo(np.float64).smallest_subnormal))
