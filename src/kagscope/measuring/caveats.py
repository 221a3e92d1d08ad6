"""Reasons to be careful with a measurement, one finding each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd

from kagscope.base.messages import Finding, listing

FEW_POINTS = 10
LISTED = 5  # scores with large errors that are listed; the others are counted
LARGE_ERROR = 0.05  # relative standard error of sampled numbers
MANY_UNDEFINED = 0.5  # share of a score's numbers
ALIKE = 0.1  # largest distance of a mean ratio from 1
RANK_ONE = 1.05  # effective rank
OUTLIER_RATIO = 1.5  # mean of the ratios over their median
TELLING = ("pr", "kl_uniform", "effective_rank", "stable_rank", "axis_alignment")  # scores that training moves
ONE_RANDOM = "one network initialised anew"


def caveats(table: pd.DataFrame, summary: pd.DataFrame, provenance: Mapping[str, Any]) -> list[Finding]:
    """Findings from a report's table, summary and provenance."""
    noun = "matrix" if provenance.get("matrices") else "layer"
    of_numbers = [*_rank_one_caveats(summary, noun), *_undefined_caveats(table, noun), *_error_caveats(table, noun)]
    if noun == "matrix":  # no network, training or points
        return of_numbers
    baseline = str(provenance.get("baseline") or "none")
    alone = Finding("There is no baseline: nothing here tells trained geometry from that of a random net.", code="no_baseline")
    one_network = Finding(
        "Intervals are over data points of one network; they do not say how much networks differ.", code="one_network"
    )
    return [
        *_baseline_caveats(table, summary, baseline),
        *_outlier_caveats(table),
        *of_numbers,
        *_few_points_caveat(int(provenance.get("points", 0))),
        alone if baseline == "none" else one_network,
    ]


def equals_baseline(table: pd.DataFrame) -> bool:
    """Whether every score equals the baseline's to the last bit."""
    both = table[table["value"].notna() & table["baseline"].notna()]
    return len(both) > 0 and bool((both["value"] == both["baseline"]).all())


def _baseline_caveats(table: pd.DataFrame, summary: pd.DataFrame, baseline: str) -> Iterator[Finding]:
    if equals_baseline(table):
        yield Finding(
            "The model and its baseline give the very same numbers, so every ratio is 1: "
            "check that trained weights were loaded, and that the baseline was copied before training.",
            code="is_its_baseline",
        )
        return
    chosen = summary[summary["score"].isin(TELLING) & (summary["selection"] == "all") & summary["ratio"].notna()]
    if len(chosen) and bool((chosen["ratio"].sub(1).abs() <= ALIKE).all()):
        yield Finding(
            f"The model looks untrained: its mean PR, KL, ranks and axis alignment are within {ALIKE:.0%} of the baseline's "
            "in every layer; check that trained weights were loaded.",
            code="looks_untrained",
        )
    if baseline == ONE_RANDOM:
        yield Finding(
            "The baseline is one random network, and others would give other ratios; use baseline_seeds of 3 or more.",
            code="one_random_baseline",
        )


def _outlier_caveats(table: pd.DataFrame) -> Iterator[Finding]:
    """Layers whose mean PR ratio is due to a few points."""
    chosen = table[(table["score"] == "pr") & (table["k"] == 2) & (table["selection"] == "all") & table["ratio"].notna()]
    per_point = chosen.groupby(["layer", "point"], observed=True, sort=False)["ratio"].mean()
    for layer, ratios in per_point.groupby("layer", observed=True, sort=False):
        mean, median = float(ratios.mean()), float(ratios.median())
        if len(ratios) > 2 and mean > OUTLIER_RATIO * median > 0:
            text = f"A few points drive the mean PR ratio of layer {layer}: it is {mean:.2f}, the median {median:.2f}."
            yield Finding(text, code="few_points_drive", layer=str(layer), mean=mean, median=median)


def _rank_one_caveats(summary: pd.DataFrame, noun: str) -> Iterator[Finding]:
    """Layers of almost rank one, if minors of order 2 or more were measured: a single row has none."""
    larger = summary.loc[(summary["k"] > 1) & summary["value"].notna(), "layer"].unique()
    almost = (summary["score"] == "effective_rank") & (summary["value"] < RANK_ONE) & summary["layer"].isin(larger)
    for row in summary[almost].to_dict("records"):
        start = f"The Jacobians of layer {row['layer']} are" if noun == "layer" else f"Matrix {row['layer']} is"
        yield Finding(
            f"{start} almost of rank one (mean effective rank {row['value']:.3f}): minors of order 2 and up are small "
            "differences of large products, and ratios of them can be extreme.",
            code="almost_rank_one",
            layer=str(row["layer"]),
            effective_rank=float(row["value"]),
        )


def _undefined_caveats(table: pd.DataFrame, noun: str) -> Iterator[Finding]:
    rows = table[table["score"] != "skipped"]
    if rows.empty:
        return
    share = rows["value"].isna().groupby([rows["score"].astype(str), rows["layer"].astype(str)], sort=False).mean()
    mostly = share[(share > MANY_UNDEFINED) & (share < 1)]
    for (score, layer), fraction in zip(mostly.index.to_list(), mostly.tolist(), strict=True):
        yield Finding(
            f"{score} of {noun} {layer} is undefined at {fraction:.0%} of its points or selections: its means are of the few "
            "that remain.",
            code="mostly_undefined",
            score=score,
            layer=layer,
            share=float(fraction),
        )


def _error_caveats(table: pd.DataFrame, noun: str) -> Iterator[Finding]:
    sampled = table[~table["exact"] & table["value"].notna()]
    errors = (sampled["stderr"] / sampled["value"].abs()).replace(np.inf, np.nan)
    large = errors.groupby([sampled["score"].astype(str), sampled["k"].astype(int)], sort=False).median()
    large = large[large > LARGE_ERROR]
    large = large.sort_values(ascending=False, kind="stable")
    pairs = list(zip(large.index.to_list(), large.tolist(), strict=True))
    if pairs:
        listed = listing([f"{score} (k = {k}): {error:.0%}" for (score, k), error in pairs], LISTED)
        of = " at one point" if noun == "layer" else ""
        text = f"Sampling errors{of} are large (medians): {listed}; differences of that size say nothing."
        yield Finding(text, code="large_errors", largest=float(large.max()))


def _few_points_caveat(points: int) -> Iterator[Finding]:
    if points < FEW_POINTS:
        yield Finding(
            f"Only {points} data point{'s' * (points != 1)}: intervals over points say little; measure at least {FEW_POINTS}.",
            code="few_points",
            points=points,
        )
