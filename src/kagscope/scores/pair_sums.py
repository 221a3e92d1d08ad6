"""Differentiable S1 and S2 of pairs of lines: areas of zonogons (MATH.md section 6), and squared areas to full precision, even
where Gram matrices cancel (MATH.md 4.1).

On the CPU by the kernels of :mod:`kagscope.minors.routes`; on a device S1 in plain torch, while for S2 lines are copied to the
host. Both have first derivatives only, and raise an error if torch differentiates them again:
``torch.autograd.function.once_differentiable`` only cuts the graph, so that if another path leads to the same tensor, torch
follows that one alone, and its second derivatives are incomplete.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from kagscope.base.errors import InputError
from kagscope.minors.area_kernels import add_gradient, squares
from kagscope.minors.routes.torch_formulas import zonogon_areas
from kagscope.minors.routes.zonogon import pair_areas
from kagscope.minors.routes.zonogon_gradient import add_slopes, pair_area_gradient, pair_areas_and_slopes
from kagscope.minors.threads import map_blocks

KEPT_ENTRIES = 2**21  # vectors of row pairs whose derivatives are kept from the forward pass: 32 MiB
DEVICE_ENTRIES = 2**24  # vectors of row pairs sorted at a time on a device
BLOCK_ENTRIES = 100_000  # entries of lines in one piece of work


class _FirstDerivative(torch.autograd.Function):
    """Identity on a derivative, whose backward pass raises."""

    @staticmethod
    def forward(ctx: Any, derivative: Tensor, *sources: Tensor | None) -> Tensor:
        """Return the derivative unchanged."""
        return derivative.view_as(derivative)

    @staticmethod
    def backward(ctx: Any, *_: Tensor) -> Any:
        """Raise :class:`InputError`."""
        raise InputError(
            "scores of 2-minors have first derivatives only, and this asks for a second one (of a gradient taken with "
            "create_graph=True); leave the score out of that, or take k = 1 or alignment"
        )


def forbid_second_derivative(derivative: Tensor, *sources: Tensor | None) -> Tensor:
    """A derivative (without a graph) that cannot be differentiated again with respect to ``sources``."""
    if not torch.is_grad_enabled():
        return derivative
    result: Tensor = _FirstDerivative.apply(derivative, *sources)  # type: ignore[no-untyped-call]
    return result


class _PairAreas(torch.autograd.Function):
    """:func:`pair_areas_of` with its exact derivative."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, first: Tensor, second: Tensor) -> Tensor:
        """Sort, then take prefix sums."""
        areas, ctx.slopes = areas_and_slopes(rows.detach(), first, second, ctx.needs_input_grad[0])
        ctx.save_for_backward(rows, first, second)
        return areas

    @staticmethod
    def backward(ctx: Any, weights: Tensor) -> tuple[Tensor, None, None]:
        """Sort again unless all derivatives were kept."""
        rows, first, second = ctx.saved_tensors
        with torch.no_grad():
            gradient = torch.zeros_like(rows, memory_format=torch.contiguous_format)
            add_area_gradient(rows.detach(), first, second, weights.detach(), ctx.slopes, gradient)
        return forbid_second_derivative(gradient, rows, weights), None, None


def pair_areas_of(rows: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """(P,) S1 over all column pairs of the row pairs (first, second) of ``rows``, (m, n) float64; differentiable."""
    areas: Tensor = _PairAreas.apply(rows, first, second)  # type: ignore[no-untyped-call]
    return areas


def areas_and_slopes(rows: Tensor, first: Tensor, second: Tensor, slopes: bool) -> tuple[Tensor, np.ndarray | None]:
    """:func:`pair_areas_of` without a graph; with ``slopes`` also the derivatives of every pair, if they fit."""
    if rows.device.type != "cpu":
        return areas_on_device(rows, first, second), None
    arrays = rows.numpy(), first.numpy(), second.numpy()
    if not slopes or len(first) * rows.shape[1] > KEPT_ENTRIES:
        return torch.from_numpy(pair_areas(*arrays)), None
    areas, kept = pair_areas_and_slopes(*arrays)
    return torch.from_numpy(areas), kept


def add_area_gradient(
    rows: Tensor, first: Tensor, second: Tensor, weights: Tensor, slopes: np.ndarray | None, gradient: Tensor
) -> None:
    """Add the derivative of ``weights`` times the areas to ``gradient`` (m, n), contiguous, using slopes if they were kept."""
    if rows.device.type != "cpu":
        gradient += gradient_on_device(rows, first, second, weights)
        return
    i, j, w = first.numpy(), second.numpy(), weights.contiguous().numpy()
    if slopes is None:
        gradient += torch.from_numpy(pair_area_gradient(rows.numpy(), i, j, w))
    else:
        add_slopes(slopes, i, j, w, gradient.numpy())


def _sort_by_slope(rows: Tensor, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Vectors (P, n) of row pairs, flipped and sorted by slope; their columns; and the signs of the flips in that order."""
    x, y = rows[first], rows[second]
    flip = torch.where((x < 0) | ((x == 0) & (y < 0)), -1.0, 1.0).to(rows)
    x, y = x * flip, y * flip
    size = x + y.abs()
    order = torch.sort(torch.where(size > 0, y / torch.where(size > 0, size, 1.0), 2.0), dim=-1, stable=True).indices
    return x.gather(-1, order), y.gather(-1, order), order, flip.gather(-1, order)


def areas_on_device(rows: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """The areas in plain torch, for any device."""
    chunks = [zonogon_areas(rows[i], rows[j])[0] for i, j in _pair_chunks(rows, first, second)]
    return torch.cat(chunks) if chunks else rows.new_zeros(0)


def gradient_on_device(rows: Tensor, first: Tensor, second: Tensor, weights: Tensor) -> Tensor:
    """The derivative of ``weights`` times the areas in plain torch, for any device."""
    gradient = torch.zeros_like(rows)
    start = 0
    for i, j in _pair_chunks(rows, first, second):
        w = weights[start : start + len(i), None]
        start += len(i)
        x, y, order, flip = _sort_by_slope(rows, i, j)
        signed_weights = flip * w * ((x != 0) | (y != 0))
        dx = signed_weights * (y.sum(-1, keepdim=True) - 2 * y.cumsum(-1) + y)
        dy = signed_weights * (2 * x.cumsum(-1) - x - x.sum(-1, keepdim=True))
        for side, values in ((i, dx), (j, dy)):
            gradient.index_add_(0, side, torch.zeros_like(values).scatter_(-1, order, values))
    return gradient


def _pair_chunks(rows: Tensor, first: Tensor, second: Tensor) -> list[tuple[Tensor, Tensor]]:
    size = max(1, DEVICE_ENTRIES // max(rows.shape[1], 1))
    return list(zip(first.split(size), second.split(size), strict=True)) if len(first) else []


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
