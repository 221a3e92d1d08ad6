"""What cutting a model did to its outputs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from kagscope.base.errors import InputError
from kagscope.jacobians.inputs import Inputs
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
                changes[place] = max(changes.get(place, 0.0), float((one - other).abs().max()))
                largest[place] = max(largest.get(place, torch.finfo(one.dtype).tiny), float(one.abs().max()))
        if labels is not None:
            answers = labels[seen : seen + part.count]
            seen += part.count
            right = [
                count + int((found[0].argmax(-1).cpu() == answers).sum()) for count, found in zip(right, (old, new), strict=True)
            ]
    relative = max((change / largest[place] for place, change in changes.items()), default=0.0)
    accuracies = (None, None) if labels is None else (right[0] / labels.numel(), right[1] / labels.numel())
    return Effect(relative, max(changes.values(), default=0.0), *accuracies)


def check_labels(labels: Any, shapes: tuple[tuple[int, ...], ...], points: int) -> Tensor:
    """Labels as a tensor, for outputs that have ``shapes`` on a sample of the points.

    Raises:
        InputError: labels that are no integers, or not in the shape of the first output without its last axis.
    """
    answers = torch.as_tensor(labels).cpu()
    expected = (points, *shapes[0][1:-1]) if shapes and len(shapes[0]) > 1 else None
    if answers.is_floating_point() or answers.is_complex() or tuple(answers.shape) != expected:
        wanted = f"integers of shape {expected}" if expected else "none, for an output without classes"
        raise InputError(f"labels have shape {tuple(answers.shape)} and dtype {answers.dtype}; expected {wanted}")
    return answers
