"""Tables of runs and settings of a study: one row per run, the axes that vary, means per setting."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from kagscope.figures.labels import axis_label, setting_label
from kagscope.figures.line_styles import value_label
from kagscope.studies.config import RunConfig
from kagscope.studies.record import CONFIG, measured_files
from kagscope.studies.store import RunStore
from kagscope.tables.means import WHAT_KEYS, average, last_step, summarise

HIDDEN = ("steps",)
REACHED = (0.9, 0.95)  # test accuracies for which the number of steps to reach them is given
SAME = "same"  # value of first_layer_data for the data of the run itself
BASIC_AXES = ("width", "training", "seed")


def runs_table(store: RunStore, run_ids: Sequence[str]) -> pd.DataFrame:
    """One row per run: its id, every value of its configuration, accuracies, generalisation gap, seconds."""
    rows, files_of = [], measured_files(store.study)
    for run_id in run_ids:
        folder = store.run_folder(run_id)
        values = run_values(RunConfig(**json.loads((folder / CONFIG).read_text())))
        manifest, attacks = store.manifest(run_id), files_of[run_id].robustness
        facts = {name: manifest[name] for name in ("accuracy", "train_accuracy", "train_seconds", "geometry_seconds")}
        facts |= {f"steps_to_{level}": steps_to(level, manifest["accuracy_at"]) for level in REACHED}
        attacked = json.loads((folder / attacks).read_text()) if attacks else {}
        rows.append({"run": run_id, **values, **facts, **attacked})
    table = pd.DataFrame(rows)
    return table.assign(generalization_gap=table["train_accuracy"] - table["accuracy"])


def run_values(config: RunConfig) -> dict[str, Any]:
    """Values of a run as columns of a table, with its largest width, the number of widths, and all of them as text."""
    values = {name: value for name, value in config.model_dump(mode="json").items() if name not in HIDDEN}
    widths = values.pop("widths")
    values["first_layer_data"] = values["first_layer_data"] or SAME  # None cannot be a value of an axis
    return values | {"width": max(widths), "depth": len(widths), "widths": "x".join(map(str, widths))}


def steps_to(level: float, accuracy_at: Mapping[str, float]) -> float:
    """First step with a test accuracy of ``level``, interpolated linearly between kept steps; NaN if not reached."""
    before = None
    for step, accuracy in sorted((int(step), accuracy) for step, accuracy in accuracy_at.items()):
        if accuracy >= level:
            return float(step if before is None else np.interp(level, [before[1], accuracy], [before[0], step]))
        before = step, accuracy
    return math.nan


def varied_axes(runs: pd.DataFrame) -> list[str]:
    """Values of configurations that differ among the runs."""
    known = {*RunConfig.model_fields, "width", "depth"} - {"image_shape", "schema_version", "data_fingerprint", *HIDDEN}
    known -= {"widths"} if runs["depth"].nunique() == 1 else {"width", "depth"}
    return [name for name in runs.columns if name in known and runs[name].astype(str).nunique() > 1]


def tied_axes(runs: pd.DataFrame, varied: Sequence[str]) -> dict[str, list[str]]:
    """Each axis with those that correspond to it one-to-one, and so are not separate axes; basic ones first."""
    groups: dict[str, list[str]] = {}
    text = runs[list(varied)].astype(str)
    for name in sorted(varied, key=lambda name: name not in BASIC_AXES):
        values = text[name].nunique()
        first = next((a for a in groups if values == text[a].nunique() == len(text[[a, name]].drop_duplicates())), name)
        groups.setdefault(first, []).extend([] if first == name else [name])
    return {name: groups[name] for name in varied if name in groups}


def settings_summary(results: pd.DataFrame, runs: pd.DataFrame, varied: Sequence[str]) -> pd.DataFrame:
    """Means over the runs of each setting (seeds) after training, with 95% intervals of Student's t over runs.

    Returns:
        The varied axes except the seed, layer, k, selection, score, ``nets``; accuracy, value, baseline and ratio, each with
        ``_low`` and ``_high``.
    """
    axes = [name for name in varied if name != "seed"]
    codes = runs.groupby(axes, sort=False, dropna=False).ngroup() if axes else pd.Series(0, index=runs.index)
    runs = runs.assign(setting=codes)
    settings = runs.drop_duplicates("setting")[["setting", *axes]].merge(average(runs, ["setting"], "accuracy"), on="setting")
    trained = last_step(results)
    trained = trained.assign(setting=trained["run"].astype(str).map(runs.set_index("run")["setting"]))
    means = summarise(trained, over="runs", by=["setting"]).rename(columns={"runs": "nets"})
    numbers = [f"{measure}{end}" for measure in ("accuracy", "value", "baseline", "ratio") for end in ("", "_low", "_high")]
    return means.merge(settings, on="setting")[[*axes, *WHAT_KEYS, "nets", *numbers]]


def labels_of(runs: pd.DataFrame, varied: Sequence[str]) -> dict[str, str]:
    """Labels of runs in addition to their width: training, if it varies, shuffled labels, and all other axes."""
    others = [*_shape(runs), *(name for name in varied if name not in (*BASIC_AXES, "widths", "depth", "labels"))]

    def label(row: Mapping[Any, Any]) -> str:
        first = [str(row["training"])] if "training" in varied or not others else []
        control = ["shuffled labels"] if row["labels"] == "shuffled" else []
        return ", ".join([*first, *control, *(f"{axis_label(name)} {value_label(row[name])}" for name in others)])

    return {str(row["run"]): label(row) for row in runs.to_dict("records")}


def _shape(runs: pd.DataFrame) -> list[str]:
    """Axes that distinguish nets of the same largest width: depth if that suffices, else the widths of all layers."""
    if runs["widths"].nunique() == runs["width"].nunique():
        return []
    return ["depth" if runs["widths"].nunique() == len(runs[["width", "depth"]].drop_duplicates()) else "widths"]


def run_names(configs: Sequence[RunConfig]) -> dict[str, tuple[str, str]]:
    """Setting of each run in words, as in figures and page, and which of its repetitions it is."""
    runs = pd.DataFrame([{"run": config.run_id, **run_values(config)} for config in configs])
    several, labels = runs["width"].nunique() > 1, labels_of(runs, varied_axes(runs))
    named = zip(runs["run"], runs["width"], runs["seed"], strict=True)
    return {str(run): (setting_label(int(width), labels[str(run)], several), f"seed {seed}") for run, width, seed in named}
