"""What a process has beside a model, kept while a user's code runs: states of random numbers, and settings for all of PyTorch."""

from __future__ import annotations

import contextlib
import random
import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

_cuda: Any = torch.backends.cuda
_mha: Any = torch.backends.mha
_KERNELS = ("mkldnn_enabled", "cudnn_enabled", "cudnn_benchmark", "cudnn_deterministic")


def _default_device() -> Any:
    """None where there is none, which is not the same as the CPU."""
    context = getattr(torch._GLOBAL_DEVICE_CONTEXT, "device_context", None)
    return None if context is None else context.device


def _autocast() -> tuple[Any, ...]:
    return torch.is_autocast_enabled("cpu"), torch.get_autocast_dtype("cpu"), torch.is_autocast_cache_enabled()


def _set_autocast(enabled: bool, dtype: torch.dtype, cache: bool) -> None:
    torch.set_autocast_enabled("cpu", enabled)
    torch.set_autocast_dtype("cpu", dtype)
    torch.set_autocast_cache_enabled(cache)


def _set_filters(filters: list[Any]) -> None:
    warnings.filters[:] = filters  # type: ignore[index]
    warnings._filters_mutated()  # type: ignore[attr-defined]


# (what it is now, setting it to that)
_SETTINGS: tuple[tuple[Callable[[], Any], Callable[[Any], Any]], ...] = (
    (torch.get_num_threads, torch.set_num_threads),
    (torch.is_grad_enabled, torch._C._set_grad_enabled),
    (torch.get_default_dtype, torch.set_default_dtype),
    (_default_device, torch.set_default_device),
    (
        lambda: (torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()),
        lambda value: torch.use_deterministic_algorithms(value[0], warn_only=value[1]),
    ),
    (
        lambda: (torch.is_anomaly_enabled(), torch.is_anomaly_check_nan_enabled()),
        lambda value: torch.set_anomaly_enabled(*value),
    ),
    (_autocast, lambda value: _set_autocast(*value)),
    (torch.get_float32_matmul_precision, torch.set_float32_matmul_precision),
    (_mha.get_fastpath_enabled, _mha.set_fastpath_enabled),
    (_cuda.flash_sdp_enabled, _cuda.enable_flash_sdp),
    (_cuda.mem_efficient_sdp_enabled, _cuda.enable_mem_efficient_sdp),
    (_cuda.math_sdp_enabled, _cuda.enable_math_sdp),
    (_cuda.cudnn_sdp_enabled, _cuda.enable_cudnn_sdp),
    *((getattr(torch._C, f"_get_{name}"), getattr(torch._C, f"_set_{name}")) for name in _KERNELS),
    (np.geterr, lambda value: np.seterr(**value)),
    (lambda: list(warnings.filters), _set_filters),
)


@contextlib.contextmanager
def surroundings_kept(tensors: Iterable[Tensor] = ()) -> Iterator[None]:
    """On leaving, also by an exception, settings (:func:`settings_kept`) and all random states are as before.

    Random states are those of PyTorch (of GPUs where any of ``tensors`` lies on one), of NumPy and of Python.
    """
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002
    try:
        with settings_kept(), torch.random.fork_rng(devices=gpus(tensors)):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002


@contextlib.contextmanager
def settings_kept() -> Iterator[None]:
    """On leaving, also by an exception, what holds for all of a process or a thread is set as before.

    That is the number of threads, default dtype and device, autograd's modes, what is deterministic, which kernels are used, what
    NumPy does on errors, filters of warnings. What was not changed is not touched.
    """
    settings = [now() for now, _ in _SETTINGS]
    try:
        yield
    finally:
        for (now, put_back), before in zip(_SETTINGS, settings, strict=True):
            if now() != before:
                put_back(before)


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
