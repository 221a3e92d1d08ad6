"""A small text table of the main scores: one row for each layer and order of minors."""

from __future__ import annotations

from typing import Any

import pandas as pd

UNDEFINED = "–"
RATIO = "/ baseline (95%)"
SCORES = {"kl_uniform": "KL", "rr_pr": "rr_pr", "zero_rows": "zero rows"}
HEADINGS = ("layer", "k", "columns", "step", "PR", RATIO, *SCORES.values())
ORDER = ("layer", "k", "columns")


def overview(summary: pd.DataFrame) -> pd.DataFrame:
    """Cells of text from the summary of a report, or of a series, which has a column ``step``.

    Args:
        summary: of :func:`kagscope.tables.means.summarise`: one row for each layer, k, selection and score.

    Returns:
        One row for each layer, k, selection and step. Columns are those of :data:`HEADINGS` that say anything. ``~`` stands
        before a sampled number; the ratio is of PR, with its 95% interval over points.
    """
    minors = summary[(summary["k"] > 0) & summary["score"].isin(["pr", *SCORES])]
    many = minors["selection"].astype(str).nunique() > 1
    keys = ["layer", *(["step"] if "step" in minors.columns else []), "k", "selection"]
    rows = []
    for key, group in minors.groupby(keys, observed=True, sort=False):
        named = dict(zip(keys, key, strict=True))
        by_score = {str(row["score"]): row for row in group.to_dict("records")}
        if "pr" not in by_score:
            continue
        pr = by_score["pr"]
        rows.append(
            {
                "layer": str(named["layer"]),
                "k": str(named["k"]),
                "columns": str(named["selection"]) if many else "",
                "step": str(named["step"]) if "step" in named else "",
                "PR": number(pr["value"], pr["stderr"]),
                RATIO: interval(pr),
                **{label: _cell(by_score.get(score)) for score, label in SCORES.items()},
            }
        )
    places = {name: list(dict.fromkeys(row[name] for row in rows)) for name in ORDER}
    rows.sort(key=lambda row: [places[name].index(row[name]) for name in ORDER])  # steps of the same map together, in their order
    table = pd.DataFrame(rows, columns=list(HEADINGS))
    table = table[[name for name in HEADINGS if not table[name].isin(["", UNDEFINED]).all()]]
    several = minors["ratio_low"].notna().any() if "ratio_low" in minors else False
    return table if several else table.rename(columns={RATIO: RATIO.partition(" (")[0]})


def interval(row: Any) -> str:
    """Mean ratio and its 95% interval over points; "" without a baseline."""
    if row["ratio"] != row["ratio"]:
        return ""
    if row["ratio_low"] != row["ratio_low"]:
        return f"{row['ratio']:.2f}"
    return f"{row['ratio']:.2f} ({row['ratio_low']:.2f} to {row['ratio_high']:.2f})"


def number(value: float, stderr: float = 0.0) -> str:
    """Three significant digits; ``~`` marks sampled numbers."""
    if value != value:
        return UNDEFINED
    digits = f"{value:#.3g}".rstrip(".") if value else "0"
    return f"{'~' if stderr > 0 else ''}{digits}"


def _cell(row: Any) -> str:
    return UNDEFINED if row is None else number(row["value"], row["stderr"])
