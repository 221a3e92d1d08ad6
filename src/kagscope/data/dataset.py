"""The data set returned by every loader: four consistent arrays, checked once."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from kagscope.base.errors import DataError


@dataclass(frozen=True, eq=False)
class Dataset:
    """Images and labels, split into a training and a test part.

    Attributes:
        name: name by which the data set was loaded.
        train_images: float32 ``(N, H, W)``, or ``(N, C, H, W)`` for colour, finite; in [0, 1] if the source has bytes.
        train_labels: int64 ``(N,)``, in ``0 … n_classes - 1``.
        test_images: float32 ``(M, H, W)`` or ``(M, C, H, W)``.
        test_labels: int64 ``(M,)``.
        train_targets, test_targets: float32 ``(N, outputs)`` and ``(M, outputs)`` for a regression, whose labels are all 0;
            None for a classification.
    """

    name: str
    train_images: npt.NDArray[np.float32]
    train_labels: npt.NDArray[np.int64]
    test_images: npt.NDArray[np.float32]
    test_labels: npt.NDArray[np.int64]
    train_targets: npt.NDArray[np.float32] | None = None
    test_targets: npt.NDArray[np.float32] | None = None

    def __post_init__(self) -> None:
        for split in ("train", "test"):
            images, labels = getattr(self, f"{split}_images"), getattr(self, f"{split}_labels")
            fits = images.ndim in (3, 4) and images.dtype == np.float32
            if not fits or labels.shape != images.shape[:1] or labels.dtype != np.int64:
                raise DataError(
                    f"{self.name}: {split} images are {images.dtype} {images.shape} and labels {labels.dtype} {labels.shape}; "
                    "expected float32 (N, H, W) or (N, C, H, W) and int64 (N,)"
                )
        if self.train_images.shape[1:] != self.test_images.shape[1:]:
            raise DataError(
                f"{self.name}: training images are {_size(self.train_images)} pixels and test images {_size(self.test_images)}; "
                "both parts need the same size"
            )

    @property
    def image_shape(self) -> tuple[int, ...]:
        """(H, W) in pixels, or (C, H, W) for colour images."""
        return tuple(int(side) for side in self.train_images.shape[1:])

    @property
    def is_regression(self) -> bool:
        """Whether the task is a regression, not a classification."""
        return self.train_targets is not None

    @property
    def n_inputs(self) -> int:
        """Number of inputs of a network: the entries of an image, flattened in row-major order, channel by channel."""
        return math.prod(self.image_shape)

    @property
    def n_classes(self) -> int:
        """Number of outputs of a network: the largest label plus 1, or the number of targets of a regression."""
        if self.train_targets is not None:
            return int(self.train_targets.shape[1])
        return int(max(self.train_labels.max(), self.test_labels.max())) + 1

    def fingerprint(self) -> str:
        """SHA-256 (hex) of the shapes and contents of the four arrays, independent of the name."""
        return self._fingerprint

    @cached_property
    def _fingerprint(self) -> str:
        digest = hashlib.sha256()
        targets = () if self.train_targets is None or self.test_targets is None else (self.train_targets, self.test_targets)
        for array in (self.train_images, self.train_labels, self.test_images, self.test_labels, *targets):
            little_endian = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
            digest.update(f"{array.dtype.str[1:]}{array.shape}".encode())
            digest.update(little_endian.data if array.size else b"")
        return digest.hexdigest()

    def __repr__(self) -> str:
        return (
            f"Dataset({self.name!r}, {len(self.train_labels)} training and {len(self.test_labels)} test images "
            f"of {_size(self.train_images)}, {self.n_classes} classes)"
        )


def images_from(array: npt.NDArray[Any], label: str) -> npt.NDArray[np.float32]:
    """Convert the content of a file to float32 images: bytes are divided by 255, floats are kept.

    Args:
        array: ``(N, H, W)``, possibly with one or three channels before or after height and width.
        label: name of the array in error messages.

    Returns:
        ``(N, H, W)``, or ``(N, 3, H, W)`` for three channels.

    Raises:
        DataError: another shape, no pixels, a dtype other than uint8 or float, or a non-finite number.
    """
    shape = array.shape
    if array.ndim == 2:
        raise DataError(
            f"{label}: found flat rows of shape {array.shape}, which say nothing of where a pixel is; "
            "expected images of shape (N, height, width): reshape them before saving"
        )
    colour = array.ndim == 4
    if colour and 1 in (array.shape[1], array.shape[3]):
        array, colour = array.squeeze(1 if array.shape[1] == 1 else 3), False
    elif colour and array.shape[1] != 3:
        array = np.moveaxis(array, 3, 1)
    if array.ndim != (4 if colour else 3) or (colour and array.shape[1] != 3):
        raise DataError(
            f"{label}: found an array of shape {shape}; expected images of shape (N, height, width), or in colour "
            "(N, height, width, 3) or (N, 3, height, width)"
        )
    if array.size == 0:
        raise DataError(f"{label}: found an array of shape {shape}, which holds no pixel; expected at least one image")
    if array.dtype == np.uint8:
        return np.ascontiguousarray(array, dtype=np.float32) / np.float32(255)
    if array.dtype.kind != "f":
        raise DataError(f"{label}: found images of dtype {array.dtype}; expected uint8 (0 to 255) or floating point")
    with np.errstate(over="ignore"):
        images = np.ascontiguousarray(array, dtype=np.float32)
    bad = ~np.isfinite(images)
    if bad.any():
        first = tuple(int(i) for i in np.argwhere(bad)[0])
        raise DataError(
            f"{label}: {int(bad.sum())} pixels are NaN, infinite or too large for float32, the first at {first}; "
            "expected finite numbers: mend or drop these images"
        )
    return images


def labels_from(array: npt.NDArray[Any], n_images: int, label: str, images_label: str) -> npt.NDArray[np.int64]:
    """Convert the content of a file to int64 labels ``(N,)``, one per image.

    Raises:
        DataError: not one-dimensional integers, not ``n_images`` of them, or an impossible class number.
    """
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise DataError(f"{label}: found labels of dtype {array.dtype} and shape {array.shape}; expected integers of shape (N,)")
    if len(array) != n_images:
        raise DataError(
            f"{label}: found {len(array)} labels, but {images_label} holds {n_images} images; expected one label per image: "
            "check that the files belong together"
        )
    low, high = int(array.min()), int(array.max())
    if low < 0 or high >= MAX_CLASSES:
        raise DataError(f"{label}: found labels from {low} to {high}; expected class numbers 0, 1, 2, … below {MAX_CLASSES}")
    return array.astype(np.int64)


Split = tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]
"""Images and labels for training or for testing."""


def split_from(
    images: npt.NDArray[Any], labels: npt.NDArray[Any], label: str, labels_label: str, images_label: str = ""
) -> Split:
    """A split from the content of files, see :func:`images_from` and :func:`labels_from`.

    Args:
        images, labels: arrays as read.
        label, labels_label: their names in error messages.
        images_label: name of the images in messages on labels; default ``label``.
    """
    converted = images_from(images, label)
    return converted, labels_from(labels, len(converted), labels_label, images_label or label)


MAX_CLASSES = 10_000


def _size(images: npt.NDArray[np.float32]) -> str:
    return " x ".join(str(side) for side in images.shape[1:])
