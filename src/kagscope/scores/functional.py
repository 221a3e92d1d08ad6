"""Scores of MATH.md section 3 that torch can differentiate, exactly, at about the cost of their values (MATH.md section 6).

Each takes a floating tensor of matrices, (m, n) or (B, m, n), or W (m, n) with ``d`` (m,) or (B, m) for the matrices diag(d) W,
whose sums over pairs of rows are then found once for the whole batch. Sums are in float64; values and gradients come back in the
dtype and on the device of the matrices. A score that is undefined (all minors are zero) is NaN, with gradient 0.

``kagscope.functional`` is this module.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from kagscope.base.errors import InputError
from kagscope.columns.layout import make_layout
from kagscope.columns.selections import All, Selection, as_selections
from kagscope.minors._input import check_k
from kagscope.minors.haar import haar_constant
from kagscope.minors.subsets import cached_subsets, pairs_of
from kagscope.scores.pair_areas import pair_areas_of

ORDERS = (1, 2)
PARALLEL = 64 * float(np.finfo(np.float64).eps)  # squared sine that rounding alone produces


@dataclass(frozen=True)
class Rows:
    """Row pairs that stand for all of them: (P,) int64 ``first`` and ``second``, and the (P,) ``weight`` of each in a sum."""

    first: Tensor
    second: Tensor
    weight: Tensor


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
        () for one matrix, (B,) for a batch, in the dtype of J; NaN with gradient 0 where every minor is zero.

    Raises:
        InputError: an argument that cannot be used, or an entry that is not finite.

    Examples:
        >>> import torch, kagscope as kag
        >>> J = torch.eye(2, requires_grad=True)
        >>> value = kag.functional.log_participation_ratio(J)  # one minor: as concentrated as can be
        >>> value.backward(); float(value), J.grad.abs().max().item()
        (0.0, 0.0)
    """
    return log_pr_of(task(J, k, selection, d=d, image_shape=image_shape, positions=positions, groups=groups))


def log_pr_of(task: Task) -> Tensor:
    """What :func:`log_participation_ratio` gives, of a task."""
    s1, s2 = task.s1(), task.s2()
    some = (s1 > 0) & (s2 > 0)
    return task.answer(0.5 * torch.log(torch.where(some, s2, 1.0)) - torch.log(torch.where(some, s1, 1.0)), some)


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
    """S1^2 / S2, how many minors carry the mass, differentiable; arguments as of :func:`log_participation_ratio`."""
    return effective_minors_of(task(J, k, selection, d=d, image_shape=image_shape, positions=positions, groups=groups))


def effective_minors_of(task: Task) -> Tensor:
    """What :func:`effective_minors` gives, of a task."""
    s1, s2 = task.s1(), task.s2()
    some = (s1 > 0) & (s2 > 0)
    return task.answer(s1 * s1 / torch.where(some, s2, 1.0), some)


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

    Arguments as of :func:`log_participation_ratio`. Where two columns are parallel the square root of their area has gradient 0.
    """
    return rr_pr_of(task(J, k, selection, d=d, image_shape=image_shape, positions=positions, groups=groups))


def rr_pr_of(task: Task) -> Tensor:
    """What :func:`rr_pr` gives, of a task."""
    s1 = task.s1()
    return task.answer(task.haar_s1() / torch.where(s1 > 0, s1, 1.0), s1 > 0)


def alignment(J: Tensor, *, d: Tensor | None = None) -> Tensor:
    """Mean over the nonzero rows of sqrt(sum J^4) / sum J^2: a smooth ``axis_alignment``, from n^(-1/2) to 1 (MATH.md section 6).

    Args:
        J: (m, n) or (B, m, n) floating tensor; with ``d``, the W (m, n) of diag(d) W, of which the rows with d = 0 are left out.
        d: (m,) or (B, m), the diagonals.

    Returns:
        () for one matrix, (B,) for a batch; NaN with gradient 0 where every row is zero.
    """
    return alignment_of(task(J, 1, d=d))


def alignment_of(task: Task) -> Tensor:
    """What :func:`alignment` gives, of a task."""
    squares = task.matrices.square()
    whole = squares.sum(-1)
    some = whole > 0
    each = torch.where(some, torch.linalg.vector_norm(squares, dim=-1) / torch.where(some, whole, 1.0), 0.0)
    if task.d is not None:
        some = some & (task.d != 0)
    count = some.sum(-1)
    return task.answer((each * some).sum(-1) / count.clamp(min=1), count > 0)


def log_norm_of(task: Task, power: int) -> Tensor:
    """ln of the entrywise L1 or L2 norm of the matrices (``power`` 1 or 2), whatever the order of the task's minors."""
    entries = replace(task, k=1)
    total = entries.s1() if power == 1 else entries.s2()
    some = total > 0
    return task.answer(torch.log(torch.where(some, total, 1.0)) / power + task.log_scale, some)


# -- sums ------------------------------------------------------------------------------------------------------------------------


class _Pairs(NamedTuple):
    """Column pairs of a selection that is no clique."""

    first: Tensor
    second: Tensor


@dataclass(frozen=True)
class Task:
    """Matrices in float64, each over a power of two, and which of their minors count.

    Attributes:
        given: the tensor that was given, whose dtype, device and shape the answer has.
        matrices: (B, m, n), or with ``d`` (1, m, n); columns outside a clique are gone.
        d: (B, m) or None.
        k: 1 or 2.
        pairs: which column pairs count; None for all.
        batched: whether the answer is (B,).
        rows: the row pairs of which S1 is estimated; None for all.
        log_scale: (B,) or (1,), ln of the power of two taken out of each diag(d) W or J.
    """

    given: Tensor
    matrices: Tensor
    d: Tensor | None
    k: int
    pairs: _Pairs | None
    batched: bool
    log_scale: Tensor
    rows: Rows | None = None

    def answer(self, values: Tensor, defined: Tensor) -> Tensor:
        """The values in the shape and dtype that were given; NaN where undefined."""
        found = torch.where(defined, values, math.nan).to(self.given.dtype)
        return found if self.batched else found[0]

    def with_rows(self, rows: Rows) -> Task:
        """S1 estimated from these row pairs; what is known of the matrices is kept."""
        found = replace(self, rows=rows)
        found.__dict__["row_minors"] = self.row_minors
        return found

    def s1(self) -> Tensor:
        """(B,) sum of |minors|."""
        if self.k == 1:
            sums = self.matrices.abs().sum(-1)
            return sums.sum(-1) if self.d is None else self.d.abs() @ sums[0]
        if self.d is not None and self.pairs is None:
            m = self.matrices.shape[1]
            first, second = _row_pairs(m, self.given.device) if self.rows is None else (self.rows.first, self.rows.second)
            areas = pair_areas_of(self.matrices[0], first, second)
            return _pair_form(self.d.abs(), areas if self.rows is None else areas * self.rows.weight, first, second)
        return torch.stack([self._s1_of(matrix) for matrix in self._dense()])

    def _s1_of(self, matrix: Tensor) -> Tensor:
        if self.pairs is not None:
            return pair_areas_of(matrix.mT, self.pairs.first, self.pairs.second).sum()
        if self.rows is not None:
            return (pair_areas_of(matrix, self.rows.first, self.rows.second) * self.rows.weight).sum()
        side = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.mT
        return pair_areas_of(side, *_row_pairs(len(side), side.device)).sum()

    @cached_property
    def row_minors(self) -> Tensor:
        """(m, m) S2 of every row pair of the one W or J; 0 on the diagonal."""
        gram = self.matrices[0] @ self.matrices[0].mT
        squares = gram.diagonal()
        return (torch.outer(squares, squares) - gram.square()).clamp(min=0).fill_diagonal_(0.0)

    def s2(self) -> Tensor:
        """(B,) sum of squared minors, from Gram matrices."""
        if self.k == 1:
            sums = self.matrices.square().sum(-1)
            return sums.sum(-1) if self.d is None else self.d.square() @ sums[0]
        if self.pairs is not None:
            return torch.stack([self._areas_squared(matrix).sum() for matrix in self._dense()])
        if self.d is not None:
            squares = self.d.square()
            return 0.5 * ((squares @ self.row_minors) * squares).sum(-1)
        sides = self.matrices if self.matrices.shape[1] <= self.matrices.shape[2] else self.matrices.mT
        first, second = _row_pairs(sides.shape[1], sides.device)
        return _two_minors(sides @ sides.mT, first, second).sum(-1)

    def haar_s1(self) -> Tensor:
        """(B,) mean of S1 over random rotations of the rows, in closed form."""
        m = self.matrices.shape[1]
        factor = math.comb(m, self.k) * haar_constant(m, self.k)
        found = []
        for matrix in self._dense():
            if self.k == 1:
                found.append(torch.linalg.vector_norm(matrix, dim=0).sum())  # whose gradient at 0 is 0
                continue
            squares = self._areas_squared(matrix)
            first, second = self._columns(matrix)
            norms = matrix.detach().square().sum(0)
            some = squares > PARALLEL * norms[first] * norms[second]
            found.append(torch.where(some, torch.where(some, squares, 1.0).sqrt(), 0.0).sum())
        return factor * torch.stack(found)

    def _dense(self) -> Tensor:
        """(B, m, n) the matrices themselves."""
        return self.matrices if self.d is None else self.d[:, :, None] * self.matrices

    def _columns(self, matrix: Tensor) -> tuple[Tensor, Tensor]:
        return _row_pairs(matrix.shape[1], matrix.device) if self.pairs is None else self.pairs

    def _areas_squared(self, matrix: Tensor) -> Tensor:
        """(pairs,) squared area that each pair of columns spans: its S2."""
        return _two_minors(matrix.mT @ matrix, *self._columns(matrix))


def row_pair_sizes(task: Task) -> Tensor:
    """(m, m) sqrt(S2) of every row pair of the one W or J of a task, times the sum of |d_i d_j|; each pair stands there twice."""
    size = task.row_minors.detach().sqrt()
    if task.d is not None:
        d = task.d.detach().abs()
        size = size * (d.mT @ d)
    return size


def _two_minors(gram: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """(…, P) principal 2-minors of Gram matrices (…, m, m), at least 0."""
    diagonal = gram.diagonal(dim1=-2, dim2=-1)
    return (diagonal[..., first] * diagonal[..., second] - gram[..., first, second].square()).clamp(min=0)


def _pair_form(d: Tensor, values: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """(B,) sum over pairs (i, j) of d_i d_j values_ij, d (B, m)."""
    m = d.shape[1]
    matrix = torch.zeros((m, m), dtype=d.dtype, device=d.device).index_put((first, second), values, accumulate=True)
    return ((d @ matrix) * d).sum(-1)


def _row_pairs(m: int, device: torch.device) -> tuple[Tensor, Tensor]:
    first, second = torch.triu_indices(m, m, 1, device=device)
    return first, second


# -- reading what was given ------------------------------------------------------------------------------------------------------


def task(
    J: Tensor,
    k: int = 2,
    selection: Selection | str | None = None,
    *,
    d: Tensor | None = None,
    image_shape: Sequence[int] | None = None,
    positions: Any = None,
    groups: Any = None,
) -> Task:
    """The matrices and their minors, checked; arguments as of :func:`log_participation_ratio`. Raises :class:`InputError`."""
    name = "J" if d is None else "W"
    _check(J, name, (2, 3) if d is None else (2,))
    m, n = J.shape[-2:]
    k = check_k(k, m, n)
    if k not in ORDERS:
        raise InputError(f"k={k}: derivatives are known for k = 1 and 2; kagscope.minor_moments gives values for any k")
    chosen, listed = as_selections(All() if selection is None else selection)
    if listed:
        raise InputError(f"selection is a list of {len(chosen)}; give one, and add what you need of several")
    layout = make_layout(n, image_shape, positions, groups)
    pairs = None
    kept = J
    one = chosen[0]
    if one.clique or (k == 1 and not hasattr(one, "subsets")):
        inside = one.columns(layout)
        kept = J if inside.all() else J[..., torch.from_numpy(np.flatnonzero(inside)).to(J.device)]
    elif k == 1:
        kept = J[..., torch.from_numpy(cached_subsets((one,), layout, 1).last).to(J.device)]
    else:
        listed_pairs = pairs_of(cached_subsets((one,), layout, 2))
        pairs = _Pairs(*(torch.from_numpy(np.ascontiguousarray(side, dtype=np.int64)).to(J.device) for side in listed_pairs))
    batched = J.ndim == 3
    matrices, log_scale = _scaled(kept if batched else kept[None], (-2, -1))
    if d is None:
        return Task(J, matrices, None, k, pairs, batched, log_scale)
    _check(d, "d", (1, 2))
    if d.shape[-1] != m:
        raise InputError(f"d has shape {tuple(d.shape)}, expected ({m},) or (B, {m}): one factor for each row of W")
    factors, log_factor = _scaled(d if d.ndim == 2 else d[None], (-1,))
    return Task(J, matrices, factors, k, pairs, d.ndim == 2, log_scale + log_factor)


def _scaled(values: Tensor, dims: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """In float64, each matrix over a power of two near its largest entry, which changes no score; and ln of that, (B,)."""
    if not values.numel():
        return values.double(), values.new_zeros(len(values), dtype=torch.float64)
    largest = values.detach().abs().amax(dims, keepdim=True).double()
    exponents = torch.frexp(torch.where(largest > 0, largest, 1.0))[1].double()
    return values * torch.exp2(-exponents), math.log(2) * exponents.flatten()  # a float64 factor makes the product float64


def _check(value: Any, name: str, ranks: tuple[int, ...]) -> None:
    if not isinstance(value, Tensor) or not value.is_floating_point():
        given = f"has dtype {value.dtype}" if isinstance(value, Tensor) else f"is {type(value).__name__}"
        raise InputError(f"{name} {given}, expected a floating torch tensor; kagscope.minor_moments takes other arrays")
    if value.ndim not in ranks or value.numel() == 0:
        expected = {2: "(m, n)", 3: "(B, m, n)", 1: "(m,)"} if ranks != (1, 2) else {1: "(m,)", 2: "(B, m)"}
        raise InputError(f"{name} has shape {tuple(value.shape)}, expected {' or '.join(expected[rank] for rank in ranks)}")
    if not math.isfinite(value.detach().abs().amax()):
        raise InputError(f"{name} holds entries that are NaN or infinite; minors need finite ones")
