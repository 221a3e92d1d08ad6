"""The parameters of a model's ``forward``, and the model inside its wrappers."""

from __future__ import annotations

import inspect

from torch import Tensor, nn

COMPILED = "_orig_mod"  # attribute under which torch.compile keeps the module
INNER = ("module", COMPILED, "base_model", "model")  # attributes in which wrappers keep the wrapped module


def unwrap(model: nn.Module) -> nn.Module:
    """The module inside ``torch.compile`` or data parallelism, whose graphs and replicas take no hooks."""
    while True:
        if isinstance(getattr(model, COMPILED, None), nn.Module):
            model = getattr(model, COMPILED)
        elif isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
            model = model.module
        else:
            return model


def plain_name(name: str) -> str:
    """The name of a module or weight without the prefixes that ``torch.compile`` adds."""
    return ".".join(part for part in name.split(".") if part != COMPILED)


def own_state(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers by name, each once and not copied."""
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


def count_required(model: nn.Module) -> int:
    """Number of positional arguments that ``forward`` requires."""
    return sum(parameter.default is parameter.empty for parameter in _parameters(model))


def positional_parameters(model: nn.Module) -> list[str]:
    """Names of the positional parameters of ``forward``."""
    return [parameter.name for parameter in _parameters(model)]


def _parameters(model: nn.Module) -> list[inspect.Parameter]:
    """Positional parameters of ``forward``, looked up in the wrapped module if a wrapper passes all arguments on."""
    try:
        parameters = list(inspect.signature(model.forward).parameters.values())
    except (TypeError, ValueError):
        return []
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    if positional or all(p.kind is not p.VAR_POSITIONAL for p in parameters):
        return positional
    inner = next((module for name in INNER if isinstance(module := getattr(model, name, None), nn.Module)), None)
    return [] if inner is None else _parameters(inner)
