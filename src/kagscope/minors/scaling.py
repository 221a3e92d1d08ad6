"""Exact scaling by powers of two, and rows that add nothing (MATH.md section 2)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from kagscope.minors._input import is_torch

FloatArray = NDArray[np.float64]


def normalise(matrices: FloatArray) -> tuple[FloatArray, NDArray[np.int64]]:
    """Each matrix over the power of two just above its largest entry, and the exponents; exact but for subnormal entries."""
    exponent = np.frexp(np.abs(matrices).max(axis=(1, 2)))[1].astype(np.int64)
    return times_power_of_two(matrices, -exponent[:, None, None]), exponent


def times_power_of_two(values: FloatArray, exponent: NDArray[np.int64]) -> FloatArray:
    """values 2^exponent as two products, several times faster than ``ldexp``; the exponent broadcasts, between -2000 and 2000."""
    half = exponent // 2  # 2^exponent alone may overflow
    with np.errstate(under="ignore"):
        return values * np.ldexp(1.0, half) * np.ldexp(1.0, exponent - half)


def nonzero_rows(matrix: FloatArray) -> FloatArray:
    """Without rows that are exactly zero: they add exact zeros and nothing else."""
    keep = matrix.any(axis=1)
    return matrix if keep.all() else np.ascontiguousarray(matrix[keep])


def narrow(matrix: FloatArray) -> FloatArray:
    """The matrix or its transpose, contiguous, with no more rows than columns: sums over all minors are the same."""
    return np.ascontiguousarray(matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T)


def on_host(matrices: Any) -> FloatArray:
    """A copy in host memory of matrices that lie on a device; others as they are."""
    return matrices.cpu().numpy() if is_torch(matrices) else matrices
