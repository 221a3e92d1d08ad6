"""What a network is measured on, and how; the baseline that its ratios refer to."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn

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
        errors = self.own["stderr"].to_numpy(float)
        if not (len(rows) == len(self.own) and all((rows[key].to_numpy() == self.own[key].to_numpy()).all() for key in keys)):
            ours, theirs = (pd.MultiIndex.from_frame(table[keys].astype(str)) for table in (rows, self.own))
            errors = pd.Series(errors, index=theirs).reindex(ours).to_numpy(float)
        table = rows.assign(baseline_stderr=errors)
        text = dict.fromkeys(("layer", "selection", "score", "reason"), str)
        return table[[name for name in COLUMNS if name in table.columns]].astype(text)


def _copied(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.detach().clone()
    if isinstance(value, np.ndarray):
        return value.copy()
    if isinstance(value, Mapping):
        return {name: _copied(one) for name, one in value.items()}
    return tuple(_copied(one) for one in value) if isinstance(value, (tuple, list)) else value
