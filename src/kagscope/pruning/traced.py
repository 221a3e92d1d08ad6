"""A copy of a model for pruning: recorded on a few points, with its units grouped."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from kagscope.base.errors import InputError
from kagscope.base.messages import one_line
from kagscope.jacobians.forward import unwrap
from kagscope.jacobians.inputs import Inputs, as_inputs
from kagscope.jacobians.model_checks import check_devices, short
from kagscope.pruning.grouping import unit_groups
from kagscope.pruning.recorder import Recording, forward, record
from kagscope.pruning.units import UnitGroup

MEMORY = 2**28  # bytes for the values of one batch of points
SAMPLE = 2  # recorded points; two, so that their axis is not mistaken for one of length 1


@dataclass(frozen=True, eq=False)
class Traced:
    """A copy of a model in eval mode without gradients, the points, and a recording on the first of them.

    Attributes:
        model: the copy that is run.
        source: a copy that is never run, from which smaller ones are made, as a forward pass may change a model's state.
        modes: whether each module of the user's model was in training mode, by name.
        trainable: names of the parameters that require a gradient.
        inputs: all points.
        sample: the first points.
        batch_size: points per batch.
        recording: recording of the copy on ``sample``.
        groups: groups of units, including those that cannot be removed.
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
        """Set the training modes and ``requires_grad`` of a smaller model as in the user's model."""
        old = {name for name, _ in self.model.named_parameters()}
        for name, parameter in smaller.named_parameters():
            weight = f"{name.rpartition('.')[0]}.weight".lstrip(".")  # of a layer with a new bias
            parameter.requires_grad_(name in self.trainable or (name not in old and weight in self.trainable))
        for name, module in smaller.named_modules():
            module.training = self.modes[name]
        return smaller


def trace(model: nn.Module, inputs: Any) -> Traced:
    """Copy a model, put the copy into eval mode, and record it on the first points.

    Raises:
        InputError: the model cannot be copied or called with these inputs, or the inputs do not fit.
    """
    model = unwrap(model)
    for name, module in model.named_modules():
        if isinstance(module, torch.jit.ScriptModule):
            subject = f"its part {name!r}" if name else "it"
            raise InputError(f"the model cannot be cut, since {subject} is TorchScript; give the Python module it was made from")
    arguments = _convert_inputs(model, as_inputs(inputs, model=model))
    source = _copy(model).eval().requires_grad_(False)
    copied = copy.deepcopy(source)
    for module in copied.modules():  # gradient hooks must not run
        module._backward_hooks.clear()
        module._backward_pre_hooks.clear()
    sample = arguments.take(slice(0, SAMPLE))
    try:
        with torch.enable_grad():
            recording = record(copied, sample)
    except InputError:
        raise
    except Exception as error:  # anything can be in a forward pass
        shapes = ", ".join(str(tuple(tensor.shape)) for tensor in arguments.tensors().values())
        hint = _batch_hint(copied, arguments)
        raise InputError(f"the model cannot take these inputs, of shape {shapes}: {short(error)}{hint}") from error
    modes = {name: module.training for name, module in model.named_modules()}
    trainable = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    numbers = sum(math.prod(shape) for call in recording.calls for shape in call.out_shapes)
    batch = max(1, MEMORY * sample.count // (8 * max(numbers, 1)))
    return Traced(copied, source, modes, trainable, arguments, sample, batch, recording, unit_groups(copied, recording))


def _batch_hint(model: nn.Module, inputs: Inputs) -> str:
    """A hint if the model takes the inputs as a single point."""
    try:
        with torch.no_grad():
            forward(model, inputs.as_one_point())
    except Exception:
        return ""
    return "; the inputs look like one point without its batch dimension: give x[None], shape (1, …)"


def _copy(model: nn.Module) -> nn.Module:
    """Copy a model; tensors left in modules by a forward pass, such as attention weights, are detached."""
    stored = [value for module in model.modules() for value in vars(module).values() if isinstance(value, Tensor)]
    try:
        return copy.deepcopy(model, {id(tensor): tensor.detach().clone() for tensor in stored if tensor.grad_fn is not None})
    except (RuntimeError, TypeError) as error:
        raise InputError(f"the model cannot be copied ({one_line(error)}); remove what cannot from it") from error


def _convert_inputs(model: nn.Module, inputs: Inputs) -> Inputs:
    """Check that inputs are finite and convert them to the model's floating dtype and device."""
    check_devices(model, inputs)
    for tensor in inputs.tensors().values():
        if tensor.is_floating_point() and bool(torch.isnan(tensor).any()):
            raise InputError("inputs hold NaN; expected numbers")
    return inputs.for_model(model)
