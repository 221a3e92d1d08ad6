"""Every 2-minor and 3-minor, once, never stored: sums for each column subset, in parts on threads (MATH.md 4.6)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kagscope.minors._logarithm import ZERO_SLOTS
from kagscope.minors._numba import SLOTS
from kagscope.minors.det3 import LOST
from kagscope.minors.enumeration_kernels import WAYS, all_pairs, all_triples, s1_pairs, sums_pairs
from kagscope.minors.scaling import is_exact
from kagscope.minors.subsets import SubsetList
from kagscope.minors.threads import even_parts, run_parts, threads

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class SubsetSums:
    """Sums over row subsets for each column subset of a list, and histograms over both for each cell.

    Attributes:
        sums: (5, P): S1, S2, S4, entropy, top.
        hist: (cells, SLOTS) int64, or None when it was not asked for.
    """

    sums: FloatArray
    hist: NDArray[np.int64] | None


def _parts(starts: NDArray[np.int64]) -> list[int]:
    """Ranges of prefixes of about equal work; their number depends on the problem alone, never on the threads."""
    weights = np.diff(starts)
    return even_parts([float(weight) for weight in weights], min(64, max(1, int(weights.sum()) // 512)))


def enumerate_all(J: FloatArray, subsets: SubsetList, k: int, histogram: bool = True) -> SubsetSums:
    """Every moment of every column subset of ``subsets``, for k = 2 or 3, by enumeration. ``J``: (m, n) normalised.

    Each minor is right to a few units in the last place, so that one which is not zero stands in its own bin, however small.
    """
    sums = np.zeros((5, len(subsets.last)))
    cells = max(len(subsets.membership), 1)
    bounds = _parts(subsets.starts)
    lanes = min(threads(), len(bounds) - 1) or 1
    hist = np.zeros((lanes, cells + 2 if histogram else 0, SLOTS, WAYS), dtype=np.int64)  # integers: their order is immaterial
    flat = hist.reshape(lanes, -1)
    free = list(range(lanes))
    lists = subsets.prefixes, subsets.starts, subsets.last, subsets.cells
    least = least_share(J, k)

    def work(part: int) -> None:
        lane = free.pop()
        ends = bounds[part], bounds[part + 1]
        if k == 2:
            all_pairs(J, *lists, *ends, sums, flat[lane])
        else:
            all_triples(J, *lists, *ends, sums, flat[lane], least)
        free.append(lane)

    run_parts(work, len(bounds) - 1)
    if not histogram:
        return SubsetSums(sums, None)
    counts = hist[:, :cells].sum(axis=(0, 3))
    counts[:, 0] = counts[:, ZERO_SLOTS].sum(axis=1)
    counts[:, ZERO_SLOTS] = 0
    return SubsetSums(sums, counts)


def least_share(J: FloatArray, k: int) -> float:
    """Share of its products below which a k-minor of J is recomputed; 0 where none is rounded, infinite where products leave the
    range, so that none is trusted."""
    return 0.0 if is_exact(J, k) else LOST if np.abs(J).max() < 1 else np.inf


def enumerate_sums(J: FloatArray, subsets: SubsetList) -> FloatArray:
    """(5, P) S1, S2, S4, zeros, top of every column pair, by enumeration without logarithms."""
    return _sweep_pairs(sums_pairs, J, subsets, np.zeros((5, len(subsets.last))))


def enumerate_s1(J: FloatArray, subsets: SubsetList) -> FloatArray:
    """(P,) S1 of every column pair with fused multiply-adds; the caller must repair what the kernel ``s1_pairs`` names."""
    return _sweep_pairs(s1_pairs, J, subsets, np.zeros(len(subsets.last)))


def _sweep_pairs(kernel: Callable[..., None], J: FloatArray, subsets: SubsetList, sums: FloatArray) -> FloatArray:
    """Let a kernel of column pairs fill ``sums``."""
    lists, bounds = (subsets.prefixes, subsets.starts, subsets.last), _parts(subsets.starts)
    run_parts(lambda part: kernel(J, *lists, bounds[part], bounds[part + 1], sums), len(bounds) - 1)
    return sums
