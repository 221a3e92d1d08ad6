"""Derivatives that say so where torch would differentiate them again.

``torch.autograd.function.once_differentiable`` only cuts the graph: where another way leads to the same tensor, torch takes
that alone, and gives second derivatives that lack a part.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from kagscope.base.errors import InputError


class _Once(torch.autograd.Function):
    """A derivative, with a way to what it was found from that raises when it is taken."""

    @staticmethod
    def forward(ctx: Any, derivative: Tensor, *found_from: Tensor | None) -> Tensor:
        """The derivative as it is."""
        return derivative.view_as(derivative)

    @staticmethod
    def backward(ctx: Any, *_: Tensor) -> Any:
        """Refuses."""
        raise InputError(
            "scores of 2-minors have first derivatives only, and this asks for a second one (of a gradient taken with "
            "create_graph=True); leave the score out of that, or take k = 1 or alignment"
        )


def once(derivative: Tensor, *found_from: Tensor | None) -> Tensor:
    """The derivative (without a graph), which cannot be differentiated again with respect to what it was ``found_from``."""
    if not torch.is_grad_enabled():
        return derivative
    found: Tensor = _Once.apply(derivative, *found_from)  # type: ignore[no-untyped-call]
    return found
