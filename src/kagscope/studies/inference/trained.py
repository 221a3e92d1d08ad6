"""Compare every score of the trained nets with the same nets at initialisation."""

from __future__ import annotations

import numpy as np
import pandas as pd

from kagscope.studies.inference.paired import adjust, as_ratios, over_seeds, seed_values
from kagscope.studies.nets import OWN_REFERENCE, VALUE, Block, Indices, Nets
from kagscope.studies.statistics.student import Array

ALL = "all"
ORDER = ("effect", "low", "high", "p_value", "p_holm", "p_joint", "p_least", "n", "runs", "test", "family", "reason")


def trained_against_initial(nets: Nets) -> pd.DataFrame:
    """Paired tests over seeds, over all settings together and in each setting.

    Returns:
        The axes of the study ("all" in the rows over all settings, which come first), layer, k, selection, score, ``measure``
        ("ratio": trained over initial, geometric mean; "difference"), ``effect`` with ``low`` and ``high``, ``p_value``,
        ``p_holm``, ``p_joint``, ``p_least``, ``n`` (seeds), ``runs``, ``test``, ``family``, ``reason``.
    """
    geometry = nets.keys[nets.keys["kind"] != "outcome"]
    setting = nets.codes(nets.axes)
    groups: list[Indices] = [np.flatnonzero(setting == code) for code in range(int(setting.max()) + 1)]
    tables = []
    if len(groups) > 1:
        everywhere: dict[str, object] = dict.fromkeys(nets.axes, ALL)
        tables.append(_table(nets, geometry, np.arange(len(nets.runs)), everywhere, "over all settings"))
    parts = []
    for runs in groups:
        values = {name: nets.runs[name].iloc[runs[0]] for name in nets.axes}
        parts.append(_table(nets, geometry, runs, values, "in each setting"))
    side_by_side = np.concatenate([means for _, means in parts], axis=1)
    tables.append((pd.concat([table for table, _ in parts], ignore_index=True), side_by_side))
    tests = as_ratios(pd.concat([adjust(*table) for table in tables], ignore_index=True))
    return tests[[*nets.axes, "layer", "k", "selection", "score", "measure", *ORDER]]


def _table(
    nets: Nets, geometry: pd.DataFrame, runs: Indices, setting: dict[str, object], scope: str
) -> tuple[pd.DataFrame, Array]:
    """One row per number over these runs, and the means (all seeds of the study, keys)."""
    changes = (nets.keys["measure"] != VALUE).to_numpy()
    blocks = []
    for block in nets.blocks:
        inside = changes[block.rows]
        if inside.any():
            blocks.append(Block(block.rows[inside], seed_values(nets, runs, block.values[inside][:, runs])))
    tests, means = over_seeds(blocks, len(geometry))
    without = np.where(geometry["measure"] == VALUE, "has no initial value", "")
    without = np.where(geometry["score"].isin(OWN_REFERENCE), "measures a distance from the initial net", without)
    undefined = ((tests["reason"] == "undefined") & (geometry["reason"] != "")).to_numpy()
    reason = np.where(undefined, geometry["reason"], without)
    tests["reason"] = np.where(reason != "", reason, tests["reason"])
    tests["family"] = f"trained against initial {scope}: selections " + geometry["kind"].to_numpy(dtype=object)
    seeds, run_seeds = np.unique(nets.runs["seed"]), np.unique(nets.runs["seed"].to_numpy()[runs])
    full = np.full((seeds.size, len(geometry)), np.nan)
    if blocks:
        full[np.isin(seeds, run_seeds)] = means
    labels = geometry[["layer", "k", "selection", "score", "measure"]]
    return pd.concat([pd.DataFrame(setting, index=labels.index), labels, tests.assign(runs=len(runs))], axis=1), full
