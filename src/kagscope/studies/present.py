"""Figures and page of a study, from its tables."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cache, partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from kagscope.base.files import make_folder
from kagscope.base.provenance import hardware
from kagscope.figures.labels import outcome_label
from kagscope.figures.study import net_means
from kagscope.report.numbers import number, number_cell, text_cell
from kagscope.studies.collect import Outcome, StudyResults, StudyTables, with_labels
from kagscope.studies.execute.base import OnEvent
from kagscope.studies.execute.second_process import SecondProcess, SharedTask
from kagscope.studies.nets import outcome_columns
from kagscope.studies.page_data import page_data, settings_of_runs
from kagscope.studies.record import main_specs
from kagscope.studies.store import RunStore
from kagscope.studies.study_figures import study_drawings
from kagscope.tables.means import curve_means

if TYPE_CHECKING:
    from kagscope.figures.write import Drawing, Written, WrittenFigures


class StudyPictures(NamedTuple):
    """The standard figures, in progress, and the means that they show: over points, and of curves over runs."""

    results: pd.DataFrame
    nets: pd.DataFrame
    curves: pd.DataFrame
    figures: dict[str, SharedTask[Written]]


def begin_figures(store: RunStore, gathered: StudyTables, second: SecondProcess) -> StudyPictures:
    """Start the standard figures, in ``figures/``, before the statistics, possibly in another process."""
    from kagscope.figures.write import drawings

    results = with_labels(gathered.results, gathered.labels)
    nets, curves = net_means(results), curve_means(with_labels(gathered.curves, gathered.labels))
    return StudyPictures(results, nets, curves, _share_drawings(store, drawings(nets, curves, gathered.image_shapes[-1]), second))


def _share_drawings(store: RunStore, drawn: Mapping[str, Drawing], second: SecondProcess) -> dict[str, SharedTask[Written]]:
    from kagscope.figures.write import write_drawing

    folder = make_folder(store.folder / "figures")
    return second.begin({name: partial(write_drawing, name, draw, folder) for name, draw in drawn.items()})


def present(
    store: RunStore,
    gathered: StudyTables,
    collected: StudyResults,
    pictured: StudyPictures,
    second: SecondProcess,
    on_event: OnEvent = lambda event: None,
    follow: int | None = None,
) -> Outcome:
    """Write ``figures/`` and ``report.html``.

    Args:
        store: Run store of the study.
        gathered: tables of the study.
        collected: results of :func:`kagscope.studies.collect.analyse` from them.
        pictured: result of :func:`begin_figures`.
        second: a process that may draw figures concurrently.
        on_event: called with each stage, and with figures that cannot be drawn.
        follow: seconds after which the page reloads itself, while the study runs.

    Raises:
        OutputError: a file cannot be written.
    """
    from kagscope.figures.write import WrittenFigures
    from kagscope.report import write_report
    from kagscope.report.axes import pack_axes

    study, outcome, runs, shapes = store.study, collected.outcome, gathered.runs, gathered.image_shapes
    results, nets, curves, own_curves = pictured
    extra = study_drawings(
        nets, runs, summary=collected.summary, related=collected.related, occurs=collected.occurs, axes=gathered.axes
    )
    shared = own_curves | _share_drawings(store, extra, second)

    @cache
    def figures() -> WrittenFigures:
        written = second.finish(shared, lambda name: on_event({"kind": "stage", "name": f"figure {name}"}))
        return WrittenFigures({name: written[name] for name in own_curves})

    on_event({"kind": "stage", "name": "report"})
    named = {name: outcome_label(name) for name in outcome_columns(runs)}
    varied = None if study["claims"] else pack_axes(nets, runs, gathered.axes, named)
    page = write_report(
        store.folder / "report.html",
        results=results,
        curves=curves,
        nets=nets,
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
            "maps": sorted({str(spec.get("layer_map", "input")) for spec in main_specs(study).values()}),
            "findings": outcome.findings,
            "figures": figures,
            "controls": sorted({gathered.labels[run] for run in runs.loc[runs["labels"] == "shuffled", "run"]}),
            "study": varied,
            "exhibits": [("varied", "What was varied", "varied.html", {"tables": study_tables(collected, gathered.axes)})]
            if varied
            else [],
            "follow": follow,
            **page_data(store, outcome.runs, settings_of_runs(results)),
        },
    )
    for name, reason in figures().left_out.items():
        on_event({"kind": "note", "text": f"figure {name} left out: {reason}"})
    return replace(outcome, report=page)


HEADS = {
    "rho": "correlation",
    "rho_low": "from",
    "rho_high": "to",
    "p_value": "p",
    "p_joint": "corrected p",
    "p_least": "least p",
    "n": "seeds",
}
MOST = 300  # maximum rows of a table on the page; all are in the CSV file


def study_tables(collected: StudyResults, axes: list[str]) -> list[dict[str, Any]]:
    """Non-empty sortable tables for the page: occurrence of geometry, and correlations of scores with outcomes."""
    return [table for table in (_occurrence_table(collected.occurs, axes), _relation_table(collected.related)) if table["rows"]]


def _occurrence_table(occurs: pd.DataFrame, axes: list[str]) -> dict[str, Any]:
    rows = [
        [
            *(_axis_cell(row[name]) for name in axes),
            _cell(row["layer"]),
            _cell("yes" if row["occurs"] else "no"),
            _cell(row["pr"]),
            _cell(row["pr_low"]),
            _cell(row["pr_high"]),
            _cell(row["p_holm"]),
            _axis_cell(row["onset_step"]),
            _cell(row["accuracy"]),
        ]
        for row in occurs.head(MOST).to_dict("records")
    ]
    head = [*(name.replace("_", " ") for name in axes), "layer", "occurs", "PR ratio", "low", "high", "p", "onset", "accuracy"]
    note = (
        "Geometry occurs where PR, KL and rotation ratio of the 2 × 2 minors are all above their initial values "
        f"(corrected p < 0.05). All rows are in phase_diagram.csv.{_rows_note(occurs)}"
    )
    return {"name": "occurrence", "label": "Where geometry occurs", "head": head, "rows": rows, "note": note}


def _relation_table(related: pd.DataFrame) -> dict[str, Any]:
    """Statistics of every pair of a score and an outcome, most significant first."""
    texts = [name for name in ("layer", "k", "score", "measure", "outcome") if name in related]
    numbers = [str(name) for name in related if name not in (*texts, "test") and pd.api.types.is_numeric_dtype(related[name])]
    first = related.sort_values("p_joint", kind="stable") if len(related) else related
    rows = [
        [*(_cell(row[name]) for name in texts), *(_cell(row[name]) for name in numbers)]
        for row in first.head(MOST).to_dict("records")
    ]
    tests = "; ".join(str(test) for test in related["test"].unique()) if "test" in related else ""
    head = [HEADS.get(name, name) for name in (*texts, *numbers)]
    note = f"{tests[:1].upper()}{tests[1:]}. A correlation is not a cause. All rows are in relations.csv.{_rows_note(related)}"
    return {"name": "relations", "label": "How geometry goes with outcomes", "head": head, "rows": rows, "note": note}


def _rows_note(table: pd.DataFrame) -> str:
    return f" The first {MOST} of {len(table)} are shown." if len(table) > MOST else ""


def _axis_cell(value: Any) -> dict[str, Any]:
    """Cell of a setting, as given, without trailing zeros."""
    cell = _cell(value)
    return cell | {"text": number(value)} if cell["value"] not in ("", None) else cell


def _cell(value: Any) -> dict[str, Any]:
    if isinstance(value, bool | np.bool_):
        return text_cell("yes" if value else "no")
    return text_cell(value) if isinstance(value, str) or value is None else number_cell(value)
