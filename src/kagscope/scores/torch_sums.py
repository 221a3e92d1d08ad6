"""Differentiable sums over minors of torch tensors, S1, S2 and Haar means, for :mod:`kagscope.scores.functional` (MATH.md 6)."""

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
from kagscope.minors.haar import NEARLY_PARALLEL, haar_constant
from kagscope.minors.routes.zonogon import ENTRY_BITS, MOST_BITS
from kagscope.minors.scaling import column_span, entry_span
from kagscope.minors.subsets import cached_subsets, pairs_of
from kagscope.scores.pair_areas import pair_areas_of
from kagscope.scores.pair_squares import pair_squares

ORDERS = (1, 2)
LEAST = 2.0**-800  # of S2 of matrices whose largest entry is about 1: below, sums are found on scales of their own
ROUNDED = 1e-16  # S2 of column pairs over the squares of their lengths, below which roundings of diag(d) W show in it
SHOWS = 1e-7  # areas over the products of lengths of such pairs, below which their sum has less than eight digits


@dataclass(frozen=True)
class Rows:
    """Row pairs that stand for all of them: (P,) int64 ``first`` and ``second``, and the (P,) ``weight`` of each in a sum."""

    first: Tensor
    second: Tensor
    weight: Tensor


class _Pairs(NamedTuple):
    """Column pairs of a selection that is no clique."""

    first: Tensor
    second: Tensor


@dataclass(frozen=True)
class Task:
    """Matrices in float64, each over a power of two, and which of their minors count.

    Attributes:
        given: the tensor that was given, whose dtype, device and shape the answer has.
        kept: what was given, (B, m, n), or with ``d`` (1, m, n); columns outside a clique are gone.
        factors: (B, m) d as it was given, or None.
        matrices: ``kept`` over powers of two.
        d: ``factors`` over powers of two.
        k: 1 or 2.
        pairs: which column pairs count; None for all.
        batched: whether the answer is (B,).
        rows: the row pairs of which S1 is estimated; None for all.
        exponents: (B,) int64, the power of two taken out of each diag(d) W or J.
    """

    given: Tensor
    kept: Tensor
    factors: Tensor | None
    matrices: Tensor
    d: Tensor | None
    k: int
    pairs: _Pairs | None
    batched: bool
    exponents: Tensor
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

    @cached_property
    def sums(self) -> tuple[Tensor, Tensor, Tensor]:
        """(B,) S1 over 2^e and S2 over 4^e, and e per factor of a minor (k = 1) or per minor where it is not the usual.

        Both are 0 where every minor is zero, or they cannot be told.
        """
        s1, s2 = self.s1(), self.s2()
        lost = self._lost(s2.detach())
        if lost.any():
            s1, s2 = torch.where(lost, 0.0, s1), torch.where(lost, 0.0, s2)
        low = torch.nonzero((s2.detach() < LEAST) & ~lost)[:, 0]
        if not len(low):
            return s1, s2, self.exponents
        a, b, c = (torch.stack(part) for part in zip(*(self._far(int(one)) for one in low), strict=True))
        return s1.index_put((low,), a), s2.index_put((low,), b), self.exponents.index_put((low,), c)

    def _low(self, s2: Tensor) -> Tensor:
        return torch.nonzero(s2.detach() < LEAST)[:, 0]

    def _lost(self, s2: Tensor) -> Tensor:
        """(B,) whether all selected columns are so nearly parallel that S2 is made of what diag(d) W, formed for them, rounds."""
        if self.pairs is None or self.d is None:
            return torch.zeros_like(s2, dtype=torch.bool)
        lengths = torch.linalg.vector_norm(self._dense().detach(), dim=1)
        whole = (lengths[:, self.pairs.first] * lengths[:, self.pairs.second]).square().sum(-1)
        return (s2 < ROUNDED * whole) & (s2 > 0) & ~self._exact

    @cached_property
    def _exact(self) -> Tensor:
        """(B,) whether diag(d) W takes no rounding: d is made of powers of two and zeros, or there is none."""
        if self.factors is None:
            return torch.ones(len(self.matrices), dtype=torch.bool, device=self.given.device)
        mantissas = torch.frexp(self.factors.detach())[0].abs()
        return ((mantissas == 0.5) | (mantissas == 0)).all(1)

    def _lines(self, index: int) -> tuple[Tensor, Tensor, Tensor]:
        """Nonzero rows of one W or J, each over a power of two; (m,) its factors; (m,) powers of two left out of both."""
        rows, exponents = scaled(self.kept[index if self.d is None else 0].double(), (-1,))
        factors, more = torch.ones_like(exponents, dtype=torch.float64), torch.zeros_like(exponents)
        if self.factors is not None:
            factors, more = scaled(self.factors[index].double()[:, None], (-1,))
        alive = (rows.detach() * factors.detach()).any(1)
        return rows[alive], factors[alive, 0], (exponents + more)[alive, 0]

    def _columns_of(self, index: int) -> tuple[Tensor, Tensor, Tensor]:
        """The columns of one matrix as :meth:`_lines` has the rows."""
        rows, factors, exponents = self._lines(index)
        dense = rows * factors[:, None]
        sizes = torch.where(dense != 0, exponents[:, None] + torch.frexp(dense.detach())[1], -10_000)
        tops = sizes.amax(0) if len(dense) else sizes.new_zeros(dense.shape[1])
        tops = torch.where(tops > -10_000, tops, 0)
        lines = _times(dense, exponents[:, None] - tops).mT
        return lines, lines.new_ones(len(lines)), tops

    def _far(self, index: int) -> tuple[Tensor, Tensor, Tensor]:
        """S1 and S2 of one matrix whose minors lie far below the largest entry, over powers of two; and that of S1."""
        zero = self.matrices.new_zeros(())
        nothing = zero, zero, self.exponents.new_zeros(())
        rows, factors, exponents = self._lines(index)
        if len(rows) < self.k:
            return nothing
        if self.k == 1:
            top = exponents.max()
            entries = _times(rows * factors[:, None], (exponents - top)[:, None])
            return entries.abs().sum(), entries.square().sum(), top
        m, n = self.matrices.shape[1:]
        sides = [self._lines, self._columns_of] if self.d is not None or m <= n else [self._columns_of, self._lines]
        for side in sides if self.pairs is None else [self._columns_of]:
            found = self._pairs_of(side, index)
            if found is None:
                continue
            areas, squares, powers = found
            some = squares > 0
            if not some.any():
                return nothing
            top = powers[some].max()
            return _times(areas, powers - top).sum(), _times(squares, 2 * (powers - top)).sum(), top
        return nothing

    def _pairs_of(self, side: Any, index: int, with_areas: bool = True) -> tuple[Tensor, Tensor, Tensor] | None:
        """S1 and S2 of pairs of lines, 2^powers and 4^powers times these; None where some cannot be told."""
        lines, factors, exponents = side(index)
        lines, factors, exponents = (one.cpu() for one in (lines, factors, exponents))
        if not lines.numel() or not self._are_certain(index, lines.detach()):
            return None
        rows = side == self._lines
        first, second = _row_pairs(len(lines), lines.device) if rows or self.pairs is None else (one.cpu() for one in self.pairs)
        squares, powers = pair_squares(lines, first, second)
        if not rows and not self._exact[index]:
            lengths = lines.detach().square().sum(1)
            if ((squares < ROUNDED * _times(lengths[first] * lengths[second], -2 * powers)) & (squares > 0)).any():
                return None
        both = factors[first] * factors[second]
        areas = _times(pair_areas_of(lines, first, second), -powers) * both.abs() if with_areas else squares
        where = self.given.device
        return areas.to(where), (squares * both.square()).to(where), (powers + exponents[first] + exponents[second]).to(where)

    def _are_certain(self, index: int, lines: Tensor) -> bool:
        """Whether no entry was lost in the scaling, and areas of pairs keep their digits (as the engine's zonogons)."""
        given = self.kept[index] if self.factors is None else self.kept[0][self.factors[index] != 0]
        host = lines.numpy()
        whole = int(lines.count_nonzero()) == int(given.count_nonzero())
        return whole and column_span(host) <= MOST_BITS and entry_span(host) <= ENTRY_BITS

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
        rows = self.matrices[0]
        gram = rows @ rows.mT
        whole = torch.outer(gram.diagonal(), gram.diagonal())
        found = (whole - gram.square()).clamp(min=0).fill_diagonal_(0.0)
        near = (found.detach() < NEARLY_PARALLEL * whole.detach()).triu(1)
        if not near.any():
            return found
        i, j = torch.nonzero(near, as_tuple=True)
        mended = _careful_squares(rows, i, j)
        return found.index_put((i, j), mended).index_put((j, i), mended)

    def s2(self) -> Tensor:
        """(B,) sum of squared minors."""
        if self.k == 1:
            sums = self.matrices.square().sum(-1)
            return sums.sum(-1) if self.d is None else self.d.square() @ sums[0]
        if self.pairs is not None:
            return torch.stack([self._areas_squared(matrix).sum() for matrix in self._dense()])
        if self.d is not None:
            squares = self.d.square()
            return 0.5 * ((squares @ self.row_minors) * squares).sum(-1)
        sides = self.matrices if self.matrices.shape[1] <= self.matrices.shape[2] else self.matrices.mT
        return _squares(sides, *_row_pairs(sides.shape[1], sides.device)).sum(-1)

    def haar_s1(self) -> Tensor:
        """(B,) mean of S1 over random rotations of the rows, in closed form, over the same powers of two; NaN where not known."""
        m = self.matrices.shape[1]
        s1, _, exponents = self.sums
        if self.k == m:
            return s1  # there is one row set, whose minors no rotation changes
        low = set(self._low(self.s2()).tolist()) if self.k == 2 else set()
        found = []
        for index, matrix in enumerate(self._dense()):
            if self.k == 1:
                columns, powers = scaled(matrix, (-2,))  # of each, whose squares stay in the range
                found.append(_times(torch.linalg.vector_norm(columns, dim=0), powers[0]).sum())  # whose gradient at 0 is 0
            elif index in low:
                found.append(self._far_volumes(index, exponents[index]))
            else:
                areas = _root(self._areas_squared(matrix))
                found.append(torch.where(self._is_rounding(index, matrix.detach(), areas.detach()), math.nan, areas.sum()))
        return math.comb(m, self.k) * haar_constant(m, self.k) * torch.stack(found)

    def _is_rounding(self, index: int, matrix: Tensor, areas: Tensor) -> Tensor:
        """() whether what diag(d) W rounds may show in the sum of the areas of pairs of its columns."""
        first, second = self._columns(matrix)
        lengths = torch.linalg.vector_norm(matrix, dim=0)
        whole = lengths[first] * lengths[second]
        near = areas.square() < ROUNDED * whole.square()
        return (areas.sum() < SHOWS * (whole * near).sum()) & ~self._exact[index]

    def _far_volumes(self, index: int, top: Tensor) -> Tensor:
        pairs = self._pairs_of(self._columns_of, index, with_areas=False)
        return self.matrices.new_tensor(math.nan) if pairs is None else _times(_root(pairs[1]), pairs[2] - top).sum()

    def _dense(self) -> Tensor:
        """(B, m, n) the matrices themselves."""
        return self.matrices if self.d is None else self.d[:, :, None] * self.matrices

    def _columns(self, matrix: Tensor) -> tuple[Tensor, Tensor]:
        return _row_pairs(matrix.shape[1], matrix.device) if self.pairs is None else self.pairs

    def _areas_squared(self, matrix: Tensor) -> Tensor:
        """(pairs,) squared area that each pair of columns spans: its S2."""
        return _squares(matrix.mT[None], *self._columns(matrix))[0]


def row_pair_sizes(task: Task) -> Tensor:
    """(m, m) sqrt(S2) of every row pair of the one W or J of a task, times the sum of |d_i d_j|; each pair stands there twice."""
    size = task.row_minors.detach().sqrt()
    if task.d is not None:
        d = task.d.detach().abs()
        size = size * (d.mT @ d)
    return size


def _squares(lines: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """(B, P) S2 of pairs of lines (B, L, n), from Gram matrices; pair by pair where these cancel."""
    gram = lines @ lines.mT
    diagonal = gram.diagonal(dim1=-2, dim2=-1)
    whole = diagonal[..., first] * diagonal[..., second]
    found = whole - gram[..., first, second].square()
    near = found.detach() < NEARLY_PARALLEL * whole.detach()
    if not near.any():
        return found
    each = zip(lines, near, strict=True)
    mended = [_careful_squares(one, first[these], second[these]) for one, these in each if these.any()]
    return found.index_put(torch.nonzero(near, as_tuple=True), torch.cat(mended))


def _careful_squares(lines: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """(P,) S2 of pairs of lines (L, n), none of which cancels."""
    even, exponents = scaled(lines, (-1,))
    values, powers = pair_squares(even, first, second)
    return _times(values, 2 * (powers + exponents[first, 0] + exponents[second, 0]))


def _root(squares: Tensor) -> Tensor:
    """Square roots whose gradient at 0 is 0."""
    some = squares > 0
    return torch.where(some, torch.where(some, squares, 1.0).sqrt(), 0.0)


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
    """The matrices and their minors, checked; arguments as for :func:`log_participation_ratio`. Raises :class:`InputError`."""
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
    kept = kept if batched else kept[None]
    matrices, exponents = scaled(kept, (-2, -1))
    if d is None:
        return Task(J, kept, None, matrices, None, k, pairs, batched, exponents.flatten())
    _check(d, "d", (1, 2))
    if d.shape[-1] != m:
        raise InputError(f"d has shape {tuple(d.shape)}, expected ({m},) or (B, {m}): one factor for each row of W")
    given = d if d.ndim == 2 else d[None]
    factors, more = scaled(given, (-1,))
    return Task(J, kept, given, matrices, factors, k, pairs, d.ndim == 2, exponents.flatten() + more.flatten())


def scaled(values: Tensor, dims: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """In float64, over powers of two near the largest entry along ``dims``, which changes no score; and these, int64."""
    if not values.numel():
        return values.double(), values.new_zeros(
            [1 if i - values.ndim in dims else size for i, size in enumerate(values.shape)]
        ).long()
    largest = values.detach().abs().amax(dims, keepdim=True).double()
    exponents = torch.frexp(torch.where(largest > 0, largest, 1.0))[1].long()
    return _times(values, -exponents), exponents


def _times(values: Tensor, exponents: Tensor) -> Tensor:
    """values 2^exponents in float64, as two products, since 2^exponents alone may leave the range; 2^-2000 at least."""
    exponents = exponents.clamp(-2000, 2000)
    half = exponents.div(2, rounding_mode="floor")
    return values * torch.exp2(half.double()) * torch.exp2((exponents - half).double())


def _check(value: Any, name: str, ranks: tuple[int, ...]) -> None:
    if not isinstance(value, Tensor) or not value.is_floating_point():
        given = f"has dtype {value.dtype}" if isinstance(value, Tensor) else f"is {type(value).__name__}"
        raise InputError(f"{name} {given}, expected a floating torch tensor; kagscope.minor_moments takes other arrays")
    if value.ndim not in ranks or value.numel() == 0:
        expected = {2: "(m, n)", 3: "(B, m, n)", 1: "(m,)"} if ranks != (1, 2) else {1: "(m,)", 2: "(B, m)"}
        raise InputError(f"{name} has shape {tuple(value.shape)}, expected {' or '.join(expected[rank] for rank in ranks)}")
    if not math.isfinite(value.detach().abs().amax()):
        raise InputError(f"{name} holds entries that are NaN or infinite; minors need finite ones")
