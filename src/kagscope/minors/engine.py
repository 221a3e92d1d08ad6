"""``minor_moments``: moments of the minors of matrices over selections, by the best route."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, Literal, TypeAlias, Unpack, overload

import numpy as np

from kagscope.base.errors import InputError
from kagscope.columns.layout import LayoutOptions, make_layout
from kagscope.columns.selections import All, Selection, as_selections
from kagscope.minors._input import (
    MatrixLike,
    as_device_matrices,
    as_matrices,
    check_choice,
    check_k,
    check_moments,
    check_positive,
    check_seed,
    device_of,
)
from kagscope.minors.moments import Moments
from kagscope.minors.plan import Plan
from kagscope.minors.routes.auto import Auto
from kagscope.minors.routes.determinants import COUNTLESS
from kagscope.minors.subsets import cached_counts
from kagscope.minors.task import Matrices, Task
from kagscope.minors.threads import one_blas_thread

POWERS = {"s1": 1, "s2": 2, "s4": 4}  # of the minors
Method: TypeAlias = Literal["auto", "exact", "sampled"]


class _Options(LayoutOptions, total=False):
    method: Method
    moments: str | Iterable[str]
    rel_error: float
    seed: int
    memory_budget: int


@overload
def minor_moments(
    J: MatrixLike,
    k: int = 2,
    selection: Selection | str | None = None,
    *,
    known: Moments | None = None,
    **options: Unpack[_Options],
) -> Moments: ...


@overload
def minor_moments(
    J: MatrixLike,
    k: int = 2,
    selection: Sequence[Selection | str] = ...,
    *,
    known: Sequence[Moments] | None = None,
    **options: Unpack[_Options],
) -> list[Moments]: ...


def minor_moments(
    J: MatrixLike,
    k: int = 2,
    selection: Selection | str | Sequence[Selection | str] | None = None,
    *,
    image_shape: Sequence[int] | None = None,
    positions: Any = None,
    groups: Any = None,
    method: Method = "auto",
    moments: str | Iterable[str] = "all",
    rel_error: float = 0.01,
    seed: int = 0,
    memory_budget: int = 2**30,
    known: Moments | Sequence[Moments] | None = None,
) -> Moments | list[Moments]:
    """Moments of the absolute k-minors of a matrix, or of each matrix of a batch (MATH.md sections 2 and 4).

    Args:
        J: (m, n) or (B, m, n) NumPy array or torch tensor, real floating point, finite. On a CUDA tensor exact moments of k = 1
            and k = 2 are found on its device; the rest on the CPU (``plan`` says so).
        k: order of the minors, 1 to min(m, n).
        selection: which column subsets: ``All()`` (default), ``Ball(r)``, … or a list of them, answered in one pass.
        image_shape: (height, width) when the columns are pixels in row-major order.
        positions: (n, dimension) coordinates of the columns, when they are no image.
        groups: n labels, when distance only means "same group" (0) or "another" (1).
        method: "exact" never samples; "sampled" may, k > 1; "auto" samples where exact sums would take more than about 20 s for
            a matrix on one core, by the count of steps, never by a clock.
        moments: "all", or those wanted of "s1", "s2", "s4", "entropy", "top", "histogram"; others cost nothing and are absent.
        rel_error: relative standard error that sampling aims at.
        seed: of the sampling; the same seed gives the same bits.
        memory_budget: bytes of working memory to stay within, about.
        known: moments of these very minors, a list for a list of selections, whose exact sums need not be found again.

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
    check_positive("rel_error", rel_error, "the relative standard error that sampling aims at")
    check_positive("memory_budget", memory_budget, "bytes")
    seed = check_seed(seed)
    layout = make_layout(columns, image_shape, positions, groups)
    selections, listed = as_selections(All() if selection is None else selection)
    counts = cached_counts(tuple(selections), layout, k)
    shared = Matrices(matrices, k)
    tasks = [
        Task(shared, k, chosen, count, layout, wanted, method, rel_error, seed, memory_budget)
        for chosen, count in zip(selections, counts, strict=True)
    ]
    if known is not None:
        known_moments = [known] if isinstance(known, Moments) else list(known)
        if len(known_moments) != len(tasks) or any((m.k, len(m)) != (k, len(matrices)) for m in known_moments):
            raise InputError(f"known: expected moments of k={k} of {len(matrices)} matrices for each of {len(tasks)} selections")
        tasks = [replace(task, known=_known_sums(task, m)) for task, m in zip(tasks, known_moments, strict=True)]
    if wanted != {"s2"} and (lost := [task for task in tasks if task.minors > COUNTLESS]):
        raise InputError(
            f"k={k} over {lost[0].selection} has more than 10^300 minors, which floats do not count; only S2 is known of "
            'so many: moments=("s2",)'
        )
    with one_blas_thread():
        results = Auto().run(tasks)
    results = [replace(result, batched=batched, device=device, plan=_note_copy(result.plan, device)) for result in results]
    return results if listed else results[0]


def _known_sums(task: Task, moments: Moments) -> dict[str, Any]:
    """Exact sums of powers, rescaled to the normalisation of a task's matrices."""
    up = moments.exponent - task.inside.exponent
    exact = {name: power for name, power in POWERS.items() if name in moments.sums and name not in moments.replicates}
    return {name: np.ldexp(moments.sums[name], power * task.k * up) for name, power in exact.items()}


def _note_copy(plan: Plan | None, device: Any) -> Plan | None:
    """Note in the plan that matrices were copied from a device to the CPU."""
    if plan is None or device is None or any(str(device) in route for route in plan.routes.values()):
        return plan
    return replace(plan, notes=(*plan.notes, f"copied from {device}, found on the CPU, results back on {device}"))
