"""From a run store to tables of all runs, statistics and claims."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import pandas as pd

from kagscope.base.files import atomic_path, atomic_write
from kagscope.base.messages import Finding, strongest_first
from kagscope.data.functions import accuracy_name
from kagscope.studies.claims import Claim, evaluate_claims
from kagscope.studies.execute.base import OnEvent
from kagscope.studies.findings import claim_findings, relation_findings, run_findings, study_findings
from kagscope.studies.inference import infer
from kagscope.studies.nets import Nets
from kagscope.studies.phase_diagram import phase_diagram, phase_findings
from kagscope.studies.relations import relations
from kagscope.studies.setting_tables import labels_of, runs_table, settings_summary, tied_axes, varied_axes
from kagscope.studies.store import RunStore
from kagscope.studies.tables import CURVES, RESULTS, find_finished_runs, no_runs_error, read_tables


@dataclass(frozen=True)
class Outcome:
    """Outcome of a study.

    Attributes:
        folder: folder of the study.
        report: path of ``report.html``; None without pictures.
        claims: the six claims, in order; empty if the study tests none.
        findings: findings and caveats.
        runs: ids of the runs in the tables.
        left_out: reasons for runs that are not in the tables, by run id.
        seconds: total time of training ("train") and "geometry" over all runs and workers.
    """

    folder: Path
    report: Path | None
    claims: list[Claim]
    findings: list[Finding]
    runs: list[str]
    left_out: dict[str, str]
    seconds: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class StudyTables:
    """The tables of a study's finished runs.

    Attributes:
        results, curves: tables of :mod:`kagscope.tables.schema`.
        runs: one row per run.
        left_out: reasons for runs that are not among them, by run id.
    """

    results: pd.DataFrame
    curves: pd.DataFrame
    runs: pd.DataFrame
    left_out: dict[str, str]

    @cached_property
    def varied_axes(self) -> list[str]:
        """Axes that vary."""
        return varied_axes(self.runs)

    @cached_property
    def tied_axes(self) -> dict[str, list[str]]:
        """Each axis with those that change together with it."""
        return tied_axes(self.runs, self.varied_axes)

    @property
    def axes(self) -> list[str]:
        """Axes that vary, other than the seed, with one for each group of tied axes."""
        return [name for name in self.tied_axes if name != "seed"]

    @cached_property
    def labels(self) -> dict[str, str]:
        """Label of each run in addition to its width."""
        return labels_of(self.runs, self.varied_axes)

    @property
    def image_shapes(self) -> list[tuple[int, ...]]:
        """Distinct image shapes of the runs."""
        return sorted({tuple(shape) for shape in self.runs["image_shape"]})


@dataclass(frozen=True)
class StudyResults:
    """Results of the finished runs of a study.

    Attributes:
        summary, related, occurs: means of settings, correlations of geometry with outcomes, occurrence of geometry.
        outcome: outcome of the study, without the page.
    """

    summary: pd.DataFrame
    related: pd.DataFrame
    occurs: pd.DataFrame
    outcome: Outcome


def gather_tables(store: RunStore, on_event: OnEvent = lambda event: None) -> StudyTables:
    """Write the tables of a study's finished runs: ``results``, ``curves`` and ``runs.parquet``.

    Args:
        store: Run store of the study; damaged, failed and missing runs are left out and listed.
        on_event: called with each stage: ``{"kind": "stage", "name": …}``.

    Raises:
        DataError: no run is finished.
        OutputError: a file cannot be written; files written before it stay whole.
    """
    finished, left_out = find_finished_runs(store)
    if not finished:
        raise no_runs_error(store, left_out)
    on_event({"kind": "stage", "name": "tables"})
    results, curves = read_tables(store, finished, RESULTS, CURVES)
    runs = runs_table(store, list(finished))
    with atomic_path(store.folder / "runs.parquet") as temporary:
        runs.to_parquet(temporary, index=False)
    return StudyTables(results, curves, runs, left_out)


def analyse(store: RunStore, gathered: StudyTables, on_event: OnEvent = lambda event: None) -> StudyResults:
    """Write the results of a study, without pictures (:func:`kagscope.studies.present.present`).

    These are ``summary``, ``relations``, ``phase_diagram`` and the tests as CSV, and ``claims.json`` if the study tests claims.

    Args:
        store: Run store of the study.
        gathered: tables of the study.
        on_event: called with each stage.

    Raises:
        OutputError: a file cannot be written; files written before it stay whole.
    """
    study, results, runs = store.study, gathered.results, gathered.runs
    varied, tied, axes = gathered.varied_axes, gathered.tied_axes, gathered.axes
    axis_names = list(tied)
    on_event({"kind": "stage", "name": "statistics"})
    summary = settings_summary(results, runs, axis_names)
    relation_settings = study["settings"].get("relations", {})
    related = relations(Nets.of(results, runs, axis_names), **{name: tuple(value) for name, value in relation_settings.items()})
    occurs, tested = phase_diagram(results, runs, axes), infer(results, runs, axis_names)
    for name, table in {"summary": summary, "relations": related, "phase_diagram": occurs, **tested.tables()}.items():
        atomic_write(store.folder / f"{name}.csv", table.to_csv(index=False))
    claims: list[Claim] = []
    findings: list[Finding] = []
    if study["claims"]:
        on_event({"kind": "stage", "name": "claims"})
        claims = evaluate_claims(
            results, runs=runs, varied=[name for name in varied if name != "seed"], image_shape=tuple(runs["image_shape"].iloc[0])
        )
        text = json.dumps([claim.as_json() for claim in claims], indent=1, allow_nan=False)
        atomic_write(store.folder / "claims.json", text + "\n")
        findings += claim_findings(claims, runs["seed"].nunique())
    else:
        findings += run_findings(runs, tied)
    findings += study_findings(with_labels(results, gathered.labels), gathered.left_out)
    if not study["claims"]:
        findings += [*phase_findings(occurs, axes, accuracy_name(runs["data"])), *tested.findings, *relation_findings(related)]
    seconds = {stage: float(runs[f"{stage}_seconds"].sum()) for stage in ("train", "geometry")}
    done = [str(run) for run in runs["run"]]
    outcome = Outcome(store.folder, None, claims, strongest_first(findings), done, gathered.left_out, seconds)
    return StudyResults(summary, related, occurs, outcome)


def with_labels(table: pd.DataFrame, labels: dict[str, str]) -> pd.DataFrame:
    """The table with ``training`` replaced by the labels of runs."""
    runs = table["run"].astype("category").cat
    names = pd.Categorical([labels[str(run)] for run in runs.categories])
    return table.assign(training=names.take(runs.codes.to_numpy()))
