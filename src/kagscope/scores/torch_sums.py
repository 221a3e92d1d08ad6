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
from kagscope.minors._input import check_k, check_tensor
from kagscope.minors.haar import NEARLY_PARALLEL, haar_constant
from kagscope.minors.subsets import cached_subsets, pairs_of
from kagscope.scores.far_sums import ROUNDED, FarSums, Pairs, are_powers_of_two, safe_sqrt
from kagscope.scores.pair_sums import pair_areas_of
from kagscope.scores.powers import divide_by_powers, extract_powers, ldexp
from kagscope.scores.row_sums import RowPairs, RowPairSample, accurate_squares, pair_indices

ORDERS = (1, 2)
LEAST = 2.0**-800  # normalised S2 below which sums are computed with separate scales
NEAR_ONE = 2.0**-32  # matrices whose largest entry is between this and its inverse are not normalised
SHOWS = 1e-7  # ratio of areas to products of lengths below which the sum of areas has less than eight digits


@dataclass(frozen=True)
class Task:
    """Matrices, and the minors to sum over.

    Attributes:
        given: the tensor given, whose dtype, device and shape results have.
        kept: the matrices (B, m, n), or with ``d`` (1, m, n), without columns outside a clique.
        factors: (B, m) d as given, or None.
        k: 1 or 2.
        pairs: column pairs to include; None for all.
        batched: whether results have shape (B,).
        tops: exponents of the powers of two by which each of ``kept`` is divided.
        factor_tops: the same for ``factors``; a 0 if there are none.
        rows: row pairs from which S1 is estimated; None for all.
    """

    given: Tensor
    kept: Tensor
    factors: Tensor | None
    k: int
    pairs: Pairs | None
    batched: bool
    tops: Sequence[int]
    factor_tops: Sequence[int] = (0,)
    rows: RowPairSample | None = None

    @cached_property
    def matrices(self) -> Tensor:
        """``kept`` in float64, divided by powers of two."""
        return divide_by_powers(self.kept, self.tops)

    @cached_property
    def d(self) -> Tensor | None:
        """``factors`` in float64, divided by powers of two."""
        return None if self.factors is None else divide_by_powers(self.factors, self.factor_tops)

    @cached_property
    def exponents(self) -> Tensor:
        """(B,) int64 exponents of the powers of two by which each diag(d) W or J was divided."""
        return torch.from_numpy(np.add(self.tops, self.factor_tops, dtype=np.int64)).to(self.given.device)

    @cached_property
    def row_pairs(self) -> list[RowPairs]:
        """Row pairs of W, or of the rows or columns of each J, whichever are fewer."""
        matrices = [self.matrices.squeeze(0)] if len(self.kept) == 1 else list(self.matrices)
        by_rows = self.d is not None or self.kept.shape[1] <= self.kept.shape[2]
        return [RowPairs(matrix if by_rows else matrix.mT, self.d) for matrix in matrices]

    def as_result(self, values: Tensor, defined: Tensor | None = None) -> Tensor:
        """Values in the shape and dtype of the input, NaN where not ``defined``."""
        result = values if defined is None else torch.where(defined, values, math.nan)
        result = result.to(self.given.dtype)
        return result if self.batched else result[0]

    def with_row_sample(self, rows: RowPairSample) -> Task:
        """The same task with S1 estimated from these row pairs of its single matrix; cached properties are kept."""
        copy = replace(self, rows=rows)
        copy.__dict__["row_pairs"] = self.row_pairs
        return copy

    @cached_property
    def sums(self) -> tuple[Tensor, Tensor, Tensor]:
        """(B,) S1 / 2^e and S2 / 4^e, and e per factor of a minor (k = 1), or per minor if rescaled.

        Both sums are 0 if every minor is zero, or if they cannot be determined.
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
        a, b, c = (torch.stack(column) for column in zip(*(self._far.sums(int(index)) for index in low), strict=True))
        return s1.index_put((low,), a), s2.index_put((low,), b), self.exponents.index_put((low,), c)

    @cached_property
    def _near_sums(self) -> tuple[Tensor, Tensor]:
        """(B,) S1 and S2 of the normalised matrices."""
        if self.k == 1:
            return self._entry_sums(torch.abs), self._entry_sums(torch.square)
        if self.pairs is None:
            results = [pairs.sums(self.rows) for pairs in self.row_pairs]
            s1, s2 = results[0] if len(results) == 1 else (torch.cat(column) for column in zip(*results, strict=True))
            return s1, s2
        areas = [pair_areas_of(matrix.mT, self.pairs.first, self.pairs.second).sum() for matrix in self._dense()]
        return torch.stack(areas), torch.stack([self._areas_squared(matrix).sum() for matrix in self._dense()])

    def _entry_sums(self, size: Callable[[Tensor], Tensor]) -> Tensor:
        sums = size(self.matrices).sum(-1)
        return sums.sum(-1) if self.d is None else size(self.d) @ sums[0]

    def _lost(self, s2: Tensor) -> Tensor | None:
        """(B,) whether all selected columns are so nearly parallel that S2 consists of rounding errors in diag(d) W.

        None if no product is formed.
        """
        if self.pairs is None or self.d is None:
            return None
        lengths = torch.linalg.vector_norm(self._dense().detach(), dim=1)
        whole = (lengths[:, self.pairs.first] * lengths[:, self.pairs.second]).square().sum(-1)
        return (s2 < ROUNDED * whole) & (s2 > 0) & ~self._exact

    @cached_property
    def _exact(self) -> Tensor:
        """(B,) whether diag(d) W needs no rounding: d consists of powers of two and zeros, or there is none."""
        if self.factors is None:
            return torch.ones(len(self.kept), dtype=torch.bool, device=self.given.device)
        return are_powers_of_two(self.factors)

    @property
    def _far(self) -> FarSums:
        return FarSums(self.kept, self.factors, self.k, self.pairs)

    def haar_s1(self) -> Tensor:
        """(B,) mean of S1 over random rotations of the rows, in closed form, in the units of :attr:`sums`; NaN if unknown."""
        m = self.kept.shape[1]
        s1, _, exponents = self.sums
        if self.k == m:
            return s1  # a single row set, whose minors no rotation changes
        low = self._near_sums[1].detach() < LEAST
        means = []
        for index, matrix in enumerate(self._dense()):
            if self.k == 1:
                columns, powers = extract_powers(matrix, (-2,))  # of each, whose squares stay in the range
                means.append(ldexp(torch.linalg.vector_norm(columns, dim=0), powers[0]).sum())  # whose gradient at 0 is 0
            elif low[index]:
                means.append(self._far.volumes(index, exponents[index]))
            else:
                areas = safe_sqrt(self._areas_squared(matrix))
                means.append(torch.where(self._is_rounding(index, matrix.detach(), areas.detach()), math.nan, areas.sum()))
        return math.comb(m, self.k) * haar_constant(m, self.k) * torch.stack(means)

    def _is_rounding(self, index: int, matrix: Tensor, areas: Tensor) -> Tensor:
        """() whether rounding errors of diag(d) W may affect the sum of the areas of its column pairs."""
        first, second = self._columns(matrix)
        lengths = torch.linalg.vector_norm(matrix, dim=0)
        whole = lengths[first] * lengths[second]
        near = areas.square() < ROUNDED * whole.square()
        return (areas.sum() < SHOWS * (whole * near).sum()) & ~self._exact[index]

    def _dense(self) -> Tensor:
        """(B, m, n) the full matrices."""
        return self.matrices if self.d is None else self.d[:, :, None] * self.matrices

    def _columns(self, matrix: Tensor) -> tuple[Tensor, Tensor]:
        return pair_indices(matrix.shape[1], matrix.device) if self.pairs is None else (self.pairs.first, self.pairs.second)

    def _areas_squared(self, matrix: Tensor) -> Tensor:
        """(pairs,) squared area spanned by each pair of columns: its S2."""
        return _pair_squares(matrix.mT, *self._columns(matrix))


def _pair_squares(lines: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """(P,) S2 of pairs of lines (L, n) from their Gram matrix, pair by pair where that cancels."""
    gram = lines @ lines.mT
    diagonal = gram.diagonal()
    whole = diagonal[first] * diagonal[second]
    squares = whole - gram[first, second].square()
    near = squares.detach() < NEARLY_PARALLEL * whole.detach()
    if not near.any():
        return squares
    return squares.index_put((near,), accurate_squares(lines, first[near], second[near]))


# -- reading what was given ------------------------------------------------------------------------------------------------------


def make_task(
    J: Tensor,
    k: int = 2,
    selection: Selection | str | None = None,
    *,
    d: Tensor | None = None,
    image_shape: Sequence[int] | None = None,
    positions: Any = None,
    groups: Any = None,
) -> Task:
    """Check arguments and make a task; they are those of :func:`log_participation_ratio`. Raises :class:`InputError`."""
    name = "J" if d is None else "W"
    largest = _check(J, name, (2, 3) if d is None else (2,))
    J = J.resolve_neg()
    m, n = J.shape[-2:]
    k = check_k(k, m, n)
    if k not in ORDERS:
        raise InputError(f"k={k}: derivatives are known for k = 1 and 2; kagscope.minor_moments gives values for any k")
    chosen, listed = as_selections(All() if selection is None else selection)
    if listed:
        raise InputError(f"selection is a list of {len(chosen)}; give one, and add what you need of several")
    pairs = None
    kept = J
    selection = chosen[0]
    layout = make_layout(n, image_shape, positions, groups)
    if selection == All():
        pass
    elif selection.clique or (k == 1 and not hasattr(selection, "subsets")):
        inside = selection.columns(layout)
        kept = J if inside.all() else J[..., torch.from_numpy(np.flatnonzero(inside)).to(J.device)]
    elif k == 1:
        kept = J[..., torch.from_numpy(cached_subsets((selection,), layout, 1).last).to(J.device)]
    else:
        listed_pairs = pairs_of(cached_subsets((selection,), layout, 2))
        pairs = Pairs(*(torch.from_numpy(np.ascontiguousarray(side, dtype=np.int64)).to(J.device) for side in listed_pairs))
    if kept is not J and kept.numel():
        largest = kept.detach().abs().amax((-2, -1)).reshape(-1).tolist()
    tops = [_top_exponent(size) for size in largest]
    batched = J.ndim == 3
    if not batched:
        kept = kept[None]
    if d is None:
        return Task(J, kept, None, k, pairs, batched, tops)
    sizes = _check(d, "d", (1, 2))
    if d.shape[-1] != m:
        raise InputError(f"d has shape {tuple(d.shape)}, expected ({m},) or (B, {m}): one factor for each row of W")
    return Task(J, kept, torch.atleast_2d(d.resolve_neg()), k, pairs, d.ndim == 2, tops, [_top_exponent(size) for size in sizes])


def _top_exponent(size: float) -> int:
    """Exponent of the power of two that normalises numbers up to ``size``; 0 if sums of fourth powers are well in range."""
    return 0 if NEAR_ONE < size < 1 / NEAR_ONE else math.frexp(size)[1]


def _check(value: Any, name: str, ranks: tuple[int, ...]) -> list[float]:
    """Check a tensor and return the largest |entry| of each matrix or vector in it."""
    if not isinstance(value, Tensor):
        raise InputError(
            f"{name} is {type(value).__name__}, expected a floating torch tensor; kagscope.minor_moments takes other arrays"
        )
    check_tensor(value, name)
    if value.dtype.itemsize < 2:
        raise InputError(f"{name} has dtype {value.dtype}, which has no derivatives; convert with {name}.float()")
    if value.ndim not in ranks or value.numel() == 0:
        expected = {2: "(m, n)", 3: "(B, m, n)", 1: "(m,)"} if ranks != (1, 2) else {1: "(m,)", 2: "(B, m)"}
        raise InputError(f"{name} has shape {tuple(value.shape)}, expected {' or '.join(expected[rank] for rank in ranks)}")
    largest: list[float] = value.detach().abs().amax((-1,) if min(ranks) == 1 else (-2, -1)).reshape(-1).tolist()
    if not all(map(math.isfinite, largest)):
        raise InputError(f"{name} holds entries that are NaN or infinite; minors need finite ones")
    return largest
