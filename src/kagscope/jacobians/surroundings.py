"""Preserve the global state of a process while a user's code runs: random states, and settings of PyTorch and NumPy."""

from __future__ import annotations

import contextlib
import random
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

_cuda: Any = torch.backends.cuda
_mha: Any = torch.backends.mha
_KERNELS = ("mkldnn_enabled", "cudnn_enabled", "cudnn_benchmark", "cudnn_deterministic")


def _default_device() -> Any:
    """The default device, or None if none is set, which differs from the CPU."""
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


# (getter, setter)
_Settings = tuple[tuple[Callable[[], Any], Callable[[Any], Any]], ...]
_OF_THREAD: _Settings = (
    (torch.is_grad_enabled, torch._C._set_grad_enabled),
    (_default_device, torch.set_default_device),
    (_autocast, lambda value: _set_autocast(*value)),
    (np.geterr, lambda value: np.seterr(**value)),
)
_OF_PROCESS: _Settings = (
    (torch.get_num_threads, torch.set_num_threads),
    (torch.get_default_dtype, torch.set_default_dtype),
    (
        lambda: (torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()),
        lambda value: torch.use_deterministic_algorithms(value[0], warn_only=value[1]),
    ),
    (
        lambda: (torch.is_anomaly_enabled(), torch.is_anomaly_check_nan_enabled()),
        lambda value: torch.set_anomaly_enabled(*value),
    ),
    (torch.get_float32_matmul_precision, torch.set_float32_matmul_precision),
    (_mha.get_fastpath_enabled, _mha.set_fastpath_enabled),
    (_cuda.flash_sdp_enabled, _cuda.enable_flash_sdp),
    (_cuda.mem_efficient_sdp_enabled, _cuda.enable_mem_efficient_sdp),
    (_cuda.math_sdp_enabled, _cuda.enable_math_sdp),
    (_cuda.cudnn_sdp_enabled, _cuda.enable_cudnn_sdp),
    *((getattr(torch._C, f"_get_{name}"), getattr(torch._C, f"_set_{name}")) for name in _KERNELS),
    (lambda: list(warnings.filters), _set_filters),
)
_RANDOM: _Settings = (
    (random.getstate, random.setstate),
    (lambda: np.random.get_state(legacy=False), np.random.set_state),  # noqa: NPY002
    (torch.get_rng_state, torch.set_rng_state),
)


class _Concurrent:
    """Number of threads that preserve global state, and the state before the first, which the last restores.

    Each restores what it found, but that may have been set by another thread in the meantime.
    """

    lock = threading.Lock()
    inside = threading.local()
    threads = 0
    before: ClassVar[tuple[list[Any], list[Any]]] = [], []


@contextlib.contextmanager
def preserve_global_state(tensors: Iterable[Tensor] = ()) -> Iterator[None]:
    """Restore settings (:func:`preserve_settings`) and all random states on exit, also after an exception.

    Random states are those of PyTorch (and of the GPUs that hold ``tensors``), NumPy and Python. With several threads, the
    state before the first is restored when the last exits.
    """
    outermost = not getattr(_Concurrent.inside, "depth", 0)
    _Concurrent.inside.depth = getattr(_Concurrent.inside, "depth", 0) + 1
    with _Concurrent.lock:
        states = _current(_RANDOM)
        _Concurrent.threads += outermost
        if outermost and _Concurrent.threads == 1:
            _Concurrent.before = _current(_OF_PROCESS), states
    devices = gpus(tensors)
    try:
        with preserve_settings(), torch.random.fork_rng(devices, enabled=bool(devices)):
            yield
    finally:
        _Concurrent.inside.depth -= 1
        with _Concurrent.lock:
            _Concurrent.threads -= outermost
            if outermost and not _Concurrent.threads:
                settings, states = _Concurrent.before
                _restore(_OF_PROCESS, settings)
            for (_, put_back), state in zip(_RANDOM, states, strict=True):
                put_back(state)


@contextlib.contextmanager
def preserve_settings() -> Iterator[None]:
    """Restore the settings of the process and thread on exit, also after an exception.

    These are the number of threads, default dtype and device, autograd's modes, determinism, choice of kernels, what
    NumPy does on errors, and warning filters. Unchanged settings are not touched.
    """
    before = _current(_OF_THREAD + _OF_PROCESS)
    try:
        yield
    finally:
        _restore(_OF_THREAD + _OF_PROCESS, before)


def _current(settings: _Settings) -> list[Any]:
    return [now() for now, _ in settings]


def _restore(settings: _Settings, before: Iterable[Any]) -> None:
    for (now, put_back), value in zip(settings, before, strict=False):
        if now() != value:
            put_back(value)


def gpus(tensors: Iterable[Tensor]) -> list[int]:
    """Indices of the GPUs that hold the tensors."""
    return sorted({tensor.device.index or 0 for tensor in tensors if tensor.device.type == "cuda"})


def seed_generators(seed: int, devices: Iterable[int]) -> None:
    """Seed PyTorch's generators of the CPU and of the given GPUs.

    ``torch.manual_seed`` would also seed GPUs that are not in use yet, which cannot be undone.
    """
    torch.default_generator.manual_seed(seed)
    for device in devices:
        torch.cuda.default_generators[device].manual_seed(seed)
