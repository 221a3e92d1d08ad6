"""Models that no pass in eval mode can change, so that only their modes need to be restored."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.modules import module as torch_module

from kagscope.jacobians.layers import ACTIVATIONS

# No buffers, random numbers or writes in eval mode: the output depends only on input and parameters.
_KINDS: tuple[type[nn.Module], ...] = (
    *(nn.Sequential, nn.Identity, nn.Flatten, nn.Unflatten, nn.Linear, nn.Bilinear, *ACTIVATIONS),
    *(nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d),
    *(nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm),
    *(nn.MaxPool1d, nn.MaxPool2d, nn.AvgPool1d, nn.AvgPool2d, nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d),
    *(nn.Softmax, nn.LogSoftmax, nn.Softmin, nn.ZeroPad2d, nn.PixelShuffle, nn.PixelUnshuffle),
)
_FOLDER = str(Path(torch_module.__file__).parent)
_FORWARDS: dict[type[nn.Module], Any] = {  # PyTorch's own, unless they were replaced earlier
    kind: kind.forward for kind in _KINDS if kind.forward.__code__.co_filename.startswith(_FOLDER)
}
_CALL = nn.Module.__call__
_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
_GLOBAL_HOOKS: Any = [getattr(torch_module, f"_global{name}") for name in _HOOKS]


def plain_modules(model: nn.Module) -> list[nn.Module] | None:
    """The modules of a model whose eval passes run only PyTorch code without side effects; otherwise None.

    Such a model consists of exact instances of the listed PyTorch modules, without buffers, hooks or replacements for a
    ``forward`` or a parameter, while autocasting and anomaly detection are off.
    """
    if any(_GLOBAL_HOOKS) or torch.is_anomaly_enabled() or torch._C._is_any_autocast_enabled():
        return None
    modules, seen = [model], {id(model)}
    for module in modules:  # which grows
        if not _is_plain(module):
            return None
        for child in vars(module)["_modules"].values():
            if child is not None and id(child) not in seen:
                seen.add(id(child))
                modules.append(child)
    return modules


def _is_plain(module: nn.Module) -> bool:
    kind, attributes = type(module), vars(module)
    if _FORWARDS.get(kind) is not kind.forward or kind.__call__ is not _CALL or "forward" in attributes:
        return False
    if attributes.get("_compiled_call_impl") is not None or attributes["_buffers"] or any(attributes[name] for name in _HOOKS):
        return False
    return all(parameter is None or type(parameter) is nn.Parameter for parameter in attributes["_parameters"].values())
