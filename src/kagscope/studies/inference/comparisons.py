"""Compare the categories of an axis, such as optimiser, training or activation, with the first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from kagscope.studies.inference.mixed import Fits, empty_effects, mixed_effects
from kagscope.studies.inference.paired import SAME, adjust, as_ratios, over_seeds, seed_values
from kagscope.studies.nets import Block, Indices, Nets
from kagscope.studies.statistics.bootstrap import defined_means
from kagscope.studies.statistics.multiple_testing import holm_within
from kagscope.studies.statistics.student import Array, difference_of, t_interval, t_test

WELCH = "Welch's t over {}, not paired: no two runs share all the rest"
ALONE, EQUAL_UNITS = "a category has one {} only: no test", "all {}s of a category are the same"
COLUMNS = (
    *("axis", "first", "category", "layer", "k", "selection", "score", "measure"),
    *("effect", "low", "high", "p_value", "p_holm", "p_joint", "p_least", "n", "pairs", "agree", "test"),
    *("mixed_effect", "mixed_low", "mixed_high", "mixed_p_value", "mixed_p_holm", "mixed_n", "mixed_test"),
    *("family", "also_changes", "reason"),
)


def comparisons(nets: Nets, axes: Sequence[str] | None = None, *, mixed: bool = True) -> pd.DataFrame:
    """Effect of each category against the first, for each axis of categories or of two numbers.

    Nets that share the seed and all other axes are paired, and pairs averaged over each seed; if no two nets do, all
    nets of one category are compared with all of the other. A mixed model of all nets is added.

    Args:
        nets: of the study.
        axes: axes to compare; by default all of :func:`category_axes`.
        mixed: whether to fit the mixed model, whose columns are NaN otherwise.

    Returns:
        Columns ``COLUMNS``, see docs/studies_statistics.md; empty if no axis has categories.
    """
    tables = []
    done: Fits = {}
    for axis in axes if axes is not None else category_axes(nets):
        categories = nets.levels(axis)[1:]
        fits = mixed_effects(nets, axis, done) if mixed else [empty_effects(nets)] * len(categories)
        tables += [_compare(nets, axis, category, fit) for category, fit in zip(categories, fits, strict=True)]
    if not tables:
        return pd.DataFrame(columns=list(COLUMNS))
    table_of_tests = pd.concat([table for table, _ in tables], ignore_index=True)
    table_of_tests = adjust(table_of_tests, np.concatenate([means for _, means in tables], axis=1))
    table_of_tests["mixed_p_holm"] = holm_within(table_of_tests["mixed_p_value"].to_numpy(), table_of_tests["family"].tolist())
    ends = ("effect", "low", "high")
    return as_ratios(table_of_tests, (*ends, *(f"mixed_{name}" for name in ends)))[list(COLUMNS)]


def category_axes(nets: Nets) -> list[str]:
    """Axes that are compared by category; numbers with three or more values have a trend instead."""
    return [axis for axis in nets.axes if len(nets.levels(axis)) == 2 or not nets.numeric(axis)]


def _compare(nets: Nets, axis: str, category: Any, mixed: pd.DataFrame) -> tuple[pd.DataFrame, Array]:
    first = nets.levels(axis)[0]
    pairs = match_nets(nets, axis, first, category)
    seeds = np.unique(nets.runs["seed"])
    means = np.full((seeds.size, len(nets.keys)), np.nan)
    if len(pairs):
        tests, seed_means = over_seeds(differences(nets, pairs, axis), len(nets.keys), nets.sizes)
        means[np.isin(seeds, nets.runs["seed"].to_numpy()[pairs[:, 0]])] = seed_means
        pair_differences = nets.means[:, pairs[:, 1]] - nets.means[:, pairs[:, 0]]
        agree = agreement(nets, nets.others(axis), pairs[:, 0], pair_differences, tests["effect"].to_numpy())
        tests = tests.assign(pairs=len(pairs), agree=agree)
    else:
        tests = _compare_unpaired(nets, axis, first, category).assign(pairs=0, agree=np.nan)
    undefined = ((tests["reason"] == "undefined") & (nets.keys["reason"] != "")).to_numpy()
    tests["reason"] = np.where(undefined, nets.keys["reason"], tests["reason"])
    also = ", ".join(nets.tied_axes(axis))
    named = {"axis": axis, "first": str(first), "category": str(category), "also_changes": also}
    tests = pd.concat([nets.labels, tests, mixed], axis=1).assign(**named)
    tests["family"] = f"categories of {axis}: " + nets.families
    return tests, means


def match_nets(nets: Nets, axis: str, first: Any, category: Any) -> Indices:
    """(pairs, 2) nets of the first and the other category that share the seed and all other axes."""
    return nets.pairs(axis, first, category, [*nets.replicates, *nets.others(axis)])


def differences(nets: Nets, pairs: Indices, axis: str) -> list[Block]:
    """Second minus first of each pair, averaged by seed; of means over points if the two have different images."""
    other_images = "data" in (axis, *nets.tied_axes(axis))
    blocks = []
    for block in nets.blocks:
        values = defined_means(block.values)[:, :, None] if other_images else block.values
        pair_differences = values[:, pairs[:, 1]] - values[:, pairs[:, 0]]
        blocks.append(Block(block.rows, seed_values(nets, pairs[:, 0], pair_differences)))
    return blocks


def agreement(nets: Nets, others: list[str], runs: Indices, differences_of_pairs: Array, effects: Array) -> Array:
    """(keys,) share of the settings of the other axes whose mean difference has the sign of the effect; NaN without any.

    Args:
        nets: of the study.
        others: the other axes.
        runs: (pairs,) first net of each pair.
        differences_of_pairs: (keys, pairs) differences.
        effects: (keys,) effects.
    """
    setting = nets.codes(others)[runs]
    within = np.stack([defined_means(differences_of_pairs[:, setting == code]) for code in np.unique(setting)], axis=1)
    defined = np.isfinite(within).sum(axis=1)
    same = (np.sign(within) == np.sign(effects)[:, None]).sum(axis=1)
    return np.where(defined > 0, same / np.maximum(defined, 1), np.nan)


def _compare_unpaired(nets: Nets, axis: str, first: Any, category: Any) -> pd.DataFrame:
    """Compare all nets of one category with all of the other: over settings, and over seeds if there are several.

    Nets of one setting are one observation of the other axes, nets of one seed one of the initial weights; the larger p-value
    is used, so that neither counts twice. If only this axis and the seed vary, there are no settings to count.
    """
    rows, others = [], nets.others(axis)
    several = nets.runs["seed"].nunique() > 1
    if others or not several:
        rows.append(_welch_over(nets, axis, first, category, "setting", others))
    if several:
        rows.append(_welch_over(nets, axis, first, category, "seed", ["seed"]))
    p = np.stack([np.where(table["reason"] == SAME, 0.0, table["p_value"].fillna(np.inf)) for table in rows])
    chosen = p.argmax(axis=0)
    return pd.concat(rows, keys=range(len(rows))).loc[list(zip(chosen, range(len(chosen)), strict=True))].reset_index(drop=True)


def _welch_over(nets: Nets, axis: str, first: Any, category: Any, unit: str, columns: Sequence[str]) -> pd.DataFrame:
    """One row per key, with each unit (setting or seed) of a category as one observation."""
    code, means = nets.codes(columns), nets.means
    groups = []
    for level in (category, first):
        runs = np.flatnonzero(nets.runs[axis] == level)
        groups.append(np.stack([defined_means(means[:, runs[code[runs] == c]]) for c in np.unique(code[runs])], axis=1))
    rows = [_welch(x[np.isfinite(x)], y[np.isfinite(y)], unit) for x, y in zip(*groups, strict=True)]
    return pd.DataFrame(rows, columns=["n", "effect", "low", "high", "p_value", "p_least", "test", "reason"])


def _welch(x: Array, y: Array, unit: str) -> tuple[Any, ...]:
    n = x.size + y.size
    if not x.size or not y.size:
        return n, *(np.nan,) * 5, "", "undefined"
    estimate = difference_of(x, y)
    effect = float(np.asarray(estimate.value))
    if np.ptp(np.concatenate([x, y])) == 0:
        return n, effect, *(np.nan,) * 4, "", SAME
    if min(x.size, y.size) < 2:
        return n, effect, *(np.nan,) * 4, "", ALONE.format(unit)
    if x.std() + y.std() == 0:
        return n, effect, *(np.nan,) * 4, "", EQUAL_UNITS.format(unit)
    low, high = t_interval(estimate)
    return n, effect, float(low), float(high), float(t_test(estimate)), 0.0, WELCH.format(f"{unit}s"), ""
