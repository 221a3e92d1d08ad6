"""The HTML page of a measured model: the same page as that of a study, with one network in it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from kagscope.base.errors import DataError
from kagscope.measuring.unit_statistics import Incoming
from kagscope.report import write_report
from kagscope.tables.schema import CURVE_COLUMNS, RESULT_COLUMNS

if TYPE_CHECKING:
    from kagscope.measuring.report import Report
    from kagscope.measuring.series import Series
    from kagscope.tracking.trajectory import Trajectory

RUN: dict[str, Any] = {"run": "model", "training": "standard", "seed": 0, "epoch": float("nan"), "accuracy": float("nan")}


def write_page(report: Report, path: str | os.PathLike[str]) -> Path:
    """Write the page. Raises :class:`~kagscope.base.errors.OutputError`."""
    width = max((int(one["rows"]) for one in report.layers), default=0)
    table = report.table[report.table["score"] != "skipped"].drop(columns="token", errors="ignore")
    trained = table.assign(**RUN, width=width, step=1)
    initial = table.assign(**RUN, width=width, step=0, value=table["baseline"], ratio=table["ratio"] / table["ratio"])
    known = initial[initial["value"].notna()]
    results = pd.concat([known, trained]).astype(RESULT_COLUMNS)[list(RESULT_COLUMNS)]
    steps = report.curves["network"].map({"model": 1, "baseline": 0})
    curves = report.curves.assign(run="model", width=width, training="standard", seed=0, step=steps)
    about = report.provenance
    shape, chosen = report.settings.get("image_shape"), report.settings.get("selections") or ()
    return write_report(
        Path(path),
        results=results,
        curves=curves.astype(CURVE_COLUMNS)[list(CURVE_COLUMNS)],
        claims=[],
        provenance={
            "title": f"Kolmogorov–Arnold geometry of {about.get('model', 'a model')}",
            "summary": report._headline()
            + ". Intervals are over data points of one network; they do not say how much networks differ.",
            "without": ["claims", "training", "runs", *([] if any("window(" in str(one) for one in chosen) else ["where"])],
            "names": ("model", "baseline"),
            "intervals": "points",
            "findings": report.findings,
            "image_shape": list(shape) if shape else None,
            "units": {RUN["run"]: Incoming.from_table(report.units)} if not report.units.empty else {},
            "versions": about.get("versions"),
            "hardware": about.get("hardware"),
            "config": report.settings,
            "timings": {"measuring": about.get("seconds", 0.0)},
        },
    )


def write_series_page(series: Series, path: str | os.PathLike[str]) -> Path:
    """Write the page of a run's checkpoints: as of a study with one run. Raises :class:`~kagscope.base.errors.OutputError`."""
    last = series.reports[series.steps[-1]]
    width = max((int(one["rows"]) for one in last.layers), default=0)
    table = series.table[series.table["score"] != "skipped"].drop(columns="token", errors="ignore")
    curves = series.curves[series.curves["network"] == "model"].assign(run="model", width=width, training="standard", seed=0)
    shape = last.settings.get("image_shape")
    about = last.provenance
    return write_report(
        Path(path),
        results=table.assign(**RUN, width=width).astype(RESULT_COLUMNS)[list(RESULT_COLUMNS)],
        curves=curves.astype(CURVE_COLUMNS)[list(CURVE_COLUMNS)],
        claims=[],
        provenance={
            "title": f"Kolmogorov–Arnold geometry of {about.get('model', 'a model')} along its training",
            "without": ["claims", "runs"],
            "summary": f"{len(series)} checkpoints. {last._headline()}. Intervals are over data points of one network.",
            "names": ("model", "baseline"),
            "intervals": "points",
            "findings": series.findings,
            "image_shape": list(shape) if shape else None,
            "units": {RUN["run"]: Incoming.from_table(last.units)} if not last.units.empty else {},
            "versions": about.get("versions"),
            "hardware": about.get("hardware"),
            "config": last.settings,
            "timings": {"measuring": sum(float(one.provenance.get("seconds", 0.0)) for one in series.reports.values())},
        },
    )


def write_trajectory_page(trajectory: Trajectory, path: str | os.PathLike[str]) -> Path:
    """Write the page of a tracker's history: as of a study with one run.

    Raises:
        DataError: nothing was measured yet.
        OutputError: the page cannot be written.
    """
    if not trajectory.parts:
        raise DataError("the history holds no measurement yet; make its page after the first")
    table = trajectory.table[trajectory.table["score"] != "skipped"].drop(columns="token", errors="ignore")
    results = table.assign(**{**RUN, "epoch": table["epoch"]}, width=0)
    curves = pd.DataFrame({name: pd.Series(dtype=dtype) for name, dtype in CURVE_COLUMNS.items()})
    return write_report(
        Path(path),
        results=results.astype(RESULT_COLUMNS)[list(RESULT_COLUMNS)],
        curves=curves,
        claims=[],
        provenance={
            "title": "Kolmogorov–Arnold geometry along a training",
            "without": ["claims", "runs", "minors", "where", *(["scales"] if (results["selection"] == "all").all() else [])],
            "summary": f"{len(trajectory.steps)} measurements of one network in training. Intervals are over its probe points.",
            "findings": trajectory.findings,
            "names": ("network", "baseline"),
            "intervals": "points",
        },
    )
