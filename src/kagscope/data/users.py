"""Data sets from a user's function, ``"module:function"`` or ``"path/to/file.py:function"``, named like models."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from kagscope.base.errors import DataError
from kagscope.base.named import call_factory, resolve_name
from kagscope.data.dataset import Dataset, part_from

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
    train, train_labels, test, test_labels = (np.asarray(array) for array in made)
    a, b, c, d = (f"{source}: `{name}`" for name in PARTS)
    return Dataset(source, *part_from(train, train_labels, a, b), *part_from(test, test_labels, c, d))
