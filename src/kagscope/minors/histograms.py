"""Additive histograms of minors, in absolute bins of M, for one matrix and for a batch."""

from __future__ import annotations

from collections.abc import Sequence
from math import gcd
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]


class Histogram(NamedTuple):
    """Counts of log2 M in bins of 1/8 of the absolute M: bin j holds 2^(j/8) <= M < 2^((j+1)/8).

    Attributes:
        first: index j of the first bin; (B,) for a batch.
        counts: (bins,) or (B, bins); whole numbers, or estimates where the moments were sampled.
        zeros: minors that are exactly zero, and those below 2^-1022 of the k-th power of the largest entry; (B,) for a batch.
    """

    first: Any
    counts: NDArray[Any]
    zeros: Any


class Bins(NamedTuple):
    """The histograms of a batch.

    Attributes:
        first, counts, zeros: (B,), (B, bins), (B,) as in :class:`Histogram`.
        replicates: (B, groups, bins + 1) independent estimates of the counts, zeros last, if they were sampled.
    """

    first: NDArray[np.int64]
    counts: NDArray[Any]
    zeros: NDArray[Any]
    replicates: FloatArray | None = None

    def of(self, rows: slice) -> Bins:
        """Histograms of some matrices of the batch."""
        replicates = None if self.replicates is None else self.replicates[rows]
        return Bins(self.first[rows], self.counts[rows], self.zeros[rows], replicates)

    def leave_one_out(self, groups: int) -> Bins:
        """Batch of B times ``groups`` histograms: means with one group of replicates left out at a time."""
        first = np.repeat(self.first, groups)
        if self.replicates is None:
            return Bins(first, np.repeat(self.counts, groups, axis=0), np.repeat(self.zeros, groups))
        values = group_means(self.replicates, groups)
        left = np.maximum((values.sum(axis=1, keepdims=True) - values) / (groups - 1), 0.0).reshape(-1, values.shape[2])
        return Bins(first, left[:, :-1], left[:, -1])


def group_means(replicates: FloatArray, groups: int) -> FloatArray:
    """(B, groups, …) means of equal numbers of replicates (B, draws, …): again independent, with the same mean."""
    batch, draws, *rest = replicates.shape
    return replicates if draws == groups else replicates.reshape(batch, groups, -1, *rest).mean(axis=2)


def place(counts: Sequence[NDArray[Any]] | NDArray[Any], offsets: Sequence[int] | NDArray[np.int64], width: int) -> NDArray[Any]:
    """(N, …, width) the N arrays of counts (…, bins), each from its own offset on; zeros elsewhere."""
    placed = np.zeros((len(counts), *counts[0].shape[:-1], width), dtype=counts[0].dtype)
    for row, offset, values in zip(placed, offsets, counts, strict=True):
        if values.shape[-1]:
            row[..., offset : offset + values.shape[-1]] = values
    return placed


def line_up(parts: Sequence[tuple[int, NDArray[Any]]]) -> tuple[int, NDArray[Any]]:
    """The first slot in use of N histograms, (first slot, counts (…, slots)) each, and their counts (N, …, slots) from it on."""
    ends = [(first, first + counts.shape[-1]) for first, counts in parts if counts.shape[-1]] or [(1, 1)]
    low = min(first for first, _ in ends)
    return low, place([counts for _, counts in parts], [first - low for first, _ in parts], max(end for _, end in ends) - low)


def scale_to_total(hist: FloatArray, known: FloatArray) -> FloatArray:
    """Rescale estimated counts (…, groups, slots) so that they sum to the ``known`` total (…).

    Shares are ratios of means over groups, with groups as linearised replicates that may be negative. Averaging the ratios of
    each group would be biased if these have few draws.
    """
    seen = hist.sum(axis=-1, keepdims=True)
    mean = seen.mean(axis=-2, keepdims=True)
    mean[mean == 0] = 1.0
    share, known = hist.mean(axis=-2, keepdims=True) / mean, np.asarray(known)[..., None, None]
    groups = known * (share + (hist - share * seen) / mean)
    return np.where(mean == known, hist, groups)  # complete counts stay integers


def merge(left: Bins, right: Bins) -> Bins:
    """Sum of two histograms, matrix by matrix; bins are absolute, so they line up."""
    first = np.minimum(left.first, right.first)
    widths = [bins.first - first + bins.counts.shape[1] for bins in (left, right)]
    width = int(max(w.max(initial=0) for w in widths))
    sampled = [bins.replicates for bins in (left, right) if bins.replicates is not None]
    groups = gcd(*(replicates.shape[1] for replicates in sampled))
    counts = sum(place(bins.counts, bins.first - first, width) for bins in (left, right))
    replicates = np.zeros((len(first), groups, width + 1))
    for bins in (left, right) if sampled else ():
        known = np.concatenate([bins.counts, bins.zeros[:, None]], axis=1)[:, None]
        by_group = known if bins.replicates is None else group_means(bins.replicates, groups)
        replicates[:, :, :-1] += place(by_group[:, :, :-1], bins.first - first, width)
        replicates[:, :, -1] += by_group[:, :, -1]
    return Bins(first, np.asarray(counts), left.zeros + right.zeros, replicates if sampled else None)
