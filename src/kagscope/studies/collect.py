"""From a run store to what a reader opens: tables of all runs, claims, figures, report."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from kagscope.base.files import atomic_write
from kagscope.base.messages import Finding
from kagscope.base.provenance import hardware
from kagscope.studies.claims import Claim, evaluate_claims
from kagscope.studies.execute.local import Report
from kagscope.studies.findings import claim_findings, study_findings
from kagscope.studies.page_data import exhibits, settings_of_runs
from kagscope.studies.store import RunStore
from kagscope.studies.tables import CURVES, RESULTS, joined, none_finished, whole_runs
from kagscope.tables.schema import CURVE_COLUMNS, RESULT_COLUMNS


@dataclass(frozen=True)
class Outcome:
    """What a study ended with.

    Attributes:
        folder: the study's.
        report: path of ``report.html``.
        claims: the six, in order.
        findings: what stands out and what to distrust.
        runs: ids of the runs in the tables.
        left_out: run id to why it is not in the tables.
        seconds: of training ("train") and "geometry" over all runs, added up over workers.
    """

    folder: Path
    report: Path
    claims: list[Claim]
    findings: list[Finding]
    runs: list[str]
    left_out: dict[str, str]
    seconds: dict[str, float] = field(default_factory=dict)


def collect(store: RunStore, run_ids: Sequence[str], on_event: Report = lambda event: None) -> Outcome:
    """Write ``results.parquet``, ``curves.parquet``, ``claims.json``, ``figures/`` and ``report.html`` from finished runs.

    Args:
        store: of the study.
        run_ids: the runs that the study is to hold, in order; damaged and missing ones are left out and named.
        on_event: told of each stage: ``{"kind": "stage", "name": …}``.

    Raises:
        DataError: no run is finished.
        OutputError: a file cannot be written; files written before it stay whole.
    """
    from kagscope.figures import write_figures
    from kagscope.report import write_report

    study = store.study
    whole, left_out = whole_runs(store, run_ids)
    if not whole:
        raise none_finished(store, left_out)
    image_shape = tuple(study["image_shape"])
    on_event({"kind": "stage", "name": "tables"})
    results = joined(store, whole, "table.parquet", RESULTS, RESULT_COLUMNS)
    curves = joined(store, whole, "curves.parquet", CURVES, CURVE_COLUMNS)
    on_event({"kind": "stage", "name": "claims"})
    claims = evaluate_claims(results, image_shape=image_shape)
    atomic_write(
        store.folder / "claims.json", json.dumps([claim.as_json() for claim in claims], indent=1, allow_nan=False) + "\n"
    )
    found = [*claim_findings(claims, len(whole)), *study_findings(results, left_out)]
    manifests = [store.manifest(run) for run in whole]
    seconds = {part: float(sum(manifest[f"{part}_seconds"] for manifest in manifests)) for part in ("train", "geometry")}
    provenance = {
        "command": study["command"],
        "data": study["data"],
        "image_shape": list(image_shape),
        "seeds": sorted({int(seed) for seed in results["seed"].unique()}),
        "versions": manifests[0]["versions"],
        "hardware": hardware(),
        "timings": {"training": seconds["train"], "geometry": seconds["geometry"]},
        "config": study["settings"],
        "findings": found,
        **exhibits(store, list(whole), settings_of_runs(results)),
    }
    figures = write_figures(
        results, curves, store.folder / "figures", image_shape, lambda name: on_event({"kind": "stage", "name": f"figure {name}"})
    )
    on_event({"kind": "stage", "name": "report"})
    report = write_report(
        store.folder / "report.html",
        results=results,
        curves=curves,
        claims=[claim.as_json() for claim in claims],
        provenance={**provenance, "figures": figures},
    )
    for name, reason in figures.left_out.items():
        on_event({"kind": "note", "text": f"figure {name} left out: {reason}"})
    return Outcome(store.folder, report, claims, found, list(whole), left_out, seconds)
