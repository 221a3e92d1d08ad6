"""Scores and outcomes of every run against the axes of a study, for the page's interactive charts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from kagscope.report.numbers import clean
from kagscope.tables.means import last_step
from kagscope.tables.schema import BOOKKEEPING

MOST_NUMBERS = 400_000  # numbers of all runs on a page; beyond this only the main scores are kept
MAIN = ("pr", "kl_uniform", "rr_pr", "zero_rows", "axis_alignment")


def pack_axes(nets: pd.DataFrame, runs: pd.DataFrame, axes: Sequence[str], outcomes: Mapping[str, str]) -> dict[str, Any] | None:
    """Pack scores over all columns and outcomes of every trained run, with its position on every axis.

    Args:
        nets: one row for each run, step and score (:func:`kagscope.figures.study.net_means`).
        runs: one row per run, with a column for each axis and outcome, and ``seed``.
        axes: columns that vary, other than the seed; those with a single value are left out.
        outcomes: labels of the outcomes by column of ``runs``.

    Returns:
        ``axes`` (``name``, ``label``, ``values`` in order, ``runs``: index of each run's value, or None), ``seeds``,
        ``measures`` (``layer``, ``k``, ``score``, ``value`` and ``ratio`` of each run) and ``outcomes`` (``name``, ``label``,
        ``values``); None if nothing varies.
    """
    packed = [_axis(runs, name) for name in axes if runs[name].nunique() > 1]
    if not packed:
        return None
    order = [str(run) for run in runs["run"]]
    last = last_step(nets)
    chosen = last[last["selection"].isin(["all", ""]) & ~last["score"].isin([*BOOKKEEPING, "accuracy"])]
    if chosen.groupby(["layer", "k", "score"], observed=True).ngroups * len(order) * 2 > MOST_NUMBERS:
        chosen = chosen[chosen["score"].isin(MAIN)]
    measures = []
    for (layer, k, score), group in chosen.groupby(["layer", "k", "score"], observed=True, sort=False):
        table = group.assign(run=group["run"].astype(str)).drop_duplicates("run").set_index("run").reindex(order)
        columns = {name: [clean(value) for value in table[name]] for name in ("value", "ratio")}
        measures.append({"layer": str(layer), "k": int(str(k)), "score": str(score), **columns})
    return {
        "axes": packed,
        "seeds": [int(seed) for seed in runs["seed"]],
        "measures": measures,
        "outcomes": [
            {"name": name, "label": label, "values": [clean(value) for value in runs[name]]}
            for name, label in outcomes.items()
            if runs[name].notna().any()
        ],
    }


def _axis(runs: pd.DataFrame, name: str) -> dict[str, Any]:
    numeric = pd.api.types.is_numeric_dtype(runs[name]) and not pd.api.types.is_bool_dtype(runs[name])
    values = sorted(runs[name].dropna().unique()) if numeric else list(dict.fromkeys(runs[name].dropna().astype(str)))
    places = {value: i for i, value in enumerate(values)}
    column = runs[name] if numeric else runs[name].where(runs[name].isna(), runs[name].astype(str))
    plain = [value.item() if hasattr(value, "item") else value for value in values]
    runs_at = [places.get(value) for value in column]
    return {"name": name, "label": name.replace("_", " "), "values": plain, "runs": runs_at}
