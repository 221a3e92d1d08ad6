"""The request and result types of routes: a task, and what a route computes for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from math import comb
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from kagscope.columns.layout import Layout
from kagscope.columns.selections import Selection, Subsets
from kagscope.minors._input import is_torch
from kagscope.minors._numba import LOWEST_BIN
from kagscope.minors.histograms import Bins, line_up
from kagscope.minors.moments import SUMS
from kagscope.minors.scaling import normalise, on_host

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
EVERY_MOMENT = frozenset((*SUMS, "histogram"))
NEED_S1 = frozenset({"entropy", "histogram"})  # scores of these are relative to the mean


class Matrices:
    """A batch of matrices and, computed once, the same normalised by powers of two.

    Args:
        given: (B, m, n) float64, finite: a NumPy array, or a tensor on a device.
        k: order of the minors.
    """

    def __init__(self, given: Any, k: int) -> None:
        self.given, self.k = given, k
        self._inside: dict[bytes, Matrices] = {}

    @property
    def shape(self) -> tuple[int, int, int]:
        """(B, m, n)."""
        batch, rows, columns = self.given.shape
        return batch, rows, columns

    @property
    def on_device(self) -> bool:
        """Whether they are a tensor on a device."""
        return is_torch(self.given)

    def inside(self, columns: NDArray[np.bool_]) -> Matrices:
        """The matrices restricted to these columns, cached."""
        if columns.all():
            return self
        key = columns.tobytes()
        if key not in self._inside:
            self._inside[key] = Matrices(self.given[:, :, np.flatnonzero(columns)], self.k)
        return self._inside[key]

    @cached_property
    def _normalised(self) -> tuple[FloatArray, IntArray]:
        return normalise(on_host(self.given), self.k)

    @property
    def normalised(self) -> FloatArray:
        """(B, m, n) in host memory; see :func:`kagscope.minors.scaling.normalise`."""
        return self._normalised[0]

    @property
    def exponent(self) -> IntArray:
        """(B,) powers of two that the matrices were divided by."""
        return self._normalised[1]

    @cached_property
    def far(self) -> bool:
        """Whether some minors are so far below the products of entries that :func:`normalise` scaled by the minors."""
        return bool((np.abs(self.normalised).max(axis=(1, 2), initial=0.0) >= 1).any())


@dataclass(frozen=True)
class Task:
    """Request for moments over one selection of columns of some matrices.

    Attributes:
        matrices: with all columns; ``inside`` has those of the selection.
        k: order of the minors.
        selection: which column subsets.
        count: number of its column subsets; None if there are too many to count.
        layout: positions of the columns.
        wanted: names of moments.
        method: "exact", "sampled", or "auto" for the cheaper one that is allowed.
        rel_error: relative standard error that sampling aims at.
        seed: seed of the sampling.
        memory_budget: bytes.
        known: exact normalised sums over ``inside`` from other routes.
    """

    matrices: Matrices
    k: int
    selection: Selection
    count: int | None
    layout: Layout
    wanted: frozenset[str]
    method: str = "auto"
    rel_error: float = 0.01
    seed: int = 0
    memory_budget: int = 2**30
    known: Mapping[str, FloatArray] = field(default_factory=dict)

    @cached_property
    def shape(self) -> tuple[int, int]:
        """(rows, columns that take part)."""
        return self.matrices.shape[1], int(self.selection.columns(self.layout).sum())

    @property
    def minors(self) -> int:
        """Number of minors of one matrix."""
        return comb(self.shape[0], self.k) * (self.count or 0)

    @property
    def wanted_with_s1(self) -> frozenset[str]:
        """``wanted`` with S1, where scores of what is wanted are relative to the mean."""
        return self.wanted | {"s1"} if self.wanted & NEED_S1 else self.wanted

    def known_s1(self, index: int) -> float | None:
        """S1 of a matrix, if it is known."""
        return float(self.known["s1"][index]) if "s1" in self.known else None

    @property
    def sums_to_draw(self) -> list[str]:
        """Names of the sums that draws are to estimate: those wanted and not known."""
        return [name for name in SUMS if name in self.wanted_with_s1 and name not in self.known]

    @property
    def clique(self) -> bool:
        """Whether the selection is every k-subset of its columns, and there are any."""
        return self.selection.clique and not isinstance(self.selection, Subsets) and self.shape[1] >= self.k

    @property
    def inside(self) -> Matrices:
        """The matrices restricted to the columns of the selection."""
        return self.matrices.inside(self.selection.columns(self.layout))


@dataclass
class RouteResult:
    """What a route computed for one task.

    Attributes:
        exponent: (B,) powers of two that the matrices were divided by.
        sums: normalised sums by name, each (B,).
        routes: description of the route, by the name of the moment.
        bins: the histogram, if wanted.
        work: steps for one matrix, by the name of the kernel.
        count: number of minors, if it had to be estimated.
        count_error: its relative standard error.
        replicates: normalised, as in :class:`kagscope.minors.moments.Moments`.
        unknown: likewise.
        notes: further remarks for the plan.
    """

    exponent: IntArray
    sums: dict[str, FloatArray]
    routes: dict[str, str]
    bins: Bins | None = None
    work: Mapping[str, float] = field(default_factory=dict)
    count: int | None = None
    count_error: float = 0.0
    replicates: dict[str, FloatArray] = field(default_factory=dict)
    unknown: dict[str, NDArray[np.bool_]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


class SlotCounts(NamedTuple):
    """Nonempty range of a kernel's histogram: first slot after that of zeros, and counts."""

    first: int
    counts: NDArray[np.int64]


def trim_histogram(hist: NDArray[np.int64]) -> SlotCounts:
    """Copy of ``hist`` (SLOTS,) without its empty ends, which saves 70 kB per matrix and selection."""
    used = np.flatnonzero(hist[1:])
    low, high = (int(used[0]), int(used[-1]) + 1) if used.size else (0, 0)
    return SlotCounts(low, hist[1 + low : 1 + high].copy())


def make_result(task: Task, route: str, exponent: IntArray, sums: FloatArray, hists: Sequence[SlotCounts] | None) -> RouteResult:
    """Result of a route that enumerates every minor, from (B, 5) normalised sums and the histograms of the kernels."""
    named = {name: sums[:, row] for row, name in enumerate(SUMS) if name in task.wanted_with_s1}
    bins = absolute_bins(hists, task.k, task.minors, exponent) if hists is not None and "histogram" in task.wanted else None
    return RouteResult(exponent, named, dict.fromkeys(task.wanted, route), bins)


def absolute_bins(hists: Sequence[SlotCounts], k: int, count: int, exponent: IntArray) -> Bins:
    """Convert histograms of kernels to absolute bins; minors not visited are those of zero rows, exact zeros."""
    low, counts = line_up(hists)
    return Bins(LOWEST_BIN + low + 8 * k * exponent, counts, count - counts.sum(axis=1))


def draw_notes(task: Task, unknown: Mapping[str, NDArray[np.bool_]], reached: Sequence[bool]) -> list[str]:
    """What a reader should know of draws, by which sums have an unknown error, and whether each matrix reached ``rel_error``."""
    lacking, missed = [name for name, flags in unknown.items() if name != "top" and flags.any()], reached.count(False)
    notes = [f"few draws carry {', '.join(lacking)}: the error is not known"] if lacking else []
    if missed:
        notes.append(f"rel_error={task.rel_error} was not reached for {missed} of {len(reached)} matrices; see stderr")
    return notes


def sampled_bins(groups: FloatArray, k: int, count: int, exponent: IntArray, first: int = 1) -> Bins:
    """Histograms from (B, groups, slots) independent estimates of the counts of nonzero minors; the rest are zeros.

    Slots are those of the kernels, starting at ``first``.
    """
    used = np.flatnonzero(groups.any(axis=(0, 1)))
    low, high = (int(used[0]), int(used[-1]) + 1) if used.size else (0, 0)
    groups = groups[:, :, low:high]
    zeros = count - groups.sum(axis=2)
    zeros[np.abs(zeros) < 1e-12 * count] = 0.0  # rounding of the sums
    return Bins(
        LOWEST_BIN + first - 1 + low + 8 * k * exponent,
        groups.mean(axis=1),
        zeros.mean(axis=1),
        np.dstack([groups, zeros[:, :, None]]),
    )
