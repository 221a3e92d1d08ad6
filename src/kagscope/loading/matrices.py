"""Load named matrices from a file: published Jacobian lenses, weights, anything 2-D. Only tensors are unpickled."""

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

LENS = "J"  # key of the matrices by layer in a Jacobian lens
METADATA = ("n_prompts", "d_model", "source_layers")  # metadata of a Jacobian lens
MOST_NUMBERS = 10_000  # largest count of numbers in metadata
DAMAGED = "the file is damaged, or not a lens"
EXPECTED = (
    "expected a Jacobian lens {J: {layer: matrix}, n_prompts, source_layers, d_model}, or floating-point matrices by name, "
    "in .pt, .safetensors or .npz"
)


@dataclass(frozen=True)
class NamedMatrices:
    """Matrices of a file, in order of their layers.

    Attributes:
        matrices: 2-D floating-point arrays by name.
        metadata: of a lens: n_prompts, d_model, source_layers.
        left: names of other entries.
    """

    matrices: dict[str, Tensor | np.ndarray]
    metadata: dict[str, Any] = field(default_factory=dict)
    left: list[str] = field(default_factory=list)


def load_matrices(path: str | os.PathLike[str]) -> NamedMatrices:
    """Read the matrices of a file ``.pt`` (tensors in plain containers only), ``.safetensors`` or ``.npz``.

    Raises:
        DataError: the file cannot be read or holds no matrices.
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
        problem = f"layer {listing(wrong)} of {LENS} is not a floating-point matrix" if wrong else f"{LENS} holds no layer"
        raise DataError(f"{path}: {problem}; {EXPECTED}")
    facts = {name: _plain(content[name]) for name in METADATA if name in content}
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
    """Number of a layer, written as 3, "3" or "layer 3"."""
    return str(layer).removeprefix("layer ")


def _plain(value: Any) -> Any:
    """A tensor or sequence as a number or list; None for a tensor expanded from fewer stored numbers."""
    if isinstance(value, Tensor) and value.layout == torch.strided and not value.is_meta and value.numel() <= MOST_NUMBERS:
        value = value.tolist()
    return list(value) if isinstance(value, tuple) else value


def _check_names(names: list[str], path: Path) -> None:
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise DataError(f"{path}: several matrices are named {listing(twice)}; name each differently")


def _check_whole(matrix: Any, label: str) -> Any:
    """Check that all numbers of a matrix are in the file, as a tensor can expand a few to any size."""
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
    """Shape and dtype of an array, " (5, 12, 30) float64"; empty for anything else."""
    shape = getattr(value, "shape", None)
    return "" if shape is None else f" {tuple(shape)} {str(value.dtype).removeprefix('torch.')}"


def _natural_key(name: str) -> list[tuple[int, str]]:
    """Key for natural sorting: layer 2 before layer 10."""
    return [(int(word), "") if word.isdigit() else (-1, word) for word in re.split(r"(\d+)", name)]
