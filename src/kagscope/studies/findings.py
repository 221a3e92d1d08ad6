"""Findings at the top of a study's page: what stands out, what is undefined or sampled, and caveats."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from kagscope.base.messages import Finding, Number, describe_error, group_by_order
from kagscope.data.functions import accuracy_name
from kagscope.figures.labels import layer_label, setting_label
from kagscope.studies.claims import PASSES, Claim
from kagscope.studies.claims.parts import too_few
from kagscope.studies.inference.findings import ratio_text
from kagscope.studies.statistics.permutation import fewest_pairs
from kagscope.tables.means import last_step
from kagscope.tables.schema import ALPHA, VERDICTS

NAMED = 5  # runs or settings that are named; more are counted
FEW_POINTS = 10
LEARNED = 0.1  # smallest rise of test accuracy that counts as learning
LOST = 0.1  # drop of test accuracy from the best checkpoint to the last
LOW = 0.5  # test accuracy (R^2 for a regression) below which a net is hardly trained
LARGE_ERROR = 0.05  # relative standard error of a sampled number


def study_findings(results: pd.DataFrame, left_out: Mapping[str, str]) -> list[Finding]:
    """Findings and caveats for the results of any study.

    Args:
        results: the ``results`` table; ``training`` may be the name of a setting.
        left_out: reasons for runs that are not in the table.
    """
    trained = last_step(results)
    findings = [*_growth(trained), *sampling_findings(trained)]
    if results["seed"].nunique() == 1:
        text = "There is one seed only: nothing here says how much nets of the same setting differ."
        findings.append(Finding(text, code="one_seed"))
    findings += [*few_points_findings(trained), *learning_findings(results)]
    return [*findings, *left_out_findings(left_out, results["run"].nunique())]


def claim_findings(claims: Sequence[Claim], seeds: int) -> list[Finding]:
    """Number of claims that hold, those that the control passes too, and whether there are enough seeds."""
    holding, failed, opened = (sum(claim.verdict == verdict for claim in claims) for verdict in VERDICTS)
    verdict_counts = ((holding, "reproduced"), (failed, "not reproduced"), (opened, "open"))
    texts = [f"{count} {'is' if count == 1 else 'are'} {verdict}" for count, verdict in verdict_counts if count]
    text = f"Of the paper's {len(claims)} claims, {' and '.join([', '.join(texts[:-1]), texts[-1]] if texts[1:] else texts)}."
    counts = {"reproduced": holding, "not_reproduced": failed, "inconclusive": opened}
    findings = [Finding(text, code="verdicts", **counts)]
    if passed := [claim.id for claim in claims if PASSES in claim.remarks]:
        passing = "all" if len(passed) == holding else f"{len(passed)}"
        numbers = ", ".join(name.partition("-")[0] for name in passed)
        text = (
            f"Nets trained on shuffled labels pass {passing} of those {holding} too (claim{'s' * (len(passed) > 1)} {numbers}): "
            "that shows that weights moved, not that something was learnt."
        )
        findings.append(Finding(text, code=PASSES, claims=", ".join(passed), passed=len(passed), of=holding))
    elif holding and not any(claim.control for claim in claims):
        text = "No nets on shuffled labels were trained beside these: nothing tells learning from weights that merely moved."
        findings.append(Finding(text, code="no_control", held=holding))
    if note := too_few(seeds):
        findings.append(Finding(f"{note}.", code="few_seeds", seeds=seeds, needed=fewest_pairs(ALPHA)))
    return findings


def run_findings(runs: pd.DataFrame, varied: Mapping[str, Sequence[str]]) -> list[Finding]:
    """Runs and their accuracy; ``varied`` is the result of :func:`kagscope.studies.setting_tables.tied_axes`."""
    axes = [f"{name} (and with it {', '.join(others)})" if others else name for name, others in varied.items()]
    accuracy, names = float(runs["accuracy"].mean()), ", ".join(axes) or "nothing"
    words = names.replace("_", " ")
    text = f"{len(runs)} runs; varied: {words}. Mean test {accuracy_name(runs['data'])} {accuracy:z.3f}."
    return [Finding(text, code="runs", runs=len(runs), varied=names, accuracy=accuracy)]


def relation_findings(related: pd.DataFrame) -> list[Finding]:
    """Number of relations of geometry to accuracy and robustness that survive correction, and the strongest."""
    if related.empty:
        return []
    tested = related[related["p_value"].notna()]
    if tested.empty:
        text = f"Nothing can be said of relations between geometry and outcomes: {related['reason'].iloc[0]}."
        return [Finding(text, code="relations_undecided", asked=len(related))]
    clear = tested[tested["p_joint"] < ALPHA]
    text = (
        f"{len(clear) or 'None'} of {len(tested)} correlations of geometry with outcomes within settings "
        f"differ{'s' * (len(clear) < 2)} from 0 ({tested['test'].iloc[0]}, n = {tested['n'].iloc[0]} seeds in "
        f"{tested['settings'].iloc[0]} settings, corrected p < {ALPHA})"
    )
    finding = Finding(f"{text}.", code="relations", differ=len(clear), tested=len(tested))
    if clear.empty:
        return [finding]
    top = clear.iloc[int(clear["rho"].abs().to_numpy(dtype=float).argmax())]
    sentence = (
        f"The strongest of them: {top['score']} (k = {top['k']}, layer {top['layer']}) with {top['outcome']}: "
        f"{top['rho']:z.2f} ({top['rho_low']:z.2f} to {top['rho_high']:z.2f}). It is a correlation, not a cause."
    )
    numbers = {name: str(top[name]) for name in ("score", "layer", "outcome")} | {"k": int(top["k"])}
    return [finding, Finding(sentence, code="strongest_relation", correlation=float(top["rho"]), **numbers)]


def _growth(trained: pd.DataFrame) -> list[Finding]:
    """Largest and smallest growth of the participation ratio of pairs, separately for the control on shuffled labels."""
    chosen = trained[(trained["score"] == "pr") & (trained["selection"] == "all") & (trained["k"] == 2)]
    chosen = chosen[chosen["ratio"].notna()]
    if chosen.empty:
        return []
    grouped = chosen.groupby(["labels", "layer", "width", "training"], observed=True)["ratio"].mean().reset_index()
    control = grouped.loc[grouped["labels"] == "shuffled", "ratio"]
    if len(control) == len(grouped):
        control = control[:0]
    by = grouped.drop(control.index).sort_values("ratio")
    least, most = by.iloc[0], by.iloc[-1]
    above = float((by["ratio"] > 1).mean())
    if most["ratio"] == least["ratio"] == 1:
        return []  # untrained, which is another finding
    several = by["width"].nunique() > 1
    highest, lowest = (
        f"{ratio_text(end['ratio'])[0]} times its initial value "
        f"({layer_label(str(end['layer']))}; {setting_label(int(end['width']), str(end['training']), several)})"
        for end in (most, least)
    )
    share = "every layer and setting" if above == 1 else f"{above:.0%} of all layers and settings"
    control_text = (
        f"; on shuffled labels it ends between {ratio_text(control.min())[0]} and {ratio_text(control.max())[0]} times"
        if len(control)
        else ""
    )
    text = (
        f"The participation ratio of the 2 x 2 minors ends between {lowest} and {highest}; its mean is above its initial value "
        f"in {share}{control_text}."
    )
    facts: dict[str, Number] = {"layer": str(most["layer"]), "width": int(most["width"]), "training": str(most["training"])}
    numbers = {"most": float(most["ratio"]), "least": float(least["ratio"]), "above": above}
    return [Finding(text, code="pr_growth", **facts, **numbers)]


def few_points_findings(trained: pd.DataFrame) -> list[Finding]:
    """Warn if means are over few test images."""
    chosen = trained[(trained["score"] == "pr") & (trained["k"] == 2) & (trained["selection"] == "all")]
    points = int(chosen.groupby("run", observed=True)["point"].nunique().min()) if len(chosen) else FEW_POINTS
    if points >= FEW_POINTS:
        return []
    text = f"Each net was measured at {points} test image{'s' * (points != 1)} only: means over so few say little."
    return [Finding(text, code="few_points", points=points)]


def learning_findings(results: pd.DataFrame) -> list[Finding]:
    """Nets that were not trained, did not learn, or lost accuracy again, other than those on shuffled labels."""
    runs = (
        results.loc[results["labels"] != "shuffled", ["run", "width", "training", "step", "accuracy"]]
        .drop_duplicates(["run", "step"])
        .sort_values("step", kind="stable")
    )
    grouped = runs.groupby("run", observed=True, sort=False)
    facts = grouped.agg(
        first=("accuracy", "first"), last=("accuracy", "last"), best=("accuracy", "max"), steps=("step", "max")
    ).join(grouped[["width", "training"]].first())
    if facts.empty:
        return []
    if (facts["steps"] == 0).all():
        return [Finding("The nets were not trained (0 epochs): every ratio is exactly 1.", code="not_trained")]
    count = len(facts)
    trained = facts[(facts["steps"] > 0) & facts["last"].notna()]
    lost = trained["best"] - trained["last"] > LOST
    unlearned = ~lost & (trained["last"] - trained["first"].clip(lower=0.0) < LEARNED)
    weak = ~lost & ~unlearned & (trained["last"] < LOW)
    findings = []
    for selected, code, text_of in (
        (unlearned, "not_learned", f"did not learn (test accuracy rose by less than {LEARNED})"),
        (lost, "accuracy_lost", f"lost over {LOST} of their best test accuracy again before the end"),
        (weak, "low_accuracy", f"end{'s' * (int(weak.sum()) == 1)} with a test accuracy below {LOW}"),
    ):
        if selected.any():
            nets, settings = int(selected.sum()), _list_settings(trained[selected], facts["width"].nunique() > 1)
            text = f"{nets} of {count} nets {text_of}, so that their geometry is not that of well-trained nets ({settings})."
            findings.append(Finding(text, code=code, nets=nets, of=count, settings=settings))
    return findings


def _list_settings(runs: pd.DataFrame, several: bool) -> str:
    """List the first few settings of runs; ``several``: whether the study has several widths."""
    settings = runs[["width", "training"]].astype({"training": str}).drop_duplicates().sort_values("width", kind="stable")
    named = [setting_label(int(width), training, several) for width, training in settings.itertuples(index=False)]
    return "; ".join(named[:NAMED]) + ("; …" if len(named) > NAMED else "")


def left_out_findings(left_out: Mapping[str, str], runs: int) -> list[Finding]:
    """Runs that are not in the tables, beside ``runs`` that are: missing ones are counted, the first failed and damaged ones are
    named."""
    missing, of = sum(reason == "not finished" for reason in left_out.values()), runs + len(left_out)
    others = [(run, reason) for run, reason in left_out.items() if reason != "not finished"]
    findings = []
    if missing:
        text = f"{missing} of {of} runs {'are' if missing != 1 else 'is'} not finished yet and left out."
        findings.append(Finding(text, code="runs_unfinished", runs=missing, of=of))
    for run, reason in others[:NAMED]:
        findings.append(Finding(f"Run {run} was left out: {reason}.", code="run_left_out", run=run, why=reason))
    if remaining := len(others[NAMED:]):
        text = f"{remaining} more runs were left out, failed or damaged: `kagscope study status` lists all."
        findings.append(Finding(text, code="runs_left_out", runs=remaining))
    return findings


def sampling_findings(trained: pd.DataFrame) -> list[Finding]:
    """What was sampled, with its error, and what is undefined, with the reason, in the rows of trained nets."""
    return [_sampled_finding(trained), *_undefined_findings(trained)]


def _sampled_finding(trained: pd.DataFrame) -> Finding:
    sampled = trained[~trained["exact"] & trained["value"].notna()]
    if sampled.empty:
        return Finding("Every number is exact up to rounding.", code="all_exact")
    names = group_by_order(zip(sampled["score"].astype(str), sampled["k"].astype(int), strict=True))
    share = 1 - len(sampled) / int(trained["value"].notna().sum())
    error = float((sampled["stderr"] / sampled["value"].abs()).replace(np.inf, np.nan).median())
    text = f"{share:.2%} of the numbers after training are exact; these are sampled, with {describe_error(error)}: {names}."
    warning = " That is a large error: differences of such a size say nothing." if error > LARGE_ERROR else ""
    return Finding(text + warning, code="sampled", exact=share, error=error, scores=names)


def _undefined_findings(trained: pd.DataFrame) -> list[Finding]:
    missing = trained[trained["value"].isna()]
    if missing.empty:
        return []
    counts = missing["reason"].astype(str).str.removeprefix("undefined: ").value_counts()
    reasons = ", ".join(f"{reason} ({count})" for reason, count in counts.items())
    text = f"{len(missing)} of {len(trained)} numbers are undefined and left out of every mean: {reasons}."
    return [Finding(text, code="undefined", undefined=len(missing), of=len(trained), reasons=reasons)]
