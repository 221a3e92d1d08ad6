"""Sentences that open the report: what stands out, what is undefined or sampled, what to distrust."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from kagscope.studies.claims import Claim
from kagscope.tables.schema import VERDICTS

NAMED = 5  # runs that were left out; more are counted
FEW_POINTS = 10
LEARNED = 0.1  # least rise of test accuracy of a net that learned something
LOST = 0.1  # of test accuracy, from the best checkpoint to the last
LOW = 0.5  # test accuracy (R^2 where a number is learned) below which a net is hardly a trained one
LARGE_ERROR = 0.05  # relative standard error of a sampled number
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
    said = [_verdicts(claims), *_strongest(final), *sampled_and_undefined(final)]
    seeds, nets = int(results["seed"].nunique()), int(results["run"].nunique())
    if seeds == 1:
        said.append("There is one seed only: nothing here says how much nets differ, and no test can reach significance.")
    elif nets < FEW_SEEDS:
        said.append(f"There are {nets} nets in all; a signed-rank test needs {FEW_SEEDS} to reach p < 0.05.")
    return [*said, *few_points(final), *learning(results), *left_out_sentences(left_out, nets)]


def sampled_and_undefined(final: pd.DataFrame) -> list[str]:
    """What was sampled and how well, and what is undefined and why, of the rows of trained nets."""
    return [*_sampled(final), *_undefined(final)]


def few_points(final: pd.DataFrame) -> list[str]:
    """Whether means over test images are of a few only."""
    chosen = final[(final["score"] == "pr") & (final["k"] == 2) & (final["selection"] == "all")]
    points = int(chosen.groupby("run", observed=True)["point"].nunique().min()) if len(chosen) else FEW_POINTS
    if points >= FEW_POINTS:
        return []
    return [f"Each net was measured at {points} test image{'s' * (points != 1)} only: means over so few say little."]


def learning(results: pd.DataFrame) -> list[str]:
    """Nets that were not trained, did not learn, or lost again what they had learned."""
    runs = (
        results[["run", "width", "training", "step", "accuracy"]]
        .drop_duplicates(["run", "step"])
        .sort_values("step", kind="stable")
    )
    grouped = runs.groupby("run", observed=True, sort=False)
    facts = grouped.agg(
        first=("accuracy", "first"), last=("accuracy", "last"), best=("accuracy", "max"), steps=("step", "max")
    ).join(grouped[["width", "training"]].first())
    if (facts["steps"] == 0).all():
        return ["The nets were not trained (0 epochs): every ratio is exactly 1."]
    count = len(facts)
    trained = facts[(facts["steps"] > 0) & facts["last"].notna()]
    lost = trained["best"] - trained["last"] > LOST
    unlearned = ~lost & (trained["last"] - trained["first"].clip(lower=0.0) < LEARNED)
    weak = ~lost & ~unlearned & (trained["last"] < LOW)
    said = []
    for which, what in (
        (unlearned, f"did not learn (test accuracy rose by less than {LEARNED})"),
        (lost, f"lost over {LOST} of their best test accuracy again before the end"),
        (weak, f"end with a test accuracy below {LOW}"),
    ):
        if which.any():
            said.append(
                f"{int(which.sum())} of {count} nets {what}: what is said of them is not the geometry of well-trained nets "
                f"({_settings(trained[which])})."
            )
    return said


def _settings(runs: pd.DataFrame) -> str:
    """Trainings with their widths, the first few."""
    named = [
        f"{training}, {', '.join(str(width) for width in sorted(widths.unique()))} wide"
        for training, widths in runs.groupby("training", observed=True, sort=False)["width"]
    ]
    return "; ".join(named[:NAMED]) + ("; …" if len(named) > NAMED else "")


def left_out_sentences(left_out: Mapping[str, str], runs: int) -> list[str]:
    """Which runs are not in the tables, beside ``runs`` that are: missing ones are counted, of failed and damaged ones the first
    are named."""
    missing = sum(why == "not finished" for why in left_out.values())
    others = [(run, why) for run, why in left_out.items() if why != "not finished"]
    verb = "are" if missing != 1 else "is"
    said = [f"{missing} of {runs + len(left_out)} runs {verb} not finished yet and left out."] if missing else []
    said += [f"Run {run} was left out: {why}." for run, why in others[:NAMED]]
    if len(others) > NAMED:
        said.append(f"{len(others) - NAMED} more runs were left out, failed or damaged: `kagscope study status` lists all.")
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
    warning = " That is much: differences of such a size say nothing." if relative > LARGE_ERROR else ""
    return [
        f"{share:.2%} of the numbers after training are exact; sampled are {names}, median standard error "
        f"{relative:.2%}.{warning}"
    ]


def _undefined(final: pd.DataFrame) -> list[str]:
    missing = final[final["value"].isna()]
    if missing.empty:
        return []
    counts = missing["reason"].astype(str).str.removeprefix("undefined: ").value_counts()
    reasons = ", ".join(f"{reason} ({count})" for reason, count in counts.items())
    return [f"{len(missing)} of {len(final)} numbers are undefined and left out of every mean: {reasons}."]
