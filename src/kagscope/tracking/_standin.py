"""Stands in for the measuring core until that is there: PR and KL of the 2-minors of MLPs' hidden layers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn

import kagscope as kag
from kagscope.errors import InputError
from kagscope.jacobians import hidden_layer_jacobians


@dataclass(frozen=True)
class MeasureSettings:
    layers: tuple[str, ...] | None = None
    k: tuple[int, ...] = (2,)
    selections: tuple[kag.Selection, ...] = (kag.All(),)
    image_shape: tuple[int, int] | None = None
    seed: int = 0


@dataclass(frozen=True)
class Observation:
    table: pd.DataFrame


def observe(model: nn.Module, inputs: Any, settings: MeasureSettings) -> Observation:
    if not isinstance(inputs, torch.Tensor) or len(inputs) == 0:
        raise InputError("inputs are empty")
    found = hidden_layer_jacobians(model, inputs)  # type: ignore[arg-type]
    for layer in settings.layers or ():
        if layer not in found:
            raise InputError(f"no layer {layer!r}")
    rows = []
    for layer, jacobian in found.items():
        if settings.layers and layer not in settings.layers:
            continue
        for k in settings.k:
            moments = kag.minor_moments(
                jacobian.dense(), k, list(settings.selections), image_shape=settings.image_shape, method="exact"
            )
            for selection, m in zip(settings.selections, moments, strict=True):
                for score, values in (("pr", m.participation_ratio), ("kl_uniform", m.kl_uniform)):
                    rows.append(
                        pd.DataFrame(
                            {
                                "layer": layer,
                                "k": k,
                                "selection": str(selection),
                                "point": np.arange(len(values)),
                                "score": score,
                                "value": values,
                                "stderr": 0.0,
                                "exact": True,
                                "reason": "",
                            }
                        )
                    )
    return Observation(pd.concat(rows, ignore_index=True))


def compare(observation: Observation, initial: Observation) -> pd.DataFrame:
    table = observation.table.copy()
    table["baseline"] = initial.table["value"]
    table["ratio"] = table["value"] / table["baseline"]
    return table
