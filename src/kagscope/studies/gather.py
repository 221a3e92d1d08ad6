"""Tables, statistics, figures and page of a study from a file."""

from __future__ import annotations

from collections.abc import Sequence

from kagscope.base.files import atomic_path, atomic_write
from kagscope.base.provenance import hardware
from kagscope.data.functions import accuracy_name
from kagscope.studies.collect import Outcome
from kagscope.studies.execute.local import Report
from kagscope.studies.findings import relation_findings, run_findings, study_findings
from kagscope.studies.inference import infer
from kagscope.studies.page_data import exhibits, settings_of_runs
from kagscope.studies.phase_diagram import phase_diagram, phase_findings
from kagscope.studies.relations import relations
from kagscope.studies.setting_tables import labels_of, runs_table, settings_summary, varied_axes
from kagscope.studies.store import RunStore
from kagscope.studies.study_figures import study_figures
from kagscope.studies.tables import CURVES, RESULTS, joined, none_finished, whole_runs
from kagscope.tables.schema import CURVE_COLUMNS, RESULT_COLUMNS


def gather(store: RunStore, run_ids: Sequence[str], on_event: Report = lambda event: None) -> Outcome:
    """Write ``runs``, ``results`` and ``curves.parquet``, the tables of means and tests, ``figures/`` and ``report.html``.

    Args:
        store: of the study.
        run_ids: the runs that the study is to hold, in order; failed, damaged and missing ones are left out and named.
        on_event: told of each stage.

    Raises:
        DataError: no run is finished.
        OutputError: a file cannot be written.
    """
    from kagscope.figures import write_figures
    from kagscope.report import write_report

    study = store.study
    whole, left_out = whole_runs(store, run_ids)
    if not whole:
        raise none_finished(store, left_out)
    on_event({"kind": "stage", "name": "tables"})
    results = joined(store, whole, "table.parquet", RESULTS, RESULT_COLUMNS)
    curves = joined(store, whole, "curves.parquet", CURVES, CURVE_COLUMNS)
    runs = runs_table(store, list(whole))
    with atomic_path(store.folder / "runs.parquet") as temporary:
        runs.to_parquet(temporary, index=False)
    varied = varied_axes(runs)
    summary = settings_summary(results, runs, varied)
    atomic_write(store.folder / "summary.csv", summary.to_csv(index=False))
    held = [name for name in varied if name != "seed"]
    on_event({"kind": "stage", "name": "statistics"})
    related = relations(results, runs, held)
    occurs = phase_diagram(results, runs, held)
    tested = infer(results, runs, varied)
    for name, table in {"relations": related, "phase_diagram": occurs, **tested.tables()}.items():
        atomic_write(store.folder / f"{name}.csv", table.to_csv(index=False))
    labels = labels_of(runs, varied)
    shown = results.assign(training=results["run"].astype(str).map(labels).astype("category"))
    drawn = curves.assign(training=curves["run"].astype(str).map(labels).astype("category"))
    shapes = sorted({tuple(shape) for shape in runs["image_shape"]})
    found = [*run_findings(runs, varied), *study_findings(shown, left_out)]
    found += phase_findings(occurs, held, accuracy_name(runs["data"])) + tested.findings + relation_findings(related, held)
    on_event({"kind": "stage", "name": "figures"})
    figures = write_figures(shown, drawn, store.folder / "figures", shapes[-1])
    study_figures(store.folder, results, runs, summary=summary, related=related, occurs=occurs, axes=held)
    on_event({"kind": "stage", "name": "report"})
    seconds = {part: float(runs[f"{part}_seconds"].sum()) for part in ("train", "geometry")}
    report = write_report(
        store.folder / "report.html",
        results=shown,
        curves=drawn,
        claims=[],
        provenance={
            "command": study["command"],
            "without": ["claims"],
            "data": ", ".join(sorted({str(name) for name in runs["data"]})),
            "image_shape": list(shapes[0]) if len(shapes) == 1 else None,
            "seeds": sorted({int(seed) for seed in runs["seed"]}),
            "versions": store.manifest(next(iter(whole)))["versions"],
            "hardware": hardware(),
            "timings": {"training": seconds["train"], "geometry": seconds["geometry"]},
            "config": study["settings"],
            "findings": found,
            "figures": figures,
            **exhibits(store, list(whole), settings_of_runs(shown)),
        },
    )
    for name, reason in figures.left_out.items():
        on_event({"kind": "note", "text": f"figure {name} left out: {reason}"})
    return Outcome(store.folder, report, [], found, list(whole), left_out, seconds)
