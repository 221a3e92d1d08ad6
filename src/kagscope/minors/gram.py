"""S2 and S4 of 2-minors from Gram and power-Gram matrices (MATH.md 4.1 and 4.2), with the pairs where they cancel told apart."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kagscope.minors.threads import one_blas_thread

FloatArray = NDArray[np.float64]
CANCELS = 1e-4  # a difference below this share of its terms has lost four of its sixteen digits: enumerate that pair instead


def pair_powers(
    J: FloatArray, first: NDArray[np.int64], second: NDArray[np.int64]
) -> tuple[FloatArray, FloatArray, NDArray[np.bool_]]:
    """S2 and S4 over row pairs for the column pairs (first, second), and where either cancels.

    The same threshold bounds what the kernel ``s1_pairs`` leaves on nearly parallel columns: their S1 is at least sqrt(S2), so
    where S2 >= 1e-4 G_aa G_bb, its relative error is below 100 u m.
    """
    n = J.shape[1]
    square = J * J
    with one_blas_thread():
        gram, p22, p31 = J.T @ J, square.T @ square, (square * J).T @ J
    ab, ba = first * n + second, second * n + first
    p40, diagonal = np.diagonal(p22), np.diagonal(gram)
    whole2 = diagonal[first] * diagonal[second]
    s2 = whole2 - gram.take(ab) ** 2
    mixed = 4 * p31.take(ab) * p31.take(ba)
    whole4 = p40[first] * p40[second] + 3 * p22.take(ab) ** 2
    s4 = whole4 - mixed
    return s2, s4, (s2 < CANCELS * whole2) | (s4 < CANCELS * (whole4 + np.abs(mixed)))
