"""Positions of the columns of a matrix: an image grid, arbitrary positions, or group labels (MATH.md section 1)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypedDict

import numpy as np
from numpy.typing import NDArray

from kagscope.base.checks import is_whole
from kagscope.base.errors import InputError

MOST_COLUMNS = 2**15  # of which all pairs are compared
SAME = 1e-9  # relative difference up to which distances count as equal


@dataclass(frozen=True)
class Layout:
    """Positions of the n columns of a matrix.

    Attributes:
        columns: n.
        positions: (n, dimension) float64 coordinates, or None if only ``all`` and ``subsets`` make sense.
        groups: (n,) integer labels, or None.
        channels: number of channels of an image, each a run of n / channels columns.
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
            *(None if array is None else (array.shape, array.tobytes()) for array in (self.positions, self.groups)),
        )

    @property
    def _rounding(self) -> float:
        """Largest error of a distance due to rounding of coordinates; 0 for whole numbers."""
        if self.positions is None or (self.positions == np.rint(self.positions)).all():
            return 0.0
        return 8 * float(np.finfo(np.float64).eps) * float(np.abs(self.positions).max(initial=0.0))

    def within(self, distances: NDArray[np.float64], radius: float) -> NDArray[np.bool_]:
        """Whether distances are at most ``radius``, up to rounding."""
        return distances <= radius * (1 + SAME) + self._rounding

    def below(self, distances: NDArray[np.float64], radius: float) -> NDArray[np.bool_]:
        """Whether distances are less than ``radius`` by more than rounding."""
        return distances < radius * (1 - SAME) - self._rounding

    def pairs(self, selection: object, holds: Callable[[NDArray[np.float64]], NDArray[np.bool_]]) -> NDArray[np.bool_]:
        """(n, n) whether ``holds`` for the distance of two columns, computed in blocks of rows.

        Raises :class:`InputError` when the columns have no positions, or are more than :data:`MOST_COLUMNS`.
        """
        if self.columns > MOST_COLUMNS:
            raise InputError(
                f"selection {selection} compares every two of {self.columns} columns, and does so for at most {MOST_COLUMNS}; "
                "take a Window, all columns, or an image of fewer pixels"
            )
        allowed = np.empty((self.columns, self.columns), dtype=bool)
        step = max(1, 2**20 // self.columns)
        for start in range(0, self.columns, step):
            rows = slice(start, start + step)
            allowed[rows] = holds(self.distances(selection, rows))
        return allowed

    def distances(self, selection: object, rows: slice = slice(None)) -> NDArray[np.float64]:
        """(n, n) distances, or those of ``rows``. Raises :class:`InputError` if the columns have no positions."""
        if self.groups is not None:
            return (self.groups[rows, None] != self.groups).astype(np.float64)
        if self.positions is None:
            raise InputError(
                f"selection {selection} needs to know where the {self.columns} columns lie; "
                "pass image_shape=(height, width), positions= or groups="
            )
        return _hypot(coordinate[rows, None] - coordinate for coordinate in self.positions.T)

    def distances_from(self, center: Sequence[float], selection: object) -> NDArray[np.float64]:
        """(n,) distances from ``center``."""
        if self.positions is None:
            raise InputError(f"selection {selection} needs coordinates; pass image_shape=(height, width) or positions=")
        if len(center) != self.positions.shape[1]:
            raise InputError(
                f"selection {selection} has a center of {len(center)} coordinates, the positions have {self.positions.shape[1]}; "
                "give the center in the coordinates of the positions, (row, column) for images"
            )
        return _hypot(coordinate - c for coordinate, c in zip(self.positions.T, center, strict=True))


def _hypot(differences: Iterable[NDArray[np.float64]]) -> NDArray[np.float64]:
    """Lengths of vectors given coordinate by coordinate, without overflow or underflow."""
    total: Any = 0.0
    with np.errstate(over="ignore", under="ignore"):
        for difference in differences:
            total = np.hypot(total, difference)
    return np.asarray(total)


class LayoutOptions(TypedDict, total=False):
    """Keywords of :func:`make_layout`, of which at most one is given."""

    image_shape: Sequence[int] | None
    positions: Any
    groups: Any


def make_layout(
    columns: int,
    image_shape: Sequence[int] | None = None,
    positions: Any = None,
    groups: Any = None,
) -> Layout:
    """Make the layout of ``columns`` matrix columns from at most one of an image shape, positions or group labels.

    Args:
        columns: number n of columns.
        image_shape: (height, width) with height * width = n, or (channels, height, width): pixels in row-major order; the
            channels of one pixel share its position.
        positions: (n,) or (n, dimension) finite real coordinates, an array, a tensor on any device or nested lists; distances are
            Euclidean.
        groups: n labels, likewise; two columns are at distance 0 within a group and 1 across, so ``Ball(0)`` means within and
            ``Apart(1)`` across.

    Raises:
        InputError: More than one is given, or one does not fit n columns.
    """
    given = [
        name for name, value in (("image_shape", image_shape), ("positions", positions), ("groups", groups)) if value is not None
    ]
    if len(given) > 1:
        raise InputError(f"{' and '.join(given)} were given together; give one of them")
    if image_shape is not None:
        grid = _grid_positions(columns, image_shape)
        return Layout(columns, positions=grid, channels=math.prod(image_shape[:-2]))
    if positions is not None:
        return Layout(columns, positions=_as_coordinates(columns, positions))
    if groups is not None:
        return Layout(columns, groups=_as_labels(columns, groups))
    return Layout(columns)


def join_channels(rows: NDArray[Any], image_shape: Sequence[int]) -> NDArray[Any]:
    """Rows (m, C * H * W) as pictures (m, H, C * W): channels of an image (C, H, W) side by side; (H, W) unchanged."""
    *channels, height, width = image_shape
    pictures = rows.reshape(len(rows), *channels, height, width)
    return pictures.swapaxes(1, 2).reshape(len(rows), height, -1) if channels else pictures


def host_array(value: Any) -> NDArray[Any]:
    """Convert a torch tensor on any device to a NumPy array in host memory; anything else by ``np.asarray``.

    Raises:
        TypeError, ValueError, RuntimeError: The conversion fails, or entries are masked.
    """
    if np.ma.is_masked(value):
        raise TypeError("some of them are masked")
    if hasattr(value, "detach"):
        value = value.detach().cpu().resolve_neg()
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


def _as_labels(columns: int, groups: Any) -> NDArray[np.int64]:
    """Convert sortable labels of any kind to 0, 1, …"""
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


def _grid_positions(columns: int, image_shape: Sequence[int]) -> NDArray[np.float64]:
    shape = tuple(image_shape) if isinstance(image_shape, Iterable) else (image_shape,)
    if len(shape) not in (2, 3) or not all(is_whole(size, 1) for size in shape):
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


def _as_coordinates(columns: int, positions: Any) -> NDArray[np.float64]:
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
    if host_array(positions).dtype.kind in "iu" and np.abs(array).max() > 2**53:
        raise InputError("positions holds whole numbers beyond 2^53, which float64 does not tell apart; subtract their smallest")
    if not np.isfinite(array).all():
        raise InputError("positions holds NaN or infinite coordinates; give finite ones")
    return array
