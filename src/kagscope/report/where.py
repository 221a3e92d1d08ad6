"""Maps over the image: windowed scores of trained networks, over all measured images and by class, and mean images."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from kagscope.figures.windows import window_grid
from kagscope.report.numbers import clean, groups
from kagscope.tables.means import last_step, select_windows, summarise
from kagscope.tables.schema import BOOKKEEPING

KEYS = ("layer", "k", "score", "width", "training", "radius")


def pack_maps(nets: pd.DataFrame, results: pd.DataFrame, labels: Mapping[int, int] | None) -> list[dict[str, Any]]:
    """Grids of ratio and value, for all images (``label`` None) and, if ``labels`` are given, for each class.

    Args:
        nets: means over the data points of each net and step.
        results: the table of single numbers.
        labels: class of each test image, by index.
    """
    table = _windows(nets)
    maps = _grids(table, None, None) if len(table) else []
    if not len(table) or not labels or "point" not in results.columns:
        return maps
    names = results["selection"].astype(str)
    chosen = last_step(results[names.str.startswith("window(")])
    classes = chosen["point"].map(labels)
    for label in sorted({int(label) for label in classes.dropna().unique()}):
        of_class = chosen[classes == label]
        images = int(of_class["point"].nunique())
        maps += _grids(_windows(summarise(of_class)), label, images)
    return maps


def _windows(nets: pd.DataFrame) -> pd.DataFrame:
    inside = nets["selection"].astype(str).str.startswith("window(") & ~nets["score"].astype(str).isin(BOOKKEEPING)
    return last_step(nets[inside])


def _grids(table: pd.DataFrame, label: int | None, images: int | None) -> list[dict[str, Any]]:
    maps = []
    for key, group in groups(select_windows(summarise(table, over="runs")), KEYS):
        layer, k, score, width, training, radius = key
        rows, columns, _ = window_grid(group)
        entry: dict[str, Any] = {"layer": str(layer), "k": int(k), "score": str(score), "width": int(width)}
        entry |= {"training": str(training), "radius": clean(radius), "label": label, "images": images}
        entry |= {"rows": [clean(row) for row in rows], "columns": [clean(column) for column in columns]}
        measures = (
            ("ratio", "value") if label is not None else ("ratio", "ratio_low", "ratio_high", "value", "value_low", "value_high")
        )
        for measure in measures:
            entry[measure] = [clean(value) for value in window_grid(group, measure)[2].ravel()]
        if sum(value is not None for value in entry["value"]) > 1:  # a single window makes no map
            maps.append(entry)
    return maps


def pack_pictures(pictures: Mapping[str, Any] | None) -> dict[str, Any]:
    """Mean images scaled to 0 … 255, flattened in row-major order: ``mean``, and ``classes`` by label."""
    if not pictures:
        return {}
    return {"mean": _grey(pictures["mean"]), "classes": {str(label): _grey(p) for label, p in pictures["classes"].items()}}


def _grey(image: Any) -> list[int]:
    pixels = np.asarray(image, dtype=np.float64)
    low, high = float(pixels.min()), float(pixels.max())
    return [int(value) for value in np.round(255 * (pixels - low) / ((high - low) or 1.0)).ravel()]
