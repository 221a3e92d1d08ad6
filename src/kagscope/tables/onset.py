"""Onset: the first step at which a ratio leaves the baseline's interval."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from kagscope.tables.means import WHAT_KEYS as KEYS

COLUMNS = [*KEYS, "step", "epoch", "confirmed", "ratio", "low", "high", "baseline_low", "baseline_high", "reason"]
NEVER = "stays within the baseline's interval"
ONE_POINT = "fewer than two points have a ratio, so there is no interval"
NO_RATIO = "no ratio is defined"


def find_onsets(summary: pd.DataFrame) -> pd.DataFrame:
    """When geometry begins to differ from the baseline's.

    The *onset* of a score is the first measured step at which the interval of the mean ratio and the interval of the baseline do
    not overlap, if at the next measured step they do not overlap either, on the same side. Both intervals are those of
    :func:`~kagscope.tracking.summary.summarise`: over the points, with the sampling errors of both.

    Args:
        summary: rows of :func:`~kagscope.tracking.summary.summarise` over all steps.

    Returns:
        One row per layer, k, selection and score: ``step`` (int, or None where it never happens) and ``epoch`` of the onset,
        ``confirmed`` (the next measured step), ``ratio`` with its interval there and the baseline's; ``reason``, why there is
        none.
    """
    rows = [_onset(key, one.sort_values("step")) for key, one in summary.groupby(KEYS, observed=True, sort=False)]
    table = pd.DataFrame(rows, columns=COLUMNS)
    for name in ("step", "confirmed"):  # as objects: pandas would turn integers beside None into floats
        table[name] = pd.Series([row[name] for row in rows], dtype=object, index=table.index)
    return table


def _onset(key: Any, one: pd.DataFrame) -> dict[str, Any]:
    low, high = one["low"].to_numpy(), one["high"].to_numpy()
    side = np.where(low > one["baseline_high"].to_numpy(), 1, np.where(high < one["baseline_low"].to_numpy(), -1, 0))
    outside = np.flatnonzero(side)
    confirmed = [place for place in outside if place + 1 < len(side) and side[place + 1] == side[place]]
    found: dict[str, Any] = dict(zip(KEYS, key, strict=True)) | dict.fromkeys(COLUMNS[len(KEYS) :], np.nan)
    found |= {"step": None, "confirmed": None, "reason": ""}
    if confirmed:
        at = one.iloc[confirmed[0]]
        numbers = ("epoch", "ratio", "low", "high", "baseline_low", "baseline_high")
        found |= {name: float(at[name]) for name in numbers} | {"step": int(at["step"])}
        found["confirmed"] = int(one["step"].iloc[confirmed[0] + 1])
    elif not one["ratio"].notna().any():
        found["reason"] = NO_RATIO
    elif not one["low"].notna().any():
        found["reason"] = ONE_POINT
    elif len(outside) and outside[-1] == len(side) - 1:
        found["reason"] = f"outside at step {int(one['step'].iloc[-1])}, the last one measured: not yet confirmed"
    else:
        found["reason"] = NEVER
    return found
