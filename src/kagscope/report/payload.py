"""Data for the page's script: means and intervals, small enough to embed, without the table of single numbers."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from kagscope.data.functions import accuracy_name
from kagscope.figures.colours import palettes
from kagscope.figures.labels import score_label
from kagscope.figures.study import net_means
from kagscope.report.minors import pack_curves
from kagscope.report.numbers import clean, groups
from kagscope.report.units import pack_units
from kagscope.report.where import pack_maps, pack_pictures
from kagscope.tables.means import (
    MEASURES,
    RUN_KEYS,
    WHAT_KEYS,
    group_rows,
    last_step,
    layers_of,
    select,
    selection_parameters,
    summarise,
    trainings_of,
    widths_of,
)
from kagscope.tables.onset import find_onsets
from kagscope.tables.schema import BOOKKEEPING

SERIES_COLUMNS = [
    "runs",
    "points",
    "undefined",
    "stderr",
    "exact",
    *[f"{m}{end}" for m in MEASURES for end in ("", "_low", "_high")],
]


def build_payload(
    results: pd.DataFrame,
    curves: pd.DataFrame,
    provenance: Mapping[str, Any] | None = None,
    *,
    nets: pd.DataFrame | None = None,
) -> dict[str, Any]:
    """Build the data of the interactive part of the page, as plain lists and dicts without NaN.

    Args:
        results: the ``results`` table.
        curves: the ``curves`` table.
        provenance: as for :func:`kagscope.report.write_report`.
        nets: :func:`~kagscope.figures.study.net_means` of ``results``, if already computed.

    Returns:
        ``settings`` (names in order), ``palettes`` (the colours of maps in print), ``series`` (one per layer, k, score,
        selection, width and training), ``maps`` (windowed scores of trained nets as grids), ``pictures`` (mean images),
        ``curves``, ``units``, ``accuracy``, ``runs`` and ``study`` (None or the axes).
    """
    provenance = provenance or {}
    nets = net_means(results) if nets is None else nets
    layers = layers_of(nets)
    scores = nets[~nets["score"].isin([*BOOKKEEPING, "accuracy"])]
    plain = scores[~scores["selection"].str.startswith("window(")]
    plain_layers = set(layers_of(plain))
    shape = provenance.get("image_shape")
    return {
        "settings": {
            "layers": [name for name in layers if name in plain_layers],
            "widths": widths_of(nets),
            "trainings": trainings_of(nets),
            "controls": [str(name) for name in provenance.get("controls", ())],
            "scores": [[str(score), score_label(str(score))] for score in pd.unique(plain["score"])],
            "runLayers": pr_layers(nets),
            "accuracy": "test " + accuracy_name(config.get("data") for config in (provenance.get("configs") or {}).values()),
            "names": list(provenance.get("names") or ("trained", "initial")),
            "imageShape": list(shape[-2:]) if shape is not None else None,
            "thing": str(provenance.get("thing", "layer")),
            "overPoints": provenance.get("intervals") == "points",
            "elsewhere": bool(provenance.get("elsewhere")),
        },
        "palettes": palettes(),
        "columns": SERIES_COLUMNS,
        "series": _series(plain, collect_onsets(scores), over_points=provenance.get("intervals") == "points"),
        "maps": pack_maps(scores, results, provenance.get("labels")),
        "pictures": pack_pictures(provenance.get("pictures")),
        "curves": pack_curves(curves),
        "units": pack_units(provenance.get("units") or {}, nets, shape),
        "accuracy": _accuracy(nets),
        "runs": _runs(nets, provenance.get("configs") or {}),
        "study": provenance.get("study"),
    }


def _series(plain: pd.DataFrame, onsets: Mapping[tuple[Any, ...], dict[str, Any]], over_points: bool) -> list[dict[str, Any]]:
    """Means over networks; a single measured model has intervals over its points."""
    keys = [*WHAT_KEYS, "width", "training"]
    table = plain.assign(runs=1) if over_points else summarise(plain, over="runs")
    table = table.sort_values("step", kind="stable").reset_index(drop=True)
    numbers, steps = table[SERIES_COLUMNS].to_numpy(dtype=np.float64), table["step"].to_numpy()
    exact = table["exact"].to_numpy(dtype=bool)
    last = last_step(plain)[["width", "training", "step"]].astype({"training": str}).groupby(["width", "training"])["step"].max()
    series = []
    for key, rows in group_rows(table, keys):
        layer, k, selection, score, width, training = key
        kind, scale = selection_parameters(str(selection))
        entry: dict[str, Any] = {
            "layer": str(layer),
            "k": int(k),
            "selection": str(selection),
            "kind": kind,
            "scale": scale[0] if len(scale) == 1 else None,
            "score": str(score),
            "width": int(width),
            "training": str(training),
            "exact": bool(exact[rows].all()),
            "last": int(last[int(width), str(training)]),
            "step": [int(step) for step in steps[rows]],
            "data": [[clean(value) for value in column] for column in numbers[rows].T.tolist()],
        }
        if onset := onsets.get((str(layer), int(k), str(selection), str(score), int(width), str(training))):
            entry["onset"] = onset
        series.append(entry)
    return series


def _accuracy(nets: pd.DataFrame) -> list[dict[str, Any]]:
    table = summarise(select(nets, score="accuracy"), over="runs").sort_values("step")
    entries = []
    for (width, training), group in groups(table, ["width", "training"]):
        columns = {end: [clean(value) for value in group[f"value{end}"]] for end in ("", "_low", "_high")}
        entry: dict[str, Any] = {"width": int(width), "training": str(training), "step": [int(step) for step in group["step"]]}
        entries.append(entry | {"value": columns[""], "low": columns["_low"], "high": columns["_high"]})
    return entries


def pr_layers(nets: pd.DataFrame) -> list[str]:
    """Layers whose PR is shown in the table of runs."""
    return layers_of(select(nets, score="pr", k=2, selection="all"))


def _runs(nets: pd.DataFrame, configs: Mapping[str, Any]) -> list[dict[str, Any]]:
    last = last_step(nets)
    rows = last.drop_duplicates("run").sort_values(["width", "training", "seed"])
    ratios = {}
    layers = pr_layers(nets)
    for layer in layers:
        chosen = select(last, score="pr", k=2, selection="all", layer=layer)
        ratios[layer] = dict(zip(chosen["run"].astype(str), chosen["ratio"], strict=True))
    return [
        {
            "run": str(row["run"]),
            "width": int(row["width"]),
            "training": str(row["training"]),
            "seed": int(row["seed"]),
            "step": int(row["step"]),
            "epoch": clean(row["epoch"]),
            "accuracy": clean(row["accuracy"]),
            "pr": [clean(ratios[layer].get(str(row["run"]), math.nan)) for layer in layers],
            "config": configs.get(str(row["run"])),
        }
        for row in rows[[*RUN_KEYS, "epoch", "accuracy"]].to_dict("records")
    ]


def undefined_counts(results: pd.DataFrame) -> list[tuple[str, str, int]]:
    """(score, reason, count) of undefined values, most frequent first."""
    if "reason" not in results.columns:
        return []
    missing = results[results["value"].isna()]
    counts = Counter(zip(missing["score"].astype(str), missing["reason"].astype(str), strict=True))
    return [(score, reason or "no reason given", number) for (score, reason), number in counts.most_common()]


Key = tuple[str, int, str, str, int, str]
FEWEST_STEPS = 3


def collect_onsets(nets: pd.DataFrame) -> dict[Key, dict[str, Any]]:
    """Map (layer, k, selection, score, width, training) to the ``step``, ``confirmed``, ``over`` and ``reason`` of onset.

    Intervals are over networks ("nets") if a setting has several, else over the data points of its network ("points").

    Args:
        nets: means over the data points of each net and step.
    """
    steps = nets.groupby(["width", "training", *WHAT_KEYS], observed=True, sort=False)["step"].transform("nunique")
    followed = nets[(steps >= FEWEST_STEPS) & nets["ratio"].notna()]
    onsets: dict[Key, dict[str, Any]] = {}
    for (width, training), group in groups(followed, ["width", "training"]):
        over = "nets" if group["run"].nunique() > 1 else "points"
        summary = _average_nets(group) if over == "nets" else group[group["points"] > 1]  # one point: of the layer as a whole
        for row in find_onsets(summary).to_dict("records") if len(summary) else ():
            key = (str(row["layer"]), int(row["k"]), str(row["selection"]), str(row["score"]), int(width), str(training))
            onsets[key] = {name: row[name] for name in ("step", "confirmed", "reason")} | {"over": over}
            if row["step"] is not None:
                onsets[key]["ratio"] = clean(row["ratio"])
    return onsets


def _average_nets(group: pd.DataFrame) -> pd.DataFrame:
    epochs = group.drop_duplicates("step").set_index("step")["epoch"]
    table = summarise(group, over="runs")
    return table.assign(epoch=table["step"].map(epochs))
