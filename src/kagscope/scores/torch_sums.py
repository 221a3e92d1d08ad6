"""Differentiable sums over minors of torch tensors, S1, S2 and Haar means, for :mod:`kagscope.scores.functional` (MATH.md 6)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kagscope.base.errors import InputError
from kagscope.columns.layout import make_layout
from kagscope.columns.selections import All, Selection, as_selections
from kagscope.minors._input import check_k
from kagscope.minors.haar import NEARLY_PARALLEL, haar_constant
from kagscope.minors.subsets import cached_subsets, pairs_of
from kagscope.scores.far_sums import ROUNDED, Far, Pairs, are_powers_of_two, root
from kagscope.scores.pair_areas import pair_areas_of
from kagscope.scores.powers import over, scaled, times
from kagscope.scores.row_sums import RowPairs, Rows, careful_squares, every_pair

ORDERS = (1, 2)
LEAST = 2.0**-800  # of S2 of matrices over their powers of two: below, sums are found on scales of their own
NEAR_ONE = 2.0**-32  # no power of two is taken out of matrices whose largest entry is between this and its inverse
SHOWS = 1e-7  # areas over the products of lengths of such pairs, below which their sum has less than eight digits


@dataclass(frozen=True)
class Task:
    """Matrices, and which of their minors count.

    Attributes:
        given: the tensor that was given, whose dtype, device and shape the answer has.
        kept: what was given, (B, m, n), or with ``d`` (1, m, n); columns outside a clique are gone.
        factors: (B, m) d as it was given, or None.
        k: 1 or 2.
        pairs: which column pairs count; None for all.
        batched: whether the answer is (B,).
        tops: powers of two to take out of each of ``kept``.
        factor_tops: powers of two to take out of each of ``factors``; a 0 where there are none.
        rows: the row pairs of which S1 is estimated; None for all.
    """

    given: Tensor
    kept: Tensor
    factors: Tensor | None
    k: int
    pairs: Pairs | None
    batched: bool
    tops: Sequence[int]
    factor_tops: Sequence[int] = (0,)
    rows: Rows | None = None

    @cached_property
    def matrices(self) -> Tensor:
        """``kept`` in float64, over powers of two."""
        return over(self.kept, self.tops)

    @cached_property
    def d(self) -> Tensor | None:
        """``factors`` in float64, over powers of two."""
        return None if self.factors is None else over(self.factors, self.factor_tops)

    @cached_property
    def exponents(self) -> Tensor:
        """(B,) int64, the power of two taken out of each diag(d) W or J."""
        return torch.from_numpy(np.add(self.tops, self.factor_tops, dtype=np.int64)).to(self.given.device)

    @cached_property
    def row_pairs(self) -> list[RowPairs]:
        """Of the one W, or of the rows or columns of each J, whichever are fewer."""
        each = [self.matrices.squeeze(0)] if len(self.kept) == 1 else list(self.matrices)
        by_rows = self.d is not None or self.kept.shape[1] <= self.kept.shape[2]
        return [RowPairs(one if by_rows else one.mT, self.d) for one in each]

    def answer(self, values: Tensor, defined: Tensor | None = None) -> Tensor:
        """The values in the shape and dtype that were given; NaN where undefined, nowhere by default."""
        found = values if defined is None else torch.where(defined, values, math.nan)
        found = found.to(self.given.dtype)
        return found if self.batched else found[0]

    def with_rows(self, rows: Rows) -> Task:
        """S1 estimated from these pairs of rows of the one matrix; what is known of all is kept."""
        found = replace(self, rows=rows)
        found.__dict__["row_pairs"] = self.row_pairs
        return found

    @cached_property
    def sums(self) -> tuple[Tensor, Tensor, Tensor]:
        """(B,) S1 over 2^e and S2 over 4^e, and e per factor of a minor (k = 1) or per minor where it is not the usual.

        Both are 0 where every minor is zero, or they cannot be told.
        """
        s1, s2 = self._near_sums
        lost = self._lost(s2.detach())
        if lost is None and float(s2.detach().min()) >= LEAST:
            return s1, s2, self.exponents
        low = s2.detach() < LEAST
        if lost is not None:
            s1, s2, low = torch.where(lost, 0.0, s1), torch.where(lost, 0.0, s2), low & ~lost
        low = torch.nonzero(low)[:, 0]
        if not len(low):
            return s1, s2, self.exponents
        a, b, c = (torch.stack(part) for part in zip(*(self._far.sums(int(one)) for one in low), strict=True))
        return s1.index_put((low,), a), s2.index_put((low,), b), self.exponents.index_put((low,), c)

    @cached_property
    def _near_sums(self) -> tuple[Tensor, Tensor]:
        """(B,) S1 and S2 over the usual powers of two."""
        if self.k == 1:
            return self._of_entries(torch.abs), self._of_entries(torch.square)
        if self.pairs is None:
            found = [pairs.sums(self.rows) for pairs in self.row_pairs]
            s1, s2 = found[0] if len(found) == 1 else (torch.cat(part) for part in zip(*found, strict=True))
            return s1, s2
        areas = [pair_areas_of(matrix.mT, self.pairs.first, self.pairs.second).sum() for matrix in self._dense()]
        return torch.stack(areas), torch.stack([self._areas_squared(matrix).sum() for matrix in self._dense()])

    def _of_entries(self, size: Callable[[Tensor], Tensor]) -> Tensor:
        sums = size(self.matrices).sum(-1)
        return sums.sum(-1) if self.d is None else size(self.d) @ sums[0]

    def _lost(self, s2: Tensor) -> Tensor | None:
        """(B,) whether all selected columns are so nearly parallel that S2 is made of what diag(d) W, formed for them, rounds.

        None where no product is formed.
        """
        if self.pairs is None or self.d is None:
            return None
        lengths = torch.linalg.vector_norm(self._dense().detach(), dim=1)
        whole = (lengths[:, self.pairs.first] * lengths[:, self.pairs.second]).square().sum(-1)
        return (s2 < ROUNDED * whole) & (s2 > 0) & ~self._exact

    @cached_property
    def _exact(self) -> Tensor:
        """(B,) whether diag(d) W takes no rounding: d is made of powers of two and zeros, or there is none."""
        if self.factors is None:
            return torch.ones(len(self.kept), dtype=torch.bool, device=self.given.device)
        return are_powers_of_two(self.factors)

    @property
    def _far(self) -> Far:
        return Far(self.kept, self.factors, self.k, self.pairs)

    def haar_s1(self) -> Tensor:
        """(B,) mean of S1 over random rotations of the rows, in closed form, over the same powers of two; NaN where not known."""
        m = self.kept.shape[1]
        s1, _, exponents = self.sums
        if self.k == m:
            return s1  # there is one row set, whose minors no rotation changes
        low = self._near_sums[1].detach() < LEAST
        found = []
        for index, matrix in enumerate(self._dense()):
            if self.k == 1:
                columns, powers = scaled(matrix, (-2,))  # of each, whose squares stay in the range
                found.append(times(torch.linalg.vector_norm(columns, dim=0), powers[0]).sum())  # whose gradient at 0 is 0
            elif low[index]:
                found.append(self._far.volumes(index, exponents[index]))
            else:
                areas = root(self._areas_squared(matrix))
                found.append(torch.where(self._is_rounding(index, matrix.detach(), areas.detach()), math.nan, areas.sum()))
        return math.comb(m, self.k) * haar_constant(m, self.k) * torch.stack(found)

    def _is_rounding(self, index: int, matrix: Tensor, areas: Tensor) -> Tensor:
        """() whether what diag(d) W rounds may show in the sum of the areas of pairs of its columns."""
        first, second = self._columns(matrix)
        lengths = torch.linalg.vector_norm(matrix, dim=0)
        whole = lengths[first] * lengths[second]
        near = areas.square() < ROUNDED * whole.square()
        return (areas.sum() < SHOWS * (whole * near).sum()) & ~self._exact[index]

    def _dense(self) -> Tensor:
        """(B, m, n) the matrices themselves."""
        return self.matrices if self.d is None else self.d[:, :, None] * self.matrices

    def _columns(self, matrix: Tensor) -> tuple[Tensor, Tensor]:
        return every_pair(matrix.shape[1], matrix.device) if self.pairs is None else (self.pairs.first, self.pairs.second)

    def _areas_squared(self, matrix: Tensor) -> Tensor:
        """(pairs,) squared area that each pair of columns spans: its S2."""
        return _squares(matrix.mT, *self._columns(matrix))


def _squares(lines: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """(P,) S2 of pairs of lines (L, n), from their Gram matrix; pair by pair where that cancels."""
    gram = lines @ lines.mT
    diagonal = gram.diagonal()
    whole = diagonal[first] * diagonal[second]
    found = whole - gram[first, second].square()
    near = found.detach() < NEARLY_PARALLEL * whole.detach()
    if not near.any():
        return found
    return found.index_put((near,), careful_squares(lines, first[near], second[near]))


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
    largest = _check(J, name, (2, 3) if d is None else (2,))
    m, n = J.shape[-2:]
    k = check_k(k, m, n)
    if k not in ORDERS:
        raise InputError(f"k={k}: derivatives are known for k = 1 and 2; kagscope.minor_moments gives values for any k")
    chosen, listed = as_selections(All() if selection is None else selection)
    if listed:
        raise InputError(f"selection is a list of {len(chosen)}; give one, and add what you need of several")
    pairs = None
    kept = J
    one = chosen[0]
    layout = make_layout(n, image_shape, positions, groups)
    if one == All():
        pass
    elif one.clique or (k == 1 and not hasattr(one, "subsets")):
        inside = one.columns(layout)
        kept = J if inside.all() else J[..., torch.from_numpy(np.flatnonzero(inside)).to(J.device)]
    elif k == 1:
        kept = J[..., torch.from_numpy(cached_subsets((one,), layout, 1).last).to(J.device)]
    else:
        listed_pairs = pairs_of(cached_subsets((one,), layout, 2))
        pairs = Pairs(*(torch.from_numpy(np.ascontiguousarray(side, dtype=np.int64)).to(J.device) for side in listed_pairs))
    if kept is not J and kept.numel():
        largest = kept.detach().abs().amax((-2, -1)).reshape(-1).tolist()
    tops = [_top(one) for one in largest]
    batched = J.ndim == 3
    if not batched:
        kept = kept[None]
    if d is None:
        return Task(J, kept, None, k, pairs, batched, tops)
    sizes = _check(d, "d", (1, 2))
    if d.shape[-1] != m:
        raise InputError(f"d has shape {tuple(d.shape)}, expected ({m},) or (B, {m}): one factor for each row of W")
    return Task(J, kept, torch.atleast_2d(d), k, pairs, d.ndim == 2, tops, [_top(one) for one in sizes])


def _top(size: float) -> int:
    """The power of two to take out of numbers up to ``size``: none where sums of fourth powers are well within the range."""
    return 0 if NEAR_ONE < size < 1 / NEAR_ONE else math.frexp(size)[1]


def _check(value: Any, name: str, ranks: tuple[int, ...]) -> list[float]:
    """The largest |entry| of each matrix, or of each vector where there may be some."""
    if not isinstance(value, Tensor) or not value.is_floating_point():
        given = f"has dtype {value.dtype}" if isinstance(value, Tensor) else f"is {type(value).__name__}"
        raise InputError(f"{name} {given}, expected a floating torch tensor; kagscope.minor_moments takes other arrays")
    if value.ndim not in ranks or value.numel() == 0:
        expected = {2: "(m, n)", 3: "(B, m, n)", 1: "(m,)"} if ranks != (1, 2) else {1: "(m,)", 2: "(B, m)"}
        raise InputError(f"{name} has shape {tuple(value.shape)}, expected {' or '.join(expected[rank] for rank in ranks)}")
    largest: list[float] = value.detach().abs().amax((-1,) if min(ranks) == 1 else (-2, -1)).reshape(-1).tolist()
    if not all(map(math.isfinite, largest)):
        raise InputError(f"{name} holds entries that are NaN or infinite; minors need finite ones")
    return largest
