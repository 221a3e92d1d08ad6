"""Where Kolmogorov–Arnold geometry occurs among the settings of a study, and from which step on.

Geometry *occurs* in a layer of a setting if the participation ratio, KL from uniform and the rotation ratio of its 2 x 2
minors are all above their values at initialisation (MATH.md section 5, claim 1). Each is tested by a one-sided t test that
the mean logarithm of the ratio over nets (seeds) is above 0; the largest of the three p-values tests all three at once
(intersection–union), and Holm's adjustment over all settings and layers must leave it below 5%. Its *onset* is the first
measured step from which on, to the end, the 95% intervals of the three means lie above 1; a study that measured nothing
between the beginning and the end has none.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from kagscope.base.messages import Finding
from kagscope.studies.statistics.multiple_testing import holm
from kagscope.studies.statistics.student import mean_of, t_interval, t_test
from kagscope.tables.means import last_step, layers_of, summarise
from kagscope.tables.schema import ALPHA

SIGNATURES = ("pr", "kl_uniform", "rr_pr")
TEST = "one-sided t of the mean log ratio over nets, the largest p of the three; Holm over settings and layers"


def phase_diagram(results: pd.DataFrame, runs: pd.DataFrame, axes: Sequence[str]) -> pd.DataFrame:
    """Apply the criterion to each setting and layer.

    Args:
        results: the ``results`` table of a study.
        runs: runs table of the study.
        axes: varied columns of ``runs`` other than the seed, which identify settings.

    Returns:
        The axes, ``layer``, ``nets``, mean ``accuracy``; for each of pr, kl_uniform, rr_pr the geometric mean of trained
        over initial with its 95% interval (``pr``, ``pr_low``, ``pr_high``, …); ``p_value``, ``p_holm``, ``occurs``,
        ``test``; ``onset_step``, ``onset_epoch`` and ``onset_accuracy``, NaN without an onset. Empty unless all three
        were measured over the whole image.
    """
    about_minors = (
        (results["k"] == 2) & (results["selection"] == "all") & results["score"].isin(SIGNATURES) & (results["step"] > 0)
    )
    chosen = summarise(results[about_minors]).astype({"run": str, "layer": str, "score": str})
    if set(chosen["score"].unique()) != set(SIGNATURES):
        return pd.DataFrame()
    logs = np.log(chosen["ratio"].where(chosen["ratio"] > 0)).rename("log")
    wide = chosen.assign(log=logs).pivot(index=["run", "layer", "step"], columns="score", values="log").reset_index()
    order = {run: index for index, run in enumerate(runs["run"])}
    wide = wide.sort_values("run", key=lambda names: names.map(order), kind="stable")
    moments = chosen.drop_duplicates(["run", "step"])[["run", "step", "epoch", "accuracy"]]
    frame = wide.merge(moments, on=["run", "step"]).join(runs.set_index("run")[list(axes)].add_prefix("axis_"), on="run")
    rows = [
        _row(dict(zip(axes, setting, strict=True)), layer, group)
        for setting, same in _groups(frame, [f"axis_{name}" for name in axes])
        for layer in layers_of(same)
        if (group := same[same["layer"] == layer])["step"].size
    ]
    table = pd.DataFrame(rows)
    table["p_holm"] = holm(table["p_value"].tolist())
    table["occurs"] = table["p_holm"] < ALPHA
    return table.assign(test=TEST)


def _groups(frame: pd.DataFrame, keys: list[str]) -> list[tuple[tuple[Any, ...], pd.DataFrame]]:
    if not keys:
        return [((), frame)]
    return [(key, group) for key, group in frame.groupby(keys, sort=False, dropna=False)]


def _row(setting: dict[str, Any], layer: str, group: pd.DataFrame) -> dict[str, Any]:
    """The criterion for the trained nets of a setting, and the onset."""
    last = last_step(group)
    values = last[list(SIGNATURES)].to_numpy(dtype=float)
    estimate = mean_of(values)
    low, high = t_interval(estimate)
    row: dict[str, Any] = {**setting, "layer": layer, "nets": len(last), "accuracy": float(last["accuracy"].mean())}
    with np.errstate(over="ignore"):  # unbounded intervals become infinite
        ratios, low, high = np.exp(np.asarray(estimate.value)), np.exp(low), np.exp(high)
    for i, name in enumerate(SIGNATURES):
        row |= {name: ratios[i], f"{name}_low": low[i], f"{name}_high": high[i]}
    tests = t_test(estimate, "greater")
    onset = _onset(group)
    return row | {
        "p_value": float(tests.max()),  # NaN if any is
        "onset_step": onset["step"],
        "onset_epoch": onset["epoch"],
        "onset_accuracy": onset["accuracy"],
    }


def _onset(group: pd.DataFrame) -> dict[str, float]:
    """First step from which on the intervals of all three are above 1; NaN with fewer than two steps."""
    first: dict[str, float] = dict.fromkeys(("step", "epoch", "accuracy"), np.nan)
    steps = list(group[group["step"] > 0].groupby("step"))
    for _, same in reversed(steps if len(steps) > 1 else []):
        low, _ = t_interval(mean_of(same[list(SIGNATURES)].to_numpy(dtype=float)))
        if not (low > 0).all():
            break
        first = {
            "step": float(same["step"].iloc[0]),
            "epoch": float(same["epoch"].mean()),
            "accuracy": float(same["accuracy"].mean()),
        }
    return first


def phase_findings(table: pd.DataFrame, axes: Sequence[str], accuracy: str = "accuracy") -> list[Finding]:
    """Findings on where geometry occurs, and from which step on.

    Args:
        table: result of :func:`phase_diagram`.
        axes: axes of that table.
        accuracy: label of test accuracy: "R²" for a regression.

    Returns:
        Findings "phase_open", or "phase_count" and for each layer "phase_where" and "phase_onset".
    """
    if table.empty:
        return []
    if table["p_value"].isna().all():
        text = "Where Kolmogorov–Arnold geometry occurs is left open: one net a setting gives no test."
        return [Finding(text, code="phase_open")]
    occurs = int(table["occurs"].sum())
    text = (
        "Kolmogorov–Arnold geometry (participation ratio, KL and rotation ratio of the 2 x 2 minors all above their "
        f"initial values; one-sided t over nets, Holm's correction, 5%) occurs in {occurs or 'none'} of {len(table)} settings "
        "and layers."
    )
    findings = [Finding(text, code="phase_count", occurs=occurs, of=len(table))]
    if not occurs:
        return findings
    layers, (by, along) = layers_of(table), two_axes(table, axes)
    for layer in layers:
        settings = table[table["layer"] == layer]
        if by is not None:
            suffix = _describe_occurrence(settings, by, along)
            text = f"{f'In layer {layer} it' if len(layers) > 1 else 'It'} occurs{suffix}."
            findings.append(Finding(text, code="phase_where", layer=layer, where=suffix.removeprefix(":").strip()))
        onset = settings[settings["occurs"] & settings["onset_step"].notna()]
        if len(onset):
            start = f"In layer {layer}, where" if len(layers) > 1 else "Where"
            findings.append(_onset_finding(start, layer, onset, accuracy))
    return findings


def _onset_finding(start: str, layer: str, onset: pd.DataFrame, accuracy: str) -> Finding:
    """From which step on geometry is there for good, in the median of the settings with an onset."""
    steps, epochs, at = (onset[f"onset_{name}"] for name in ("step", "epoch", "accuracy"))
    epoch = f"epoch {epochs.median():.2g}"
    where = f"in the median setting ({steps.min():g} to {steps.max():g}; {epoch})" if steps.nunique() > 1 else f"({epoch})"
    text = (
        f"{start} it occurs, it is there for good from step {steps.median():g} on {where}, when the test {accuracy} is "
        f"{at.median():z.2f}; at the end it is {onset['accuracy'].median():z.2f}."
    )
    numbers = {"step": float(steps.median()), "earliest": float(steps.min()), "latest": float(steps.max())}
    return Finding(text, code="phase_onset", layer=layer, accuracy=float(at.median()), **numbers)


def _describe_occurrence(settings: pd.DataFrame, by: str, along: str | None) -> str:
    """ " in all 6 settings", " nowhere", or ": " and for each value of an axis where."""
    if settings["occurs"].nunique() == 1:
        return f" in all {len(settings)} settings" if settings["occurs"].all() else " nowhere"
    has_repeats = settings.groupby([by] if along is None else [by, along]).size().max() > 1  # other axes vary too: counts
    return ": " + "; ".join(_describe_counts(settings, by) if has_repeats else _describe_places(settings, by, along))


def two_axes(table: pd.DataFrame, axes: Sequence[str]) -> tuple[str | None, str | None]:
    """The axis to iterate over, and the one whose values are listed for each: the one with most numbers."""
    numeric = [name for name in axes if pd.api.types.is_numeric_dtype(table[name])]
    along = max(numeric, key=lambda name: table[name].nunique(), default=None)
    others = [name for name in axes if name != along]
    by = max(others, key=lambda name: table[name].nunique(), default=None)
    return (by, along) if by is not None else (along, None)


def _describe_counts(settings: pd.DataFrame, by: str) -> list[str]:
    name = by.replace("_", " ")
    return [f"{name} {value}: in {int(same.sum())} of {len(same)}" for value, same in settings.groupby(by, sort=False)["occurs"]]


def _describe_places(settings: pd.DataFrame, by: str, along: str | None) -> list[str]:
    if along is None and pd.api.types.is_numeric_dtype(settings[by]):
        return [_describe_range(by, settings.groupby(by)["occurs"].all())]
    phrases: list[str] = []
    for value, same in settings.groupby(by, sort=False):
        name = f"{by.replace('_', ' ')} {value}" if by != "data" else str(value)
        if along is None:
            phrases.append(f"{name}: {'yes' if same['occurs'].all() else 'no'}")
            continue
        everywhere = same.groupby(along)["occurs"].all()
        phrases.append(f"{name}: {_describe_range(along, everywhere)}")
    return phrases


def _describe_range(along: str, occurs: pd.Series[bool]) -> str:
    """ "every width", "width 16 and more", "width 8 to 32", "width 4, 16", "nowhere"."""
    values, holds = list(occurs.index), occurs.to_numpy(dtype=bool)
    name = along.replace("_", " ")
    places = np.flatnonzero(holds)
    if not len(places):
        return "nowhere"
    if holds.all():
        return f"every {name}"
    if np.ptp(places) + 1 == len(places) and len(places) > 1:
        return f"{name} {values[places[0]]:g} " + ("and more" if places[-1] == len(values) - 1 else f"to {values[places[-1]]:g}")
    return f"{name} " + ", ".join(f"{values[i]:g}" for i in places)
