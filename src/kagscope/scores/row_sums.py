"""S1 and S2 of the 2-minors of diag(d) W over pairs of rows, with their closed derivatives (MATH.md 4.1, 4.3, 4.7 and 6).

S1 = sum over pairs of |d_i d_j| A_ij, S2 of d_i^2 d_j^2 B_ij: A from zonogons, of all pairs or of drawn ones, B from one Gram
matrix, or pair by pair where that cancels. One pass forwards and one back, in few large steps.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kagscope.minors import row_pairs as kernels
from kagscope.minors.haar import NEARLY_PARALLEL
from kagscope.scores.once import once
from kagscope.scores.pair_areas import add_area_gradient, areas_and_slopes
from kagscope.scores.pair_squares import pair_squares
from kagscope.scores.powers import scaled, times

FloatArray = NDArray[np.float64]
IndexArray = NDArray[np.int64]
_NONE = np.empty(0, dtype=np.int64)


@dataclass(frozen=True)
class Rows:
    """Row pairs that stand for all of them: (P,) int64 ``first`` and ``second``, and the (P,) ``weight`` of each in a sum."""

    first: IndexArray
    second: IndexArray
    weight: FloatArray


@dataclass(frozen=True)
class RowPairs:
    """The row pairs of diag(d) W, with W and d over powers of two; what is here is without derivatives, but for :meth:`sums`.

    What there is for every row or pair lies on the host, what has the size of W where W does.

    Attributes:
        W: (m, n) float64.
        d: (B, m) float64; None for W itself.
    """

    W: Tensor
    d: Tensor | None

    @cached_property
    def lines(self) -> Tensor:
        """(m, n), W without its graph."""
        return self.W.detach()

    @cached_property
    def factors(self) -> FloatArray:
        """(B, m), d without its graph."""
        return np.ones((1, len(self.W))) if self.d is None else _numbers(self.d.detach())

    @cached_property
    def gram(self) -> FloatArray:
        """(m, m)."""
        return _numbers(self.lines @ self.lines.mT)

    @cached_property
    def squares(self) -> FloatArray:
        """(m, m) S2 of every row pair of the lines; 0 on the diagonal."""
        return self._squares_and_near[0]

    @cached_property
    def near(self) -> tuple[IndexArray, IndexArray]:
        """Pairs i > j of nearly parallel rows, whose S2 the Gram matrix does not tell."""
        return self._squares_and_near[1]

    @cached_property
    def _squares_and_near(self) -> tuple[FloatArray, tuple[IndexArray, IndexArray]]:
        squares, diagonal = np.empty_like(self.gram), self.gram.diagonal()
        if not kernels.row_squares(self.gram, NEARLY_PARALLEL, squares):
            return squares, (_NONE, _NONE)
        i, j = np.nonzero(np.tril(squares < NEARLY_PARALLEL * np.outer(diagonal, diagonal), -1))
        squares[i, j] = squares[j, i] = _numbers(careful_squares(self.lines, *self._places(i, j)))
        return squares, (i, j)

    def draw(self, count: int, generator: torch.Generator) -> Rows:
        """Systematic draws of row pairs in proportion to sqrt(S2) of their minors, times |d_i d_j| on average.

        S1 of a pair over sqrt(S2) hardly varies, so that few pairs do (MATH.md 4.11).
        """
        first, second = np.empty((2, count), dtype=np.int64)
        weights = np.empty(count)
        offset = torch.rand(1, generator=generator).item()
        drawn = kernels.draw_pairs(self.squares, self.factors, offset, first, second, weights)
        return Rows(first[:drawn], second[:drawn], weights[:drawn])

    def sums(self, rows: Rows | None = None) -> tuple[Tensor, Tensor]:
        """(B,) S1 and S2; S1 from ``rows`` alone where given."""
        found: tuple[Tensor, Tensor] = _Sums.apply(self.W, self.d, self, rows)  # type: ignore[no-untyped-call]
        return found

    def _places(self, first: IndexArray, second: IndexArray) -> tuple[Tensor, Tensor]:
        """Indices where the lines are."""
        return torch.from_numpy(first).to(self.W.device), torch.from_numpy(second).to(self.W.device)


class _Sums(torch.autograd.Function):
    """What :meth:`RowPairs.sums` gives."""

    @staticmethod
    def forward(ctx: Any, W: Tensor, d: Tensor | None, pairs: RowPairs, rows: Rows | None) -> tuple[Tensor, Tensor]:
        """Areas of the pairs, and quadratic forms in |d| and d^2."""
        ctx.pairs, ctx.rows = pairs, rows
        ctx.save_for_backward(W, d)
        ctx.first, ctx.second = np.triu_indices(len(W), 1) if rows is None else (rows.first, rows.second)
        areas, ctx.slopes = areas_and_slopes(pairs.lines, *pairs._places(ctx.first, ctx.second), ctx.needs_input_grad[0])
        weighted = _numbers(areas) if rows is None else _numbers(areas) * rows.weight
        factors = pairs.factors
        ctx.by_size, ctx.by_square = np.empty_like(factors), np.empty_like(factors)
        s1, s2 = np.empty((2, len(factors)))
        kernels.row_sums(weighted, ctx.first, ctx.second, pairs.squares, factors, ctx.by_size, ctx.by_square, s1, s2)
        return torch.from_numpy(s1).to(W.device), torch.from_numpy(s2).to(W.device)

    @staticmethod
    def backward(ctx: Any, of_s1: Tensor, of_s2: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        """The derivative with respect to W and to d."""
        with torch.no_grad():
            found = _Sums._slopes(ctx, _numbers(of_s1.detach()), _numbers(of_s2.detach()))
        W, d = ctx.saved_tensors
        toward_W, toward_d = (None if one is None else once(one, W, d, of_s1, of_s2) for one in found)
        return toward_W, toward_d, None, None

    @staticmethod
    def _slopes(ctx: Any, of_s1: FloatArray, of_s2: FloatArray) -> tuple[Tensor | None, Tensor | None]:
        pairs: RowPairs = ctx.pairs
        factors, toward_W, toward_d = pairs.factors, None, None
        if ctx.needs_input_grad[0]:
            weights = np.empty_like(pairs.gram)
            kernels.square_weights(of_s2, factors, weights)
            toward_W = _of_squares(pairs, weights)
            weights = np.empty(len(ctx.first))
            kernels.area_weights(of_s1, factors, ctx.first, ctx.second, weights)
            of_areas = torch.from_numpy(weights if ctx.rows is None else weights * ctx.rows.weight).to(toward_W.device)
            add_area_gradient(pairs.lines, *pairs._places(ctx.first, ctx.second), of_areas, ctx.slopes, toward_W)
        if ctx.needs_input_grad[1]:
            slopes = np.empty_like(factors)
            kernels.toward_factors(of_s1, of_s2, factors, ctx.by_size, ctx.by_square, slopes)
            toward_d = torch.from_numpy(slopes).to(pairs.W.device)
        return toward_W, toward_d


def _numbers(values: Tensor) -> Any:
    return values.cpu().numpy()


def _of_squares(pairs: RowPairs, weights: FloatArray) -> Tensor:
    """(m, n) derivative of the sum of ``weights``, (m, m) and symmetric, times the squares of the pairs i < j."""
    mended = None
    i, j = pairs.near
    if i.size:
        with torch.enable_grad():
            lines = pairs.lines.clone().requires_grad_()
            of_near = torch.from_numpy(weights[i, j]).to(lines)
            (mended,) = torch.autograd.grad(careful_squares(lines, *pairs._places(i, j)), lines, of_near)
        weights[i, j] = weights[j, i] = 0.0
    kernels.toward_rows(weights, pairs.gram)
    found = torch.from_numpy(weights).to(pairs.lines) @ pairs.lines
    return found if mended is None else found + mended


def careful_squares(lines: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """(P,) S2 of pairs of lines (L, n), none of which cancels."""
    even, exponents = scaled(lines, (-1,))
    values, powers = pair_squares(even, first, second)
    return times(values, 2 * (powers + exponents[first, 0] + exponents[second, 0]))


def every_pair(m: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """(m (m - 1) / 2,) indices i < j."""
    first, second = torch.triu_indices(m, m, 1, device=device)
    return first, second
