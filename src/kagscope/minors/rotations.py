"""Random rotations against the matrix itself: the public forms of :mod:`kagscope.minors.haar` (MATH.md section 3 and 4.5)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, overload

import numpy as np
from numpy.typing import NDArray

from kagscope.base.errors import InputError
from kagscope.columns.layout import Layout, make_layout
from kagscope.columns.selections import All, Selection, Subsets, as_selections
from kagscope.minors._input import MatrixLike, Values, as_matrices, check_choice, check_k, device_of, placed
from kagscope.minors.engine import minor_moments
from kagscope.minors.haar import haar_mean_s1_estimate
from kagscope.minors.moment_scores import rotation_ratio_error, rotation_ratio_of_pr
from kagscope.minors.plan import Estimate
from kagscope.minors.rotated import rotation_ratio_estimate
from kagscope.minors.scaling import normalise
from kagscope.minors.subsets import as_masks

BoolArray = NDArray[np.bool_]


@overload
def haar_mean_s1(
    J: MatrixLike,
    k: int = 2,
    selection: Selection | str | None = None,
    *,
    image_shape: Sequence[int] | None = None,
    positions: Any = None,
    groups: Any = None,
    rel_error: float = 0.01,
    seed: int = 0,
    return_error: Literal[False] = False,
) -> Values: ...


@overload
def haar_mean_s1(
    J: MatrixLike,
    k: int = 2,
    selection: Sequence[Selection | str] = ...,
    *,
    image_shape: Sequence[int] | None = None,
    positions: Any = None,
    groups: Any = None,
    rel_error: float = 0.01,
    seed: int = 0,
    return_error: Literal[False] = False,
) -> list[Values]: ...


@overload
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
    return_error: Literal[True],
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
    sampled to ``rel_error``: ask for the error there.

    Args:
        J: (m, n) or (B, m, n) NumPy array or torch tensor.
        k: order of the minors.
        selection, image_shape, positions, groups: as for :func:`minor_moments`.
        rel_error, seed: of the sampling.
        return_error: whether to return :class:`Estimate` s, pairs of a value and its standard error, 0 where it is exact.

    Returns:
        float; (B,) array for a batch (a tensor on the device of J if that is CUDA); a list of these for a list of selections.
        NaN where only column sets that span nothing were drawn.
    """
    matrices, batched = as_matrices(J)
    k = check_k(k, *matrices.shape[1:])
    layout = make_layout(matrices.shape[2], image_shape, positions, groups)
    selections, listed = as_selections(All() if selection is None else selection)
    results = []
    for chosen in selections:
        columns, pairs, subsets = as_masks(chosen, layout, k)
        found = [haar_mean_s1_estimate(matrix, k, columns, pairs, subsets, rel_error=rel_error, seed=seed) for matrix in matrices]
        results.append(Estimate(*np.array(found).T))
    return _given(results, return_error, batched, listed, device_of(J))


def _given(results: list[Estimate], errors: bool, batched: bool, listed: bool, device: Any) -> Any:
    """(B,) values and errors of each selection in the form that was asked for."""
    shaped = [Estimate(*(placed(part, device) if batched else float(part[0]) for part in one)) for one in results]
    given = shaped if errors else [one.value for one in shaped]
    return given if listed else given[0]


@overload
def rotation_ratio(
    J: MatrixLike,
    k: int = 2,
    kind: Literal["pr", "max"] = "pr",
    selection: Selection | str | None = None,
    *,
    image_shape: Sequence[int] | None = None,
    positions: Any = None,
    groups: Any = None,
    rotations: int = 32,
    seed: int = 0,
    return_error: Literal[False] = False,
) -> Values: ...


@overload
def rotation_ratio(
    J: MatrixLike,
    k: int = 2,
    kind: Literal["pr", "max"] = "pr",
    selection: Sequence[Selection | str] = ...,
    *,
    image_shape: Sequence[int] | None = None,
    positions: Any = None,
    groups: Any = None,
    rotations: int = 32,
    seed: int = 0,
    return_error: Literal[False] = False,
) -> list[Values]: ...


@overload
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
    return_error: Literal[True],
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
        rotations, seed: number and seed of the random Q of "max"; ``seed`` also of what has to be sampled for "pr" (k >= 3).
        return_error: whether to return :class:`Estimate` s, pairs of a value and its standard error, 0 where it is exact.

    Returns:
        float; (B,) array for a batch (a tensor on the device of J if that is CUDA); a list of these for a list of selections. NaN
        where every minor is zero. Of kind "pr" exactly 1 where k is the number of rows: rotations change no minor then.
    """
    check_choice("kind", kind, ("pr", "max"))
    matrices, batched = as_matrices(J)
    k = check_k(k, *matrices.shape[1:])
    layout = make_layout(matrices.shape[2], image_shape, positions, groups)
    selections, listed = as_selections(All() if selection is None else selection)
    where = {"image_shape": image_shape, "positions": positions, "groups": groups}
    results = [_ratio(matrices, k, kind, chosen, layout, where, rotations, seed) for chosen in selections]
    return _given(results, return_error, batched, listed, device_of(J))


def _ratio(
    matrices: Any, k: int, kind: str, chosen: Selection, layout: Layout, where: dict[str, Any], rotations: int, seed: int
) -> Estimate:
    if kind == "max":
        if isinstance(chosen, Subsets):
            raise InputError(
                f'selection {chosen}: kind="max" works on All, Ball, Apart, Shell and Window; use kind="pr" for listed subsets'
            )
        columns, pairs, _ = as_masks(chosen, layout, k)
        found = [rotation_ratio_estimate(matrix, k, "max", columns, pairs, rotations=rotations, seed=seed) for matrix in matrices]
        return Estimate(*np.array(found).T)
    scaled = normalise(matrices)[0]  # S1 of the normalised matrix neither under- nor overflows, and the ratio has no scale
    s1 = minor_moments(scaled, k, chosen, moments=("s1",), seed=seed, **where)
    if k == scaled.shape[1]:
        return Estimate(np.where(s1.s1 > 0, 1.0, np.nan), np.zeros(len(scaled)))
    mean = haar_mean_s1(scaled, k, chosen, seed=seed, return_error=True, **where)
    return Estimate(rotation_ratio_of_pr(s1, mean), rotation_ratio_error(s1, mean))
