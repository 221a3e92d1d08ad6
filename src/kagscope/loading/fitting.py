"""Weights by the names that a model has: what wrappers put before the names is dropped, and what they keep beside is left."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from kagscope.base.errors import DataError, InputError
from kagscope.base.messages import close_names, listing
from kagscope.base.progress import Say, silent


def load_into(model: nn.Module, state: Mapping[str, Tensor], where: str = "the weights", *, say: Say = silent) -> None:
    """Copy ``state`` into ``model``, in its own dtypes; nothing is changed unless all of it fits (see :func:`fitting`)."""
    if any(tensor.is_meta for tensor in model.state_dict().values()):
        raise InputError("the model is on the meta device and holds no weights; build it on the CPU, or call to_empty first")
    model.load_state_dict(fitting(model, state, where, say=say))


def fitting(model: nn.Module, state: Mapping[str, Tensor], where: str = "the weights", *, say: Say = silent) -> dict[str, Tensor]:
    """``state`` under the names that ``model`` has.

    Names are taken as they are. Where they do not fit, prefixes that wrappers add are dropped if that makes all of them fit:
    ``_orig_mod`` anywhere (``torch.compile``), then a part that all names begin with (``module.`` of data parallel,
    ``model.`` of Lightning), or that just those begin with which fit: the others are what a wrapper keeps beside the model, such
    as class weights or how many models were averaged. A name that is missing because its tensor is tied to one that is there is
    filled from that one.

    Args:
        model: left as it is.
        state: tensors by name.
        where: what to call the weights in an error, such as their file.
        say: called with a sentence when prefixes were dropped.

    Raises:
        DataError: a missing or unexpected name (with close ones), or a wrong shape.
    """
    expected = model.state_dict()
    candidates = [(_with_tied(names, expected), dropped) for names, dropped in _renamings(state)]
    found, dropped = max(candidates, key=lambda candidate: len(candidate[0].keys() & expected.keys()))  # the first of the best
    inside = {} if found.keys() == expected.keys() else _inside(_without_part(state, "_orig_mod"), expected)
    if len(inside) > 1:
        raise DataError(
            f"{where} hold the model's weights several times ({listing([f'{prefix}…' for prefix in inside])}); "
            "save the one to measure, for example as safetensors"
        )
    if inside:
        ((dropped, (found, left)),) = inside.items()
        say(f"{where}: left {listing(left)}, which {'is' if len(left) == 1 else 'are'} not the model's")
    _check_names(expected, found, f"{where} (after dropping {dropped})" if dropped else where)
    for name, tensor in expected.items():
        if not nn.parameter.is_lazy(tensor) and found[name].shape != tensor.shape:
            raise DataError(
                f"{where} do not fit the model: {name} has shape {tuple(found[name].shape)}, expected {tuple(tensor.shape)}; "
                "check the widths, the number of classes and the image size"
            )
    if dropped:
        say(f"{where}: dropped {dropped} from the names of the weights, which then fit the model")
    return found


def _renamings(state: Mapping[str, Tensor]) -> list[tuple[dict[str, Tensor], str]]:
    """The names as they are, then with ever more of the wrappers' parts dropped, and what was dropped."""
    plain = _without_part(state, "_orig_mod")
    found = [(dict(state), "")]
    said: list[str] = []
    if plain.keys() != state.keys():
        said.append("_orig_mod.")
        found.append((plain, "_orig_mod."))
    names = {name: name for name in plain}
    while names and len(heads := {name.partition(".")[0] for name in names.values()}) == 1:
        if not all("." in name for name in names.values()):
            break
        names = {old: new.partition(".")[2] for old, new in names.items()}
        said.append(f"{heads.pop()}.")
        found.append(({new: plain[old] for old, new in names.items()}, " and ".join(said)))
    return found


def _without_part(state: Mapping[str, Tensor], part: str) -> dict[str, Tensor]:
    return {".".join(one for one in name.split(".") if one != part): tensor for name, tensor in state.items()}


def _inside(state: dict[str, Tensor], expected: Mapping[str, Tensor]) -> dict[str, tuple[dict[str, Tensor], list[str]]]:
    """By prefix, the weights of exactly this model among others, and the names that lie outside of the prefix."""
    found = {}
    for prefix in dict.fromkeys(name.removesuffix(one) for name in state for one in expected if name.endswith(f".{one}")):
        part = _with_tied({name.removeprefix(prefix): state[name] for name in state if name.startswith(prefix)}, expected)
        if part.keys() == expected.keys():
            found[prefix] = part, [name for name in state if not name.startswith(prefix)]
    return found


def _with_tied(state: dict[str, Tensor], expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """``state`` with names added whose tensors share their memory, in the model, with one that is there."""
    absent = [name for name in expected if name not in state and not nn.parameter.is_lazy(expected[name])]
    present = {_memory(expected[name]): name for name in expected if name in state and not nn.parameter.is_lazy(expected[name])}
    tied = {name: present[_memory(expected[name])] for name in absent if _memory(expected[name]) in present}
    return state | {name: state[other] for name, other in tied.items()}


def _memory(tensor: Tensor) -> tuple[Any, ...]:
    empty = None if tensor.numel() else id(tensor)  # empty tensors all live at address 0
    return tensor.data_ptr(), tuple(tensor.shape), tuple(tensor.stride()), empty


def _check_names(expected: Mapping[str, Tensor], state: Mapping[str, Tensor], where: str) -> None:
    missing, extra = [n for n in expected if n not in state], [n for n in state if n not in expected]
    if not missing and not extra:
        return
    parts = []
    if missing:
        parts.append(f"lack {listing(missing)}")
    if extra:
        parts.append(f"hold in addition {listing(extra)}")
    hint = close_names(missing[0], extra) if missing else close_names(extra[0], list(expected))
    raise DataError(f"{where} do not fit the model: they {' and '.join(parts)}{hint}; expected {listing(list(expected), 12)}")
