"""Running a user's model without changing it, and reaching into one call of one of its modules."""

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
from kagscope.jacobians.surroundings import gpus, seed_generators, settings_kept

Change = Callable[[Tensor], Tensor]
OWN = "_kagscope_own_tensors"  # where a model keeps its own tensors while others stand in
_SILENT = (Tensor.register_hook, Tensor.register_post_accumulate_grad_hook, Tensor.retain_grad)


class Unmeasurable(InputError):
    """A layer map has no Jacobian; the message is the reason."""


class NoHooks(TorchFunctionMode):
    """A pass that registers no hooks on gradients: those of the user neither run nor change a derivative."""

    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None) -> Any:
        return RemovableHandle(OrderedDict()) if func in _SILENT else func(*args, **(kwargs or {}))


class _Pass(NoHooks):
    """What holds in every pass: no hooks, and constants where gradients are switched off.

    Forward mode would follow tangents through ``torch.no_grad()``, where reverse mode sees constants. While such a mode is on,
    PyTorch also leaves out its fused transformer for inference, which cannot be differentiated.
    """

    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None) -> Any:
        out = super().__torch_function__(func, types, args, kwargs)
        if torch.is_grad_enabled() or forward_ad._current_level < 0 or any(out is given for given in args):
            return out
        return tree_map_only(Tensor, Tensor.detach, out)


class Stop(BaseException):
    """Raised by a hook once all that is wanted has been seen; no ``except Exception`` of a model swallows it."""


class Runner:
    """Forward passes of a model with its parameters and buffers in ``dtype``; the model's own tensors are never written.

    The stand-ins stay in the model until :func:`~kagscope.jacobians.untouched.untouched` ends, so that whatever is computed again
    on the way back meets them too. A pass begins with the same numbers in all of them: one that a pass writes into (running
    statistics, ``max_norm``, ``clamp_``) is made anew for the next.

    Args:
        model: any module; use inside :func:`~kagscope.jacobians.untouched.untouched`.
        dtype: of its floating parameters and buffers during the pass; None keeps what they are.
        seed: of the random numbers that a pass may draw, the same in every pass.
        weights: tensors by name that stand in for the model's own.
    """

    def __init__(
        self, model: nn.Module, dtype: torch.dtype | None, seed: int, weights: Mapping[str, Tensor] | None = None
    ) -> None:
        self.model, self.dtype, self.seed = model, dtype, seed
        for held, name, tensor in vars(model).pop(OWN, ()):  # of a runner before this one
            held[name] = tensor
        others = weights or {}  # may name a tied tensor twice, where the model's own names it once
        own = own_state(model)
        self._sources = {name: others.get(name, tensor).detach() for name, tensor in own.items()}
        places: dict[int, list[tuple[Any, str]]] = {}
        for module in model.modules():
            for held in (module._parameters, module._buffers):
                for name, tensor in held.items():
                    if tensor is not None:
                        places.setdefault(id(tensor), []).append((held, name))
        self._places = {name: places.get(id(tensor), []) for name, tensor in own.items()}
        self._own = [(*place, tensor) for name, tensor in own.items() for place in self._places[name]]
        self._targets = {name: tensor.device for name, tensor in own.items()}
        self.dtypes = {name: dtype if dtype and tensor.is_floating_point() else tensor.dtype for name, tensor in own.items()}
        self._parameters = {name for name, _ in model.named_parameters()}  # which "self.weight += 1" in a pass asks for
        self._working = {name: self._fresh(name) for name in own}
        self._versions = {name: tensor._version for name, tensor in self._working.items()}
        self._first = True
        # batch norm in train mode counts no version of what it writes
        self._written = {name for name, _ in model.named_buffers() if model.training}
        self.devices = gpus(own.values())

    def __call__(self, inputs: Inputs, *, reseed: bool = True) -> Any:
        """The model's output. Gradients flow to whatever in ``inputs`` or of a hook requires them, not to parameters."""
        if reseed:
            seed_generators(self.seed, self.devices)
        for name in self._written:
            self._renew(name)
        vars(self.model)[OWN] = self._own
        for name, tensor in self._working.items():
            for held, key in self._places[name]:
                held[key] = tensor
        fed = inputs.clone()  # a pass may write into its arguments
        try:
            with settings_kept(), torch.enable_grad(), _Pass():
                return self.model(*fed.args, **fed.kwargs)
        finally:
            self._written |= {name for name, tensor in self._working.items() if self._is_written(name, tensor)}
            self._first = False

    def _is_written(self, name: str, tensor: Tensor) -> bool:
        """Whether a pass wrote into a tensor. What goes through ``.data`` counts no version: the first pass compares numbers."""
        if tensor._version != self._versions[name]:
            return True
        return self._first and tensor.layout == torch.strided and not torch.equal(tensor, self._sources[name].to(tensor))

    def _fresh(self, name: str) -> Tensor:
        """A copy of a tensor's own numbers, on its device and in the dtype to compute in."""
        tensor = self._sources[name].to(self._targets[name], self.dtypes[name], copy=True)
        return nn.Parameter(tensor, requires_grad=False) if name in self._parameters else tensor

    def _renew(self, name: str) -> None:
        self._working[name] = self._fresh(name)
        self._versions[name] = self._working[name]._version

    def to_stop(self, inputs: Inputs) -> None:
        """Run until a hook raises :class:`Stop`, or to the end."""
        with contextlib.suppress(Stop):
            self(inputs)


@contextlib.contextmanager
def numbered_hooks(
    module: nn.Module,
    *,
    before: Callable[[int, tuple[Any, ...], dict[str, Any]], Any] | None = None,
    after: Callable[[int, Any], Any] | None = None,
) -> Iterator[None]:
    """Hooks on a module's calls in a pass that get the number of the call, in the order in which calls begin.

    A call may lie within another (a module that calls itself), and one that raises has a number too.
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
    """Hooks on call number ``index`` of a module in a pass; each change takes the first floating tensor and replaces it,
    an argument in every place where the same tensor was passed."""

    def before(number: int, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if on_input is None or number != index:
            return None
        place = first_tensor({**dict(enumerate(args)), **kwargs})
        if place is None:
            raise Unmeasurable("its input is not a floating-point tensor (integers?), so there is nothing to take derivatives of")
        old = kwargs[place] if isinstance(place, str) else args[place]
        new = on_input(old)
        # wherever it was passed: query, key and value of self-attention are one tensor
        return tuple(new if value is old else value for value in args), {
            name: new if value is old else value for name, value in kwargs.items()
        }

    def after(number: int, output: Any) -> Any:
        return None if on_output is None or number != index else replace_tensor(output, on_output)

    with numbered_hooks(module, before=before, after=after):
        yield


def first_tensor(values: Mapping[Any, Any]) -> Any:
    """Key of the first floating tensor that is no scalar; None where there is none."""
    for key, value in values.items():
        if isinstance(value, Tensor) and value.is_floating_point() and value.ndim:
            return key
    return None


def tensor_of(output: Any) -> Tensor | None:
    """The tensor that a module's output stands for: itself, or the first floating one in a tuple or mapping."""
    if isinstance(output, Tensor):
        return output if output.is_floating_point() and output.ndim else None
    values = _entries(output)
    key = first_tensor(values)
    return None if key is None else values[key]


def replace_tensor(output: Any, change: Change) -> Any:
    """The output of a layer with its tensor changed."""
    if isinstance(output, Tensor):
        return change(output)
    values = _entries(output)
    key = first_tensor(values)
    if key is None:
        raise InputError(f"the output is {type(output).__name__} without a floating tensor")
    new = change(values[key])
    if isinstance(output, Mapping):
        other = copy.copy(output)
        other[key] = new  # type: ignore[index]
        return other
    items = [new if place == key else value for place, value in values.items()]
    return type(output)(*items) if hasattr(output, "_fields") else type(output)(items)


def _entries(output: Any) -> dict[Any, Any]:
    if isinstance(output, Mapping):
        return dict(output)
    return dict(enumerate(output)) if isinstance(output, tuple | list) else {}
