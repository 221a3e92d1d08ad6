"""Scores of a layer of which only some rows were drawn, from those rows, with their standard errors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from kagscope.base.reasons import ROWS_DRAWN
from kagscope.measuring.state import LayerState, Values
from kagscope.minors.moments import Moments
from kagscope.minors.plan import Estimate
from kagscope.minors.row_draws import PARTS, RowDraws, jackknife
from kagscope.registry import Score

Pair = tuple[np.ndarray, np.ndarray]
"""Values and their standard errors, NaN where these are not known."""


def ratio_to_haar(one: Score, moments: Moments, haar: np.ndarray, left: np.ndarray | None) -> Pair:
    """A score of moments and Haar means of S1, both of the whole layer; (B,) and, without a part of the groups, (parts, B)."""
    whole = np.asarray(one.function(moments, Estimate(haar, 0.0)))
    if left is None:
        return jackknife(whole, None)
    without = one.function(moments.left_out(one.moments, PARTS), Estimate(left.T.ravel(), 0.0))
    value, error = jackknife(whole, np.asarray(without).reshape(-1, PARTS).T)
    return value, np.where(moments.are_unknown(one.moments), np.nan, error)


def of_row_means(state: LayerState, k: int, score: Callable[..., Any], initial: LayerState | None = None) -> Pair:
    """A score of the row means of the k-minor matrix, and of those of the same rows of the baseline."""
    means = [state.row_means[k], *([] if initial is None else [initial.row_means[k]])]
    if state.drawn is None:
        return score(*means), np.zeros(len(means[0]))
    return state.drawn.share(lambda some: score(*(rows_of(state.drawn, one, some) for one in means)))


def of_row_norms(state: LayerState, score: Score, threshold: Callable[[Any], float] | None = None) -> Pair:
    """A score of what units do at every point, at or below ``threshold`` of some groups; counts are those of all units."""
    norms, drawn = state.row_norms, state.drawn
    assert norms is not None
    assert drawn is not None

    def share(some: np.ndarray) -> float:
        rows = drawn.groups[some].ravel()
        given = () if threshold is None else (threshold(some),)
        return float(score.function(norms[:, rows], *given)) / (1 if score.fraction else len(rows))

    value, error = drawn.share(share)
    times = 1 if score.fraction else drawn.units
    return times * value, times * error


def rows_of(drawn: RowDraws | None, means: np.ndarray, some: np.ndarray | None) -> np.ndarray:
    """(P, rows) row means of some groups; all of them where ``some`` is None."""
    if drawn is None or some is None:
        return means
    return means.reshape(len(means), len(drawn.groups), -1)[:, some].reshape(len(means), -1)


def unknown_score(drawn: RowDraws | None, items: Any) -> Values:
    """A score of the layer that the rows that were drawn do not tell."""
    assert drawn is not None
    reason = ROWS_DRAWN.format(rows=len(drawn.rows), units=drawn.units)
    return Values.of(items, np.full(len(items), np.nan), np.nan, False, reason)
