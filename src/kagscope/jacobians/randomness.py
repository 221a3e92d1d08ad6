"""The random states of PyTorch, NumPy and Python, kept while a user's code runs that may draw from them."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterable, Iterator

import numpy as np
import torch
from torch import Tensor


@contextlib.contextmanager
def random_state_kept(tensors: Iterable[Tensor] = ()) -> Iterator[None]:
    """On leaving, also by an exception, all random states are as before; those of GPUs where any of ``tensors`` lies on one."""
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002
    try:
        with torch.random.fork_rng(devices=gpus(tensors)):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002


def gpus(tensors: Iterable[Tensor]) -> list[int]:
    """Indices of the GPUs where tensors lie."""
    return sorted({tensor.device.index or 0 for tensor in tensors if tensor.device.type == "cuda"})


def seed_generators(seed: int, devices: Iterable[int]) -> None:
    """Seed PyTorch's generators of the CPU and of these GPUs.

    ``torch.manual_seed`` would also leave a seed for GPUs that are not in use yet, which nothing takes back.
    """
    torch.default_generator.manual_seed(seed)
    for device in devices:
        torch.cuda.default_generators[device].manual_seed(seed)
