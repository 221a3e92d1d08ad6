"""Results tables made to order: networks whose effects are known, to see whether the claims' judges find them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from kagscope.tables.schema import RESULT_COLUMNS

BALLS, APARTS = (2, 4, 6, 8), (2, 4, 6, 8)
BASE = {"pr": 0.02, "kl_uniform": 0.6, "rr_pr": 1.0, "rr_max": 1.05, "zero_rows": 0.01, "zero_rows_exact": 0.0}


def make_results(
    *,
    widths: Sequence[int] = (8, 16, 32),
    trainings: Sequence[str] = ("standard", "augmented"),
    seeds: int = 5,
    points: int = 12,
    layers: Sequence[str] = ("1", "3"),
    steps: Sequence[int] = (0, 10, 40, 100),
    excess: float = 0.6,
    per_doubling: float = 0.15,
    scale_slope: float = 0.0,
    distance_slope: float = 0.0,
    augmented_share: float = 0.7,
    augmented_of: str = "excess",
    augmented_slowness: float = 0.0,
    kl_rise: float = 0.3,
    rotation: float = 1.3,
    rotation_initial: float = 1.0,
    zero_row_rise: float = 0.1,
    constant_units: int = 2,
    prune_change: float = 1e-7,
    net_noise: float = 0.02,
    point_noise: float = 0.05,
    scale_noise: float = 0.005,
    undefined: float = 0.0,
    column_subsets: bool = True,
    orders: Sequence[int] = (2,),
    labels: str = "true",
    drop: Callable[[pd.DataFrame], Any] | None = None,
    seed: int = 0,
) -> pd.DataFrame:
    """A table with these effects.

    Args:
        excess: PR ratio minus 1 of the narrowest standard nets at the last step, over all pairs; it grows linearly in the step.
        per_doubling: added to it for each doubling of the width.
        scale_slope, distance_slope: change of the ratio, relative to its mean, from the smallest ball or apart to the largest.
        augmented_share: what is left of the standard ratio ("ratio") or of its excess ("excess") in augmented nets.
        augmented_slowness: how much lower the accuracy of augmented nets stays.
        kl_rise, zero_row_rise: trained minus initial.
        rotation, rotation_initial: RR of the trained and of the initial net.
        constant_units: of the trained net in its first layer; ``prune_change`` is what their removal changes.
        net_noise, point_noise: relative standard deviation of a net's effect, and of each point (mean 0 over points).
        scale_noise: the same of each net at each scale.
        undefined: share of values of point scores that are NaN.
        labels: "true", or "shuffled" of a control.
        drop: which rows to leave out, as a mask of the table.
    """
    rng = np.random.default_rng(seed)
    rows: list[tuple[Any, ...]] = []
    image = _centred(rng.normal(0, point_noise, points))  # the same odd images in all nets
    for width in widths:
        for training in trainings:
            for number in range(seeds):
                luck = rng.normal(0, net_noise, len(layers))
                last = steps[-1]
                for step in steps:
                    progress = step / last if last else 0.0
                    accuracy = 0.1 + (0.85 - augmented_slowness * (training == "augmented")) * progress
                    run = (f"{labels}-{training}-{width}-{number}", width, training, number, step, step / 20, accuracy)
                    final = step in (0, last)
                    for layer, own in zip(layers, luck, strict=True):
                        full = excess + per_doubling * np.log2(width / widths[0])
                        if training == "augmented":
                            full = full * augmented_share if augmented_of == "excess" else (1 + full) * augmented_share - 1
                        ratio = 1 + progress * (full + own)
                        base = np.exp(rng.normal(0, 0.2, points))
                        noise = 1 + (image + _centred(rng.normal(0, point_noise, points))) * (progress > 0)

                        def add(
                            score: str,
                            k: int,
                            selection: str,
                            before: Any,
                            after: Any,
                            some: int = points,
                            where: Any = (run, layer),
                        ) -> None:
                            before, after = np.broadcast_to(before, points)[:some], np.broadcast_to(after, points)[:some].copy()
                            after[rng.random(len(after)) < undefined] = np.nan
                            for point in range(some):
                                rows.append((*where[0], where[1], k, selection, 3 * point, score, after[point], before[point]))

                        few = points if final else max(points // 2, 1)
                        for k in orders:
                            pr = BASE["pr"] * base
                            add("pr", k, "all", pr, pr * ratio * noise, few)
                            if final and k != 1:
                                for kind, sizes, slope in (("ball", BALLS, scale_slope), ("apart", APARTS, distance_slope)):
                                    tilt = (
                                        1
                                        + progress * slope * np.linspace(-0.5, 0.5, len(sizes))
                                        + progress * rng.normal(0, scale_noise, len(sizes))
                                    )
                                    for size, factor in zip(sizes, tilt, strict=True):
                                        add("pr", k, f"{kind}({size})", pr, pr * ratio * noise * factor)
                        if final:
                            rise = kl_rise * progress * noise
                            add(
                                "kl_uniform",
                                2,
                                "all",
                                BASE["kl_uniform"] * base,
                                BASE["kl_uniform"] * base + rise,
                                max(points // 2, 1),
                            )
                            turned = rotation_initial + progress * (rotation - rotation_initial)
                            add("rr_pr", 2, "all", rotation_initial, turned * noise)
                            add("rr_max", 2, "all", rotation_initial, turned * noise, min(points, 3))
                            add("zero_rows", 1, "all", 0.01, 0.01 + zero_row_rise * progress * noise)
                            add("zero_rows_exact", 1, "all", 0.0, 0.5 * zero_row_rise * progress * noise)
                            units = round(constant_units * progress) if layer == layers[0] else 0
                            rows.append((*run, layer, 0, "all", -1, "constant_units", float(units), 0.0))
                            rows.extend(_bookkeeping(run, layer) if column_subsets else [])
                    if final:
                        rows.append((*run, "", 0, "all", -1, "prune_change", prune_change * progress, 0.0))
    columns = [c for c in RESULT_COLUMNS if c not in ("labels", "ratio", "stderr", "baseline_stderr", "exact", "reason")]
    table = pd.DataFrame(rows, columns=columns)
    baseline = table["baseline"].to_numpy()
    table["ratio"] = np.divide(table["value"], baseline, out=np.full(len(table), np.nan), where=baseline != 0)
    table["labels"], table["stderr"], table["baseline_stderr"], table["exact"] = labels, 0.0, 0.0, True
    table["reason"] = np.where(table["value"].isna(), "undefined: made so", "")
    if drop is not None:
        table = table[~np.asarray(drop(table), dtype=bool)]
    return table.astype(RESULT_COLUMNS)[list(RESULT_COLUMNS)].reset_index(drop=True)


def with_ratio(table: pd.DataFrame, where: Any, ratio: Any) -> pd.DataFrame:
    """The table with another ratio to initialisation in some rows."""
    table = table.copy()
    table.loc[where, "ratio"] = ratio
    table.loc[where, "value"] = table.loc[where, "ratio"] * table.loc[where, "baseline"]
    return table


def _centred(values: np.ndarray) -> np.ndarray:
    return np.asarray(values - values.mean())


def _bookkeeping(run: tuple[Any, ...], layer: str) -> Iterable[tuple[Any, ...]]:
    """Numbers of pixel pairs of an 8 x 8 image."""
    places = np.stack(np.divmod(np.arange(64), 8), axis=1)
    i, j = np.triu_indices(64, 1)
    apart = np.sqrt(((places[i] - places[j]) ** 2).sum(axis=1))
    counts = {"all": apart.size}
    counts |= {f"ball({r})": int((apart <= r).sum()) for r in BALLS} | {f"apart({d})": int((apart >= d).sum()) for d in APARTS}
    return [(*run, layer, 2, name, -1, "column_subsets", float(count), float(count)) for name, count in counts.items()]
