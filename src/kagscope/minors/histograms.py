"""Histograms of minors, which add like sums: bins of the absolute M, of one matrix and of a batch."""

from __future__ import annotations

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
        replicates: (B, groups, bins + 1) independent estimates of the counts, and of the zeros last, where they were sampled.
    """

    first: NDArray[np.int64]
    counts: NDArray[Any]
    zeros: NDArray[Any]
    replicates: FloatArray | None = None

    def of(self, rows: slice) -> Bins:
        """Those of some matrices of the batch."""
        own = None if self.replicates is None else self.replicates[rows]
        return Bins(self.first[rows], self.counts[rows], self.zeros[rows], own)

    def left_out(self, groups: int) -> Bins:
        """Of a batch of B times ``groups``: the means without one group of replicates at a time."""
        first = np.repeat(self.first, groups)
        if self.replicates is None:
            return Bins(first, np.repeat(self.counts, groups, axis=0), np.repeat(self.zeros, groups))
        values = group_means(self.replicates, groups)
        left = np.maximum((values.sum(axis=1, keepdims=True) - values) / (groups - 1), 0.0).reshape(-1, values.shape[2])
        return Bins(first, left[:, :-1], left[:, -1])


def group_means(replicates: FloatArray, groups: int) -> FloatArray:
    """(B, groups, …) means of some replicates (B, draws, …) each, as many in all: independent like them, with the same mean."""
    batch, draws, *rest = replicates.shape
    return replicates if draws == groups else replicates.reshape(batch, groups, -1, *rest).mean(axis=2)


def times_known(hist: FloatArray, known: FloatArray) -> FloatArray:
    """(…, groups, slots) estimated counts as shares of all slots, times what is ``known`` (…) of all of them.

    The share is the ratio of means over groups; groups stand for it to first order, and single ones may be negative. Means of
    the ratios of each group would be biased where these have few draws.
    """
    seen = hist.sum(axis=-1, keepdims=True)
    mean = seen.mean(axis=-2, keepdims=True)
    mean[mean == 0] = 1.0
    share, known = hist.mean(axis=-2, keepdims=True) / mean, np.asarray(known)[..., None, None]
    own = known * (share + (hist - share * seen) / mean)
    return np.where(mean == known, hist, own)  # counts of what was visited whole stay whole


def merge(left: Bins, right: Bins) -> Bins:
    """Sum of two histograms, matrix by matrix: bins are absolute, so whole bins line up."""
    first = np.minimum(left.first, right.first)
    widths = [part.first - first + part.counts.shape[1] for part in (left, right)]
    width = int(max(w.max(initial=0) for w in widths))
    sampled = [part.replicates for part in (left, right) if part.replicates is not None]
    groups = gcd(*(one.shape[1] for one in sampled))
    counts = np.zeros((len(first), width), dtype=np.result_type(left.counts, right.counts))
    replicates = np.zeros((len(first), groups, width + 1))
    for part in (left, right):
        own = (
            np.dstack([np.atleast_3d(part.counts).swapaxes(1, 2), part.zeros[:, None, None]])
            if part.replicates is None
            else group_means(part.replicates, groups)
        )
        replicates[:, :, -1] += own[:, :, -1]
        for row, offset in enumerate(part.first - first):
            counts[row, offset : offset + part.counts.shape[1]] += part.counts[row]
            replicates[row, :, offset : offset + part.counts.shape[1]] += own[row, :, :-1]
    return Bins(first, counts, left.zeros + right.zeros, replicates if sampled else None)
