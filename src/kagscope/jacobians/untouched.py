"""A user's model as it was, bit for bit, after it has been run: attributes, containers, tensors, modes, hooks, random states."""

from __future__ import annotations

import contextlib
import random
import sys
import threading
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
from torch.nn.utils import parametrize
from torch.utils import checkpoint
from torch.utils.data import Dataset

from kagscope.base.errors import InputError
from kagscope.jacobians.plain import plain_parts
from kagscope.jacobians.surroundings import surroundings_kept

Undo = Callable[[], Any]
_FIXED = frozenset({bool, int, float, complex, str, bytes, type, type(None), FunctionType, BuiltinFunctionType})
_CONTAINERS = frozenset({dict, OrderedDict, list, set})
DEPTH = 2  # of objects within objects that are put back; those of an experiment reach everywhere


@contextlib.contextmanager
def untouched(model: nn.Module, mode: str = "eval", *, passes_only: bool = False) -> Iterator[bool]:
    """The model in "eval" or "train" mode, gradients allowed whatever the caller's mode, its backward hooks silent.

    On leaving all is as before (:func:`kept`). With ``passes_only`` there are only passes and derivatives inside: in eval mode
    a model whose passes change nothing (:func:`~kagscope.jacobians.plain.plain_parts`) then needs its modes put back alone.

    Yields:
        Whether that was so.

    Raises:
        InputError: a model whose mode cannot be set, such as an exported program.
    """
    if passes_only and mode == "eval" and (parts := plain_parts(model)) is not None:
        with torch.inference_mode(False), _no_saving_hooks(), _evaluating(parts):
            yield True
        return
    with torch.inference_mode(False), kept(model):
        try:
            model.train(mode == "train")
        except Exception as error:
            text = " ".join(str(error).split())[:150]
            raise InputError(
                f"the model cannot be put into {mode} mode ({text}); "
                "of an exported program give the Python module it was made from"
            ) from error
        with _no_backward_hooks(model), _no_saving_hooks():
            yield False


@contextlib.contextmanager
def _evaluating(parts: list[nn.Module]) -> Iterator[None]:
    """Plain modules in eval mode, for which nothing else need be set."""
    modes = [(vars(module), module.training) for module in parts]
    for attributes, _ in modes:
        attributes["training"] = False
    try:
        yield
    finally:
        for attributes, training in modes:
            attributes["training"] = training


@contextlib.contextmanager
def kept(model: nn.Module) -> Iterator[None]:
    """On leaving, also by an exception, a model is as it was, scripted modules included, and so are the random states.

    That is the attributes of all modules and what containers, arrays, objects and generators among them hold, and attributes of
    their classes: modes, hooks, whatever a forward pass may leave there. While it lasts, PyTorch runs plainly (:func:`_plainly`).
    """
    seen = {id(module) for module in model.modules()}
    tensors = [*model.parameters(), *model.buffers()]
    with surroundings_kept(tensors), _plainly(), contextlib.ExitStack() as stack:
        torch.set_anomaly_enabled(False)  # which would end at the first NaN
        for device in {"cpu", *(tensor.device.type for tensor in tensors)} - {"meta"}:  # numbers are those of the model's dtype
            stack.enter_context(torch.autocast(device, enabled=False))
        stack.callback(_do_all, [step for module in model.modules() for step in _of_module(module, seen)])
        yield


def _do_all(steps: list[Undo]) -> None:
    """From the last to the first, the others also where one raises."""
    try:
        while steps:
            steps.pop()()
    finally:
        if steps:
            _do_all(steps)


def _of_module(module: nn.Module, seen: set[int], *, own: bool = False) -> list[Undo]:
    """What puts one module back; ``own`` tensors too, of modules that stand in a plain list, for which none stand in."""
    attributes = vars(module)
    before = dict(attributes)
    undo: list[Undo] = [partial(_refill_mapping, attributes, before)]
    for name in ("_parameters", "_buffers", "_modules"):
        held = before.get(name)
        if isinstance(held, dict):  # what they hold is never written
            seen.add(id(held))
            undo.append(partial(_refill_mapping, held, dict(held)))
            if own:
                undo += [step for tensor in held.values() if isinstance(tensor, Tensor) for step in _of_tensor(tensor)]
    undo += _of_values(before.values(), seen)
    if id(type(module)) not in seen:
        undo += [step for kind in type(module).__mro__ for step in _of_class(kind, seen)]
    if isinstance(module, torch.jit.ScriptModule):
        undo += _of_script(module)
    return undo


def _of_class(kind: type, seen: set[int]) -> list[Undo]:
    """What a class of the user's keeps for all its objects, such as how many calls there were."""
    if id(kind) in seen:
        return []
    seen.add(id(kind))
    if not _is_own(kind):
        return []
    before = {name: value for name, value in vars(kind).items() if not name.startswith("__")}

    def put_back() -> None:
        for name in [name for name in vars(kind) if not name.startswith("__") and name not in before]:
            delattr(kind, name)
        for name, value in before.items():
            if vars(kind).get(name) is not value:
                setattr(kind, name, value)

    return [put_back, *_of_values(before.values(), seen)]


def _is_own(kind: type) -> bool:
    """Whether objects of a class are put back: the user's own, not those of libraries, which have threads and files behind them.

    Data sets are large, and no forward pass changes them.
    """
    root = kind.__module__.partition(".")[0]
    if kind is SimpleNamespace or root in sys.stdlib_module_names or issubclass(kind, Dataset):
        return kind is SimpleNamespace
    return root != "kagscope" and "-packages" not in str(getattr(sys.modules.get(root), "__file__", None))


def _of_script(module: Any) -> list[Undo]:
    """A scripted module keeps its tensors, its mode and its other attributes in C++."""
    undo: list[Undo] = []
    for held in (module._parameters, module._buffers):
        tensors = dict(held.items())
        undo += [partial(held.__setitem__, name, one) for name, one in tensors.items()]
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


def _of_values(values: Iterable[Any], seen: set[int], depth: int = DEPTH) -> list[Undo]:
    """What puts several values back: most cannot change, or are containers without contents."""
    undo: list[Undo] = []
    empty = []
    for value in values:
        kind = type(value)
        if kind in _CONTAINERS and not value:
            empty.append(value)
        elif kind not in _FIXED:
            undo += _of_value(value, seen, depth)
    return [partial(_clear, empty), *undo] if empty else undo


def _clear(containers: list[Any]) -> None:
    for one in containers:
        if one:
            one.clear()


def _of_value(value: Any, seen: set[int], depth: int = DEPTH) -> list[Undo]:
    """What puts a value back that a forward pass may change in place; containers and objects with all that they hold."""
    if id(value) in seen or isinstance(value, str | bytes | type):
        return []
    seen.add(id(value))
    if isinstance(value, nn.Module):
        seen |= {id(part) for part in value.modules()}
        return [step for part in value.modules() for step in _of_module(part, seen, own=True)]
    undo: list[Undo] = []
    if isinstance(value, MutableMapping):
        before = dict(value)
        undo.append(partial(_refill_mapping, value, before))
        held: Any = before.values()
    elif isinstance(value, MutableSequence | deque):
        entries = list(value)
        undo.append(partial(_refill_sequence, value, entries))
        held = () if isinstance(value, bytearray) else entries
    elif isinstance(value, MutableSet):
        members = set(value)
        undo.append(partial(_refill_set, value, members))
        held = ()
    elif isinstance(value, tuple):
        held = value
    elif isinstance(value, Tensor | np.ndarray) or not _is_own(type(value)):
        return _of_leaf(value)
    else:
        undo, held = _of_object(value) if depth else ([], ())
        depth -= 1
    return undo + _of_values(held, seen, depth)


def _of_object(value: Any) -> tuple[list[Undo], list[Any]]:
    """What puts the attributes of an object back, and their values."""
    names = {name for kind in type(value).__mro__ for name in _names(vars(kind).get("__slots__", ()))}
    slots = {name: getattr(value, name) for name in names - {"__dict__", "__weakref__"} if hasattr(value, name)}
    undo: list[Undo] = [partial(object.__setattr__, value, name, one) for name, one in slots.items()]
    attributes = getattr(value, "__dict__", {})
    undo.append(partial(_refill_mapping, attributes, dict(attributes)))
    return undo, [*slots.values(), *attributes.values()]


def _names(slots: Any) -> list[str]:
    return [slots] if isinstance(slots, str) else list(slots)


def _of_leaf(value: Any) -> list[Undo]:
    """Arrays, tensors that are no parameters or buffers, and generators of random numbers."""
    if isinstance(value, Tensor):
        return [] if isinstance(value, nn.Parameter) else _of_tensor(value)
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


def _of_tensor(tensor: Tensor) -> list[Undo]:
    if tensor.is_meta or tensor.is_inference() or tensor.layout != torch.strided:
        return []
    copy = tensor.detach().clone()

    def put_back() -> None:
        if not torch.equal(tensor.detach(), copy):  # batch norm counts no version of what it writes
            tensor.data.copy_(copy)  # beside autograd, which may have it in a graph

    return [put_back]


def _refill_mapping(value: Any, before: Mapping[Any, Any]) -> None:
    """Give a dictionary its former entries in their former order; it stays the same object."""
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
    """Hooks of the user on gradients neither run nor change a Jacobian; those on modules and those on all modules."""
    held = [getattr(module, name, None) for module in model.modules() for name in ("_backward_hooks", "_backward_pre_hooks")]
    held += [torch_module._global_backward_hooks, torch_module._global_backward_pre_hooks]
    kept = [(hooks, dict(hooks)) for hooks in held if hooks]
    for hooks, _ in kept:
        hooks.clear()
    try:
        yield
    finally:
        for hooks, entries in kept:
            hooks.update(entries)


@contextlib.contextmanager
def _no_saving_hooks() -> Iterator[None]:
    """What passes save for the way back is not packed by hooks that the caller has set around them."""
    hooks: Any = torch._C._autograd
    held = []
    while (pair := hooks._top_saved_tensors_default_hooks(True)) is not None:
        held.append(pair)
        hooks._pop_saved_tensors_default_hooks()
    try:
        yield
    finally:
        for pair in reversed(held):
            hooks._push_saved_tensors_default_hooks(*pair)


class _Patched:
    """How many measurements run at a time, and PyTorch's own ways, which the last of them puts back."""

    lock = threading.Lock()
    users = 0
    checkpoint: Any = None
    inference: Any = None
    saving: Any = None
    cached = 0
    stance: Any = None


@contextlib.contextmanager
def _plainly() -> Iterator[None]:
    """``torch.utils.checkpoint`` calls its function and keeps what it computes; ``torch.inference_mode`` is ``torch.no_grad``;
    ``saved_tensors_hooks`` pack nothing; what ``torch.compile`` has wrapped runs as it is written.

    What a checkpoint computes again on the way back would not see the variable that a layer map puts into the pass. What
    inference mode makes is a constant, as under ``no_grad``, but autograd refuses to work with it. Parametrised weights that the
    user has cached are computed anew: others may stand in for the tensors that they are made of. Compilers would see hooks and
    transforms that they do not know, and compile anew for each.
    """
    parts: Any = checkpoint
    mode: Any = torch.inference_mode
    saving: Any = torch.autograd.graph.saved_tensors_hooks
    with _Patched.lock:
        _Patched.users += 1
        if _Patched.users == 1:
            _Patched.checkpoint = parts._checkpoint_without_reentrant_generator
            _Patched.inference, mode.__enter__ = mode.__enter__, _enter
            _Patched.saving, saving.__enter__ = saving.__enter__, _save
            parts._checkpoint_without_reentrant_generator = _keep
            parts.CheckpointFunction.apply = _call
            _Patched.cached, parametrize._cache_enabled = parametrize._cache_enabled, 0
            compiler = "torch._dynamo" in sys.modules  # which takes seconds to load, and is there if anything is compiled
            _Patched.stance = torch.compiler.set_stance("force_eager") if compiler else contextlib.nullcontext()
    try:
        yield
    finally:
        with _Patched.lock:
            _Patched.users -= 1
            if not _Patched.users:
                parts._checkpoint_without_reentrant_generator = _Patched.checkpoint
                del parts.CheckpointFunction.apply
                mode.__enter__ = _Patched.inference
                saving.__enter__ = _Patched.saving
                parametrize._cache_enabled = _Patched.cached
                _Patched.stance.__exit__(None, None, None)


def _enter(mode: Any) -> None:
    """What ``torch.inference_mode`` does instead; leaving it undoes what stands for its context."""
    if mode.mode:
        mode._inference_mode_context = torch.set_grad_enabled(False)
    else:
        _Patched.inference(mode)


def _save(hooks: Any) -> None:
    """What ``saved_tensors_hooks`` does instead: tensors that come back otherwise, such as in fewer bits, change derivatives."""
    torch._C._autograd._push_saved_tensors_default_hooks(torch.detach, torch.detach)


def _keep(*args: Any, **kwargs: Any) -> Iterator[None]:
    yield


def _call(function: Any, preserve: bool, *args: Any) -> Any:
    return function(*args)
