"""What a network is compared with: another model, weights, a checkpoint file, or the network initialised anew."""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from kagscope.base.errors import DataError, InputError
from kagscope.jacobians.forward import plain_name, unwrap
from kagscope.jacobians.looks import short
from kagscope.jacobians.surroundings import gpus, preserve_global_state, seed_generators
from kagscope.loading.fitting import fitting, load, unusable
from kagscope.loading.weights import load_state

Source = tuple[nn.Module, dict[str, Tensor] | None]
REINIT = "reinit"
MARK = -7.25  # that no initialisation gives


def baselines(model: nn.Module, given: Any, seeds: int | Sequence[int], notes: list[str]) -> Iterator[Source]:
    """The networks to compare with, each as a module and weights that stand in for its own (or None).

    Args:
        model: the network measured.
        given: None, a module, a state dict, the path of a checkpoint, or "reinit".
        seeds: of "reinit": how many, or which.
        notes: gets what a reader should know of the baseline.

    Raises:
        InputError: a baseline of another architecture; the message names the tensor that differs.
        DataError: a file that cannot be read, or whose weights do not fit (which, and what is close).
    """
    if given is None:
        return
    if isinstance(given, nn.Module):
        given = _inner(model, unwrap(given))
        _check_fit(model, dict(given.state_dict()), "the baseline model")
        notes += _other_modules(model, given)
        yield given, None
    elif isinstance(given, Mapping):
        weights = _by_name(model, given, notes)
        _check_fit(model, weights, "the baseline's state dict")
        yield with_weights(model, weights)
    elif isinstance(given, str) and given == REINIT:
        for seed in _seeds(seeds):
            yield reinitialise(model, seed, notes), None
    elif isinstance(given, str | os.PathLike):
        yield with_weights(model, fitting(model, load_state(given, say=notes.append), str(given), say=notes.append))
    else:
        raise InputError(
            f"baseline is {type(given).__name__}; expected a module, a state dict, the path of a checkpoint, 'reinit', or None"
        )


def _inner(model: nn.Module, other: nn.Module) -> nn.Module:
    """What a wrapper such as ``AveragedModel`` has as its ``module``, where that has the names of the model."""
    names = model.state_dict().keys()
    inner = getattr(other, "module", None)
    return inner if isinstance(inner, nn.Module) and other.state_dict().keys() != names == inner.state_dict().keys() else other


def _by_name(model: nn.Module, weights: Mapping[str, Any], notes: list[str]) -> dict[str, Any]:
    """A state dict by the model's names, without what wrappers put before them; as it is where that does not fit."""
    named = {str(name): tensor for name, tensor in weights.items()}
    try:
        return dict(fitting(model, named, "the baseline's weights", say=notes.append))
    except DataError:
        return named


def with_weights(model: nn.Module, weights: Mapping[str, Any]) -> Source:
    """A copy of the model with these weights, or where it cannot be copied, the model with weights that stand in.

    A copy since not all that computes with a weight takes it from its module: so do not activation checkpointing and whatever
    holds a parameter in an attribute of its own.
    """
    try:
        fresh = copy.deepcopy(model)
    except Exception:
        return model, dict(weights)
    load(fresh, weights)
    return fresh, None


def _seeds(given: int | Sequence[int]) -> list[int]:
    several = list(given) if isinstance(given, list | tuple | range | np.ndarray) else None
    if several is None and (isinstance(given, bool) or not isinstance(given, int | np.integer) or given < 1):
        raise InputError(
            f"baseline_seeds is {given!r}; expected how many networks to initialise (at least 1), or a list of seeds"
        )
    seeds = several if several is not None else list(range(int(given)))  # type: ignore[arg-type]
    if not seeds or any(isinstance(seed, bool) or not isinstance(seed, int | np.integer) or seed < 0 for seed in seeds):
        raise InputError(f"baseline_seeds is {given!r}; expected whole numbers of at least 0, such as [0, 1, 2]")
    return [int(seed) for seed in seeds]


def reinitialise(model: nn.Module, seed: int, notes: list[str]) -> nn.Module:
    """A copy of a model with every module initialised anew by its own ``reset_parameters`` (or Hugging Face's ``_init_weights``).

    Args:
        model: not changed, nor is the random state.
        seed: of the initialisation.
        notes: names parameters that no module initialises; they keep their trained values.

    Raises:
        InputError: the model cannot be copied.
    """
    try:
        fresh = copy.deepcopy(model)
    except Exception as error:
        raise InputError(
            f"the model cannot be copied and initialised anew ({short(error, 150)}); give a model or weights as baseline"
        ) from error
    whole = getattr(fresh, "_init_weights", None)
    kept: list[str] = []
    with preserve_global_state(fresh.parameters()), torch.no_grad():
        seed_generators(seed, gpus(fresh.parameters()))
        for path, module in reversed(list(fresh.named_modules())):  # children first, as constructors do
            own = dict(module.named_parameters(path, recurse=False))
            before = {name: parameter.clone() for name, parameter in own.items()}
            for parameter in own.values():
                parameter.__dict__.pop("_is_hf_initialized", None)  # a mark of transformers: "loaded, leave alone"
                parameter.fill_(MARK)
            reset = getattr(module, "reset_parameters", None) or getattr(module, "_reset_parameters", None)
            if callable(reset):
                reset()
            if callable(whole):
                vars(module).pop("_is_hf_initialized", None)
                whole(module)
            for name, parameter in module.named_parameters(path, recurse=False):
                if bool((parameter == MARK).all()):
                    parameter.copy_(before[name])
                    kept.append(name)
    if kept:
        kept.reverse()
        names = ", ".join(kept[:6]) + (", …" if len(kept) > 6 else "")
        note = f"baseline: {names} kept the trained values, since their modules have no reset_parameters"
        if note not in notes:
            notes.append(note)
    return fresh


def _other_modules(model: nn.Module, other: nn.Module) -> list[str]:
    """Where the same weights stand in other modules, as a note: such a baseline computes something else."""
    kinds, others = ({plain_name(name): type(part).__name__ for name, part in one.named_modules()} for one in (model, other))
    found = [name for name in kinds if name in others and kinds[name] != others[name] and name]
    found = found or [name for name in {**kinds, **others} if (name in kinds) != (name in others)]
    if not found:
        return []
    first = found[0]
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
        if kind := unusable(weights[name], tensor):
            raise InputError(f"{what} cannot be used: {name!r} is {kind}; expected a dense tensor, as state_dict() has it")
        if weights[name].shape != tensor.shape:
            shapes = f"{tuple(weights[name].shape)}, expected {tuple(tensor.shape)}"
            raise InputError(f"{what} is of another architecture: {name!r} is {shapes}")
    extra = sorted(weights.keys() - expected.keys())
    if extra:
        raise InputError(f"{what} is of another architecture: it has {', '.join(map(repr, extra[:4]))} in addition")
