"""Which column subsets count: All, Ball, Apart, Shell, SameChannel, Window, Subsets (MATH.md section 1, "Column selections").

A selection says which *pairs* of columns may stand together in a minor; a k-subset is allowed when all its pairs are.
Distances come from a :class:`kagscope.columns.layout.Layout`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import pairwise
from math import comb, inf, isfinite
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kagscope.base.checks import is_whole
from kagscope.base.errors import InputError
from kagscope.columns.layout import Layout

BoolArray = NDArray[np.bool_]


def _to_lists(value: Any) -> Any:
    """Convert arrays and tensors to nested lists of Python numbers; return anything else unchanged."""
    return value.tolist() if hasattr(value, "tolist") else value


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
    """Base of all selections, and of your own: a frozen dataclass that overrides :meth:`pairs` and ``__str__``.

    ``str(selection)`` is its canonical name in tables.
    """

    @property
    def clique(self) -> bool:
        """Whether the selection is every k-subset of some set of columns."""
        return False

    def columns(self, layout: Layout) -> BoolArray:
        """(n,) which columns may take part at all, the selection for k = 1."""
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
        return layout.pairs(self, lambda distances: layout.within(distances, self.radius))


@dataclass(frozen=True)
class Apart(Selection):
    """Subsets whose pairwise distances are all at least ``distance`` (the minimum-distance sweep of arXiv 2511.21626)."""

    distance: float

    def __post_init__(self) -> None:
        _check_length("Apart", "distance", self.distance)

    def __str__(self) -> str:
        return f"apart({_short(self.distance)})"

    def pairs(self, layout: Layout) -> BoolArray:
        return layout.pairs(self, lambda distances: ~layout.below(distances, self.distance))


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
        return layout.pairs(self, lambda d: ~layout.below(d, self.low) & layout.below(d, self.high))


@dataclass(frozen=True)
class SameChannel(Selection):
    """Subsets of columns of one channel of a colour image, whose pairwise distances are all at most ``radius``; inf: any."""

    radius: float = inf

    def __post_init__(self) -> None:
        if self.radius != inf:
            _check_length("SameChannel", "radius", self.radius)

    def __str__(self) -> str:
        return "same_channel" if self.radius == inf else f"same_channel({_short(self.radius)})"

    def pairs(self, layout: Layout) -> BoolArray:
        if layout.channels == 1:
            raise InputError(f"selection {self} needs columns in channels; pass image_shape=(channels, height, width)")
        channel = np.arange(layout.columns) * layout.channels // layout.columns
        same = channel[:, None] == channel[None, :]
        return same if self.radius == inf else same & Ball(self.radius).pairs(layout)


@dataclass(frozen=True)
class Window(Selection):
    """Subsets of the columns within ``radius`` of ``center`` (in the coordinates of the positions; (row, column) for images)."""

    center: tuple[float, ...]
    radius: float

    def __post_init__(self) -> None:
        center = _to_lists(self.center)
        center = center if isinstance(center, Iterable) else (center,)
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
        return layout.within(layout.distances_from(self.center, self), self.radius)


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
            rows = [tuple(subset) for subset in _to_lists(self.subsets)]
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
            if not all(is_whole(column, 0) for column in row):
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


def column_subset_count(selection: Selection, layout: Layout, k: int) -> int | None:
    """Exact number |S| of allowed column subsets, by a formula where there is one.

    Cliques by a binomial; pairs and triples by counting edges and triangles of the graph of allowed pairs; larger k by
    enumerating cliques, None if there are too many.
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
    from kagscope.columns.cliques import count_cliques  # compiled: numba is loaded when it is needed

    return count_cliques(adjacency, k)


def check_layout(selections: Iterable[Selection], layout: Layout) -> None:
    """Raise :class:`InputError` if a selection needs a layout that is not given, without listing pairs."""
    for selection in selections:
        if isinstance(selection, Window):
            selection.columns(layout)
        elif isinstance(selection, SameChannel) and layout.channels == 1:
            selection.pairs(layout)
        elif isinstance(selection, Ball | Apart | Shell) and layout.positions is None and layout.groups is None:
            layout.distances(selection)


def as_selections(selection: Any) -> tuple[list[Selection], bool]:
    """Convert to a list of selections, and tell whether a list was given. Raises :class:`InputError` for anything else."""
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
        f"selection={selection!r:.80}, expected All(), Ball(r), Apart(d), Shell(a, b), SameChannel(r), Window(center, r), "
        "Subsets(list) or a list of these"
    )


def parse_selection(text: str) -> Selection:
    """The selection with the canonical name ``text``, such as "all", "ball(7)", "shell(7,14)" or "window(13,13,7)".

    Raises:
        InputError: no selection has that name.
    """
    name, _, rest = text.strip().lower().partition("(")
    try:
        numbers = [float(number) for number in rest.rstrip(")").split(",")] if rest else []
    except ValueError:
        numbers = [float("nan")]
    if name in ("all", "same_channel") and not rest:
        return All() if name == "all" else SameChannel()
    closed = rest.endswith(")") and len(rest.split(")")) == 2
    if closed and name in ("ball", "apart") and len(numbers) == 1:
        return Ball(numbers[0]) if name == "ball" else Apart(numbers[0])
    if closed and name == "same_channel" and len(numbers) == 1:
        return SameChannel(numbers[0])
    if closed and name == "shell" and len(numbers) == 2:
        return Shell(*numbers)
    if closed and name == "window" and len(numbers) >= 2:
        return Window(tuple(numbers[:-1]), numbers[-1])
    raise InputError(
        f"selection {text!r} is not known; write all, ball(7), apart(7), shell(7,14), same_channel(7) or window(13,13,7)"
    )
