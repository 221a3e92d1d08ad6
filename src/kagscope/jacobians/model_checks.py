"""Check, before any layer is measured, that a model runs, fits its inputs, and gives the same output twice."""

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
from kagscope.jacobians.plain import plain_modules
from kagscope.jacobians.runner import Runner, tensor_of

LOOK_AT = 8  # points in the passes that only check the model
ALONE = "a point's output depends on the other points of its batch: each point was measured alone"
AGREE = {torch.float64: 1e-9, None: 1e-3}  # relative, of a point alone and in a batch


def check_model(model: Any) -> None:
    """Raise :class:`InputError` if the model is no module, or one that cannot run."""
    if transform := _active_transform():
        raise InputError(
            f"a model cannot be measured inside {transform}, where tensors do not hold their own numbers; call it outside"
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


def _active_transform() -> str:
    """The active transform, trace or compiler that replaces tensors; "" if there is none."""
    if torch._C._functorch.peek_interpreter_stack() is not None:
        return "a torch.func transform such as grad or vmap"
    if torch._C._is_tracing():
        return "torch.jit.trace"
    if any(isinstance(mode, FakeTensorMode | ProxyTorchDispatchMode) for mode in _get_current_dispatch_mode_stack()):
        return "FakeTensorMode or make_fx"
    return "torch.compile" if get_eval_frame_callback() else ""


def check_devices(model: nn.Module, inputs: Inputs) -> None:
    """Raise :class:`InputError` if inputs are on another device than the model."""
    devices = {str(tensor.device) for tensor in own_state(model).values()}
    for key, value in inputs.tensors().items():
        if devices and str(value.device) not in devices:
            location = " and ".join(sorted(devices))
            raise InputError(
                f"inputs {key!r} are on {value.device}, the model is on {location}; move one of them, such as x.to('{location}')"
            )


@contextmanager
def model_errors(inputs: Inputs, runner: Runner | None = None) -> Iterator[None]:
    """Re-raise errors of a forward pass with the inputs' shapes, and with a runner whether the batch dimension is missing."""
    try:
        yield
    except (InputError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        shapes = ", ".join(f"{key}: {tuple(value.shape)} {value.dtype}" for key, value in inputs.tensors().items())
        hint = "" if runner is None else batch_hint(runner, inputs)
        raise InputError(f"the model cannot be called with these inputs ({shapes}): {short(error)}{hint}") from error


def verify(runner: Runner, inputs: Inputs, paths: Iterable[str], mode: str, notes: list[str], all_inputs: Inputs) -> bool:
    """Check that two passes agree; return whether outputs at a point depend on the other points of its batch.

    ``all_inputs`` are all inputs in their original order, to recognise an input that all points share.
    """
    every = dict.fromkeys([*paths, ""])  # "": the model itself

    def outputs(fed: Inputs, *, reseed: bool = True) -> list[Tensor | None]:
        tensors = [tensor_of(output) for output in outputs_of(runner, fed, every, reseed=reseed)]
        return [None if tensor is None else tensor.detach() for tensor in tensors]

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
        _check_shared(all_inputs, outputs)
        raise InputError(
            f"the model cannot take one point alone ({short(error)}); "
            'if it takes statistics over the batch, use mode="train" to measure each point within its batch'
        ) from error
    tolerance = AGREE.get(runner.dtype, 1e-3)
    # all points: if the batch decides a branch or a priority, some points still behave as they would alone
    if not all(_all_agree(_at_point(first, point, inputs.count), tensor, tolerance) for point, tensor in enumerate(alone)):
        _check_shared(all_inputs, outputs)
        notes.append(ALONE)
        return True
    return False


def mixes_in_large_batches(runner: Runner, inputs: Inputs, paths: Iterable[str], budget: int) -> bool:
    """Whether outputs at some of the ``inputs`` differ between a batch of :data:`LOOK_AT` points and a large one.

    A mixture of experts that takes so many points each mixes them only where more than these prefer one, for example.

    Args:
        runner: runs the model.
        inputs: all points at which layers are measured; :func:`verify` has compared the first with single points.
        paths: of the layers.
        budget: approximate working memory in bytes.
    """
    if inputs.count <= LOOK_AT or plain_modules(runner.model) is not None:
        return False
    every, tolerance = dict.fromkeys([*paths, ""]), AGREE.get(runner.dtype, 1e-3)

    def outputs(first: int, last: int) -> list[Tensor | None]:
        tensors = [tensor_of(output) for output in outputs_of(runner, inputs.take(slice(first, last)), every)]
        return [None if tensor is None else tensor.detach() for tensor in tensors]

    def differ(start: int, stop: int, step: int) -> bool:
        together, count = outputs(start, stop), stop - start
        parts = [slice(first, min(first + step, count)) for first in range(0, count, step)]
        return any(
            not _all_agree(
                [_at_points(output, part, count) for output in together],
                outputs(start + part.start, start + part.stop),
                tolerance,
            )
            for part in parts
        )

    held = sum(tensor.numel() * tensor.element_size() for tensor in outputs(0, LOOK_AT) if tensor is not None)
    largest, size = min(inputs.count, LOOK_AT * max(1, budget // 4 // max(1, held))), LOOK_AT
    while size < largest:
        step, size = size, min(LOOK_AT * size, largest)
        stop = inputs.count if size == largest else size
        if any(differ(start, min(start + size, stop), step) for start in range(0, stop, size)):
            return True
    return False


def _check_shared(inputs: Inputs, outputs: Callable[[Inputs], list[Tensor | None]]) -> None:
    """Raise for an input shared by all points whose length equals their number by chance, such as a mask (tokens, tokens)."""
    shared = [(key, value) for key, value in inputs.tensors().items() if value.ndim > 1 and len(value) == inputs.count]
    if len(shared) < 2:
        return
    first_point, batched = inputs.take([0]), outputs(inputs)
    for key, value in shared:
        try:
            alone = outputs(first_point.with_tensor(key, value))
        except Exception:  # then it has an entry for each point
            alone = []
        if any(output is not None for output in alone) and _all_agree(_at_point(batched, 0, inputs.count), alone, 1e-6):
            raise InputError(
                f"input {inputs.name(key)!r} {tuple(value.shape)} is the same for all points, but has as many entries as there "
                "are points, and would be taken apart; use another number of points"
            )


def batch_hint(runner: Runner, inputs: Inputs) -> str:
    """Hint that the batch dimension was forgotten, if the model accepts the inputs as a single point; otherwise "".

    Also "" if it accepts fewer of them: points can be left out, channels cannot.
    """

    def accepts(fed: Inputs) -> bool:
        try:
            with torch.no_grad():
                output = tensor_of(runner(fed.cast(runner.dtype)))
        except Exception:
            return False
        return output is not None and len(output) == fed.count

    single = accepts(inputs.as_one_point()) and not (inputs.count > 2 and accepts(inputs.take(slice(0, inputs.count - 1))))
    return "; the inputs look like one point without its batch dimension: give x[None], shape (1, …)" if single else ""


def _at_point(outputs: Sequence[Tensor | None], point: int, count: int) -> list[Tensor | None]:
    """Outputs at one point of a batch; None for those whose first dimension is not the points."""
    return [_at_points(output, slice(point, point + 1), count) for output in outputs]


def _at_points(output: Tensor | None, points: slice, count: int) -> Tensor | None:
    """An output at some points of a batch; None if its first dimension is not the points."""
    return None if output is None or len(output) != count else output[points]


def _all_agree(first: Sequence[Tensor | None], second: Sequence[Tensor | None], tolerance: float) -> bool:
    """Whether two lists of outputs have equal length and agree wherever both have a tensor."""
    if len(first) != len(second):
        return False
    return all(a is None or b is None or _agree(a, b, tolerance) for a, b in zip(first, second, strict=True))


def _agree(first: Tensor, second: Tensor, tolerance: float) -> bool:
    """Whether tensors agree up to ``tolerance`` times the largest entry; NaN and infinities equal themselves."""
    if first.shape != second.shape:
        return False
    scale = float(first[first.isfinite()].abs().amax()) if bool(first.isfinite().any()) else 0.0
    return torch.allclose(first, second, rtol=0.0, atol=tolerance * scale, equal_nan=True)


def short(error: Exception, at_most: int = 200) -> str:
    """An error's type and the beginning of its message, in one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:at_most]}"
