"""Inputs of a model: a tensor, positional or keyword arguments, or batches of a loader; the batch dimension comes first."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils._pytree import tree_map_only
from torch.utils.data import Dataset
from torch.utils.dlpack import from_dlpack

from kagscope.base.errors import InputError
from kagscope.jacobians.forward import count_required
from kagscope.jacobians.surroundings import preserve_global_state

LABEL_KEYS = ("labels", "label", "targets", "target")


@dataclass(frozen=True)
class Inputs:
    """Arguments of a forward call.

    Attributes:
        args: positional arguments.
        kwargs: keyword arguments.
        count: number of points, the first dimension of the tensors.
        labels: (count,) integers if a loader gave them, else None.
        wrt: name or position of the argument to differentiate; None: the only one that can be.
        names: parameters of ``forward`` that receive the positional arguments, if known.
        notes: what a reader should know, such as which elements of a loader's batches were left out.
    """

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    count: int
    labels: np.ndarray | None = None
    wrt: int | str | None = None
    names: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def take(self, points: slice | Sequence[int] | np.ndarray) -> Inputs:
        """Inputs at some of the points; tensors whose first dimension is not the number of points stay unchanged."""
        plain = isinstance(points, slice) and (points.step is None or points.step > 0)  # torch knows no negative steps
        chosen: Any = points if plain else np.arange(self.count)[points]
        count = len(range(self.count)[points]) if isinstance(points, slice) else len(chosen)

        def select(value: Tensor) -> Tensor:
            if value.ndim and len(value) == self.count:
                return value[points].clone() if plain else value[torch.from_numpy(chosen).to(value.device)]
            return value

        labels = None if self.labels is None else self.labels[chosen]
        return self._map(select)._replace(count=count, labels=labels)

    def clone(self) -> Inputs:
        """Copies of all tensors, through which gradients flow."""
        return self._map(Tensor.clone)

    def count_up_to(self, points: int | None) -> int:
        """Number of points available when ``points`` are requested; None requests all."""
        return self.count if points is None else min(points, self.count)

    def cast(self, dtype: torch.dtype | None) -> Inputs:
        """Detached inputs that autograd accepts, with floating tensors converted to ``dtype`` (None: unchanged)."""

        def convert(value: Tensor) -> Tensor:
            return as_trackable(value.detach().to(dtype) if dtype and value.is_floating_point() else value.detach())

        return self._map(convert)

    def for_model(self, model: nn.Module) -> Inputs:
        """Detached inputs in the dtype of the model's floating parameters; unchanged if it has none or several."""
        parameters = [parameter for module in model.modules() for parameter in module._parameters.values()]
        dtypes = {parameter.dtype for parameter in parameters if parameter is not None and parameter.is_floating_point()}
        return self.cast(dtypes.pop() if len(dtypes) == 1 else None)

    def as_one_point(self) -> Inputs:
        """The same tensors as a single point, with a leading dimension of 1."""
        return self._map(lambda value: value[None])._replace(count=1, labels=None)

    def _replace(self, **changes: Any) -> Inputs:
        """Like ``dataclasses.replace``, but ten times faster."""
        copy = object.__new__(Inputs)
        vars(copy).update(vars(self) | changes)
        return copy

    def _map(self, change: Callable[[Tensor], Tensor]) -> Inputs:
        """Apply ``change`` to all tensors, including those inside tuples, lists and dictionaries."""

        def change_all(value: Any) -> Any:
            return change(value) if isinstance(value, Tensor) else tree_map_only(Tensor, change, value)

        kwargs = {name: change_all(value) for name, value in self.kwargs.items()}
        return self._replace(args=tuple(map(change_all, self.args)), kwargs=kwargs)

    def tensors(self) -> dict[int | str, Tensor]:
        """The tensors among the arguments, by position or name."""
        return {key: value for key, value in _by_key(self.args, self.kwargs) if isinstance(value, Tensor)}

    def with_tensor(self, key: int | str, value: Tensor) -> Inputs:
        """Inputs with one argument replaced."""
        if isinstance(key, str):
            return self._replace(kwargs=self.kwargs | {key: value})
        return self._replace(args=(*self.args[:key], value, *self.args[key + 1 :]))

    def variable_key(self) -> int | str:
        """Key of the argument to differentiate with respect to: a floating tensor with one entry per point.

        Raises:
            InputError: There is none, ``wrt`` names something else, or there are several and ``wrt`` is None.
        """
        fit = [key for key, value in self.tensors().items() if self._can_be_differentiated(value)]
        several = [key for key in fit if key not in LABEL_KEYS]
        if self.wrt is None and len(several) <= 1 and fit:
            return (several or fit)[0]
        kinds = ", ".join(f"{self.name(key)}: {_describe(value)}" for key, value in self.tensors().items())
        expected = " or ".join(repr(self.name(key)) for key in fit) or "one of them"
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
                f"say which: wrt={' or wrt='.join(repr(self.name(key)) for key in several)}"
            )
        raise InputError(
            f"the inputs hold no floating tensor to take derivatives with respect to (given {kinds}); "
            'give real-valued inputs (for a language model inputs_embeds), or use layer_map="block" or "output"'
        )

    def name(self, key: int | str) -> int | str:
        """Name of an argument in ``forward``, or its position if the name is not known."""
        return self.names[key] if isinstance(key, int) and key < len(self.names) else key

    def with_respect_to(self, wrt: int | str | None, parameters: Sequence[str]) -> Inputs:
        """Inputs with ``wrt`` set; the name of a parameter of ``forward`` means the argument at its position.

        ``parameters`` comes from :func:`~kagscope.jacobians.forward.positional_parameters`.
        """
        names = tuple(parameters[: len(self.args)])
        if isinstance(wrt, str) and wrt not in self.kwargs and wrt in names:
            wrt = names.index(wrt)
        elif isinstance(wrt, int) and not self.args and 0 <= wrt < len(self.kwargs):
            wrt = list(self.kwargs)[wrt]
        return self._replace(wrt=wrt, names=names)

    def _can_be_differentiated(self, value: Tensor) -> bool:
        return value.is_floating_point() and value.ndim > 0 and len(value) == self.count


def as_inputs(inputs: Any, points: int | None = None, model: nn.Module | None = None) -> Inputs:
    """Convert what the user gave into arguments of a forward call; an :class:`Inputs` is returned unchanged.

    Args:
        inputs: a tensor or array (B, …), a tuple or list of positional arguments, a mapping of keyword arguments, or an iterable
            of batches such as a ``DataLoader``. From a tuple batch the model is fed as many elements as its ``forward``
            has required positional parameters, at least one; integers (B,) among the rest are the labels.
        points: number of points to take from the start of a loader; None means at most 100.
        model: model whose ``forward`` determines how many elements are fed; None: one.

    Raises:
        InputError: No input, no tensor, an unsupported kind of array, or differing numbers of points.
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
    if isinstance(inputs, Inputs | Tensor | np.ndarray | tuple | list | Mapping | str | memoryview):
        return False
    if any(hasattr(inputs, one) for one in ("__array__", "__dlpack__", "toarray")):  # the last of SciPy's sparse matrices
        return False
    return isinstance(inputs, Iterable)


def _from_loader(batches: Iterable[Any], points: int, fed: int) -> Inputs:
    parts: list[Inputs] = []
    missing = points
    with preserve_global_state():  # a loader draws a seed even where it does not shuffle
        for batch in batches:
            part = from_batch(batch, fed).take(slice(0, missing))
            parts.append(part)
            missing -= part.count
            if missing <= 0:
                break
    if not parts:
        raise InputError("the loader gave no batch; expected at least one")

    def join(key: int | str, values: list[Any]) -> Any:
        first = values[0]
        if not isinstance(first, Tensor) or not first.ndim:
            if not all(_same(value, first) for value in values):
                raise InputError(
                    f"the loader's batches differ in input {_describe_key(key)}, which is no tensor of one entry for each point; "
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

    labels_given = [part.labels for part in parts if part.labels is not None]
    labels = np.concatenate(labels_given) if len(labels_given) == len(parts) else None
    args = tuple(join(i, [part.args[i] for part in parts]) for i in range(len(parts[0].args)))
    kwargs = {name: join(name, [part.kwargs[name] for part in parts]) for name in parts[0].kwargs}
    return Inputs(args, kwargs, sum(p.count for p in parts), labels, notes=parts[0].notes)


def _same(first: Any, second: Any) -> bool:
    both = isinstance(first, Tensor) and isinstance(second, Tensor)
    return torch.equal(first, second) if both else first is second or repr(first) == repr(second)


def from_batch(batch: Any, fed: int) -> Inputs:
    """Convert one batch of a loader; from a tuple, the first ``fed`` elements are fed, or all those nested in its first.

    Raises:
        InputError: as :func:`as_inputs`.
    """
    if isinstance(batch, tuple | list):
        nested = isinstance(batch[0], tuple | list | Mapping) if batch else False
        arguments, rest = (batch[0], batch[1:]) if nested else (batch[:fed], batch[fed:])
        inputs = _from_arguments(arguments)
        labels = next((value for value in rest if _are_labels(value) and len(value) == inputs.count), None)
        others = [_describe(value) for value in rest if value is not labels]
        note = f"of each batch's {len(batch)} elements the first {1 if nested else len(arguments)} were fed to the model"
        notes = (f"{note}; left out: {', '.join(others)} (to feed more, give a mapping)",) if others else ()
        return replace(inputs, labels=_flatten_labels(labels), notes=notes)
    if isinstance(batch, Mapping):
        key = next((key for key in LABEL_KEYS if key in batch and _are_labels(batch[key])), None)
        inputs = _from_arguments({name: value for name, value in batch.items() if name != key})
        return replace(inputs, labels=None if key is None or len(batch[key]) != inputs.count else _flatten_labels(batch[key]))
    return _from_arguments(batch)


def _flatten_labels(labels: Any) -> np.ndarray | None:
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
    sizes = {key: tuple(value.shape) for key, value in _by_key(args, kwargs) if isinstance(value, Tensor)}
    if not sizes:
        raise InputError(f"inputs are {type(given).__name__}; expected a tensor (points, …), a tuple, a mapping or a DataLoader")
    for key, shape in sizes.items():
        if 0 in shape or not any(sizes.values()):
            raise InputError(f"inputs {_describe_key(key)} have shape {shape}; expected at least one point, (points, …)")
    counts = {shape[0] for shape in sizes.values() if shape} - ({1} if len(sizes) > 1 else set())
    if len(counts) > 1:
        shapes = ", ".join(f"{_describe_key(key)} {shape}" for key, shape in sizes.items())
        raise InputError(f"inputs differ in their number of points: {shapes}; the first dimension must be the same, or 1")
    count = counts.pop() if counts else 1
    return Inputs(args, kwargs, count)


def as_trackable(tensor: Tensor) -> Tensor:
    """The tensor, or a copy if it was made in inference mode, which autograd refuses."""
    return tensor.clone() if tensor.is_inference() else tensor


def _as_tensors(value: Any) -> Any:
    """Apply :func:`_as_tensor` to an argument, or to the arrays inside a tuple, list or dictionary."""
    inside = isinstance(value, tuple | list | dict)
    return tree_map_only((Tensor, np.ndarray), _as_tensor, value) if inside else _as_tensor(value)


def _as_tensor(value: Any) -> Any:
    """Convert an array of any library that supports DLPack; a tensor is returned unchanged if a model can take it."""
    if isinstance(value, Tensor):
        kinds = {"nested": value.is_nested, "quantized": value.is_quantized, "complex": value.is_complex()}
        kind = next((name for name, holds in (kinds | {"fake": isinstance(value, FakeTensor)}).items() if holds), "")
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
        return torch.from_numpy(np.require(value, requirements=["C", "W"]))  # copies read-only arrays
    except TypeError as error:
        raise InputError(f"inputs are an array of {value.dtype}, which PyTorch lacks; give x.astype('float64')") from error


def _describe(value: Any) -> str:
    """ "float32 (3, 5)" for a tensor, the type's name for anything else."""
    if isinstance(value, Tensor | np.ndarray):
        return f"{str(value.dtype).removeprefix('torch.')} {tuple(value.shape)}"
    return type(value).__name__


def _by_key(args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[tuple[int | str, Any]]:
    return [*enumerate(args), *kwargs.items()]


def _describe_key(key: int | str) -> str:
    return repr(key) if isinstance(key, str) else f"number {key}"
