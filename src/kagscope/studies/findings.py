"""Sentences that open the report: what stands out, what is undefined or sampled, what to distrust."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from kagscope.schema import VERDICTS
from kagscope.studies.claims import Claim

FEW_SEEDS = 5  # fewest nets in all with which a one-sided signed-rank test can reach 5%


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
    held, failed, opened = (counts[verdict] for verdict in VERDICTS)
    rest = f"{opened} remain{'s' * (opened == 1)} inconclusive"
    return f"Of the paper's {len(claims)} claims {held} reproduced, {failed} did not, and {rest}."


def _strongest(final: pd.DataFrame) -> list[str]:
    chosen = final[(final["score"] == "pr") & (final["selection"] == "all") & (final["k"] == 2) & final["ratio"].notna()]
    if chosen.empty:
        return []
    keys = ["layer", "width", "training"]
    by = chosen.groupby(keys, observed=True)["ratio"].mean().reset_index().sort_values("ratio")
    least, most = (by.iloc[place] for place in (0, -1))
    where = "layer {0.layer} of {0.training} nets {0.width} wide ({0.ratio:.2f} times its initial value)"
    return [f"The participation ratio of the 2 x 2 minors grew most in {where.format(most)} and least in {where.format(least)}."]


def _sampled(final: pd.DataFrame) -> list[str]:
    sampled = final[~final["exact"] & final["value"].notna()]
    if sampled.empty:
        return ["Every number is exact up to rounding."]
    pairs = sampled[["score", "k"]].astype({"score": str}).drop_duplicates().itertuples()
    names = ", ".join(sorted(f"{pair.score} (k = {pair.k})" for pair in pairs))
    share = 1 - len(sampled) / int(final["value"].notna().sum())
    relative = (sampled["stderr"] / sampled["value"].abs()).replace(np.inf, np.nan).median()
    return [f"{share:.2%} of the numbers after training are exact; sampled are {names}, median standard error {relative:.2%}."]


def _undefined(final: pd.DataFrame) -> list[str]:
    missing = final[final["value"].isna()]
    if missing.empty:
        return []
    counts = missing["reason"].astype(str).str.removeprefix("undefined: ").value_counts()
    reasons = ", ".join(f"{reason} ({count})" for reason, count in counts.items())
    return [f"{len(missing)} of {len(final)} numbers are undefined and left out of every mean: {reasons}."]
