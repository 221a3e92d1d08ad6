"""The network that ratios refer to, kept in the history so that a continued training has the same baseline."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping

import torch
from torch import nn

from kagscope.errors import InputError

State = Mapping[str, torch.Tensor]


def own_state(model: nn.Module) -> dict[str, torch.Tensor]:
    """The tensors of the state dict, not copied."""
    return {name: value for name, value in model.state_dict().items() if isinstance(value, torch.Tensor)}


@contextlib.contextmanager
def with_state(model: nn.Module, state: State) -> Iterator[None]:
    """``model`` holds ``state`` for the block, and its own numbers again, bit for bit, after it.

    Not a deep copy of the module: a Lightning module would take its trainer along.

    Raises:
        InputError: the model has other tensors than ``state``.
    """
    now = own_state(model)
    check_same_tensors(now, state)
    kept = {name: tensor.detach().clone() for name, tensor in now.items()}
    try:
        _copy(state, now)
        yield
    finally:
        _copy(kept, now)


def check_same_tensors(now: State, then: State) -> None:
    """Raise :class:`InputError` unless names and shapes agree."""
    for name in [*now, *(name for name in then if name not in now)]:
        ours, theirs = (tuple(state[name].shape) if name in state else None for state in (now, then))
        if ours != theirs:
            raise InputError(
                f"the history is that of another network: {name!r} has {_words(theirs)} there and {_words(ours)} in this model; "
                "give the network it was begun with, or a new folder"
            )


def equal_states(now: State, then: State) -> bool:
    """Whether all numbers are the same."""
    return all(torch.equal(tensor.detach().cpu(), then[name].to(tensor.dtype)) for name, tensor in now.items())


def _words(shape: tuple[int, ...] | None) -> str:
    return "no such tensor" if shape is None else f"shape {shape}"


@torch.no_grad()
def _copy(source: State, target: State) -> None:
    for name, tensor in target.items():
        tensor.copy_(source[name])
