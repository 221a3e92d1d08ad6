"""The fixed inputs and spec with which a tracker measures its network."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import nn

from kagscope.jacobians.inputs import Inputs, as_inputs
from kagscope.jacobians.surroundings import preserve_global_state
from kagscope.measuring.checks import as_labels
from kagscope.measuring.observe import observe
from kagscope.measuring.spec import MeasureSpec
from kagscope.measuring.state import State
from kagscope.tracking.history import describe, digest

Tensors = Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class Probe:
    """Inputs and spec, the same at every step.

    Attributes:
        inputs: copied arguments of a forward call.
        labels: (N,) classes of the inputs, or None.
        spec: what is measured.
    """

    inputs: Inputs
    labels: Any
    spec: MeasureSpec

    @classmethod
    def of(cls, inputs: Any, labels: Any, spec: MeasureSpec, model: nn.Module) -> Probe:
        """Copy the inputs, so that later changes of the batch in the training loop do not reach the probe."""
        fed = as_inputs(inputs, spec.points, model)
        if labels is None:
            labels = fed.labels
        else:
            as_labels(labels, fed.count)  # refuses what is none
            labels = labels.detach().clone() if isinstance(labels, torch.Tensor) else copy.deepcopy(labels)
        return cls(fed.cast(None).clone(), labels, spec)

    def observe(self, model: nn.Module, weights: Tensors | None = None) -> State:
        """Measure ``model``, with ``weights`` in place of its own if given. Raises :class:`InputError`."""
        return observe(model, self.inputs, self.spec, weights=weights, labels=self.labels)

    def describe(self) -> dict[str, Any]:
        """Settings that must agree for numbers to be comparable, as JSON."""
        inputs_digest = digest(self.inputs.kwargs or self.inputs.args)
        return {**self.spec.as_json(), "probe_inputs": inputs_digest, "labels": describe(self.labels)}


@cache
def warm_up_measuring(k: tuple[int, ...]) -> None:
    """Measure a tiny network once, so that loading kernels and libraries is not timed as part of a measurement."""
    inputs = torch.rand(12, 8, generator=torch.Generator().manual_seed(0))
    with preserve_global_state():
        model = nn.Sequential(nn.Linear(8, 8), nn.GELU())
    with torch.inference_mode(False):
        observe(model, inputs, MeasureSpec(k=k, rotation_points=0))
