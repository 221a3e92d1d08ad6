"""Monotone trends of numbers along axes such as width, noise or learning rate, within seeds and settings."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from kagscope.studies.inference.comparisons import agreement, differences, match_nets
from kagscope.studies.inference.paired import SAME, as_ratios, over_seeds
from kagscope.studies.nets import Nets
from kagscope.studies.statistics.kendall import mean_tau, order_count, pair_signs, trend_draws
from kagscope.studies.statistics.multiple_testing import holm_within, step_down
from kagscope.studies.statistics.permutation import two_sided
from kagscope.studies.statistics.student import Array

FEWEST_LEVELS = 3  # two levels are compared as categories
COLUMNS = (
    *("axis", "levels", "layer", "k", "selection", "score", "measure", "tau", "tau_low", "tau_high"),
    *("p_value", "p_holm", "p_joint", "p_least", "n", "runs", "agree"),
    *("lowest", "highest", "change", "change_low", "change_high"),
    *("test", "family", "also_changes", "reason"),
)


class Axis(NamedTuple):
    """An ordered column of the runs: its name and its values, ascending."""

    name: str
    column: str
    values: list[Any]


def trend_axes(nets: Nets) -> Iterator[Axis]:
    """Axes of three or more numbers, and data sets "name:number" with three or more numbers."""
    for axis in nets.axes:
        if nets.numeric(axis) and len(nets.levels(axis)) >= FEWEST_LEVELS:
            yield Axis(axis, axis, nets.levels(axis))
    if "data" in nets.axes:
        families: dict[str, dict[float, str]] = {}
        for name in map(str, nets.levels("data")):
            head, _, number = name.rpartition(":")
            if head and _is_number(number):
                families.setdefault(head, {})[float(number)] = name
        for head, members in families.items():
            if len(members) >= FEWEST_LEVELS:
                yield Axis(f"data {head}", "data", [name for _, name in sorted(members.items())])


def _is_number(text: str) -> bool:
    try:
        return bool(np.isfinite(float(text)))
    except ValueError:
        return False


def trends(nets: Nets) -> pd.DataFrame:
    """Kendall's S between an axis and each number within every seed and setting of the other axes, summed.

    This is the Jonckheere-Terpstra test in blocks (Skillings & Wolfe 1978). The values of the axis are permuted within seeds, in
    all settings of a seed alike: exact if there are at most 10,000 orders, else with 10,000 random ones.

    Returns:
        Columns ``COLUMNS``, see docs/studies_statistics.md; empty if no axis has three ordered values.
    """
    tables = [_trend(nets, axis) for axis in trend_axes(nets)]
    if not tables:
        return pd.DataFrame(columns=list(COLUMNS))
    tests = as_ratios(pd.concat(tables, ignore_index=True), ("change", "change_low", "change_high"))
    return tests[list(COLUMNS)]


def _trend(nets: Nets, axis: Axis) -> pd.DataFrame:
    others = nets.others(axis.column)
    signs, defined = _sum_signs(nets, axis, others)
    pairs = defined.sum(axis=2)
    tau, low, high = mean_tau(signs.sum(axis=2), pairs, len(axis.values))
    tests = pd.DataFrame({"tau": tau, "tau_low": low, "tau_high": high, "n": (pairs > 0).sum(axis=1)})
    tests["family"] = f"trends over {axis.name}: " + nets.families
    varies = (signs != 0).any(axis=(1, 2))
    test = np.full(len(tests), "", dtype=object)
    p_value, p_joint, p_least = np.full((3, len(tests)), np.nan)
    for members in tests[varies].groupby("family", sort=False).indices.values():
        places = np.flatnonzero(varies)[members]
        draws = trend_draws(signs[places], len(axis.values))
        p_value[places], p_joint[places] = two_sided(draws), step_down(draws)
        orders = order_count(len(axis.values), signs.shape[1])
        exact = orders <= len(draws)
        p_least[places] = min(1.0, 2 / orders if exact else 1 / len(draws))
        test[places] = f"Jonckheere-Terpstra within seeds, {'all' if exact else 'drawn'} {len(draws)} orders"
    tests = tests.assign(p_value=p_value, p_joint=p_joint, p_least=p_least, test=test)
    tests["p_holm"] = holm_within(p_value, tests["family"].tolist())
    nothing = np.where(nets.keys["reason"] != "", nets.keys["reason"], "no two levels share a seed and setting")
    tests["reason"] = np.select([tests["n"].to_numpy() == 0, ~varies], [nothing, SAME], "")
    named: dict[str, Any] = {
        "axis": axis.name,
        "levels": len(axis.values),
        "lowest": str(axis.values[0]),
        "highest": str(axis.values[-1]),
    }
    runs = int(nets.runs[axis.column].isin(axis.values).sum())
    also = ", ".join(nets.tied_axes(axis.column))
    return pd.concat([nets.labels, tests, _end_change(nets, axis, others)], axis=1).assign(**named, runs=runs, also_changes=also)


def _sum_signs(nets: Nets, axis: Axis, others: Sequence[str]) -> tuple[Array, Array]:
    """Pair signs and numbers of defined pairs, summed over the settings of each seed: (keys, seeds, pairs) each."""
    seeds, seed = np.unique(nets.runs["seed"], return_inverse=True)
    setting = nets.codes([*nets.replicates[1:], *others])
    level = nets.runs[axis.column].map({value: rank for rank, value in enumerate(axis.values)}).to_numpy(dtype=float)
    used = np.flatnonzero(np.isfinite(level))
    settings = np.unique(setting[used], return_inverse=True)[1]
    series = np.full((len(nets.keys), seeds.size, int(settings.max()) + 1, len(axis.values)), np.nan)
    series[:, seed[used], settings, level[used].astype(np.int64)] = nets.means[:, used]
    series = series[:, np.isfinite(series).any(axis=(0, 2, 3))]
    first, second = np.triu_indices(len(axis.values), 1)
    defined = np.isfinite(series[..., second] - series[..., first])
    return pair_signs(series).sum(axis=2), defined.sum(axis=2).astype(float)


def _end_change(nets: Nets, axis: Axis, others: list[str]) -> pd.DataFrame:
    """Change from the lowest to the highest value: mean of matched pairs over seeds, and share of settings that agree."""
    pairs = match_nets(nets, axis.column, axis.values[0], axis.values[-1])
    if not len(pairs):
        return pd.DataFrame(dict.fromkeys(("change", "change_low", "change_high", "agree"), np.nan), index=nets.keys.index)
    tests, _ = over_seeds(differences(nets, pairs, axis.column), len(nets.keys), nets.sizes)
    changes = nets.means[:, pairs[:, 1]] - nets.means[:, pairs[:, 0]]
    agree = agreement(nets, others, pairs[:, 0], changes, tests["effect"].to_numpy())
    return tests[["effect", "low", "high"]].add_prefix("change_").rename(columns={"change_effect": "change"}).assign(agree=agree)
