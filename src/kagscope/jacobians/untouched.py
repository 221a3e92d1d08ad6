"""Restore a user's model bit for bit after a run: attributes, containers, tensors, modes, hooks, random states."""

from __future__ import annotations

import contextlib
import random
import sys
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping, MutableSequence, MutableSet
from functools import partial
from operator import is_
from types import BuiltinFunctionType, FunctionType, SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules import module as torch_module
from torch.utils.data import Dataset

from kagscope.base.errors import InputError
from kagscope.jacobians.patches import no_saving_hooks, plain_pytorch
from kagscope.jacobians.plain import plain_modules
from kagscope.jacobians.surroundings import preserve_global_state

Undo = Callable[[], Any]
_FIXED = frozenset({bool, int, float, complex, str, bytes, type, type(None), FunctionType, BuiltinFunctionType})
_CONTAINERS = frozenset({dict, OrderedDict, list, set})
DEPTH = 2  # of nested objects that are restored; those of an experiment may reach everything


@contextlib.contextmanager
def untouched(model: nn.Module, mode: str = "eval", *, passes_only: bool = False) -> Iterator[bool]:
    """Run the model in "eval" or "train" mode, with gradients enabled and its backward hooks silenced.

    Everything is restored on exit (:func:`preserve_model`). ``passes_only`` promises only passes and derivatives inside: of a
    model whose eval passes change nothing (:func:`~kagscope.jacobians.plain.plain_modules`), then only the modes are restored.

    Yields:
        Whether only the modes are restored.

    Raises:
        InputError: The mode of the model cannot be set, such as that of an exported program.
    """
    if passes_only and mode == "eval" and (parts := plain_modules(model)) is not None:
        with torch.inference_mode(False), no_saving_hooks(), _eval_mode(parts):
            yield True
        return
    with torch.inference_mode(False), preserve_model(model):
        try:
            model.train(mode == "train")
        except Exception as error:
            text = " ".join(str(error).split())[:150]
            raise InputError(
                f"the model cannot be put into {mode} mode ({text}); "
                "of an exported program give the Python module it was made from"
            ) from error
        with _no_backward_hooks(model), no_saving_hooks():
            yield False


@contextlib.contextmanager
def _eval_mode(parts: list[nn.Module]) -> Iterator[None]:
    """Put plain modules into eval mode; nothing else need be set for them."""
    modes = [(vars(module), module.training) for module in parts]
    for attributes, _ in modes:
        attributes["training"] = False
    try:
        yield
    finally:
        for attributes, training in modes:
            attributes["training"] = training


@contextlib.contextmanager
def preserve_model(model: nn.Module) -> Iterator[None]:
    """Restore a model, scripted modules included, and the random states on exit, also after an exception.

    This covers attributes of all modules and of their classes, and the contents of containers, arrays, objects and generators
    among them: modes, hooks, whatever a forward pass may leave there. Inside, PyTorch runs plainly (:func:`plain_pytorch`).
    """
    seen = {id(module) for module in model.modules()}
    tensors = [*model.parameters(), *model.buffers()]
    with preserve_global_state(tensors), plain_pytorch(), contextlib.ExitStack() as stack:
        torch.set_anomaly_enabled(False)  # which would end at the first NaN
        for device in {"cpu", *(tensor.device.type for tensor in tensors)} - {"meta"}:  # compute in the model's dtype
            stack.enter_context(torch.autocast(device, enabled=False))
        stack.callback(_undo_all, [step for module in model.modules() for step in _steps_for_module(module, seen)])
        yield


def _undo_all(steps: list[Undo]) -> None:
    """Run the steps from last to first, even if some raise."""
    try:
        while steps:
            steps.pop()()
    finally:
        if steps:
            _undo_all(steps)


def _steps_for_module(module: nn.Module, seen: set[int], *, with_tensors: bool = False) -> list[Undo]:
    """Steps that restore one module; ``with_tensors`` for modules in a plain list, whose tensors have no stand-ins."""
    attributes = vars(module)
    before = dict(attributes)
    undo: list[Undo] = [partial(_refill_mapping, attributes, before)]
    for name in ("_parameters", "_buffers", "_modules"):
        store = before.get(name)
        if isinstance(store, dict):  # their contents are never written
            seen.add(id(store))
            undo.append(partial(_refill_mapping, store, dict(store)))
            if with_tensors:
                undo += [step for tensor in store.values() if isinstance(tensor, Tensor) for step in _steps_for_tensor(tensor)]
    undo += _steps_for_values(before.values(), seen)
    if id(type(module)) not in seen:
        undo += [step for kind in type(module).__mro__ for step in _steps_for_class(kind, seen)]
    if isinstance(module, torch.jit.ScriptModule):
        undo += _steps_for_script(module)
    return undo


def _steps_for_class(kind: type, seen: set[int]) -> list[Undo]:
    """Steps that restore the attributes of a user's class, such as a counter of calls."""
    if id(kind) in seen:
        return []
    seen.add(id(kind))
    if not _is_user_class(kind):
        return []
    before = {name: value for name, value in vars(kind).items() if not name.startswith("__")}

    def restore() -> None:
        for name in [name for name in vars(kind) if not name.startswith("__") and name not in before]:
            delattr(kind, name)
        for name, value in before.items():
            if vars(kind).get(name) is not value:
                setattr(kind, name, value)

    return [restore, *_steps_for_values(before.values(), seen)]


def _is_user_class(kind: type) -> bool:
    """Whether a class is the user's own, whose objects are restored; those of libraries may hold threads and files.

    Data sets are large, and no forward pass changes them.
    """
    root = kind.__module__.partition(".")[0]
    if kind is SimpleNamespace or root in sys.stdlib_module_names or issubclass(kind, Dataset):
        return kind is SimpleNamespace
    return root != "kagscope" and "-packages" not in str(getattr(sys.modules.get(root), "__file__", None))


def _steps_for_script(module: Any) -> list[Undo]:
    """Steps for a scripted module, which keeps tensors, mode and attributes in C++."""
    undo: list[Undo] = []
    for store in (module._parameters, module._buffers):
        tensors = dict(store.items())
        undo += [partial(store.__setitem__, name, tensor) for name, tensor in tensors.items()]
    try:
        names = list(module._concrete_type.get_attributes())
    except Exception:  # traced ones have none that change
        names = ["training"]
    for name in names:
        with contextlib.suppress(Exception):
            value = getattr(module, name)
            if isinstance(value, bool | int | float | str):
                undo.append(partial(setattr, module, name, value))
    return undo


def _steps_for_values(values: Iterable[Any], seen: set[int], depth: int = DEPTH) -> list[Undo]:
    """Steps that restore several values, most of which are immutable or empty containers."""
    undo: list[Undo] = []
    empty = []
    for value in values:
        kind = type(value)
        if kind in _CONTAINERS and not value:
            empty.append(value)
        elif kind not in _FIXED:
            undo += _steps_for_value(value, seen, depth)
    return [partial(_clear, empty), *undo] if empty else undo


def _clear(containers: list[Any]) -> None:
    for container in containers:
        if container:
            container.clear()


def _steps_for_value(value: Any, seen: set[int], depth: int = DEPTH) -> list[Undo]:
    """Steps that restore a value that a pass may change in place, with the contents of containers and objects."""
    if id(value) in seen or isinstance(value, str | bytes | type):
        return []
    seen.add(id(value))
    if isinstance(value, nn.Module):
        seen |= {id(module) for module in value.modules()}
        return [step for module in value.modules() for step in _steps_for_module(module, seen, with_tensors=True)]
    undo: list[Undo] = []
    if isinstance(value, MutableMapping):
        before = dict(value)
        undo.append(partial(_refill_mapping, value, before))
        contents: Any = before.values()
    elif isinstance(value, MutableSequence | deque):
        entries = list(value)
        undo.append(partial(_refill_sequence, value, entries))
        contents = () if isinstance(value, bytearray) else entries
    elif isinstance(value, MutableSet):
        members = set(value)
        undo.append(partial(_refill_set, value, members))
        contents = ()
    elif isinstance(value, tuple):
        contents = value
    elif isinstance(value, Tensor | np.ndarray) or not _is_user_class(type(value)):
        return _steps_for_leaf(value)
    else:
        undo, contents = _steps_for_object(value) if depth else ([], ())
        depth -= 1
    return undo + _steps_for_values(contents, seen, depth)


def _steps_for_object(value: Any) -> tuple[list[Undo], list[Any]]:
    """Steps that restore the attributes of an object, and the values of the attributes."""
    names = {name for kind in type(value).__mro__ for name in _slot_names(vars(kind).get("__slots__", ()))}
    slots = {name: getattr(value, name) for name in names - {"__dict__", "__weakref__"} if hasattr(value, name)}
    undo: list[Undo] = [partial(object.__setattr__, value, name, value_of_slot) for name, value_of_slot in slots.items()]
    attributes = getattr(value, "__dict__", {})
    undo.append(partial(_refill_mapping, attributes, dict(attributes)))
    return undo, [*slots.values(), *attributes.values()]


def _slot_names(slots: Any) -> list[str]:
    return [slots] if isinstance(slots, str) else list(slots)


def _steps_for_leaf(value: Any) -> list[Undo]:
    """Steps that restore arrays, tensors other than parameters and buffers, and random generators."""
    if isinstance(value, Tensor):
        return [] if isinstance(value, nn.Parameter) else _steps_for_tensor(value)
    if isinstance(value, np.ndarray):
        copy = value.copy()
        return [partial(np.copyto, value, copy)] if value.flags.writeable else []
    if isinstance(value, torch.Generator):
        return [partial(value.set_state, value.get_state())]
    if isinstance(value, np.random.Generator):
        return [partial(setattr, value.bit_generator, "state", value.bit_generator.state)]
    if isinstance(value, random.Random):
        return [partial(value.setstate, value.getstate())]
    if isinstance(value, np.random.RandomState):
        return [partial(value.set_state, value.get_state())]
    return []


def _steps_for_tensor(tensor: Tensor) -> list[Undo]:
    if tensor.is_meta or tensor.is_inference() or tensor.layout != torch.strided:
        return []
    copy = tensor.detach().clone()

    def restore() -> None:
        if not torch.equal(tensor.detach(), copy):  # batch norm writes without counting versions
            tensor.data.copy_(copy)  # bypasses autograd, which may hold the tensor in a graph

    return [restore]


def _refill_mapping(value: Any, before: Mapping[Any, Any]) -> None:
    """Restore a dictionary's entries and their order in place."""
    as_before = len(value) == len(before) and all(map(is_, value, before)) and all(map(is_, value.values(), before.values()))
    if not as_before:
        value.clear()
        value.update(before)


def _refill_sequence(value: Any, before: list[Any]) -> None:
    if len(value) != len(before) or any(new is not old for new, old in zip(value, before, strict=True)):
        while value:
            value.pop()
        value.extend(before)


def _refill_set(value: Any, before: set[Any]) -> None:
    if value != before:
        value.clear()
        value |= before


@contextlib.contextmanager
def _no_backward_hooks(model: nn.Module) -> Iterator[None]:
    """Disable the user's gradient hooks, on this model and on all modules, which could change a Jacobian."""
    tables = [getattr(module, name, None) for module in model.modules() for name in ("_backward_hooks", "_backward_pre_hooks")]
    tables += [torch_module._global_backward_hooks, torch_module._global_backward_pre_hooks]
    saved = [(hooks, dict(hooks)) for hooks in tables if hooks]
    for hooks, _ in saved:
        hooks.clear()
    try:
        yield
    finally:
        for hooks, entries in saved:
            hooks.update(entries)
