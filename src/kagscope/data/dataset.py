"""What every loader returns: four arrays that fit together, checked once."""

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
        name: how the data set was asked for.
        train_images: float32 ``(N, H, W)``, of colour images ``(N, C, H, W)``, finite; in [0, 1] where the source holds bytes.
        train_labels: int64 ``(N,)``, in ``0 … n_classes - 1``.
        test_images: float32 ``(M, H, W)`` or ``(M, C, H, W)``.
        test_labels: int64 ``(M,)``.
        train_targets, test_targets: float32 ``(N, outputs)`` and ``(M, outputs)`` of a regression, whose labels are all 0; None
            of a classification.
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
        """Height and width in pixels, of colour images after the number of channels."""
        return tuple(int(side) for side in self.train_images.shape[1:])

    @property
    def is_regression(self) -> bool:
        """Whether numbers are predicted and not classes."""
        return self.train_targets is not None

    @property
    def n_inputs(self) -> int:
        """Numbers in an image, in row-major order the inputs of a network: the pixels of one channel after those of another."""
        return math.prod(self.image_shape)

    @property
    def n_classes(self) -> int:
        """Outputs of a network: one more than the largest label of either part, or the numbers that a regression predicts."""
        if self.train_targets is not None:
            return int(self.train_targets.shape[1])
        return int(max(self.train_labels.max(), self.test_labels.max())) + 1

    def fingerprint(self) -> str:
        """SHA-256 (hex) of the shapes and contents of the four arrays; the name does not enter."""
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


def images_from(array: npt.NDArray[Any], where: str) -> npt.NDArray[np.float32]:
    """Turn the content of a file into float32 images: bytes are divided by 255, floats taken as they are.

    Args:
        array: ``(N, H, W)``; with one channel, or with three, before height and width or after them.
        where: what error messages call it.

    Returns:
        ``(N, H, W)``, or ``(N, 3, H, W)`` of three channels.

    Raises:
        DataError: another shape, no pixels, a dtype that is neither uint8 nor float, or a number that is not finite.
    """
    given = array.shape
    if array.ndim == 2:
        raise DataError(
            f"{where}: found flat rows of shape {array.shape}, which say nothing of where a pixel is; "
            "expected images of shape (N, height, width): reshape them before saving"
        )
    colour = array.ndim == 4
    if colour and 1 in (array.shape[1], array.shape[3]):
        array, colour = array.squeeze(1 if array.shape[1] == 1 else 3), False
    elif colour and array.shape[1] != 3:
        array = np.moveaxis(array, 3, 1)
    if array.ndim != (4 if colour else 3) or (colour and array.shape[1] != 3):
        raise DataError(
            f"{where}: found an array of shape {given}; expected images of shape (N, height, width), or in colour "
            "(N, height, width, 3) or (N, 3, height, width)"
        )
    if array.size == 0:
        raise DataError(f"{where}: found an array of shape {given}, which holds no pixel; expected at least one image")
    if array.dtype == np.uint8:
        return np.ascontiguousarray(array, dtype=np.float32) / np.float32(255)
    if array.dtype.kind != "f":
        raise DataError(f"{where}: found images of dtype {array.dtype}; expected uint8 (0 to 255) or floating point")
    with np.errstate(over="ignore"):
        images = np.ascontiguousarray(array, dtype=np.float32)
    bad = ~np.isfinite(images)
    if bad.any():
        first = tuple(int(i) for i in np.argwhere(bad)[0])
        raise DataError(
            f"{where}: {int(bad.sum())} pixels are NaN, infinite or too large for float32, the first at {first}; "
            "expected finite numbers: mend or drop these images"
        )
    return images


def labels_from(array: npt.NDArray[Any], n_images: int, where: str, images_where: str) -> npt.NDArray[np.int64]:
    """Turn the content of a file into int64 labels ``(N,)``, one per image.

    Raises:
        DataError: not one-dimensional integers, another number than ``n_images``, or a class number that cannot be one.
    """
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise DataError(f"{where}: found labels of dtype {array.dtype} and shape {array.shape}; expected integers of shape (N,)")
    if len(array) != n_images:
        raise DataError(
            f"{where}: found {len(array)} labels, but {images_where} holds {n_images} images; expected one label per image: "
            "check that the files belong together"
        )
    low, high = int(array.min()), int(array.max())
    if low < 0 or high >= MAX_CLASSES:
        raise DataError(f"{where}: found labels from {low} to {high}; expected class numbers 0, 1, 2, … below {MAX_CLASSES}")
    return array.astype(np.int64)


MAX_CLASSES = 10_000


def _size(images: npt.NDArray[np.float32]) -> str:
    return " x ".join(str(side) for side in images.shape[1:])
