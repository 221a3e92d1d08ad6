"""What is made sure of before any layer is looked at: a model that runs, fits its inputs, and gives the same twice."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch._C._dynamo.eval_frame import get_eval_frame_callback
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.proxy_tensor import ProxyTorchDispatchMode
from torch.nn.parameter import is_lazy
from torch.utils._python_dispatch import _get_current_dispatch_mode_stack

from kagscope.base.errors import InputError
from kagscope.jacobians.forward import own_state
from kagscope.jacobians.inputs import Inputs
from kagscope.jacobians.layers import outputs_of
from kagscope.jacobians.runner import Runner, tensor_of

LOOK_AT = 8  # points of the passes that only look at the model
AGREE = {torch.float64: 1e-9, None: 1e-3}  # of a point alone with the same point in a batch, relative


def check_model(model: Any) -> None:
    """Raise :class:`InputError` for what is no module, or one that cannot run, here or anywhere."""
    if where := _transformed():
        raise InputError(
            f"a model cannot be measured inside {where}, where tensors do not hold their own numbers; call it outside"
        )
    if not isinstance(model, nn.Module):
        exported = "; give the Python module it was exported from" if type(model).__name__ == "ExportedProgram" else ""
        raise InputError(f"model is {type(model).__name__}; expected a torch.nn.Module{exported}")
    if isinstance(model, torch.jit.ScriptModule):
        raise InputError("model is a TorchScript module, which takes no hooks; give the Python module it was made from")
    for name, tensor in own_state(model).items():
        if is_lazy(tensor):
            raise InputError(f"parameter {name!r} is not initialised yet; call the lazy model once before measuring it")
        if tensor.device.type == "meta":
            raise InputError(
                f"{name!r} is on the meta device and has no values; load weights, or model.to_empty(device='cpu') first"
            )


def _transformed() -> str:
    """What stands in for tensors where this is called: a transform, a trace, a compiler; "" where nothing does."""
    if torch._C._functorch.peek_interpreter_stack() is not None:
        return "a torch.func transform such as grad or vmap"
    if torch._C._is_tracing():
        return "torch.jit.trace"
    if any(isinstance(mode, FakeTensorMode | ProxyTorchDispatchMode) for mode in _get_current_dispatch_mode_stack()):
        return "FakeTensorMode or make_fx"
    return "torch.compile" if get_eval_frame_callback() else ""


def check_devices(model: nn.Module, inputs: Inputs) -> None:
    """Raise :class:`InputError` where inputs are on another device than the model."""
    devices = {str(tensor.device) for tensor in own_state(model).values()}
    for place, value in inputs.tensors().items():
        if devices and str(value.device) not in devices:
            there = " and ".join(sorted(devices))
            raise InputError(
                f"inputs {place!r} are on {value.device}, the model is on {there}; move one of them, such as x.to('{there}')"
            )


@contextmanager
def model_errors(inputs: Inputs, runner: Runner | None = None) -> Iterator[None]:
    """What a forward pass raises, as an error that says with which inputs; with a runner, whether they lack a batch dimension."""
    try:
        yield
    except (InputError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        shapes = ", ".join(f"{place}: {tuple(value.shape)} {value.dtype}" for place, value in inputs.tensors().items())
        hint = "" if runner is None else batch_hint(runner, inputs)
        raise InputError(f"the model cannot be called with these inputs ({shapes}): {short(error)}{hint}") from error


def verify(runner: Runner, inputs: Inputs, paths: Iterable[str], mode: str, notes: list[str], given: Inputs) -> bool:
    """Two passes must agree; whether what a layer or the model gives for a point depends on the other points of its batch.

    ``given`` are all inputs in their own order, by which an input that all points share is known.
    """
    every = dict.fromkeys([*paths, ""])  # "": the model itself

    def outputs(fed: Inputs, *, reseed: bool = True) -> list[Tensor | None]:
        found = [tensor_of(one) for one in outputs_of(runner, fed, every, reseed=reseed)]
        return [None if one is None else one.detach() for one in found]

    first = outputs(inputs)
    if not _all_agree(first, outputs(inputs, reseed=False), 1e-12):
        if not _all_agree(first, outputs(inputs), 1e-12):
            raise InputError(
                "two forward passes with the same inputs differ: measure needs a model without randomness of its own"
            )
        notes.append("the forward pass draws random numbers: measured with one draw, the same for every pass")
    if mode == "train" or inputs.count < 2:
        return False
    try:
        alone = [outputs(inputs.take([point])) for point in range(inputs.count)]
    except Exception as error:  # such as batch statistics of one point
        if hint := batch_hint(runner, inputs):
            raise InputError(f"the model cannot take the first of the inputs as a point ({short(error)}){hint}") from error
        _check_shared(given, outputs)
        raise InputError(
            f"the model cannot take one point alone ({short(error)}); "
            'if it takes statistics over the batch, use mode="train" to measure each point within its batch'
        ) from error
    tolerance = AGREE.get(runner.dtype, 1e-3)
    # all of them: where the batch decides a branch, or who is served first, some points go as they would alone
    if not all(_all_agree(_of_point(first, point, inputs.count), one, tolerance) for point, one in enumerate(alone)):
        _check_shared(given, outputs)
        notes.append("a point's output depends on the other points of its batch: each point was measured alone")
        return True
    return False


def _check_shared(inputs: Inputs, outputs: Callable[[Inputs], list[Tensor | None]]) -> None:
    """Raise for an input that has as many entries as there are points but is one for all, such as a mask (tokens, tokens)."""
    shared = [(place, value) for place, value in inputs.tensors().items() if value.ndim > 1 and len(value) == inputs.count]
    if len(shared) < 2:
        return
    one, whole = inputs.take([0]), outputs(inputs)
    for place, value in shared:
        try:
            alone = outputs(one.with_tensor(place, value))
        except Exception:  # then it has an entry for each point
            alone = []
        if any(found is not None for found in alone) and _all_agree(_of_point(whole, 0, inputs.count), alone, 1e-6):
            raise InputError(
                f"input {inputs.name(place)!r} {tuple(value.shape)} is the same for all points, but has as many entries as there "
                "are points, and would be taken apart; use another number of points"
            )


def batch_hint(runner: Runner, inputs: Inputs) -> str:
    """A hint where the model takes the inputs as a single point: the batch dimension was forgotten. "" where it does not.

    Nor where it takes fewer of them: channels cannot be left out, points can.
    """

    def taken(fed: Inputs) -> bool:
        try:
            with torch.no_grad():
                output = tensor_of(runner(fed.cast(runner.dtype)))
        except Exception:
            return False
        return output is not None and len(output) == fed.count

    single = taken(inputs.as_one_point()) and not (inputs.count > 2 and taken(inputs.take(slice(0, inputs.count - 1))))
    return "; the inputs look like one point without its batch dimension: give x[None], shape (1, …)" if single else ""


def _of_point(outputs: Sequence[Tensor | None], point: int, count: int) -> list[Tensor | None]:
    """The outputs at one point of a batch, None for those that do not have the points first."""
    return [None if one is None or len(one) != count else one[point][None] for one in outputs]


def _all_agree(first: Sequence[Tensor | None], second: Sequence[Tensor | None], tolerance: float) -> bool:
    """Whether as many calls gave the same, each as far as there is a tensor."""
    if len(first) != len(second):
        return False
    return all(one is None or other is None or _agree(one, other, tolerance) for one, other in zip(first, second, strict=True))


def _agree(first: Tensor, second: Tensor, tolerance: float) -> bool:
    """Equal up to ``tolerance`` of the largest entry; NaN and infinities to themselves."""
    if first.shape != second.shape:
        return False
    scale = float(first[first.isfinite()].abs().amax()) if bool(first.isfinite().any()) else 0.0
    return torch.allclose(first, second, rtol=0.0, atol=tolerance * scale, equal_nan=True)


def short(error: Exception, at_most: int = 200) -> str:
    """An error's kind and the beginning of its message, in one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:at_most]}"
