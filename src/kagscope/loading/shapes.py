"""Find the shape and dtype in which a model takes inputs, flat or as images, by trying."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from kagscope.base.errors import InputError
from kagscope.base.messages import one_line
from kagscope.jacobians.untouched import untouched


def fit_inputs(model: nn.Module, inputs: Tensor, *, keep_shape: bool = False) -> Tensor:
    """Reshape ``inputs`` (N, …) as ``model`` takes them, with floating dtype and device of its parameters.

    Tried in turn with two inputs, in eval mode and without gradients: unchanged unless they are grey images; flat rows;
    images (N, 1, H, W); (N, H, W). The first shape for which the forward pass does not raise and gives one row per input
    is taken. Flat rows of a square number of values are also tried as square images. Integers (tokens) are unchanged.

    Args:
        model: the model; its mode and torch's random state are left unchanged.
        inputs: (N, …) inputs.
        keep_shape: try only the shape of ``inputs``.

    Raises:
        InputError: the model takes none of these; the message has its error for each.
    """
    parameter = next((p for p in model.parameters() if p.is_floating_point()), None)
    if parameter is not None:
        inputs = inputs.to(device=parameter.device, dtype=parameter.dtype if inputs.is_floating_point() else None)
    if not inputs.is_floating_point():
        return inputs
    tried = []
    for shape in [tuple(inputs.shape[1:])] if keep_shape else _candidates(tuple(inputs.shape[1:])):
        trial = inputs[:2].reshape(-1, *shape)
        try:
            with untouched(model), torch.no_grad():
                output = model(trial)
        except Exception as error:  # a forward pass can raise anything
            tried.append(f"{(len(inputs), *shape)}: {one_line(error, 140)}")
            continue
        if isinstance(output, Tensor) and (output.ndim == 0 or len(output) != len(trial)):
            tried.append(f"{(len(inputs), *shape)}: {len(trial)} inputs gave an output of shape {tuple(output.shape)}")
            continue
        return inputs.reshape(len(inputs), *shape)
    raise InputError(f"the model takes the inputs in no shape that was tried ({'; '.join(tried)}); say which with --input-shape")


def _candidates(shape: tuple[int, ...]) -> list[tuple[int, ...]]:
    size = math.prod(shape)
    side = math.isqrt(size)
    image = shape[-2:] if len(shape) == 2 or (len(shape) == 3 and shape[0] == 1) else None
    if image is None and len(shape) == 1 and side * side == size:
        image = (side, side)
    shapes = [shape] if len(shape) != 2 else []
    shapes += [(size,), *([(1, *image), image] if image else [])]
    return list(dict.fromkeys(shapes))
