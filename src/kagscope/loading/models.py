"""Build a model by name: ``"package.module:factory"`` or ``"path/to/file.py:factory"``. The named code is run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from kagscope.base.errors import InputError
from kagscope.base.messages import listing
from kagscope.base.named import call_factory, resolve_name


def load_model(spec: str, arguments: Mapping[str, Any] | None = None, *, seed: int | None = None) -> nn.Module:
    """Build the model named by ``spec``. This imports and runs the named module or file: name only code that you trust.

    Args:
        spec: a module or a Python file, a colon, and what is in it: a function that returns an ``nn.Module``, a subclass of
            ``nn.Module``, or a ready ``nn.Module``; dots reach further (``"nets.py:Zoo.small"``). While the code runs, the file's
            folder (for a module the working directory) is on ``sys.path``.
        arguments: keyword arguments of the function or class; all others need defaults.
        seed: seed of torch's global generator while the model is built, restored afterwards; None leaves it alone.

    Returns:
        The model as returned, with its device, dtypes and mode.

    Raises:
        InputError: no colon, no such module, file or name (with close ones), code that raises (what and where), arguments that
            do not fit, or a result that is not a model.
    """
    with torch.random.fork_rng(enabled=seed is not None):
        if seed is not None:
            torch.manual_seed(seed)
        with resolve_name(spec, "model", lambda value: isinstance(value, nn.Module)) as factory:
            return _build(factory, dict(arguments or {}), spec)


def _build(factory: Any, arguments: dict[str, Any], spec: str) -> nn.Module:
    if isinstance(factory, nn.Module):
        if arguments:
            raise InputError(f"{spec} is a ready model and takes no arguments, but {listing(arguments)} were given")
        return factory
    if not callable(factory):
        raise InputError(f"{spec} is a {type(factory).__name__}; expected a function or class that makes an nn.Module, or one")
    model = call_factory(factory, arguments, spec)
    if not isinstance(model, nn.Module):
        raise InputError(f"{spec} returned a {type(model).__name__}; expected an nn.Module")
    return model
