"""What is fed to a model: one tensor, positional or keyword arguments, or batches of a loader; always the batch first."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kagscope.base.errors import InputError
from kagscope.jacobians.randomness import random_state_kept

LABEL_KEYS = ("labels", "label")


@dataclass(frozen=True)
class Inputs:
    """Arguments of a forward call.

    Attributes:
        args: positional arguments.
        kwargs: keyword arguments.
        count: points, the first dimension of the tensors.
        labels: (count,) integers where a loader gave them, else None.
    """

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    count: int
    labels: np.ndarray | None = None

    def take(self, points: slice | Sequence[int] | np.ndarray) -> Inputs:
        """The same arguments at some points; tensors with a first dimension of 1 stay as they are."""
        chosen = np.arange(self.count)[points]

        def one(value: Any) -> Any:
            if isinstance(value, Tensor) and value.ndim and len(value) == self.count:
                return value[torch.from_numpy(chosen).to(value.device)]
            return value

        labels = None if self.labels is None else self.labels[chosen]
        return Inputs(tuple(map(one, self.args)), {name: one(v) for name, v in self.kwargs.items()}, len(chosen), labels)

    def cast(self, dtype: torch.dtype | None) -> Inputs:
        """Floating tensors in ``dtype`` (None: their own), detached; all of them fit for autograd."""

        def one(value: Any) -> Any:
            if not isinstance(value, Tensor):
                return value
            return trackable(value.detach().to(dtype) if dtype and value.is_floating_point() else value.detach())

        return Inputs(tuple(map(one, self.args)), {name: one(v) for name, v in self.kwargs.items()}, self.count, self.labels)

    def tensors(self) -> dict[int | str, Tensor]:
        """The tensors among the arguments, by position or name."""
        return {place: value for place, value in _placed(self.args, self.kwargs) if isinstance(value, Tensor)}

    def with_tensor(self, place: int | str, value: Tensor) -> Inputs:
        """The same arguments with one of them replaced."""
        if isinstance(place, str):
            return Inputs(self.args, self.kwargs | {place: value}, self.count, self.labels)
        args = (*self.args[:place], value, *self.args[place + 1 :])
        return Inputs(args, self.kwargs, self.count, self.labels)

    def differentiated(self) -> int | str:
        """Place of the first floating tensor that has one entry per point. Raises :class:`InputError` when there is none."""
        for place, value in self.tensors().items():
            if value.is_floating_point() and value.ndim and len(value) == self.count:
                return place
        kinds = ", ".join(f"{place}: {str(value.dtype).removeprefix('torch.')}" for place, value in self.tensors().items())
        raise InputError(
            f"the inputs hold no floating tensor to take derivatives with respect to (given {kinds}); "
            'give real-valued inputs (for a language model inputs_embeds), or use layer_map="block" or "output"'
        )


def as_inputs(inputs: Any, points: int | None = None) -> Inputs:
    """Arguments of the forward call from what the user gave.

    Args:
        inputs: a tensor or array (B, …), a tuple or list of positional arguments, a mapping of keyword arguments, or an iterable
            of batches such as a ``DataLoader``, whose (x, y) pairs are taken as inputs and labels.
        points: how many points to take of a loader, the first ones; None means at most 100.

    Raises:
        InputError: nothing given, no tensor, or numbers of points that differ.
    """
    if points is not None and (isinstance(points, bool) or not isinstance(points, int | np.integer) or points < 1):
        raise InputError(f"points is {points!r}; expected a positive number of points, or None for all")
    if _is_loader(inputs):
        return _from_loader(inputs, 100 if points is None else int(points))
    return inputs if isinstance(inputs, Inputs) else _from_arguments(inputs, None)


def _is_loader(inputs: Any) -> bool:
    return isinstance(inputs, Iterable) and not isinstance(inputs, Inputs | Tensor | np.ndarray | tuple | list | Mapping | str)


def _from_loader(batches: Iterable[Any], points: int) -> Inputs:
    parts: list[Inputs] = []
    missing = points
    with random_state_kept():  # a loader draws a seed even where it does not shuffle
        for batch in batches:
            part = _from_batch(batch).take(slice(0, missing))
            parts.append(part)
            missing -= part.count
            if missing <= 0:
                break
    if not parts:
        raise InputError("the loader gave no batch; expected at least one")

    def joined(values: list[Any]) -> Any:
        if not isinstance(values[0], Tensor) or not values[0].ndim:
            return values[0]
        shapes = {tuple(value.shape[1:]): tuple(value.shape) for value in values}
        if len(shapes) > 1:
            raise InputError(
                f"the loader's batches have shapes {' and '.join(map(str, shapes.values()))}, which do not make one; "
                "pad them to one shape, or give fewer points"
            )
        return torch.cat(values)

    labels = None if parts[0].labels is None else np.concatenate([p.labels for p in parts if p.labels is not None])
    args = tuple(joined([p.args[i] for p in parts]) for i in range(len(parts[0].args)))
    kwargs = {name: joined([p.kwargs[name] for p in parts]) for name in parts[0].kwargs}
    return Inputs(args, kwargs, sum(p.count for p in parts), labels)


def _from_batch(batch: Any) -> Inputs:
    """One batch of a loader: (x, y) pairs and a key "labels" hold the labels."""
    if isinstance(batch, tuple | list) and len(batch) == 2 and _are_labels(batch[1]):
        return _from_arguments(batch[0], batch[1])
    if isinstance(batch, Mapping):
        key = next((key for key in LABEL_KEYS if key in batch and _are_labels(batch[key])), None)
        labels = None if key is None else batch[key]
        return _from_arguments({name: value for name, value in batch.items() if name != key}, labels)
    return _from_arguments(batch, None)


def _are_labels(value: Any) -> bool:
    return isinstance(value, Tensor | np.ndarray) and value.ndim == 1 and "int" in str(value.dtype)


def _from_arguments(given: Any, labels: Any) -> Inputs:
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    if isinstance(given, Mapping):
        args, kwargs = (), {str(name): _as_tensor(value) for name, value in given.items()}
    elif isinstance(given, tuple | list):
        args, kwargs = tuple(map(_as_tensor, given)), {}
    else:
        args, kwargs = (_as_tensor(given),), {}
    sizes = {place: tuple(value.shape) for place, value in _placed(args, kwargs) if isinstance(value, Tensor)}
    if not sizes:
        raise InputError(f"inputs are {type(given).__name__}; expected a tensor (points, …), a tuple, a mapping or a DataLoader")
    for place, shape in sizes.items():
        if 0 in shape or not shape:
            raise InputError(f"inputs {_place(place)} have shape {shape}; expected at least one point, (points, …)")
    counts = {shape[0] for shape in sizes.values()} - ({1} if len(sizes) > 1 else set())
    if len(counts) > 1:
        shapes = ", ".join(f"{_place(place)} {shape}" for place, shape in sizes.items())
        raise InputError(f"inputs differ in their number of points: {shapes}; the first dimension must be the same")
    count = counts.pop() if counts else 1
    if labels is not None:
        labels = np.asarray(labels.cpu() if isinstance(labels, Tensor) else labels)
        if len(labels) != count:
            raise InputError(f"{count} points but {len(labels)} labels; they must be as many")
    return Inputs(args, kwargs, count, labels)


def trackable(tensor: Tensor) -> Tensor:
    """The tensor, or a copy where it was made in inference mode and autograd would refuse it."""
    return tensor.clone() if tensor.is_inference() else tensor


def _as_tensor(value: Any) -> Any:
    return torch.from_numpy(np.ascontiguousarray(value)) if isinstance(value, np.ndarray) and value.dtype != object else value


def _placed(args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[tuple[int | str, Any]]:
    return [*enumerate(args), *kwargs.items()]


def _place(place: int | str) -> str:
    return repr(place) if isinstance(place, str) else f"number {place}"
