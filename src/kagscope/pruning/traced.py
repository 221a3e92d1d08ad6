"""A copy of a model, ready to be looked at and cut: recorded on a few points, its units grouped."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from kagscope.base.errors import InputError
from kagscope.jacobians.forward import unwrap
from kagscope.jacobians.inputs import Inputs, as_inputs
from kagscope.jacobians.looks import check_devices, short
from kagscope.pruning.grouping import unit_groups
from kagscope.pruning.recorder import Recording, forward, record
from kagscope.pruning.units import UnitGroup

MEMORY = 2**28  # bytes for the values of one part of the points
SAMPLE = 2  # points to record with; two, so that the axis of the points is not taken for one of length 1


@dataclass(frozen=True, eq=False)
class Traced:
    """A model's copy in eval mode without gradients, the points, and a recording of it on the first of them.

    Attributes:
        model: the copy that is run.
        source: one that is never run, from which smaller ones are made: a forward pass may leave things in a model.
        modes: module name to whether the user's was in training mode.
        trainable: names of the parameters that require a gradient.
        inputs: all points.
        sample: the first of them.
        batch_size: number of points taken at a time.
        recording: of the copy on ``sample``.
        groups: of units, those that cannot be taken out included.
    """

    model: nn.Module
    source: nn.Module
    modes: dict[str, bool]
    trainable: set[str]
    inputs: Inputs
    sample: Inputs
    batch_size: int
    recording: Recording
    groups: list[UnitGroup]

    def restore_modes(self, smaller: nn.Module) -> nn.Module:
        """A cut copy put into the modes of the user's model: training or not, gradients or not."""
        old = {name for name, _ in self.model.named_parameters()}
        for name, parameter in smaller.named_parameters():
            weight = f"{name.rpartition('.')[0]}.weight".lstrip(".")  # whose layer has got a bias
            parameter.requires_grad_(name in self.trainable or (name not in old and weight in self.trainable))
        for name, module in smaller.named_modules():
            module.training = self.modes[name]
        return smaller


def trace(model: nn.Module, inputs: Any) -> Traced:
    """Copy a model, put the copy into eval mode, and record it on the first points.

    Raises:
        InputError: a model that cannot be copied or called with these inputs, or inputs that do not fit.
    """
    model = unwrap(model)
    for name, module in model.named_modules():
        if isinstance(module, torch.jit.ScriptModule):
            what = f"its part {name!r}" if name else "it"
            raise InputError(f"the model cannot be cut, since {what} is TorchScript; give the Python module it was made from")
    given = _convert_inputs(model, as_inputs(inputs, model=model))
    source = _copy(model).eval().requires_grad_(False)
    copied = copy.deepcopy(source)
    for module in copied.modules():  # whose hooks on gradients must not hear of this
        module._backward_hooks.clear()
        module._backward_pre_hooks.clear()
    sample = given.take(slice(0, SAMPLE))
    try:
        with torch.enable_grad():
            recording = record(copied, sample)
    except InputError:
        raise
    except Exception as error:  # anything can be in a forward pass
        shapes = ", ".join(str(tuple(tensor.shape)) for tensor in given.tensors().values())
        hint = _batch_hint(copied, given)
        raise InputError(f"the model cannot take these inputs, of shape {shapes}: {short(error)}{hint}") from error
    modes = {name: module.training for name, module in model.named_modules()}
    trainable = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    numbers = sum(math.prod(shape) for call in recording.calls for shape in call.out_shapes)
    batch = max(1, MEMORY * sample.count // (8 * max(numbers, 1)))
    return Traced(copied, source, modes, trainable, given, sample, batch, recording, unit_groups(copied, recording))


def _batch_hint(model: nn.Module, inputs: Inputs) -> str:
    """A hint where the model takes the inputs as one point."""
    try:
        with torch.no_grad():
            forward(model, inputs.as_one_point())
    except Exception:
        return ""
    return "; the inputs look like one point without its batch dimension: give x[None], shape (1, …)"


def _copy(model: nn.Module) -> nn.Module:
    """A copy; tensors that a forward pass has left in a module, such as attention weights, lose their history."""
    left = [value for module in model.modules() for value in vars(module).values() if isinstance(value, Tensor)]
    try:
        return copy.deepcopy(model, {id(tensor): tensor.detach().clone() for tensor in left if tensor.grad_fn is not None})
    except (RuntimeError, TypeError) as error:
        raise InputError(f"the model cannot be copied ({' '.join(str(error).split())}); remove what cannot from it") from error


def _convert_inputs(model: nn.Module, inputs: Inputs) -> Inputs:
    """The inputs in the model's floating dtype, checked to be numbers, and where the model is."""
    check_devices(model, inputs)
    for tensor in inputs.tensors().values():
        if tensor.is_floating_point() and bool(torch.isnan(tensor).any()):
            raise InputError("inputs hold NaN; expected numbers")
    return inputs.for_model(model)
