"""Section of a page that compares the categories of an axis: figures and tables of effects."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pandas as pd
from markupsafe import Markup, escape

from kagscope.base.errors import NothingToPlot
from kagscope.figures.forest import plot_comparison
from kagscope.report.numbers import number
from kagscope.report.page import embed
from kagscope.tables.means import corrected_p
from kagscope.tables.schema import ALPHA

TEMPLATE = "comparison.html"
COMPARED = {"ratio": "trained / initial", "difference": "trained − initial", "value": "value"}
SHOWN = 600  # maximum rows of a table on the page; all are in the CSV file

Section = tuple[str, str, str, dict[str, Any]]
"""Id, name in the menu, template and its variables."""


def comparison_section(comparisons: pd.DataFrame, axis: str, file: str = "") -> Section:
    """Make a section for ``exhibits`` of :func:`~kagscope.report.page.write_report`.

    Args:
        comparisons: table of :func:`kagscope.studies.inference.comparisons.comparisons`.
        axis: axis whose categories are compared.
        file: name of the file beside the page with all rows.
    """
    table = comparisons[comparisons["axis"] == axis]
    table = table.assign(p=corrected_p(table))
    all_columns = table["selection"].isin(["all", ""])
    figures = []
    for category in table["category"].unique():
        caption = f"{category} over {table['first'].iloc[0]}, each score with its 95% interval; filled: differs after correction"
        try:
            figure: Any = plot_comparison(table, axis=axis, category=str(category)).figure
        except NothingToPlot:
            continue
        figures.append((caption, embed(figure)))
    tables = [_effects(table[all_columns], "Scores over all columns")]
    if not all_columns.all():
        tables.append(_effects(table[~all_columns], "By ball radius, minimum distance and other selections of columns"))
    tests = "; ".join(name for name in table["test"].unique() if name)
    categories = f"{', '.join(table['category'].unique())} compared with {table['first'].iloc[0]}"
    shown = {
        "title": f"{axis.replace('_', ' ').capitalize()}: {categories}",
        "tests": f"Test: {tests}" if tests else "Nothing could be tested",
        "file": file,
        "figures": figures,
        "tables": tables,
    }
    return f"compared-{axis}", "Comparison", TEMPLATE, shown


def _effects(rows: pd.DataFrame, label: str) -> dict[str, Any]:
    """A table of effects; if too long for a page, the rows with the smallest p."""
    count = len(rows)
    rows = rows.sort_values("p", kind="stable").head(SHOWN) if count > SHOWN else rows
    columns: list[tuple[str, bool, Callable[[dict[Any, Any]], Any]]] = [
        ("layer", False, lambda r: str(r["layer"]) or "net"),
        ("score", False, lambda r: str(r["score"])),
        ("k", True, lambda r: str(r["k"] or "–")),
        ("effect", True, _effect),
        ("95% interval", True, lambda r: number(r["low"]) + " to " + number(r["high"])),
        ("p (corrected)", True, _p),
        ("n", True, lambda r: str(r["n"])),
        ("settings that agree", True, lambda r: "–" if r["agree"] != r["agree"] else f"{r['agree']:.0%}"),
        (
            "compared",
            False,
            lambda r: COMPARED[r["measure"]],
        ),
    ]
    if rows["category"].nunique() > 1:
        columns.insert(0, ("category", False, lambda r: str(r["category"])))
    if not rows["selection"].isin(["all", ""]).all():
        columns.insert(1, ("columns", False, lambda r: str(r["selection"])))
    body = [[(show(row), wide, show is _p and row["p"] < ALPHA) for _, wide, show in columns] for row in rows.to_dict("records")]
    return {"label": label, "count": count, "head": [(name, wide) for name, wide, _ in columns], "rows": body}


def _effect(row: dict[Any, Any]) -> Markup:
    text = number(row["effect"])
    if row["measure"] == "ratio":
        return escape("× ") + text
    return text if text.startswith("−") or row["effect"] == 0 else escape("+") + text


def _p(row: dict[Any, Any]) -> str:
    p = row["p"]
    return "–" if p != p else "< 0.001" if p < 0.001 else number(p, 2)
