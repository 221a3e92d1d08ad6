"""Tables of a study that its page shows beside the charts of what was varied."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from kagscope.report.numbers import number_cell, text_cell
from kagscope.studies.collect import Collected

MOST = 300  # rows of a table on the page; all are in the CSV file beside it


def study_tables(found: Collected) -> list[dict[str, Any]]:
    """Where geometry occurs, and how scores go with outcomes: sortable tables for the page, those that have rows."""
    return [table for table in (_occurrence(found.occurs, found.axes), _relations(found.related)) if table["rows"]]


def _occurrence(occurs: pd.DataFrame, axes: list[str]) -> dict[str, Any]:
    rows = [
        [
            *(_cell(row[name]) for name in axes),
            _cell(row["layer"]),
            _cell("yes" if row["occurs"] else "no"),
            _cell(row["pr"]),
            *_bounds(row, "pr"),
            _cell(row["p_holm"]),
            _cell(row["onset_step"]),
            _cell(row["accuracy"]),
        ]
        for row in occurs.head(MOST).to_dict("records")
    ]
    head = [*(name.replace("_", " ") for name in axes), "layer", "occurs", "PR ratio", "low", "high", "p", "onset", "accuracy"]
    note = (
        "Geometry occurs where PR, KL and rotation ratio of the 2 × 2 minors are all above their initial values "
        f"(corrected p < 0.05). All rows are in phase_diagram.csv.{_cut_note(occurs)}"
    )
    return {"name": "occurrence", "label": "Where geometry occurs", "head": head, "rows": rows, "note": note}


def _relations(related: pd.DataFrame) -> dict[str, Any]:
    """Every pair of a score with an outcome, the surest first, with what the statistics say of it."""
    texts = [name for name in ("layer", "k", "score", "measure", "outcome") if name in related]
    numbers = [str(name) for name in related if name not in (*texts, "test") and pd.api.types.is_numeric_dtype(related[name])]
    first = related.sort_values("p_joint", kind="stable") if len(related) else related
    rows = [
        [*(_cell(row[name]) for name in texts), *(_cell(row[name]) for name in numbers)]
        for row in first.head(MOST).to_dict("records")
    ]
    tests = "; ".join(str(test) for test in related["test"].unique()) if "test" in related else ""
    head = [name.replace("_", " ") for name in (*texts, *numbers)]
    note = f"{tests}. A correlation is not a cause. All rows are in relations.csv.{_cut_note(related)}"
    return {"name": "relations", "label": "How geometry goes with outcomes", "head": head, "rows": rows, "note": note}


def _bounds(row: dict[Any, Any], name: str) -> list[dict[str, Any]]:
    return [_cell(row[f"{name}_low"]), _cell(row[f"{name}_high"])]


def _cut_note(table: pd.DataFrame) -> str:
    return f" The first {MOST} of {len(table)} are shown." if len(table) > MOST else ""


def _cell(value: Any) -> dict[str, Any]:
    if isinstance(value, bool | np.bool_):
        return text_cell("yes" if value else "no")
    return text_cell(value) if isinstance(value, str) or value is None else number_cell(value)
