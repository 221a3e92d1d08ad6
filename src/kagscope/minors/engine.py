"""``minor_moments``: from matrices and selections to moments, by the best route."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from kagscope.base.errors import InputError
from kagscope.columns.layout import Layout, make_layout
from kagscope.columns.selections import All, Selection, Subsets, as_selections
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
from kagscope.minors.estimates import estimated
from kagscope.minors.exact import by_determinants, by_formulas, enumerated
from kagscope.minors.moments import Moments
from kagscope.minors.planner import AUTO_SECONDS, BYTES_A_SUBSET, Plan, enumeration_work, exact_work, reference_seconds
from kagscope.minors.scaling import on_host
from kagscope.minors.subsets import MAX_SELECTIONS, cached_counts


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
        method: "exact" never samples; "sampled" always may; "auto" samples where exact sums would take more than about 20 s for
            a matrix on one core, by the count of steps, never by a clock.
        moments: "all", or those wanted of "s1", "s2", "s4", "entropy", "top", "histogram"; others cost nothing and are absent.
        rel_error: relative standard error that sampling aims at.
        seed: of the sampling; the same seed gives the same bits.
        precision: "auto" or "float64"; every kernel multiplies and adds in float64, so both do the same (docs/engine.md,
            "Precision", has the measurement).
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
    """Each selection by the way that suits it; those to enumerate, together. ``matrices``: an array, or a device's tensor."""
    rows = matrices.shape[1]
    alone = len(selections) == 1 or all(isinstance(chosen, All) for chosen in selections)
    results: dict[int, Moments] = {}
    shared: list[int] = []
    for index, (chosen, count) in enumerate(zip(selections, counts, strict=True)):
        columns = int(chosen.columns(layout).sum())
        work, formulas = exact_work(k, chosen, rows, columns, count, wanted, alone=alone, memory_budget=memory_budget)
        exact = _is_exact(method, work)
        listable = (count or 0) * BYTES_A_SUBSET <= memory_budget
        if is_torch(matrices) and "top" in wanted and listable:
            formulas = False  # a device visits every minor sooner than they are copied and pruned on the CPU
        found = None
        if exact and formulas:
            found = by_formulas(matrices, k, chosen, count or 0, layout, wanted, work, memory_budget)
            work = enumeration_work(k, rows, columns, count or 0, wanted)
            exact = found is not None or _is_exact(method, work)
        if found is not None:
            results[index] = found
        elif not exact:
            blend = method == "auto"
            results[index] = estimated(on_host(matrices), k, chosen, count, layout, wanted, blend, rel_error, seed)
        elif k >= 4:
            results[index] = by_determinants(on_host(matrices), k, chosen, count, layout, wanted, memory_budget)
        elif not listable:
            raise InputError(
                f"k={k} over {chosen} lists {count or 0:.2e} column subsets, {(count or 0) * BYTES_A_SUBSET / 2**30:.1f} GiB and "
                f"about {reference_seconds(work):.1e} s a matrix, beyond memory_budget={memory_budget}; "
                'raise it, or use method="auto" or "sampled"'
            )
        elif isinstance(chosen, Subsets):
            results[index] = enumerated(matrices, k, [chosen], layout, wanted, memory_budget)[0]
        else:
            shared.append(index)
    for start in range(0, len(shared), MAX_SELECTIONS):
        part = shared[start : start + MAX_SELECTIONS]
        together = enumerated(matrices, k, [selections[index] for index in part], layout, wanted, memory_budget)
        results |= dict(zip(part, together, strict=True))
    return [results[index] for index in range(len(selections))]


def _is_exact(method: str, work: Mapping[str, float]) -> bool:
    """Whether to take the exact way: decided by numbers of steps, so that it never depends on the machine or its load."""
    return method == "exact" or (method == "auto" and reference_seconds(work) <= AUTO_SECONDS)
