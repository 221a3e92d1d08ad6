"""Make PyTorch compute plainly during a measurement: without checkpointing, cached or packed tensors, or compiled code."""

from __future__ import annotations

import contextlib
import functools
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any, TypeVar, cast

import torch
from torch._compile import _disable_dynamo
from torch.nn.utils import parametrize
from torch.utils import checkpoint

Method = TypeVar("Method", bound=Callable[..., Any])


@contextlib.contextmanager
def no_saving_hooks() -> Iterator[None]:
    """Disable the caller's saved-tensor hooks, which would pack what passes save for the backward pass."""
    hooks: Any = torch._C._autograd
    pairs = []
    while (pair := hooks._top_saved_tensors_default_hooks(True)) is not None:
        pairs.append(pair)
        hooks._pop_saved_tensors_default_hooks()
    try:
        yield
    finally:
        for pair in reversed(pairs):
            hooks._push_saved_tensors_default_hooks(*pair)


class _Patched:
    """Number of concurrent measurements, and PyTorch's original functions, which the last of them restores."""

    lock = threading.Lock()
    users = 0
    checkpoint: Any = None
    inference: Any = None
    saving: Any = None
    cached = 0
    stance: Any = None


@contextlib.contextmanager
def plain_pytorch() -> Iterator[None]:
    """Let ``torch.utils.checkpoint`` keep what its function computes, ``torch.inference_mode`` act as ``torch.no_grad``,
    ``saved_tensors_hooks`` pack nothing, and compiled code run eagerly.

    What a checkpoint recomputes in the backward pass would not see the variable that a layer map substitutes. What
    inference mode makes is a constant, as under ``no_grad``, but autograd refuses it. Parametrised weights that the
    user has cached are recomputed, because their source tensors may be replaced. Compilers would see hooks and
    transforms that they do not know, and recompile for each.
    """
    parts: Any = checkpoint
    mode: Any = torch.inference_mode
    saving: Any = torch.autograd.graph.saved_tensors_hooks
    with _Patched.lock:
        _Patched.users += 1
        if _Patched.users == 1:
            _Patched.checkpoint = parts._checkpoint_without_reentrant_generator
            _Patched.inference, mode.__enter__ = mode.__enter__, _enter_no_grad
            _Patched.saving, saving.__enter__ = saving.__enter__, _save_unpacked
            parts._checkpoint_without_reentrant_generator = _compute_once
            parts.CheckpointFunction.apply = _call_directly
            _Patched.cached, parametrize._cache_enabled = parametrize._cache_enabled, 0
            compiler = "torch._dynamo" in sys.modules  # takes seconds to load, and is loaded if anything is compiled
            _Patched.stance = torch.compiler.set_stance("force_eager") if compiler else contextlib.nullcontext()
    try:
        yield
    finally:
        with _Patched.lock:
            _Patched.users -= 1
            if not _Patched.users:
                parts._checkpoint_without_reentrant_generator = _Patched.checkpoint
                del parts.CheckpointFunction.apply
                mode.__enter__ = _Patched.inference
                saving.__enter__ = _Patched.saving
                parametrize._cache_enabled = _Patched.cached
                _Patched.stance.__exit__(None, None, None)


def run_as_written(method: Method) -> Method:
    """Keep ``torch.compile`` out of a method that a compiled training step calls."""
    uncompiled: Any = _disable_dynamo(method)

    @functools.wraps(method)
    def call(*args: Any, **kwargs: Any) -> Any:
        compiler = "torch._dynamo" in sys.modules  # as in plain_pytorch
        return uncompiled(*args, **kwargs) if compiler else method(*args, **kwargs)

    return cast(Method, call)


def _enter_no_grad(mode: Any) -> None:
    """Replacement for ``torch.inference_mode``; leaving it undoes the context set here."""
    if mode.mode:
        mode._inference_mode_context = torch.set_grad_enabled(False)
    else:
        _Patched.inference(mode)


def _save_unpacked(hooks: Any) -> None:
    """Replacement for ``saved_tensors_hooks``: tensors restored with fewer bits would change derivatives."""
    torch._C._autograd._push_saved_tensors_default_hooks(torch.detach, torch.detach)


def _compute_once(*args: Any, **kwargs: Any) -> Iterator[None]:
    yield


def _call_directly(function: Any, preserve: bool, *args: Any) -> Any:
    return function(*args)
