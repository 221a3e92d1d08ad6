"""Tables, figures and page of a study from a file: one row per run, every number, means per setting."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from kagscope.data.functions import is_function
from kagscope.errors import DataError
from kagscope.figures.tables import final, per_run
from kagscope.files import atomic_path, atomic_write
from kagscope.intervals import half_width
from kagscope.provenance import hardware
from kagscope.schema import BOOKKEEPING, CURVE_COLUMNS, RESULT_COLUMNS
from kagscope.studies.collect import Outcome
from kagscope.studies.config import RunConfig
from kagscope.studies.executors import Report
from kagscope.studies.exhibits import exhibits, settings_of_runs
from kagscope.studies.occurrence import occurrence, occurrence_sentences, two_axes
from kagscope.studies.relations import relations
from kagscope.studies.store import RunStore
from kagscope.studies.tables import CURVES, RESULTS, joined, whole_runs

HIDDEN = ("geometry", "data_fingerprint", "robustness", "schedule")
LATER = {name: RunConfig.model_fields[name].default for name in RunConfig.later}  # what older stores do not say
BASIC_AXES = ("width", "training", "seed")


def gather(store: RunStore, run_ids: Sequence[str], on_event: Report = lambda event: None) -> Outcome:
    """Write ``runs``, ``results`` and ``curves.parquet``, ``summary.csv``, ``relations.csv``, ``figures/`` and ``report.html``.

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
        raise DataError(f"{store.folder} holds no finished run; run the study first")
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
    related = relations(results, runs, held)
    atomic_write(store.folder / "relations.csv", related.to_csv(index=False))
    occurs = occurrence(results, runs, held)
    atomic_write(store.folder / "occurrence.csv", occurs.to_csv(index=False))
    accuracy = accuracy_name(runs)
    labels = _labels(runs, varied)
    shown = results.assign(training=results["run"].astype(str).map(labels).astype("category"))
    drawn = curves.assign(training=curves["run"].astype(str).map(labels).astype("category"))
    shapes = sorted({tuple(shape) for shape in runs["image_shape"]})
    sentences = _findings(results, runs, varied, left_out)
    sentences += occurrence_sentences(occurs, held, accuracy) + _related(related, held)
    on_event({"kind": "stage", "name": "figures"})
    figures = write_figures(shown, drawn, store.folder / "figures", shapes[-1])
    _maps(store, summary, [name for name in varied if name != "seed"])
    _dynamics(store, results, runs, occurs, held, accuracy)
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
            "findings": sentences,
            "figures": figures,
            **exhibits(store, list(whole), settings_of_runs(shown)),
        },
    )
    for name, reason in figures.left_out.items():
        on_event({"kind": "note", "text": f"figure {name} left out: {reason}"})
    return Outcome(store.folder, report, [], sentences, list(whole), left_out, seconds)


def _maps(store: RunStore, summary: pd.DataFrame, axes: Sequence[str]) -> None:
    """``figures/map_<layer>.png`` and ``.pdf`` over the two axes with most values."""
    from kagscope.figures.phase import figure_phase
    from kagscope.figures.style import save
    from kagscope.figures.tables import NothingToPlot, layers_of

    if len(axes) < 2:
        return
    x, y = sorted(axes, key=lambda name: -summary[name].nunique())[:2]
    for layer in layers_of(summary):
        with contextlib.suppress(NothingToPlot):
            figure = figure_phase(summary, x, y, layer)
            for suffix in ("png", "pdf"):
                save(figure, store.folder / "figures" / f"map_{safe_name(layer)}.{suffix}")


def _dynamics(
    store: RunStore, results: pd.DataFrame, runs: pd.DataFrame, occurs: pd.DataFrame, axes: Sequence[str], accuracy: str
) -> None:
    """``figures/training_<layer>.png`` and ``.pdf``: along training, by what :func:`occurrence_sentences` goes through."""
    from kagscope.figures.dynamics import figure_dynamics
    from kagscope.figures.style import save
    from kagscope.figures.tables import NothingToPlot

    if not axes or occurs.empty:
        return
    by, along = two_axes(occurs, axes)
    assert by is not None
    for layer in occurs["layer"].unique():
        with contextlib.suppress(NothingToPlot):
            figure = figure_dynamics(results, runs, by, along, layer, accuracy)
            for suffix in ("png", "pdf"):
                save(figure, store.folder / "figures" / f"training_{safe_name(layer)}.{suffix}")


def accuracy_name(runs: pd.DataFrame) -> str:
    """What the column ``accuracy`` is: R² where all data are functions."""
    return "R²" if all(is_function(str(name)) for name in runs["data"]) else "accuracy"


def runs_table(store: RunStore, run_ids: Sequence[str]) -> pd.DataFrame:
    """One row per run: its id, every value of its configuration, accuracies, generalisation gap, seconds."""
    rows = []
    for run_id in run_ids:
        config = LATER | json.loads((store.run_folder(run_id) / "config.json").read_text())
        manifest = store.manifest(run_id)
        values: dict[str, Any] = {name: value for name, value in config.items() if name not in HIDDEN}
        widths = values.pop("widths")
        values |= {"width": max(widths), "depth": len(widths), "widths": "x".join(map(str, widths))}
        facts = {name: manifest[name] for name in ("accuracy", "train_accuracy", "train_seconds", "geometry_seconds")}
        rows.append({"run": run_id, **values, **facts, **manifest.get("robustness", {})})
    table = pd.DataFrame(rows)
    return table.assign(generalization_gap=table["train_accuracy"] - table["accuracy"])


def varied_axes(runs: pd.DataFrame) -> list[str]:
    """The values of a configuration that differ among the runs."""
    known = {*RunConfig.model_fields, "width", "depth"} - {"image_shape", "schema_version", *HIDDEN}
    known -= {"widths"} if runs["depth"].nunique() == 1 else {"width", "depth"}
    return [name for name in runs.columns if name in known and runs[name].astype(str).nunique() > 1]


def settings_summary(results: pd.DataFrame, runs: pd.DataFrame, varied: Sequence[str]) -> pd.DataFrame:
    """Means over the runs of each setting (seeds) after training, with 95% intervals of Student's t over runs.

    Returns:
        The varied axes but the seed, layer, k, selection, score, ``nets``, mean ``accuracy``; value, baseline and ratio, each
        with ``_low`` and ``_high``.
    """
    last = final(per_run(results))
    last = last[~last["score"].astype(str).isin(BOOKKEEPING)]
    axes = [name for name in varied if name not in ("seed",)]
    extra = runs.set_index("run")[axes].add_prefix("axis_")
    frame = last.astype({"run": str}).join(extra, on="run")
    keys = [*(f"axis_{name}" for name in axes), "layer", "k", "selection", "score"]
    grouped = frame.groupby(keys, observed=True, sort=False, dropna=False)
    columns: dict[str, Any] = {"nets": grouped["value"].count(), "accuracy": grouped["accuracy"].mean()}
    for measure in ("value", "baseline", "ratio"):
        mean, count, spread = grouped[measure].mean(), grouped[measure].count(), grouped[measure].std()
        half = half_width(np.asarray(spread, dtype=float), np.asarray(count))
        columns |= {measure: mean, f"{measure}_low": mean - half, f"{measure}_high": mean + half}
    found = pd.DataFrame(columns).reset_index()
    return found.rename(columns={f"axis_{name}": name for name in axes})


def _labels(runs: pd.DataFrame, varied: Sequence[str]) -> dict[str, str]:
    """What a run is called beside its width: its training and whatever else varies."""
    others = [name for name in varied if name not in (*BASIC_AXES, "widths")]

    def label(row: Mapping[Any, Any]) -> str:
        return ", ".join([str(row["training"]), *(f"{name} {_short(row[name])}" for name in others)])

    return {str(row["run"]): label(row) for row in runs.to_dict("records")}


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _findings(results: pd.DataFrame, runs: pd.DataFrame, varied: Sequence[str], left_out: dict[str, str]) -> list[str]:
    said = [
        f"{len(runs)} runs; varied: {', '.join(varied) or 'nothing'}. "
        f"Mean test {accuracy_name(runs)} {runs['accuracy'].mean():.3f}."
    ]
    last = final(per_run(results))
    chosen = last[(last["score"] == "pr") & (last["k"] == 2) & (last["selection"] == "all") & last["ratio"].notna()]
    if len(chosen):
        most = chosen.sort_values("ratio").iloc[-1]
        said.append(
            f"The participation ratio of the 2 x 2 minors grew most in layer {most['layer']} of {most['run']}: "
            f"{most['ratio']:.2f} times its initial value."
        )
        share = float((chosen["ratio"] > 1).mean())
        said.append(f"It is above its initial value in {share:.0%} of all layers and runs.")
    if runs["seed"].nunique() == 1:
        said.append("There is one seed only: nothing here says how much nets of the same setting differ.")
    return said + [f"Run {run} was left out: {why}." for run, why in left_out.items()]


def _related(related: pd.DataFrame, fixed: Sequence[str]) -> list[str]:
    """The relation of geometry to test accuracy and robustness that stands out most, and how many survive the correction."""
    if related.empty:
        return []
    clear = related[related["p_holm"] < 0.05]
    said = [f"{len(clear)} of {len(related)} rank correlations of geometry with outcomes differ from 0 after Holm's correction."]
    which = "partial" if fixed and related["partial"].notna().any() else "rho"
    most = related.iloc[int(related[which].abs().to_numpy(dtype=float, na_value=0.0).argmax())]
    held = f", {', '.join(fixed)} held fixed" if which == "partial" else ""
    interval = f"{most[f'{which}_low']:.2f} to {most[f'{which}_high']:.2f}, n = {most['n']}"
    return [
        *said,
        f"The strongest{held}: {most['score']} (k = {most['k']}, layer {most['layer']}, {most['measure']}) with "
        f"{most['outcome']}: {most[which]:.2f} ({interval}). It is a correlation, not a cause.",
    ]


def safe_name(layer: str) -> str:
    """A layer's name as part of a file's."""
    return re.sub(r"[^A-Za-z0-9_.-]", "_", layer) or "net"
