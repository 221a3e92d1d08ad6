"""What a network is measured on, and how; the baseline that its ratios refer to."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn

from kagscope.errors import InputError
from kagscope.jacobians.inputs import as_inputs
from kagscope.measuring import MeasureSettings, Observation, compare, observe
from kagscope.tracking.history import describe, digest
from kagscope.tracking.parts import COLUMNS, KEYS

State = Mapping[str, torch.Tensor]


@dataclasses.dataclass(frozen=True)
class Probe:
    """The same inputs and settings at every step.

    Attributes:
        inputs: arguments of a forward call, a copy.
        labels: (points,) classes or None.
        settings: how to measure.
    """

    inputs: Any
    labels: Any
    settings: MeasureSettings

    @classmethod
    def of(cls, inputs: Any, points: int | None, labels: Any, settings: MeasureSettings) -> Probe:
        """Takes the points and copies them: what the training loop does to its batch later does not reach the probe."""
        found = as_inputs(inputs, points)
        labels = found.labels if labels is None else _copied(labels if points is None else labels[:points])
        return cls(_copied(found.kwargs or found.args), labels, settings)

    def observe(self, model: nn.Module, weights: State | None = None) -> Observation:
        """Measure ``model``, or it with ``weights`` in place of its own. Raises :class:`InputError`."""
        return observe(model, self.inputs, self.settings, weights=weights, labels=self.labels)

    def described(self) -> dict[str, Any]:
        """What must be the same for numbers to be comparable, as JSON."""
        given = {name: describe(getattr(self.settings, name)) for name in ("positions", "groups")}
        return {**self.settings.as_json(), **given, "probe_inputs": digest(self.inputs), "labels": describe(self.labels)}


@dataclasses.dataclass(frozen=True)
class Baseline:
    """The network, or networks, that ratios refer to.

    Attributes:
        observations: one per network.
        own: rows of the baseline against itself; ``stderr`` is that of the mean over the networks.
        quantile: of its rows, below which rows count as zero.
    """

    observations: list[Observation]
    own: pd.DataFrame
    quantile: float

    @classmethod
    def of(cls, observations: list[Observation], quantile: float) -> Baseline:
        """From measured networks."""
        tables = [compare(one, one, quantile) for one in observations]
        values, errors = (np.stack([table[name].to_numpy(float) for table in tables]) for name in ("value", "stderr"))
        n = len(tables)
        variance = (errors**2).mean(axis=0) / n + (values.var(axis=0, ddof=1) / n if n > 1 else 0.0)
        return cls(observations, tables[0].assign(stderr=np.sqrt(variance)), quantile)

    def rows(self, observation: Observation) -> pd.DataFrame:
        """Rows of a measurement: scores beside the baseline's, with ``baseline_stderr``."""
        return self._with_errors(compare(observation, self.observations, self.quantile))

    def undefined(self, reason: str) -> pd.DataFrame:
        """Rows of a measurement that failed."""
        return self._with_errors(self.own.assign(value=np.nan, ratio=np.nan, stderr=np.nan, reason=reason))

    def _with_errors(self, rows: pd.DataFrame) -> pd.DataFrame:
        keys = [name for name in KEYS if name in rows.columns]
        ours, theirs = (table[keys].astype(str) for table in (rows, self.own))
        if ours.equals(theirs):  # as nearly always
            errors = self.own["stderr"].to_numpy(float)
        else:
            found = pd.Series(self.own["stderr"].to_numpy(float), index=pd.MultiIndex.from_frame(theirs))
            errors = found.reindex(pd.MultiIndex.from_frame(ours)).to_numpy(float)
        table = rows.assign(baseline_stderr=errors)
        text = dict.fromkeys(("layer", "selection", "score", "reason"), str)
        return table[[name for name in COLUMNS if name in table.columns]].astype(text)


def own_state(model: nn.Module) -> dict[str, torch.Tensor]:
    """Parameters and buffers by name, each once, not copied: what stands in for a module's tensors in a functional call."""
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


def check_same_tensors(now: State, then: State) -> None:
    """Raise :class:`InputError` unless names and shapes agree."""
    for name in [*now, *(name for name in then if name not in now)]:
        ours, theirs = (f"shape {tuple(state[name].shape)}" if name in state else "no such tensor" for state in (now, then))
        if ours != theirs:
            raise InputError(
                f"the history is that of another network: {name!r} has {theirs} there and {ours} in this model; "
                "give the network it was begun with, or a new folder"
            )


def equal_states(now: State, then: State) -> bool:
    """Whether all numbers are the same."""
    return all(torch.equal(tensor.detach().cpu(), then[name].to(tensor.dtype)) for name, tensor in now.items())


def described_baseline(baseline: Any, seeds: int | Sequence[int]) -> Any:
    """What a given baseline is, as JSON."""
    if baseline is None:
        return "the network at the first step"
    if isinstance(baseline, nn.Module):
        return digest(own_state(baseline))
    if isinstance(baseline, Mapping):
        return digest(baseline)
    return [str(baseline), describe(seeds)] if baseline == "reinit" else str(baseline)


def _copied(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.detach().clone()
    if isinstance(value, np.ndarray):
        return value.copy()
    if isinstance(value, Mapping):
        return {name: _copied(one) for name, one in value.items()}
    return tuple(_copied(one) for one in value) if isinstance(value, (tuple, list)) else value
