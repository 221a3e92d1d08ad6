"""Inputs, labels and precision that fit a model, before any layer is measured."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from kagscope.base.errors import InputError
from kagscope.jacobians.inputs import Inputs
from kagscope.jacobians.looks import LOOK_AT, model_errors, short
from kagscope.jacobians.runner import Runner
from kagscope.measuring.spec import MeasureSpec


def check_devices(model: nn.Module, inputs: Inputs) -> None:
    devices = {str(tensor.device) for tensor in [*model.parameters(), *model.buffers()]}
    for place, value in inputs.tensors().items():
        if devices and str(value.device) not in devices:
            there = " and ".join(sorted(devices))
            raise InputError(
                f"inputs {place!r} are on {value.device}, the model is on {there}; move one of them, such as x.to('{there}')"
            )


def suspicions(inputs: Inputs) -> list[str]:
    """What looks like a mistake in the inputs, and need not be one."""
    found = []
    for place, value in inputs.tensors().items():
        if value.is_floating_point() and value.ndim > 1 and value[0].numel() >= 16:
            low, high = (float(end) for end in value.detach().aminmax())
            if low >= 0 and 100 < high <= 255:
                found.append(
                    f"inputs {place!r} lie between {low:g} and {high:g}: bytes of images that were not divided by 255? "
                    "Most networks are trained on 0 to 1, or on standardised images"
                )
    return found


def choose_runner(
    model: nn.Module, inputs: Inputs, spec: MeasureSpec, weights: Mapping[str, Tensor] | None, notes: list[str]
) -> tuple[Runner, Inputs]:
    """A runner and inputs in float64 where the model can take it, else in its own dtype."""
    wanted = torch.float64 if spec.precision == "float64" else None
    runner = Runner(model, wanted, spec.seed, weights)
    fed = inputs.cast(wanted)
    few = slice(0, None if spec.mode == "train" else LOOK_AT)
    if wanted is None:
        with model_errors(fed, runner), torch.no_grad():
            runner(fed.take(few))
        return runner, fed
    try:
        with torch.no_grad():
            runner(fed.take(few))
    except Exception as error:
        own = Runner(model, None, spec.seed, weights)
        with model_errors(inputs, own), torch.no_grad():
            own(inputs.cast(None).take(few))  # if this fails too, its message is the one to read
        notes.append(f"computed in the model's own precision, since float64 failed ({short(error)})")
        return own, inputs.cast(None)
    return runner, fed


def as_labels(labels: Any, count: int) -> np.ndarray:
    found = np.asarray(labels.detach().cpu() if isinstance(labels, Tensor) else labels)
    if found.shape != (count,):
        raise InputError(f"labels have shape {found.shape}; expected one for each of the {count} points")
    return found
