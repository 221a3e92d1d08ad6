"""Does training change a number? Every score of the trained nets against the same nets at initialisation."""

from __future__ import annotations

import numpy as np
import pandas as pd

from kagscope.studies.inference.nets import OWN_REFERENCE, VALUE, Block, Indices, Nets
from kagscope.studies.inference.paired import adjusted, as_ratios, over_seeds, seed_values

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
    alone = len(groups) == 1
    tables = (
        [] if alone else [_table(nets, geometry, np.arange(len(nets.runs)), dict.fromkeys(nets.axes, ALL), "over all settings")]
    )
    parts = []
    for runs in groups:
        values = {name: nets.runs[name].iloc[runs[0]] for name in nets.axes}
        parts.append(_table(nets, geometry, runs, values, "in each setting"))
    tables.append((pd.concat([part for part, _ in parts], ignore_index=True), _side_by_side([means for _, means in parts])))
    return as_ratios(pd.concat([adjusted(*table) for table in tables], ignore_index=True))[
        [*nets.axes, "layer", "k", "selection", "score", "measure", *ORDER]
    ]


def _table(
    nets: Nets, geometry: pd.DataFrame, runs: Indices, setting: dict[str, object], where: str
) -> tuple[pd.DataFrame, np.ndarray]:
    """One row per number over these runs, and each seed's mean (all seeds of the study, keys)."""
    blocks = [
        Block(block.rows, seed_values(nets, runs, block.values[:, runs]))
        for block in nets.blocks
        if block.rows[0] < len(geometry)
    ]
    changes = (geometry["measure"] != VALUE).to_numpy()
    kept = [Block(block.rows[inside], block.values[inside]) for block in blocks if (inside := changes[block.rows]).any()]
    found, means = over_seeds(kept, len(geometry))
    own = geometry["score"].isin(OWN_REFERENCE).to_numpy()
    reason = np.where(own, "measures a distance from the initial net", np.where(changes, "", "has no initial value"))
    undefined = (found["reason"] == "undefined") & (geometry["reason"] != "").to_numpy()
    reason = np.where(undefined, geometry["reason"], reason)
    found["reason"] = np.where(reason != "", reason, found["reason"])
    found["family"] = f"trained against initial {where}: selections " + geometry["kind"].to_numpy(dtype=object)
    seeds = nets.runs["seed"].to_numpy()
    full = np.full((np.unique(seeds).size, len(geometry)), np.nan)
    full[np.flatnonzero(np.isin(np.unique(seeds), seeds[runs])), :] = means
    about = geometry[["layer", "k", "selection", "score", "measure"]]
    return pd.concat([pd.DataFrame(setting, index=about.index), about, found.assign(runs=len(runs))], axis=1), full


def _side_by_side(means: list[np.ndarray]) -> np.ndarray:
    return np.concatenate(means, axis=1)
