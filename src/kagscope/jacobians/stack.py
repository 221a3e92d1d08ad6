"""Jacobians of the hidden layers of a feed-forward stack with respect to the input, exact and in float64.

Structure is carried by the type: a layer that is pointwise after affine gives ``J(x) = diag(d(x)) W`` with one ``W`` for all
points (:class:`FactoredJacobian`); a deeper one ``J(x) = diag(d(x)) A(x)``, one inner matrix per point (MATH.md section 4.7).
"""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from kagscope.base.errors import InputError
from kagscope.jacobians.forms import DeepJacobian, FactoredJacobian

StackJacobian = FactoredJacobian | DeepJacobian
POINTWISE = (nn.GELU, nn.ReLU, nn.Tanh, nn.SiLU, nn.Sigmoid, nn.Identity)


def hidden_layer_jacobians(model: nn.Sequential, inputs: torch.Tensor) -> dict[str, StackJacobian]:
    """Jacobians of every hidden layer (after its activation) with respect to the input.

    Args:
        model: ``nn.Sequential`` of Linear and pointwise activation modules in turn, ending with Linear; such a pair may be a
            block, an ``nn.Sequential`` of its own. It is not changed.
        inputs: (B, n) points.

    Returns:
        Layer name as in ``named_modules()`` (the activation's, or its block's) to its Jacobian, in forward order.

    Raises:
        InputError: the model is no such stack, or the inputs do not fit it.
    """
    stack = _affine_pointwise_pairs(model)
    _check_inputs(inputs, stack[0][1])
    found: dict[str, StackJacobian] = {}
    inner: list[tuple[np.ndarray, np.ndarray]] = []
    hidden = inputs.detach().double()
    first = d = None
    for name, linear, activation in stack:
        W = linear.weight.detach().double()
        bias = 0.0 if linear.bias is None else linear.bias.detach().double()
        hidden, slope = _value_and_slope(activation, hidden @ W.T + bias)
        if first is None or d is None:
            first = W.numpy()
            d = slope.numpy()
            found[name] = FactoredJacobian(d, first)
        else:
            inner.insert(0, (W.numpy(), d))
            d = slope.numpy()
            found[name] = DeepJacobian(d, tuple(inner), first)
    return found


def hidden_activations(model: nn.Sequential, inputs: torch.Tensor) -> dict[str, np.ndarray]:
    """Outputs of every hidden layer after its activation, (B, m) float64, by layer name."""
    found: dict[str, np.ndarray] = {}
    stack = _affine_pointwise_pairs(model)
    _check_inputs(inputs, stack[0][1])
    hidden = inputs.detach().double()
    for name, linear, activation in stack:
        bias = 0.0 if linear.bias is None else linear.bias.detach().double()
        hidden = activation(hidden @ linear.weight.detach().double().T + bias)
        found[name] = hidden.detach().numpy()
    return found


def output_slopes(model: nn.Sequential, inputs: torch.Tensor) -> dict[str, np.ndarray]:
    """Per hidden layer, the largest |d output / d unit| over the outputs, (B, m) float64: zero columns are units not felt."""
    stack = _affine_pointwise_pairs(model)
    jacobians = hidden_layer_jacobians(model, inputs)
    last = model[-1]
    assert isinstance(last, nn.Linear)
    back = np.broadcast_to(last.weight.detach().double().numpy(), (len(inputs), *last.weight.shape))
    found: dict[str, np.ndarray] = {}
    for index in range(len(stack) - 1, -1, -1):
        name, linear, _ = stack[index]
        found[name] = np.abs(back).max(axis=1)
        back = (back * jacobians[name].d[:, None, :]) @ linear.weight.detach().double().numpy()
    return {name: found[name] for name, _, _ in stack}


def _affine_pointwise_pairs(model: nn.Module) -> list[tuple[str, nn.Linear, nn.Module]]:
    """(name, Linear, activation) of every hidden layer: the name is that of the activation, or of the block of the two."""
    # not named_children(), which lists a module that is used twice only once
    modules: list[tuple[str, nn.Module]] = []
    for name, m in model._modules.items() if isinstance(model, nn.Sequential) else ():
        parts = m if isinstance(m, nn.Sequential) else [m]
        modules += [(name, part) for part in parts if part is not None]  # a block goes by its own name
    pairs: list[tuple[str, nn.Linear, nn.Module]] = []
    fits = len(modules) >= 3 and len(modules) % 2 == 1 and isinstance(modules[-1][1], nn.Linear)
    for (_, linear), (name, activation) in zip(modules[:-1:2], modules[1::2], strict=False):
        if isinstance(linear, nn.Linear) and isinstance(activation, POINTWISE):
            pairs.append((name, linear, activation))
        else:
            fits = False
    if not fits:
        kinds = ", ".join(type(module).__name__ for _, module in modules) or type(model).__name__
        raise InputError(f"expected nn.Sequential(Linear, activation, ..., Linear) with pointwise activations; got {kinds}")
    return pairs


def _check_inputs(inputs: torch.Tensor, first: nn.Linear) -> None:
    if inputs.ndim != 2 or inputs.shape[1] != first.in_features:
        raise InputError(f"inputs have shape {tuple(inputs.shape)}, expected (points, {first.in_features})")


def _value_and_slope(activation: nn.Module, z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """A pointwise function and its derivative at every entry; autograd of the sum gives each entry its own slope."""
    z = z.detach().requires_grad_(True)
    with torch.enable_grad():
        value = activation(z.clone())  # a copy, since the activation may work in place
        (slope,) = torch.autograd.grad(value.sum(), z)
    return value.detach(), slope
