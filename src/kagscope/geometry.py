"""From a network and its initial state to the rows of the results table: every score of MATH.md section 3, at every scale."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import pandas as pd
import torch
from torch import nn

import kagscope as kag
from kagscope import scores
from kagscope.applications.prune import remove_units
from kagscope.jacobians import FactoredJacobian, LayerJacobian, hidden_activations, hidden_layer_jacobians, output_slopes
from kagscope.minors.moments import Moments
from kagscope.representations import debiased_cka, effective_dimension, intrinsic_dimension, kernel_alignment
from kagscope.schema import SCORE_COLUMNS

MOMENT_SCORES = ("pr", "pr_normalized", "effective_minors", "ipr", "kl_uniform")
ATTRIBUTES = dict(zip(MOMENT_SCORES, ("participation_ratio", *MOMENT_SCORES[1:]), strict=True))
SUMS = ("s1", "s2", "s4")
ZIPF_RANKS = 200


class Plan(Protocol):
    """How much is measured; :class:`kagscope.studies.config.GeometrySettings` is one."""

    k: tuple[int, ...]
    points: int
    visited_points: int
    track_points: int
    rotation_points: int
    rotations: int
    k3_points: int
    k3_rel_error: float
    window_points: int
    window_grid: int
    layer_points: int
    zero_row_quantile: float


@dataclass(frozen=True)
class Probe:
    """The data a network is measured on: ``inputs`` (N, n) float32 and ``labels`` (N,), of which ``points`` index those with Jacobians."""

    inputs: torch.Tensor
    labels: np.ndarray
    points: np.ndarray
    image_shape: tuple[int, int]


@dataclass
class State:
    """Everything measured of one network at one step, kept to be compared with its initial state.

    ``scores`` maps (layer, k, selection, score) to (point indices, values, standard errors, exact, reason).
    """

    scores: dict[tuple[str, int, str, str], tuple[np.ndarray, np.ndarray, np.ndarray, bool, str]] = field(default_factory=dict)
    visited: dict[tuple[str, int, str], Moments] = field(default_factory=dict)
    row_means: dict[tuple[str, int], np.ndarray] = field(default_factory=dict)
    activations: dict[str, np.ndarray] = field(default_factory=dict)

    def add(
        self,
        key: tuple[str, int, str, str],
        points: Any,
        values: Any,
        stderr: Any = 0.0,
        exact: bool = True,
        reason: str = "undefined: every minor is zero",
    ) -> None:
        values = np.atleast_1d(np.asarray(values, dtype=np.float64))
        errors = np.broadcast_to(np.asarray(stderr, dtype=np.float64), values.shape)
        if key in self.scores:  # the same score at further points
            old = self.scores[key]
            points = np.concatenate([old[0], points])
            values, errors = np.concatenate([old[1], values]), np.concatenate([old[2], errors])
            exact = exact and old[3]
        self.scores[key] = (np.asarray(points), values, errors, exact, reason)


def choose_points(count: int, wanted: int) -> np.ndarray:
    """The same ``wanted`` of ``count`` test points for every network, drawn once without replacement; prefixes are samples too."""
    return np.random.default_rng(0).permutation(count)[:wanted]


def scales(image_shape: tuple[int, int]) -> tuple[float, ...]:
    """A quarter, half, three quarters and the whole of the image's longer side: 7, 14, 21, 28 for MNIST."""
    side = max(image_shape)
    return tuple(side * quarters / 4 for quarters in (1, 2, 3, 4))


def all_selections(image_shape: tuple[int, int]) -> list[kag.Selection]:
    """All, the four balls and the four minimum distances."""
    return [kag.All(), *(kag.Ball(r) for r in scales(image_shape)), *(kag.Apart(d) for d in scales(image_shape))]


def window_centers(image_shape: tuple[int, int], grid: int) -> np.ndarray:
    """(count, 2) centres on an even grid of at most ``grid`` by ``grid`` pixels."""
    axes = [np.unique(np.linspace(0, side - 1, min(grid, side)).round().astype(int)) for side in image_shape]
    return np.array([(r, c) for r in axes[0] for c in axes[1]])


def measure_state(model: nn.Sequential, probe: Probe, plan: Plan, *, full: bool, on_layer: Callable[[str], None] = lambda layer: None) -> State:
    """Measure one network.

    Args:
        model: Linear-activation stack, any dtype; computed with in float64.
        probe: data and points.
        plan: how much to measure.
        full: everything (initial and final nets); else what is followed along training: sums at the first ``track_points``.
        on_layer: told the name of each layer begun.
    """
    state = State()
    points = probe.points if full else probe.points[: plan.track_points]
    for layer, jacobian in hidden_layer_jacobians(model, probe.inputs[points]).items():
        on_layer(layer)
        _two_minors(state, layer, jacobian, points, probe, plan, full)
        _one_minors(state, layer, jacobian, points, plan)
        if full:
            if 3 in plan.k and min(jacobian.shape) >= 3:
                _three_minors(state, layer, jacobian, points, probe, plan)
            _windows(state, layer, jacobian, points, probe, plan)
            _spectra(state, layer, jacobian, points, plan)
    _representations(state, model, probe, plan, full)
    return state


def _two_minors(state: State, layer: str, jacobian: LayerJacobian, points: np.ndarray, probe: Probe, plan: Plan, full: bool) -> None:
    if 2 not in plan.k or min(jacobian.shape) < 2:
        return
    chosen = all_selections(probe.image_shape)
    visited = min(plan.visited_points, len(points)) if full else 0
    parts: list[tuple[slice, list[Moments]]] = []
    if visited:  # every minor looked at: entropy, histogram and top as well
        dense = jacobian.dense(slice(0, visited))
        parts.append((slice(0, visited), _moments(dense, chosen, probe, "all")))
    rest = slice(visited, len(points))
    if isinstance(jacobian, FactoredJacobian):
        wanted = (*SUMS, "entropy", "top") if full else SUMS
        if visited < len(points):
            table = kag.FactoredMoments(jacobian.W, 2, chosen, image_shape=probe.image_shape, moments=wanted)
            parts.append((rest, table.at(jacobian.d[rest])))
    elif visited < len(points):
        parts.append((rest, _moments(jacobian.dense(rest), chosen, probe, SUMS)))
    for part, moments in parts:
        J = jacobian.dense(part)
        haar = kag.haar_mean_s1(J, 2, chosen, image_shape=probe.image_shape)
        for selection, found, mean in zip(chosen, moments, haar, strict=True):
            _record(state, layer, 2, str(selection), points[part], found)
            with np.errstate(invalid="ignore", divide="ignore"):
                ratio = np.asarray(mean) / np.asarray(found.s1)
            state.add((layer, 2, str(selection), "rr_pr"), points[part], np.where(np.asarray(found.s1) > 0, ratio, np.nan))
            if part.start == 0 and visited:
                state.visited[layer, 2, str(selection)] = found
    if full:
        state.row_means[layer, 2] = kag.row_means(jacobian.dense(slice(0, visited)), 2)
        some = slice(0, min(plan.rotation_points, len(points)))
        for point, J in zip(points[some], jacobian.dense(some), strict=True):
            value, stderr = _rotation_max(J, plan.rotations)
            state.add((layer, 2, "all", "rr_max"), [point], value, stderr, exact=False)


def _rotation_max(J: np.ndarray, rotations: int) -> tuple[float, float]:
    from kagscope.minors.haar import rotation_ratio_estimate

    estimate = rotation_ratio_estimate(np.ascontiguousarray(J), 2, "max", rotations=rotations, seed=0)
    return float(estimate[0]), float(estimate[1])


def _one_minors(state: State, layer: str, jacobian: LayerJacobian, points: np.ndarray, plan: Plan) -> None:
    J = jacobian.dense()
    state.row_means[layer, 1] = kag.row_means(J, 1)
    if 1 not in plan.k:
        return
    found = kag.minor_moments(J, 1)
    _record(state, layer, 1, "all", points, found)
    state.visited[layer, 1, "all"] = found
    state.add((layer, 1, "all", "rr_pr"), points, kag.haar_mean_s1(J, 1) / np.where(found.s1 > 0, found.s1, np.nan))


def _three_minors(state: State, layer: str, jacobian: LayerJacobian, points: np.ndarray, probe: Probe, plan: Plan) -> None:
    some = slice(0, min(plan.k3_points, len(points)))
    chosen = all_selections(probe.image_shape)
    J = jacobian.dense(some)
    small = J.shape[2] <= 64 and J.shape[1] <= 32  # every triple is visited within a second a point
    options: dict[str, Any] = {"rel_error": plan.k3_rel_error, "image_shape": probe.image_shape, "method": "auto" if small else "sampled"}
    for selection, found in zip(chosen, kag.minor_moments(J, 3, chosen, **options), strict=True):
        _record(state, layer, 3, str(selection), points[some], found)
    if J.shape[1] <= 32:
        state.row_means[layer, 3] = kag.row_means(J[:2], 3)


def _moments(J: np.ndarray, chosen: Sequence[kag.Selection], probe: Probe, wanted: Any) -> list[Moments]:
    return kag.minor_moments(J, 2, list(chosen), image_shape=probe.image_shape, moments=wanted, method="exact")


def _record(state: State, layer: str, k: int, selection: str, points: np.ndarray, found: Moments) -> None:
    """The scores that these moments allow, with their standard errors."""
    present = set(found.sums)
    wanted = [s for s in MOMENT_SCORES if (s != "kl_uniform" or "entropy" in present)]
    empty = "undefined: no column subset in this selection" if found.count == 0 else "undefined: every minor is zero"
    errors = found.stderr
    for score in wanted:
        attribute = ATTRIBUTES[score]
        exact = found.exact
        state.add((layer, k, selection, score), points, getattr(found, attribute), errors.get(attribute, 0.0), exact, empty)
    if found.hist is not None:
        state.add((layer, k, selection, "near_zero"), points, found.near_zero, scores.near_zero_error(found), found.exact, empty)
    if "top" in present:
        state.add((layer, k, selection, "top"), points, found.top, 0.0 if found.exact else np.nan, found.exact, empty)
    rows = found.count
    state.add((layer, k, selection, "count"), points, np.full(len(points), float(rows)), 0.0, True)


def _windows(state: State, layer: str, jacobian: LayerJacobian, points: np.ndarray, probe: Probe, plan: Plan) -> None:
    if 2 not in plan.k or min(jacobian.shape) < 2:
        return
    some = slice(0, min(plan.window_points, len(points)))
    centers = window_centers(probe.image_shape, plan.window_grid)
    radius = scales(probe.image_shape)[0]
    found = kag.window_moments(jacobian.dense(some), centers, radius, probe.image_shape)
    for center, moments in zip(centers, found, strict=True):
        name = str(kag.Window((int(center[0]), int(center[1])), radius))
        state.add((layer, 2, name, "pr"), points[some], moments.participation_ratio)


def _spectra(state: State, layer: str, jacobian: LayerJacobian, points: np.ndarray, plan: Plan) -> None:
    J = jacobian.dense()
    for score in ("axis_alignment", "effective_rank", "stable_rank", "sv_participation"):
        state.add((layer, 0, "all", score), points, getattr(scores, score)(J), reason="undefined: the Jacobian is zero")
    some = slice(0, min(plan.visited_points, len(points)))
    state.add(
        (layer, 1, "all", "column_divergence"), points[some], kag.column_divergence(J[some], 1), reason="undefined: fewer than two nonzero columns"
    )


def _representations(state: State, model: nn.Sequential, probe: Probe, plan: Plan, full: bool) -> None:
    some = choose_points(len(probe.inputs), plan.layer_points)
    state.activations = hidden_activations(model, probe.inputs[some])
    constant = "undefined: the activations are constant"
    for layer, A in state.activations.items():
        state.add((layer, 0, "all", "kernel_alignment"), [-1], kernel_alignment(A, probe.labels[some]), reason=constant)
        state.add((layer, 0, "all", "effective_dimension"), [-1], effective_dimension(A), reason=constant)
        if full:
            value = intrinsic_dimension(A)
            state.add((layer, 0, "all", "intrinsic_dimension"), [-1], value, exact=True, reason="undefined: too few distinct activations")


def compare(state: State, initial: State, plan: Plan, model: nn.Sequential, probe: Probe, *, full: bool) -> pd.DataFrame:
    """Rows of the results table (score columns of :mod:`kagscope.schema`): each score beside the initial net's at the same point."""
    rows = [
        _rows(key, found, _baseline(key, found, initial)) for key, found in (state.scores | _against_initial(state, initial, plan)).items()
    ]
    if full:
        rows += _constant_units(model, initial, probe, plan)
    table = pd.concat(rows, ignore_index=True)
    return table.astype(SCORE_COLUMNS)[list(SCORE_COLUMNS)]


def _baseline(key: tuple[str, int, str, str], found: Any, initial: State) -> np.ndarray:
    if key not in initial.scores:
        return np.full(len(found[1]), np.nan)
    known = pd.Series(initial.scores[key][1], index=initial.scores[key][0])
    return known.reindex(found[0]).to_numpy()


def _rows(key: tuple[str, int, str, str], found: Any, baseline: np.ndarray) -> pd.DataFrame:
    layer, k, selection, score = key
    points, values, stderr, exact, reason = found
    with np.errstate(invalid="ignore", divide="ignore"):
        # Exactly 1 where trained equals initial, and undefined rather than infinite over a zero baseline.
        ratio = np.where(baseline != 0, values / baseline, np.nan)
    return pd.DataFrame(
        {
            "layer": layer,
            "k": k,
            "selection": selection,
            "point": points,
            "score": score,
            "value": values,
            "baseline": baseline,
            "ratio": ratio,
            "stderr": stderr,
            "exact": exact,
            "reason": np.where(np.isnan(values), reason, ""),
        }
    )


def _against_initial(state: State, initial: State, plan: Plan) -> dict[tuple[str, int, str, str], Any]:
    """Scores that need the initial net for their definition: kl_init, zero rows below its quantile, cka_init."""
    extra = State()
    for (layer, k, selection), found in state.visited.items():
        before = initial.visited.get((layer, k, selection))
        points = state.scores[layer, k, selection, "pr"][0][: len(found)]
        if before is not None and found.hist is not None and before.hist is not None and len(before) >= len(found):
            value = [scores.kl_init(found[i], before[i]) for i in range(len(found))]
            extra.add((layer, k, selection, "kl_init"), points, value)
    for (layer, k), means in state.row_means.items():
        before_means = initial.row_means[layer, k]
        points = state.scores[layer, 1 if (layer, 1, "all", "pr") in state.scores else k, "all", "pr"][0][: len(means)]
        threshold = np.quantile(before_means, plan.zero_row_quantile)
        extra.add((layer, k, "all", "zero_rows"), points, (means <= threshold).mean(axis=1))
        extra.add((layer, k, "all", "zero_rows_exact"), points, (means == 0).mean(axis=1))
        for name, limit in (("zero_rows", threshold), ("zero_rows_exact", 0.0)):
            initial.scores[layer, k, "all", name] = (points, (before_means[: len(means)] <= limit).mean(axis=1), np.zeros(len(means)), True, "")
    for layer, A in state.activations.items():
        extra.add((layer, 0, "all", "cka_init"), [-1], debiased_cka(A, initial.activations[layer]), reason="undefined: constant activations")
        initial.scores[layer, 0, "all", "cka_init"] = (np.array([-1]), np.ones(1), np.zeros(1), True, "")
    return extra.scores


def _constant_units(model: nn.Sequential, initial: State, probe: Probe, plan: Plan) -> list[pd.DataFrame]:
    """Units whose Jacobian row vanishes at every test point, units the output does not feel, and what removing the former changes."""
    some = choose_points(len(probe.inputs), plan.layer_points)
    inputs = probe.inputs[some]
    jacobians, slopes = hidden_layer_jacobians(model, inputs), output_slopes(model, inputs)
    masks: dict[str, np.ndarray] = {}
    rows: list[pd.DataFrame] = []
    for layer, jacobian in jacobians.items():
        norms = jacobian.row_norms()
        threshold = np.quantile(initial.row_means[layer, 1], plan.zero_row_quantile)
        # Exactly constant first: only those may be removed without any tolerance.
        masks[layer] = (norms == 0).all(axis=0)
        for score, share in (
            ("constant_units", (norms <= threshold).all(axis=0).mean()),
            ("constant_units_exact", masks[layer].mean()),
            ("locally_constant_share", (norms <= threshold).mean()),
            ("unfelt_units", (slopes[layer] == 0).all(axis=0).mean()),
        ):
            rows.append(_rows((layer, 0, "all", score), ([-1], np.array([share]), np.zeros(1), True, ""), np.array([np.nan])))
    near = {layer: (j.row_norms() <= np.quantile(initial.row_means[layer, 1], plan.zero_row_quantile)).all(axis=0) for layer, j in jacobians.items()}
    for score, chosen in (("prune_change", near), ("prune_change_exact", masks)):
        _, pruning = remove_units(model.double(), inputs.double(), chosen)
        rows.append(_rows(("", 0, "all", score), ([-1], np.array([pruning.largest_change]), np.zeros(1), True, ""), np.array([np.nan])))
    return rows


def curves(state: State) -> pd.DataFrame:
    """Distributions averaged over points (curve columns of :mod:`kagscope.schema`): Zipf of row means, histogram of the minors."""
    parts = [_zipf(layer, k, means) for (layer, k), means in state.row_means.items()]
    parts += [_histogram(key, found) for key, found in state.visited.items() if found.hist is not None]
    return pd.concat(parts, ignore_index=True)


def _zipf(layer: str, k: int, means: np.ndarray) -> pd.DataFrame:
    """Row means over their overall mean, by rank; thinned to at most ``ZIPF_RANKS`` geometric ranks, the first and last kept."""
    falling = -np.sort(-means, axis=1)
    overall = falling.mean(axis=1, keepdims=True)
    mean = np.divide(falling, overall, out=np.zeros_like(falling), where=overall > 0).mean(axis=0)
    ranks = np.unique(np.geomspace(1, len(mean), min(ZIPF_RANKS, len(mean))).round().astype(int))
    return pd.DataFrame({"layer": layer, "k": k, "selection": "all", "curve": "zipf", "x": ranks.astype(float), "y": mean[ranks - 1]})


def _histogram(key: tuple[str, int, str], found: Moments) -> pd.DataFrame:
    """Fractions in bins of log2(M / mean M), 1/8 wide; the mean is rounded to a bin, exact zeros stand at -inf."""
    layer, k, selection = key
    total: dict[float, float] = {-np.inf: 0.0}
    measured = 0
    for i in range(len(found)):
        one = found[i]
        first, counts, zeros = one.histogram
        if not one.s1 > 0:
            continue
        measured += 1
        shift = round(8 * float(np.log2(one.s1 / one.count)))
        for index in np.flatnonzero(np.atleast_2d(counts)[0]):
            x = (int(np.ravel(first)[0]) + int(index) - shift) / 8
            total[x] = total.get(x, 0.0) + float(np.atleast_2d(counts)[0][index]) / one.count
        total[-np.inf] += float(np.ravel(zeros)[0]) / one.count
    xs = sorted(total)
    ys = [total[x] / max(measured, 1) for x in xs]
    return pd.DataFrame({"layer": layer, "k": k, "selection": selection, "curve": "histogram", "x": xs, "y": ys})
