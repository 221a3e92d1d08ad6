"""Minors of diag(d) W for thousands of d from one pass over W (MATH.md 4.7): |det J[R, C]| = prod |d_i| |det W[R, C]|."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import comb
from typing import Any, Unpack, overload

import numpy as np
from numpy.typing import NDArray

from kagscope.base.errors import InputError
from kagscope.columns.layout import LayoutOptions, make_layout
from kagscope.columns.selections import All, Selection, Subsets, as_selections
from kagscope.minors._input import MatrixLike, as_numpy, as_tensor, check_k, check_moments, device_of, require_finite
from kagscope.minors.factored_forms import entry_forms, mixed_forms, pair_forms, triple_forms
from kagscope.minors.factored_kernels import GROUP, pair_rows, triple_rows
from kagscope.minors.moments import SUMS, Moments
from kagscope.minors.plan import Plan
from kagscope.minors.rank import dependent
from kagscope.minors.routes.determinants import row_subsets
from kagscope.minors.routes.power_grams import accurate_row_pair_sums
from kagscope.minors.routes.zonogon import row_pair_areas
from kagscope.minors.scaling import normalise, on_host, times_power_of_two
from kagscope.minors.subsets import MAX_SELECTIONS, SubsetList, cached_subsets
from kagscope.minors.sweeps import least_share
from kagscope.minors.threads import even_parts, one_blas_thread, run_parts
from kagscope.minors.underflow import LEAST

FloatArray = NDArray[np.float64]
MOST_SETS = 2**22  # minors examined to see whether all of a row subset are zero
MIXED_ROWS = 64  # bits between the scales of rows, beyond which each row has a scale of its own


class FactoredMoments:
    """The one pass over W, ready for any number of d.

    Holds, per selection, the moments of |det W[R, C]| over column subsets C for each row subset R. Histograms do not factor:
    they are not available here.

    Args:
        W: (m, n) NumPy array or torch tensor.
        k: 1, 2 or 3; for k = 3 every minor of W is visited once, so keep to a few hundred rows and columns.
        selection, image_shape, positions, groups: as for :func:`minor_moments`.
        moments: which of "s1", "s2", "s4", "entropy", "top"; "all" means these five.

    Raises:
        InputError: an argument that cannot be used.
    """

    def __init__(
        self,
        W: MatrixLike,
        k: int = 2,
        selection: Selection | str | Sequence[Selection | str] | None = None,
        *,
        image_shape: Sequence[int] | None = None,
        positions: Any = None,
        groups: Any = None,
        moments: str | Iterable[str] = "all",
    ) -> None:
        self.device = device_of(W)
        matrix = as_numpy(W, "W")
        if matrix.ndim != 2 or matrix.size == 0:
            raise InputError(f"W has shape {matrix.shape}, expected one matrix (m, n) with at least one row and one column")
        require_finite(matrix, "W")
        self.rows, self.columns = matrix.shape
        self.k = check_k(k, self.rows, self.columns)
        if self.k > 3:
            raise InputError(
                f"k={k}: the factored form keeps one row of numbers per row subset, for k = 1, 2, 3; use minor_moments"
            )
        self.wanted = check_moments(moments if moments != "all" else SUMS)
        if "histogram" in self.wanted:
            raise InputError("moments has 'histogram', which does not factor over d; ask minor_moments(d[:, None] * W) for it")
        layout = make_layout(self.columns, image_shape, positions, groups)
        self.selections, self.listed = as_selections(All() if selection is None else selection)
        normalised, exponent = normalise(matrix[None], self.k)
        self.exponent = int(exponent[0])
        rows = np.frexp(np.abs(matrix).max(axis=1))[1].astype(np.int64)
        self.row_exponents = np.zeros(self.rows, dtype=np.int64)  # further powers of two that the rows are divided by
        if (self.exponent - rows[matrix.any(axis=1)]).max(initial=0) > MIXED_ROWS:
            self.row_exponents = np.where(matrix.any(axis=1), rows - self.exponent, 0)
            normalised = times_power_of_two(matrix[None], -(self.row_exponents + self.exponent)[:, None])
        self.matrix, self.layout = matrix, layout
        self.counts: list[int] = []
        tables: list[FloatArray] = []
        for group in _passes(self.selections):
            subsets = cached_subsets(tuple(group), layout, self.k)
            self.counts += [count * comb(self.rows, self.k) for count in subsets.counts]
            tables += _row_tables(normalised[0], self.k, subsets, self.wanted)
        self.tables = tables  # each (5, C(m, k)): S1, S2, S4, entropy, top by row subset
        self._lost: dict[int, NDArray[np.intp]] = {}

    def at(self, d: MatrixLike) -> Moments | list[Moments]:
        """Moments of diag(d_b) W for every b.

        Args:
            d: (m,) or (B, m) NumPy array or torch tensor; zeros and negative entries are allowed. For k = 1 and 2 a CUDA
                tensor is evaluated on its device.

        Returns:
            :class:`Moments` (batched when d is), or a list of them when a list of selections was given. Values of a batch
            are tensors on the device of d, else of W, if that is CUDA.

        Raises:
            InputError: a shape that does not fit W, or entries that are not finite.
        """
        form_device = device_of(d) if self.k <= 2 else None  # the device of d, if it is evaluated there
        factors: Any = as_numpy(d, "d") if form_device is None else as_tensor(d, "d")
        size: Any
        shape = tuple(factors.shape)
        if len(shape) not in (1, 2) or shape[-1] != self.rows or 0 in shape:
            raise InputError(f"d has shape {shape}, expected ({self.rows},) or (B, {self.rows}): one factor for each row of W")
        require_finite(on_host(factors), "d")
        host = np.atleast_2d(on_host(factors))
        if form_device is None:
            size, exponent = normalise(np.abs(host)[:, None, :])
        else:
            from kagscope.minors.routes import torch_enumeration

            size, exponent = torch_enumeration.normalise(factors.abs().reshape(-1, 1, self.rows))
        forms: Any = (entry_forms, pair_forms, triple_forms)[self.k - 1]
        device = device_of(d) or self.device
        with one_blas_thread(), np.errstate(under="ignore"):
            sums_by_selection = [forms(table, size[:, 0], self.wanted) for table in self.tables]
        exponents = [exponent + self.exponent] * len(sums_by_selection)
        hard = self._mixed_scales(host)
        if hard.size:
            exponents = [values.copy() for values in exponents]
            for index, (table, sums) in enumerate(zip(self.tables, sums_by_selection, strict=True)):
                for b in hard:
                    entry, shift = mixed_forms(
                        table, self._lost_sets(index), self.row_exponents, np.abs(host[b]), self.k, self.wanted
                    )
                    exponents[index][b] = shift + self.exponent
                    for name, value in entry.items():
                        sums[name][b] = value[0]
        for chosen, sums in zip(self.selections, sums_by_selection, strict=True):
            self._mark_lost(chosen, sums, host)
        results = [
            Moments(
                self.k,
                count,
                powers,
                sums,
                batched=len(shape) == 2,
                plan=self._plan(len(exponent), str(chosen), count, device, form_device),
                device=device,
            )
            for sums, powers, chosen, count in zip(sums_by_selection, exponents, self.selections, self.counts, strict=True)
        ]
        return results if self.listed else results[0]

    def _lost_sets(self, index: int) -> NDArray[np.intp]:
        """Row subsets whose minors over a selection are so far below the products of their row norms that digits are lost."""
        if index not in self._lost:
            chosen, low = self.selections[index], np.flatnonzero(self.tables[index][0] < LEAST)
            rows = row_subsets(self.rows, self.k)[low]
            zero = dependent(np.ascontiguousarray(self.matrix[:, chosen.columns(self.layout)].T), rows)
            sets = cached_subsets((chosen,), self.layout, self.k).sets
            if not chosen.clique and len(rows) * len(sets) <= MOST_SETS:
                all_zero = [dependent(np.ascontiguousarray(self.matrix[row_set]), sets).all() for row_set in rows]
                zero |= np.array(all_zero, dtype=np.bool_)
            self._lost[index] = low[~zero]
        return self._lost[index]

    def _mark_lost(self, chosen: Selection, sums: dict[str, FloatArray], d: FloatArray) -> None:
        """NaN for nonzero sums so far below the largest minor of W that they have lost digits."""
        low = np.any([np.abs(values) < LEAST for name, values in sums.items() if name != "entropy"], axis=0)
        if not low.any():
            return
        live, sets = d != 0, cached_subsets((chosen,), self.layout, self.k).sets
        for b in np.flatnonzero(low):
            if not dependent(np.ascontiguousarray(self.matrix[live[b]]), sets).all():
                for name in sums:
                    sums[name] = np.where(np.arange(len(low)) == b, np.nan, sums[name])

    def _mixed_scales(self, d: FloatArray) -> NDArray[np.intp]:
        """Indices of d (B, m) whose entries differ so much in scale that squares of products of k would leave the range."""
        both = np.frexp(d)[1].astype(np.int64) + self.row_exponents
        far = np.where(d != 0, both.max(axis=1, keepdims=True) - both, 0).max(axis=1)
        return np.flatnonzero((far > MIXED_ROWS) | self.row_exponents.any())

    def _plan(self, batch: int, name: str, count: int, device: Any, form_device: Any) -> Plan:
        suffix = "" if form_device is None else f" on {form_device}"
        routes = dict.fromkeys(sorted(self.wanted), f"one pass over W, then a quadratic form in d{suffix} (MATH.md 4.7)")
        notes = () if device is None or form_device else (f"copied from {device}, found on the CPU, results back on {device}",)
        return Plan((batch, self.rows, self.columns), self.k, name, count, routes, notes=notes)


@overload
def factored_minor_moments(
    W: MatrixLike,
    d: MatrixLike,
    k: int = 2,
    selection: Selection | str | None = None,
    *,
    moments: str | Iterable[str] = "all",
    **layout: Unpack[LayoutOptions],
) -> Moments: ...


@overload
def factored_minor_moments(
    W: MatrixLike,
    d: MatrixLike,
    k: int = 2,
    selection: Sequence[Selection | str] = ...,
    *,
    moments: str | Iterable[str] = "all",
    **layout: Unpack[LayoutOptions],
) -> list[Moments]: ...


def factored_minor_moments(
    W: MatrixLike,
    d: MatrixLike,
    k: int = 2,
    selection: Selection | str | Sequence[Selection | str] | None = None,
    *,
    image_shape: Sequence[int] | None = None,
    positions: Any = None,
    groups: Any = None,
    moments: str | Iterable[str] = "all",
) -> Moments | list[Moments]:
    """Moments of the k-minors of diag(d[b]) W for every b, from one pass over W (MATH.md 4.7).

    Args:
        W: (m, n) NumPy array or torch tensor.
        d: (m,) or (B, m): the diagonals, such as the derivatives of an activation at B data points.
        k: 1, 2 or 3.
        selection, image_shape, positions, groups: as for :func:`minor_moments`.
        moments: which of "s1", "s2", "s4", "entropy", "top"; "all" means these five. Histograms do not factor.

    Returns:
        :class:`Moments` with (B,) arrays, or a list of them when a list of selections was given. All exact; NaN where the minors
        of a selection lie so far below the largest of W that their powers leave the range.

    Raises:
        InputError: an argument that cannot be used.
    """
    table = FactoredMoments(W, k, selection, image_shape=image_shape, positions=positions, groups=groups, moments=moments)
    return table.at(d)


def _passes(selections: list[Selection]) -> list[list[Selection]]:
    """Selections that can share a pass; explicit subsets go alone. Order is kept."""
    groups: list[list[Selection]] = []
    for chosen in selections:
        alone = isinstance(chosen, Subsets)
        if alone or not groups or len(groups[-1]) == MAX_SELECTIONS or isinstance(groups[-1][0], Subsets):
            groups.append([chosen])
        else:
            groups[-1].append(chosen)
    return groups


# -- the pass over W -------------------------------------------------------------------------------------------------------------


def _row_tables(W: FloatArray, k: int, subsets: SubsetList, wanted: frozenset[str]) -> list[FloatArray]:
    """For each selection, (5, C(m, k)) moments over its column subsets by row subset."""
    if k == 1:
        return [_entry_table(W[:, subsets.last[member[subsets.cells]]]) for member in subsets.membership.T]
    if len(subsets.last) == 0:
        return [np.zeros((5, comb(len(W), k))) for _ in range(subsets.membership.shape[1])]
    if k == 2 and wanted <= {"s1", "s2", "s4"} and len(subsets.membership) == 1 and len(subsets.last) == comb(W.shape[1], 2):
        return [_complete_table(W, wanted)] * subsets.membership.shape[1]
    by_cell = _pair_cells(W, subsets, bool(wanted & {"entropy"})) if k == 2 else _triple_cells(W, subsets)
    tables = []
    for member in subsets.membership.T:
        table = by_cell[member].sum(axis=0)
        table[4] = by_cell[member, 4].max(axis=0, initial=0.0)
        tables.append(table)
    return tables


def _entry_table(W: FloatArray) -> FloatArray:
    M = np.abs(W)
    logs = np.log(np.where(M > 0, M, 1.0))
    return np.stack([M.sum(axis=1), (M**2).sum(axis=1), (M**4).sum(axis=1), (M * logs).sum(axis=1), M.max(axis=1, initial=0.0)])


def _complete_table(W: FloatArray, wanted: frozenset[str]) -> FloatArray:
    """All column pairs: zonogon areas and power Grams by row pair."""
    table = np.zeros((5, comb(len(W), 2)))
    table[1], table[2] = accurate_row_pair_sums(W)
    if "s1" in wanted:
        table[0] = row_pair_areas(W)
    return table


def _ranges(subsets: SubsetList, floats: int) -> list[int]:
    """Boundaries of the parts of the prefixes, which depend on the problem alone."""
    parts = min(16, max(1, 2**27 // max(floats, 1)), len(subsets.starts) - 1)
    return even_parts([float(v) for v in np.diff(subsets.starts)], parts)


def _pair_cells(W: FloatArray, subsets: SubsetList, logs: bool) -> FloatArray:
    """(cells, 5, C(m, 2)) by row pair."""
    m = len(W)
    padded = -(-m // GROUP) * GROUP
    WT = np.zeros((W.shape[1], padded))
    WT[:, :m] = W.T
    cells = len(subsets.membership)
    bounds = _ranges(subsets, cells * 5 * padded * padded)

    def work(part: int) -> FloatArray:
        sums = np.zeros((cells, 5, padded, padded))
        pair_rows(WT, subsets.prefixes, subsets.starts, subsets.last, subsets.cells, bounds[part], bounds[part + 1], logs, sums)
        return sums

    whole = _sum_parts(run_parts(work, len(bounds) - 1))
    first, second = np.triu_indices(m, 1)
    return whole[:, :, first, second]


def _triple_cells(W: FloatArray, subsets: SubsetList) -> FloatArray:
    """(cells, 5, C(m, 3)) by row triple."""
    cells, triples = len(subsets.membership), comb(len(W), 3)
    if cells * 5 * triples * 8 > 2**31:
        raise InputError(
            f"k=3 over {len(W)} rows and {cells} cells of selections needs {cells * 5 * triples * 8 / 2**30:.0f} GiB; use "
            f"minor_moments"
        )
    WT = np.ascontiguousarray(W.T)
    bounds = _ranges(subsets, cells * 5 * triples)
    least = least_share(W, 3)

    def work(part: int) -> FloatArray:
        sums = np.zeros((cells, 5, triples))
        lists = subsets.prefixes, subsets.starts, subsets.last, subsets.cells
        triple_rows(WT, *lists, bounds[part], bounds[part + 1], sums, least)
        return sums

    return _sum_parts(run_parts(work, len(bounds) - 1))


def _sum_parts(parts: list[FloatArray]) -> FloatArray:
    """Sum of the parts in order; for top, the largest."""
    total = parts[0]
    for part in parts[1:]:
        np.maximum(total[:, 4], part[:, 4], out=part[:, 4])
        total += part
        total[:, 4] = part[:, 4]
    return total
