"""Removing locally constant units: the next layer's bias takes up their value, the function stays (MATH.md, claim 6)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from kagscope.errors import InputError
from kagscope.jacobians import hidden_activations


@dataclass(frozen=True)
class Pruning:
    """What was removed and what it changed.

    Attributes:
        removed: layer name to the indices of its removed units.
        largest_change: largest absolute change of an output over the inputs, relative to the largest absolute output.
    """

    removed: dict[str, tuple[int, ...]]
    largest_change: float


def remove_units(model: nn.Sequential, inputs: torch.Tensor, units: Mapping[str, np.ndarray]) -> tuple[nn.Sequential, Pruning]:
    """A smaller copy of a Linear-activation stack without the given units.

    Each unit is taken to be constant: its mean activation over ``inputs`` times its outgoing weights goes into the next
    layer's bias. One unit per layer is kept if all were named, since a layer of no units is no layer.

    Args:
        model: ``nn.Sequential`` of Linear and pointwise activations in turn; not changed.
        inputs: (B, n) points over which the units are constant.
        units: layer name to a boolean mask (m,) of the units to remove.

    Returns:
        The smaller model, in the dtype of ``model``, and a :class:`Pruning`.

    Raises:
        InputError: a layer or mask that does not fit the model.
    """
    activations = hidden_activations(model, inputs)
    unknown = set(units) - set(activations)
    if unknown:
        raise InputError(f"no hidden layer {sorted(unknown)}; the model has {sorted(activations)}")
    names = list(activations)
    linears = [module for module in model if isinstance(module, nn.Linear)]
    pointwise = [module for module in model if not isinstance(module, nn.Linear)]
    weights = [layer.weight.detach().double().clone() for layer in linears]
    biases = [_bias(layer) for layer in linears]
    removed: dict[str, tuple[int, ...]] = {}
    for index, name in enumerate(names):
        mask = np.array(units.get(name, np.zeros(len(weights[index]), bool)), dtype=bool)
        if mask.shape != (len(weights[index]),):
            raise InputError(f"mask for layer {name!r} has shape {mask.shape}, expected ({len(weights[index])},)")
        if mask.all():
            mask[0] = False
        gone, kept = torch.from_numpy(mask), torch.from_numpy(~mask)
        constant = torch.from_numpy(activations[name].mean(axis=0))
        biases[index + 1] += weights[index + 1][:, gone] @ constant[gone]
        weights[index], biases[index] = weights[index][kept], biases[index][kept]
        weights[index + 1] = weights[index + 1][:, kept]
        removed[name] = tuple(int(unit) for unit in np.flatnonzero(mask))
    smaller = _stack(weights, biases, pointwise, linears[0].weight.dtype)
    return smaller, Pruning(removed, _relative_change(model, smaller, inputs))


def _bias(layer: nn.Linear) -> torch.Tensor:
    """A copy of the bias, (m,) float64; zeros where the layer has none, since folding needs somewhere to go."""
    zeros = torch.zeros(layer.out_features, dtype=torch.float64)
    return zeros if layer.bias is None else layer.bias.detach().double().clone()


def _stack(
    weights: list[torch.Tensor], biases: list[torch.Tensor], pointwise: list[nn.Module], dtype: torch.dtype
) -> nn.Sequential:
    modules: list[nn.Module] = []
    for index, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
        linear = nn.Linear(weight.shape[1], weight.shape[0], device="meta", dtype=dtype).to_empty(device="cpu")  # draws nothing
        with torch.no_grad():
            linear.weight.copy_(weight)
            linear.bias.copy_(bias)
        modules.append(linear)
        if index < len(pointwise):
            modules.append(pointwise[index])
    return nn.Sequential(*modules)


def _relative_change(before: nn.Module, after: nn.Module, inputs: torch.Tensor) -> float:
    with torch.no_grad():
        old, new = before(inputs), after(inputs)
    return float((old - new).abs().max() / old.abs().max().clamp_min(torch.finfo(old.dtype).tiny))
