"""Move probe inputs to the device of the network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn


def move_to_device(inputs: Any, network: nn.Module) -> Any:
    """Move every tensor in ``inputs`` to the device of the network's first parameter."""
    first = next(network.parameters(), None)
    return inputs if first is None else _move(inputs, first.device)


def _move(inputs: Any, device: torch.device) -> Any:
    if isinstance(inputs, torch.Tensor):
        return inputs.to(device)
    if isinstance(inputs, Mapping):
        return {name: _move(item, device) for name, item in inputs.items()}
    if isinstance(inputs, (tuple, list)):
        return tuple(_move(item, device) for item in inputs)
    return inputs
