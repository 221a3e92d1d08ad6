"""Everything measured of one network at one step: every score of MATH.md section 3, at every scale, kept as a :class:`State`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from torch import nn

import kagscope as kag
from kagscope.columns.selections import parse_selection
from kagscope.jacobians import FactoredJacobian, LayerJacobian, hidden_activations, hidden_layer_jacobians, output_slopes
from kagscope.measuring.states import ALL_ZERO, WHOLE, State, record
from kagscope.minors._input import MOMENTS
from kagscope.minors.haar import rotation_ratio_estimate
from kagscope.minors.moments import Moments
from kagscope.scores import of_jacobians
from kagscope.scores.of_representations import effective_dimension, intrinsic_dimension, kernel_alignment
from kagscope.wanted import (
    ACTIVATION_SCORES,
    CONSTANT_SCORES,
    NEEDS,
    PRUNE_SCORES,
    ROW_SCORES,
    SPECTRAL_SCORES,
    UNFELT_SCORES,
    moments_for,
    wants,
)

SUMS = ("s1", "s2", "s4")
VISITED_TRIPLES = math.comb(32, 3) * math.comb(64, 3)  # visited within a second a point; of more k = 3 is sampled
TRIPLE_ROWS = math.comb(64, 3)  # row means of k = 3 take 10 microseconds each
TRACK_REL_ERROR = 0.002  # of the sampled KL along training
WINDOWS = "windows"  # the map of windowed scores, among selections


class Plan(Protocol):
    """How much is measured; :class:`kagscope.studies.config.GeometrySettings` is one."""

    k: tuple[int, ...]
    points: int
    visited_points: int
    track_points: int
    track_visited_points: int
    rotation_points: int
    rotations: int
    k3_points: int
    k3_rel_error: float
    window_points: int
    window_grid: int
    layer_points: int
    zero_row_quantile: float
    selections: tuple[str, ...] | None
    layers: tuple[str, ...] | None
    scores: tuple[str, ...] | None


@dataclass(frozen=True)
class Probe:
    """The data a network is measured on: ``inputs`` (N, n) float32, ``labels`` (N,); ``points`` index those with Jacobians."""

    inputs: torch.Tensor
    labels: np.ndarray
    points: np.ndarray
    image_shape: tuple[int, int]


Anything = TypeVar("Anything")


def choose_points(count: int, wanted: int) -> np.ndarray:
    """The same ``wanted`` of ``count`` test points for every network, drawn once without replacement; any prefix is a sample."""
    return np.random.default_rng(0).permutation(count)[:wanted]


def scales(image_shape: tuple[int, int]) -> tuple[float, ...]:
    """A quarter, half, three quarters and the whole of the image's longer side: 7, 14, 21, 28 for MNIST."""
    side = max(image_shape)
    return tuple(side * quarters / 4 for quarters in (1, 2, 3, 4))


def all_selections(image_shape: tuple[int, int]) -> list[kag.Selection]:
    """All, the four balls and the four minimum distances."""
    return [kag.All(), *(kag.Ball(r) for r in scales(image_shape)), *(kag.Apart(d) for d in scales(image_shape))]


def selections_of(plan: Plan, image_shape: tuple[int, int]) -> list[kag.Selection]:
    """What a plan names, the map of windows aside; by default :func:`all_selections`."""
    if plan.selections is None:
        return all_selections(image_shape)
    return [parse_selection(name) for name in plan.selections if name != WINDOWS]


def window_centers(image_shape: tuple[int, int], grid: int) -> np.ndarray:
    """(count, 2) centres on an even grid of at most ``grid`` by ``grid`` pixels."""
    axes = [np.unique(np.linspace(0, side - 1, min(grid, side)).round().astype(int)) for side in image_shape]
    return np.array([(r, c) for r in axes[0] for c in axes[1]])


def window_radii(image_shape: tuple[int, int]) -> tuple[float, ...]:
    """An eighth, a quarter, three eighths and half of the image's longer side."""
    return tuple(scale / 2 for scale in scales(image_shape))


def measure_state(model: nn.Sequential, probe: Probe, plan: Plan, *, full: bool) -> State:
    """Measure one network.

    Args:
        model: Linear-activation stack, any dtype; computed with in float64.
        probe: data and points.
        plan: how much to measure.
        full: everything (initial and final nets); else what is followed along training: sums at the first ``track_points``.
    """
    points = probe.points if full else probe.points[: plan.track_points]
    state = State(points)
    for layer, jacobian in _named(plan, hidden_layer_jacobians(model, probe.inputs[points])).items():
        _two_minors(state, layer, jacobian, points, probe, plan, full)
        _one_minors(state, layer, jacobian, points, probe, plan)
        if full:
            if 3 in plan.k and min(jacobian.shape) >= 3:
                _three_minors(state, layer, jacobian, points, probe, plan)
            _windows(state, layer, jacobian, points, probe, plan)
            _spectra(state, layer, jacobian, points, plan)
    _representations(state, model, probe, plan, full)
    return state


def _two_minors(
    state: State, layer: str, jacobian: LayerJacobian, points: np.ndarray, probe: Probe, plan: Plan, full: bool
) -> None:
    if 2 not in plan.k or min(jacobian.shape) < 2:
        return
    rows, chosen = jacobian.shape[0], selections_of(plan, probe.image_shape)
    visited = min(plan.visited_points if full else plan.track_visited_points, len(points))
    seen = slice(0, visited if full else len(points))
    looked_at = moments_for(plan.scores, MOMENTS if full else (*SUMS, "entropy"))
    if set(looked_at) <= set(SUMS):  # formulas give these without a look at every minor
        visited = 0 if plan.scores is not None else visited
    parts: list[tuple[slice, list[Moments]]] = []
    if visited and chosen:  # every minor looked at: entropy, and in full histogram and top as well
        parts.append((slice(0, visited), _moments(jacobian.dense(slice(0, visited)), chosen, probe, looked_at)))
    rest = slice(visited, len(points))
    factored = full and isinstance(jacobian, FactoredJacobian)  # one pass over W gives all points their entropy and top
    sums = moments_for(plan.scores, (*SUMS, "entropy", "top") if factored else SUMS)
    if visited < len(points) and sums and chosen:
        parts.append((rest, _beyond(jacobian, rest, chosen, probe, sums, factored)))
    for part, moments in parts:
        haar = _haar(jacobian.dense(part), chosen, probe) if wants(plan.scores, "rr_pr") else [None] * len(chosen)
        for selection, found, mean in zip(chosen, moments, haar, strict=True):
            record(state, layer, rows, str(selection), points[part], found)
            if mean is not None:
                state.add((layer, 2, str(selection), "rr_pr"), points[part], mean / np.where(found.s1 > 0, found.s1, np.nan))
            if found.bins is not None:
                state.visited[layer, 2, str(selection)] = [found[i] for i in range(len(found))]
    if wants(plan.scores, *ROW_SCORES):  # cheap: as many points as are looked at, and along training all
        state.row_means[layer, 2] = kag.row_means(jacobian.dense(seen), 2)
    if full and wants(plan.scores, "rr_max"):
        _largest_against_rotations(state, layer, jacobian, points, plan)
    elif not full and not visited and wants(plan.scores, "kl_uniform"):
        # visiting every minor at every step takes too long here: KL is sampled, with its error
        sampled = kag.minor_moments(jacobian.dense(), 2, moments=("s1", "entropy"), method="sampled", rel_error=TRACK_REL_ERROR)
        errors = sampled.stderr["kl_uniform"]
        state.add((layer, 2, "all", "kl_uniform"), points, sampled.kl_uniform, errors, exact=False)


def _beyond(
    jacobian: LayerJacobian, rest: slice, chosen: list[kag.Selection], probe: Probe, sums: tuple[str, ...], factored: bool
) -> list[Moments]:
    """Moments of the points whose minors are not each looked at."""
    if factored and isinstance(jacobian, FactoredJacobian) and not set(sums) <= set(SUMS):
        table = kag.FactoredMoments(jacobian.W, 2, chosen, image_shape=probe.image_shape, moments=sums)
        return table.at(jacobian.d[rest])
    return _moments(jacobian.dense(rest), chosen, probe, sums)


def _haar(J: np.ndarray, chosen: list[kag.Selection], probe: Probe) -> Sequence[Any]:
    return kag.haar_mean_s1(J, 2, chosen, image_shape=probe.image_shape)


def _largest_against_rotations(state: State, layer: str, jacobian: LayerJacobian, points: np.ndarray, plan: Plan) -> None:
    some = slice(0, min(plan.rotation_points, len(points)))
    for point, matrix in zip(points[some], jacobian.dense(some), strict=True):
        value, stderr = rotation_ratio_estimate(matrix, 2, "max", rotations=plan.rotations, seed=0)
        state.add((layer, 2, "all", "rr_max"), [point], value, stderr, exact=False)


def _one_minors(state: State, layer: str, jacobian: LayerJacobian, points: np.ndarray, probe: Probe, plan: Plan) -> None:
    J = jacobian.dense()
    if wants(plan.scores, *ROW_SCORES, *CONSTANT_SCORES, *PRUNE_SCORES):
        state.row_means[layer, 1] = kag.row_means(J, 1)
    if 1 not in plan.k or not wants(plan.scores, *NEEDS):
        return
    # a ball or a distance says nothing of single columns, so that they all stand under "all"; a window does
    chosen = [kag.All(), *(one for one in selections_of(plan, probe.image_shape) if isinstance(one, kag.Window))]
    for selection, found, mean in zip(
        chosen,
        kag.minor_moments(J, 1, chosen, image_shape=probe.image_shape),
        kag.haar_mean_s1(J, 1, chosen, image_shape=probe.image_shape),
        strict=True,
    ):
        record(state, layer, jacobian.shape[0], str(selection), points, found)
        state.visited[layer, 1, str(selection)] = [found[i] for i in range(len(found))]
        state.add((layer, 1, str(selection), "rr_pr"), points, mean / np.where(found.s1 > 0, found.s1, np.nan))


def _three_minors(state: State, layer: str, jacobian: LayerJacobian, points: np.ndarray, probe: Probe, plan: Plan) -> None:
    some = slice(0, min(plan.k3_points, len(points)))
    chosen = selections_of(plan, probe.image_shape)
    wanted = moments_for(plan.scores, MOMENTS)
    J = jacobian.dense(some)
    small = math.comb(J.shape[1], 3) * math.comb(J.shape[2], 3) <= VISITED_TRIPLES
    options: dict[str, Any] = {
        "rel_error": plan.k3_rel_error,
        "image_shape": probe.image_shape,
        "method": "auto" if small else "sampled",
        "moments": wanted,
    }
    for selection, found in zip(chosen, kag.minor_moments(J, 3, chosen, **options), strict=True) if wanted and chosen else ():
        record(state, layer, jacobian.shape[0], str(selection), points[some], found)
    rows = math.comb(J.shape[1], 3)
    if small and rows <= TRIPLE_ROWS and wants(plan.scores, *ROW_SCORES):  # of 32 x 784 two points take over a minute
        state.row_means[layer, 3] = kag.row_means(J[:2], 3)


def _moments(J: np.ndarray, chosen: Sequence[kag.Selection], probe: Probe, wanted: Any) -> list[Moments]:
    return kag.minor_moments(J, 2, list(chosen), image_shape=probe.image_shape, moments=wanted, method="exact")


def _windows(state: State, layer: str, jacobian: LayerJacobian, points: np.ndarray, probe: Probe, plan: Plan) -> None:
    if 2 not in plan.k or min(jacobian.shape) < 2 or not plan.window_points or not wants(plan.scores, "pr"):
        return
    if plan.selections is not None and WINDOWS not in plan.selections:
        return
    some = slice(0, min(plan.window_points, len(points)))
    centers = window_centers(probe.image_shape, plan.window_grid)
    radii = window_radii(probe.image_shape)
    found = kag.window_moments(jacobian.dense(some), centers, radii, probe.image_shape)
    rows, columns = (np.unique(centers[:, axis])[::2] for axis in (0, 1))
    coarse = np.isin(centers[:, 0], rows) & np.isin(centers[:, 1], columns)
    for radius, per_center in zip(radii, found, strict=True):
        for center, moments, kept in zip(centers, per_center, coarse, strict=True):
            if radius != scales(probe.image_shape)[0] and not kept:
                continue  # one radius at every centre, the others at every second one
            name = str(kag.Window((int(center[0]), int(center[1])), radius))
            reason = "undefined: no column subset in this selection" if moments.count == 0 else ALL_ZERO
            state.add((layer, 2, name, "pr"), points[some], moments.participation_ratio, reason=reason)


def _spectra(state: State, layer: str, jacobian: LayerJacobian, points: np.ndarray, plan: Plan) -> None:
    J = jacobian.dense()
    if wants(plan.scores, *SPECTRAL_SCORES):
        for score, values in ((one, getattr(of_jacobians, one)(J)) for one in SPECTRAL_SCORES):
            state.add((layer, 0, "all", score), points, values, reason="undefined: the Jacobian is zero")
    if not wants(plan.scores, "column_divergence"):
        return
    some = slice(0, min(plan.visited_points, len(points)))
    state.add(
        (layer, 1, "all", "column_divergence"),
        points[some],
        kag.column_divergence(J[some], 1),
        reason="undefined: fewer than two nonzero columns",
    )


def _representations(state: State, model: nn.Sequential, probe: Probe, plan: Plan, full: bool) -> None:
    some = choose_points(len(probe.inputs), plan.layer_points)
    if wants(plan.scores, *ACTIVATION_SCORES):
        state.activations = _named(plan, hidden_activations(model, probe.inputs[some]))
        _activation_scores(state, probe.labels[some], plan, full)
    if full and wants(plan.scores, *CONSTANT_SCORES, *PRUNE_SCORES):
        jacobians = _named(plan, hidden_layer_jacobians(model, probe.inputs[some]))
        state.row_norms = {name: jacobian.row_norms() for name, jacobian in jacobians.items()}
    if full and wants(plan.scores, *UNFELT_SCORES):
        state.output_slopes = _named(plan, output_slopes(model, probe.inputs[some]))


def _activation_scores(state: State, labels: np.ndarray, plan: Plan, full: bool) -> None:
    constant, few = "undefined: the activations are constant", "undefined: too few distinct activations"
    for layer, A in state.activations.items():
        state.add((layer, 0, "all", "kernel_alignment"), [WHOLE], kernel_alignment(A, labels), reason=constant)
        state.add((layer, 0, "all", "effective_dimension"), [WHOLE], effective_dimension(A), reason=constant)
        if full and wants(plan.scores, "intrinsic_dimension"):
            state.add((layer, 0, "all", "intrinsic_dimension"), [WHOLE], intrinsic_dimension(A), reason=few)


def _named(plan: Plan, by_layer: Mapping[str, Anything]) -> dict[str, Anything]:
    """What belongs to the layers that are asked for."""
    return {name: value for name, value in by_layer.items() if plan.layers is None or name in plan.layers}
