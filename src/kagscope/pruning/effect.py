"""Effect of pruning on a model's outputs, and its cost before and after: parameters, operations, seconds."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.overrides import BaseTorchFunctionMode

from kagscope.base.errors import InputError
from kagscope.jacobians.inputs import Inputs
from kagscope.jacobians.surroundings import preserve_global_state
from kagscope.pruning.recorder import batches, forward, outputs


@dataclass(frozen=True)
class Effect:
    """Largest relative and absolute change of an output over the inputs, and accuracies."""

    largest_change: float
    largest_absolute_change: float
    accuracy_before: float | None
    accuracy_after: float | None


def measure_effect(before: nn.Module, after: nn.Module, inputs: Inputs, size: int, labels: Tensor | None) -> Effect:
    """Compare two models, both in eval mode, in batches of ``size`` points, of which only the extremes are kept.

    ``labels`` have the shape of the first output without its last axis.
    """
    changes: dict[int, float] = {}
    largest: dict[int, float] = {}
    right, counted = [0, 0], 0
    for batch in batches(inputs, size):
        with torch.no_grad():
            old, new = outputs(forward(before, batch)), outputs(forward(after, batch))
        for index, (before_output, after_output) in enumerate(zip(old, new, strict=True)):
            if before_output.is_floating_point() and before_output.numel():
                same = (before_output == after_output) | (before_output.isnan() & after_output.isnan())
                change = torch.where(same, 0.0, (before_output - after_output).abs())  # NaN if a number became undefined
                changes[index] = float(np.maximum(changes.get(index, 0.0), float(change.max())))
                largest_one = float(before_output.abs().nan_to_num(0.0, posinf=0.0).max())
                largest[index] = max(largest.get(index, torch.finfo(before_output.dtype).tiny), largest_one)
        if labels is not None:
            answers = labels[counted : counted + batch.count]
            counted += batch.count
            right = [
                count + int((pair[0].argmax(-1).cpu() == answers).sum()) for count, pair in zip(right, (old, new), strict=True)
            ]
    relative = float(np.max([0.0, *(change / largest[index] for index, change in changes.items())]))
    accuracies = (None, None) if labels is None else (right[0] / labels.numel(), right[1] / labels.numel())
    return Effect(relative, float(np.max([0.0, *changes.values()])), *accuracies)


def check_labels(labels: Any, shapes: tuple[tuple[int, ...], ...], points: int) -> Tensor:
    """Labels as a tensor, checked against ``shapes``, those of the outputs on a sample of the points.

    Raises:
        InputError: labels are not integers, or not in the shape of the first output without its last axis.
    """
    try:
        answers = torch.as_tensor(labels).cpu()
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"labels are {type(labels).__name__} that hold no numbers ({error}); expected integers") from error
    expected = (points, *shapes[0][1:-1]) if shapes and len(shapes[0]) > 1 else None
    if answers.is_floating_point() or answers.is_complex() or tuple(answers.shape) != expected:
        requirement = f"integers of shape {expected}" if expected else "none, for an output without classes"
        raise InputError(f"labels have shape {tuple(answers.shape)} and dtype {answers.dtype}; expected {requirement}")
    return answers.long()


WARM_UP, REPEATS = 3, 20


def count(model: nn.Module) -> int:
    """Number of parameters, shared ones counted once."""
    return sum(parameter.numel() for parameter in model.parameters())


def flops_of(model: nn.Module, inputs: Inputs) -> int:
    """Floating-point operations of one forward pass: matrix products, convolutions and attention."""
    from torch.utils.flop_counter import FlopCounterMode  # slow import, 0.5 s

    # a function mode makes transformer layers take their plain path: operations of the fused one are not counted
    with torch.no_grad(), FlopCounterMode(display=False) as counter, BaseTorchFunctionMode():
        forward(model, inputs)
    return int(counter.get_total_flops())


def latencies(before: nn.Module, after: nn.Module, inputs: Inputs) -> tuple[float, float]:
    """Median seconds of a forward pass of each, timed alternately so that both see the same load."""
    times: tuple[list[float], list[float]] = ([], [])
    with torch.no_grad(), preserve_global_state(inputs.tensors().values()):
        for turn in range(WARM_UP + REPEATS):
            for model, seconds in zip((before, after), times, strict=True):
                _synchronise()
                start = time.perf_counter()
                model(*inputs.args, **inputs.kwargs)
                _synchronise()
                if turn >= WARM_UP:
                    seconds.append(time.perf_counter() - start)
    return float(np.median(times[0])), float(np.median(times[1]))


def _synchronise() -> None:
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
