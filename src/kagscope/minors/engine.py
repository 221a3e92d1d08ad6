"""``minor_moments``: from matrices and selections to moments, by the best route."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import comb
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kagscope.errors import InputError
from kagscope.layout import Layout, make_layout
from kagscope.minors._input import (
    as_device_matrices,
    as_matrices,
    check_choice,
    check_k,
    check_moments,
    check_positive,
    device_of,
    is_torch,
)
from kagscope.minors._numba import LOWEST_BIN, SLOTS
from kagscope.minors.bruteforce import clique_subsets, minor_blocks, row_subsets
from kagscope.minors.enumeration import enumerate_all, enumerate_s1, enumerate_sums
from kagscope.minors.gram import pair_powers
from kagscope.minors.moments import SUMS, Histogram, Moments
from kagscope.minors.planner import RATE_ALL, RATE_BRUTE, RATE_S1, Plan, enumeration_seconds, zonogon_seconds
from kagscope.minors.rows import all_pair_sums, sublist
from kagscope.minors.subsets import MAX_SELECTIONS, SubsetList, cached_counts, cached_subsets, over_selections
from kagscope.selections import All, Selection, Subsets, as_selections

FloatArray = NDArray[np.float64]
CHEAP = frozenset({"s1", "s2", "s4"})
NEED_S1 = frozenset({"entropy", "histogram"})  # their scores are relative to the mean


def minor_moments(
    J: Any,
    k: int = 2,
    selection: Any = None,
    *,
    image_shape: Sequence[int] | None = None,
    positions: Any = None,
    groups: Any = None,
    method: str = "auto",
    moments: Any = "all",
    rel_error: float = 0.01,
    seed: int = 0,
    precision: str = "auto",
    memory_budget: int = 2**30,
) -> Any:
    """Moments of the absolute k-minors of a matrix, or of each matrix of a batch (MATH.md sections 2 and 4).

    Args:
        J: (m, n) or (B, m, n) NumPy array or torch tensor, real floating point, finite. On a CUDA tensor exact moments of k = 1
            and k = 2 are found on its device; the rest on the CPU (``plan`` says so).
        k: order of the minors, 1 to min(m, n).
        selection: which column subsets: ``All()`` (default), ``Ball(r)``, … or a list of them, answered in one pass.
        image_shape: (height, width) when the columns are pixels in row-major order.
        positions: (n, dimension) coordinates of the columns, when they are no image.
        groups: n labels, when distance only means "same group" (0) or "another" (1).
        method: "exact" never samples; "sampled" always may; "auto" samples where exact sums would take too long.
        moments: "all", or those wanted of "s1", "s2", "s4", "entropy", "top", "histogram"; others cost nothing and are absent.
        rel_error: relative standard error that sampling aims at.
        seed: of the sampling; the same seed gives the same bits.
        precision: "auto" or "float64"; every kernel here multiplies and adds in float64, so both do the same.
        memory_budget: bytes of working memory to stay within, about.

    Returns:
        :class:`Moments`, or a list of them when a list of selections was given. What is read of a batch are tensors on the device
        of J if that is CUDA, else NumPy arrays.

    Raises:
        InputError: an argument that cannot be used, or an exact request that would not fit in memory.
    """
    device = device_of(J)
    matrices, batched = as_matrices(J) if device is None else as_device_matrices(J)
    _, rows, columns = matrices.shape
    k = check_k(k, rows, columns)
    wanted = check_moments(moments)
    check_choice("method", method, ("auto", "exact", "sampled"))
    check_choice("precision", precision, ("auto", "float64"))
    check_positive("rel_error", rel_error, "the relative standard error that sampling aims at")
    check_positive("memory_budget", memory_budget, "bytes")
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or seed < 0:
        raise InputError(f"seed={seed!r}, expected a whole number of at least 0")
    layout = make_layout(columns, image_shape, positions, groups)
    selections, listed = as_selections(All() if selection is None else selection)
    counts = cached_counts(tuple(selections), layout, k)
    results = _by_route(matrices, k, selections, counts, layout, method, wanted, rel_error, int(seed), memory_budget)
    results = [replace(result, batched=batched, device=device, plan=_copied(result.plan, device)) for result in results]
    return results if listed else results[0]


def _copied(plan: Plan | None, device: Any) -> Plan | None:
    """The plan, saying so where a matrix on a device was copied to the CPU."""
    if plan is None or device is None or any(str(device) in route for route in plan.routes.values()):
        return plan
    return replace(plan, notes=(*plan.notes, f"copied from {device}, found on the CPU, results back on {device}"))


def on_host(matrices: Any) -> FloatArray:
    """A copy in host memory of matrices that lie on a device; others as they are."""
    return matrices.cpu().numpy() if is_torch(matrices) else matrices


def _by_route(
    matrices: Any,
    k: int,
    selections: list[Selection],
    counts: Sequence[int | None],
    layout: Layout,
    method: str,
    wanted: frozenset[str],
    rel_error: float,
    seed: int,
    memory_budget: int,
) -> list[Moments]:
    """Each selection by the route that suits it; those that share one, together. ``matrices``: an array, or a device's tensor."""
    rows = matrices.shape[1]
    sampled = [
        method == "sampled" or (method == "auto" and _seconds(k, rows, count, wanted, chosen) > AUTO_SECONDS)
        for chosen, count in zip(selections, counts, strict=True)
    ]
    results: dict[int, Moments] = {}
    alone = all(isinstance(chosen, All) for chosen in selections)  # beside others, their enumeration has it for nothing
    for index, chosen in enumerate(selections):
        if sampled[index]:
            from kagscope.minors.estimates import estimated

            results[index] = estimated(
                on_host(matrices),
                k,
                chosen,
                counts[index],
                layout,
                wanted,
                blend=method == "auto",
                rel_error=rel_error,
                seed=seed,
            )
        elif k >= 4:
            results[index] = _brute(on_host(matrices), k, chosen, counts[index], layout, wanted, memory_budget)
        elif isinstance(chosen, Subsets):
            results[index] = _enumerated(matrices, k, [chosen], layout, wanted, memory_budget)[0]
        elif k == 2 and alone and wanted <= CHEAP:
            results[index] = _all_pairs(matrices, chosen, wanted, memory_budget)
    for index, (chosen, count) in enumerate(zip(selections, counts, strict=True)):
        if index not in results and (count or 0) * BYTES_A_SUBSET > memory_budget:
            raise InputError(
                f"k={k} over {chosen} lists {count or 0:.2e} column subsets, {(count or 0) * BYTES_A_SUBSET / 2**30:.1f} GiB"
                f" and {_seconds(k, rows, count, wanted, chosen):.1e} s a matrix, beyond memory_budget={memory_budget}; "
                'raise it, or use method="auto" or "sampled"'
            )
    rest = [index for index in range(len(selections)) if index not in results]
    for start in range(0, len(rest), MAX_SELECTIONS):
        part = rest[start : start + MAX_SELECTIONS]
        found = _enumerated(matrices, k, [selections[index] for index in part], layout, wanted, memory_budget)
        results |= dict(zip(part, found, strict=True))
    return [results[index] for index in range(len(selections))]


BYTES_A_SUBSET = 88  # its columns, cell and five sums
FEW_ROWS = 48  # up to here enumerating S2 and S4 with S1 beats Gram matrices
AUTO_SECONDS = 20.0  # one matrix, one core: beyond, ``auto`` samples


def _seconds(k: int, rows: int, column_subsets: int | None, wanted: frozenset[str], selection: Selection) -> float:
    """Estimated seconds of the exact route on one core, for one matrix."""
    if column_subsets is None:
        return float("inf")
    minors = comb(rows, k) * column_subsets
    if k == 2 and wanted <= CHEAP:
        return minors / RATE_S1 if not isinstance(selection, All) else 0.0
    return enumeration_seconds(minors, k)


# -- scaling ---------------------------------------------------------------------------------------------------------------------


def normalise(matrices: FloatArray) -> tuple[FloatArray, NDArray[np.int64]]:
    """Each matrix over the power of two just above its largest entry, and the exponents; exact but for subnormal entries."""
    exponent = np.frexp(np.abs(matrices).max(axis=(1, 2)))[1].astype(np.int64)
    return np.ldexp(matrices, -exponent[:, None, None]), exponent


def nonzero_rows(matrix: FloatArray) -> FloatArray:
    """Without rows that are exactly zero: they add exact zeros and nothing else."""
    keep = matrix.any(axis=1)
    return matrix if keep.all() else np.ascontiguousarray(matrix[keep])


# -- k <= 3 by enumeration -------------------------------------------------------------------------------------------------------


def _enumerated(
    matrices: Any, k: int, selections: list[Selection], layout: Layout, wanted: frozenset[str], memory_budget: int
) -> list[Moments]:
    subsets = cached_subsets(tuple(selections), layout, k)
    counts = subsets.counts
    cells = len(subsets.membership)
    if cells > 1 and len(selections) > 1 and "histogram" in wanted and cells * 80_000 > memory_budget // 4:
        half = len(selections) // 2
        parts = (selections[:half], selections[half:])
        return [moments for part in parts for moments in _enumerated(matrices, k, part, layout, wanted, memory_budget)]
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
            count / RATE_ALL[k],
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
        return _entries(matrix, subsets)
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


def _entries(matrix: FloatArray, subsets: SubsetList) -> tuple[FloatArray, NDArray[np.int64]]:
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


# -- k = 2 over all pairs --------------------------------------------------------------------------------------------------------


def _all_pairs(matrices: Any, chosen: Selection, wanted: frozenset[str], memory_budget: int) -> Moments:
    """S1 by zonogons, S2 and S4 by power Grams, all on the side with fewer pairs."""
    place = ""
    if is_torch(matrices):
        from kagscope.minors import torch_pairs

        exponent, found = torch_pairs.all_pair_sums(matrices, wanted, memory_budget)
        place = f" on {matrices.device}"
    else:
        normalised, exponent = normalise(matrices)
        found = np.array([all_pair_sums(nonzero_rows(matrix), wanted) for matrix in normalised])
    rows, columns = matrices.shape[1:]
    count = comb(rows, 2) * comb(columns, 2)
    routes = {"s1": "zonogon areas", "s2": "Gram matrix", "s4": "power Grams"}
    plan = Plan(
        (len(matrices), rows, columns),
        2,
        str(chosen),
        count,
        {name: routes[name] + place for name in sorted(wanted)},
        zonogon_seconds(rows, columns),
    )
    return Moments(
        2,
        count,
        exponent,
        {name: found[:, i] for i, name in enumerate(("s1", "s2", "s4")) if name in wanted},
        None,
        {},
        False,
        plan,
    )


# -- k >= 4 ----------------------------------------------------------------------------------------------------------------------


def _brute(
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
            f"k={k} over {chosen} has {count:.2e} minors (about {count / RATE_BRUTE:.1e} s exactly), and listing their subsets "
            f"exceeds "
            f'memory_budget={memory_budget}; use method="auto" or "sampled"'
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
            part, part_hist = _entries(block, flat)
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
        count / RATE_BRUTE,
    )
    named = {name: sums[:, i] for i, name in enumerate(SUMS) if name in wanted or (name == "s1" and wanted & NEED_S1)}
    return Moments(k, count, exponent, named, bins, {}, False, plan)
