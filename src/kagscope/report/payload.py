"""What the page's script is given: means and intervals, small enough to embed, never the table of single numbers."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd

from kagscope.figures.style import score_label
from kagscope.figures.tables import (
    MEASURES,
    RUN_KEYS,
    SETTING_KEYS,
    WHAT_KEYS,
    curve_means,
    final,
    layer_label,
    layers_of,
    over_runs,
    parse_selection,
    per_run,
    select,
    trainings_of,
    widths_of,
    windows,
)
from kagscope.schema import BOOKKEEPING

DIGITS = 6  # significant digits of embedded numbers; the page shows four at most
CURVE_POINTS = 160  # points kept of a Zipf curve, evenly spaced in rank and in its logarithm
SERIES_COLUMNS = ["seeds", "points", *[f"{measure}{end}" for measure in MEASURES for end in ("", "_low", "_high")]]


def build_payload(results: pd.DataFrame, curves: pd.DataFrame, image_shape: Sequence[int] | None = None) -> dict[str, Any]:
    """Everything the interactive part of the page shows, as plain lists and dicts without NaN.

    Args:
        results: the ``results`` table, or :func:`~kagscope.figures.tables.per_run` of it.
        curves: the ``curves`` table.
        image_shape: height and width of the images.

    Returns:
        ``settings`` (names in order), ``series`` (one per layer, k, score, selection, width and training),
        ``maps`` (windowed scores of trained nets as grids), ``curves``, ``accuracy`` and ``runs``.
    """
    reduced = per_run(results)
    layers = layers_of(reduced)
    kinds = reduced["selection"].astype(str).map(lambda name: parse_selection(name)[0])
    plain = reduced[kinds != "window"]
    plain_layers = set(layers_of(plain[~plain["score"].astype(str).isin(BOOKKEEPING)]))
    return {
        "settings": {
            "layers": [[name, layer_label(name, layers)] for name in layers if name in plain_layers],
            "widths": widths_of(reduced),
            "trainings": trainings_of(reduced),
            "scores": [[str(score), score_label(str(score))] for score in pd.unique(plain["score"]) if score not in BOOKKEEPING],
            "runLayers": [layer_label(name, layers) for name in pr_layers(reduced)],
            "imageShape": list(image_shape) if image_shape is not None else None,
        },
        "columns": SERIES_COLUMNS,
        "series": _series(plain),
        "maps": _maps(reduced),
        "curves": _curves(curves),
        "accuracy": _accuracy(reduced),
        "runs": _runs(reduced),
    }


def groups(table: pd.DataFrame, keys: Sequence[str]) -> Iterator[tuple[Any, pd.DataFrame]]:
    """``table`` cut by ``keys``, in the order in which they come."""
    yield from table.groupby(list(keys), observed=True, sort=False)


def clean(value: Any) -> Any:
    """A number rounded to ``DIGITS`` significant digits, None where it is not finite."""
    number = float(value)
    if not math.isfinite(number):
        return None
    rounded = float(f"{number:.{DIGITS}g}")
    return int(rounded) if rounded.is_integer() and abs(rounded) < 1e15 else rounded


def _series(plain: pd.DataFrame) -> list[dict[str, Any]]:
    table = over_runs(plain).sort_values("step", kind="stable")
    last = final(plain)[["width", "training", "step"]].astype({"training": str}).groupby(["width", "training"])["step"].max()
    series = []
    for key, group in groups(table, [*WHAT_KEYS, "width", "training"]):
        layer, k, selection, score, width, training = key
        kind, numbers = parse_selection(str(selection))
        series.append(
            {
                "layer": str(layer),
                "k": int(k),
                "selection": str(selection),
                "kind": kind,
                "scale": numbers[0] if len(numbers) == 1 else None,
                "score": str(score),
                "width": int(width),
                "training": str(training),
                "exact": bool(group["exact"].all()),
                "last": int(last[int(width), str(training)]),
                "step": [int(step) for step in group["step"]],
                "data": [[clean(value) for value in group[column]] for column in SERIES_COLUMNS],
            }
        )
    return series


def _maps(reduced: pd.DataFrame) -> list[dict[str, Any]]:
    table = windows(final(reduced))
    table = table[~table["score"].astype(str).isin(BOOKKEEPING)]
    keys = ("layer", "k", "score", "width", "training", "radius")
    maps = []
    means = over_runs(table, (*keys, "row", "column")) if len(table) else table
    for key, group in groups(means, keys):
        layer, k, score, width, training, radius = key
        rows, columns = np.unique(group["row"]), np.unique(group["column"])
        place = np.searchsorted(rows, group["row"]) * len(columns) + np.searchsorted(columns, group["column"])
        entry: dict[str, Any] = {
            "layer": str(layer),
            "k": int(k),
            "score": str(score),
            "width": int(width),
            "training": str(training),
        }
        entry |= {"radius": clean(radius), "rows": [clean(row) for row in rows], "columns": [clean(column) for column in columns]}
        for measure in ("ratio", "value"):
            grid = np.full(len(rows) * len(columns), np.nan)
            grid[place] = group[measure]
            entry[measure] = [clean(value) for value in grid]
        maps.append(entry)
    return maps


def _curves(curves: pd.DataFrame) -> list[dict[str, Any]]:
    means = curve_means(curves)
    means = means[means["stage"] != "between"]
    keys = ["curve", "layer", "k", "selection", "width", "training", "stage"]
    entries = []
    for key, group in groups(means, keys):
        curve, layer, k, selection, width, training, stage = key
        ordered = group.sort_values("x")
        zeros = ordered.loc[np.isneginf(ordered["x"]), "y"].sum()
        ordered = ordered[np.isfinite(ordered["x"])]
        if str(curve) == "zipf":
            ordered = ordered.iloc[_thinned(len(ordered))]
        elif len(ordered):
            eighths = np.round(ordered["x"].to_numpy() * 8).astype(int)
            y = pd.Series(ordered["y"].to_numpy(), index=eighths).reindex(range(eighths[0], eighths[-1] + 2), fill_value=0.0)
            ordered = pd.DataFrame({"x": y.index / 8, "y": y.to_numpy()})
        entries.append(
            {
                "curve": str(curve),
                "layer": str(layer),
                "k": int(k),
                "selection": str(selection),
                "width": int(width),
                "training": str(training),
                "stage": str(stage),
                "zeros": clean(zeros),
                "count": clean(group["x"].max()),
                "x": [clean(x) for x in ordered["x"]],
                "y": [clean(y) for y in ordered["y"]],
            }
        )
    return entries


def _thinned(count: int) -> np.ndarray:
    if count <= CURVE_POINTS:
        return np.arange(count)
    even = np.linspace(0, count - 1, CURVE_POINTS // 2)
    log = np.geomspace(1, count, CURVE_POINTS // 2) - 1
    return np.unique(np.round(np.concatenate([even, log])).astype(int))


def _accuracy(reduced: pd.DataFrame) -> list[dict[str, Any]]:
    runs = reduced.drop_duplicates(["run", "step"]).assign(score="accuracy")
    runs = runs.assign(**dict.fromkeys(("ratio", "difference", "baseline"), np.nan), value=runs["accuracy"])
    table = over_runs(runs, SETTING_KEYS).sort_values("step")
    entries = []
    for (width, training), group in groups(table, ["width", "training"]):
        columns = {end: [clean(value) for value in group[f"value{end}"]] for end in ("", "_low", "_high")}
        entry: dict[str, Any] = {"width": int(width), "training": str(training), "step": [int(step) for step in group["step"]]}
        entries.append(entry | {"value": columns[""], "low": columns["_low"], "high": columns["_high"]})
    return entries


def pr_layers(reduced: pd.DataFrame) -> list[str]:
    """The layers whose PR the table of runs shows."""
    return layers_of(select(reduced, score="pr", k=2, selection="all"))


def _runs(reduced: pd.DataFrame) -> list[dict[str, Any]]:
    last = final(reduced)
    rows = last.drop_duplicates("run").sort_values(["width", "training", "seed"])
    ratios = {}
    layers = pr_layers(reduced)
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
        }
        for row in rows[[*RUN_KEYS, "epoch", "accuracy"]].to_dict("records")
    ]


def undefined_counts(results: pd.DataFrame) -> list[tuple[str, str, int]]:
    """(score, reason, how many values) for every reason that left a value undefined, most frequent first."""
    if "reason" not in results.columns:
        return []
    missing = results[results["value"].isna()]
    counts = Counter(zip(missing["score"].astype(str), missing["reason"].astype(str), strict=True))
    return [(score, reason or "no reason given", number) for (score, reason), number in counts.most_common()]
