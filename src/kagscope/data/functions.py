"""Functions of three variables to learn, the tasks of arXiv 2509.12326, from linear to strongly nonlinear.

================== ==============================================================================================
name               target at x in [-1, 1]^3
================== ==============================================================================================
``xor3``           sin(pi x_1) sin(pi x_2) sin(pi x_3), a continuous exclusive or
``linear3``        w . x for one w of length 1
``random3``        a standard normal number for each training point, which can only be memorised
``rotated3:a``     ``xor3`` of R x, R turning by the angle a pi / 3 about the axis (1, 1, 1); a in [0, 1]
``mixed3:t``       (1 - t) ``linear3`` + t ``xor3``, both scaled to variance 1; t in [0, 1]
================== ==============================================================================================

All but ``random3`` and ``rotated3``, whose variance is near 1, are scaled to variance 1 over the cube. A rotation by 2 pi / 3
permutes the axes, which leaves ``xor3`` unchanged, and opposite rotations are mirror images: a = 1 is farthest from ``xor3``.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from kagscope.base.errors import InputError
from kagscope.data.dataset import Dataset

Array = npt.NDArray[np.float64]
N_TRAIN, N_TEST = 2000, 1000
NAMES = ("xor3", "linear3", "random3", "rotated3", "mixed3")
WITH_NUMBER = ("rotated3", "mixed3")


def is_function(name: str) -> bool:
    """Whether a data set's name is that of a function, with or without a parameter."""
    return name.partition(":")[0] in NAMES


def load_function(name: str) -> Dataset:
    """Points drawn uniformly from the cube, always the same ones, and the function's values there.

    Images of the data set are (1, 3): one row of three inputs.

    Raises:
        InputError: the parameter is missing, superfluous, or outside [0, 1].
    """
    kind, number = _parse(name)
    rng = np.random.default_rng(20250912)
    x = rng.uniform(-1, 1, size=(N_TRAIN + N_TEST, 3))
    y = rng.standard_normal(len(x)) if kind == "random3" else _target(kind, number, x)
    images = x.astype(np.float32)[:, None, :]
    targets = y.astype(np.float32)[:, None]
    labels = np.zeros(len(x), dtype=np.int64)
    train = (images[:N_TRAIN], labels[:N_TRAIN])
    return Dataset(name, *train, images[N_TRAIN:], labels[N_TRAIN:], targets[:N_TRAIN], targets[N_TRAIN:])


def _target(kind: str, number: float, x: Array) -> Array:
    if kind == "linear3":
        return _linear(x)
    if kind == "xor3":
        return _xor(x)
    if kind == "rotated3":
        return _xor(x @ rotation(number * math.pi / 3).T)
    mixed = (1 - number) * _linear(x) + number * _xor(x)
    return np.asarray(mixed / math.hypot(1 - number, number))  # the two are uncorrelated


def _xor(x: Array) -> Array:
    """``xor3`` scaled to variance 1 over the cube, as sin(pi x)^2 has mean 1/2."""
    return np.asarray(np.sin(math.pi * x).prod(axis=1) * math.sqrt(8))


def _linear(x: Array) -> Array:
    w = np.array([2.0, -1.0, 2.0]) / 3
    return np.asarray(x @ w * math.sqrt(3))


def rotation(angle: float) -> Array:
    """Rotation by ``angle`` radians about (1, 1, 1), 3 x 3 (Rodrigues' formula)."""
    u = np.full(3, 1 / math.sqrt(3))
    K = np.array([[0, -u[2], u[1]], [u[2], 0, -u[0]], [-u[1], u[0], 0]])
    return np.asarray(np.eye(3) + math.sin(angle) * K + (1 - math.cos(angle)) * K @ K)


def _parse(name: str) -> tuple[str, float]:
    kind, colon, text = name.partition(":")
    if kind not in WITH_NUMBER:
        if colon:
            raise InputError(f"data set {name!r}: {kind} takes no number; write {kind!r}")
        return kind, 0.0
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 <= number <= 1:
        raise InputError(f"data set {name!r}: expected a number from 0 to 1 after the colon, such as '{kind}:0.5'")
    return kind, number


def accuracy_name(data: Iterable[object]) -> str:
    """Name of the quantity in the column ``accuracy``: R² if all data sets are functions."""
    names = [str(name) for name in data]
    return "R²" if names and all(is_function(name) for name in names) else "accuracy"
