"""Findings of a measurement: what stands out, what is undefined or sampled, what to distrust."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from kagscope.base.messages import Finding, describe_error, group_by_order, listing, strongest_first
from kagscope.base.reasons import code_of
from kagscope.measuring.caveats import caveats, equals_baseline
from kagscope.measuring.overview import interval
from kagscope.tables.means import summarise
from kagscope.tables.onset import find_onsets

LEAST_RATIO = 0.05  # distance from 1 beyond which a mean ratio stands out
NAMED = 3  # left-out items that are named; the others are counted


def findings(
    table: pd.DataFrame,
    layers: Sequence[Mapping[str, Any]],
    notes: Sequence[str],
    provenance: Mapping[str, Any],
    left_out: Mapping[str, str] | None = None,
    thinned: Sequence[int] = (),
) -> list[Finding]:
    """Findings of a report, strongest first; of several steps, the trend and the findings of the last step."""
    course: list[Finding] = []
    if "step" in table.columns and len(steps := sorted(int(step) for step in pd.unique(table["step"]))) > 1:
        course = list(_trend_findings(table, steps))
        table = table[table["step"] == steps[-1]]
    collected = list(_left_out_findings(left_out or {}, thinned))
    if table.empty:
        return [*collected, Finding("Nothing was measured yet.", code="nothing_measured")]
    summary = summarise(table)
    noun = "matrix" if provenance.get("matrices") else "layer"
    collected += [] if equals_baseline(table) else _ratio_findings(summary, noun)
    collected += [*course, *_constant_findings(summary, layers), *_unfelt_findings(summary, layers)]
    for layer in layers:
        name = str(layer["name"])
        if layer["reason"]:
            collected.append(Finding(f"{noun.capitalize()} {name} was skipped: {layer['reason']}.", code="skipped", layer=name))
    collected += _layer_notes(layers, noun)
    collected += [Finding(note[:1].upper() + note[1:] + ".", code="note") for note in notes]
    collected += [*_undefined_findings(table), *_sampling_findings(table), *caveats(table, summary, provenance)]
    return strongest_first(collected)


def _layer_notes(layers: Sequence[Mapping[str, Any]], noun: str) -> Iterator[Finding]:
    """Each note once, with the layers it applies to."""
    layers_by_note: dict[str, list[str]] = {}
    for layer in layers:
        for note in layer["notes"]:
            layers_by_note.setdefault(str(note), []).append(str(layer["name"]))
    for note, names in layers_by_note.items():
        everywhere = len(names) == len(layers) > 1
        plural = {"layer": "layers", "matrix": "matrices"}[noun]
        start = f"All {plural}" if everywhere else f"{(noun if len(names) == 1 else plural).capitalize()} {listing(names)}"
        yield Finding(f"{start}: {note}.", code="layer_note", layer=", ".join(names))


def _main_pr_rows(summary: pd.DataFrame) -> pd.DataFrame:
    """PR over all columns, for k = 2 if measured, else for the largest order."""
    chosen = summary[(summary["score"] == "pr") & (summary["selection"] == "all") & summary["ratio"].notna()]
    return chosen[chosen["k"] == (2 if (chosen["k"] == 2).any() else chosen["k"].max())]


def _trend_findings(table: pd.DataFrame, steps: list[int]) -> Iterator[Finding]:
    """One finding per layer: PR ratio at the last step, where it was furthest from 1, and its onset."""
    text = f"{len(steps)} measurements, from step {steps[0]} to step {steps[-1]}."
    yield Finding(text, code="course", measurements=len(steps), first=steps[0], last=steps[-1])
    chosen = _main_pr_rows(summarise(table))
    onsets = {str(row["layer"]): row for row in find_onsets(chosen).to_dict("records")} if len(chosen) else {}
    for layer, rows in chosen.groupby("layer", observed=True, sort=False):
        rows = rows.sort_values("step")
        last, furthest = rows.iloc[-1], rows.iloc[int(np.abs(np.log(rows["ratio"])).argmax())]
        k, onset = int(last["k"]), onsets[str(layer)]
        after = f", after {furthest['ratio']:.2f} at step {int(furthest['step'])}" if furthest["step"] != last["step"] else ""
        since = (
            f"no onset ({onset['reason']})"
            if onset["step"] is None
            else f"onset at step {onset['step']}, {'above' if onset['direction'] == 'rises' else 'below'} the baseline's"
        )
        yield Finding(
            f"Layer {layer}: PR (k = {k}) is {interval(last)} times the baseline's at step {int(last['step'])}{after}; {since}.",
            code="layer_course",
            layer=str(layer),
            ratio=float(last["ratio"]),
            highest=float(rows["ratio"].max()),
            onset=-1 if onset["step"] is None else int(onset["step"]),
        )


def _left_out_findings(left_out: Mapping[str, str], thinned: Sequence[int]) -> Iterator[Finding]:
    for name, reason in list(left_out.items())[:NAMED]:
        yield Finding(f"{name} was left out: {reason}.", code="left_out", name=name)
    if len(left_out) > NAMED:
        more = len(left_out) - NAMED
        yield Finding(f"{more} more were left out.", code="more_left_out", count=more)
    if thinned:
        text = f"{len(thinned)} due measurements were left out, to stay under the limit on overhead."
        yield Finding(text, code="thinned", count=len(thinned))


def _ratio_findings(summary: pd.DataFrame, noun: str) -> Iterator[Finding]:
    chosen = summary[(summary["score"] == "pr") & (summary["k"] == 2) & summary["ratio"].notna()]
    chosen = chosen[chosen["selection"] == "all"]
    if chosen.empty:
        return
    highest = chosen.sort_values("ratio").iloc[-1]
    if not highest["ratio"] > 1 + LEAST_RATIO:
        yield Finding(
            f"In no {noun} are the 2 x 2 minors more than {LEAST_RATIO:.0%} more concentrated than in the baseline "
            f"(the largest PR ratio is {highest['ratio']:.2f}).",
            code="no_concentration",
            ratio=float(highest["ratio"]),
        )
        return
    with_intervals = chosen["ratio_low"].notna().any()
    clear = chosen[(chosen["ratio_low"] > 1) & (chosen["ratio"] > 1 + LEAST_RATIO)]
    yield Finding(
        f"The 2 x 2 minors concentrate most in {noun} {highest['layer']}: PR is {interval(highest)} times the baseline's.",
        code="concentration",
        layer=str(highest["layer"]),
        ratio=float(highest["ratio"]),
    )
    if with_intervals:  # of single Jacobians there are no intervals
        yield Finding(
            f"PR is more than {LEAST_RATIO:.0%} above the baseline's, with a 95% interval over points above 1, "
            f"in {len(clear) or 'none'} of {len(chosen)} layers.",
            code="layers_above_baseline",
            layers=len(clear),
            of=len(chosen),
        )


def _constant_findings(summary: pd.DataFrame, layers: Sequence[Mapping[str, Any]]) -> Iterator[Finding]:
    yield from _unit_findings(
        summary[summary["exact"]],  # not estimated from drawn rows
        "constant_units_exact",
        {layer["name"]: layer["rows"] for layer in layers},
        "Constant around every point: {}; their slopes there are below the rounding of float32 beside the layer's largest.",
        "constant_units",
    )


def _unfelt_findings(summary: pd.DataFrame, layers: Sequence[Mapping[str, Any]]) -> Iterator[Finding]:
    yield from _unit_findings(
        summary,
        "unfelt_units_exact",
        {layer["name"]: layer["columns"] for layer in layers},
        "Not felt by the output at any point: {}; no slope is above rounding.",
        "unfelt_units",
    )


def _unit_findings(summary: pd.DataFrame, score: str, sizes: Mapping[str, Any], text: str, code: str) -> Iterator[Finding]:
    """One finding for all layers that have such units, with the baseline's counts."""
    rows = summary[(summary["score"] == score) & (summary["value"] > 0)]
    if rows.empty:
        return
    parts = []
    for layer, units, before in rows[["layer", "value", "baseline"]].itertuples(index=False):
        versus = "" if np.isnan(before) else f" (baseline: {before:.3g})"
        parts.append(f"{int(units)} of {sizes.get(str(layer), 0)} units of layer {layer}{versus}")
    layers = ", ".join(str(layer) for layer in rows["layer"])
    yield Finding(text.format(", ".join(parts)), code=code, layer=layers, units=int(rows["value"].sum()))


def _undefined_findings(table: pd.DataFrame) -> Iterator[Finding]:
    missing = table[table["value"].isna() & (table["score"] != "skipped")]
    if missing.empty:
        return
    reasons = missing["reason"].astype(str).value_counts()
    listed = "; ".join(f"{str(reason).removeprefix('undefined: ')} ({count})" for reason, count in reasons.items() if count)
    text = f"{len(missing)} of {len(table)} numbers are undefined and left out of means: {listed}."
    codes = ", ".join(sorted({code_of(str(reason)) for reason, count in reasons.items() if count}))
    yield Finding(text, code="undefined", count=len(missing), of=len(table), reasons=codes)


def _sampling_findings(table: pd.DataFrame) -> Iterator[Finding]:
    sampled = table[~table["exact"] & table["value"].notna()]
    if sampled.empty:
        yield Finding("Every number is exact, up to rounding.", code="all_exact")
        return
    error = float((sampled["stderr"] / sampled["value"].abs()).replace([np.inf], np.nan).median())
    names = group_by_order(zip(sampled["score"].astype(str), sampled["k"], strict=True))
    yield Finding(
        f"These are sampled, with {describe_error(error)}: {names}; all others are exact, up to rounding.",
        code="sampled",
        count=len(sampled),
        of=len(table),
        median_error=error,
    )
