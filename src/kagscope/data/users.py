"""Data sets from a user's function, ``"module:function"`` or ``"path/to/file.py:function"``, named like models."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from kagscope.base.errors import DataError
from kagscope.base.named import call_factory, resolve_name
from kagscope.data.dataset import Dataset, split_from

PARTS = ("train_images", "train_labels", "test_images", "test_labels")


def is_users(source: str) -> bool:
    """Whether the name of a data set is that of a function in a module or file."""
    module, colon, function = source.rpartition(":")
    return bool(colon and module and function)


def load_named(source: str) -> Dataset:
    """Call the function named by ``source`` without arguments: name only code that you trust.

    It returns, the same every time, a :class:`Dataset`, or images and labels as arrays or CPU tensors: a mapping with the names
    of :data:`PARTS` or four in this order: images as :func:`~kagscope.data.dataset.images_from` takes them, integer labels.

    Raises:
        InputError: no such module, file or function, or the code raises.
        DataError: the result is not a data set.
    """
    with resolve_name(source, "data set") as function:
        made = call_factory(function, {}, source) if callable(function) else function
    if isinstance(made, Dataset):
        return made
    if isinstance(made, Mapping) and set(PARTS) <= made.keys():
        made = [made[name] for name in PARTS]
    if not isinstance(made, list | tuple) or len(made) != len(PARTS):
        raise DataError(f"{source} returned a {type(made).__name__}; expected {', '.join(PARTS)}, in this order or by name")
    labels = [f"{source}: `{name}`" for name in PARTS]
    train, train_labels, test, test_labels = map(_as_array, made, labels)
    a, b, c, d = labels
    return Dataset(source, *split_from(train, train_labels, a, b), *split_from(test, test_labels, c, d))


def _as_array(given: Any, label: str) -> np.ndarray:
    """An array or CPU tensor of any dtype as an array. Raises :class:`DataError` for one with masked entries."""
    if isinstance(given, np.ma.MaskedArray):
        raise DataError(f"{label}: is a masked array; fill its masked entries first, with .filled(0) if zero is meant")
    if hasattr(given, "detach"):  # a tensor; torch takes long to import
        values = given.detach()
        return np.asarray(values.float() if "bfloat16" in str(values.dtype) else values)  # which NumPy does not know
    return np.asarray(given)
