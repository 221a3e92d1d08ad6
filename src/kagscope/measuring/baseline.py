"""Baselines of a network: another model, weights, a checkpoint file, or the network initialised anew."""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from kagscope.base.checks import is_whole
from kagscope.base.errors import DataError, InputError
from kagscope.jacobians.forward import plain_name, unwrap
from kagscope.jacobians.model_checks import short
from kagscope.jacobians.surroundings import gpus, preserve_global_state, seed_generators
from kagscope.loading.fitting import load, match_names, unusable_kind
from kagscope.loading.weights import load_state

Network = tuple[nn.Module, dict[str, Tensor] | None]
"""A module, and weights in place of its own."""
REINIT = "reinit"
MARK = -7.25  # a value that no initialisation produces


def baselines(model: nn.Module, baseline: Any, seeds: int | Sequence[int], notes: list[str]) -> Iterator[Network]:
    """The networks to compare with, each as a module and weights that replace its own (or None).

    Args:
        model: the network measured.
        baseline: None, a module, a state dict, the path of a checkpoint, or "reinit".
        seeds: number of seeds for "reinit", or a list of them.
        notes: remarks on the baseline are appended.

    Raises:
        InputError: a baseline of another architecture; the message names the tensor that differs.
        DataError: a file that cannot be read, or whose weights do not fit (which, and what is close).
    """
    if baseline is None:
        return
    if isinstance(baseline, nn.Module):
        baseline = _unwrap_like(model, unwrap(baseline))
        _check_fit(model, dict(baseline.state_dict()), "the baseline model")
        notes += _architecture_note(model, baseline)
        yield baseline, None
    elif isinstance(baseline, Mapping):
        weights = _rename_weights(model, baseline, notes)
        _check_fit(model, weights, "the baseline's state dict")
        yield with_weights(model, weights)
    elif isinstance(baseline, str) and baseline == REINIT:
        for seed in _seeds(seeds):
            yield reinitialise(model, seed, notes), None
    elif isinstance(baseline, str | os.PathLike):
        yield with_weights(model, match_names(model, load_state(baseline, say=notes.append), str(baseline), say=notes.append))
    else:
        raise InputError(
            f"baseline is {type(baseline).__name__}; expected a module, a state dict, the path of a checkpoint, 'reinit', or None"
        )


def _unwrap_like(model: nn.Module, other: nn.Module) -> nn.Module:
    """The module inside a wrapper such as ``AveragedModel``, if its tensors are named as the model's."""
    names = model.state_dict().keys()
    inner = getattr(other, "module", None)
    return inner if isinstance(inner, nn.Module) and other.state_dict().keys() != names == inner.state_dict().keys() else other


def _rename_weights(model: nn.Module, weights: Mapping[str, Any], notes: list[str]) -> dict[str, Any]:
    """Rename a state dict to the model's names, without the prefixes of wrappers; unchanged if it does not fit."""
    named = {str(name): tensor for name, tensor in weights.items()}
    try:
        return dict(match_names(model, named, "the baseline's weights", say=notes.append))
    except DataError:
        return named


def with_weights(model: nn.Module, weights: Mapping[str, Any]) -> Network:
    """A copy of the model with these weights, or if it cannot be copied, the model and the weights to substitute.

    A copy is safer: activation checkpointing, and objects that hold a parameter themselves, do not look weights up in the module.
    """
    try:
        fresh = copy.deepcopy(model)
    except Exception:
        return model, dict(weights)
    load(fresh, weights)
    return fresh, None


def _seeds(given: int | Sequence[int]) -> list[int]:
    several = list(given) if isinstance(given, list | tuple | range | np.ndarray) else None
    if several is None and not is_whole(given, 1):
        raise InputError(
            f"baseline_seeds is {given!r}; expected how many networks to initialise (at least 1), or a list of seeds"
        )
    seeds = several if several is not None else list(range(int(given)))  # type: ignore[arg-type]
    if not seeds or not all(is_whole(seed, 0) for seed in seeds):
        raise InputError(f"baseline_seeds is {given!r}; expected whole numbers of at least 0, such as [0, 1, 2]")
    return [int(seed) for seed in seeds]


def reinitialise(model: nn.Module, seed: int, notes: list[str]) -> nn.Module:
    """Copy a model and initialise every module by its own ``reset_parameters`` (or Hugging Face's ``_init_weights``).

    Args:
        model: left unchanged, like the random state.
        seed: seed of the initialisation.
        notes: parameters that no module initialises, and so keep their trained values, are appended.

    Raises:
        InputError: the model cannot be copied.
    """
    try:
        fresh = copy.deepcopy(model)
    except Exception as error:
        raise InputError(
            f"the model cannot be copied and initialised anew ({short(error, 150)}); give a model or weights as baseline"
        ) from error
    init_weights = getattr(fresh, "_init_weights", None)
    unchanged: list[str] = []
    with preserve_global_state(fresh.parameters()), torch.no_grad():
        seed_generators(seed, gpus(fresh.parameters()))
        for path, module in reversed(list(fresh.named_modules())):  # children first, as constructors do
            parameters = dict(module.named_parameters(path, recurse=False))
            before = {name: parameter.clone() for name, parameter in parameters.items()}
            for parameter in parameters.values():
                parameter.__dict__.pop("_is_hf_initialized", None)  # a mark of transformers: "loaded, leave alone"
                parameter.fill_(MARK)
            reset = getattr(module, "reset_parameters", None) or getattr(module, "_reset_parameters", None)
            if callable(reset):
                reset()
            if callable(init_weights):
                vars(module).pop("_is_hf_initialized", None)
                init_weights(module)
            for name, parameter in module.named_parameters(path, recurse=False):
                if bool((parameter == MARK).all()):
                    parameter.copy_(before[name])
                    unchanged.append(name)
    if unchanged:
        unchanged.reverse()
        names = ", ".join(unchanged[:6]) + (", …" if len(unchanged) > 6 else "")
        note = f"baseline: {names} kept the trained values, since their modules have no reset_parameters"
        if note not in notes:
            notes.append(note)
    return fresh


def _architecture_note(model: nn.Module, other: nn.Module) -> list[str]:
    """Note modules whose class differs from the model's: such a baseline computes something else."""
    kinds, others = ({plain_name(name): type(m).__name__ for name, m in net.named_modules()} for net in (model, other))
    differing = [name for name in kinds if name in others and kinds[name] != others[name] and name]
    differing = differing or [name for name in {**kinds, **others} if (name in kinds) != (name in others)]
    if not differing:
        return []
    first = differing[0]
    return [
        f"the baseline is of another architecture ({first} is {others.get(first, 'missing')} there "
        f"and {kinds.get(first, 'missing')} here): ratios compare architectures, not training"
    ]


def _check_fit(model: nn.Module, weights: Mapping[str, Any], what: str) -> None:
    expected = {plain_name(name): tensor for name, tensor in model.state_dict().items()}
    weights = {plain_name(name): tensor for name, tensor in weights.items()}
    for name, tensor in expected.items():
        if not isinstance(tensor, Tensor):  # extra state of a module
            continue
        if name not in weights:
            raise InputError(f"{what} is of another architecture: it has no {name!r}")
        if kind := unusable_kind(weights[name], tensor):
            raise InputError(f"{what} cannot be used: {name!r} is {kind}; expected a dense tensor, as state_dict() has it")
        if weights[name].shape != tensor.shape:
            shapes = f"{tuple(weights[name].shape)}, expected {tuple(tensor.shape)}"
            raise InputError(f"{what} is of another architecture: {name!r} is {shapes}")
    extra = sorted(weights.keys() - expected.keys())
    if extra:
        raise InputError(f"{what} is of another architecture: it has {', '.join(map(repr, extra[:4]))} in addition")
