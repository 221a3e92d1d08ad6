"""Results tables made to order: networks whose effects are known, to see whether the claims' judges find them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
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
    blocks: list[tuple[tuple[Any, ...], np.ndarray, np.ndarray, np.ndarray]] = []  # what rows share, points, values, baselines
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
                            values = np.empty((2, some))
                            values[0] = after[:some] if np.ndim(after) else after
                            values[1] = before[:some] if np.ndim(before) else before
                            values[0, rng.random(some) < undefined] = np.nan
                            blocks.append(((*where[0], where[1], k, selection, score), 3 * np.arange(some), *values))

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
                            blocks.append(_one((*run, layer, 0, "all", "constant_units"), float(units), 0.0))
                            if column_subsets:
                                counts = _counts().items()
                                blocks.extend(
                                    _one((*run, layer, 2, name, "column_subsets"), count, count) for name, count in counts
                                )
                    if final:
                        blocks.append(_one((*run, "", 0, "all", "prune_change"), prune_change * progress, 0.0))
    shared, *numbers = zip(*blocks, strict=True)
    made = ("labels", "ratio", "stderr", "baseline_stderr", "exact", "reason")
    columns = [name for name in RESULT_COLUMNS if name not in (*made, "point", "value", "baseline")]
    table = pd.DataFrame(shared, columns=columns)
    table = table.loc[np.repeat(np.arange(len(table)), [len(one) for one in numbers[0]])].reset_index(drop=True)
    table["point"], table["value"], table["baseline"] = (np.concatenate(one) for one in numbers)
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


def _one(shared: tuple[Any, ...], value: float, baseline: float) -> tuple[Any, np.ndarray, np.ndarray, np.ndarray]:
    """A row of the whole layer or net."""
    return shared, np.array([-1]), np.array([value]), np.array([baseline])


@cache
def _counts() -> dict[str, float]:
    """Numbers of pixel pairs of an 8 x 8 image."""
    places = np.stack(np.divmod(np.arange(64), 8), axis=1)
    i, j = np.triu_indices(64, 1)
    apart = np.sqrt(((places[i] - places[j]) ** 2).sum(axis=1))
    counts = {"all": float(apart.size)}
    counts |= {f"ball({r})": float((apart <= r).sum()) for r in BALLS}
    return counts | {f"apart({d})": float((apart >= d).sum()) for d in APARTS}
