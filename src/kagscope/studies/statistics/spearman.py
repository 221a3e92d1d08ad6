"""Rank correlations over networks, plain and with other columns held fixed."""

from __future__ import annotations

import numpy as np
from scipy import stats

from kagscope.studies.statistics.student import Array

RESAMPLES = 1000


def correlate(values: Array) -> dict[str, float]:
    """Spearman's rank correlation of two columns, and the same with further columns held fixed.

    Intervals are percentiles of a bootstrap over rows (Efron & Tibshirani 1993, chapter 13); the p-value comes from Student's t
    approximation. The partial correlation removes what the ranks of the further columns explain linearly.

    Args:
        values: (n, 2 + held), a row for each net; no NaN.

    Returns:
        ``n``, ``rho``, ``rho_low``, ``rho_high``, ``p_value``, ``partial``, ``partial_low``, ``partial_high``; the last three NaN
        where nothing is held.
    """
    draws = np.random.default_rng(0).integers(len(values), size=(RESAMPLES, len(values)))
    (plain,), (partial,) = rank_correlations(values[None])
    low, high = np.nanquantile(rank_correlations(values[draws]), [0.025, 0.975], axis=1)
    p_value = float(stats.spearmanr(values[:, 0], values[:, 1]).pvalue)
    found = {"n": len(values), "rho": plain, "rho_low": low[0], "rho_high": high[0], "p_value": p_value}
    if values.shape[1] == 2:
        return found | dict.fromkeys(("partial", "partial_low", "partial_high"), np.nan)
    return found | {"partial": partial, "partial_low": low[1], "partial_high": high[1]}


def rank_correlations(samples: Array) -> Array:
    """Spearman's correlation of the first two columns, and that of the residuals of their ranks given the ranks of the others.

    Args:
        samples: (S, n, 2 + held).

    Returns:
        (2, S); NaN where a column is constant or the others explain it wholly.
    """
    ranks = stats.rankdata(samples, axis=1)
    ranks -= ranks.mean(axis=1, keepdims=True)
    pair, others = ranks[..., :2], ranks[..., 2:]
    found = [_correlations(pair)]
    explained = others @ (np.linalg.pinv(others) @ pair) if others.shape[2] else 0.0
    return np.stack([*found, _correlations(pair - explained)])


def _correlations(pair: Array) -> Array:
    sizes = np.sqrt((pair**2).sum(axis=1).prod(axis=1))
    together = (pair[..., 0] * pair[..., 1]).sum(axis=1)
    return np.divide(together, sizes, out=np.full(len(pair), np.nan), where=sizes > 1e-9)
