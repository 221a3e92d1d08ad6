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
from kagscope.jacobians.model_checks import LOOK_AT, model_errors, short
from kagscope.jacobians.runner import Runner
from kagscope.measuring.spec import MeasureSpec


def input_warnings(inputs: Inputs) -> list[str]:
    """Warn of likely mistakes in the inputs."""
    warnings = []
    for key, value in inputs.tensors().items():
        if value.is_floating_point() and value.ndim > 1 and value[0].numel() >= 16:
            low, high = (float(end) for end in value.detach().double().aminmax())
            if low >= 0 and 100 < high <= 255:
                warnings.append(
                    f"inputs {key!r} lie between {low:g} and {high:g}: bytes of images that were not divided by 255? "
                    "Most networks are trained on 0 to 1, or on standardised images"
                )
        if key == inputs.wrt:
            finite = value.detach().double().isfinite().reshape(len(value), -1).all(1)
            points = (~finite).nonzero()[:, 0].tolist()
            if not points:
                continue
            warnings.append(
                f"input {inputs.name(key)!r} is NaN or infinite at {len(points)} of {inputs.count} points, such as {points[0]}: "
                "Jacobians are finite there only because the model cuts such numbers off"
            )
    return warnings


def choose_runner(
    model: nn.Module, inputs: Inputs, spec: MeasureSpec, weights: Mapping[str, Tensor] | None, notes: list[str]
) -> tuple[Runner, Inputs]:
    """A runner and inputs in float64 if the model supports it, else in its own dtype.

    Raises:
        InputError: The model takes neither, or creates parameters during a pass.
    """
    names_before = {name for name, _ in model.named_parameters()}
    few = slice(None if spec.mode == "train" else LOOK_AT)
    failed, own = None, spec.precision == "model"
    if not own:
        runner, fed = Runner(model, torch.float64, spec.seed, weights), inputs.cast(torch.float64)
        failed = _forward_error(runner, fed.take(few))
    if own or failed is not None:
        runner = Runner(model, None, spec.seed, weights)
        fed = _convert_inputs(runner, inputs, few, notes)
    if failed is not None:
        notes.append(f"computed in the model's own precision, since float64 failed ({short(failed)})")
    if created := [name for name, _ in model.named_parameters() if name not in names_before]:
        raise InputError(
            f"the forward pass makes {listing(created, 3)}, which the model does not have yet; call it once before measuring it"
        )
    return runner, fed


def _convert_inputs(runner: Runner, inputs: Inputs, few: slice, notes: list[str]) -> Inputs:
    """Keep the inputs' dtypes, or if the model rejects these, convert to that of its weights and note it.

    Raises:
        InputError: It takes neither; the message is the error with the inputs' own dtypes.
    """
    fed = inputs.cast(None)
    failed = _forward_error(runner, fed.take(few))
    if failed is None:
        return fed
    model_dtype = next((dtype for dtype in runner.dtypes.values() if dtype.is_floating_point), None)
    others = sorted({str(t.dtype) for t in inputs.tensors().values() if t.is_floating_point() and t.dtype != model_dtype})
    if model_dtype is not None and others and _forward_error(runner, inputs.cast(model_dtype).take(few)) is None:
        names = " and ".join(name.removeprefix("torch.") for name in others)
        notes.append(f"inputs of {names} were taken as {str(model_dtype).removeprefix('torch.')}, in which the model computes")
        return inputs.cast(model_dtype)
    with model_errors(inputs, runner):
        raise failed


def _forward_error(runner: Runner, inputs: Inputs) -> Exception | None:
    """The exception that a forward pass raises, or None."""
    try:
        with torch.no_grad():
            runner(inputs)
    except Exception as error:
        return error
    return None


def as_labels(labels: Any, count: int) -> np.ndarray:
    array = np.asarray(labels.detach().cpu() if isinstance(labels, Tensor) else labels)
    if array.shape != (count,):
        raise InputError(f"labels have shape {array.shape}; expected one for each of the {count} points")
    return array
