"""Findings at the top of the page that compares several studies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import pandas as pd

from kagscope.base.messages import Finding, listing
from kagscope.studies.findings import learning_findings, left_out_findings
from kagscope.studies.inference.findings import category_effect, effect_text
from kagscope.tables.means import corrected_p

if TYPE_CHECKING:
    from kagscope.studies.side_by_side import FinishedStudy

FEW_SEEDS = 5
LISTED = 4


def side_by_side_findings(
    studies: Sequence[FinishedStudy], runs: pd.DataFrame, axes: Sequence[str], tied: Sequence[str], table: pd.DataFrame
) -> list[Finding]:
    """Findings by importance; arguments as the attributes of :class:`~kagscope.studies.side_by_side.SideBySide`."""
    findings = [
        Finding(f"{study.name}: {finding}", code=finding.code, study=study.name, **finding.numbers)
        for study in studies
        for finding in [*learning_findings(study.table), *left_out_findings(study.left_out, len(study.runs))]
    ]
    return [
        _difference_finding(studies, runs, tied),
        *_effect_findings(table),
        *tests_along_study(table),
        *_verdict_findings(studies),
        *_unshared_findings(runs, [name for name in axes if name != "study" and name not in tied]),
        *_caveats(studies, table),
        *findings,
    ]


def _difference_finding(studies: Sequence[FinishedStudy], runs: pd.DataFrame, tied: Sequence[str]) -> Finding:
    """Settings of the networks that change with the study."""
    if not tied:
        names = " and ".join(study.name for study in studies)
        text = f"{names} trained their networks with the same values, so they should differ by chance or by versions only."
        return Finding(text, code="same_networks")
    values = {
        name: ", ".join(f"{runs.loc[runs['study'] == study.name, name].iloc[0]} in {study.name}" for study in studies)
        for name in tied
    }
    text = (
        f"What differs between the networks: {'; '.join(f'{name} {text_of_values}' for name, text_of_values in values.items())}."
    )
    many = " More than one thing differs, so no effect can be put down to one of them." if len(tied) > 1 else ""
    return Finding(text + many, code="other_networks", values=len(tied), names=", ".join(tied))


def _effect_findings(table: pd.DataFrame) -> list[Finding]:
    """Differences of PR and test accuracy."""
    findings = []
    pr = (table["score"] == "pr") & (table["k"] == 2) & (table["selection"] == "all")
    shown = table[(pr | (table["score"] == "accuracy")) & table["effect"].notna()]
    for (_, row), p in zip(shown.iterrows(), corrected_p(shown), strict=True):
        prefix = f"{row['category']} against {row['first']}: "
        prefix += "test accuracy" if row["score"] == "accuracy" else f"PR at layer {row['layer']}, trained over initial,"
        chance = "no test" if pd.isna(p) else f"p {'< 0.001' if p < 0.001 else f'= {p:.2g}'} after correction"
        text = f"{prefix} {effect_text(row)}, n = {row['n']}, {chance}."
        numbers = {name: float(row[name]) for name in ("effect", "low", "high")} | {"p": float(p), "n": int(row["n"])}
        facts = {name: str(row[name]) for name in ("category", "first", "score", "layer")}
        findings.append(Finding(text, code="study_effect", **facts, **numbers))
    return findings


def tests_along_study(table: pd.DataFrame) -> list[Finding]:
    """Number of scores that differ after correction, or a note that nothing could be tested or all are the same."""
    tested = table[table["selection"] == "all"]
    if (tested["reason"] == "no difference in any net").any() and tested["p_value"].isna().all():
        return [Finding("The networks of all studies are the same in every score over all columns.", code="same_scores")]
    if tested["p_value"].isna().all():
        text = "Nothing could be tested: fewer than two seeds are in the studies that are compared."
        return [Finding(text, code="nothing_tested")]
    finding = category_effect(table)
    return [finding] if finding is not None else []


def _verdict_findings(studies: Sequence[FinishedStudy]) -> list[Finding]:
    """Claims on which the studies have different verdicts."""
    if not all(study.verdicts for study in studies):
        return []
    both = [claim for claim in studies[0].verdicts if all(claim in study.verdicts for study in studies)]
    other = [claim for claim in both if len({study.verdicts[claim] for study in studies}) > 1]
    if not other:
        text = f"All {len(both)} claims that {'both' if len(studies) == 2 else 'all'} test have the same verdict."
        return [Finding(text, code="same_verdicts", claims=len(both))]
    differences = "; ".join(
        f"claim {claim.replace('-', ', ', 1).replace('-', ' ')}, "
        + ", ".join(f"{study.verdicts[claim]} in {study.name}" for study in studies)
        for claim in other
    )
    text = f"{len(other)} of {len(both)} claims {'have' if len(other) > 1 else 'has'} another verdict: {differences}."
    return [Finding(text, code="other_verdicts", differ=len(other), of=len(both), claims=", ".join(other))]


def _unshared_findings(runs: pd.DataFrame, axes: Sequence[str]) -> list[Finding]:
    """Settings that some studies lack."""
    if not axes:
        return []
    names = [", ".join(f"{name} {value}" for name, value in row.items()) for row in runs[list(axes)].to_dict("records")]
    presence = runs.assign(setting=names).groupby("setting", sort=False)["study"].agg(["nunique", "first"])
    alone = presence[presence["nunique"] < runs["study"].nunique()]
    if alone.empty:
        return []
    many = len(alone) != 1
    text = f"{len(alone)} setting{'s are' if many else ' is'} not in every study, and in no pair: {listing(alone.index, LISTED)}."
    return [Finding(text, code="settings_not_shared", settings=len(alone))]


def _caveats(studies: Sequence[FinishedStudy], table: pd.DataFrame) -> list[Finding]:
    findings = []
    fewest = int(table.loc[table["selection"] == "all", "n"].min())
    if fewest < FEW_SEEDS:
        text = f"The studies share as few as {fewest} seeds: tests of so few rest on logarithms being about normal."
        findings.append(Finding(text, code="few_seeds", seeds=fewest))
    if (table["pairs"] == 0).any():
        text = "No two networks share the seed and all other settings: they were compared as two groups, not in pairs."
        findings.append(Finding(text, code="not_paired"))
    for attribute, code, what in (
        ("measured", "other_measurement", "They measured differently"),
        ("versions", "other_versions", "Versions differ"),
    ):
        values = [getattr(study, attribute) for study in studies]
        names = [name for name in dict.fromkeys(name for f in values for name in f) if len({f.get(name) for f in values}) > 1]
        if names:
            text = ", ".join(f"{name} {' and '.join(str(f.get(name, 'none')) for f in values)}" for name in names)
            findings.append(Finding(f"{what}: {text}.", code=code, names=", ".join(names)))
    return findings
