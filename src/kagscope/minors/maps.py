"""Maps of geometry: sums for every pair of columns, and moments of every window (MATH.md section 1, ``window``)."""

from __future__ import annotations

from collections.abc import Sequence
from math import comb
from typing import TYPE_CHECKING, Any, overload

import numpy as np
from numpy.typing import NDArray

from kagscope.base.errors import InputError
from kagscope.columns.layout import make_layout, real_array
from kagscope.columns.selections import Window
from kagscope.minors._input import MatrixLike, as_matrices, check_k, device_of, to_device
from kagscope.minors.engine import minor_moments
from kagscope.minors.moments import CHEAP, Moments
from kagscope.minors.rank import dependent
from kagscope.minors.routes.enumeration import pair_sums
from kagscope.minors.scaling import nonzero_rows, normalise, times_power_of_two
from kagscope.minors.subsets import SubsetList, complete_pairs, pairs_of, sublist
from kagscope.minors.underflow import LEAST

if TYPE_CHECKING:
    from torch import Tensor

FloatArray = NDArray[np.float64]


def column_pair_map(J: MatrixLike) -> dict[str, FloatArray | Tensor]:
    """S1, S2, S4 of the 2-minors of every pair of columns, summed over all row pairs.

    Args:
        J: (m, n) NumPy array or torch tensor, m >= 2 and n >= 2.

    Returns:
        {"s1", "s2", "s4"}: symmetric (n, n) arrays with zero diagonal, in the units of J; tensors on the device of J if that is
        CUDA.
    """
    matrices, batched = as_matrices(J)
    if batched:
        raise InputError(f"J has shape {matrices.shape}; a column pair map is of one matrix (m, n): call it for each")
    check_k(2, *matrices.shape[1:])
    columns = np.frexp(np.abs(matrices[0]).max(axis=0))[1].astype(np.int64)  # of each, or pairs of small ones leave the range
    normalised, exponent = normalise(times_power_of_two(matrices, -columns), 2)
    up = 2 * exponent[0] + columns[:, None] + columns
    with np.errstate(over="ignore", under="ignore"):
        sums = _map(normalised[0], complete_pairs(len(columns)))
        maps = {name: np.ldexp(values, power * up) for power, (name, values) in zip((1, 2, 4), sums.items(), strict=True)}
    low = np.argwhere(np.triu(np.any([values < LEAST for values in sums.values()], axis=0), 1))
    for a, b in low[~dependent(np.ascontiguousarray(matrices[0]), low)]:  # on a scale of its own
        pair = minor_moments(matrices[0][:, [a, b]], 2, moments=CHEAP)
        for name in maps:
            maps[name][a, b] = maps[name][b, a] = getattr(pair, name)
    return to_device(maps, device_of(J))


def _map(matrix: FloatArray, pairs: SubsetList) -> dict[str, FloatArray]:
    """(n, n) symmetric maps of one normalised matrix, nonzero only at ``pairs``."""
    n = matrix.shape[1]
    active = nonzero_rows(matrix)
    maps = {name: np.zeros((n, n)) for name in ("s1", "s2", "s4")}
    if len(active) >= 2 and len(pairs.last):
        first, second = pairs_of(pairs)
        sums = pair_sums(active, pairs, CHEAP)
        for row, name in enumerate(maps):
            maps[name][first, second] = maps[name][second, first] = sums[row]
    return maps


@overload
def window_moments(
    J: MatrixLike, centers: Any, radius: float, image_shape: Sequence[int] | None = None, *, positions: Any = None
) -> list[Moments]: ...


@overload
def window_moments(
    J: MatrixLike, centers: Any, radius: Sequence[float], image_shape: Sequence[int] | None = None, *, positions: Any = None
) -> list[list[Moments]]: ...


def window_moments(
    J: MatrixLike,
    centers: Any,
    radius: float | Sequence[float],
    image_shape: Sequence[int] | None = None,
    *,
    positions: Any = None,
) -> list[Moments] | list[list[Moments]]:
    """S1, S2, S4 of the 2-minors inside the window around each center: masked sums of the column pair map.

    Args:
        J: (m, n) or (B, m, n) NumPy array or torch tensor.
        centers: (count, dimension), (row, column) for images.
        radius: of every window, in the units of the positions; several radii share one map.
        image_shape, positions: where the columns lie, as for :func:`minor_moments`.

    Returns:
        One :class:`Moments` per center; window by window the same as ``minor_moments(..., selection=Window(center, radius))``.
        Of several radii a list of such lists, one for each radius.

    Raises:
        InputError: an argument that cannot be used.
    """
    matrices, batched = as_matrices(J)
    _, rows, columns = matrices.shape
    check_k(2, rows, columns)
    layout = make_layout(columns, image_shape, positions)
    try:
        points = np.atleast_2d(real_array(centers))
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"centers={centers!r:.80} cannot be read as (count, dimension) numbers ({error})") from error
    several = isinstance(radius, Sequence | np.ndarray)
    radii: list[float] = list(radius) if isinstance(radius, Sequence | np.ndarray) else [radius]
    if not radii:
        raise InputError("radius is empty; give one radius, or several in a list")
    windows = [Window(tuple(center), r) for r in radii for center in points]
    inside = np.stack([window.columns(layout) for window in windows]).astype(np.float64)
    pairs = sublist(*np.nonzero(np.triu(inside.T @ inside, 1)))  # of columns that any window holds
    normalised, exponent = normalise(matrices, 2)
    sums: dict[str, list[FloatArray]] = {"s1": [], "s2": [], "s4": []}
    for matrix in normalised:
        for name, values in _map(matrix, pairs).items():
            sums[name].append(0.5 * ((inside @ values) * inside).sum(axis=1))
    counts = [comb(rows, 2) * comb(int(mask.sum()), 2) for mask in inside]
    moments = [
        Moments(
            2,
            count,
            exponent,
            {name: np.array([row[index] for row in per]) for name, per in sums.items()},
            batched=batched,
            device=device_of(J),
        )
        for index, count in enumerate(counts)
    ]
    for index, window in enumerate(windows):
        if counts[index] and any((values < LEAST).any() for values in moments[index].sums.values()):
            moments[index] = minor_moments(J, 2, window, moments=CHEAP, image_shape=image_shape, positions=positions)
    return [moments[at : at + len(points)] for at in range(0, len(moments), len(points))] if several else moments
