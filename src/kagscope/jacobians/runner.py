"""Running a user's model without changing it, and reaching into one call of one of its modules."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from kagscope.base.errors import InputError
from kagscope.jacobians.inputs import Inputs, trackable
from kagscope.jacobians.randomness import gpus, random_state_kept, seed_generators

Change = Callable[[Tensor], Tensor]


class Unmeasurable(InputError):
    """A layer map has no Jacobian; the message is the reason."""


class Stop(BaseException):
    """Raised by a hook once all that is wanted has been seen; no ``except Exception`` of a model swallows it."""


@contextlib.contextmanager
def untouched(model: nn.Module, mode: str = "eval") -> Iterator[None]:
    """The model in "eval" or "train" mode, gradients allowed whatever the caller's mode.

    On leaving, also by an exception, the attributes of all modules and what dictionaries and lists among them hold (modes, hooks,
    whatever a forward pass may leave there) are as before, and so are the random states.
    """
    before = [(vars(module), _held(vars(module))) for module in model.modules()]
    with torch.inference_mode(False), random_state_kept(_tensors(model).values()):
        try:
            model.train(mode == "train")
            yield
        finally:
            for attributes, held in before:
                attributes.clear()
                attributes.update({name: value for name, value, _ in held})
                for _, value, entries in held:
                    _refill(value, entries)


class Runner:
    """Forward passes of a model with its parameters and buffers in ``dtype``; the model's own tensors are never written.

    Args:
        model: any module; use inside :func:`untouched`.
        dtype: of its floating parameters and buffers during the pass; None keeps what they are.
        seed: of the random numbers that a pass may draw, the same in every pass.
        weights: tensors by name that stand in for the model's own.
    """

    def __init__(
        self, model: nn.Module, dtype: torch.dtype | None, seed: int, weights: Mapping[str, Tensor] | None = None
    ) -> None:
        self.model, self.dtype, self.seed = model, dtype, seed
        others = weights or {}  # may name a tied tensor twice, where the model's own names it once
        self.weights = {name: _cast(others.get(name, own).detach().to(own), dtype) for name, own in _tensors(model).items()}
        self.devices = gpus(self.weights.values())
        self.buffers = [name for name, _ in model.named_buffers()]

    def __call__(self, inputs: Inputs, *, reseed: bool = True) -> Any:
        """The model's output. Gradients flow to whatever in ``inputs`` or of a hook requires them, not to parameters."""
        if reseed:
            seed_generators(self.seed, self.devices)
        # a pass in train mode writes into buffers: let it write into copies
        weights = self.weights | {name: self.weights[name].clone() for name in self.buffers}
        with torch.enable_grad():
            return torch.func.functional_call(self.model, weights, inputs.args, inputs.kwargs)

    def to_stop(self, inputs: Inputs) -> None:
        """Run until a hook raises :class:`Stop`, or to the end."""
        with contextlib.suppress(Stop):
            self(inputs)


@contextlib.contextmanager
def intercept(
    module: nn.Module, index: int, *, on_input: Change | None = None, on_output: Change | None = None
) -> Iterator[None]:
    """Hooks on call number ``index`` of a module in a pass; each change takes the first floating tensor and replaces it,
    an argument in every place where the same tensor was passed."""
    calls = 0

    def before(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        nonlocal calls
        calls += 1
        if on_input is None or calls != index + 1:
            return None
        place = first_tensor({**dict(enumerate(args)), **kwargs})
        if place is None:
            raise Unmeasurable("its input is no floating tensor (integers?), so there is nothing to take derivatives of")
        old = kwargs[place] if isinstance(place, str) else args[place]
        new = on_input(old)
        # wherever it was passed: query, key and value of self-attention are one tensor
        return tuple(new if value is old else value for value in args), {
            name: new if value is old else value for name, value in kwargs.items()
        }

    def after(_: nn.Module, __: Any, ___: Any, output: Any) -> Any:
        if on_output is None or calls != index + 1:
            return None
        return replaced(output, on_output)

    handles = [
        module.register_forward_pre_hook(before, with_kwargs=True),
        module.register_forward_hook(after, with_kwargs=True),
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


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


def replaced(output: Any, change: Change) -> Any:
    """The same output with that tensor changed."""
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


def _held(attributes: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    """Name, value, and what the value holds where it is a dictionary or a list."""
    return [
        (name, value, dict(value) if isinstance(value, dict) else list(value) if isinstance(value, list) else None)
        for name, value in attributes.items()
    ]


def _refill(value: Any, entries: Any) -> None:
    """Give a dictionary or list its former entries; it stays the same object."""
    if isinstance(value, dict) and (list(value) != list(entries) or any(value[key] is not entries[key] for key in entries)):
        value.clear()
        value.update(entries)
    elif isinstance(value, list):
        value[:] = entries


def _entries(output: Any) -> dict[Any, Any]:
    if isinstance(output, Mapping):
        return dict(output)
    return dict(enumerate(output)) if isinstance(output, tuple | list) else {}


def _tensors(model: nn.Module) -> dict[str, Tensor]:
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


def _cast(tensor: Tensor, dtype: torch.dtype | None) -> Tensor:
    return trackable(tensor.to(dtype) if dtype is not None and tensor.is_floating_point() else tensor)
