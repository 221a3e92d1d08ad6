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

from kagscope.minors.haar import NEARLY_PARALLEL
from kagscope.minors.threads import one_blas_thread
from kagscope.scores.pair_sums import add_area_gradient, areas_and_slopes, forbid_second_derivative, pair_squares
from kagscope.scores.powers import extract_powers, ldexp

FloatArray = NDArray[np.float64]
IndexArray = NDArray[np.int64]
_NONE = np.empty(0, dtype=np.int64)


@dataclass(frozen=True)
class RowPairSample:
    """Weighted sample of row pairs: (P,) int64 ``first`` and ``second``, and the (P,) ``weight`` of each in a sum."""

    first: IndexArray
    second: IndexArray
    weight: FloatArray


@dataclass(frozen=True)
class RowPairs:
    """Row pairs of diag(d) W, with W and d normalised by powers of two; only :meth:`sums` is differentiable.

    Arrays over rows or pairs are on the host; arrays of the size of W are on W's device.

    Attributes:
        W: (m, n) float64.
        d: (B, m) float64; None for W itself.
    """

    W: Tensor
    d: Tensor | None

    @cached_property
    def lines(self) -> Tensor:
        """(m, n) W without its graph."""
        return self.W.detach()

    @cached_property
    def factors(self) -> FloatArray:
        """(B, m) d without its graph."""
        return np.ones((1, len(self.W))) if self.d is None else _to_numpy(self.d.detach())

    @cached_property
    def gram(self) -> FloatArray:
        """(m, m)."""
        return _to_numpy(self.lines @ self.lines.mT)

    @cached_property
    def squares(self) -> FloatArray:
        """(m, m) S2 of every row pair of the lines; 0 on the diagonal."""
        return self._squares_and_near[0]

    @cached_property
    def near(self) -> tuple[IndexArray, IndexArray]:
        """Pairs i > j of nearly parallel rows, whose S2 cannot be computed from the Gram matrix."""
        return self._squares_and_near[1]

    @cached_property
    def _squares_and_near(self) -> tuple[FloatArray, tuple[IndexArray, IndexArray]]:
        whole = np.outer(self.gram.diagonal(), self.gram.diagonal())
        squares = np.maximum(whole - self.gram * self.gram, 0.0)
        near = squares < NEARLY_PARALLEL * whole
        np.fill_diagonal(near, False)
        i, j = np.nonzero(np.tril(near)) if near.any() else (_NONE, _NONE)
        if i.size:
            squares[i, j] = squares[j, i] = _to_numpy(accurate_squares(self.lines, *self._device_indices(i, j)))
        return squares, (i, j)

    def draw(self, count: int, generator: torch.Generator) -> RowPairSample:
        """Draw row pairs systematically, in proportion to sqrt(S2) of their minors times the mean |d_i d_j|.

        S1 / sqrt(S2) hardly varies between pairs, so that few pairs suffice (MATH.md 4.11).
        """
        sizes = np.abs(self.factors)
        with one_blas_thread():
            chance = (np.sqrt(self.squares) * (sizes.T @ sizes)).ravel()  # each pair twice
        running = np.cumsum(chance)
        targets = (np.arange(count) + torch.rand(1, generator=generator).item()) * (running[-1] / count)
        places = np.minimum(np.searchsorted(running, targets, side="right"), len(running) - 1)
        places = places[chance[places] > 0]
        first, second = np.divmod(places, len(self.squares))
        return RowPairSample(first, second, running[-1] / (2 * count * chance[places]))

    def sums(self, rows: RowPairSample | None = None) -> tuple[Tensor, Tensor]:
        """(B,) S1 and S2; S1 is estimated from ``rows`` if given."""
        result: tuple[Tensor, Tensor] = _Sums.apply(self.W, self.d, self, rows)  # type: ignore[no-untyped-call]
        return result

    def _device_indices(self, first: IndexArray, second: IndexArray) -> tuple[Tensor, Tensor]:
        """Indices on the device of the lines."""
        return torch.from_numpy(first).to(self.W.device), torch.from_numpy(second).to(self.W.device)


class _Sums(torch.autograd.Function):
    """:meth:`RowPairs.sums` with its exact derivative."""

    @staticmethod
    def forward(ctx: Any, W: Tensor, d: Tensor | None, pairs: RowPairs, rows: RowPairSample | None) -> tuple[Tensor, Tensor]:
        """Areas of the pairs, and quadratic forms in |d| and d^2."""
        ctx.pairs, ctx.rows = pairs, rows
        ctx.save_for_backward(W, d)
        ctx.first, ctx.second = np.triu_indices(len(W), 1) if rows is None else (rows.first, rows.second)
        areas, ctx.slopes = areas_and_slopes(pairs.lines, *pairs._device_indices(ctx.first, ctx.second), ctx.needs_input_grad[0])
        weighted = _to_numpy(areas) if rows is None else _to_numpy(areas) * rows.weight
        m, sizes = len(W), np.abs(pairs.factors)
        matrix = np.bincount(ctx.first * m + ctx.second, weighted, m * m).reshape(m, m)
        with one_blas_thread():
            ctx.by_size, ctx.by_square = sizes @ (matrix + matrix.T), sizes**2 @ pairs.squares
        s1, s2 = (0.5 * (powers * by_row).sum(axis=1) for powers, by_row in ((sizes, ctx.by_size), (sizes**2, ctx.by_square)))
        return torch.from_numpy(s1).to(W.device), torch.from_numpy(s2).to(W.device)

    @staticmethod
    def backward(ctx: Any, of_s1: Tensor, of_s2: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        """The derivative with respect to W and to d."""
        with torch.no_grad():
            gradients = _Sums._gradients(ctx, _to_numpy(of_s1.detach()), _to_numpy(of_s2.detach()))
        W, d = ctx.saved_tensors
        toward_W, toward_d = (None if g is None else forbid_second_derivative(g, W, d, of_s1, of_s2) for g in gradients)
        return toward_W, toward_d, None, None

    @staticmethod
    def _gradients(ctx: Any, of_s1: FloatArray, of_s2: FloatArray) -> tuple[Tensor | None, Tensor | None]:
        pairs: RowPairs = ctx.pairs
        d, toward_W, toward_d = pairs.factors, None, None
        if ctx.needs_input_grad[0]:
            squares, sizes = d**2, np.abs(d)
            with one_blas_thread():
                of_squares, of_pairs = (of_s2[:, None] * squares).T @ squares, (of_s1[:, None] * sizes).T @ sizes
            toward_W, weights = _square_gradient(pairs, of_squares), of_pairs[ctx.first, ctx.second]
            of_areas = torch.from_numpy(weights if ctx.rows is None else weights * ctx.rows.weight).to(toward_W.device)
            add_area_gradient(pairs.lines, *pairs._device_indices(ctx.first, ctx.second), of_areas, ctx.slopes, toward_W)
        if ctx.needs_input_grad[1]:
            slopes = of_s1[:, None] * np.sign(d) * ctx.by_size + 2.0 * of_s2[:, None] * d * ctx.by_square
            toward_d = torch.from_numpy(slopes).to(pairs.W.device)
        return toward_W, toward_d


def _to_numpy(values: Tensor) -> Any:
    return values.cpu().numpy()


def _square_gradient(pairs: RowPairs, weights: FloatArray) -> Tensor:
    """(m, n) derivative of the squares of the pairs i < j, weighted by the symmetric ``weights`` (m, m)."""
    near_gradient = None
    i, j = pairs.near
    if i.size:
        with torch.enable_grad():
            lines = pairs.lines.clone().requires_grad_()
            of_near = torch.from_numpy(weights[i, j]).to(lines)
            (near_gradient,) = torch.autograd.grad(accurate_squares(lines, *pairs._device_indices(i, j)), lines, of_near)
        weights[i, j] = weights[j, i] = 0.0
    np.fill_diagonal(weights, 0.0)
    toward_rows = -2.0 * weights * pairs.gram
    with one_blas_thread():
        np.fill_diagonal(toward_rows, 2.0 * weights @ pairs.gram.diagonal())
    gradient = torch.from_numpy(toward_rows).to(pairs.lines) @ pairs.lines
    return gradient if near_gradient is None else gradient + near_gradient


def accurate_squares(lines: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """(P,) S2 of pairs of lines (L, n), without cancellation."""
    even, exponents = extract_powers(lines, (-1,))
    values, powers = pair_squares(even, first, second)
    return ldexp(values, 2 * (powers + exponents[first, 0] + exponents[second, 0]))


def pair_indices(m: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """(m (m - 1) / 2,) indices i < j."""
    first, second = torch.triu_indices(m, m, 1, device=device)
    return first, second
