"""Run a user's model without changing it, and intercept one call of one of its modules."""

from __future__ import annotations

import contextlib
import copy
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map_only
from torch.utils.hooks import RemovableHandle

from kagscope.base.errors import InputError
from kagscope.jacobians.forward import own_state
from kagscope.jacobians.inputs import Inputs
from kagscope.jacobians.surroundings import gpus, preserve_settings, seed_generators

Change = Callable[[Tensor], Tensor]
OWN = "_kagscope_own_tensors"  # attribute that keeps a model's own tensors while others replace them
_SILENT = (Tensor.register_hook, Tensor.register_post_accumulate_grad_hook, Tensor.retain_grad)


class Unmeasurable(InputError):
    """A layer map has no Jacobian; the message is the reason."""


class NoHooks(TorchFunctionMode):
    """Ignore hooks that the user registers on gradients, which could change a derivative.

    Attributes:
        ignored: whether there was any.
    """

    ignored = False

    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None) -> Any:
        if func not in _SILENT:
            return func(*args, **(kwargs or {}))
        self.ignored = True
        return RemovableHandle(OrderedDict())


class _Pass(NoHooks):
    """Mode of every pass: no gradient hooks unless ``hooks``, and constants wherever gradients are disabled.

    Forward mode would follow tangents through ``torch.no_grad()``, where reverse mode sees constants. Under such a mode,
    PyTorch also avoids its fused transformer for inference, which cannot be differentiated.
    """

    def __init__(self, hooks: bool) -> None:
        super().__init__()
        self.hooks = hooks

    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None) -> Any:
        output = func(*args, **(kwargs or {})) if self.hooks else super().__torch_function__(func, types, args, kwargs)
        if torch.is_grad_enabled() or forward_ad._current_level < 0 or any(output is argument for argument in args):
            return output
        return tree_map_only(Tensor, Tensor.detach, output)


class Stop(BaseException):
    """Raised by a hook to end a pass early; no ``except Exception`` of a model catches it."""


class Runner:
    """Run forward passes with copies of a model's parameters and buffers in ``dtype``; its own tensors are never written.

    The copies stay in the model until :func:`~kagscope.jacobians.untouched.untouched` ends, so that whatever is recomputed
    in the backward pass sees them too. Every pass starts from the same numbers: a copy that a pass writes into (running
    statistics, ``max_norm``, ``clamp_``) is renewed for the next.

    Args:
        model: any module; use inside :func:`~kagscope.jacobians.untouched.untouched`.
        dtype: dtype of floating parameters and buffers during a pass, complex ones accordingly; None keeps their own.
        seed: seed of the random numbers that a pass may draw, the same in every pass.
        weights: tensors by name that replace the model's own.

    Attributes:
        hooks: whether hooks that a pass registers on gradients are kept.
        ignored_hooks: whether a pass registered some that were not.
    """

    hooks = False
    ignored_hooks = False

    def __init__(
        self, model: nn.Module, dtype: torch.dtype | None, seed: int, weights: Mapping[str, Tensor] | None = None
    ) -> None:
        self.model, self.dtype, self.seed = model, dtype, seed
        for store, name, tensor in vars(model).pop(OWN, ()):  # left by an earlier runner
            store[name] = tensor
        replacements = weights or {}  # may name a tied tensor twice, where the model's own names it once
        tensors = own_state(model)
        self._sources = {name: replacements.get(name, tensor).detach() for name, tensor in tensors.items()}
        places: dict[int, list[tuple[Any, str]]] = {}
        for module in model.modules():
            for store in (module._parameters, module._buffers):
                for name, tensor in store.items():
                    if tensor is not None:
                        places.setdefault(id(tensor), []).append((store, name))
        self._places = {name: places.get(id(tensor), []) for name, tensor in tensors.items()}
        self._own = [(*slot, tensor) for name, tensor in tensors.items() for slot in self._places[name]]
        self._targets = {name: tensor.device for name, tensor in tensors.items()}
        self.dtypes = {name: _dtype_in_passes(tensor, dtype) for name, tensor in tensors.items()}
        self._parameters = {name for name, _ in model.named_parameters()}  # stay nn.Parameter: "self.weight += 1" needs that
        self._working = {name: self._copy_source(name) for name in tensors}
        self._versions = {name: tensor._version for name, tensor in self._working.items()}
        self._first = True
        # batch norm in train mode writes without counting versions
        self._written = {name for name, _ in model.named_buffers() if model.training}
        self.devices = gpus(tensors.values())

    def __call__(self, inputs: Inputs, *, reseed: bool = True) -> Any:
        """The model's output. Gradients flow to ``inputs`` and tensors from hooks that require them, not to parameters."""
        if reseed:
            seed_generators(self.seed, self.devices)
        for name in self._written:
            self._reset(name)
        vars(self.model)[OWN] = self._own
        for name, tensor in self._working.items():
            for store, key in self._places[name]:
                store[key] = tensor
        fed = inputs.clone()  # a pass may write into its arguments
        mode = _Pass(self.hooks)
        try:
            with preserve_settings(), torch.enable_grad(), mode:
                return self.model(*fed.args, **fed.kwargs)
        finally:
            self.ignored_hooks |= mode.ignored
            self._written |= {name for name, tensor in self._working.items() if self._is_written(name, tensor)}
            self._first = False

    def with_hooks(self) -> Runner:
        """This runner, keeping the hooks that a pass registers on gradients."""
        runner = copy.copy(self)
        runner.hooks = True
        return runner

    def _is_written(self, name: str, tensor: Tensor) -> bool:
        """Whether a pass wrote into a tensor. Writes through ``.data`` count no version, so the first pass compares values."""
        if tensor._version != self._versions[name]:
            return True
        return self._first and tensor.layout == torch.strided and not torch.equal(tensor, self._sources[name].to(tensor))

    def _copy_source(self, name: str) -> Tensor:
        """Copy a tensor's original values, on its device and in the dtype to compute in."""
        tensor = self._sources[name].to(self._targets[name], self.dtypes[name], copy=True)
        return nn.Parameter(tensor, requires_grad=False) if name in self._parameters else tensor

    def _reset(self, name: str) -> None:
        self._working[name] = self._copy_source(name)
        self._versions[name] = self._working[name]._version

    def run_until_stop(self, inputs: Inputs) -> None:
        """Run until a hook raises :class:`Stop`, or to the end."""
        with contextlib.suppress(Stop):
            self(inputs)


def _dtype_in_passes(tensor: Tensor, dtype: torch.dtype | None) -> torch.dtype:
    """Dtype of a parameter or buffer in passes that compute in ``dtype``, or None for its own."""
    if dtype is not None and tensor.is_complex():
        return dtype.to_complex()
    return dtype if dtype is not None and tensor.is_floating_point() else tensor.dtype


@contextlib.contextmanager
def hook_calls(
    module: nn.Module,
    *,
    before: Callable[[int, tuple[Any, ...], dict[str, Any]], Any] | None = None,
    after: Callable[[int, Any], Any] | None = None,
) -> Iterator[None]:
    """Hook a module's calls in a pass; hooks receive the number of the call, in the order in which calls begin.

    Calls may be nested (a module that calls itself), and a call that raises has a number too.
    """
    begun, open_calls = 0, []

    def enter(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        nonlocal begun
        open_calls.append(begun)
        begun += 1
        return None if before is None else before(open_calls[-1], args, kwargs)

    def leave(_: nn.Module, __: Any, ___: Any, output: Any) -> Any:
        number = open_calls.pop()
        return None if after is None else after(number, output)

    handles = [
        module.register_forward_pre_hook(enter, with_kwargs=True),
        module.register_forward_hook(leave, with_kwargs=True),
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextlib.contextmanager
def intercept(
    module: nn.Module, index: int, *, on_input: Change | None = None, on_output: Change | None = None
) -> Iterator[None]:
    """Replace the first floating tensor in the input or output of call ``index`` of a module in a pass;
    an input tensor is replaced everywhere among the arguments."""

    def before(number: int, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if on_input is None or number != index:
            return None
        key = first_tensor({**dict(enumerate(args)), **kwargs})
        if key is None:
            raise Unmeasurable("its input is not a floating-point tensor (integers?), so there is nothing to take derivatives of")
        old = kwargs[key] if isinstance(key, str) else args[key]
        new = on_input(old)
        # everywhere: query, key and value of self-attention are one tensor
        return tuple(new if value is old else value for value in args), {
            name: new if value is old else value for name, value in kwargs.items()
        }

    def after(number: int, output: Any) -> Any:
        return None if on_output is None or number != index else replace_tensor(output, on_output)

    with hook_calls(module, before=before, after=after):
        yield


def first_tensor(values: Mapping[Any, Any]) -> Any:
    """Key of the first floating tensor that is not a scalar, or None."""
    for key, value in values.items():
        if isinstance(value, Tensor) and value.is_floating_point() and value.ndim:
            return key
    return None


def tensor_of(output: Any) -> Tensor | None:
    """The tensor in a module's output: itself, or the first floating one in a tuple or mapping."""
    if isinstance(output, Tensor):
        return output if output.is_floating_point() and output.ndim else None
    values = _entries(output)
    key = first_tensor(values)
    return None if key is None else values[key]


def replace_tensor(output: Any, change: Change) -> Any:
    """A layer's output with its tensor replaced by ``change`` of it."""
    if isinstance(output, Tensor):
        return change(output)
    values = _entries(output)
    key = first_tensor(values)
    if key is None:
        raise InputError(f"the output is {type(output).__name__} without a floating tensor")
    new = change(values[key])
    if isinstance(output, Mapping):
        changed = copy.copy(output)
        changed[key] = new  # type: ignore[index]
        return changed
    items = [new if name == key else value for name, value in values.items()]
    return type(output)(*items) if hasattr(output, "_fields") else type(output)(items)


def _entries(output: Any) -> dict[Any, Any]:
    if isinstance(output, Mapping):
        return dict(output)
    return dict(enumerate(output)) if isinstance(output, tuple | list) else {}
