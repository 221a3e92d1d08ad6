"""Named matrices in a file: published Jacobian lenses, weights, anything 2-D. Nothing is unpickled but tensors."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kagscope.base.errors import DataError
from kagscope.base.messages import listing
from kagscope.data.arrays import read_npz
from kagscope.loading.weights import load_tensors

LENS = "J"  # under which a Jacobian lens keeps its matrices, by layer
ABOUT = ("n_prompts", "d_model", "source_layers")  # what else it says of itself
MOST_ABOUT = 10_000  # numbers of that
DAMAGED = "the file is damaged, or not a lens"
EXPECTED = (
    "expected a Jacobian lens {J: {layer: matrix}, n_prompts, source_layers, d_model}, or floating-point matrices by name, "
    "in .pt, .safetensors or .npz"
)


@dataclass(frozen=True)
class NamedMatrices:
    """Matrices of a file, in the order of their layers.

    Attributes:
        matrices: floating, 2-D, by name.
        about: what else a lens says of itself: n_prompts, d_model, source_layers.
        left: names of entries that are not floating-point matrices.
    """

    matrices: dict[str, Tensor | np.ndarray]
    about: dict[str, Any] = field(default_factory=dict)
    left: list[str] = field(default_factory=list)


def load_matrices(path: str | os.PathLike[str]) -> NamedMatrices:
    """Read the matrices of a file ``.pt`` (tensors in plain containers only), ``.safetensors`` or ``.npz``.

    Raises:
        DataError: a file that cannot be read, or that holds no matrices.
    """
    path = Path(path)
    others: list[str] = []
    content: Any = read_npz(path, others) if path.suffix == ".npz" else load_tensors(path)
    if not isinstance(content, Mapping):
        raise DataError(f"{path} holds an object of type {type(content).__name__}; {EXPECTED}")
    if isinstance(content.get(LENS), Mapping):
        return _lens(content, path)
    _check_names([str(name) for name in content], path)
    matrices = {str(name): _check_whole(value, f"{path}: {name}") for name, value in content.items() if _is_matrix(value)}
    left = [str(name) for name in content if str(name) not in matrices] + others
    if not matrices:
        present = listing([f"{name}{_shape(content[name])}" for name in content] + others) or "nothing"
        raise DataError(f"{path} holds no floating-point matrix (found {present}); {EXPECTED}")
    return NamedMatrices(dict(sorted(matrices.items(), key=lambda item: _natural_key(item[0]))), left=left)


def _lens(content: Mapping[Any, Any], path: Path) -> NamedMatrices:
    matrices = content[LENS]
    wrong = [str(layer) for layer, matrix in matrices.items() if not _is_matrix(matrix)]
    if wrong or not matrices:
        what = f"layer {listing(wrong)} of {LENS} is not a floating-point matrix" if wrong else f"{LENS} holds no layer"
        raise DataError(f"{path}: {what}; {EXPECTED}")
    facts = {name: _plain(content[name]) for name in ABOUT if name in content}
    facts = {name: value for name, value in facts.items() if isinstance(value, int | float | str | list)}
    size, sources = facts.get("d_model"), facts.get("source_layers")
    for layer, matrix in matrices.items():
        if size is not None and tuple(matrix.shape) != (size, size):
            raise DataError(f"{path}: layer {layer} is {tuple(matrix.shape)}, but d_model is {size!r}; {DAMAGED}")
    names = [f"layer {layer}" if isinstance(layer, int) else str(layer) for layer in matrices]
    _check_names(names, path)
    expected = matrices if not isinstance(sources, list) else sources
    if apart := sorted({_number_of(layer) for layer in expected} ^ {_number_of(layer) for layer in matrices}, key=_natural_key):
        raise DataError(f"{path}: layer {listing(apart)} in only one of {LENS} and source_layers; {DAMAGED}")
    named = {name: _check_whole(matrix, f"{path}: {name}") for name, matrix in zip(names, matrices.values(), strict=True)}
    return NamedMatrices(dict(sorted(named.items(), key=lambda item: _natural_key(item[0]))), facts)


def _number_of(layer: Any) -> str:
    """A layer, however it is written: 3, "3" and "layer 3" are one."""
    return str(layer).removeprefix("layer ")


def _plain(value: Any) -> Any:
    """A tensor or sequence as a number or list; a tensor can repeat a few numbers to any size, and is then none."""
    if isinstance(value, Tensor) and value.layout == torch.strided and not value.is_meta and value.numel() <= MOST_ABOUT:
        value = value.tolist()
    return list(value) if isinstance(value, tuple) else value


def _check_names(names: list[str], path: Path) -> None:
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise DataError(f"{path}: several matrices are named {listing(twice)}; name each differently")


def _check_whole(matrix: Any, label: str) -> Any:
    """A matrix that has all its numbers in the file; a tensor can repeat a few to any size."""
    if isinstance(matrix, Tensor) and matrix.layout == torch.strided and not matrix.is_meta:
        stored = matrix.untyped_storage().nbytes() // matrix.element_size()
        if stored < matrix.numel():
            raise DataError(f"{label} announces {tuple(matrix.shape)}, but the file holds {stored} numbers of it: save it again")
    return matrix


def _is_matrix(value: Any) -> bool:
    if isinstance(value, Tensor):
        return value.ndim == 2 and value.is_floating_point() and value.numel() > 0
    return isinstance(value, np.ndarray) and value.ndim == 2 and value.dtype.kind == "f" and value.size > 0


def _shape(value: Any) -> str:
    """The shape and type of an array, " (5, 12, 30) float64"; nothing of other things."""
    shape = getattr(value, "shape", None)
    return "" if shape is None else f" {tuple(shape)} {str(value.dtype).removeprefix('torch.')}"


def _natural_key(name: str) -> list[tuple[int, str]]:
    """By which names sort as people count: layer 2 before layer 10."""
    return [(int(word), "") if word.isdigit() else (-1, word) for word in re.split(r"(\d+)", name)]
