"""Measure a prepared subject and show the results: the working half of ``kagscope measure``."""

from __future__ import annotations

import contextlib
import sys
from typing import Any

import typer
from torch import nn

from kagscope.base.errors import DataError, NothingToPlot
from kagscope.base.files import atomic_path, atomic_write
from kagscope.base.provenance import json_values
from kagscope.commands import terminal
from kagscope.commands.common import print_json
from kagscope.commands.outputs import Targets
from kagscope.commands.sources import Subject
from kagscope.figures.steps import figure_by_step
from kagscope.figures.write import write_all
from kagscope.jacobians.inputs import as_inputs
from kagscope.jacobians.layers import Call, find_calls, find_layers
from kagscope.jacobians.runner import Runner
from kagscope.jacobians.untouched import untouched
from kagscope.measuring.api import measure, measure_series
from kagscope.measuring.report import Report
from kagscope.measuring.spec import MeasureSpec


def list_layers(model: nn.Module, inputs: Any = None) -> None:
    """Print the layers of a model: as called in a forward pass or, without inputs, only by name."""
    parts = dict(model.named_modules())
    if inputs is None:
        calls = [Call(path, path, 0, type(module).__name__) for path, module in parts.items()]
        calls = [call for call in calls if call.path and not isinstance(parts[call.path], nn.ModuleList | nn.ModuleDict)]
    else:
        with untouched(model):
            paths, _ = find_layers(model, "**")
            sample = as_inputs(inputs).take(slice(0, 2))
            calls = find_calls(Runner(model, None, 0), sample, {path: None for path in paths if path}, set())
        calls = [call for call in calls if call.shape or not list(parts[call.path].children())]  # no ModuleList
    counts = {path: sum(p.numel() for p in module.parameters()) for path, module in parts.items()}
    terminal.print_layers(calls, counts)


def measure_and_show(
    subject: Subject, spec: MeasureSpec, targets: Targets, notes: list[str], *, quiet: bool, as_json: bool
) -> None:
    """Measure, write the requested files, print tables and findings.

    Raises:
        DataError: checkpoints were left out; everything else is written and shown first.
    """
    if not quiet:
        terminal.print_notes(notes)
    with contextlib.redirect_stdout(sys.stderr):
        report = _measure(subject, spec, progress=None if not (quiet or as_json) else False)
        files = write(report, targets)
    show_report(report, files, notes, quiet=quiet, as_json=as_json)
    if report.left_out:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in report.left_out.items())
        count = len(report.left_out)
        verb = "was" if count == 1 else "were"
        total = count + len(report.steps)
        raise DataError(f"{count} of {total} checkpoints {verb} left out, the others are measured: {reasons}")


def _measure(subject: Subject, spec: MeasureSpec, *, progress: bool | None) -> Report:
    common: dict[str, Any] = {"spec": spec, "baseline": subject.baseline, "labels": subject.source.labels, "progress": progress}
    if subject.checkpoints:
        paths = {checkpoint.step: checkpoint.path for checkpoint in subject.checkpoints}
        report = measure_series(subject.model, paths, subject.inputs, **common)
    else:
        report = measure(subject.model, subject.inputs, **common)
    report.provenance |= {
        **subject.published,
        "data": subject.source.name,
        "baseline": subject.baseline_name or report.provenance["baseline"],
    }
    return report


def write(report: Report, targets: Targets) -> dict[str, str]:
    """Write the requested files; return their paths by kind. Raises :class:`~kagscope.base.errors.OutputError`."""
    files: dict[str, str] = {}
    if targets.out is not None:
        report.save(targets.out)
        atomic_write(targets.out / "summary.csv", report.summary().to_csv(index=False))
        report.to_html(targets.out / "report.html")
        files |= {"folder": str(targets.out), "page": str(targets.out / "report.html")}
        for suffix in ("png", "pdf"):
            (targets.out / f"scores_by_step.{suffix}").unlink(missing_ok=True)  # of an earlier report
        if len(report.steps) > 1:
            with contextlib.suppress(NothingToPlot):  # for the requested scores
                write_all({"scores_by_step": figure_by_step(report.summary())}, targets.out)
    if targets.html is not None:
        files["html"] = str(report.to_html(targets.html))
    if targets.csv is not None:
        files["csv"] = str(report.to_csv(targets.csv))
    if targets.parquet is not None:
        with atomic_path(targets.parquet) as temporary:
            report.table.to_parquet(temporary, index=False)
        files["parquet"] = str(targets.parquet)
    return files


def show_report(report: Report, files: dict[str, str], notes: list[str], *, quiet: bool, as_json: bool) -> None:
    """Print the results: as one JSON object, as the paths of the written files, or as tables and findings."""
    if as_json:
        print_json(_as_json(report, files, notes))
    elif quiet:
        for file in files.values():
            typer.echo(file)
    else:
        _show(report, files)


def _show(report: Report, files: dict[str, str]) -> None:
    provenance, layers = report.provenance, report.layers
    measured = sum(not layer["reason"] for layer in layers)
    if provenance.get("matrices"):
        title = f"{provenance['model']}: {measured} {'matrix' if measured == 1 else 'matrices'}"
        terminal.print_lines([title, f"baseline {provenance['baseline']}, {provenance['seconds']:.1f} s"])
    else:
        scope = f"{measured} of {len(layers)} layers at {provenance['points']} points of {provenance['data']}"
        terminal.print_lines(
            [
                f"{provenance['model']}, " + (f"{len(report.steps)} checkpoints, " if report.steps else "") + scope,
                f"map {report.settings['layer_map']}, baseline {provenance['baseline']}, {provenance['seconds']:.1f} s",
            ]
        )
    terminal.print_summary(report.summary())
    terminal.print_findings(report.findings)
    terminal.print_lines([f"wrote {path}" for path in files.values()])


def _as_json(report: Report, files: dict[str, str], notes: list[str]) -> dict[str, Any]:
    content: dict[str, Any] = {
        "summary": json_values(report.summary().to_dict("records")),
        "layers": report.layers,
        "findings": report.findings,
        "notes": [*notes, *report.notes],
        "settings": report.settings,
        "provenance": report.provenance,
        "files": files,
    }
    return content | ({"left_out": report.left_out} if report.steps else {})
