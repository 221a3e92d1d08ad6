"""Findings from the three tables of tests, one for each question."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from kagscope.base.messages import Finding, Number
from kagscope.studies.inference.trained import ALL
from kagscope.studies.nets import RATIO
from kagscope.tables.means import corrected_p
from kagscope.tables.schema import ALPHA

SMALL_RATIO = 0.01  # ratios up to this are written with two significant digits


def findings_of_tests(trained: pd.DataFrame, comparisons: pd.DataFrame, trends: pd.DataFrame) -> list[Finding]:
    """How many scores of the whole image differ after correction, and the clearest of them.

    Args:
        trained: table of :func:`kagscope.studies.inference.trained.trained_against_initial`.
        comparisons: table of :func:`kagscope.studies.inference.comparisons.comparisons`.
        trends: table of :func:`kagscope.studies.inference.trends.trends`.

    Returns:
        A finding "training_effect", one "category_effect" for each axis of categories, one "trend" for each axis of numbers; all
        with ``differ`` and ``tested``, and of the clearest score its name, ``layer``, ``k`` and effect.
    """
    over_all = trained["family"].str.contains("over all settings")
    results = [_training_effect(_tested_rows(trained[over_all] if over_all.any() else trained))]
    results += [category_effect(table) for _, table in comparisons.groupby("axis", sort=False)]
    results += [_trend(_tested_rows(table)) for _, table in trends.groupby("axis", sort=False)]
    return [finding for finding in results if finding is not None]


def _training_effect(tested: pd.DataFrame) -> Finding | None:
    if tested.empty:
        return None
    clear, best = _clearest(tested)
    axes = list(tested.columns[: list(tested.columns).index("layer")])
    suffix = "" if not axes else ", all settings together" if best[axes[0]] == ALL else ", in single settings"
    start = f"Training changed {len(clear)} of {len(tested)} scores over all columns{suffix} ({_test(best)})"
    end = f"; clearest: {_score_of(best)}, {effect_text(best)}." if len(clear) else ": no difference is certain."
    return Finding(start + end, code="training_effect", **_counts(tested, clear), **_effect_facts(best, clear))


def category_effect(table: pd.DataFrame) -> Finding | None:
    """Finding for one axis of :func:`~kagscope.studies.inference.comparisons.comparisons`; None if nothing was tested."""
    tested = _tested_rows(table)
    if tested.empty:
        return None
    clear, best = _clearest(tested)
    axis, groups = str(best["axis"]), {"category": str(best["category"]), "first": str(best["first"])}
    start = f"{_share_text(clear, tested)} over all columns differ{'s' * (len(clear) == 1)} with {_words(axis)} ({_test(best)})"
    end = f"; clearest: {groups['category']} against {groups['first']}, {_score_of(best)}, {effect_text(best)}." * bool(
        len(clear)
    )
    numbers = _counts(tested, clear) | (groups if len(clear) else {}) | _effect_facts(best, clear)
    return Finding(start + (end or "."), code="category_effect", axis=axis, **numbers)


def _trend(tested: pd.DataFrame) -> Finding | None:
    if tested.empty:
        return None
    clear, best = _clearest(tested, ("tau", "tau_low", "tau_high"))
    axis = str(best["axis"])
    verb = "has" if len(clear) == 1 else "have"
    start = f"{_share_text(clear, tested)} over all columns {verb} a monotone trend over {_words(axis)} ({_test(best)})"
    way = f"{_score_of(best)} {'rises' if best['tau'] > 0 else 'falls'}"
    end = f"; clearest: {way}, tau {best['tau']:z.2f} ({best['tau_low']:z.2f} to {best['tau_high']:z.2f})." * bool(len(clear))
    numbers = _counts(tested, clear) | (_score_facts(best) | {"tau": float(best["tau"])} if len(clear) else {})
    return Finding(start + (end or "."), code="trend", axis=axis, **numbers)


def _tested_rows(table: pd.DataFrame) -> pd.DataFrame:
    return table[(table["selection"] == "all") & table["p_value"].notna()].reset_index(drop=True)


def _clearest(tested: pd.DataFrame, names: Sequence[str] = ("effect", "low", "high")) -> tuple[pd.DataFrame, pd.Series[Any]]:
    """Rows that differ after correction, and the clearest of them; if none does, the row with the smallest p.

    The clearest is the one whose interval is furthest from no effect: among ratios, which share a unit, or ``tau``. If
    only differences remain, each with its own unit, they count in half widths of their intervals.
    """
    p = corrected_p(tested)
    clear = tested[p < ALPHA]
    if clear.empty:
        return clear, tested.iloc[int(p.fillna(np.inf).to_numpy().argmin())]
    ratio = (clear["measure"] == RATIO).to_numpy() & (names[0] == "effect")
    effect, low, high = (np.log(column, out=column.copy(), where=ratio) for column in clear[list(names)].to_numpy(dtype=float).T)
    low, high = (np.where(np.isnan(end), effect, end) for end in (low, high))
    near = np.maximum(np.maximum(low, -high), 0.0)
    if names[0] == "effect":
        unit = np.where(ratio, 1.0, np.maximum((high - low) / 2, np.finfo(float).tiny))
        near = np.where(ratio | ~ratio.any(), near / unit, -1.0)
    return clear, clear.iloc[int(near.argmax())]


def _share_text(clear: pd.DataFrame, tested: pd.DataFrame) -> str:
    return f"{len(clear) or 'None'} of {len(tested)} scores"


def _words(axis: str) -> str:
    return axis.replace("_", " ")


def _counts(tested: pd.DataFrame, clear: pd.DataFrame) -> dict[str, Number]:
    return {"differ": len(clear), "tested": len(tested)}


def _score_facts(row: pd.Series[Any]) -> dict[str, Number]:
    return {"score": str(row["score"]), "layer": str(row["layer"]), "k": int(row["k"])}


def _effect_facts(row: pd.Series[Any], clear: pd.DataFrame) -> dict[str, Number]:
    """Numbers of the clearest effect, if any is clear."""
    return _score_facts(row) | {name: float(row[name]) for name in ("effect", "low", "high")} if len(clear) else {}


def _test(row: pd.Series[Any]) -> str:
    return f"{row['test']}, n = {row['n']}, corrected p < {ALPHA}"


def _score_of(row: pd.Series[Any]) -> str:
    order = f"k = {row['k']}, " if row["k"] else ""
    return f"{row['score']} ({order}layer {row['layer']})" if row["layer"] else str(row["score"])


def effect_text(row: pd.Series[Any]) -> str:
    """Format an effect with its interval, "1.23 times (1.10 to 1.40)" or "+0.02 (0.01 to 0.03)", with enough digits."""
    if row["measure"] != RATIO:
        return f"{row['effect']:+.3g}" + ("" if pd.isna(row["low"]) else f" ({row['low']:.3g} to {row['high']:.3g})")
    if pd.isna(row["low"]):
        return f"{ratio_text(row['effect'])[0]} times"
    effect, low, high = ratio_text(row["effect"], row["low"], row["high"])
    return f"{effect} times ({low} to {high})"


def ratio_text(ratio: float, *ends: float) -> list[str]:
    """Format a ratio and the ends of its interval, with enough digits not to look like 1 or 0 unless it is."""
    smallest = min((ratio, *ends))
    if 0 < smallest < SMALL_RATIO:
        return [f"{value:.2g}" for value in (ratio, *ends)]
    digits = 2 if ratio == 1 else max(2, min(12, 1 - math.floor(math.log10(abs(ratio - 1)))))
    return [f"{value:.{digits}f}" for value in (ratio, *ends)]
