"""Scores of MATH.md section 3 that torch can differentiate, exactly, at about the cost of their values (MATH.md section 6).

Each takes a floating tensor of matrices, (m, n) or (B, m, n), or W (m, n) with ``d`` (m,) or (B, m) for the matrices diag(d) W,
whose sums over pairs of rows are then found once for the whole batch. Sums are in float64; values and gradients come back in the
dtype and on the device of the matrices. A score that is undefined (all minors are zero) is NaN, with gradient 0; so is one of
scales so mixed that sums leave the range. Rows may differ by any power of two (of listed pairs of columns and in rotations by
2^450), columns by 2^450 where the minors lie far below the square of the largest entry.

``kagscope.functional`` is this module.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from kagscope.columns.selections import Selection
from kagscope.scores.powers import extract_powers
from kagscope.scores.torch_sums import Task, make_task


def log_participation_ratio(
    J: Tensor,
    k: int = 2,
    selection: Selection | str | None = None,
    *,
    d: Tensor | None = None,
    image_shape: Sequence[int] | None = None,
    positions: Any = None,
    groups: Any = None,
) -> Tensor:
    """ln of the participation ratio sqrt(S2) / S1 of the k-minors (MATH.md section 3), differentiable.

    Args:
        J: (m, n) or (B, m, n) floating tensor; with ``d``, the W (m, n) of diag(d) W.
        k: 1 or 2.
        selection, image_shape, positions, groups: as for :func:`kagscope.minor_moments`, one selection.
        d: (m,) or (B, m), the diagonals.

    Returns:
        () for one matrix, (B,) for a batch, in the dtype of J; NaN with gradient 0 where every minor is zero, or where with ``d``
        the columns of a selection's pairs are all parallel but for what diag(d) W rounds.

    Raises:
        InputError: an argument that cannot be used, or an entry that is not finite.

    Examples:
        >>> import torch, kagscope as kag
        >>> J = torch.eye(2, requires_grad=True)
        >>> value = kag.functional.log_participation_ratio(J)  # one minor: as concentrated as can be
        >>> value.backward(); float(value), J.grad.abs().max().item()
        (0.0, 0.0)
    """
    return log_pr_of(make_task(J, k, selection, d=d, image_shape=image_shape, positions=positions, groups=groups))


def log_pr_of(task: Task) -> Tensor:
    """:func:`log_participation_ratio` of a task."""
    s1, s2, _ = task.sums
    if float(torch.minimum(s1, s2).detach().min()) > 0:
        return task.as_result(torch.log(torch.sqrt(s2) / s1))
    defined = (s1 > 0) & (s2 > 0)
    s1, s2 = torch.where(defined, s1, 1.0), torch.where(defined, s2, 1.0)
    return task.as_result(torch.log(torch.sqrt(s2) / s1), defined)


def effective_minors(
    J: Tensor,
    k: int = 2,
    selection: Selection | str | None = None,
    *,
    d: Tensor | None = None,
    image_shape: Sequence[int] | None = None,
    positions: Any = None,
    groups: Any = None,
) -> Tensor:
    """S1^2 / S2, how many minors carry the mass, differentiable; arguments as for :func:`log_participation_ratio`."""
    return effective_minors_of(make_task(J, k, selection, d=d, image_shape=image_shape, positions=positions, groups=groups))


def effective_minors_of(task: Task) -> Tensor:
    """:func:`effective_minors` of a task."""
    s1, s2, _ = task.sums
    defined = (s1 > 0) & (s2 > 0)
    return task.as_result(s1 * s1 / torch.where(defined, s2, 1.0), defined)


def rr_pr(
    J: Tensor,
    k: int = 2,
    selection: Selection | str | None = None,
    *,
    d: Tensor | None = None,
    image_shape: Sequence[int] | None = None,
    positions: Any = None,
    groups: Any = None,
) -> Tensor:
    """E[S1(QJ)] / S1(J) over random rotations Q, above 1 where rows are axis-aligned (MATH.md 4.5), differentiable.

    Arguments as for :func:`log_participation_ratio`. Where two columns are parallel the square root of their area has gradient 0.
    """
    return rr_pr_of(make_task(J, k, selection, d=d, image_shape=image_shape, positions=positions, groups=groups))


def rr_pr_of(task: Task) -> Tensor:
    """:func:`rr_pr` of a task."""
    s1, _, _ = task.sums
    mean = task.haar_s1()
    defined = (s1 > 0) & mean.isfinite()
    return task.as_result(torch.where(defined, mean, 0.0) / torch.where(defined, s1, 1.0), defined)


def alignment(J: Tensor, *, d: Tensor | None = None) -> Tensor:
    """Mean over the nonzero rows of sqrt(sum J^4) / sum J^2: a smooth ``axis_alignment``, from n^(-1/2) to 1 (MATH.md section 6).

    Args:
        J: (m, n) or (B, m, n) floating tensor; with ``d``, the W (m, n) of diag(d) W, of which the rows with d = 0 are left out.
        d: (m,) or (B, m), the diagonals.

    Returns:
        () for one matrix, (B,) for a batch; NaN with gradient 0 where every row is zero.
    """
    return alignment_of(make_task(J, 1, d=d))


def alignment_of(task: Task) -> Tensor:
    """:func:`alignment` of a task."""
    squares = extract_powers(task.kept.double(), (-1,))[0].square()
    total = squares.sum(-1)
    nonzero = total > 0
    ratios = torch.where(nonzero, torch.linalg.vector_norm(squares, dim=-1) / torch.where(nonzero, total, 1.0), 0.0)
    if task.d is not None:
        nonzero = nonzero & (task.d != 0)
    count = nonzero.sum(-1)
    return task.as_result((ratios * nonzero).sum(-1) / count.clamp(min=1), count > 0)


def log_norm_of(task: Task, power: int) -> Tensor:
    """ln of the entrywise L1 or L2 norm of the matrices (``power`` 1 or 2), whatever the order of the task's minors."""
    entries = replace(task, k=1)
    s1, s2, exponents = entries.sums
    total = s1 if power == 1 else s2
    nonzero = total > 0
    return task.as_result(torch.log(torch.where(nonzero, total, 1.0)) / power + math.log(2) * exponents.double(), nonzero)
