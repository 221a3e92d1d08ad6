"""Exact scaling by powers of two, and removal of zero rows (MATH.md section 2)."""

from __future__ import annotations

from fractions import Fraction
from math import log2
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kagscope.minors._input import is_torch

FloatArray = NDArray[np.float64]


MIXED = 200  # bits between k times the largest entry and the largest k-minor: beyond, its fourth power would leave the range
ONE_FACTOR = 1000  # largest exponent whose power of two is safely in range on its own
MOST_BITS = 1020  # largest exponent of a normalised entry: more would leave the range


def normalise(matrices: FloatArray, k: int = 1) -> tuple[FloatArray, NDArray[np.int64]]:
    """Divide each matrix by a power of two, and return the exponents; exact except for entries that underflow.

    The power is just above the largest entry; if scales of rows or columns are so mixed that the k-minors are far below its
    k-th power, or k is so large that they are far above, it is one that brings the largest k-minor near 1.
    """
    exponent = np.frexp(np.abs(matrices).max(axis=(1, 2), initial=0.0))[1].astype(np.int64)
    for index in _mixed_scales(matrices, exponent, k) if 1 < k <= min(matrices.shape[1:]) else ():
        size = largest_minor(matrices[index], k)
        if size is not None and abs(k * exponent[index] - size) > MIXED:
            exponent[index] = max(size // k, exponent[index] - MOST_BITS)
    return times_power_of_two(matrices, -exponent[:, None, None]), exponent


def _mixed_scales(matrices: FloatArray, exponent: NDArray[np.int64], k: int) -> NDArray[np.intp]:
    """Matrices with k so large, or the k largest rows or columns so different, that k-minors may be far from entries^k."""
    far = np.full(len(matrices), k * log2(k) / 2 > MIXED // 2)  # Hadamard: at most k^(k / 2) times that
    for axis in (1, 2):
        largest = np.abs(matrices).max(axis=axis)
        sizes = np.sort(np.where(largest > 0, np.frexp(largest)[1], -10_000), axis=1)[:, -k:].sum(axis=1)
        far |= k * exponent - sizes > MIXED // 2
    return np.flatnonzero(far)


def largest_minor(J: FloatArray, k: int) -> int | None:
    """About log2 of the largest k-minor, by k steps of elimination on rows scaled by powers of two; None if all are zero."""
    row_exponent = np.frexp(np.abs(J).max(axis=1))[1].astype(np.int64)
    A = np.ldexp(J.astype(np.longdouble), -row_exponent[:, None])  # whose exponents go further: quotients stay in the range
    total, left = 0.0, np.ones(len(J), dtype=bool)
    for step in range(k):
        with np.errstate(divide="ignore"):
            sizes = np.where(left[:, None], np.log2(np.abs(A)) + row_exponent[:, None], -np.inf)
        i, p = np.unravel_index(int(np.argmax(sizes)), sizes.shape)
        if not np.isfinite(sizes[i, p]):
            return None
        total += float(sizes[i, p])
        left[i] = False
        rest = A[left] - np.outer(A[left, p] / A[i, p], A[i])
        lost = np.abs(rest) < 1e-15 * np.abs(A[left])
        rest[lost] = _exact_rest(A, np.flatnonzero(left), lost, i, p) if step == 0 else 0.0
        A[left] = rest
        A[:, p] = 0.0
    return int(np.floor(total))


def _exact_rest(A: NDArray[np.longdouble], rows: NDArray[np.intp], lost: NDArray[np.bool_], i: np.intp, p: np.intp) -> list[Any]:
    """Entries A_rc - A_rp A_ic / A_ip that nearly cancel, computed in exact arithmetic."""

    def exact(r: int, c: int) -> Fraction:
        return Fraction(*A[r, c].as_integer_ratio())

    values = []
    for r, c in zip(*np.nonzero(lost), strict=True):
        row = int(rows[r])
        value = exact(row, int(c)) - exact(row, int(p)) * exact(int(i), int(c)) / exact(int(i), int(p))
        bits = value.numerator.bit_length() - value.denominator.bit_length()
        values.append(np.ldexp(np.longdouble(float(value / Fraction(2) ** bits)), bits))
    return values


def times_power_of_two(values: FloatArray, exponent: NDArray[np.int64]) -> FloatArray:
    """values 2^exponent by products, several times faster than ``ldexp``; the exponent broadcasts, between -2000 and 2000."""
    with np.errstate(under="ignore"):
        if np.abs(exponent).max(initial=0) <= ONE_FACTOR:
            return values * np.ldexp(1.0, exponent)
        half = exponent // 2
        return values * np.ldexp(1.0, half) * np.ldexp(1.0, exponent - half)


def bit_span(values: FloatArray) -> int:
    """Bits between the largest and the smallest nonzero value."""
    sizes = np.frexp(values[values != 0])[1]
    return int(np.ptp(sizes)) if sizes.size else 0


def bits(values: FloatArray) -> tuple[int, int]:
    """Exponents of the powers of two that bound the entries, and of which they are multiples."""
    mantissa, exponent = np.frexp(values[values != 0])
    whole = np.ldexp(mantissa, 53).astype(np.int64)
    low = exponent - 53 + np.log2(whole & -whole).astype(np.int64)
    return int(exponent.max(initial=-10_000)), int(low.min(initial=10_000))


def is_exact(values: FloatArray, k: int) -> bool:
    """Whether entries have few enough bits for sums of products of k of them to be exact."""
    high, low = bits(values)
    return k * (high - low) + k * log2(k) / 2 < 46 and abs(k * low) < 1000


def column_span(matrix: FloatArray) -> int:
    """Bits between the largest and the smallest nonzero column, after rows are scaled to equal size."""
    sizes = np.abs(matrix)
    if not sizes.any():
        return 0
    rows = np.frexp(sizes.max(axis=1))[1].astype(np.int64)
    largest = times_power_of_two(sizes, -rows[:, None]).max(axis=0)[matrix.any(axis=0)]
    columns = np.where(largest > 0, np.frexp(largest)[1], -1100)
    return int(columns.max() - columns.min())


def entry_span(matrix: FloatArray) -> int:
    """Largest number of bits between the largest and the smallest nonzero entry of a row."""
    sizes = np.abs(matrix)
    largest, smallest = sizes.max(axis=1, initial=0.0), np.where(sizes > 0, sizes, np.inf).min(axis=1, initial=np.inf)
    nonzero = largest > 0
    return int((np.frexp(largest[nonzero])[1] - np.frexp(smallest[nonzero])[1]).max(initial=0))


def nonzero_rows(matrix: FloatArray) -> FloatArray:
    """The matrix without zero rows, whose minors are exact zeros."""
    keep = matrix.any(axis=1)
    return matrix if keep.all() else np.ascontiguousarray(matrix[keep])


def narrow(matrix: FloatArray) -> FloatArray:
    """The matrix or its transpose, contiguous, with no more rows than columns: sums over all minors are the same."""
    return np.ascontiguousarray(matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T)


def on_host(matrices: Any) -> FloatArray:
    """Copy matrices from a device to host memory; others are returned unchanged."""
    return matrices.cpu().numpy() if is_torch(matrices) else matrices
