"""Estimate scores of a layer from a random sample of its rows, with standard errors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from kagscope.base.reasons import ROWS_DRAWN
from kagscope.measuring.state import WHOLE, LayerState, Values
from kagscope.minors.moments import Moments
from kagscope.minors.plan import Estimate
from kagscope.minors.row_draws import PARTS, RowDraws, jackknife
from kagscope.registry import Score

Pair = tuple[np.ndarray, np.ndarray]
"""Values and their standard errors, NaN where unknown."""


def ratio_to_haar(score: Score, moments: Moments, haar: np.ndarray, left_out: np.ndarray | None) -> Pair:
    """Score of the layer's moments and Haar means of S1: (B,), with jackknife errors from ``left_out`` (parts, B)."""
    whole = np.asarray(score.function(moments, Estimate(haar, 0.0)))
    if left_out is None:
        return jackknife(whole, None)
    without = score.function(moments.leave_one_out(score.moments, PARTS), Estimate(left_out.T.ravel(), 0.0))
    value, error = jackknife(whole, np.asarray(without).reshape(-1, PARTS).T)
    return value, np.where(moments.are_unknown(score.moments), np.nan, error)


def score_row_means(state: LayerState, k: int, score: Callable[..., Any], initial: LayerState | None = None) -> Pair:
    """Score of the row means of the k-minor matrix, and of the baseline's for the same rows if given."""
    means = [state.row_means[k], *([] if initial is None else [initial.row_means[k]])]
    if state.drawn is None:
        return score(*means), np.zeros(len(means[0]))
    return state.drawn.estimate_share(lambda groups: score(*(select_groups(state.drawn, rows, groups) for rows in means)))


def score_row_norms(state: LayerState, score: Score, threshold: Callable[[Any], float] | None = None) -> Pair:
    """Score of the row norms at every point, given ``threshold`` of groups if any; counts are scaled to all units."""
    norms, drawn = state.row_norms, state.drawn
    assert norms is not None
    assert drawn is not None

    def share(groups: np.ndarray) -> float:
        rows = drawn.groups[groups].ravel()
        extra = () if threshold is None else (threshold(groups),)
        return float(score.function(norms[:, rows], *extra)) / (1 if score.fraction else len(rows))

    value, error = drawn.estimate_share(share)
    factor = 1 if score.fraction else drawn.units
    return factor * value, factor * error


def score_layer(
    state: LayerState, score: Score, available: Mapping[str, Any], threshold: Callable[[Any], float] | None = None
) -> Values | None:
    """A score over all items of a layer; None if something that it takes is not ``available``.

    Args:
        state: state of the layer.
        score: what to compute.
        available: what scores take, by name; None for what is not known.
        threshold: of row norms that were drawn, given groups of rows.
    """
    if any(available.get(name) is None for name in score.takes):
        return None
    if state.drawn is None or not score.is_of("row_norms", "output_slopes"):
        return Values.of([WHOLE], score.function(*(available[name] for name in score.takes)), reason=score.undefined)
    if score.is_of("row_norms"):
        return Values.of([WHOLE], *score_row_norms(state, score, threshold), False, score.undefined)
    return undefined_score(state.drawn, [WHOLE])


def select_groups(drawn: RowDraws | None, means: np.ndarray, groups: np.ndarray | None) -> np.ndarray:
    """Row means (P, rows) of some groups; of all if ``groups`` is None."""
    if drawn is None or groups is None:
        return means
    return means.reshape(len(means), len(drawn.groups), -1)[:, groups].reshape(len(means), -1)


def undefined_score(drawn: RowDraws | None, items: Any) -> Values:
    """NaN, with the reason, for a score that cannot be estimated from drawn rows."""
    assert drawn is not None
    reason = ROWS_DRAWN.format(rows=len(drawn.rows), units=drawn.units)
    return Values.of(items, np.full(len(items), np.nan), np.nan, False, reason)
