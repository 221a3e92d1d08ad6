"""What a network is measured on, and how."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import nn

from kagscope.jacobians.inputs import Inputs, as_inputs
from kagscope.jacobians.surroundings import preserve_global_state
from kagscope.measuring.observe import observe
from kagscope.measuring.spec import MeasureSpec
from kagscope.measuring.state import State
from kagscope.tracking.history import describe, digest

Tensors = Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class Probe:
    """The same inputs and spec at every step.

    Attributes:
        inputs: arguments of a forward call, a copy.
        labels: (inputs,) classes or None.
        spec: how to measure.
    """

    inputs: Inputs
    labels: Any
    spec: MeasureSpec

    @classmethod
    def of(cls, inputs: Any, labels: Any, spec: MeasureSpec, model: nn.Module) -> Probe:
        """Copies the inputs: what the training loop does to its batch later does not reach the probe."""
        fed = as_inputs(inputs, spec.points, model)
        labels = fed.labels if labels is None else _copy(labels)
        return cls(fed.cast(None).clone(), labels, spec)

    def observe(self, model: nn.Module, weights: Tensors | None = None) -> State:
        """Measure ``model``, or it with ``weights`` in place of its own. Raises :class:`InputError`."""
        return observe(model, self.inputs, self.spec, weights=weights, labels=self.labels)

    def describe(self) -> dict[str, Any]:
        """What must be the same for numbers to be comparable, as JSON."""
        given = digest(self.inputs.kwargs or self.inputs.args)
        return {**self.spec.as_json(), "probe_inputs": given, "labels": describe(self.labels)}


@cache
def warm_up_measuring(k: tuple[int, ...]) -> None:
    """Measure a tiny network, once, so that no measurement's time holds that of loading kernels and libraries."""
    inputs = torch.rand(12, 8, generator=torch.Generator().manual_seed(0))
    with preserve_global_state():
        model = nn.Sequential(nn.Linear(8, 8), nn.GELU())
    with torch.inference_mode(False):
        observe(model, inputs, MeasureSpec(k=k, rotation_points=0))


def _copy(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.detach().clone()
    if isinstance(value, np.ndarray):
        return value.copy()
    if isinstance(value, Mapping):
        return {name: _copy(item) for name, item in value.items()}
    return tuple(_copy(item) for item in value) if isinstance(value, (tuple, list)) else value
