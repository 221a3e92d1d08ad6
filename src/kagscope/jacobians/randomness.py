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
    devices = sorted({tensor.device.index or 0 for tensor in tensors if tensor.device.type == "cuda"})
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002: the legacy state is the one to keep
    try:
        with torch.random.fork_rng(devices=devices):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002
