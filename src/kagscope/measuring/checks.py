"""What is made sure of before any layer is measured: a model that runs, fits its inputs, and gives the same twice."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from kagscope.base.errors import InputError
from kagscope.jacobians.inputs import Inputs
from kagscope.jacobians.layers import outputs_of
from kagscope.jacobians.runner import Runner, tensor_of
from kagscope.measuring.spec import MeasureSpec

LOOK_AT = 8  # points of the passes that only look at the model
AGREE = {torch.float64: 1e-9, None: 1e-3}  # of a point alone with the same point in a batch, relative


def check_model(model: Any) -> None:
    """Raise :class:`InputError` for what is no module, or one that cannot run."""
    if not isinstance(model, nn.Module):
        exported = "; give the Python module it was exported from" if type(model).__name__ == "ExportedProgram" else ""
        raise InputError(f"model is {type(model).__name__}; expected a torch.nn.Module{exported}")
    if isinstance(model, torch.jit.ScriptModule):
        raise InputError("model is a TorchScript module, which takes no hooks; give the Python module it was made from")
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        if is_lazy(tensor):
            raise InputError(f"parameter {name!r} is not initialised yet; call the lazy model once before measuring it")
        if tensor.device.type == "meta":
            raise InputError(
                f"{name!r} is on the meta device and has no values; load weights, or model.to_empty(device='cpu') first"
            )


def check_devices(model: nn.Module, inputs: Inputs) -> None:
    devices = {str(tensor.device) for tensor in [*model.parameters(), *model.buffers()]}
    for place, value in inputs.tensors().items():
        if devices and str(value.device) not in devices:
            there = " and ".join(sorted(devices))
            raise InputError(
                f"inputs {place!r} are on {value.device}, the model is on {there}; move one of them, such as x.to('{there}')"
            )


def suspicions(inputs: Inputs) -> list[str]:
    """What looks like a mistake in the inputs, and need not be one."""
    found = []
    for place, value in inputs.tensors().items():
        if value.is_floating_point() and value.ndim > 1 and value[0].numel() >= 16:
            low, high = (float(end) for end in value.detach().aminmax())
            if low >= 0 and 100 < high <= 255:
                found.append(
                    f"inputs {place!r} lie between {low:g} and {high:g}: bytes of images that were not divided by 255? "
                    "Most networks are trained on 0 to 1, or on standardised images"
                )
    return found


def choose_runner(
    model: nn.Module, inputs: Inputs, spec: MeasureSpec, weights: Mapping[str, Tensor] | None, notes: list[str]
) -> tuple[Runner, Inputs]:
    """A runner and inputs in float64 where the model can take it, else in its own dtype."""
    wanted = torch.float64 if spec.precision == "float64" else None
    runner = Runner(model, wanted, spec.seed, weights)
    fed = inputs.cast(wanted)
    few = slice(0, None if spec.mode == "train" else LOOK_AT)
    if wanted is None:
        with model_errors(fed, runner), torch.no_grad():
            runner(fed.take(few))
        return runner, fed
    try:
        with torch.no_grad():
            runner(fed.take(few))
    except Exception as error:
        own = Runner(model, None, spec.seed, weights)
        with model_errors(inputs, own), torch.no_grad():
            own(inputs.cast(None).take(few))  # if this fails too, its message is the one to read
        notes.append(f"computed in the model's own precision, since float64 failed ({short(error)})")
        return own, inputs.cast(None)
    return runner, fed


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
            continue
        if any(found is not None for found in alone) and _all_agree(_of_point(whole, 0, inputs.count), alone, 1e-6):
            raise InputError(
                f"input {inputs.name(place)!r} {tuple(value.shape)} is the same for all points, but has as many entries as there "
                "are points, and would be taken apart; use another number of points"
            )


def _of_point(outputs: Sequence[Tensor | None], point: int, count: int) -> list[Tensor | None]:
    """The outputs at one point of a batch, None for those that do not have the points first."""
    return [None if one is None or len(one) != count else one[point][None] for one in outputs]


def _all_agree(first: Sequence[Tensor | None], second: Sequence[Tensor | None], tolerance: float) -> bool:
    """Whether as many calls gave the same, each as far as there is a tensor."""
    if len(first) != len(second):
        return False
    return all(one is None or other is None or _agree(one, other, tolerance) for one, other in zip(first, second, strict=True))


def batch_hint(runner: Runner, inputs: Inputs) -> str:
    """A hint where the model takes the inputs as a single point: the batch dimension was forgotten. "" where it does not."""
    try:
        with torch.no_grad():
            output = tensor_of(runner(inputs.as_one_point().cast(runner.dtype)))
    except Exception:
        return ""
    single = output is not None and len(output) == 1
    return "; the inputs look like one point without its batch dimension: give x[None], shape (1, …)" if single else ""


def _agree(first: Tensor, second: Tensor, tolerance: float) -> bool:
    """Equal up to ``tolerance`` of the largest entry; NaN and infinities to themselves."""
    if first.shape != second.shape:
        return False
    scale = float(first[first.isfinite()].abs().amax()) if bool(first.isfinite().any()) else 0.0
    return torch.allclose(first, second, rtol=0.0, atol=tolerance * scale, equal_nan=True)


def as_labels(labels: Any, count: int) -> np.ndarray:
    found = np.asarray(labels.detach().cpu() if isinstance(labels, Tensor) else labels)
    if found.shape != (count,):
        raise InputError(f"labels have shape {found.shape}; expected one for each of the {count} points")
    return found


def short(error: Exception) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:200]}"
