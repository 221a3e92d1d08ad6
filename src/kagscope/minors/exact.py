"""Exact moments, one function for each way: formulas for all pairs, enumeration for k <= 3, determinants beyond."""

from __future__ import annotations

from collections.abc import Mapping
from math import comb
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kagscope.base.errors import InputError
from kagscope.columns.layout import Layout
from kagscope.columns.selections import Selection, Subsets
from kagscope.minors._input import is_torch
from kagscope.minors._numba import LOWEST_BIN, SLOTS
from kagscope.minors.bruteforce import clique_subsets, minor_blocks, row_subsets
from kagscope.minors.enumeration import enumerate_all, enumerate_s1, enumerate_sums
from kagscope.minors.gram import pair_powers
from kagscope.minors.hull import top
from kagscope.minors.moments import SUMS, Histogram, Moments
from kagscope.minors.planner import CHEAP, FEW_ROWS, NEED_S1, RATES, Plan, enumeration_work
from kagscope.minors.rows import all_pair_sums, sublist
from kagscope.minors.scaling import nonzero_rows, normalise, on_host
from kagscope.minors.spectra import spectral_s2
from kagscope.minors.subsets import SubsetList, cached_subsets, over_selections
from kagscope.minors.threads import threads
from kagscope.minors.zonotope import zonotope_s1

FloatArray = NDArray[np.float64]
CHEAP_NAMES = ("s1", "s2", "s4")  # in the order in which functions return them


# -- k <= 3 by enumeration -------------------------------------------------------------------------------------------------------


def enumerated(
    matrices: Any, k: int, selections: list[Selection], layout: Layout, wanted: frozenset[str], memory_budget: int
) -> list[Moments]:
    subsets = cached_subsets(tuple(selections), layout, k)
    counts = subsets.counts
    cells = len(subsets.membership)
    if cells > 1 and len(selections) > 1 and "histogram" in wanted and cells * 80_000 > memory_budget // 4:
        half = len(selections) // 2
        parts = (selections[:half], selections[half:])
        return [moments for part in parts for moments in enumerated(matrices, k, part, layout, wanted, memory_budget)]
    if is_torch(matrices) and k <= 2:
        from kagscope.minors.torch_backend import selection_sums

        exponent, per_matrix = selection_sums(matrices, k, subsets, wanted, memory_budget)
        route = f"enumerated on {matrices.device}"
    else:
        normalised, exponent = normalise(on_host(matrices))
        per_matrix = [_one(matrix, k, subsets, wanted) for matrix in normalised]
        route = _route_name(k, wanted)
    rows = matrices.shape[1]
    results = []
    for index, chosen in enumerate(selections):
        count = counts[index] * comb(rows, k)
        sums = {
            name: np.array([found[0][index, SUMS.index(name)] for found in per_matrix])
            for name in SUMS
            if name in wanted or (name == "s1" and wanted & NEED_S1)
        }
        bins = None
        if "histogram" in wanted:
            bins = _absolute_bins(np.stack([found[1][index] for found in per_matrix if found[1] is not None]), k, count, exponent)
        plan = Plan(
            (len(matrices), rows, matrices.shape[2]),
            k,
            str(chosen),
            count,
            dict.fromkeys(sorted(wanted), route),
            {} if is_torch(matrices) and k <= 2 else enumeration_work(k, rows, matrices.shape[2], counts[index], wanted),
        )
        results.append(Moments(k, count, exponent, sums, bins, {}, False, plan))
    return results


def _route_name(k: int, wanted: frozenset[str]) -> str:
    if k == 2 and wanted <= CHEAP:
        return "S1 by enumeration without logarithms, S2 and S4 by power Grams, pairs that cancel enumerated"
    return "enumeration of every minor"


def _one(matrix: FloatArray, k: int, subsets: SubsetList, wanted: frozenset[str]) -> tuple[FloatArray, NDArray[np.int64] | None]:
    """(selections, 5) normalised sums of one normalised matrix, and (selections, SLOTS) its histograms."""
    active = nonzero_rows(matrix)
    if k == 1:
        return entry_sums(matrix, subsets)
    if len(active) < k or len(subsets.last) == 0:
        sums, hist = np.zeros((5, len(subsets.last))), None
    elif wanted <= {"s1", "s2", "s4", "top"} and k == 2:
        sums, hist = pair_sums(active, subsets, wanted), None
    else:
        found = enumerate_all(active, subsets, k, "histogram" in wanted)
        sums, hist = found.sums, found.hist
    cells, chosen = len(subsets.membership), subsets.membership.shape[1]
    by_cell = np.zeros((5, cells))
    for row in (SUMS.index(name) for name in SUMS[:4] if name in wanted or name == "s1"):
        by_cell[row] = np.bincount(subsets.cells, weights=sums[row], minlength=cells)
    if "top" in wanted:
        np.maximum.at(by_cell[4], subsets.cells, sums[4])
    totals = over_selections(by_cell, subsets.membership)
    if "histogram" not in wanted:
        return totals, None
    if hist is None or not cells:
        return totals, np.zeros((chosen, SLOTS), dtype=np.int64)
    return totals, subsets.membership.T.astype(np.int64) @ hist


def pair_sums(active: FloatArray, subsets: SubsetList, wanted: frozenset[str]) -> FloatArray:
    """(5, P) S1, S2, S4, -, top over row pairs of each column pair of ``subsets``, without logarithms (top only where wanted)."""
    if "top" in wanted or len(active) <= FEW_ROWS:
        return enumerate_sums(active, subsets).sums
    first = np.repeat(subsets.prefixes[:, 0], np.diff(subsets.starts))
    sums = np.zeros((5, len(subsets.last)))
    s1 = enumerate_s1(active, subsets) if "s1" in wanted else 0.0
    sums[1], sums[2], cancels = pair_powers(active, first, subsets.last)
    if cancels.mean() > 0.5:
        return enumerate_sums(active, subsets).sums
    sums[0] = s1
    again = np.flatnonzero(cancels)
    if again.size:
        hard = sublist(first[again], subsets.last[again])
        sums[:, again] = enumerate_sums(active, hard).sums
    return sums


def entry_sums(matrix: FloatArray, subsets: SubsetList) -> tuple[FloatArray, NDArray[np.int64]]:
    """k = 1: the minors are the entries."""
    values = np.abs(matrix[:, subsets.last])
    fractions, exponents = np.frexp(np.where(values > 0, values, 1.0))
    logs = np.log(np.where(values > 0, values, 1.0))
    slots = np.floor(np.log2(fractions) * 8).astype(np.int64) + 8 * exponents - (LOWEST_BIN - 1)
    slots = np.where(values > 0, slots, 0)
    chosen = subsets.membership.T
    totals, hists = np.zeros((len(chosen), 5)), []
    for index, member in enumerate(chosen):
        inside = member[subsets.cells] if len(member) else np.zeros(0, dtype=bool)
        part = values[:, inside]
        totals[index] = part.sum(), (part**2).sum(), (part**4).sum(), (part * logs[:, inside]).sum(), part.max(initial=0.0)
        hists.append(np.bincount(slots[:, inside].ravel(), minlength=SLOTS))
    return totals, np.stack(hists)


def _absolute_bins(hist: NDArray[np.int64], k: int, count: int, exponent: NDArray[np.int64]) -> Histogram:
    """Kernel histograms (B, slots) as absolute bins; minors not visited are those of zero rows, exact zeros."""
    counts = hist[:, 1:]
    used = np.flatnonzero(counts.any(axis=0))
    low, high = (int(used[0]), int(used[-1]) + 1) if used.size else (0, 0)
    counts = np.ascontiguousarray(counts[:, low:high])
    return Histogram(LOWEST_BIN + low + 8 * k * exponent, counts, count - counts.sum(axis=1))


# -- formulas --------------------------------------------------------------------------------------------------------------------


def by_formulas(
    matrices: Any,
    k: int,
    chosen: Selection,
    column_subsets: int,
    layout: Layout,
    wanted: frozenset[str],
    work: dict[str, float],
    memory_budget: int,
) -> Moments | None:
    """Moments over every subset of the selection's columns without visiting the minors (MATH.md 4.1 to 4.4).

    None: a matrix is so close to a rank below k that its spectrum cannot tell S2 from rounding.
    """
    inside = np.flatnonzero(chosen.columns(layout))
    if len(inside) < layout.columns:
        matrices = matrices[:, :, inside]
    if is_torch(matrices) and (k > 2 or "top" in wanted):
        matrices = on_host(matrices)
    rows, place = matrices.shape[1], ""
    if is_torch(matrices):
        from kagscope.minors import torch_pairs

        exponent, found = torch_pairs.all_pair_sums(matrices, wanted, memory_budget)
        place, work = f" on {matrices.device}", {}
        sums = dict(zip(CHEAP_NAMES, found.T, strict=True))
    else:
        normalised, exponent = normalise(matrices)
        each = [_formulas(nonzero_rows(matrix), k, wanted) for matrix in normalised]
        if any(value is None for one in each for value in one.values()):
            return None
        sums = {name: np.array([one[name] for one in each], dtype=np.float64) for name in wanted}
    count = comb(rows, k) * column_subsets
    routes = {name: route + place for name, route in _formula_names(k).items() if name in wanted}
    plan = Plan((len(matrices), rows, layout.columns), k, str(chosen), count, routes, work)
    return Moments(k, count, exponent, {name: sums[name] for name in SUMS if name in wanted}, None, {}, False, plan)


def _formula_names(k: int) -> dict[str, str]:
    if k == 2:
        return {"s1": "zonogon areas", "s2": "Gram matrix", "s4": "power Grams", "top": "hulls of the outermost vectors"}
    return {"s1": "zonotope volumes", "s2": "e_k of the squared singular values"}


def _formulas(active: FloatArray, k: int, wanted: frozenset[str]) -> Mapping[str, float | None]:
    """The wanted sums of one normalised matrix; None for S2 where the spectrum does not give it."""
    if min(active.shape) < k:
        return dict.fromkeys(wanted, 0.0)
    if k == 2:
        sums = dict(zip(CHEAP_NAMES, all_pair_sums(active, wanted) if wanted & CHEAP else (0.0, 0.0, 0.0), strict=True))
        return {**sums, "top": top(active, threads())} if "top" in wanted else sums
    found: dict[str, float | None] = {}
    if "s2" in wanted:
        found["s2"] = spectral_s2(active, k)
    if "s1" in wanted and found.get("s2", 0.0) is not None:
        found["s1"] = zonotope_s1(np.ascontiguousarray(active if active.shape[0] <= active.shape[1] else active.T), threads())
    return found


# -- k >= 4 ----------------------------------------------------------------------------------------------------------------------


def by_determinants(
    matrices: FloatArray,
    k: int,
    chosen: Selection,
    subsets: int | None,
    layout: Layout,
    wanted: frozenset[str],
    memory_budget: int,
) -> Moments:
    normalised, exponent = normalise(matrices)
    rows = matrices.shape[1]
    if subsets is None:
        raise InputError(f'k={k} over {chosen} has too many column subsets to list; use method="auto" or "sampled"')
    count = comb(rows, k) * subsets
    if subsets * k * 8 > memory_budget or comb(rows, k) * k * 8 > memory_budget:
        raise InputError(
            f"k={k} over {chosen} has {count:.2e} minors (about {count / RATES['determinants']:.1e} s exactly), and listing "
            f'their subsets exceeds memory_budget={memory_budget}; use method="auto" or "sampled"'
        )
    if isinstance(chosen, Subsets):
        columns = chosen.array(layout, k)
    else:
        columns = clique_subsets(chosen.pairs(layout) & ~np.eye(layout.columns, dtype=bool), k)
    sums, hists = np.zeros((len(matrices), 5)), []
    for index, matrix in enumerate(normalised):
        active = nonzero_rows(matrix)
        hist = np.zeros(SLOTS, dtype=np.int64)
        for block in minor_blocks(active, row_subsets(len(active), k), columns) if len(active) >= k else ():
            flat = SubsetList(
                np.empty((0, 0), np.int64),
                np.empty(0, np.int64),
                np.arange(block.shape[1]),
                np.zeros(block.shape[1], np.int64),
                np.ones((1, 1), bool),
            )
            part, part_hist = entry_sums(block, flat)
            sums[index, :4] += part[0, :4]
            sums[index, 4] = max(sums[index, 4], part[0, 4])
            hist += part_hist[0]
        hists.append(hist)
    bins = _absolute_bins(np.stack(hists), k, count, exponent) if "histogram" in wanted else None
    plan = Plan(
        (len(matrices), rows, layout.columns),
        k,
        str(chosen),
        count,
        dict.fromkeys(sorted(wanted), "every determinant by LU"),
        {"determinants": float(count)},
    )
    named = {name: sums[:, i] for i, name in enumerate(SUMS) if name in wanted or (name == "s1" and wanted & NEED_S1)}
    return Moments(k, count, exponent, named, bins, {}, False, plan)
