"""Models of whose modules no pass in eval mode can change anything, so that nothing but their modes need be put back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.modules import module as torch_module

from kagscope.jacobians.layers import ACTIVATIONS

# No buffers, no random numbers in eval mode, no writing: what each computes depends on its input and its parameters alone.
_KINDS: tuple[type[nn.Module], ...] = (
    *(nn.Sequential, nn.Identity, nn.Flatten, nn.Unflatten, nn.Linear, nn.Bilinear, *ACTIVATIONS),
    *(nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d),
    *(nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm),
    *(nn.MaxPool1d, nn.MaxPool2d, nn.AvgPool1d, nn.AvgPool2d, nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d),
    *(nn.Softmax, nn.LogSoftmax, nn.Softmin, nn.ZeroPad2d, nn.PixelShuffle, nn.PixelUnshuffle),
)
_FOLDER = str(Path(torch_module.__file__).parent)
_FORWARDS: dict[type[nn.Module], Any] = {  # as they are in PyTorch, unless something has put others in their place before
    kind: kind.forward for kind in _KINDS if kind.forward.__code__.co_filename.startswith(_FOLDER)
}
_CALL = nn.Module.__call__
_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
_OF_ALL: Any = [getattr(torch_module, f"_global{name}") for name in _HOOKS]


def plain_parts(model: nn.Module) -> list[nn.Module] | None:
    """The modules of a model whose passes in eval mode run PyTorch's own code alone, which keeps and changes nothing; else None.

    That is said of a model that is made of few kinds of PyTorch's modules, exactly, without buffers, hooks or anything in the
    place of a ``forward`` or a parameter; and only while autocasting and the detection of anomalies are off.
    """
    if any(_OF_ALL) or torch.is_anomaly_enabled() or torch._C._is_any_autocast_enabled():
        return None
    parts, seen = [model], {id(model)}
    for part in parts:  # which grows
        if not _is_plain(part):
            return None
        for one in vars(part)["_modules"].values():
            if one is not None and id(one) not in seen:
                seen.add(id(one))
                parts.append(one)
    return parts


def _is_plain(module: nn.Module) -> bool:
    kind, attributes = type(module), vars(module)
    if _FORWARDS.get(kind) is not kind.forward or kind.__call__ is not _CALL or "forward" in attributes:
        return False
    if attributes.get("_compiled_call_impl") is not None or attributes["_buffers"] or any(attributes[name] for name in _HOOKS):
        return False
    return all(one is None or type(one) is nn.Parameter for one in attributes["_parameters"].values())
