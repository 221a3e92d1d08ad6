"""A small training run to be tracked, and a clock that a test moves."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

import kagscope as kag

DATA = torch.rand(256, 16, generator=torch.Generator().manual_seed(3))
LABELS = DATA[:, :4].argmax(1)
PROBE = DATA[:12]


def small_net(seed: int = 1) -> nn.Sequential:
    """16-8-8-4 with dropout-free GELU, weights from ``seed`` alone."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(16, 8), nn.GELU(), nn.Linear(8, 8), nn.GELU(), nn.Linear(8, 4))


def train(
    model: nn.Module,
    steps: int,
    tell: Callable[[int], Any] = bool,
    *,
    first: int = 1,
    seed: int = 7,
    rate: float = 0.02,
) -> None:
    """Plain SGD, so that training can go on from any step: the batch of a step depends on ``seed`` and the step alone."""
    for step in range(first, steps + 1):
        batch = torch.randint(0, len(DATA), (32,), generator=torch.Generator().manual_seed(seed * 100_000 + step))
        model.zero_grad()
        (20 * nn.functional.cross_entropy(model(DATA[batch]), LABELS[batch])).backward()
        with torch.no_grad():  # torch.optim takes seconds to import
            for parameter in model.parameters():
                if parameter.grad is not None:
                    parameter.sub_(rate * parameter.grad)
        tell(step)


def make_tracker(model: nn.Module, **options: Any) -> kag.Tracker:
    """A tracker of the 2-minors of both hidden layers on :data:`PROBE`, unless said otherwise."""
    options = {"probe_inputs": PROBE, "layers": ["1", "3"], "k": (2,), "every": 10} | options
    return kag.Tracker(model, options.pop("probe_inputs"), **options)


class HandClock:
    """Seconds that pass only when a test says so."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


def events_in(folder: str | Path) -> Any:
    """The TensorBoard event files of a folder; every worker imports every test file, and their reader takes long to."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    return EventAccumulator(str(folder)).Reload()
