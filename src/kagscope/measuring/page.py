"""The HTML page of a measured model: the same page as that of a study, with one network in it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from kagscope.base.errors import DataError
from kagscope.report.page import write_report
from kagscope.tables.schema import CURVE_COLUMNS, RESULT_COLUMNS

if TYPE_CHECKING:
    from kagscope.measuring.report import Report

UNKNOWN = {"epoch": float("nan"), "accuracy": float("nan")}
RUN: dict[str, Any] = {"run": "model", "training": "standard", "labels": "true", "seed": 0, **UNKNOWN}


def write_page(report: Report, path: str | os.PathLike[str]) -> Path:
    """Write the page of a measurement, of one network or of several steps of its training.

    Raises:
        DataError: nothing was measured.
        OutputError: the page cannot be written.
    """
    if report.table.empty:
        raise DataError("nothing was measured yet; make the page after the first measurement")
    width = max((int(one["rows"]) for one in report.layers), default=0)
    table = report.table[report.table["score"] != "skipped"]
    table = table.assign(**{**RUN, **({"epoch": table["epoch"]} if "epoch" in table else {})}, width=width)
    if not report.steps:  # the network as step 1, its baseline as step 0
        initial = table.assign(step=0, value=table["baseline"], ratio=table["ratio"] / table["ratio"])
        table = pd.concat([initial[initial["value"].notna()], table.assign(step=1)])
    curves = report.curves.assign(run="model", width=width, training="standard", seed=0)
    if report.steps:
        curves = curves[curves["network"] == "model"]
    else:
        curves["step"] = curves["network"].map({"model": 1, "baseline": 0})
    about, shape = report.provenance, report.settings.get("image_shape")
    windows = bool(report.settings.get("window_map")) or any("window(" in one for one in map(str, table["selection"].unique()))
    empty = {
        "training": not report.steps,
        "minors": curves.empty,
        "where": not windows,
        "scales": bool(report.steps) and (table["selection"] == "all").all(),
    }
    along = " along its training" if report.steps else ""
    return write_report(
        Path(path),
        results=table.astype(RESULT_COLUMNS)[[*RESULT_COLUMNS, *({"token"} & set(table.columns))]],
        curves=curves.astype(CURVE_COLUMNS)[list(CURVE_COLUMNS)],
        claims=[],
        provenance={
            "title": f"Kolmogorov–Arnold geometry of {about.get('model', 'a model')}{along}",
            "summary": report.headline
            + ". Intervals are over data points of one network; they do not say how much networks differ.",
            "without": ["claims", "runs", *(name for name, absent in empty.items() if absent)],
            "names": ("model", "baseline"),
            "intervals": "points",
            "findings": report.findings,
            "image_shape": list(shape) if shape else None,
            "units": {RUN["run"]: report.units} if not report.units.empty else {},
            "versions": about.get("versions"),
            "hardware": about.get("hardware"),
            "config": report.settings,
            "timings": {"measuring": about.get("seconds", 0.0)},
        },
    )
