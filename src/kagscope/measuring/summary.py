"""From one row per number to means over data points with intervals, and to sentences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from kagscope.measuring.caveats import distrust, is_its_baseline
from kagscope.tables.intervals import half_width
from kagscope.tables.schema import BOOKKEEPING

KEYS = ["layer", "k", "selection", "score"]
MEASURES = ("value", "baseline", "ratio")
LEAST_RATIO = 0.05  # a mean ratio further from 1 than this stands out


def summarise(table: pd.DataFrame) -> pd.DataFrame:
    """Means over data points and their 95% intervals (Student's t), tokens first averaged within their point.

    Args:
        table: of a report.

    Returns:
        One row per layer, k, selection and score: ``points``, then for each of value, baseline, ratio the mean and ``_low``,
        ``_high`` (NaN with fewer than two points); ``stderr``, the sampling error of the mean value; ``exact`` (all);
        ``undefined`` (how many values); ``reason`` (of the first undefined one). The ratio is the mean of the points' ratios.
    """
    frame = table[~table["score"].astype(str).isin(BOOKKEEPING)].copy()
    frame["variance"] = frame["stderr"].fillna(0.0) ** 2
    frame["undefined"] = frame["value"].isna()
    frame["rows"] = 1
    by = [*KEYS, "point"]
    parts = dict.fromkeys(MEASURES, "mean") | {"variance": "sum", "rows": "sum", "undefined": "sum", "exact": "min"}
    per_point = frame.groupby(by, observed=True, sort=False).agg(parts | {"reason": _first}).reset_index()
    per_point["variance"] /= per_point["rows"] ** 2
    grouped = per_point.groupby(KEYS, observed=True, sort=False)
    columns: dict[str, Any] = {"points": grouped["value"].count()}
    for name in MEASURES:
        mean, count, spread = grouped[name].mean(), grouped[name].count(), grouped[name].std()
        half = half_width(np.asarray(spread, dtype=float), np.asarray(count))
        columns |= {name: mean, f"{name}_low": mean - half, f"{name}_high": mean + half}
    columns["stderr"] = np.sqrt(grouped["variance"].sum()) / grouped["value"].count().clip(lower=1)
    columns["exact"] = grouped["exact"].min().astype(bool)
    columns["undefined"] = grouped["undefined"].sum().astype(int)
    columns["reason"] = grouped["reason"].agg(_first)
    return pd.DataFrame(columns).reset_index()


def findings(
    table: pd.DataFrame, layers: Sequence[Mapping[str, Any]], notes: Sequence[str], provenance: Mapping[str, Any]
) -> list[str]:
    """What a careful colleague would say of a measurement: what stands out, what is undefined or sampled, what to distrust."""
    summary = summarise(table)
    said = [*([] if is_its_baseline(table) else _ratios(summary)), *_constant(summary, layers), *_unfelt(summary, layers)]
    said += [f"Layer {one['name']} was skipped: {one['reason']}." for one in layers if one["reason"]]
    said += [f"Layer {one['name']}: {note}." for one in layers for note in one["notes"]]
    said += [note[:1].upper() + note[1:] + "." for note in notes]
    said += [*_undefined(table), *_sampled(table)]
    return said + distrust(table, summary, provenance)


def _ratios(summary: pd.DataFrame) -> list[str]:
    chosen = summary[(summary["score"] == "pr") & (summary["k"] == 2) & summary["ratio"].notna()]
    chosen = chosen[chosen["selection"] == "all"]
    if chosen.empty:
        return []
    said = []
    ordered = chosen.sort_values("ratio", ascending=False)
    most = ordered.iloc[0]
    clear = chosen[(chosen["ratio_low"] > 1) & (chosen["ratio"] > 1 + LEAST_RATIO)]
    if most["ratio"] > 1 + LEAST_RATIO:
        interval = "" if np.isnan(most["ratio_low"]) else f" ({most['ratio_low']:.2f} to {most['ratio_high']:.2f})"
        said.append(
            f"The 2 x 2 minors concentrate most in layer {most['layer']}: "
            f"PR is {most['ratio']:.2f}{interval} times the baseline's."
        )
        said.append(f"PR is above the baseline's in {len(clear)} of {len(chosen)} layers, beyond the 95% interval over points.")
    else:
        said.append(
            f"In no layer do the 2 x 2 minors concentrate over {LEAST_RATIO:.0%} more than in the baseline "
            f"(the largest PR ratio is {most['ratio']:.2f})."
        )
    return said


def _constant(summary: pd.DataFrame, layers: Sequence[Mapping[str, Any]]) -> list[str]:
    rows = {one["name"]: one["rows"] for one in layers}
    chosen = summary[(summary["score"] == "constant_units_exact") & (summary["value"] > 0)]
    return [
        f"{int(row['value'])} of {rows.get(str(row['layer']), 0)} units of layer {row['layer']} are constant around every point: "
        "their slopes there are below the rounding of float32 beside the layer's largest."
        for row in chosen.to_dict("records")
    ]


def _unfelt(summary: pd.DataFrame, layers: Sequence[Mapping[str, Any]]) -> list[str]:
    columns = {one["name"]: one["columns"] for one in layers}
    chosen = summary[(summary["score"] == "unfelt_units_exact") & (summary["value"] > 0)]
    said = []
    for row in chosen.to_dict("records"):
        beside = "" if np.isnan(row["baseline"]) else f" (baseline: {row['baseline']:.3g})"
        many = f"{int(row['value'])} of {columns.get(str(row['layer']), 0)} units"
        said.append(f"{many} of layer {row['layer']} are not felt by the output at any point{beside}: no slope above rounding.")
    return said


def _undefined(table: pd.DataFrame) -> list[str]:
    missing = table[table["value"].isna() & (table["score"] != "skipped")]
    if missing.empty:
        return []
    reasons = missing["reason"].astype(str).value_counts()
    listed = "; ".join(f"{str(reason).removeprefix('undefined: ')} ({count})" for reason, count in reasons.items() if count)
    return [f"{len(missing)} of {len(table)} numbers are undefined and left out of means: {listed}."]


def _sampled(table: pd.DataFrame) -> list[str]:
    sampled = table[~table["exact"] & table["value"].notna()]
    if sampled.empty:
        return ["Every number is exact, up to rounding."]
    error = float((sampled["stderr"] / sampled["value"].abs()).replace([np.inf], np.nan).median())
    names = ", ".join(sorted({f"{score} (k = {k})" for score, k in zip(sampled["score"].astype(str), sampled["k"], strict=True)}))
    return [f"Sampled are {names}, with a median standard error of {error:.2%}; all other numbers are exact, up to rounding."]


def _first(reasons: pd.Series[Any]) -> str:
    return next((str(reason) for reason in reasons if str(reason)), "")
