"""Measurements at several steps of one training, as one report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from kagscope.measuring.report import Report


def join_reports(
    reports: Mapping[int, Report], *, notes: Sequence[str] = (), left_out: Mapping[str, str] | None = None
) -> Report:
    """One report of the measurements at several steps; layers, settings and units are those of the last."""
    last = reports[max(reports)]
    weights = {str(step): report.provenance["weights"] for step, report in reports.items() if "weights" in report.provenance}
    seconds = sum(float(report.provenance.get("seconds", 0.0)) for report in reports.values())
    return Report(
        stack_tables({step: report.table for step, report in reports.items()}),
        stack_tables({step: report.curves for step, report in reports.items()}),
        layers=last.layers,
        settings=last.settings,
        notes=list(dict.fromkeys([*notes, *(note for report in reports.values() for note in report.notes)])),
        provenance=last.provenance | {"seconds": round(seconds, 3)} | ({"weights": weights} if weights else {}),
        units=last.units,
        left_out=left_out,
    )


def stack_tables(tables: Mapping[int, pd.DataFrame]) -> pd.DataFrame:
    """Tables one under the other with their step in front; columns of text stay categories."""
    text = ("layer", "selection", "score", "reason", "curve", "network")
    parts = [table.astype({name: str for name in text if name in table.columns}) for table in tables.values()]
    stacked = pd.concat(parts, ignore_index=True)
    if "token" in stacked.columns:  # some step may have no layer with tokens
        stacked["token"] = stacked["token"].fillna(-1).astype("int32")
    stacked = stacked.astype({name: "category" for name in text if name in stacked.columns})
    stacked.insert(0, "step", np.repeat(list(tables), [len(table) for table in tables.values()]).astype("int64"))
    return stacked
