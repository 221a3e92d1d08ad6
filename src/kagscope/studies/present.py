"""Figures and page of a study, from its tables."""

from __future__ import annotations

from dataclasses import replace

from kagscope.base.provenance import hardware
from kagscope.figures.labels import outcome_label
from kagscope.figures.study import net_means
from kagscope.studies.collect import Collected, Outcome, with_labels
from kagscope.studies.execute.base import Report
from kagscope.studies.nets import outcome_columns
from kagscope.studies.page_data import exhibits, settings_of_runs
from kagscope.studies.page_tables import study_tables
from kagscope.studies.store import RunStore
from kagscope.studies.study_figures import study_figures


def present(store: RunStore, found: Collected, on_event: Report = lambda event: None, follow: int | None = None) -> Outcome:
    """Write ``figures/`` and ``report.html``.

    Args:
        store: Run store of the study.
        found: what :func:`kagscope.studies.collect.collect` made of it.
        on_event: gets each stage, and figures that cannot be drawn.
        follow: seconds after which the page reloads itself, while runs go on.

    Raises:
        OutputError: a file cannot be written.
    """
    from kagscope.figures import write_figures
    from kagscope.report import write_report
    from kagscope.report.axes import axes_section, pack_axes

    study, outcome, runs, shapes = store.study, found.outcome, found.runs, found.image_shapes
    results, curves = with_labels(found.results, found.labels), with_labels(found.curves, found.labels)
    figures = write_figures(
        results, curves, store.folder / "figures", shapes[-1], lambda name: on_event({"kind": "stage", "name": f"figure {name}"})
    )
    study_figures(
        store.folder, found.results, runs, summary=found.summary, related=found.related, occurs=found.occurs, axes=found.axes
    )
    on_event({"kind": "stage", "name": "report"})
    named = {name: outcome_label(name) for name in outcome_columns(runs)}
    varied = None if study["claims"] else pack_axes(net_means(found.results), runs, found.axes, named)
    page = write_report(
        store.folder / "report.html",
        results=results,
        curves=curves,
        claims=[claim.as_json() for claim in outcome.claims],
        provenance={
            "command": study["command"],
            "without": [] if study["claims"] else ["claims"],
            "data": ", ".join(sorted({str(name) for name in runs["data"]})),
            "image_shape": list(shapes[0]) if len(shapes) == 1 else None,
            "seeds": sorted({int(seed) for seed in runs["seed"]}),
            "versions": store.manifest(outcome.runs[0])["versions"],
            "hardware": hardware(),
            "timings": {"training": outcome.seconds["train"], "geometry": outcome.seconds["geometry"]},
            "config": study["settings"],
            "findings": outcome.findings,
            "figures": figures,
            "controls": sorted({found.labels[run] for run in runs.loc[runs["labels"] == "shuffled", "run"]}),
            "study": varied,
            "exhibits": [axes_section(study_tables(found))] if varied else [],
            "follow": follow,
            **exhibits(store, outcome.runs, settings_of_runs(results)),
        },
    )
    for name, reason in figures.left_out.items():
        on_event({"kind": "note", "text": f"figure {name} left out: {reason}"})
    return replace(outcome, report=page)
