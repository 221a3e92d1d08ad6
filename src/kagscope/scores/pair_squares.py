"""Differentiable S2 of pairs of lines, to full precision even where Gram matrices cancel (MATH.md 4.1).

It uses the kernels of :mod:`kagscope.minors.routes.square_kernels`; lines on a device are copied to the host.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from kagscope.minors.routes.square_kernels import add_gradient, squares
from kagscope.minors.threads import map_blocks
from kagscope.scores.once import forbid_second_derivative

BLOCK_ENTRIES = 100_000  # entries of lines in one piece of work


class _PairSquares(torch.autograd.Function):
    """:func:`pair_squares` with its exact derivative."""

    @staticmethod
    def forward(ctx: Any, lines: Tensor, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
        """Compute S2 pair by pair."""
        X, i, j = (np.ascontiguousarray(tensor.detach().cpu().numpy()) for tensor in (lines, first, second))
        values, powers = np.zeros(len(i)), np.zeros(len(i), dtype=np.int64)

        def work(block: slice) -> None:
            squares(X, i[block], j[block], values[block], powers[block])

        map_blocks(work, len(i), max(1, BLOCK_ENTRIES // X.shape[1]))
        ctx.save_for_backward(lines, first, second)
        results = torch.from_numpy(values).to(lines.device), torch.from_numpy(powers).to(lines.device)
        ctx.mark_non_differentiable(results[1])
        return results

    @staticmethod
    def backward(ctx: Any, weights: Tensor, _: Tensor) -> tuple[Tensor, None, None]:
        """Accumulate in the order of the pairs, whatever the number of threads."""
        X, i, j, w = (np.ascontiguousarray(tensor.detach().cpu().numpy()) for tensor in (*ctx.saved_tensors, weights))
        gradient = np.zeros(X.shape)
        add_gradient(X, i, j, w, gradient)
        return forbid_second_derivative(torch.from_numpy(gradient).to(weights.device), ctx.saved_tensors[0], weights), None, None


def pair_squares(lines: Tensor, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """S2 of pairs of lines as values times 4^powers; differentiable, the powers held fixed.

    Args:
        lines: (L, n) float64, each zero or with its largest entry in [1/2, 1).
        first, second: (P,) int64 indices.

    Returns:
        (P,) float64 values and (P,) int64 powers. A value is 0 if the two are parallel, else between about 1/4 and n^2.
    """
    result: tuple[Tensor, Tensor] = _PairSquares.apply(lines, first, second)  # type: ignore[no-untyped-call]
    return result
