"""Measuring a prepared subject and showing what came out: the working half of ``kagscope measure``."""

from __future__ import annotations

import contextlib
import json
import math
import sys
from typing import Any

import numpy as np
import typer

from kagscope.base.errors import DataError
from kagscope.base.files import atomic_path, atomic_write
from kagscope.commands import terminal
from kagscope.commands.outputs import Targets
from kagscope.commands.sources import Subject
from kagscope.jacobians.inputs import as_inputs
from kagscope.jacobians.layers import find_layers, see_calls
from kagscope.jacobians.runner import Runner, untouched
from kagscope.measuring.api import measure
from kagscope.measuring.report import Report
from kagscope.measuring.series import Series
from kagscope.measuring.series_api import measure_series

Result = Report | Series


def list_layers(subject: Subject) -> None:
    """Print the layers of the model as one forward pass calls them."""
    inputs = as_inputs(subject.inputs).take(slice(0, 2))
    with untouched(subject.model):
        paths, _ = find_layers(subject.model, "**")
        calls = see_calls(Runner(subject.model, None, 0), inputs, {path: None for path in paths if path}, set())
    parts = dict(subject.model.named_modules())
    calls = [call for call in calls if call.shape or not list(parts[call.path].children())]  # no containers such as ModuleList
    counts = {path: sum(p.numel() for p in module.parameters()) for path, module in parts.items()}
    terminal.print_layers(calls, counts)


def measure_and_show(
    subject: Subject, options: dict[str, Any], targets: Targets, notes: list[str], *, quiet: bool, as_json: bool
) -> None:
    """Measure, write the files that were asked for, print tables and sentences.

    Raises:
        DataError: checkpoints were left out; everything else is written and shown before.
    """
    if not quiet:
        terminal.print_notes(notes)
    with terminal.Working(quiet=quiet or as_json) as working, contextlib.redirect_stdout(sys.stderr):
        result = _measured(subject, options, working)
        working.show("writing files")
        files = write(result, targets)
    if as_json:
        typer.echo(json.dumps(_as_json(result, files, notes), indent=1, allow_nan=False))
    elif quiet:
        for file in files.values():
            typer.echo(file)
    else:
        _show(result, files)
    if isinstance(result, Series) and result.left_out:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in result.left_out.items())
        count = len(result.left_out)
        verb = "was" if count == 1 else "were"
        raise DataError(f"{count} of {count + len(result)} checkpoints {verb} left out, the others are measured: {reasons}")


def _measured(subject: Subject, options: dict[str, Any], working: terminal.Working) -> Result:
    labels = subject.source.labels
    common = {"baseline": subject.baseline, "labels": labels, "progress": working, **options}
    if subject.checkpoints:
        paths = {one.step: one.path for one in subject.checkpoints}
        series = measure_series(subject.model, paths, subject.inputs, **common)
        reports = list(series.reports.values())
    else:
        series, reports = None, [measure(subject.model, subject.inputs, **common)]
    for report in reports:
        report.table["point"] = _in_source(report.table["point"].to_numpy(), subject.source.points)
        report.provenance |= {"data": subject.source.name, "baseline": subject.said or report.provenance["baseline"]}
    return reports[0] if series is None else series


def _in_source(points: np.ndarray, indices: np.ndarray) -> np.ndarray:
    """Positions among the measured inputs as indices in their source; -1 (a layer over all points) stays."""
    return np.where(points >= 0, indices[np.maximum(points, 0)], points).astype("int32")


def write(result: Result, targets: Targets) -> dict[str, str]:
    """Write what was asked for; returns the path of each, by what it is. Raises :class:`~kagscope.base.errors.OutputError`."""
    files: dict[str, str] = {}
    if targets.out is not None:
        result.save(targets.out)
        atomic_write(targets.out / "summary.csv", result.summary().to_csv(index=False))
        result.to_html(targets.out / "report.html")
        files |= {"folder": str(targets.out), "page": str(targets.out / "report.html")}
    if targets.html is not None:
        files["html"] = str(result.to_html(targets.html))
    if targets.csv is not None:
        files["csv"] = str(result.to_csv(targets.csv))
    if targets.parquet is not None:
        with atomic_path(targets.parquet) as temporary:
            result.table.to_parquet(temporary, index=False)
        files["parquet"] = str(targets.parquet)
    return files


def _show(result: Result, files: dict[str, str]) -> None:
    reports = list(result.reports.values()) if isinstance(result, Series) else [result]
    about = reports[-1].provenance
    layers = reports[-1].layers
    measured = sum(not one["reason"] for one in layers)
    seconds = sum(float(report.provenance["seconds"]) for report in reports)
    checkpoints = f"{len(reports)} checkpoints, " if isinstance(result, Series) else ""
    terminal.print_lines(
        [
            f"{about['model']}, {checkpoints}{measured} of {len(layers)} layers at {about['points']} points of {about['data']}",
            f"map {reports[-1].settings['layer_map']}, baseline {about['baseline']}, {seconds:.1f} s",
        ]
    )
    terminal.print_summary(result.summary())
    terminal.print_lines([f"• {sentence}" for sentence in result.findings])
    terminal.print_lines([f"wrote {path}" for path in files.values()])


def _as_json(result: Result, files: dict[str, str], notes: list[str]) -> dict[str, Any]:
    last = list(result.reports.values())[-1] if isinstance(result, Series) else result
    found: dict[str, Any] = {
        "summary": [_plain(row) for row in result.summary().to_dict("records")],
        "layers": last.layers,
        "findings": result.findings,
        "notes": [*notes, *result.notes],
        "settings": last.settings,
        "provenance": last.provenance,
        "files": files,
    }
    return found | ({"left_out": result.left_out} if isinstance(result, Series) else {})


def _plain(row: dict[Any, Any]) -> dict[str, Any]:
    """JSON's own types, null for NaN."""
    plain = {str(name): value.item() if isinstance(value, np.generic) else value for name, value in row.items()}
    return {name: None if isinstance(value, float) and not math.isfinite(value) else value for name, value in plain.items()}
