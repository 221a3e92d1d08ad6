"""Which column subsets count: All, Ball, Apart, Shell, Window, Subsets (MATH.md section 1, "Column selections").

A selection says which *pairs* of columns may stand together in a minor; a k-subset is allowed when all its pairs are.
Distances come from a :class:`Layout`: an image grid, any positions, or group labels (distance 0 within a group, 1 across).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from math import comb, isfinite
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kagscope.errors import InputError

BoolArray = NDArray[np.bool_]


@dataclass(frozen=True)
class Layout:
    """Where the n columns of a matrix lie.

    Attributes:
        columns: n.
        positions: (n, dimension) float64 coordinates, or None when only ``all`` and ``subsets`` make sense.
        groups: (n,) integer labels, or None.
    """

    columns: int
    positions: NDArray[np.float64] | None = None
    groups: NDArray[np.int64] | None = None

    @property
    def key(self) -> tuple[object, ...]:
        """Hashable identity of the layout."""
        return (self.columns, *(None if part is None else (part.shape, part.tobytes()) for part in (self.positions, self.groups)))

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
        positions: (n,) or (n, dimension) finite real coordinates; distances are Euclidean.
        groups: n labels; two columns are at distance 0 within a group and 1 across, so ``Ball(0)`` means within, ``Apart(1)``
        across.

    Raises:
        InputError: more than one was given, or one does not fit n columns.
    """
    given = [
        name for name, value in (("image_shape", image_shape), ("positions", positions), ("groups", groups)) if value is not None
    ]
    if len(given) > 1:
        raise InputError(f"{' and '.join(given)} were given together; give one of them")
    if image_shape is not None:
        return Layout(columns, positions=_grid(columns, image_shape))
    if positions is not None:
        return Layout(columns, positions=_coordinates(columns, positions))
    if groups is not None:
        labels = np.asarray(groups)
        if labels.shape != (columns,):
            raise InputError(f"groups has shape {labels.shape}, expected one label for each of the {columns} columns")
        return Layout(columns, groups=np.unique(labels, return_inverse=True)[1].astype(np.int64))
    return Layout(columns)


def _grid(columns: int, image_shape: Sequence[int]) -> NDArray[np.float64]:
    shape = tuple(image_shape) if isinstance(image_shape, Iterable) else (image_shape,)
    if len(shape) not in (2, 3) or not all(_is_whole(size) and size > 0 for size in shape):
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
        array = np.asarray(positions, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"positions cannot be read as real numbers ({error}); give an array of shape ({columns}, dimension)"
        ) from error
    if array.ndim == 1:
        array = array[:, None]
    if array.ndim != 2 or array.shape[0] != columns or array.shape[1] == 0:
        raise InputError(f"positions has shape {np.shape(positions)}, expected one position for each of the {columns} columns")
    if not np.isfinite(array).all():
        raise InputError("positions holds NaN or infinite coordinates; give finite ones")
    return array


def _is_whole(value: Any) -> bool:
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def _check_length(selection: str, name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float, np.integer, np.floating)):
        raise InputError(f"{selection}({value!r}): {name} must be a number")
    if not isfinite(value) or value < 0:
        raise InputError(
            f"{selection}({value}): {name} must be finite and at least 0, in the units of the positions (pixels for images)"
        )
    return float(value)


def _short(value: float) -> str:
    return repr(int(value)) if float(value).is_integer() and abs(value) < 1e15 else repr(float(value))


@dataclass(frozen=True)
class Selection:
    """Base of all selections. ``str(selection)`` is its canonical name in tables."""

    @property
    def clique(self) -> bool:
        """Whether the selection is every k-subset of some set of columns."""
        return False

    def columns(self, layout: Layout) -> BoolArray:
        """(n,) which columns may take part at all: what k = 1 sees."""
        return np.ones(layout.columns, dtype=bool)

    def pairs(self, layout: Layout) -> BoolArray:
        """(n, n) symmetric, which two columns may stand together; the diagonal is meaningless."""
        inside = self.columns(layout)
        return inside[:, None] & inside[None, :]


@dataclass(frozen=True)
class All(Selection):
    """Every k-subset of columns."""

    @property
    def clique(self) -> bool:
        return True

    def __str__(self) -> str:
        return "all"


@dataclass(frozen=True)
class Ball(Selection):
    """Subsets whose pairwise distances are all at most ``radius`` (the r = 7, 14, 21, 28 sweep of arXiv 2511.21626)."""

    radius: float

    def __post_init__(self) -> None:
        _check_length("Ball", "radius", self.radius)

    def __str__(self) -> str:
        return f"ball({_short(self.radius)})"

    def pairs(self, layout: Layout) -> BoolArray:
        return layout.squared_distances(self) <= float(self.radius) ** 2


@dataclass(frozen=True)
class Apart(Selection):
    """Subsets whose pairwise distances are all at least ``distance`` (the minimum-distance sweep of arXiv 2511.21626)."""

    distance: float

    def __post_init__(self) -> None:
        _check_length("Apart", "distance", self.distance)

    def __str__(self) -> str:
        return f"apart({_short(self.distance)})"

    def pairs(self, layout: Layout) -> BoolArray:
        return layout.squared_distances(self) >= float(self.distance) ** 2


@dataclass(frozen=True)
class Shell(Selection):
    """Subsets whose pairwise distances all lie in [``low``, ``high``); balls and aparts are unions of shells of pairs."""

    low: float
    high: float

    def __post_init__(self) -> None:
        _check_length("Shell", "low", self.low)
        _check_length("Shell", "high", self.high)
        if self.high <= self.low:
            raise InputError(f"Shell({self.low}, {self.high}): high must be greater than low")

    def __str__(self) -> str:
        return f"shell({_short(self.low)},{_short(self.high)})"

    def pairs(self, layout: Layout) -> BoolArray:
        squared = layout.squared_distances(self)
        return (squared >= float(self.low) ** 2) & (squared < float(self.high) ** 2)


@dataclass(frozen=True)
class Window(Selection):
    """Subsets of the columns within ``radius`` of ``center`` (in the coordinates of the positions; (row, column) for images)."""

    center: tuple[float, ...]
    radius: float

    def __post_init__(self) -> None:
        center = self.center if isinstance(self.center, Iterable) else (self.center,)
        for value in center:
            if isinstance(value, bool) or not isinstance(value, (int, float, np.integer, np.floating)) or not isfinite(value):
                raise InputError(f"Window(center={self.center!r}): center must be finite numbers, (row, column) for images")
        object.__setattr__(self, "center", tuple(float(value) for value in center))
        _check_length("Window", "radius", self.radius)

    @property
    def clique(self) -> bool:
        return True

    def __str__(self) -> str:
        return f"window({','.join(_short(value) for value in self.center)},{_short(self.radius)})"

    def columns(self, layout: Layout) -> BoolArray:
        return layout.squared_distances_from(self.center, self) <= float(self.radius) ** 2


@dataclass(frozen=True)
class Subsets(Selection):
    """An explicit list of column subsets, each of k distinct column indices.

    Attributes:
        subsets: sorted tuples; given in any order, repeated ones are an error.
        name: how tables call it; ``subsets(COUNT)`` when not given.
    """

    subsets: tuple[tuple[int, ...], ...]
    name: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        try:
            rows = [tuple(subset) for subset in self.subsets]
        except TypeError as error:
            raise InputError(
                f"Subsets expects a list of column subsets such as [(0, 1), (0, 5)], got {self.subsets!r:.80}"
            ) from error
        if not rows:
            raise InputError("Subsets([]) holds no subset; list at least one, such as [(0, 1)]")
        size = len(rows[0])
        for row in rows:
            if len(row) != size or size == 0:
                raise InputError(
                    f"Subsets: {row} has {len(row)} columns but the first subset has {size}; give all the same k >= 1"
                )
            if not all(_is_whole(column) and column >= 0 for column in row):
                raise InputError(f"Subsets: {row} must hold column indices, whole numbers from 0")
            if len(set(row)) != size:
                raise InputError(f"Subsets: {row} repeats a column; a minor needs distinct columns")
        ordered = tuple(sorted(tuple(sorted(int(column) for column in row)) for row in rows))
        for first, second in pairwise(ordered):
            if first == second:
                raise InputError(f"Subsets: {first} is listed twice; list each subset once")
        object.__setattr__(self, "subsets", ordered)

    @property
    def size(self) -> int:
        """k."""
        return len(self.subsets[0])

    def __str__(self) -> str:
        return self.name or f"subsets({len(self.subsets)})"

    def array(self, layout: Layout, k: int) -> NDArray[np.int64]:
        """(count, k) sorted column indices. Raises :class:`InputError` when they do not fit k or the matrix."""
        if self.size != k:
            raise InputError(f"selection {self} lists subsets of {self.size} columns but k={k}; list subsets of {k} columns")
        array = np.array(self.subsets, dtype=np.int64)
        if array.max() >= layout.columns:
            raise InputError(f"selection {self} names column {array.max()}, the matrix has columns 0 to {layout.columns - 1}")
        return array


def column_subset_count(selection: Selection, layout: Layout, k: int) -> int:
    """Number |S| of allowed column subsets, exactly, without listing them where a formula knows.

    Cliques by a binomial; pairs and triples by counting edges and triangles of the graph of allowed pairs; larger k by listing.
    """
    if isinstance(selection, Subsets):
        return len(selection.array(layout, k))
    if k == 1 or selection.clique:
        return comb(int(selection.columns(layout).sum()), k)
    adjacency = selection.pairs(layout)
    np.fill_diagonal(adjacency, False)
    if k == 2:
        return int(np.count_nonzero(adjacency)) // 2
    if k == 3:
        dense = adjacency.astype(np.float64)  # entries of the square are below 2^53: exact
        return round(float(((dense @ dense) * dense).sum() / 6))
    from kagscope.minors.subsets import count_cliques

    return count_cliques(adjacency, k)


def check_layout(selections: Iterable[Selection], layout: Layout) -> None:
    """Raise :class:`InputError` for a selection that needs to know more of the columns; at once, without listing pairs."""
    for selection in selections:
        if isinstance(selection, Window):
            selection.columns(layout)
        elif not isinstance(selection, All | Subsets) and layout.positions is None and layout.groups is None:
            layout.squared_distances(selection)


def as_selections(selection: Any) -> tuple[list[Selection], bool]:
    """The list of selections and whether a list was given. Raises :class:`InputError` for anything else."""
    if isinstance(selection, Selection):
        return [selection], False
    if isinstance(selection, str):
        return [parse_selection(selection)], False
    if isinstance(selection, Iterable):
        chosen = [parse_selection(item) if isinstance(item, str) else item for item in selection]
        if not chosen:
            raise InputError("selection is an empty list; give at least one, such as [All()]")
        if all(isinstance(item, Selection) for item in chosen):
            return chosen, True
    raise InputError(
        f"selection={selection!r:.80}, expected All(), Ball(r), Apart(d), Shell(a, b), Window(center, r), Subsets(list) or a "
        f"list of these"
    )


def parse_selection(text: str) -> Selection:
    """The selection with the canonical name ``text``, such as "all", "ball(7)", "shell(7,14)" or "window(13,13,7)".

    Raises:
        InputError: no selection has that name.
    """
    name, _, rest = text.strip().lower().partition("(")
    try:
        numbers = [float(part) for part in rest.rstrip(")").split(",")] if rest else []
    except ValueError:
        numbers = [float("nan")]
    if name == "all" and not rest:
        return All()
    closed = rest.endswith(")") and len(rest.split(")")) == 2
    if closed and name in ("ball", "apart") and len(numbers) == 1:
        return Ball(numbers[0]) if name == "ball" else Apart(numbers[0])
    if closed and name == "shell" and len(numbers) == 2:
        return Shell(*numbers)
    if closed and name == "window" and len(numbers) >= 2:
        return Window(tuple(numbers[:-1]), numbers[-1])
    raise InputError(f"selection {text!r} is not known; write all, ball(7), apart(7), shell(7,14) or window(13,13,7)")
