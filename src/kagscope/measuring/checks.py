"""Inputs, labels and precision that fit a model, before any layer is measured."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from kagscope.base.errors import InputError
from kagscope.base.messages import listing
from kagscope.jacobians.inputs import Inputs
from kagscope.jacobians.looks import LOOK_AT, model_errors, short
from kagscope.jacobians.runner import Runner
from kagscope.measuring.spec import MeasureSpec


def suspicions(inputs: Inputs) -> list[str]:
    """What looks like a mistake in the inputs, and need not be one."""
    found = []
    for place, value in inputs.tensors().items():
        if value.is_floating_point() and value.ndim > 1 and value[0].numel() >= 16:
            low, high = (float(end) for end in value.detach().double().aminmax())
            if low >= 0 and 100 < high <= 255:
                found.append(
                    f"inputs {place!r} lie between {low:g} and {high:g}: bytes of images that were not divided by 255? "
                    "Most networks are trained on 0 to 1, or on standardised images"
                )
    return found


def choose_runner(
    model: nn.Module, inputs: Inputs, spec: MeasureSpec, weights: Mapping[str, Tensor] | None, notes: list[str]
) -> tuple[Runner, Inputs]:
    """A runner and inputs in float64 where the model can take it, else in its own dtype.

    Raises:
        InputError: the model takes neither, or makes parameters of its own in a pass.
    """
    own = {name for name, _ in model.named_parameters()}
    found = _choose_runner(model, inputs, spec, weights, notes)
    if made := [name for name, _ in model.named_parameters() if name not in own]:
        raise InputError(
            f"the forward pass makes {listing(made, 3)}, which the model does not have yet; call it once before measuring it"
        )
    return found


def _choose_runner(
    model: nn.Module, inputs: Inputs, spec: MeasureSpec, weights: Mapping[str, Tensor] | None, notes: list[str]
) -> tuple[Runner, Inputs]:
    few = slice(None if spec.mode == "train" else LOOK_AT)
    if spec.precision == "float64":
        runner, fed = Runner(model, torch.float64, spec.seed, weights), inputs.cast(torch.float64)
        failed = _failure(runner, fed.take(few))
        if failed is None:
            return runner, fed
    else:
        failed = None
    own = Runner(model, None, spec.seed, weights)
    fed = _as_the_model_takes(own, inputs, few, notes)
    if failed is not None:
        notes.append(f"computed in the model's own precision, since float64 failed ({short(failed)})")
    return own, fed


def _as_the_model_takes(runner: Runner, inputs: Inputs, few: slice, notes: list[str]) -> Inputs:
    """The inputs in the dtypes that they have, or where the model does not take these, in that of its weights, with a note.

    Raises:
        InputError: it takes neither; the message is that of the inputs as they are.
    """
    fed = inputs.cast(None)
    failed = _failure(runner, fed.take(few))
    if failed is None:
        return fed
    own = next((dtype for dtype in runner.dtypes.values() if dtype.is_floating_point), None)
    others = sorted({str(one.dtype) for one in inputs.tensors().values() if one.is_floating_point() and one.dtype != own})
    if own is not None and others and _failure(runner, inputs.cast(own).take(few)) is None:
        names = " and ".join(name.removeprefix("torch.") for name in others)
        notes.append(f"inputs of {names} were taken as {str(own).removeprefix('torch.')}, in which the model computes")
        return inputs.cast(own)
    with model_errors(inputs, runner):
        raise failed


def _failure(runner: Runner, inputs: Inputs) -> Exception | None:
    """What a forward pass raises."""
    try:
        with torch.no_grad():
            runner(inputs)
    except Exception as error:
        return error
    return None


def as_labels(labels: Any, count: int) -> np.ndarray:
    found = np.asarray(labels.detach().cpu() if isinstance(labels, Tensor) else labels)
    if found.shape != (count,):
        raise InputError(f"labels have shape {found.shape}; expected one for each of the {count} points")
    return found
