"""What is fed to a model: one tensor, positional or keyword arguments, or batches of a loader; always the batch first."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only
from torch.utils.data import Dataset
from torch.utils.dlpack import from_dlpack

from kagscope.base.errors import InputError
from kagscope.jacobians.forward import count_required
from kagscope.jacobians.surroundings import surroundings_kept

LABEL_KEYS = ("labels", "label", "targets", "target")


@dataclass(frozen=True)
class Inputs:
    """Arguments of a forward call.

    Attributes:
        args: positional arguments.
        kwargs: keyword arguments.
        count: points, the first dimension of the tensors.
        labels: (count,) integers where a loader gave them, else None.
        wrt: which argument is differentiated, a name or position; None: the only one that can be.
        names: of the parameters of ``forward`` that the positional arguments go to, where they are known.
        notes: what a reader should know, such as what of a loader's batches was left out.
    """

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    count: int
    labels: np.ndarray | None = None
    wrt: int | str | None = None
    names: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def take(self, points: slice | Sequence[int] | np.ndarray) -> Inputs:
        """These inputs at some of the points; tensors whose first dimension is not that of the points stay as they are."""
        plain = isinstance(points, slice) and (points.step is None or points.step > 0)  # others are nothing to torch
        chosen: Any = points if plain else np.arange(self.count)[points]
        count = len(range(self.count)[points]) if isinstance(points, slice) else len(chosen)

        def one(value: Tensor) -> Tensor:
            if value.ndim and len(value) == self.count:
                return value[points].clone() if plain else value[torch.from_numpy(chosen).to(value.device)]
            return value

        labels = None if self.labels is None else self.labels[chosen]
        return self._map(one)._but(count=count, labels=labels)

    def clone(self) -> Inputs:
        """These inputs with copies of all tensors, through which gradients flow."""
        return self._map(Tensor.clone)

    def up_to(self, points: int | None) -> int:
        """How many these are at most, where so many are asked for; None: all."""
        return self.count if points is None else min(points, self.count)

    def cast(self, dtype: torch.dtype | None) -> Inputs:
        """Floating tensors in ``dtype`` (None: their own), detached; all of them fit for autograd."""

        def one(value: Tensor) -> Tensor:
            return trackable(value.detach().to(dtype) if dtype and value.is_floating_point() else value.detach())

        return self._map(one)

    def for_model(self, model: nn.Module) -> Inputs:
        """These inputs in the dtype of a model's floating parameters, or in their own where it has none or several; detached."""
        held = [parameter for module in model.modules() for parameter in module._parameters.values()]
        dtypes = {parameter.dtype for parameter in held if parameter is not None and parameter.is_floating_point()}
        return self.cast(dtypes.pop() if len(dtypes) == 1 else None)

    def as_one_point(self) -> Inputs:
        """These inputs as a single point, with a first dimension of 1 in front."""
        return self._map(lambda value: value[None])._but(count=1, labels=None)

    def _but(self, **changes: Any) -> Inputs:
        """As ``dataclasses.replace``, a tenth of whose time is enough here."""
        found = object.__new__(Inputs)
        vars(found).update(vars(self) | changes)
        return found

    def _map(self, one: Callable[[Tensor], Tensor]) -> Inputs:
        """All tensors changed, those in tuples, lists and dictionaries among them."""

        def within(value: Any) -> Any:
            return one(value) if isinstance(value, Tensor) else tree_map_only(Tensor, one, value)

        kwargs = {name: within(value) for name, value in self.kwargs.items()}
        return self._but(args=tuple(map(within, self.args)), kwargs=kwargs)

    def tensors(self) -> dict[int | str, Tensor]:
        """The tensors among the arguments, by position or name."""
        return {place: value for place, value in _by_place(self.args, self.kwargs) if isinstance(value, Tensor)}

    def with_tensor(self, place: int | str, value: Tensor) -> Inputs:
        """These inputs with one argument replaced."""
        if isinstance(place, str):
            return self._but(kwargs=self.kwargs | {place: value})
        return self._but(args=(*self.args[:place], value, *self.args[place + 1 :]))

    def place_of_variable(self) -> int | str:
        """Place of the argument to take derivatives with respect to: a floating tensor that has one entry per point.

        Raises:
            InputError: there is none, ``wrt`` names no such one, or there are several and ``wrt`` is None.
        """
        fit = [place for place, value in self.tensors().items() if self._can_be_differentiated(value)]
        several = [place for place in fit if place not in LABEL_KEYS]
        if self.wrt is None and len(several) <= 1 and fit:
            return (several or fit)[0]
        kinds = ", ".join(f"{self.name(place)}: {_kind(value)}" for place, value in self.tensors().items())
        expected = " or ".join(repr(self.name(place)) for place in fit) or "one of them"
        if self.wrt is not None:
            if self.wrt not in self.tensors():
                raise InputError(f"wrt is {self.wrt!r}, but the inputs are {kinds}; expected {expected}")
            if self.wrt not in fit:
                raise InputError(
                    f"wrt is {self.name(self.wrt)!r}, which is not a floating tensor with one entry for each of the {self.count} "
                    f"points (given {kinds}); expected {expected}"
                )
            return self.wrt
        if len(several) > 1:
            raise InputError(
                f"derivatives can be taken with respect to several of the inputs ({kinds}); "
                f"say which: wrt={' or wrt='.join(repr(self.name(place)) for place in several)}"
            )
        raise InputError(
            f"the inputs hold no floating tensor to take derivatives with respect to (given {kinds}); "
            'give real-valued inputs (for a language model inputs_embeds), or use layer_map="block" or "output"'
        )

    def name(self, place: int | str) -> int | str:
        """What the argument at a position is called in ``forward``; the position where that is not known."""
        return self.names[place] if isinstance(place, int) and place < len(self.names) else place

    def with_respect_to(self, wrt: int | str | None, parameters: Sequence[str]) -> Inputs:
        """These inputs with ``wrt`` chosen; a name of a parameter of ``forward`` means the argument at its position.

        ``parameters`` are those of the model (:func:`~kagscope.jacobians.forward.positional`).
        """
        names = tuple(parameters[: len(self.args)])
        if isinstance(wrt, str) and wrt not in self.kwargs and wrt in names:
            wrt = names.index(wrt)
        elif isinstance(wrt, int) and not self.args and 0 <= wrt < len(self.kwargs):
            wrt = list(self.kwargs)[wrt]
        return self._but(wrt=wrt, names=names)

    def _can_be_differentiated(self, value: Tensor) -> bool:
        return value.is_floating_point() and value.ndim > 0 and len(value) == self.count


def as_inputs(inputs: Any, points: int | None = None, model: nn.Module | None = None) -> Inputs:
    """Arguments of the forward call from what the user gave; an :class:`Inputs` is taken as it is.

    Args:
        inputs: a tensor or array (B, …), a tuple or list of positional arguments, a mapping of keyword arguments, or an iterable
            of batches such as a ``DataLoader``. Of a batch that is a tuple the model is fed as many elements as its ``forward``
            has required positional parameters, at least one; integers (B,) among the others are the labels.
        points: how many points to take of a loader, the first ones; None means at most 100.
        model: whose ``forward`` says how many; None: one.

    Raises:
        InputError: nothing given, no tensor, a kind of array that a model cannot be fed, or numbers of points that differ.
    """
    if points is not None and (isinstance(points, bool) or not isinstance(points, int | np.integer) or points < 1):
        raise InputError(f"points is {points!r}; expected a positive number of points, or None for all")
    if isinstance(inputs, Dataset):
        raise InputError(
            f"inputs are a {type(inputs).__name__}, which gives one point at a time; give batches, such as "
            "DataLoader(dataset, batch_size=32)"
        )
    if _is_loader(inputs):
        return _from_loader(inputs, 100 if points is None else int(points), 1 if model is None else max(1, count_required(model)))
    return inputs if isinstance(inputs, Inputs) else _from_arguments(inputs)


def _is_loader(inputs: Any) -> bool:
    if isinstance(inputs, Inputs | Tensor | np.ndarray | tuple | list | Mapping | str):
        return False
    if hasattr(inputs, "__array__") or hasattr(inputs, "__dlpack__"):
        return False
    return isinstance(inputs, Iterable)


def _from_loader(batches: Iterable[Any], points: int, fed: int) -> Inputs:
    parts: list[Inputs] = []
    missing = points
    with surroundings_kept():  # a loader draws a seed even where it does not shuffle
        for batch in batches:
            part = from_batch(batch, fed).take(slice(0, missing))
            parts.append(part)
            missing -= part.count
            if missing <= 0:
                break
    if not parts:
        raise InputError("the loader gave no batch; expected at least one")

    def join(place: int | str, values: list[Any]) -> Any:
        first = values[0]
        if not isinstance(first, Tensor) or not first.ndim:
            if not all(_same(value, first) for value in values):
                raise InputError(
                    f"the loader's batches differ in input {_place(place)}, which is no tensor of one entry for each point; "
                    "give it as such a tensor, or leave it out"
                )
            return first
        shapes = {tuple(value.shape[1:]): tuple(value.shape) for value in values}
        if len(shapes) > 1:
            raise InputError(
                f"the loader's batches have shapes {' and '.join(map(str, shapes.values()))}, which do not make one; "
                "pad them to one shape, or give fewer points"
            )
        return torch.cat([value.expand(part.count, *value.shape[1:]) for part, value in zip(parts, values, strict=True)])

    found = [part.labels for part in parts if part.labels is not None]
    labels = np.concatenate(found) if len(found) == len(parts) else None
    args = tuple(join(i, [part.args[i] for part in parts]) for i in range(len(parts[0].args)))
    kwargs = {name: join(name, [part.kwargs[name] for part in parts]) for name in parts[0].kwargs}
    return Inputs(args, kwargs, sum(p.count for p in parts), labels, notes=parts[0].notes)


def _same(one: Any, other: Any) -> bool:
    both = isinstance(one, Tensor) and isinstance(other, Tensor)
    return torch.equal(one, other) if both else one is other or repr(one) == repr(other)


def from_batch(batch: Any, fed: int) -> Inputs:
    """One batch of a loader: of a tuple the model is fed the first ``fed`` elements, or all that the first one holds.

    Raises:
        InputError: as :func:`as_inputs`.
    """
    if isinstance(batch, tuple | list):
        whole = isinstance(batch[0], tuple | list | Mapping) if batch else False
        given, rest = (batch[0], batch[1:]) if whole else (batch[:fed], batch[fed:])
        found = _from_arguments(given)
        labels = next((one for one in rest if _are_labels(one) and len(one) == found.count), None)
        others = [_kind(one) for one in rest if one is not labels]
        note = f"of each batch's {len(batch)} elements the first {1 if whole else len(given)} were fed to the model"
        notes = (f"{note}; left out: {', '.join(others)} (to feed more, give a mapping)",) if others else ()
        return replace(found, labels=_flat(labels), notes=notes)
    if isinstance(batch, Mapping):
        key = next((key for key in LABEL_KEYS if key in batch and _are_labels(batch[key])), None)
        found = _from_arguments({name: value for name, value in batch.items() if name != key})
        return replace(found, labels=None if key is None or len(batch[key]) != found.count else _flat(batch[key]))
    return _from_arguments(batch)


def _flat(labels: Any) -> np.ndarray | None:
    return None if labels is None else np.asarray(labels.cpu() if isinstance(labels, Tensor) else labels).reshape(-1)


def _are_labels(value: Any) -> bool:
    if not isinstance(value, Tensor | np.ndarray) or "int" not in str(value.dtype):
        return False
    return value.ndim == 1 or (value.ndim == 2 and value.shape[1] == 1)


def _from_arguments(given: Any) -> Inputs:
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    if isinstance(given, Mapping):
        args, kwargs = (), {str(name): _as_tensors(value) for name, value in given.items()}
    elif isinstance(given, tuple | list):
        args, kwargs = tuple(map(_as_tensors, given)), {}
    else:
        args, kwargs = (_as_tensor(given),), {}
    sizes = {place: tuple(value.shape) for place, value in _by_place(args, kwargs) if isinstance(value, Tensor)}
    if not sizes:
        raise InputError(f"inputs are {type(given).__name__}; expected a tensor (points, …), a tuple, a mapping or a DataLoader")
    for place, shape in sizes.items():
        if 0 in shape or not any(sizes.values()):
            raise InputError(f"inputs {_place(place)} have shape {shape}; expected at least one point, (points, …)")
    counts = {shape[0] for shape in sizes.values() if shape} - ({1} if len(sizes) > 1 else set())
    if len(counts) > 1:
        shapes = ", ".join(f"{_place(place)} {shape}" for place, shape in sizes.items())
        raise InputError(f"inputs differ in their number of points: {shapes}; the first dimension must be the same, or 1")
    count = counts.pop() if counts else 1
    return Inputs(args, kwargs, count)


def trackable(tensor: Tensor) -> Tensor:
    """The tensor, or a copy where it was made in inference mode and autograd would refuse it."""
    return tensor.clone() if tensor.is_inference() else tensor


def _as_tensors(value: Any) -> Any:
    """:func:`_as_tensor` of an argument, or of the arrays in one that is a tuple, a list or a dictionary."""
    inside = isinstance(value, tuple | list | dict)
    return tree_map_only((Tensor, np.ndarray), _as_tensor, value) if inside else _as_tensor(value)


def _as_tensor(value: Any) -> Any:
    """An array, of any library that knows DLPack, as a tensor; a tensor as it is, if a model can be fed with it."""
    if isinstance(value, Tensor):
        kind = "nested" if value.is_nested else "quantized" if value.is_quantized else "complex" if value.is_complex() else ""
        if kind or value.layout != torch.strided:
            raise InputError(
                f"inputs hold a {kind or 'sparse'} tensor; expected a dense one of real numbers, "
                "such as torch.nested.to_padded_tensor(x, 0.0), x.to_dense() or x.dequantize() gives"
            )
        return value
    if not isinstance(value, np.ndarray):
        if hasattr(value, "__dlpack__"):
            return from_dlpack(value)
        if hasattr(value, "__array__"):
            raise InputError(
                f"inputs are of type {type(value).__name__}; expected a tensor or array, such as torch.as_tensor(x.to_numpy())"
            )
        return value
    if isinstance(value, np.ma.MaskedArray):
        raise InputError("inputs are a masked array; fill the masked entries first, with x.filled(0.0) if zero is meant")
    if value.dtype.kind not in "biuf":
        raise InputError(f"inputs are an array of {value.dtype}; expected numbers, such as x.astype('float32')")
    if not value.dtype.isnative:
        raise InputError(
            f"inputs are an array of {value.dtype.str!r}, whose byte order is not this machine's; "
            f"give x.astype('{value.dtype.newbyteorder('=').name}')"
        )
    try:
        return torch.from_numpy(np.require(value, requirements=["C", "W"]))  # a copy of what is not to be written
    except TypeError as error:
        raise InputError(f"inputs are an array of {value.dtype}, which PyTorch lacks; give x.astype('float64')") from error


def _kind(value: Any) -> str:
    """ "float32 (3, 5)" of a tensor, the type of anything else."""
    if isinstance(value, Tensor | np.ndarray):
        return f"{str(value.dtype).removeprefix('torch.')} {tuple(value.shape)}"
    return type(value).__name__


def _by_place(args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[tuple[int | str, Any]]:
    return [*enumerate(args), *kwargs.items()]


def _place(place: int | str) -> str:
    return repr(place) if isinstance(place, str) else f"number {place}"
