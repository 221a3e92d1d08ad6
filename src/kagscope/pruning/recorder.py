"""Record a forward pass: every torch function that it calls, with the tensors read and written."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from kagscope.jacobians.inputs import Inputs
from kagscope.jacobians.runner import NoHooks
from kagscope.jacobians.surroundings import preserve_global_state

# Calls that return no tensor and do not depend on a tensor's values, including reads of attributes such as shape.
METADATA = {
    "size", "dim", "ndimension", "numel", "nelement", "element_size", "stride", "storage_offset", "is_contiguous", "get_device",
    "is_floating_point", "is_complex", "is_signed", "is_same_size", "type", "__len__", "__hash__", "__repr__", "__format__",
    "_set_grad_enabled", "is_conj", "is_neg", "is_inference", "is_storage", "data_ptr", "register_hook", "requires_grad_",
    "has_names", "is_nonzero_dim", "result_type", "broadcast_shapes", "is_tensor", "is_grad_enabled",
}  # fmt: skip


def name_of(function: Callable[..., Any]) -> str:
    """Name of a torch function or method, or of an attribute such as ``Tensor.T``."""
    name = getattr(function, "__name__", type(function).__name__)
    if name in ("__get__", "__set__"):
        name = ("" if name == "__get__" else "set ") + getattr(getattr(function, "__self__", None), "__name__", "attribute")
    return str(name).split(".")[0]


@dataclass(frozen=True)
class FunctionCall:
    """A call of a torch function in a forward pass.

    Attributes:
        index: index of the call.
        function: the function that was called.
        args, kwargs: its arguments; tensors have their contents after the whole forward pass.
        reads: numbers of the values held by the tensors among the arguments, in :func:`tensors_in` order.
        shapes: shapes of these tensors at the call.
        writes: numbers of the values of the returned tensors, or of the tensor changed in place.
        out: the returned value.
        out_shapes: shapes of the returned tensors at the call.
    """

    index: int
    function: Callable[..., Any]
    name: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    reads: tuple[int, ...]
    shapes: tuple[tuple[int, ...], ...]
    writes: tuple[int, ...]
    out: Any
    out_shapes: tuple[tuple[int, ...], ...]

    def argument(self, position: int, name: str, default: Any = None) -> Any:
        """An argument given by position or by name."""
        return self.args[position] if position < len(self.args) else self.kwargs.get(name, default)


def tensors_in(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> list[Tensor]:
    """Tensors among arguments, including those in lists, tuples and mappings."""
    return [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]


class Recorder(TorchFunctionMode):
    """Records calls while active. Values are numbered: a tensor changed in place holds several in turn."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[FunctionCall] = []
        self.current: dict[int, int] = {}  # id of a tensor -> number of its current value
        self.alive: list[Tensor] = []  # keeps ids from being reused
        self.count = 0

    def value(self, tensor: Tensor) -> int:
        """Number of the current value of a tensor."""
        if id(tensor) not in self.current:
            self._new_value(tensor)
        return self.current[id(tensor)]

    def _new_value(self, tensor: Tensor) -> int:
        self.alive.append(tensor)
        self.current[id(tensor)] = self.count
        self.count += 1
        return self.count - 1

    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None) -> Any:
        kwargs = kwargs or {}
        name = name_of(func)
        read = tensors_in(args, kwargs)
        reads, shapes = tuple(self.value(tensor) for tensor in read), tuple(tuple(tensor.shape) for tensor in read)
        result = func(*args, **kwargs)
        written = outputs(result)
        if is_metadata(name, func, written):
            return result
        if not written and read and (name.endswith("_") or name.startswith("set ")):
            written = [read[0]]  # for instance by __setitem__
        writes = tuple(self._new_value(tensor) for tensor in written)
        out_shapes = tuple(tuple(tensor.shape) for tensor in written)
        self.calls.append(FunctionCall(len(self.calls), func, name, args, kwargs, reads, shapes, writes, result, out_shapes))
        return result


def is_metadata(name: str, function: Callable[..., Any], written: list[Tensor]) -> bool:
    """Whether a call neither computes a tensor nor reads the numbers in one."""
    return not written and (name in METADATA or getattr(function, "__name__", "") == "__get__" or inspect.isclass(function))


@dataclass(frozen=True)
class Recording:
    """A forward pass: its calls, the value numbers and shapes of the model's outputs, and the value returned by each module.

    ``modules`` maps the name of a module, as in ``named_modules()``, to its returned value; a module called several times
    appears under its names in turn if it has as many, else as ``name#0``, ``name#1``, ….
    """

    calls: list[FunctionCall]
    outputs: tuple[int, ...]
    shapes: tuple[tuple[int, ...], ...]
    modules: dict[str, int]


def record(model: nn.Module, inputs: Inputs) -> Recording:
    """Call the model once and record its forward pass; the model is left unchanged."""
    recorder = Recorder()
    returned: dict[int, list[int]] = {}

    def note(module: nn.Module, args: Any, output: Any) -> None:
        if isinstance(output, Tensor):
            returned.setdefault(id(module), []).append(recorder.value(output))

    handles = [module.register_forward_hook(note) for module in model.modules()]
    try:
        with recorder:
            result = forward(model, inputs)
        tensors = outputs(result)
        read = tuple(recorder.value(tensor) for tensor in tensors)
        shapes = tuple(tuple(tensor.shape) for tensor in tensors)
    finally:
        for handle in handles:
            handle.remove()
    names: dict[int, list[str]] = {}
    for name, module in model.named_modules(remove_duplicate=False):
        names.setdefault(id(module), []).append(name)
    modules: dict[str, int] = {}
    for key, values in returned.items():
        paths = names[key]
        labels = paths if len(paths) == len(values) else [f"{paths[0]}#{number}" for number in range(len(values))]
        modules |= dict(zip(labels, values, strict=True))
    return Recording(recorder.calls, read, shapes, modules)


def forward(model: nn.Module, inputs: Inputs) -> Any:
    """Call the model with the same random numbers in each pass; generators are restored afterwards."""
    with preserve_global_state(model.parameters()), NoHooks():
        return model(*inputs.args, **inputs.kwargs)


def batches(inputs: Inputs, size: int) -> Iterator[Inputs]:
    """Consecutive batches of at most ``size`` points."""
    for start in range(0, inputs.count, size):
        yield inputs if size >= inputs.count else inputs.take(slice(start, start + size))


def outputs(result: Any) -> list[Tensor]:
    """All tensors in a model's output: a tensor, or nested tuples, lists, mappings and objects with attributes."""
    return list(_tensors_of(result, set()))


def _tensors_of(value: Any, seen: set[int]) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
        return
    items: Iterable[Any] = ()
    if isinstance(value, Mapping):
        items = value.values()
    elif isinstance(value, (tuple, list)):
        items = value
    elif hasattr(value, "__dict__") and not isinstance(value, (nn.Module, type)):
        items = vars(value).values()
    if items and id(value) not in seen:
        seen.add(id(value))
        for item in items:
            yield from _tensors_of(item, seen)
