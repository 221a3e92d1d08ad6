"""Does geometry go with how well a network does? Rank correlations across the runs of a study."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pandas as pd

from kagscope.studies.statistics.multiple_testing import holm
from kagscope.studies.statistics.spearman import correlate
from kagscope.tables.means import final, layers_of, summarise

OUTCOMES = ("accuracy", "train_accuracy", "generalization_gap", "calibration_error")
SCORES = ("pr", "kl_uniform", "rr_pr", "zero_rows", "axis_alignment", "effective_rank", "kernel_alignment", "constant_share")
FEWEST = 8  # runs


def relations(results: pd.DataFrame, runs: pd.DataFrame, given: Sequence[str] = ()) -> pd.DataFrame:
    """Spearman's rank correlation of each score with each outcome over runs, and the same with other columns held fixed.

    Scores are those of the trained net over the whole image: the ratio to initialisation where it is defined in all runs, else
    the value. Intervals are percentiles of a bootstrap over runs; p-values come from the t approximation, adjusted by Holm over
    all pairs of the table. A correlation across settings is no effect of geometry: what the study varies may drive both. The
    partial correlation removes what the ranks of ``given`` explain linearly.

    Args:
        results: of a study.
        runs: its runs table.
        given: columns of ``runs`` to hold fixed, such as "width" or "training"; names enter as one indicator each.

    Returns:
        One row per score (layer, k, score, measure) and outcome: ``n``, ``rho``, ``rho_low``, ``rho_high``, ``p_value``,
        ``p_holm``, ``partial``, ``partial_low``, ``partial_high``, ``test``. Empty with fewer than eight runs.
    """
    outcomes = outcome_columns(runs)
    runs, held = _held(runs, given)
    rows = []
    for about, values in _scores(results):
        joined = runs.set_index("run").assign(geometry=values)
        for outcome in outcomes:
            frame = joined[["geometry", outcome, *held]].dropna()
            if len(frame) >= FEWEST and frame["geometry"].nunique() > 1 and frame[outcome].nunique() > 1:
                rows.append(about | {"outcome": outcome} | correlate(frame.to_numpy(dtype=float)))
    found = pd.DataFrame(rows)
    if len(found):
        found["p_holm"] = holm(found["p_value"].tolist())
        found["test"] = "Spearman rank correlation over runs"
    return found


def outcome_columns(runs: pd.DataFrame) -> list[str]:
    """Columns that say how well a run does and that differ among the runs."""
    named = [name for name in runs.columns if name in OUTCOMES or name.startswith(("pgd_", "fgsm_"))]
    return [name for name in named if runs[name].nunique() > 1]


def _held(runs: pd.DataFrame, given: Sequence[str]) -> tuple[pd.DataFrame, list[str]]:
    """The runs with indicators of names, and the columns to hold fixed."""
    held: dict[str, Any] = {}
    for name in given:
        if pd.api.types.is_numeric_dtype(runs[name]):
            held[f"held_{name}"] = runs[name]
        else:
            indicators = pd.get_dummies(runs[name].astype(str), prefix=f"held_{name}", dtype=float).iloc[:, 1:]
            held |= {str(column): indicators[column] for column in indicators}
    held = {name: values for name, values in held.items() if values.nunique() > 1}
    return runs.assign(**held), list(held)


def _scores(results: pd.DataFrame) -> Iterator[tuple[dict[str, Any], pd.Series[float]]]:
    """What a score is, and its value in each run, indexed by run."""
    last = summarise(final(results))
    chosen = last[(last["selection"].astype(str) == "all") & last["score"].astype(str).isin(SCORES)].astype({"run": str})
    for layer in layers_of(chosen):
        for (k, score), part in chosen[chosen["layer"].astype(str) == layer].groupby(["k", "score"], observed=True, sort=False):
            measure = "ratio" if part["ratio"].notna().all() and (part["ratio"] != 1).any() else "value"
            yield {"layer": layer, "k": k, "score": str(score), "measure": measure}, part.set_index("run")[measure]
