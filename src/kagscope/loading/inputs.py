"""Load inputs by name: a data set of :mod:`kagscope.data`, or a file of arrays. Nothing is unpickled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kagscope import data
from kagscope.base.checks import is_whole
from kagscope.base.errors import DataError, InputError
from kagscope.base.messages import listing
from kagscope.data.arrays import read_npy, read_npz
from kagscope.loading.weights import load_tensors

SUFFIXES = (".npz", ".npy", ".pt", ".pth", ".safetensors")
INPUT_NAMES = ("inputs", "images", "x", "X", "data")
LABEL_NAMES = ("labels", "y", "targets", "target", "label")
SPLITS = ("test", "train")


@dataclass(frozen=True)
class LoadedInputs:
    """Inputs of a model, batch first.

    Attributes:
        inputs: a tensor (N, …), or several by the names of the model's arguments; floating point as in the source (bytes
            over 255), integers as int64.
        labels: (N,) int64, or None if the source has none.
        image_shape: (height, width), or (3, height, width) for colour, if the inputs are known to be images, else None.
        name: name by which they were loaded.
        left_out: names of other arrays in the file, which are not fed to the model.
    """

    inputs: Tensor | dict[str, Tensor]
    labels: Tensor | None
    image_shape: tuple[int, ...] | None
    name: str
    left_out: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.inputs if isinstance(self.inputs, Tensor) else next(iter(self.inputs.values())))


def load_inputs(
    name: str | Path,
    *,
    split: str = "test",
    shape: tuple[int, ...] | None = None,
    required: Sequence[str] = (),
) -> LoadedInputs:
    """Load the inputs of a name, all of them.

    Args:
        name: a data set (``digits``, ``mnist``, …, or a folder, see :func:`kagscope.data.load`), or a file ``.npz``, ``.npy``,
            ``.pt`` or ``.safetensors``. In a file of several arrays, ``inputs`` (or ``images``, ``x``, ``data``; with the split
            before it, as in ``test_images``) are the inputs and ``labels`` (or ``y``, ``targets``) the labels; without such a
            name, a single array is the inputs, and several are the model's arguments by name (``input_ids``,
            ``attention_mask``), as they are if they include all that the model requires.
        split: ``"test"`` or ``"train"`` part of a data set with both.
        shape: shape of one input, such as ``(1, 28, 28)``; None for that of the source.
        required: names of the arguments that the model requires.

    Raises:
        InputError: an unknown name, split or shape.
        DataError: a bad file.
    """
    if split not in SPLITS:
        raise InputError(f"split is {split!r}; expected test or train")
    inputs, labels, image_shape, left_out = _source(name, split, required)
    tensors = inputs if isinstance(inputs, dict) else {"inputs": inputs}
    _check_lengths(tensors, labels, str(name))
    for key, tensor in tensors.items():
        _check(tensor, f"{name}: {key}")
    if shape is not None:
        if isinstance(inputs, dict):
            raise InputError(f"an input shape was given, but {name} holds several arrays ({listing(inputs)}); shape them there")
        inputs, image_shape = reshape(inputs, shape, str(name)), image_shape or image_shape_of(shape)
    return LoadedInputs(inputs, labels, image_shape, str(name), left_out)


def reshape(inputs: Tensor, shape: tuple[int, ...], name: str) -> Tensor:
    """Reshape ``inputs`` (N, …) to (N, *shape). Raises :class:`InputError` if the sizes do not fit."""
    if not shape or not all(is_whole(side, 1) for side in shape):
        raise InputError(f"input shape {shape} must be whole numbers from 1, such as 1,28,28")
    if inputs[0].numel() != int(np.prod(shape)):
        raise InputError(
            f"input shape {tuple(shape)} is {int(np.prod(shape))} numbers, but an input of {name} has shape "
            f"{tuple(inputs.shape[1:])}, which is {inputs[0].numel()}"
        )
    return inputs.reshape(len(inputs), *shape)


def image_shape_of(shape: tuple[int, ...]) -> tuple[int, ...] | None:
    """(height, width) for a grey image (H, W) or (1, H, W), (3, height, width) for a colour image, else None."""
    sides = tuple(int(side) for side in (shape[1:] if len(shape) == 3 and shape[0] == 1 else shape))
    return sides if len(sides) == 2 or (len(sides) == 3 and sides[0] == 3) else None


Arrays = tuple[Tensor | dict[str, Tensor], Tensor | None, tuple[int, ...] | None, tuple[str, ...]]
"""Inputs, labels, shape of an image, names of what is left out."""


def _source(name: str | Path, split: str, required: Sequence[str]) -> Arrays:
    path = _file(name)
    if path is not None:
        return _from_file(path, split, required)
    try:
        dataset = data.load(name, progress=True)
    except InputError as error:
        raise InputError(f"{error}, or a file of inputs ({', '.join(SUFFIXES)})") from None
    images = dataset.test_images if split == "test" else dataset.train_images
    labels = dataset.test_labels if split == "test" else dataset.train_labels
    return torch.from_numpy(images), torch.from_numpy(labels), dataset.image_shape, ()


def _file(name: str | Path) -> Path | None:
    """The file of this name, or None if it is a data set; a suffix of :data:`SUFFIXES` always means a file."""
    if isinstance(name, str) and name in data.NAMES:
        return None
    try:
        path = Path(name).expanduser()
        if path.suffix in SUFFIXES and not path.is_dir():
            return path
        is_file = path.is_file()
    except (OSError, ValueError, RuntimeError, TypeError):
        return None
    if is_file:
        raise InputError(f"{path}: inputs are read from {', '.join(SUFFIXES)}, not from {path.suffix or 'a file without suffix'}")
    return None


def _from_file(path: Path, split: str, required: Sequence[str]) -> Arrays:
    content: Any
    if path.suffix == ".npz":
        content = {key: _tensor(array) for key, array in read_npz(path).items()}
    elif path.suffix == ".npy":
        content = _tensor(read_npy(path))
    else:
        content = load_tensors(path)
    if isinstance(content, (tuple, list)) and len(content) == 2 and all(isinstance(value, Tensor) for value in content):
        content = {"inputs": content[0], "labels": content[1]}
    if isinstance(content, Tensor):
        content = {"inputs": content}
    if not isinstance(content, Mapping) or not content or not all(isinstance(value, Tensor) for value in content.values()):
        present = "nothing" if content == {} else f"a {type(content).__name__}"
        raise DataError(f"{path}: holds {present}; expected a tensor, or tensors by name (inputs, labels)")
    return _pick({str(key): value for key, value in content.items()}, path, split, required)


def _tensor(array: np.ndarray) -> Tensor:
    wide = array.astype(np.int64) if array.dtype.kind in "iu" and array.dtype != np.uint8 else array
    return torch.from_numpy(wide)


def _pick(arrays: dict[str, Tensor], path: Path, split: str, required: Sequence[str]) -> Arrays:
    """Choose the arrays that are inputs and labels."""
    label_name, input_name = _first(arrays, LABEL_NAMES, split), _first(arrays, INPUT_NAMES, split)
    labels = arrays.get(label_name)
    others = {key: value for key, value in arrays.items() if key not in LABEL_NAMES}
    if len(required) > 1 and all(key in others for key in required):
        input_name = ""
    elif not input_name and len(others) == 1:
        input_name = next(iter(others))
    if labels is not None and (labels.ndim != 1 or labels.is_floating_point()):
        raise DataError(f"{path}: labels are {_kind(labels)}; expected integers (N,)")
    labels = None if labels is None else labels.long()
    if not input_name:
        if not others:
            raise DataError(f"{path}: holds {listing(arrays)} and no inputs; name them inputs")
        return {key: _scale(value) for key, value in others.items()}, labels, None, ()
    inputs = arrays[input_name]
    pixels = inputs.is_floating_point() or inputs.dtype == torch.uint8
    known = {f"{prefix}{name}" for prefix in ("", *(f"{part}_" for part in SPLITS)) for name in INPUT_NAMES + LABEL_NAMES}
    left_out = tuple(key for key in others if key not in known | {input_name})
    return _scale(inputs), labels, image_shape_of(tuple(inputs.shape[1:])) if pixels else None, left_out


def _first(arrays: dict[str, Tensor], names: tuple[str, ...], split: str) -> str:
    """The first of the names, with or without the split as prefix, that an array has; "" if none."""
    return next((name for name in (*(f"{split}_{name}" for name in names), *names) if name in arrays), "")


_INTEGERS = (torch.int8, torch.int16, torch.int32, torch.int64, torch.uint16, torch.uint32)


def _scale(inputs: Tensor) -> Tensor:
    """Bytes over 255, as in :mod:`kagscope.data`; other integers as int64."""
    if inputs.dtype == torch.uint8:
        return inputs.float() / 255
    return inputs.long() if inputs.dtype in _INTEGERS else inputs


def _check_lengths(tensors: dict[str, Tensor], labels: Tensor | None, name: str) -> None:
    if scalars := [key for key, tensor in tensors.items() if tensor.ndim == 0]:
        raise DataError(f"{name}: {scalars[0]} is a single number; expected arrays (N, …), one entry per input")
    counts = {key: len(tensor) for key, tensor in tensors.items()} | ({} if labels is None else {"labels": len(labels)})
    if len(set(counts.values())) > 1:
        counts_text = ", ".join(f"{key}: {count}" for key, count in counts.items())
        raise DataError(f"{name}: arrays of different lengths ({counts_text}); expected one entry per input in each")
    if next(iter(counts.values())) == 0 or any(tensor.numel() == 0 for tensor in tensors.values()):
        raise DataError(f"{name}: holds no inputs ({', '.join(_kind(tensor) for tensor in tensors.values())})")


def _check(tensor: Tensor, label: str) -> None:
    if tensor.is_complex() or tensor.layout != torch.strided or tensor.is_quantized:
        raise DataError(f"{label}: is {_kind(tensor)}, {tensor.layout}; expected a dense array of real numbers")
    finite = torch.isfinite(tensor.float() if tensor.element_size() == 1 else tensor)  # not implemented for float8
    if not finite.all():
        first = torch.nonzero(~finite)[0].tolist()
        raise DataError(f"{label}: NaN or infinite, first at {tuple(first)}; expected finite numbers")


def _kind(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}"
