"""What a model's ``forward`` takes, and the model inside what wraps it."""

from __future__ import annotations

import inspect

from torch import Tensor, nn

COMPILED = "_orig_mod"  # where torch.compile keeps the module
INNER = ("module", COMPILED, "base_model", "model")  # where wrappers that pass all arguments on keep what they wrap


def unwrap(model: nn.Module) -> nn.Module:
    """The module that ``torch.compile`` or data parallelism has wrapped: its graphs and copies on devices take no hooks."""
    while True:
        if isinstance(getattr(model, COMPILED, None), nn.Module):
            model = getattr(model, COMPILED)
        elif isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
            model = model.module
        else:
            return model


def plain_name(name: str) -> str:
    """The name of a module or weight as it is where ``torch.compile`` wraps no part of the model."""
    return ".".join(part for part in name.split(".") if part != COMPILED)


def own_state(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers by name, each once, not copied: what stands in for a module's tensors in a functional call."""
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


def count_required(model: nn.Module) -> int:
    """How many positional arguments ``forward`` cannot do without."""
    return sum(parameter.default is parameter.empty for parameter in _parameters(model))


def positional(model: nn.Module) -> list[str]:
    """Names of the positional parameters of ``forward``."""
    return [parameter.name for parameter in _parameters(model)]


def _parameters(model: nn.Module) -> list[inspect.Parameter]:
    """The positional parameters of ``forward``; of a wrapper that passes all arguments on, those of what it wraps."""
    try:
        found = list(inspect.signature(model.forward).parameters.values())
    except (TypeError, ValueError):
        return []
    named = [one for one in found if one.kind in (one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD)]
    if named or all(one.kind is not one.VAR_POSITIONAL for one in found):
        return named
    inner = next((part for name in INNER if isinstance(part := getattr(model, name, None), nn.Module)), None)
    return [] if inner is None else _parameters(inner)
