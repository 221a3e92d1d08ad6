"""Sentences that open the report: what stands out, what is undefined or sampled, what to distrust."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from kagscope.studies.claims import Claim

FEW_SEEDS = 5  # fewest nets in all with which a one-sided signed-rank test can reach 5%
LOW_ACCURACY = 2.0  # times chance


def findings(results: pd.DataFrame, claims: Sequence[Claim], left_out: Mapping[str, str]) -> list[str]:
    """Plain sentences about a study's results.

    Args:
        results: the ``results`` table.
        claims: evaluated on it.
        left_out: runs that are not in the table and why.
    """
    last = results.groupby("run", observed=True)["step"].transform("max")
    final = results[results["step"] == last]
    said = [_verdicts(claims), *_strongest(final), *_sampled(final), *_undefined(final)]
    seeds = int(results["seed"].nunique())
    if seeds == 1:
        said.append("There is one seed only: nothing here says how much nets differ, and no test can reach significance.")
    elif results["run"].nunique() < FEW_SEEDS:
        said.append(f"There are {results['run'].nunique()} nets in all; a signed-rank test needs {FEW_SEEDS} to reach p < 0.05.")
    if last.max() == 0:
        said.append("The nets were not trained (0 epochs): every ratio is exactly 1.")
    said += [f"Run {run} was left out: {why}." for run, why in left_out.items()]
    return said


def _verdicts(claims: Sequence[Claim]) -> str:
    counts = {
        verdict: sum(claim.verdict == verdict for claim in claims) for verdict in ("reproduced", "not reproduced", "inconclusive")
    }
    return f"Of the paper's {len(claims)} claims {counts['reproduced']} were reproduced, {counts['not reproduced']} were not, and {counts['inconclusive']} remain inconclusive."


def _strongest(final: pd.DataFrame) -> list[str]:
    chosen = final[(final["score"] == "pr") & (final["selection"] == "all") & (final["k"] == 2)]
    if chosen.empty:
        return []
    by = chosen.groupby(["layer", "width", "training"], observed=True)["ratio"].mean().dropna()
    if by.empty:
        return []
    (layer, width, training), value = by.idxmax(), by.max()
    (low_layer, low_width, low_training), lowest = by.idxmin(), by.min()
    return [
        f"The participation ratio of 2 x 2 minors grew most in layer {layer} of {training} nets {width} wide ({value:.2f} times its initial value) "
        f"and least in layer {low_layer} of {low_training} nets {low_width} wide ({lowest:.2f} times)."
    ]


def _sampled(final: pd.DataFrame) -> list[str]:
    sampled = final[~final["exact"] & final["value"].notna()]
    if sampled.empty:
        return ["Every number is exact up to rounding."]
    names = sorted({f"{score} (k = {k})" for score, k in zip(sampled["score"].astype(str), sampled["k"], strict=True)})
    share = len(sampled) / max(int(final["value"].notna().sum()), 1)
    relative = (sampled["stderr"] / sampled["value"].abs()).replace(np.inf, np.nan)
    return [
        f"{1 - share:.2%} of the numbers after training are exact; sampled are {', '.join(names)}, with a median standard error of {relative.median():.2%}."
    ]


def _undefined(final: pd.DataFrame) -> list[str]:
    missing = final[final["value"].isna()]
    if missing.empty:
        return []
    reasons = missing["reason"].astype(str).str.removeprefix("undefined: ").value_counts()
    return [
        f"{len(missing)} of {len(final)} numbers are undefined and left out of every mean: {', '.join(f'{reason} ({count})' for reason, count in reasons.items())}."
    ]
