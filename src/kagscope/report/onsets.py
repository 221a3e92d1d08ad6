"""When each score begins to differ from the initial nets' (:mod:`kagscope.tables.onset`), over nets or over points."""

from __future__ import annotations

from typing import Any

import pandas as pd

from kagscope.report.numbers import clean, groups
from kagscope.tables.means import WHAT_KEYS, summarise
from kagscope.tables.onset import find_onsets

Key = tuple[str, int, str, str, int, str]
FEWEST_STEPS = 3


def find_all(nets: pd.DataFrame) -> dict[Key, dict[str, Any]]:
    """(layer, k, selection, score, width, training) to ``step``, ``confirmed``, ``over`` and ``reason``.

    The intervals are over nets ("nets") where a setting has several; of one net they are over its data points ("points").

    Args:
        nets: means over the data points of each net and step.
    """
    steps = nets.groupby(["width", "training", *WHAT_KEYS], observed=True, sort=False)["step"].transform("nunique")
    followed = nets[(steps >= FEWEST_STEPS) & nets["ratio"].notna()]
    found: dict[Key, dict[str, Any]] = {}
    for (width, training), group in groups(followed, ["width", "training"]):
        over = "nets" if group["run"].nunique() > 1 else "points"
        summary = _over_nets(group) if over == "nets" else group[group["points"] > 1]  # one point: of the layer as a whole
        for row in find_onsets(summary).to_dict("records") if len(summary) else ():
            key = (str(row["layer"]), int(row["k"]), str(row["selection"]), str(row["score"]), int(width), str(training))
            found[key] = {name: row[name] for name in ("step", "confirmed", "reason")} | {"over": over}
            if row["step"] is not None:
                found[key]["ratio"] = clean(row["ratio"])
    return found


def _over_nets(group: pd.DataFrame) -> pd.DataFrame:
    epochs = group.drop_duplicates("step").set_index("step")["epoch"]
    table = summarise(group, over="runs")
    return table.assign(epoch=table["step"].map(epochs))
