"""First derivatives that raise an error if torch differentiates them again.

``torch.autograd.function.once_differentiable`` only cuts the graph: if another path leads to the same tensor, torch follows
that one alone, and its second derivatives are incomplete.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from kagscope.base.errors import InputError


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
