"""Remove units: fold their value into the next layer's bias and delete their rows and columns (MATH.md, claim 6)."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from kagscope.base.messages import one_line
from kagscope.jacobians.inputs import Inputs
from kagscope.pruning.constant import Observation, layer_input, replace_input
from kagscope.pruning.recorder import Recording, forward, is_metadata, name_of, outputs
from kagscope.pruning.units import Layer, Reader, UnitGroup, Weight

SIZES = {  # attributes with the numbers of units that modules make or read
    "made": ("out_features", "out_channels", "num_features", "num_parameters", "nf"),
    "read": ("in_features", "in_channels", "nx"),
}


@dataclass(frozen=True)
class Cut:
    """Units of one group to be removed: ``gone`` (m,) bool, and for each reader the constants (units * width,) to fold."""

    group: UnitGroup
    gone: np.ndarray
    constants: tuple[np.ndarray, ...]

    @classmethod
    def of(cls, group: UnitGroup, gone: np.ndarray, observation: Observation) -> Cut:
        return cls(group, gone, tuple(value_range.mean for value_range in observation.ranges))


def remove_cuts(model: nn.Module, cuts: Sequence[Cut]) -> nn.Module:
    """Return a copy of ``model`` without the units of ``cuts``."""
    smaller = copy.deepcopy(model)
    modules = dict(smaller.named_modules())
    for cut in cuts:
        if cut.gone.any():
            _remove_units(modules, cut)
    return smaller


def _remove_units(modules: Mapping[str, nn.Module], cut: Cut) -> None:
    kept = torch.from_numpy(np.flatnonzero(~cut.gone))
    for layer in cut.group.makers:
        _shrink(modules, layer.weight, kept, 1 if layer.kind == "addmm" else 0, "made")
        if layer.bias is not None:
            _shrink(modules, layer.bias, kept, 0, "made")
    for weight in cut.group.per_unit:
        _shrink(modules, weight, kept, 0, "made")
    for reader, constants in zip(cut.group.readers, cut.constants, strict=True):
        gone = np.repeat(cut.gone, reader.width)
        _fold(modules, reader, gone, constants)
        _shrink(modules, reader.layer.weight, torch.from_numpy(np.flatnonzero(~gone)), _input_axis(reader.layer), "read")


def _input_axis(layer: Layer) -> int:
    return 0 if layer.kind == "addmm" else 1


@torch.no_grad()
def _fold(modules: Mapping[str, nn.Module], reader: Reader, gone: np.ndarray, constants: np.ndarray) -> None:
    """Add the reader's weights times the constants to its bias."""
    layer = reader.layer
    chosen = np.flatnonzero(gone & (constants != 0))
    if len(chosen) == 0 or not (layer.bias or layer.takes_bias):  # without a bias, the constants count as 0
        return
    owner = modules[layer.weight.path]
    weight = getattr(owner, layer.weight.attribute)
    columns = weight.double().index_select(_input_axis(layer), torch.from_numpy(chosen).to(weight.device))
    values = torch.from_numpy(constants[chosen]).to(weight.device)
    if columns.ndim > 2:  # a constant channel contributes the sum of its kernel
        columns = columns.flatten(2).sum(2)
    added = values @ columns if layer.kind == "addmm" else columns @ values
    if layer.bias is None:
        owner.bias = nn.Parameter(added.to(weight.dtype), requires_grad=weight.requires_grad)
    else:
        bias = getattr(modules[layer.bias.path], layer.bias.attribute)
        _set(modules, layer.bias, (bias.double() + added).to(bias.dtype))


@torch.no_grad()
def _shrink(modules: Mapping[str, nn.Module], weight: Weight, kept: Tensor, axis: int, name: str) -> None:
    """Keep only some entries along an axis, and update the module's size attribute."""
    owner = modules[weight.path]
    old = getattr(owner, weight.attribute)
    _set(modules, weight, old.index_select(axis, kept.to(old.device)))
    for size in SIZES[name]:
        if getattr(owner, size, None) == old.shape[axis]:
            setattr(owner, size, len(kept))


def _set(modules: Mapping[str, nn.Module], weight: Weight, new: Tensor) -> None:
    owner = modules[weight.path]
    old = getattr(owner, weight.attribute)
    if isinstance(old, nn.Parameter):
        setattr(owner, weight.attribute, nn.Parameter(new, requires_grad=old.requires_grad))
    else:
        setattr(owner, weight.attribute, new)


class _ConstantInputs(TorchFunctionMode):
    """Replaces the units by constants in the readers' inputs: the original then computes what the smaller model should."""

    def __init__(self, recording: Recording, cuts: Sequence[Cut]) -> None:
        super().__init__()
        self.index = 0
        self.names = [call.name for call in recording.calls]
        self.readers = {
            reader.layer.call: (reader, np.repeat(cut.gone, reader.width), constants)
            for cut in cuts
            for reader, constants in zip(cut.group.readers, cut.constants, strict=True)
        }

    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None) -> Any:
        kwargs = kwargs or {}
        name = name_of(func)
        if self.index in self.readers and name == self.names[self.index]:
            reader, gone, constants = self.readers[self.index]
            value = layer_input(reader.layer, args, kwargs)
            changed = value.clone().movedim(reader.axis, -1)
            changed[..., torch.from_numpy(gone)] = torch.from_numpy(constants[gone]).to(value)
            args, kwargs = replace_input(reader.layer, args, kwargs, changed.movedim(-1, reader.axis).contiguous())
        result = func(*args, **kwargs)
        if not is_metadata(name, func, outputs(result)):
            self.index += 1
        return result


def agrees(model: nn.Module, source: nn.Module, recording: Recording, cuts: Sequence[Cut], inputs: Inputs) -> str:
    """Check on ``inputs`` that the smaller model agrees with the original whose units are replaced by constants.

    Args:
        model: the original, which is run.
        source: the same, from which the smaller model is made.
        recording: recording of the original.
        cuts: the cuts to check.
        inputs: a few points.

    Returns:
        The reason if it does not, else empty.
    """
    with torch.no_grad(), _ConstantInputs(recording, cuts):
        expected = outputs(forward(model, inputs))
    try:
        with torch.no_grad():
            outputs_found = outputs(forward(remove_cuts(source, cuts), inputs))
    except (RuntimeError, ValueError, TypeError, IndexError) as error:
        return f"the forward pass relies on the layer's width ({one_line(error, 100)})"
    for before, after in zip(expected, outputs_found, strict=True):
        if before.shape != after.shape:
            return "the forward pass relies on the layer's width (the output changes its shape)"
        if before.is_floating_point() and before.numel():
            allowed = torch.finfo(before.dtype).eps ** 0.6 * float(before.abs().max())
            if not float((before - after).abs().max()) <= allowed:
                return "without it the model computes something else: it is used in a way that was not seen"
    return ""


def select_workable(
    model: nn.Module, source: nn.Module, recording: Recording, cuts: Sequence[Cut], inputs: Inputs
) -> tuple[list[Cut], dict[int, str]]:
    """Cuts after which the model runs and computes the right values, and reasons against the others by index."""
    if not agrees(model, source, recording, cuts, inputs):
        return list(cuts), {}
    good: list[Cut] = []
    reasons: dict[int, str] = {}
    for index, cut in enumerate(cuts):
        if not cut.gone.any():
            good.append(cut)
        elif reason := agrees(model, source, recording, [*good, cut], inputs):
            reasons[index] = reason
        else:
            good.append(cut)
    return good, reasons
