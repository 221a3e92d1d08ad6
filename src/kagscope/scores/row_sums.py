"""S1 and S2 of the 2-minors of diag(d) W over pairs of rows, with their closed derivatives (MATH.md 4.1, 4.3, 4.7 and 6).

S1 = sum over pairs of |d_i d_j| A_ij, S2 of d_i^2 d_j^2 B_ij: A from zonogons, of all pairs or of drawn ones, B from one Gram
matrix, or pair by pair where that cancels. One pass forwards and one back, in few large steps.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from kagscope.minors.haar import NEARLY_PARALLEL
from kagscope.scores.once import once
from kagscope.scores.pair_areas import add_area_gradient, areas_and_slopes
from kagscope.scores.pair_squares import pair_squares
from kagscope.scores.powers import scaled, times


@dataclass(frozen=True)
class Rows:
    """Row pairs that stand for all of them: (P,) int64 ``first`` and ``second``, and the (P,) ``weight`` of each in a sum."""

    first: Tensor
    second: Tensor
    weight: Tensor


@dataclass(frozen=True)
class RowPairs:
    """The row pairs of diag(d) W, with W and d over powers of two; what is here is without derivatives, but for :meth:`sums`.

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
    def factors(self) -> Tensor:
        """(B, m), d without its graph."""
        return self.lines.new_ones((1, len(self.W))) if self.d is None else self.d.detach()

    @cached_property
    def gram(self) -> Tensor:
        """(m, m)."""
        return self.lines @ self.lines.mT

    @cached_property
    def squares(self) -> Tensor:
        """(m, m) S2 of every row pair of the lines; 0 on the diagonal."""
        found = self._raw
        if self.near is None:
            return found
        i, j = self.near
        mended = careful_squares(self.lines, i, j)
        return found.index_put((i, j), mended).index_put((j, i), mended)

    @cached_property
    def near(self) -> tuple[Tensor, Tensor] | None:
        """Pairs i < j of nearly parallel rows, whose S2 the Gram matrix does not tell; None where there are none."""
        diagonal = self.gram.diagonal()
        near = self._raw < torch.outer(NEARLY_PARALLEL * diagonal, diagonal)
        near.fill_diagonal_(False)
        return torch.nonzero(near.triu_(1), as_tuple=True) if bool(near.any()) else None  # type: ignore[return-value]

    @cached_property
    def _raw(self) -> Tensor:
        diagonal = self.gram.diagonal()
        return torch.outer(diagonal, diagonal).addcmul_(self.gram, self.gram, value=-1).clamp_(min=0).fill_diagonal_(0.0)

    @cached_property
    def sizes(self) -> Tensor:
        """(m, m) sqrt(S2) of every row pair, times the sum of |d_i d_j|; each pair stands there twice."""
        d = self.factors.abs()
        return self.squares.sqrt() * (d.mT @ d)

    def draw(self, count: int, generator: torch.Generator) -> Rows:
        """Systematic draws of row pairs in proportion to sqrt(S2) of their minors, times |d_i d_j| on average.

        S1 of a pair over sqrt(S2) hardly varies, so that few pairs do (MATH.md 4.11).
        """
        m, sizes = len(self.sizes), self.sizes.flatten()
        running = sizes.cumsum(0)
        total = running[-1]
        where = (torch.arange(count, device=sizes.device) + torch.rand(1, generator=generator).to(sizes)) * (total / count)
        drawn = torch.searchsorted(running, where, right=True).clamp(max=m * m - 1)
        drawn = drawn[sizes[drawn] > 0]
        return Rows(drawn // m, drawn % m, total / (2 * count * sizes[drawn]))

    def sums(self, rows: Rows | None = None) -> tuple[Tensor, Tensor]:
        """(B,) S1 and S2; S1 from ``rows`` alone where given."""
        found: tuple[Tensor, Tensor] = _Sums.apply(self.W, self.d, self, rows)  # type: ignore[no-untyped-call]
        return found


class _Sums(torch.autograd.Function):
    """What :meth:`RowPairs.sums` gives."""

    @staticmethod
    def forward(ctx: Any, W: Tensor, d: Tensor | None, pairs: RowPairs, rows: Rows | None) -> tuple[Tensor, Tensor]:
        """Areas of the pairs, and quadratic forms in |d| and d^2."""
        ctx.pairs, ctx.rows = pairs, rows
        ctx.save_for_backward(W, d)
        first, second = ctx.places = every_pair(len(W), W.device) if rows is None else (rows.first, rows.second)
        areas, ctx.slopes = areas_and_slopes(pairs.lines, first, second, ctx.needs_input_grad[0])
        form = pairs.gram.new_zeros(pairs.gram.shape)
        form.index_put_((first, second), areas if rows is None else areas * rows.weight, accumulate=True)
        size, square = pairs.factors.abs(), pairs.factors.square()
        ctx.by_size, ctx.by_square = size @ (form + form.mT), square @ pairs.squares
        return 0.5 * (size * ctx.by_size).sum(-1), 0.5 * (square * ctx.by_square).sum(-1)

    @staticmethod
    def backward(ctx: Any, of_s1: Tensor, of_s2: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        """The derivative with respect to W and to d."""
        with torch.no_grad():
            found = _Sums._slopes(ctx, of_s1.detach(), of_s2.detach())
        W, d = ctx.saved_tensors
        toward_W, toward_d = (None if one is None else once(one, W, d, of_s1, of_s2) for one in found)
        return toward_W, toward_d, None, None

    @staticmethod
    def _slopes(ctx: Any, of_s1: Tensor, of_s2: Tensor) -> tuple[Tensor | None, Tensor | None]:
        pairs: RowPairs = ctx.pairs
        factors, toward_W, toward_d = pairs.factors, None, None
        if ctx.needs_input_grad[0]:
            size, square = factors.abs(), factors.square()
            toward_W = _of_squares(pairs, square.mT @ (of_s2[:, None] * square))
            first, second = ctx.places
            weights = (size.mT @ (of_s1[:, None] * size))[first, second]
            weights = weights if ctx.rows is None else weights * ctx.rows.weight
            add_area_gradient(pairs.lines, first, second, weights, ctx.slopes, toward_W)
        if ctx.needs_input_grad[1]:
            toward_d = of_s1[:, None] * factors.sign() * ctx.by_size + 2 * of_s2[:, None] * factors * ctx.by_square
        return toward_W, toward_d


def _of_squares(pairs: RowPairs, weights: Tensor) -> Tensor:
    """(m, n) derivative of the sum of ``weights``, (m, m) and symmetric, times the squares of the pairs i < j."""
    weights.fill_diagonal_(0.0)
    mended = None
    if pairs.near is not None:
        i, j = pairs.near
        with torch.enable_grad():
            lines = pairs.lines.clone().requires_grad_()
            (mended,) = torch.autograd.grad(careful_squares(lines, i, j), lines, weights[i, j])
        weights = weights.index_put((i, j), weights.new_zeros(())).index_put((j, i), weights.new_zeros(()))
    inner = weights * (-2 * pairs.gram)
    inner.diagonal().copy_(2 * (weights @ pairs.gram.diagonal()))
    found = inner @ pairs.lines
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
