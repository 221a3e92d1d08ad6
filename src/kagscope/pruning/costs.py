"""What a model costs: parameters, floating-point operations, seconds."""

from __future__ import annotations

import time

import numpy as np
import torch
from torch import nn
from torch.overrides import BaseTorchFunctionMode

from kagscope.jacobians.inputs import Inputs
from kagscope.jacobians.randomness import random_state_kept
from kagscope.pruning.recorder import forward

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
    with torch.no_grad(), random_state_kept(inputs.tensors().values()):
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
