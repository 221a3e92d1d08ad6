"""Random rotations against the matrix itself: the public forms of :mod:`kagscope.minors.haar` (MATH.md section 3 and 4.5)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import comb
from typing import Any, Literal, Unpack, overload

import numpy as np
from numpy.typing import NDArray

from kagscope.base.errors import InputError
from kagscope.columns.layout import Layout, LayoutOptions, make_layout
from kagscope.columns.selections import All, Selection, Subsets, Window, as_selections
from kagscope.minors._input import (
    MatrixLike,
    Values,
    as_matrices,
    check_choice,
    check_k,
    check_positive,
    check_seed,
    device_of,
    to_device,
)
from kagscope.minors.engine import minor_moments
from kagscope.minors.haar import MOST_BITS, haar_constant, haar_mean_s1_estimate
from kagscope.minors.moment_scores import rotation_ratio_error, rotation_ratio_of_pr
from kagscope.minors.pair_draws import volume_sums
from kagscope.minors.plan import BYTES_A_SUBSET, Estimate
from kagscope.minors.random_rotations import max_rotation_ratio
from kagscope.minors.row_draws import RowDraws
from kagscope.minors.scaling import bit_span, nonzero_rows, normalise
from kagscope.minors.subsets import MAX_SELECTIONS, as_masks, cached_subsets

BoolArray = NDArray[np.bool_]
MOST_LISTED = 2**28  # bytes of column pairs listed for one sweep over several selections


class _HaarOptions(LayoutOptions, total=False):
    rel_error: float
    seed: int


class _RatioOptions(LayoutOptions, total=False):
    rotations: int
    seed: int


@overload
def haar_mean_s1(
    J: MatrixLike,
    k: int = 2,
    selection: Selection | str | None = None,
    *,
    return_error: Literal[False] = False,
    **options: Unpack[_HaarOptions],
) -> Values: ...


@overload
def haar_mean_s1(
    J: MatrixLike,
    k: int = 2,
    selection: Sequence[Selection | str] = ...,
    *,
    return_error: Literal[False] = False,
    **options: Unpack[_HaarOptions],
) -> list[Values]: ...


@overload
def haar_mean_s1(
    J: MatrixLike,
    k: int = 2,
    selection: Selection | str | Sequence[Selection | str] | None = None,
    *,
    return_error: Literal[True],
    **options: Unpack[_HaarOptions],
) -> Any: ...


def haar_mean_s1(
    J: MatrixLike,
    k: int = 2,
    selection: Selection | str | Sequence[Selection | str] | None = None,
    *,
    image_shape: Sequence[int] | None = None,
    positions: Any = None,
    groups: Any = None,
    rel_error: float = 0.01,
    seed: int = 0,
    return_error: bool = False,
) -> Any:
    """E[S1(QJ)] over uniform orthogonal Q, in closed form (MATH.md 4.5).

    Exact for k = 1, 2, for listed subsets, for k = 3 up to 5e8 column triples, and for k >= 4 up to 1e6 column sets; beyond,
    sampled to ``rel_error``: use ``return_error`` there.

    Args:
        J: (m, n) or (B, m, n) NumPy array or torch tensor.
        k: order of the minors.
        selection, image_shape, positions, groups: as for :func:`minor_moments`.
        rel_error, seed: relative error and seed of the sampling.
        return_error: whether to return an :class:`Estimate`, a value and its standard error, 0 where it is exact.

    Returns:
        float; (B,) array for a batch (a tensor on the device of J if that is CUDA); a list of these for a list of selections.
        NaN where every column set drawn has volume zero.
    """
    matrices, batched = as_matrices(J)
    k, seed = check_k(k, *matrices.shape[1:]), check_seed(seed)
    check_positive("rel_error", rel_error, "the relative standard error that sampling aims at")
    layout = make_layout(matrices.shape[2], image_shape, positions, groups)
    selections, listed = as_selections(All() if selection is None else selection)
    results = haar_means(
        matrices, k, selections, layout, [np.zeros(len(matrices), dtype=np.int64)] * len(selections), rel_error, seed
    )
    return _format(results, return_error, batched, listed, device_of(J))


def haar_means(
    matrices: NDArray[np.float64],
    k: int,
    selections: Sequence[Selection],
    layout: Layout,
    powers: Sequence[NDArray[np.int64]],
    rel_error: float = 0.01,
    seed: int = 0,
) -> list[Estimate]:
    """As :func:`haar_mean_s1`: for each selection (B,) means of J / 2^powers, where ``powers`` are (B,) for each selection."""
    even = all(2 * bit_span(matrix) <= MOST_BITS for matrix in matrices)
    if k == 2 and 1 < len(selections) <= MAX_SELECTIONS and even and all(_covers_all_columns(s, layout) for s in selections):
        areas = _haar_areas(matrices, selections, layout, np.stack(powers, axis=1))
        return [Estimate(values, np.zeros_like(values)) for values in areas.T]
    results = []
    for s, exponents in zip(selections, powers, strict=True):
        masks = as_masks(s, layout, k)
        estimates = [
            haar_mean_s1_estimate(matrix, k, *masks, rel_error=rel_error, seed=seed, power=int(power))
            for matrix, power in zip(matrices, exponents, strict=True)
        ]
        results.append(Estimate(*np.array(estimates).T))
    return results


def drawn_haar_means(
    drawn: RowDraws, J: NDArray[np.float64], k: int, *options: Any
) -> list[tuple[NDArray[np.float64], NDArray[np.float64] | None]]:
    """:func:`haar_means` of taller matrices from which these rows (B, rows, n) were drawn, for each selection.

    The Gram matrix of all rows is estimated from the drawn ones; ``options`` are those of :func:`haar_means`.

    Returns:
        (B,) values and, for errors, (parts, B) values each without one part of the groups; None where there are too few groups,
        or the means are themselves sampled.
    """
    sampled = []

    def means(groups: NDArray[np.int64]) -> NDArray[np.float64]:
        rows = drawn.groups[groups].ravel()
        estimates = haar_means(J[:, rows], k, *options)
        sampled.append(any(np.any(e.stderr) for e in estimates))
        size = len(rows)
        factor = comb(drawn.units, k) * haar_constant(drawn.units, k) / (comb(size, k) * haar_constant(size, k))
        return np.stack([factor * (drawn.units / size) ** (k / 2) * e.value for e in estimates])

    whole = means(np.arange(len(drawn.groups)))
    left = None if sampled[0] else drawn.leave_one_out(means)
    return [(e, None if left is None else left[:, i]) for i, e in enumerate(whole)]


def _format(results: list[Estimate], errors: bool, batched: bool, listed: bool, device: Any) -> Any:
    """(B,) values and errors of each selection in the requested form."""
    shaped = [Estimate(*(to_device(values, device) if batched else float(values[0]) for values in pair)) for pair in results]
    results_shaped = shaped if errors else [pair.value for pair in shaped]
    return results_shaped if listed else results_shaped[0]


def _covers_all_columns(chosen: Selection, layout: Layout) -> bool:
    """Whether a selection consists of pairs of all columns, few enough to list together with those of others."""
    fits = layout.columns**2 / 2 * BYTES_A_SUBSET <= MOST_LISTED
    return fits and not isinstance(chosen, Subsets | Window) and bool(chosen.columns(layout).all())


def _haar_areas(
    matrices: NDArray[np.float64], selections: Sequence[Selection], layout: Layout, powers: NDArray[np.int64]
) -> NDArray[np.float64]:
    """(B, selections) Haar means of k = 2, divided by 2^(2 powers), from one sweep over all pairs of columns, cell by cell."""
    subsets = cached_subsets(tuple(selections), layout, 2)
    pairs, starts = subsets.by_cell
    factor = comb(matrices.shape[1], 2) * haar_constant(matrices.shape[1], 2)
    areas = np.zeros((len(matrices), len(selections)))
    scaled, exponent = normalise(matrices, 2)
    for row, matrix in enumerate(scaled):
        if len(pairs):
            areas[row] = volume_sums(nonzero_rows(matrix), pairs, starts) @ subsets.membership
    with np.errstate(over="ignore", under="ignore"):
        return np.ldexp(factor * areas, 2 * (exponent[:, None] - powers))


@overload
def rotation_ratio(
    J: MatrixLike,
    k: int = 2,
    kind: Literal["pr", "max"] = "pr",
    selection: Selection | str | None = None,
    *,
    return_error: Literal[False] = False,
    **options: Unpack[_RatioOptions],
) -> Values: ...


@overload
def rotation_ratio(
    J: MatrixLike,
    k: int = 2,
    kind: Literal["pr", "max"] = "pr",
    selection: Sequence[Selection | str] = ...,
    *,
    return_error: Literal[False] = False,
    **options: Unpack[_RatioOptions],
) -> list[Values]: ...


@overload
def rotation_ratio(
    J: MatrixLike,
    k: int = 2,
    kind: Literal["pr", "max"] = "pr",
    selection: Selection | str | Sequence[Selection | str] | None = None,
    *,
    return_error: Literal[True],
    **options: Unpack[_RatioOptions],
) -> Any: ...


def rotation_ratio(
    J: MatrixLike,
    k: int = 2,
    kind: Literal["pr", "max"] = "pr",
    selection: Selection | str | Sequence[Selection | str] | None = None,
    *,
    image_shape: Sequence[int] | None = None,
    positions: Any = None,
    groups: Any = None,
    rotations: int = 32,
    seed: int = 0,
    return_error: bool = False,
) -> Any:
    """How axis-aligned J is against random rotations of its rows; above 1 means aligned (MATH.md section 3: rr_pr, rr_max).

    Args:
        J: (m, n) or (B, m, n) NumPy array or torch tensor.
        k: order of the minors; 1 or 2 for "max".
        kind: "pr" for E[S1(QJ)] / S1(J), in closed form; "max" for top(J) / E[top(QJ)], exact maxima over ``rotations`` random Q.
        selection, image_shape, positions, groups: as for :func:`minor_moments`.
        rotations, seed: number and seed of the random Q of "max"; ``seed`` also seeds the sampling for "pr" (k >= 3).
        return_error: whether to return an :class:`Estimate`, a value and its standard error, 0 where it is exact.

    Returns:
        float; (B,) array for a batch (a tensor on the device of J if that is CUDA); a list of these for a list of selections. NaN
        where every minor is zero. For "pr" exactly 1 where k is the number of rows: rotations then change no minor.
    """
    check_choice("kind", kind, ("pr", "max"))
    matrices, batched = as_matrices(J)
    k, seed = check_k(k, *matrices.shape[1:]), check_seed(seed)
    layout = make_layout(matrices.shape[2], image_shape, positions, groups)
    selections, listed = as_selections(All() if selection is None else selection)
    layout_options = {"image_shape": image_shape, "positions": positions, "groups": groups}
    results = [_ratio(matrices, k, kind, chosen, layout, layout_options, rotations, seed) for chosen in selections]
    return _format(results, return_error, batched, listed, device_of(J))


def _ratio(
    matrices: Any, k: int, kind: str, chosen: Selection, layout: Layout, layout_options: dict[str, Any], rotations: int, seed: int
) -> Estimate:
    if kind == "max":
        if isinstance(chosen, Subsets):
            raise InputError(
                f'selection {chosen}: kind="max" works on All, Ball, Apart, Shell and Window; use kind="pr" for listed subsets'
            )
        columns, pairs, _ = as_masks(chosen, layout, k)
        ratios = [max_rotation_ratio(matrix, k, columns, pairs, rotations=rotations, seed=seed) for matrix in matrices]
        return Estimate(*np.array(ratios).T)
    moments = minor_moments(matrices, k, chosen, moments=("s1",), seed=seed, **layout_options)
    s1 = replace(moments, exponent=np.zeros_like(moments.exponent))  # same normalisation: the ratio has no scale
    if k == matrices.shape[1]:
        return Estimate(np.where(s1.s1 > 0, 1.0, np.nan), np.zeros(len(matrices)))
    (mean,) = haar_means(matrices, k, [chosen], layout, [moments.exponent], seed=seed)
    return Estimate(rotation_ratio_of_pr(s1, mean), rotation_ratio_error(s1, mean))
