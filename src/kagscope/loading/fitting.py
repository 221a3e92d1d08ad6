"""Match the names of weights to those of a model: drop prefixes added by wrappers, and ignore a wrapper's own state."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from kagscope.base.errors import DataError, InputError
from kagscope.base.messages import close_names, listing
from kagscope.base.progress import Say, silent
from kagscope.jacobians.forward import plain_name

EXTRA = nn.modules.module._EXTRA_STATE_KEY_SUFFIX


def load_into(model: nn.Module, state: Mapping[str, Tensor], source: str = "the weights", *, say: Say = silent) -> None:
    """Copy ``state`` into ``model``, in the model's dtypes, if all of it fits (see :func:`match_names`)."""
    if any(isinstance(tensor, Tensor) and tensor.is_meta for tensor in model.state_dict().values()):
        raise InputError("the model is on the meta device and holds no weights; build it on the CPU, or call to_empty first")
    load(model, match_names(model, state, source, say=say))


def load(model: nn.Module, weights: Mapping[str, Any]) -> None:
    """Copy fitting weights (see :func:`match_names`) into ``model``, including non-persistent buffers."""
    own_state = model.state_dict()
    model.load_state_dict(own_state | {name: tensor for name, tensor in weights.items() if name in own_state})
    for name, buffer in model.named_buffers():
        if name in weights and name not in own_state:
            buffer.data.copy_(weights[name])


def match_names(
    model: nn.Module, state: Mapping[str, Tensor], source: str = "the weights", *, say: Say = silent
) -> dict[str, Tensor]:
    """Return ``state`` under the names used by ``model``.

    If the names do not fit, prefixes added by wrappers are dropped, provided that all names then fit:
    ``_orig_mod`` anywhere (``torch.compile``; the model may have it too), then a part that all names begin with (``module.`` from
    data parallel, ``model.`` from Lightning), or that only fitting names begin with: the others are the wrapper's own state,
    such as class weights or the number of averaged models. A name that is missing because its tensor is tied to one
    that is present is filled from that one. Extra state of modules is included if both have it.

    Args:
        model: the model, not changed.
        state: tensors by name.
        source: name of the weights in errors, such as their file.
        say: called with a sentence if prefixes were dropped.

    Raises:
        DataError: a missing or unexpected name (with close ones), a wrong shape, or not a dense tensor of such numbers.
    """
    extra = {str(name): value for name, value in state.items() if _is_extra(str(name))}
    state = {str(name): value for name, value in state.items() if str(name) not in extra}
    expected = {name: tensor for name, tensor in model.state_dict().items() if not _is_extra(name)}
    ours = {plain_name(name): name for name in expected}
    if any(name != plain for plain, name in ours.items()) and len(ours) == len(expected):  # parts wrapped by torch.compile
        state, expected = _plain(state), {plain: expected[name] for plain, name in ours.items()}
    candidates = [(_add_tied(names, expected), dropped) for names, dropped in _renamings(state)]
    renamed, dropped = max(candidates, key=lambda candidate: len(candidate[0].keys() & expected.keys()))  # first of equals
    inside = {} if renamed.keys() == expected.keys() else _find_submodels(_plain(state), expected)
    if len(inside) > 1:
        raise DataError(
            f"{source} hold the model's weights several times ({listing([f'{prefix}…' for prefix in inside])}); "
            "save the one to measure, for example as safetensors"
        )
    if inside:
        ((dropped, (renamed, ignored)),) = inside.items()
        say(f"{source}: left {listing(ignored)}, which {'is' if len(ignored) == 1 else 'are'} not the model's")
    _check_names(expected, renamed, f"{source} (after dropping {dropped})" if dropped else source)
    for name, tensor in expected.items():
        if kind := unusable_kind(renamed[name], tensor):
            raise DataError(f"{source} do not fit the model: {name} is {kind}; expected a dense tensor, as state_dict() has it")
        if not nn.parameter.is_lazy(tensor) and renamed[name].shape != tensor.shape:
            raise DataError(
                f"{source} do not fit the model: {name} has shape {tuple(renamed[name].shape)}, expected {tuple(tensor.shape)}; "
                "check the widths, the number of classes and the image size"
            )
    if dropped:
        say(f"{source}: dropped {dropped} from the names of the weights, which then fit the model")
    kept = {name: value for name, value in extra.items() if name in model.state_dict()}
    return {ours.get(name, name): tensor for name, tensor in renamed.items()} | kept


def unusable_kind(value: Any, expected: Tensor) -> str:
    """Description of ``value`` if it cannot provide a tensor's numbers, whatever its shape; else ""."""
    if not isinstance(value, Tensor):
        return f"of type {type(value).__name__}"
    kinds = {
        "on the meta device, without values": value.is_meta,
        "quantised": value.is_quantized,
        "sparse or nested": value.layout != expected.layout,
        "complex": value.is_complex() and not expected.is_complex(),
    }
    return next((kind for kind, so in kinds.items() if so), "")


def _is_extra(name: str) -> bool:
    """Whether the name is that of a module's ``get_extra_state`` in a state dict."""
    return name.rpartition(".")[2] == EXTRA


def _renamings(state: Mapping[str, Tensor]) -> list[tuple[dict[str, Tensor], str]]:
    """The state with unchanged names, then with more and more wrapper prefixes dropped, and descriptions of these."""
    plain = _plain(state)
    candidates = [(dict(state), "")]
    dropped: list[str] = []
    if plain.keys() != state.keys():
        dropped.append("_orig_mod.")
        candidates.append((plain, "_orig_mod."))
    names = {name: name for name in plain}
    while names and len(heads := {name.partition(".")[0] for name in names.values()}) == 1:
        if not all("." in name for name in names.values()):
            break
        names = {old: new.partition(".")[2] for old, new in names.items()}
        dropped.append(f"{heads.pop()}.")
        candidates.append(({new: plain[old] for old, new in names.items()}, " and ".join(dropped)))
    return candidates


def _plain(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {plain_name(name): tensor for name, tensor in state.items()}


def _find_submodels(state: dict[str, Tensor], expected: Mapping[str, Tensor]) -> dict[str, tuple[dict[str, Tensor], list[str]]]:
    """Weights of exactly this model by prefix, and the names outside of the prefix."""
    submodels = {}
    for prefix in dict.fromkeys(name.removesuffix(end) for name in state for end in expected if name.endswith(f".{end}")):
        submodel = _add_tied({name.removeprefix(prefix): state[name] for name in state if name.startswith(prefix)}, expected)
        if submodel.keys() == expected.keys():
            submodels[prefix] = submodel, [name for name in state if not name.startswith(prefix)]
    return submodels


def _add_tied(state: dict[str, Tensor], expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Add names whose tensors share memory, in the model, with one that is present."""
    absent = [name for name in expected if name not in state and not nn.parameter.is_lazy(expected[name])]
    present = {_memory(expected[name]): name for name in expected if name in state and not nn.parameter.is_lazy(expected[name])}
    tied = {name: present[_memory(expected[name])] for name in absent if _memory(expected[name]) in present}
    return state | {name: state[other] for name, other in tied.items()}


def _memory(tensor: Tensor) -> tuple[Any, ...]:
    if tensor.layout != torch.strided or not tensor.numel():  # sparse tensors have no address, empty ones all have 0
        return (id(tensor),)
    return tensor.data_ptr(), tuple(tensor.shape), tuple(tensor.stride())


def _check_names(expected: Mapping[str, Tensor], state: Mapping[str, Tensor], source: str) -> None:
    missing, extra = [n for n in expected if n not in state], [n for n in state if n not in expected]
    if not missing and not extra:
        return
    parts = []
    if missing:
        parts.append(f"lack {listing(missing)}")
    if extra:
        parts.append(f"hold in addition {listing(extra)}")
    hint = close_names(missing[0], extra) if missing else close_names(extra[0], list(expected))
    raise DataError(f"{source} do not fit the model: they {' and '.join(parts)}{hint}; expected {listing(list(expected), 12)}")
