"""Lists of column subsets in the form that kernels read, grouped by the selections they belong to."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from kagscope.columns.layout import Layout
from kagscope.columns.selections import All, Selection, Subsets, column_subset_count

IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]
T = TypeVar("T")
MAX_SELECTIONS = 63  # in one pass: their membership is one bit each of a signed 64-bit integer


@dataclass(frozen=True)
class SubsetList:
    """Allowed column k-subsets, sorted by their first k - 1 columns and then by cell.

    Attributes:
        prefixes: (G, k - 1) the first columns.
        starts: (G + 1,) start of each prefix's last columns in ``last``.
        last: (P,) last columns.
        cells: (P,) cell of each subset; subsets in one cell belong to the same selections.
        membership: (cells, selections) whether a cell belongs to a selection.
        on_devices: what a device keeps of the list, which goes with it.
    """

    prefixes: IntArray
    starts: IntArray
    last: IntArray
    cells: IntArray
    membership: NDArray[np.bool_]
    on_devices: dict[tuple[str, int], Any] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def singletons(cls, columns: int) -> SubsetList:
        """All single columns as one cell, for k = 1."""
        nothing = np.empty((0, 0), np.int64), np.empty(0, np.int64)
        return cls(*nothing, np.arange(columns), np.zeros(columns, np.int64), np.ones((1, 1), bool))

    @property
    def sets(self) -> IntArray:
        """(P, k) all columns of each subset."""
        return np.column_stack([np.repeat(self.prefixes, np.diff(self.starts), axis=0), self.last])

    @cached_property
    def by_cell(self) -> tuple[IntArray, IntArray]:
        """(P, k) all columns of each subset, cell by cell, and (cells + 1,) where each cell begins."""
        counts = np.bincount(self.cells, minlength=len(self.membership))
        return self.sets[np.argsort(self.cells, kind="stable")], np.concatenate([[0], np.cumsum(counts)])

    @property
    def counts(self) -> list[int]:
        """Number of subsets in each selection."""
        by_cell = np.bincount(self.cells, minlength=len(self.membership))
        return [int(value) for value in by_cell @ self.membership]


def pair_codes(selections: Sequence[Selection], layout: Layout) -> NDArray[Any]:
    """(n, n) symmetric: bit s of entry (a, b) says whether selection s lets columns a and b stand together."""
    n = layout.columns
    narrow: type[np.integer[Any]] = np.uint8 if len(selections) <= 8 else np.int64
    codes = np.zeros((n, n), dtype=narrow)
    for bit, selection in enumerate(selections):
        codes |= selection.pairs(layout).astype(narrow) << narrow(bit)
    return codes


def list_subsets(selections: Sequence[Selection], layout: Layout, k: int) -> SubsetList:
    """All column subsets of any of at most 63 selections, for k = 1, 2 or 3. Explicit ``Subsets`` must come alone."""
    if isinstance(selections[0], Subsets):
        subsets = selections[0].array(layout, k)
        codes = np.ones(len(subsets), dtype=np.int64)
    elif k == 1:
        codes = np.zeros(layout.columns, dtype=np.int64)
        for bit, selection in enumerate(selections):
            codes |= selection.columns(layout).astype(np.int64) << bit
        subsets = np.arange(layout.columns)[:, None]
    else:
        matrix = pair_codes(selections, layout)
        first, second = np.nonzero(np.triu(matrix, 1))
        subsets, codes = np.stack([first, second], axis=1), matrix[first, second]
        for _ in range(k - 2):
            subsets, codes = _extend(subsets, codes, matrix)
    keep = codes != 0
    return _group(subsets[keep], codes[keep], len(selections))


def _extend(subsets: IntArray, codes: NDArray[Any], matrix: NDArray[Any]) -> tuple[IntArray, NDArray[Any]]:
    """Extend every allowed subset by one later column."""
    rows, last = [], []
    parts = []
    for row, (subset, code) in enumerate(zip(subsets, codes, strict=True)):
        later = code & np.bitwise_and.reduce(matrix[subset, subset[-1] + 1 :], axis=0)
        columns = np.flatnonzero(later)
        rows.append(np.full(len(columns), row))
        last.append(columns + subset[-1] + 1)
        parts.append(later[columns])
    if not rows:
        return np.empty((0, subsets.shape[1] + 1), dtype=np.int64), np.empty(0, dtype=np.int64)
    return np.concatenate([subsets[np.concatenate(rows)], np.concatenate(last)[:, None]], axis=1), np.concatenate(parts)


def _group(subsets: IntArray, codes: NDArray[Any], selections: int) -> SubsetList:
    unique, cells = np.unique(codes, return_inverse=True)
    membership = (unique[:, None] >> np.arange(selections)) & 1 == 1
    keys = (cells, *subsets[:, :-1].T[::-1])
    order = np.lexsort(keys)  # by prefix, then by cell; stable, so last columns rise within a cell
    subsets, cells = subsets[order], cells[order].astype(np.int64)
    prefixes, last = subsets[:, :-1], subsets[:, -1]
    if len(subsets) == 0:
        return SubsetList(prefixes, np.zeros(1, dtype=np.int64), last, cells, membership)
    changes = np.flatnonzero((prefixes[1:] != prefixes[:-1]).any(axis=1)) + 1
    starts = np.concatenate([[0], changes, [len(subsets)]]).astype(np.int64)
    return SubsetList(np.ascontiguousarray(prefixes[starts[:-1]]), starts, np.ascontiguousarray(last), cells, membership)


def complete_pairs(n: int) -> SubsetList:
    """All pairs of n columns as one cell."""
    lengths = np.arange(n - 1, 0, -1, dtype=np.int64)
    starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    last = np.concatenate([np.arange(a + 1, n) for a in range(n - 1)] or [np.empty(0, dtype=np.int64)]).astype(np.int64)
    return SubsetList(np.arange(n - 1)[:, None], starts, last, np.zeros(len(last), dtype=np.int64), np.ones((1, 1), dtype=bool))


def pairs_of(subsets: SubsetList) -> tuple[IntArray, IntArray]:
    """First and second column of each pair of a list for k = 2."""
    return np.repeat(subsets.prefixes[:, 0], np.diff(subsets.starts)), subsets.last


def sublist(first: NDArray[np.int64], second: NDArray[np.int64]) -> SubsetList:
    """The pairs (first, second), sorted by first, as one cell."""
    starts = np.append(np.flatnonzero(np.diff(first, prepend=-1)), first.size).astype(np.int64)
    cells = np.zeros(first.size, dtype=np.int64)
    return SubsetList(
        first[starts[:-1]][:, None].astype(np.int64), starts, second.astype(np.int64), cells, np.ones((1, 1), dtype=bool)
    )


def as_masks(chosen: Selection, layout: Layout, k: int) -> tuple[BoolArray | None, BoolArray | None, NDArray[np.int64] | None]:
    """A selection as masks of columns and of pairs, and explicit subsets; None for no restriction."""
    if isinstance(chosen, Subsets):
        return None, None, chosen.array(layout, k)
    if isinstance(chosen, All):
        return None, None, None
    if chosen.clique or k == 1:
        return chosen.columns(layout), None, None
    return None, chosen.pairs(layout), None


def sum_over_selections(by_cell: NDArray[np.float64], membership: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Combine (rows, cells) over the cells of each selection, (selections, rows): sums, and the maximum in the last row, top."""
    totals = np.zeros((membership.shape[1], len(by_cell)))
    if len(membership):
        totals[:, :-1] = membership.T.astype(np.float64) @ by_cell[:-1].T
        totals[:, -1] = np.where(membership.T, by_cell[-1], 0.0).max(axis=1)
    return totals


_remembered: OrderedDict[tuple[object, ...], object] = OrderedDict()


def remember(key: tuple[object, ...], make: Callable[[], T]) -> T:
    """Cache the last few results by key: thousands of Jacobians share one layout and list of selections."""
    if key not in _remembered:
        _remembered[key] = make()
        while len(_remembered) > 8:
            _remembered.popitem(last=False)
    return _remembered[key]  # type: ignore[return-value]


def cached_subsets(selections: tuple[Selection, ...], layout: Layout, k: int) -> SubsetList:
    """:func:`list_subsets`, cached."""
    return remember(("subsets", selections, layout.key, k), lambda: list_subsets(selections, layout, k))


def cached_counts(selections: tuple[Selection, ...], layout: Layout, k: int) -> list[int | None]:
    """Number of column subsets of each selection, cached."""
    return remember(
        ("counts", selections, layout.key, k), lambda: [column_subset_count(chosen, layout, k) for chosen in selections]
    )
