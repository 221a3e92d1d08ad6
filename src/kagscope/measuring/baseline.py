"""What a network is compared with: another model, weights, a checkpoint file, or the network initialised anew."""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from kagscope.errors import InputError
from kagscope.jacobians.runner import untouched
from kagscope.weights import fitting, load_state

Source = tuple[nn.Module, dict[str, Tensor] | None]
REINIT = "reinit"


def baselines(model: nn.Module, given: Any, seeds: int | Sequence[int], notes: list[str]) -> Iterator[Source]:
    """The networks to compare with, each as a module and weights that stand in for its own (or None).

    Args:
        model: the network measured.
        given: None, a module, a state dict, the path of a checkpoint, or "reinit".
        seeds: of "reinit": how many, or which.
        notes: gets what a reader should know of the baseline.

    Raises:
        InputError: a baseline of another architecture; it is said which tensor differs.
        DataError: a file that cannot be read, or whose weights do not fit (which, and what is close).
    """
    if given is None:
        return
    if isinstance(given, nn.Module):
        _check_fit(model, dict(given.state_dict()), "the baseline model")
        yield given, None
    elif isinstance(given, Mapping):
        _check_fit(model, dict(given), "the baseline's state dict")
        yield model, dict(given)
    elif isinstance(given, str) and given == REINIT:
        for seed in range(seeds) if isinstance(seeds, int) else seeds:
            yield reinitialised(model, seed, notes), None
    elif isinstance(given, str | os.PathLike):
        plain = getattr(model, "_orig_mod", model)  # of torch.compile
        yield plain, fitting(plain, load_state(given, say=notes.append), str(given), say=notes.append)
    else:
        raise InputError(
            f"baseline is {type(given).__name__}; expected a module, a state dict, the path of a checkpoint, 'reinit', or None"
        )


def reinitialised(model: nn.Module, seed: int, notes: list[str]) -> nn.Module:
    """A copy of a model with every module initialised anew by its own ``reset_parameters`` (or Hugging Face's ``_init_weights``).

    Args:
        model: not changed, nor is the random state.
        seed: of the initialisation.
        notes: names parameters that no module initialises; they keep their trained values.
    """
    fresh = copy.deepcopy(model)
    whole = getattr(fresh, "_init_weights", None)
    kept: list[str] = []
    with untouched(fresh), torch.no_grad():
        torch.manual_seed(seed)
        for path, module in fresh.named_modules():
            for parameter in module.parameters(recurse=False):
                vars(parameter).pop("_is_hf_initialized", None)  # a mark of transformers: "loaded, leave alone"
            reset = getattr(module, "reset_parameters", None) or getattr(module, "_reset_parameters", None)
            own = [f"{path}.{name}".lstrip(".") for name, _ in module.named_parameters(recurse=False)]
            before = [parameter.clone() for parameter in module.parameters(recurse=False)]
            if callable(reset):
                reset()
            if callable(whole):
                vars(module).pop("_is_hf_initialized", None)
                whole(module)
            if callable(reset):
                continue
            unchanged = [torch.equal(a, b) for a, b in zip(before, module.parameters(recurse=False), strict=True)]
            kept += [name for name, same in zip(own, unchanged, strict=True) if same]
    if kept:
        names = ", ".join(kept[:6]) + (", …" if len(kept) > 6 else "")
        note = f"baseline: {names} kept the trained values, since their modules have no reset_parameters"
        if note not in notes:
            notes.append(note)
    return fresh


def _check_fit(model: nn.Module, weights: Mapping[str, Any], what: str) -> None:
    expected = model.state_dict()
    for name, tensor in expected.items():
        if name not in weights:
            raise InputError(f"{what} is of another architecture: it has no {name!r}")
        other = getattr(weights[name], "shape", None)
        if other != tensor.shape:
            shape = tuple(other) if other is not None else type(weights[name]).__name__
            raise InputError(f"{what} is of another architecture: {name!r} is {shape}, expected {tuple(tensor.shape)}")
    extra = sorted(weights.keys() - expected.keys())
    if extra:
        raise InputError(f"{what} is of another architecture: it has {', '.join(map(repr, extra[:4]))} in addition")
