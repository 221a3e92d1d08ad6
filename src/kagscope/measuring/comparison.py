"""A network's :class:`~kagscope.measuring.states.State` beside that of the same network at initialisation, as rows of results."""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch

from kagscope.measuring.states import WHOLE, Key, State, Values
from kagscope.minors import moment_scores
from kagscope.minors.moments import Moments
from kagscope.scores.of_representations import debiased_cka
from kagscope.tables.schema import SCORE_COLUMNS

ZIPF_RANKS = 200
ROUNDING = float(torch.finfo(torch.float32).eps)
CONSTANT = "undefined: the activations are constant"

KEY = ("layer", "k", "selection", "score")
Scores = dict[Key, Values]


def compare(state: State, initial: State | None, quantile: float) -> pd.DataFrame:
    """Rows of the results table (:data:`kagscope.tables.schema.SCORE_COLUMNS`): each score beside the initial net's.

    Args:
        state: of the network.
        initial: of the same network at initialisation, measured at the same points or more; None leaves baselines undefined, and
            whatever is counted against its thresholds out.
        quantile: of the initial net's rows; rows at or below it count as zero rows (MATH.md section 3).
    """
    if initial is None:
        return as_rows(state.scores | _exactly_zero(state), {})
    limits = _Limits(initial, quantile)
    measured = state.scores | _kl_init(state, initial) | _cka_init(state, initial) | limits.scores(state)
    baseline = initial.scores | _kl_init(initial, initial) | _cka_init(initial, initial) | limits.scores(initial)
    return as_rows(measured, baseline)


def rounding_only(slopes: np.ndarray) -> np.ndarray:
    """(m,) units whose slope (N, m) is, at every point, below the rounding of float32 relative to the layer's largest."""
    return np.asarray((slopes <= ROUNDING * slopes.max()).all(axis=0))


class _Limits:
    """Thresholds that the initial net sets, and the scores that count what lies at or below them."""

    def __init__(self, initial: State, quantile: float) -> None:
        self.rows = {key: float(np.quantile(means, quantile)) for key, means in initial.row_means.items()}
        self.slopes = {layer: float(np.quantile(slopes, quantile)) for layer, slopes in initial.output_slopes.items()}

    def constant(self, norms: np.ndarray, layer: str) -> np.ndarray:
        """(m,) units whose row is a zero row at every point."""
        return np.asarray((norms <= self.rows[layer, 1]).all(axis=0))

    def scores(self, state: State) -> Scores:
        found: Scores = {}
        for (layer, k), means in state.row_means.items():
            points = state.points[: len(means)]
            found[layer, k, "all", "zero_rows"] = Values.of(points, (means <= self.rows[layer, k]).mean(axis=1))
        for layer, norms in state.row_norms.items():
            found[layer, 0, "all", "constant_units"] = Values.of([WHOLE], self.constant(norms, layer).sum())
            found[layer, 0, "all", "constant_share"] = Values.of([WHOLE], (norms <= self.rows[layer, 1]).mean())
        for layer, slopes in state.output_slopes.items():
            unfelt = slopes <= self.slopes[layer]
            found[layer, 0, "all", "unfelt_units"] = Values.of([WHOLE], unfelt.all(axis=0).sum())
            found[layer, 0, "all", "unfelt_share"] = Values.of([WHOLE], unfelt.mean())
        return found | _exactly_zero(state)


def _exactly_zero(state: State) -> Scores:
    """What needs no threshold: rows of zeros, and units whose slope is lost in rounding at every point."""
    found: Scores = {}
    for (layer, k), means in state.row_means.items():
        found[layer, k, "all", "zero_rows_exact"] = Values.of(state.points[: len(means)], (means == 0).mean(axis=1))
    for layer, norms in state.row_norms.items():
        found[layer, 0, "all", "constant_units_exact"] = Values.of([WHOLE], rounding_only(norms).sum())
    return found


def _kl_init(state: State, initial: State) -> Scores:
    found: Scores = {}
    for (layer, k, selection), moments in state.visited.items():
        before = initial.visited.get((layer, k, selection))
        if before is not None:
            values = [moment_scores.kl_init(one, other) for one, other in zip(moments, before, strict=False)]
            found[layer, k, selection, "kl_init"] = Values.of(state.points[: len(values)], values)
    return found


def _cka_init(state: State, initial: State) -> Scores:
    return {
        (layer, 0, "all", "cka_init"): Values.of([WHOLE], debiased_cka(A, initial.activations[layer]), reason=CONSTANT)
        for layer, A in state.activations.items()
    }


def as_rows(measured: Scores, baseline: Scores) -> pd.DataFrame:
    """One row per score and point. The ratio is exactly 1 where trained equals initial, undefined over a zero baseline."""
    keys = list(measured)
    if not keys:
        return pd.DataFrame(columns=list(SCORE_COLUMNS)).astype(SCORE_COLUMNS)
    sizes = [len(measured[key].values) for key in keys]
    value = np.concatenate([measured[key].values for key in keys])
    before = np.concatenate([_at(measured[key].points, baseline.get(key)) for key in keys])
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio = np.where(before != 0, value / before, np.nan)
    reason = np.repeat(np.array([measured[key].reason for key in keys], dtype=object), sizes)
    columns = {name: np.repeat(np.array([key[place] for key in keys], dtype=object), sizes) for place, name in enumerate(KEY)}
    table = pd.DataFrame(
        {
            **columns,
            "point": np.concatenate([measured[key].points for key in keys]),
            "value": value,
            "baseline": before,
            "ratio": ratio,
            "stderr": np.concatenate([measured[key].stderr for key in keys]),
            "baseline_stderr": np.where(np.isnan(before), np.nan, 0.0),
            "exact": np.repeat([measured[key].exact for key in keys], sizes),
            "reason": np.where(np.isnan(value), reason, ""),
        }
    )
    return table.astype(SCORE_COLUMNS)[list(SCORE_COLUMNS)]


def _at(points: np.ndarray, before: Values | None) -> np.ndarray:
    """The baseline at ``points``; NaN where it was not measured."""
    if before is None:
        return np.full(len(points), np.nan)
    if np.array_equal(before.points[: len(points)], points):
        return before.values[: len(points)]
    return pd.Series(before.values, index=before.points).reindex(points).to_numpy()


def curves(state: State) -> pd.DataFrame:
    """Distributions averaged over points (:data:`kagscope.tables.schema.CURVE_COLUMNS`): row means by rank, sizes of minors."""
    parts = [_zipf(layer, k, means) for (layer, k), means in state.row_means.items()]
    parts += [_histogram(key, found) for key, found in state.visited.items()]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=["layer", "k", "selection", "curve", "x", "y"])


def _zipf(layer: str, k: int, means: np.ndarray) -> pd.DataFrame:
    """Row means over their overall mean, by rank; thinned to at most ``ZIPF_RANKS`` geometric ranks, the first and last kept."""
    falling = -np.sort(-means, axis=1)
    overall = falling.mean(axis=1, keepdims=True)
    mean = np.divide(falling, overall, out=np.zeros_like(falling), where=overall > 0).mean(axis=0)
    ranks = np.unique(np.geomspace(1, len(mean), min(ZIPF_RANKS, len(mean))).round().astype(int))
    return pd.DataFrame(
        {"layer": layer, "k": k, "selection": "all", "curve": "zipf", "x": ranks.astype(float), "y": mean[ranks - 1]}
    )


def _histogram(key: tuple[str, int, str], found: list[Moments]) -> pd.DataFrame:
    """Fractions in bins of log2(M / mean M), 1/8 wide; the mean is rounded to a bin, exact zeros stand at -inf."""
    layer, k, selection = key
    total: dict[float, float] = {-np.inf: 0.0}
    measured = 0
    for one in found:
        if not one.s1 > 0:
            continue
        measured += 1
        first, counts, zeros = one.histogram
        shift = round(8 * float(np.log2(one.s1 / one.count)))
        for index in np.flatnonzero(counts):
            x = (first + int(index) - shift) / 8
            total[x] = total.get(x, 0.0) + float(counts[index]) / one.count
        total[-np.inf] += float(zeros) / one.count
    xs = sorted(total)
    ys = [total[x] / max(measured, 1) for x in xs]
    return pd.DataFrame({"layer": layer, "k": k, "selection": selection, "curve": "histogram", "x": xs, "y": ys})
