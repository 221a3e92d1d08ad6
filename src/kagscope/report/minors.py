"""Distributions for the page: histograms of ln |minor|, row means by rank."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from kagscope.report.numbers import clean
from kagscope.tables.means import curve_means, group_rows

CURVE_POINTS = 160  # points kept of a Zipf curve, half evenly spaced in rank, half in log rank
BINS_PER_OCTAVE = 8
NEGLIGIBLE = 1e-5  # share of the minors in the leftmost bins, which are merged into their sum


def pack_curves(curves: pd.DataFrame) -> list[dict[str, Any]]:
    """Pack means over runs; a histogram has ``first`` (its first bin), ``y`` from there on, ``zeros`` and ``below``."""
    means = curve_means(curves)
    keys = ["curve", "layer", "k", "selection", "width", "training", "stage"]
    columns = {name: means[name].to_numpy(float) for name in ("x", "y", "y_low", "y_high", "seeds")}
    entries = []
    for key, rows in group_rows(means, keys):
        curve, layer, k, selection, width, training, stage = key
        entry: dict[str, Any] = {"curve": str(curve), "layer": str(layer), "k": int(k), "selection": str(selection)}
        ordered = rows[np.argsort(columns["x"][rows], kind="stable")]
        x, y, low, high, seeds = (column[ordered] for column in columns.values())
        entry |= {"width": int(width), "training": str(training), "stage": str(stage), "seeds": int(seeds.max())}
        entries.append(entry | (_zipf(x, y, low, high) if str(curve) == "zipf" else _histogram(x, y)))
    return entries


def _zipf(x: np.ndarray, y: np.ndarray, low: np.ndarray, high: np.ndarray) -> dict[str, Any]:
    kept = _thin(len(x))
    columns = {"x": x, "y": y, "low": low, "high": high}
    numbers = {name: [clean(value) for value in column[kept]] for name, column in columns.items()}
    return {"count": clean(x.max()), **numbers}


def _histogram(x: np.ndarray, y: np.ndarray) -> dict[str, Any]:
    zeros, finite = float(y[np.isneginf(x)].sum()), np.isfinite(x)
    if not finite.any():
        return {"zeros": clean(zeros), "below": 0, "first": 0, "y": []}
    bins = np.round(x[finite] * BINS_PER_OCTAVE).astype(int)
    counts = np.zeros(bins[-1] - bins[0] + 1)
    np.add.at(counts, bins - bins[0], y[finite])
    skip = int(np.searchsorted(np.cumsum(counts), NEGLIGIBLE))
    kept = [clean(value) for value in counts[skip:].tolist()]
    return {"zeros": clean(zeros), "below": clean(counts[:skip].sum()), "first": int(bins[0]) + skip, "y": kept}


def _thin(count: int) -> np.ndarray:
    if count <= CURVE_POINTS:
        return np.arange(count)
    even = np.linspace(0, count - 1, CURVE_POINTS // 2)
    log = np.geomspace(1, count, CURVE_POINTS // 2) - 1
    return np.unique(np.round(np.concatenate([even, log])).astype(int))
