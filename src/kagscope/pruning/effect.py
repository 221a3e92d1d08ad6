"""What cutting a model did to its outputs, and what it costs before and after: parameters, operations, seconds."""

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
from kagscope.pruning.recorder import forward, outputs, parts


@dataclass(frozen=True)
class Effect:
    """Largest change of an output over the inputs, relative to the largest output and as it is, and accuracies."""

    largest_change: float
    largest_absolute_change: float
    accuracy_before: float | None
    accuracy_after: float | None


def effect_of(before: nn.Module, after: nn.Module, inputs: Inputs, size: int, labels: Tensor | None) -> Effect:
    """Compare two models, both in eval mode, on parts of ``size`` points; nothing is kept of a part but its extremes.

    ``labels`` have the shape of the first output without its last axis.
    """
    changes: dict[int, float] = {}
    largest: dict[int, float] = {}
    right, seen = [0, 0], 0
    for part in parts(inputs, size):
        with torch.no_grad():
            old, new = outputs(forward(before, part)), outputs(forward(after, part))
        for place, (one, other) in enumerate(zip(old, new, strict=True)):
            if one.is_floating_point() and one.numel():
                same = (one == other) | (one.isnan() & other.isnan())
                change = torch.where(same, 0.0, (one - other).abs())  # NaN where a number became none
                changes[place] = float(np.maximum(changes.get(place, 0.0), float(change.max())))
                largest_one = float(one.abs().nan_to_num(0.0, posinf=0.0).max())
                largest[place] = max(largest.get(place, torch.finfo(one.dtype).tiny), largest_one)
        if labels is not None:
            answers = labels[seen : seen + part.count]
            seen += part.count
            right = [
                count + int((found[0].argmax(-1).cpu() == answers).sum()) for count, found in zip(right, (old, new), strict=True)
            ]
    relative = float(np.max([0.0, *(change / largest[place] for place, change in changes.items())]))
    accuracies = (None, None) if labels is None else (right[0] / labels.numel(), right[1] / labels.numel())
    return Effect(relative, float(np.max([0.0, *changes.values()])), *accuracies)


def check_labels(labels: Any, shapes: tuple[tuple[int, ...], ...], points: int) -> Tensor:
    """Labels as a tensor, for outputs that have ``shapes`` on a sample of the points.

    Raises:
        InputError: labels that are no integers, or not in the shape of the first output without its last axis.
    """
    try:
        answers = torch.as_tensor(labels).cpu()
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"labels are {type(labels).__name__} that hold no numbers ({error}); expected integers") from error
    expected = (points, *shapes[0][1:-1]) if shapes and len(shapes[0]) > 1 else None
    if answers.is_floating_point() or answers.is_complex() or tuple(answers.shape) != expected:
        wanted = f"integers of shape {expected}" if expected else "none, for an output without classes"
        raise InputError(f"labels have shape {tuple(answers.shape)} and dtype {answers.dtype}; expected {wanted}")
    return answers.long()


WARM_UP, REPEATS = 3, 20


def count(model: nn.Module) -> int:
    """Parameters, each once."""
    return sum(parameter.numel() for parameter in model.parameters())


def flops_of(model: nn.Module, inputs: Inputs) -> int:
    """Floating-point operations of one forward pass: matrix products, convolutions and attention."""
    from torch.utils.flop_counter import FlopCounterMode  # half a second at its first use

    # under a function mode transformer layers take their plain path: nothing is counted within the fused one
    with torch.no_grad(), FlopCounterMode(display=False) as counter, BaseTorchFunctionMode():
        forward(model, inputs)
    return int(counter.get_total_flops())


def latencies(before: nn.Module, after: nn.Module, inputs: Inputs) -> tuple[float, float]:
    """Median seconds of a forward pass of each, measured in turns so that both see the same machine."""
    times: tuple[list[float], list[float]] = ([], [])
    with torch.no_grad(), preserve_global_state(inputs.tensors().values()):
        for turn in range(WARM_UP + REPEATS):
            for model, found in zip((before, after), times, strict=True):
                _wait()
                start = time.perf_counter()
                model(*inputs.args, **inputs.kwargs)
                _wait()
                if turn >= WARM_UP:
                    found.append(time.perf_counter() - start)
    return float(np.median(times[0])), float(np.median(times[1]))


def _wait() -> None:
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
