"""Optimisers of ``torch.optim``, without what only ``torch.compile`` needs."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from kagscope.training.settings import TrainingSettings


def optimizer(settings: TrainingSettings, parameters: Tensor) -> Optimizer:
    """The optimiser that the settings name, of one block of parameters; its steps are made under ``torch.no_grad``."""
    options: dict[str, Any] = {"lr": settings.learning_rate, "weight_decay": settings.weight_decay}
    kind: type[Optimizer]
    match settings.optimizer:
        case "adam":
            kind, options = torch.optim.Adam, options | {"fused": True}
        case "adamw":
            kind, options = torch.optim.AdamW, options | {"fused": True}
        case "sgd":
            kind, options = torch.optim.SGD, options | {"momentum": settings.momentum, "fused": True}
        case _:
            kind, options = torch.optim.RMSprop, options | {"momentum": settings.momentum}
    return _strip_wrappers(kind)([parameters], **options)


def _strip_wrappers(kind: type[Optimizer]) -> type[Optimizer]:
    """``kind`` without the wrappers of its methods, which import ``torch._dynamo``: 1.5 s of each process that trains."""
    return type(kind.__name__, (kind,), {name: inspect.unwrap(getattr(kind, name)) for name in ("add_param_group", "step")})
