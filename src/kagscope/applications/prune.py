"""Removing locally constant units: the next layer's bias takes up their value, the function stays (MATH.md, claim 6)."""

from __future__ import annotations

from collections import OrderedDict
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
        InputError: a layer, mask or inputs that do not fit the model.
    """
    linears = [module for module in model if isinstance(module, nn.Linear)]
    if linears and (inputs.ndim != 2 or inputs.shape[1] != linears[0].in_features):
        raise InputError(f"inputs have shape {tuple(inputs.shape)}, expected (points, {linears[0].in_features})")
    if len(inputs) == 0:
        raise InputError("inputs hold no point; give at least one over which the units are constant")
    activations = hidden_activations(model, inputs)
    unknown = set(units) - set(activations)
    if unknown:
        raise InputError(f"no hidden layer {sorted(unknown)}; the model has {sorted(activations)}")
    names = list(activations)
    # Not named_children(): it lists a module that is used twice, such as one activation for all layers, only once.
    layer_names = [name for name, _ in model.named_modules(remove_duplicate=False) if name and "." not in name]
    pointwise = [module for module in model if not isinstance(module, nn.Linear)]
    weights = [layer.weight.detach().double().clone() for layer in linears]
    biases = [_bias(layer) for layer in linears]
    removed: dict[str, tuple[int, ...]] = {}
    for index, name in enumerate(names):
        mask = np.array(units.get(name, np.zeros(len(weights[index]), bool)))
        if mask.shape != (len(weights[index]),):
            raise InputError(f"mask for layer {name!r} has shape {mask.shape}, expected ({len(weights[index])},)")
        if mask.dtype != bool:  # indices would be taken for truth values
            raise InputError(f"mask for layer {name!r} holds {mask.dtype}, expected bool: True where a unit goes")
        if mask.all():
            mask[0] = False
        gone, kept = torch.from_numpy(mask), torch.from_numpy(~mask)
        constant = torch.from_numpy(activations[name].mean(axis=0))
        biases[index + 1] += weights[index + 1][:, gone] @ constant[gone]
        weights[index], biases[index] = weights[index][kept], biases[index][kept]
        weights[index + 1] = weights[index + 1][:, kept]
        removed[name] = tuple(int(unit) for unit in np.flatnonzero(mask))
    dtype = linears[0].weight.dtype
    smaller = _stack(layer_names, weights, biases, pointwise, dtype)
    return smaller, Pruning(removed, _relative_change(model, smaller, inputs.to(dtype)))


def _bias(layer: nn.Linear) -> torch.Tensor:
    """A copy of the bias, (m,) float64; zeros where the layer has none, since folding needs somewhere to go."""
    zeros = torch.zeros(layer.out_features, dtype=torch.float64)
    return zeros if layer.bias is None else layer.bias.detach().double().clone()


def _stack(
    names: list[str],
    weights: list[torch.Tensor],
    biases: list[torch.Tensor],
    pointwise: list[nn.Module],
    dtype: torch.dtype,
) -> nn.Sequential:
    """Linear and pointwise modules in turn under the given names, those of the model they replace."""
    modules: list[nn.Module] = []
    for index, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
        linear = nn.Linear(weight.shape[1], weight.shape[0], device="meta", dtype=dtype).to_empty(device="cpu")  # draws nothing
        with torch.no_grad():
            linear.weight.copy_(weight)
            linear.bias.copy_(bias)
        modules.append(linear)
        if index < len(pointwise):
            modules.append(pointwise[index])
    return nn.Sequential(OrderedDict(zip(names, modules, strict=True)))


def _relative_change(before: nn.Module, after: nn.Module, inputs: torch.Tensor) -> float:
    with torch.no_grad():
        old, new = before(inputs), after(inputs)
    return float((old - new).abs().max() / old.abs().max().clamp_min(torch.finfo(old.dtype).tiny))
