"""Where the columns of a matrix lie: an image grid, any positions, or group labels (MATH.md section 1)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypedDict

import numpy as np
from numpy.typing import NDArray

from kagscope.base.errors import InputError

SAME = 1e-9  # distances whose ratio is that near to 1 are the same


@dataclass(frozen=True)
class Layout:
    """Where the n columns of a matrix lie.

    Attributes:
        columns: n.
        positions: (n, dimension) float64 coordinates, or None when only ``all`` and ``subsets`` make sense.
        groups: (n,) integer labels, or None.
        channels: of an image; each is a stretch of n / channels columns.
    """

    columns: int
    positions: NDArray[np.float64] | None = None
    groups: NDArray[np.int64] | None = None
    channels: int = 1

    @property
    def key(self) -> tuple[object, ...]:
        """Hashable identity of the layout."""
        return (
            self.columns,
            self.channels,
            *(None if part is None else (part.shape, part.tobytes()) for part in (self.positions, self.groups)),
        )

    @property
    def _rounding(self) -> float:
        """What rounding of the coordinates themselves may do to a distance."""
        return (
            0.0
            if self.positions is None
            else 8 * float(np.finfo(np.float64).eps) * float(np.abs(self.positions).max(initial=0.0))
        )

    def within(self, squared: NDArray[np.float64], radius: float) -> NDArray[np.bool_]:
        """Where a squared distance is at most radius^2, those that differ by rounding alone included."""
        return np.sqrt(squared) <= radius * (1 + SAME) + self._rounding

    def below(self, squared: NDArray[np.float64], radius: float) -> NDArray[np.bool_]:
        """Where a squared distance is less than radius^2, by more than rounding."""
        return np.sqrt(squared) < radius * (1 - SAME) - self._rounding

    def squared_distances(self, asked_by: object) -> NDArray[np.float64]:
        """(n, n) squared distances. Raises :class:`InputError` when the columns have no positions."""
        if self.groups is not None:
            return (self.groups[:, None] != self.groups[None, :]).astype(np.float64)
        if self.positions is None:
            raise InputError(
                f"selection {asked_by} needs to know where the {self.columns} columns lie; "
                "pass image_shape=(height, width), positions= or groups="
            )
        squared = np.zeros((self.columns, self.columns))
        for coordinate in self.positions.T:
            squared += (coordinate[:, None] - coordinate[None, :]) ** 2
        return squared

    def squared_distances_from(self, center: Sequence[float], asked_by: object) -> NDArray[np.float64]:
        """(n,) squared distances from ``center``."""
        if self.positions is None:
            raise InputError(f"selection {asked_by} needs coordinates; pass image_shape=(height, width) or positions=")
        if len(center) != self.positions.shape[1]:
            raise InputError(
                f"selection {asked_by} has a center of {len(center)} coordinates, the positions have {self.positions.shape[1]}; "
                "give the center in the coordinates of the positions, (row, column) for images"
            )
        return ((self.positions - np.asarray(center, dtype=np.float64)) ** 2).sum(axis=1)


class Place(TypedDict, total=False):
    """Where columns lie, as keywords of :func:`make_layout`: at most one of them."""

    image_shape: Sequence[int] | None
    positions: Any
    groups: Any


def make_layout(
    columns: int,
    image_shape: Sequence[int] | None = None,
    positions: Any = None,
    groups: Any = None,
) -> Layout:
    """The layout of ``columns`` matrix columns from at most one of an image shape, positions or group labels.

    Args:
        columns: number n of columns.
        image_shape: (height, width) with height * width = n, or (channels, height, width): pixels in row-major order; the
            channels of one pixel share its position.
        positions: (n,) or (n, dimension) finite real coordinates, an array, a tensor on any device or nested lists; distances are
            Euclidean.
        groups: n labels, likewise; two columns are at distance 0 within a group and 1 across, so ``Ball(0)`` means within and
            ``Apart(1)`` across.

    Raises:
        InputError: more than one was given, or one does not fit n columns.
    """
    given = [
        name for name, value in (("image_shape", image_shape), ("positions", positions), ("groups", groups)) if value is not None
    ]
    if len(given) > 1:
        raise InputError(f"{' and '.join(given)} were given together; give one of them")
    if image_shape is not None:
        grid = _grid(columns, image_shape)
        return Layout(columns, positions=grid, channels=math.prod(image_shape[:-2]))
    if positions is not None:
        return Layout(columns, positions=_coordinates(columns, positions))
    if groups is not None:
        return Layout(columns, groups=_labels(columns, groups))
    return Layout(columns)


def channels_abreast(rows: NDArray[Any], image_shape: Sequence[int]) -> NDArray[Any]:
    """Rows (m, C * H * W) as pictures (m, H, C * W): the channels of an image (C, H, W) beside each other, of (H, W) as it is."""
    *channels, height, width = image_shape
    pictures = rows.reshape(len(rows), *channels, height, width)
    return pictures.swapaxes(1, 2).reshape(len(rows), height, -1) if channels else pictures


def host_array(value: Any) -> NDArray[Any]:
    """A torch tensor, wherever it lies, as a NumPy array in host memory; anything else as NumPy reads it.

    Raises:
        TypeError, ValueError, RuntimeError: what the two libraries raise when there is no such array.
    """
    if hasattr(value, "detach"):
        value = value.detach().cpu()
        if value.is_floating_point():
            value = value.double()  # NumPy has no bfloat16
        value = value.numpy()
    return np.asarray(value)


def real_array(value: Any) -> NDArray[np.float64]:
    """:func:`host_array` as float64; complex numbers raise TypeError."""
    array = host_array(value)
    if array.dtype.kind == "c":
        raise TypeError(f"they are {array.dtype}")
    return array.astype(np.float64)


def _labels(columns: int, groups: Any) -> NDArray[np.int64]:
    """Labels of any kind that can be sorted, as 0, 1, …"""
    expected = f"expected one label for each of the {columns} columns"
    try:
        labels = host_array(groups)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"groups cannot be read as labels ({error}), {expected}") from error
    if labels.shape != (columns,):
        raise InputError(f"groups has shape {labels.shape}, {expected}")
    try:
        return np.unique(labels, return_inverse=True)[1].astype(np.int64)
    except TypeError as error:
        raise InputError(f"groups mixes labels that cannot be compared ({error}); use numbers or texts throughout") from error


def _grid(columns: int, image_shape: Sequence[int]) -> NDArray[np.float64]:
    shape = tuple(image_shape) if isinstance(image_shape, Iterable) else (image_shape,)
    if len(shape) not in (2, 3) or not all(is_whole(size) and size > 0 for size in shape):
        raise InputError(
            f"image_shape={image_shape!r}, expected (height, width) or (channels, height, width) of positive whole numbers"
        )
    if int(np.prod(shape)) != columns:
        raise InputError(
            f"image_shape={shape} has {int(np.prod(shape))} pixels but the matrix has {columns} columns; "
            "give the shape of the input that the columns stand for"
        )
    height, width = shape[-2:]
    rows, cols = np.divmod(np.arange(height * width), width)
    pixels = np.stack([rows, cols], axis=1).astype(np.float64)
    return np.tile(pixels, (columns // (height * width), 1))


def _coordinates(columns: int, positions: Any) -> NDArray[np.float64]:
    try:
        array = real_array(positions)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(
            f"positions cannot be read as real numbers ({error}); give an array of shape ({columns}, dimension)"
        ) from error
    if array.ndim == 1:
        array = array[:, None]
    if array.ndim != 2 or array.shape[0] != columns or array.shape[1] == 0:
        raise InputError(f"positions has shape {array.shape}, expected one position for each of the {columns} columns")
    if not np.isfinite(array).all():
        raise InputError("positions holds NaN or infinite coordinates; give finite ones")
    return array


def is_whole(value: Any) -> bool:
    """Whether ``value`` is an integer, of Python or NumPy, and no truth value."""
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)
