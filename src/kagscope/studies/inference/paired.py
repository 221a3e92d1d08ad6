"""Paired differences, one per seed: tests, effects and intervals of many numbers at once.

The seed is the unit of all evidence. Nets of one seed start from the same random numbers (a narrow net's weights are a wide
net's first), so nets that share a seed are averaged before anything is tested.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd

from kagscope.studies.nets import RATIO, Block, Indices, Nets
from kagscope.studies.statistics.bootstrap import defined_means, hierarchical_bootstrap
from kagscope.studies.statistics.multiple_testing import holm_within, step_down
from kagscope.studies.statistics.permutation import flip_draws, two_sided
from kagscope.studies.statistics.student import Array, mean_of, t_test

FEWEST_EXACT = 6  # seeds: below, the exact test cannot reach 5% on two sides
RESAMPLES = 1000
ROUNDED = 1e-12  # differences, also of logarithms, that are rounding in every seed
FLIPS, STUDENT = "sign flips of the mean over seeds", "paired t over seeds"
SAME, EQUAL, ONE = "no difference in any net", "the difference is the same in every seed", "one seed"


def seed_values(nets: Nets, runs: Indices, values: Array) -> Array:
    """Mean over the nets of each seed at each point: (keys, runs, points) to (keys, seeds, points); NaN left out.

    Args:
        nets: of the study.
        runs: (runs,) nets of ``values``; seeds are returned ascending.
        values: numbers, or differences between pairs of nets.
    """
    seeds = nets.runs["seed"].to_numpy()[runs]
    return np.stack([_mean(values[:, seeds == seed]) for seed in np.unique(seeds)], axis=1)


def _mean(values: Array) -> Array:
    return values[:, 0] if values.shape[1] == 1 else defined_means(np.moveaxis(values, 1, -1))


def over_seeds(blocks: Iterable[Block], keys: int, size: Array | float = 1.0) -> tuple[pd.DataFrame, Array]:
    """Test and interval of paired differences for each number.

    From six seeds the permutation test of the mean (signs of the seeds' differences flipped, Fisher 1935), exact up to 13 seeds;
    below Student's paired t. Intervals come from a hierarchical
    bootstrap over seeds and data points, 95%.

    Args:
        blocks: differences (keys, seeds, points), rows in [0, keys).
        keys: number of rows of the result.
        size: (keys,) magnitudes of the numbers behind the differences, to detect rounding; 1 for logarithms.

    Returns:
        ``n`` (seeds), ``effect``, ``low``, ``high``, ``p_value``, ``p_least`` (the smallest that the test can give; 0 for t),
        ``test``, ``reason`` (why something is NaN), one row per key; and the seeds' means (seeds, keys), NaN where undefined.
    """
    tests = pd.DataFrame({"n": np.zeros(keys, dtype=int)})
    effect, low, high = np.full((3, keys), np.nan)
    blocks = list(blocks)
    means = np.full((max((block.values.shape[1] for block in blocks), default=0), keys), np.nan)
    for block in blocks:
        means_of_block = defined_means(block.values)
        means[: means_of_block.shape[1], block.rows] = means_of_block.T
        for rows, values in _complete(block.rows, block.values, np.isfinite(means_of_block)):
            boot = hierarchical_bootstrap(values, resamples=RESAMPLES)
            effect[rows] = boot.estimate
            low[rows], high[rows] = boot.t_intervals()
    tests["n"] = np.isfinite(means).sum(axis=0)
    p_value, p_least, test = _tests(means)
    enough = tests["n"].to_numpy() >= 2
    spread = np.zeros(keys)
    spread[enough] = np.nanstd(means[:, enough], axis=0)
    largest = np.abs(np.nan_to_num(means)).max(axis=0, initial=0.0)
    same = enough & (largest <= ROUNDED * size)
    flat = enough & ((spread <= 1e-12 * np.abs(np.where(enough, effect, 0.0))) | same)
    uncertain = enough & ~flat
    student = flat & (test == STUDENT)
    tests["effect"] = effect
    tests["low"], tests["high"] = np.where(uncertain, low, np.nan), np.where(uncertain, high, np.nan)
    tests["p_value"] = np.where(same | student, np.nan, p_value)
    tests["p_least"], tests["test"] = p_least, np.where(enough, test, "")
    tests["reason"] = np.select([same, flat, tests["n"] == 1, tests["n"] == 0], [SAME, EQUAL, ONE, "undefined"], "")
    return tests, means


def _complete(rows: Indices, values: Array, defined: Array) -> Iterable[tuple[Indices, Array]]:
    """Split rows by their defined seeds: (rows, values (keys, defined seeds, points))."""
    patterns, pattern_of = np.unique(defined, axis=0, return_inverse=True)
    for index, pattern in enumerate(patterns):
        if pattern.any():
            inside = pattern_of.ravel() == index
            yield rows[inside], values[inside][:, np.asarray(pattern, dtype=bool)]


def _tests(means: Array) -> tuple[Array, Array, np.ndarray]:
    """p-values, least attainable p-values and names of the tests of (seeds, keys) differences."""
    keys = means.shape[1]
    p_value, p_least, test = np.full(keys, np.nan), np.full(keys, np.nan), np.full(keys, "", dtype=object)
    patterns, pattern_of = np.unique(np.isfinite(means), axis=1, return_inverse=True)
    for column in range(patterns.shape[1]):
        columns, n = np.flatnonzero(pattern_of.ravel() == column), int(patterns[:, column].sum())
        if n < 2:
            continue
        d = means[patterns[:, column]][:, columns]
        if n >= FEWEST_EXACT:
            draws = flip_draws(d)
            p_value[columns] = two_sided(draws)
            p_least[columns] = np.maximum(1 / len(draws), np.minimum(1.0, 2.0 ** (1 - (d != 0).sum(axis=0))))
            test[columns] = f"{FLIPS}, {'all' if len(draws) == 2**n else 'drawn'} {len(draws)}"
        else:
            p_value[columns], p_least[columns], test[columns] = t_test(mean_of(d)), 0.0, STUDENT
    return p_value, p_least, test


def adjust(tests: pd.DataFrame, means: Array) -> pd.DataFrame:
    """Add ``p_holm`` and ``p_joint`` within each ``family``.

    Args:
        tests: rows with ``p_value``, ``test`` and ``family``.
        means: (seeds, rows) differences; those of a seed are flipped together.
    """
    joint = np.full(len(tests), np.nan)
    exact = tests["test"].str.startswith(FLIPS).to_numpy() & tests["p_value"].notna().to_numpy()
    for members in tests[exact].groupby("family", sort=False).indices.values():
        places = np.flatnonzero(exact)[members]
        joint[places] = step_down(flip_draws(means[:, places]))
    return tests.assign(p_holm=holm_within(tests["p_value"].to_numpy(), tests["family"].tolist()), p_joint=joint)


def as_ratios(tests: pd.DataFrame, columns: Sequence[str] = ("effect", "low", "high")) -> pd.DataFrame:
    """Convert log ratios to ratios where ``measure`` is "ratio"."""
    ratio = (tests["measure"] == RATIO).to_numpy()
    with np.errstate(over="ignore"):  # unbounded intervals become infinite
        shown = {name: np.where(ratio, np.exp(tests[name].to_numpy(dtype=float)), tests[name]) for name in columns}
    return tests.assign(**shown)
