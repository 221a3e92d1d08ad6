"""Means over points with their intervals, for each step, layer, order, selection and score."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy.special import stdtrit

from kagscope.base.errors import InputError
from kagscope.tables.schema import BOOKKEEPING

KEYS = ["layer", "k", "selection", "score"]
MOMENT = ["step", "epoch"]
CONFIDENCE = 0.95
NO_SCORES = BOOKKEEPING | {"skipped"}  # rows about the measurement


def summarise(table: pd.DataFrame, confidence: float = CONFIDENCE) -> pd.DataFrame:
    """Mean ratios over points with intervals.

    The interval of a mean is Student's t over the points; tokens of one point are averaged first, they are not independent. What
    was sampled adds its standard error in full: the same draws may serve all points, so averaging over points need not shrink it.

    Args:
        table: rows of :attr:`kagscope.tracking.trajectory.Trajectory.table`.
        confidence: of both intervals.

    Returns:
        One row per step, layer, k, selection and score, in the table's order: ``value``, ``ratio`` (means over the points where
        they are defined), ``baseline`` (over those with a ratio), ``low``, ``high`` (interval of the mean ratio),
        ``baseline_low``, ``baseline_high`` (interval of the mean baseline, over that mean: how far a ratio could be from 1 for
        want of points), ``points`` (with a ratio), ``no_ratio`` (points with a value but no ratio, since the baseline is 0 there:
        the mean ratio is not that of the means then), ``exact``. Intervals of fewer than two points are NaN.

    Raises:
        InputError: ``confidence`` is not between 0 and 1.
    """
    if not 0 < confidence < 1:
        raise InputError(f"confidence={confidence!r}, expected a number between 0 and 1, such as 0.95")
    keys = MOMENT + KEYS
    table = table[~table["score"].isin(NO_SCORES)]
    frame = table[[*keys, "point", "exact"]].copy()
    ratio = table["ratio"].to_numpy(float)
    defined = np.isfinite(ratio)
    with np.errstate(invalid="ignore", divide="ignore"):
        relative = np.hypot(table["stderr"] / table["value"], table["baseline_stderr"] / table["baseline"])
    errors = {
        "ratio_error": np.abs(ratio) * np.nan_to_num(np.asarray(relative, float)),
        "baseline_error": table["baseline_stderr"].fillna(0.0).to_numpy(float),
    }
    frame["value"] = table["value"]
    for name in ("baseline", "ratio"):
        frame[name] = np.where(defined, table[name].to_numpy(float), np.nan)
    for name, error in errors.items():
        frame[name] = np.where(defined, error, np.nan)
    numbers = ["value", "baseline", "ratio", *errors]
    if "token" in table.columns:
        grouped = frame.groupby([*keys, "point"], observed=True, sort=False, dropna=False)
        frame = grouped.agg(dict.fromkeys(numbers, "mean") | {"exact": "min"}).reset_index()
    grouped = frame.groupby(keys, observed=True, sort=False, dropna=False)
    found = grouped.agg(dict.fromkeys(numbers, "mean") | {"exact": "min"})
    found["exact"] = found["exact"].astype(bool)
    found["points"] = grouped["ratio"].count()
    found["no_ratio"] = grouped["value"].count() - found["points"]
    half = half_width(grouped["ratio"].std(), found["points"], found.pop("ratio_error"), confidence)
    found["low"], found["high"] = found["ratio"] - half, found["ratio"] + half
    half = half_width(grouped["baseline"].std(), found["points"], found.pop("baseline_error"), confidence)
    relative = half / found["baseline"].abs()
    found["baseline_low"], found["baseline_high"] = 1 - relative, 1 + relative
    columns = ["value", "baseline", "ratio", "low", "high", "baseline_low", "baseline_high", "points", "no_ratio", "exact"]
    return found[columns].reset_index()


def half_width(spread: pd.Series, count: pd.Series, error: pd.Series, confidence: float) -> np.ndarray:
    """Half the interval of a mean of ``count`` numbers of standard deviation ``spread``, each with the common standard error
    ``error``; NaN for fewer than two."""
    n = count.to_numpy(float)
    enough = n >= 2
    t = stdtrit(np.where(enough, n - 1, 1), (1 + confidence) / 2)
    return np.where(enough, t * np.hypot(spread.to_numpy(float) / np.sqrt(np.maximum(n, 1)), error.to_numpy(float)), np.nan)
