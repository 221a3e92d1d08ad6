"""Onset: the first step at which a ratio leaves the baseline's interval."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from kagscope.tables.means import WHAT_KEYS as KEYS
from kagscope.tables.means import group_rows

NUMBERS = ("epoch", "ratio", "ratio_low", "ratio_high", "baseline", "baseline_low", "baseline_high")
COLUMNS = [*KEYS, "step", "confirmed", "direction", *NUMBERS, "reason"]
NEVER = "stays within the baseline's interval"
ONE_POINT = "fewer than two points have a ratio, so there is no interval"
NO_RATIO = "no ratio is defined"


def find_onsets(summary: pd.DataFrame) -> pd.DataFrame:
    """Find when geometry begins to differ from the baseline's.

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
    rows = [_onset(key, series) for key, series in _by_step(summary)]
    table = pd.DataFrame(rows, columns=COLUMNS)
    for name in ("step", "confirmed"):  # as objects: pandas would turn integers beside None into floats
        table[name] = pd.Series([row[name] for row in rows], dtype=object, index=table.index)
    return table


def _by_step(summary: pd.DataFrame) -> Iterator[tuple[Any, dict[str, np.ndarray]]]:
    """The key of each score and its numbers by step."""
    columns = {name: summary[name].to_numpy(float) for name in ("step", *NUMBERS) if name in summary.columns}
    for key, rows in group_rows(summary, KEYS):
        ordered = rows[np.argsort(columns["step"][rows])]
        yield key, {name: numbers[ordered] for name, numbers in columns.items()}


def _onset(key: Any, series: dict[str, np.ndarray]) -> dict[str, Any]:
    low, high, before = (series[name] for name in ("ratio_low", "ratio_high", "baseline"))
    with np.errstate(invalid="ignore", divide="ignore"):
        half = np.abs((series["baseline_high"] - before) / before)
    side = np.where(low > 1 + half, 1, np.where(high < 1 - half, -1, 0))
    outside = np.flatnonzero(side)
    confirmed = [index for index in outside if index + 1 < len(side) and side[index + 1] == side[index]]
    row: dict[str, Any] = dict(zip(KEYS, key, strict=True)) | dict.fromkeys(NUMBERS, np.nan)
    row |= {"step": None, "confirmed": None, "direction": "", "reason": ""}
    if confirmed:
        onset = confirmed[0]
        row |= {name: float(series[name][onset]) for name in NUMBERS if name in series}
        row |= {"step": int(series["step"][onset]), "confirmed": int(series["step"][onset + 1])}
        row["direction"] = "rises" if side[onset] > 0 else "falls"
    elif np.isnan(series["ratio"]).all():
        row["reason"] = NO_RATIO
    elif np.isnan(low).all():
        row["reason"] = ONE_POINT
    elif len(outside) and outside[-1] == len(side) - 1:
        row["reason"] = f"outside at step {int(series['step'][-1])}, the last one measured: not yet confirmed"
    else:
        row["reason"] = NEVER
    return row
