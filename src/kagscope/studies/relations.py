"""Correlations of geometry with performance, over the seeds within settings."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations

import numpy as np
import pandas as pd

from kagscope.studies.claims.parts import too_few
from kagscope.studies.nets import Nets
from kagscope.studies.statistics.bootstrap import defined_means
from kagscope.studies.statistics.multiple_testing import step_down
from kagscope.studies.statistics.permutation import ENUMERATED, fewest_pairs, two_sided
from kagscope.studies.statistics.student import Array, Estimate, t_interval
from kagscope.tables.schema import ALPHA

SCORES = ("pr", "kl_uniform", "rr_pr", "zero_rows", "axis_alignment", "effective_rank", "kernel_alignment", "constant_share")
FEWEST = fewest_pairs(ALPHA)  # seeds needed in a setting
TEST = "permutation of seeds within settings"


def relations(nets: Nets, scores: Sequence[str] = SCORES, outcomes: Sequence[str] = ()) -> pd.DataFrame:
    """Correlation of each score with each outcome over the nets of the same setting.

    Scores are those of the trained net over the whole image, for pairs (zero rows for single units), as :class:`Nets` compares
    them with initialisation. Both sides are centred within settings, so that the axes of the study cannot correlate
    them, whether their effects add or interact. The test permutes seeds, in all settings alike (nets of one seed are one
    observation), and corrects for all pairs of the table by step-down max T (Westfall & Young 1993). Intervals: Fisher's z,
    jackknifed over seeds, Student's t. A correlation is not an effect of geometry.

    Args:
        nets: of a study.
        scores, outcomes: names chosen beforehand; by default all outcomes that differ among the runs.

    Returns:
        One row per score (layer, k, score, measure) and outcome: ``n`` (seeds), ``settings``, ``rho``, ``rho_low``,
        ``rho_high``, ``p_value``, ``p_joint``, ``p_least``, ``test``, and ``reason`` if undefined, as with fewer than
        five seeds in every setting.
    """
    keys = nets.keys
    is_chosen = keys["score"].isin(scores) & (keys["selection"] == "all")
    is_chosen &= (keys["k"].isin([0, 2]) & (keys["score"] != "zero_rows")) | ((keys["k"] == 1) & (keys["score"] == "zero_rows"))
    x_rows = np.flatnonzero(is_chosen & (keys["kind"] != "outcome"))
    y_rows = np.flatnonzero((keys["kind"] == "outcome") & (keys["score"].isin(outcomes) if len(outcomes) else True))
    if not x_rows.size or not y_rows.size:
        return pd.DataFrame()
    grid = _seed_means(nets, [*x_rows, *y_rows])
    columns = ["layer", "k", "score", "measure"]
    names = keys["score"].tolist()
    pairs = [key | {"outcome": names[j]} for key in keys[columns].iloc[x_rows].to_dict("records") for j in y_rows]
    table = pd.DataFrame(pairs).assign(n=grid.shape[2], settings=grid.shape[1], test=TEST)
    if grid.shape[2] < FEWEST:
        numbers = dict.fromkeys(("rho", "rho_low", "rho_high", "p_value", "p_joint", "p_least"), np.nan)
        return table.assign(**numbers, reason=_missing_seeds_note(nets))
    x, y = grid[: x_rows.size], grid[x_rows.size :]
    draws = _draws(x, y)
    rho, low, high = _intervals(x, y)
    measured = {"rho": rho, "rho_low": low, "rho_high": high, "p_value": two_sided(draws), "p_joint": step_down(draws)}
    table = table.assign(**measured, p_least=1 / len(draws), reason="")
    flat = table["rho"].isna()
    return table.assign(
        p_value=table["p_value"].mask(flat), p_joint=table["p_joint"].mask(flat), reason=np.where(flat, "does not vary", "")
    )


def _missing_seeds_note(nets: Nets) -> str:
    """Reason why there are not enough seeds."""
    seed_count = int(pd.Series(nets.runs["seed"]).groupby(nets.codes(nets.axes)).nunique().max())
    note = too_few(seed_count)
    return f"{note} (in a setting)" if note else f"fewer than {FEWEST} seeds are common to the settings that have so many"


def _seed_means(nets: Nets, rows: Sequence[int]) -> Array:
    """(rows, settings, seeds) means of nets, NaN where undefined, for settings with five seeds and their common seeds."""
    setting, seeds = nets.codes(nets.axes), np.unique(nets.runs["seed"])
    seed = np.searchsorted(seeds, nets.runs["seed"])
    count = np.zeros((int(setting.max()) + 1, seeds.size))
    np.add.at(count, (setting, seed), 1)
    values = nets.means[list(rows)]
    means = np.full((len(rows), *count.shape), np.nan)
    for s, j in np.argwhere(count > 0):
        means[:, s, j] = defined_means(values[:, (setting == s) & (seed == j)])
    enough = (count > 0).sum(axis=1) >= FEWEST
    common = (count[enough] > 0).all(axis=0) & enough.any()
    return np.asarray(means[:, enough][:, :, common])


def _centre(values: Array) -> Array:
    """Subtract the mean of each setting over the last axis, the seeds; undefined values become 0."""
    defined = np.isfinite(values)
    filled = np.where(defined, values, 0.0)
    means = filled.sum(axis=-1, keepdims=True) / np.maximum(defined.sum(axis=-1, keepdims=True), 1)
    return np.where(defined, values - means, 0.0)


def _draws(x: Array, y: Array) -> Array:
    """Sums of products over settings and seeds with the seeds of one side permuted, (draws, pairs)."""
    n = x.shape[2]
    first, second = _centre(x).reshape(len(x), -1), _centre(y)
    if n <= 7:
        orders = np.array(list(permutations(range(n))))
    else:
        orders = np.random.default_rng(0).permuted(np.tile(np.arange(n), (ENUMERATED, 1)), axis=1)
        orders[0] = np.arange(n)
    return np.stack([(first @ second[:, :, order].reshape(len(y), -1).T).ravel() for order in orders])


def _correlations(x: Array, y: Array) -> Array:
    """(pairs,) correlations; NaN if a side does not vary within settings."""
    first, second = (_centre(values).reshape(len(values), -1) for values in (x, y))
    sizes = np.outer((first**2).sum(axis=1), (second**2).sum(axis=1)) ** 0.5
    return np.divide(first @ second.T, sizes, out=np.full(sizes.shape, np.nan), where=sizes > 1e-30).ravel()


def _intervals(x: Array, y: Array) -> tuple[Array, Array, Array]:
    n = x.shape[2]
    rho = _correlations(x, y)
    z = _fisher(np.stack([_correlations(np.delete(x, j, axis=2), np.delete(y, j, axis=2)) for j in range(n)]))
    error = np.sqrt((n - 1) / n * ((z - z.mean(axis=0)) ** 2).sum(axis=0))
    low, high = t_interval(Estimate(_fisher(rho), error, n - 1))
    return rho, np.tanh(low), np.tanh(high)


def _fisher(rho: Array) -> Array:
    return np.arctanh(np.clip(rho, -1 + 1e-9, 1 - 1e-9))
