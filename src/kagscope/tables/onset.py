"""Onset: the first step at which a ratio leaves the baseline's interval."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from kagscope.tables.means import WHAT_KEYS as KEYS

NUMBERS = ("epoch", "ratio", "ratio_low", "ratio_high", "baseline", "baseline_low", "baseline_high")
COLUMNS = [*KEYS, "step", "confirmed", "direction", *NUMBERS, "reason"]
NEVER = "stays within the baseline's interval"
ONE_POINT = "fewer than two points have a ratio, so there is no interval"
NO_RATIO = "no ratio is defined"


def find_onsets(summary: pd.DataFrame) -> pd.DataFrame:
    """When geometry begins to differ from the baseline's.

    The *onset* of a score is the first measured step at which the interval of the mean ratio does not overlap that of the mean
    baseline (over that mean), if at the next measured step they do not overlap either, on the same side. Both are those of
    :func:`~kagscope.tables.means.summarise`: over points, or over runs, with the sampling errors.

    Args:
        summary: over all steps, of one setting.

    Returns:
        One row per layer, k, selection and score: ``step`` (int, or None where it never happens) and ``epoch`` of the onset,
        ``confirmed`` (the next measured step), ``direction`` ("rises" above the baseline or "falls" below it), ``ratio`` and
        ``baseline`` with their intervals there; ``reason``, why there is none.
    """
    rows = [_onset(key, one.sort_values("step")) for key, one in summary.groupby(KEYS, observed=True, sort=False)]
    table = pd.DataFrame(rows, columns=COLUMNS)
    for name in ("step", "confirmed"):  # as objects: pandas would turn integers beside None into floats
        table[name] = pd.Series([row[name] for row in rows], dtype=object, index=table.index)
    return table


def _onset(key: Any, one: pd.DataFrame) -> dict[str, Any]:
    low, high, before = (one[name].to_numpy(float) for name in ("ratio_low", "ratio_high", "baseline"))
    with np.errstate(invalid="ignore", divide="ignore"):
        half = np.abs((one["baseline_high"].to_numpy(float) - before) / before)
    side = np.where(low > 1 + half, 1, np.where(high < 1 - half, -1, 0))
    outside = np.flatnonzero(side)
    confirmed = [place for place in outside if place + 1 < len(side) and side[place + 1] == side[place]]
    found: dict[str, Any] = dict(zip(KEYS, key, strict=True)) | dict.fromkeys(NUMBERS, np.nan)
    found |= {"step": None, "confirmed": None, "direction": "", "reason": ""}
    if confirmed:
        at = one.iloc[confirmed[0]]
        found |= {name: float(at[name]) for name in NUMBERS if name in one.columns} | {"step": int(at["step"])}
        found["confirmed"] = int(one["step"].iloc[confirmed[0] + 1])
        found["direction"] = "rises" if side[confirmed[0]] > 0 else "falls"
    elif not one["ratio"].notna().any():
        found["reason"] = NO_RATIO
    elif not one["ratio_low"].notna().any():
        found["reason"] = ONE_POINT
    elif len(outside) and outside[-1] == len(side) - 1:
        found["reason"] = f"outside at step {int(one['step'].iloc[-1])}, the last one measured: not yet confirmed"
    else:
        found["reason"] = NEVER
    return found
