"""A control for penalties on geometry: the norm of the loss's gradient with respect to the input."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, mse_loss

NORMS = {"loss_gradient_l1": 1, "loss_gradient_l2": 2}


class InputGradientPenalty:
    """``weight`` times the mean norm of the loss's gradient with respect to single inputs (Drucker & LeCun 1992).

    With "loss_gradient_l1" and weight eps it is, to first order, the loss of an attack within Linf eps that learns from its
    points; with "loss_gradient_l2" within L2 eps. Unlike the log scores of :class:`kagscope.GeometryPenalty` it is the norm
    itself: its log would fall without end as a net grows sure of its answers.

    Args:
        model: from inputs (B, …) to logits (B, classes) or predictions.
        score: a name of ``NORMS``.
        weight: positive is towards smaller gradients.
        points: how many inputs of each batch, its first ones.
        squared_error: the loss is the mean squared error over outputs; else cross-entropy.
    """

    def __init__(self, model: nn.Module, score: str, weight: float, points: int, *, squared_error: bool = False) -> None:
        self.model, self.power, self.weight, self.points = model, NORMS[score], weight, points
        self.squared_error = squared_error

    def __call__(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        """The term for inputs and targets (probabilities of classes, or numbers), a 0-d tensor."""
        x, targets = (tensor[: self.points] for tensor in batch)
        x = x.detach().requires_grad_()
        outputs = self.model(x)
        if self.squared_error:
            losses = mse_loss(outputs, targets, reduction="none").flatten(1).mean(1)
        else:
            losses = cross_entropy(outputs, targets, reduction="none")
        (gradients,) = torch.autograd.grad(losses.sum(), x, create_graph=True)
        norms = cast(Tensor, torch.linalg.vector_norm(gradients.flatten(1), ord=self.power, dim=1))
        return self.weight * norms.mean()
