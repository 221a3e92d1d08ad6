"""The six claims of MATH.md section 5, judged on a study's results by the criteria of ``docs/claims.md``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import pandas as pd

from kagscope.base.errors import InputError
from kagscope.studies.claims.augmentation import augmentation
from kagscope.studies.claims.layers import concentration, larger_networks, locally_constant_units
from kagscope.studies.claims.parts import INCONCLUSIVE, NOT_REPRODUCED, REPRODUCED, Claim
from kagscope.studies.claims.scales import minimum_distance, scale_agnostic
from kagscope.studies.claims.seeds import RESAMPLES, Evidence
from kagscope.studies.nets import Nets
from kagscope.tables.schema import RESULT_COLUMNS

__all__ = ["PASSES", "Claim", "evaluate_claims"]

TRUE, SHUFFLED = "true", "shuffled"
PASSES, OPEN = "control_passes", "control_open"
ALSO = "The control, nets trained on shuffled labels, passes it too: it shows that weights moved, not that something was learnt."


def evaluate_claims(
    results: pd.DataFrame,
    *,
    runs: pd.DataFrame | None = None,
    varied: Sequence[str] = ("width", "training"),
    image_shape: tuple[int, ...] | None = None,
    resamples: int = RESAMPLES,
) -> list[Claim]:
    """Judge all six claims.

    Args:
        results: The results table of :mod:`kagscope.tables.schema`, rows in any order; nets whose ``labels`` are "shuffled" are
            the control. Without that column all labels are true.
        runs: The study's runs table; by default derived from ``results``.
        varied: Columns of ``runs`` that the study varies; a setting is a combination of their values.
        image_shape: (H, W) or (C, H, W), to find minimum distances that leave too few pairs.
        resamples: Number of bootstrap resamples; 0 omits intervals, which do not affect verdicts.

    Returns:
        Exactly six claims, in order. Claims that the table cannot decide are inconclusive, with a note on what is missing.

    Raises:
        InputError: the table does not have this schema.
    """
    if not isinstance(results, pd.DataFrame):
        raise InputError(f"results must be a pandas DataFrame, got {type(results).__name__}; give the table of a study")
    if missing := [column for column in RESULT_COLUMNS if column not in results.columns and column != "labels"]:
        raise InputError(f"the results table lacks {', '.join(missing)}; see kagscope.tables.schema")
    results = results if "labels" in results else results.assign(labels=TRUE)
    if runs is None:
        columns = ["run", "width", "training", "seed", "labels"]
        runs = results[columns].drop_duplicates("run").sort_values("run")
    runs = runs if "labels" in runs else runs.assign(labels=TRUE)
    axes = [name for name in varied if name not in ("labels", "seed")]
    judged = judge(evidence_of(results, runs, axes, TRUE, resamples), image_shape)
    if not (runs["labels"].astype(str) == SHUFFLED).any():
        return judged
    control = judge(evidence_of(results, runs, axes, SHUFFLED, resamples), image_shape)
    absent = control[0].verdict == NOT_REPRODUCED  # the concentration that claims 2 to 6 presuppose
    return [_add_control(claim, other, absent) for claim, other in zip(judged, control, strict=True)]


def evidence_of(results: pd.DataFrame, runs: pd.DataFrame, axes: Sequence[str], labels: str, resamples: int) -> Evidence:
    """Evidence from the nets trained on true labels, or on shuffled ones."""
    runs = runs[runs["labels"].astype(str) == labels]
    results = results[results["run"].astype(str).isin(runs["run"].astype(str))]
    return Evidence(Nets.of(results, runs, axes), results, resamples)


def judge(evidence: Evidence, image_shape: tuple[int, ...] | None) -> list[Claim]:
    """Judge the six claims on these nets."""
    first = concentration(evidence)
    judges = (
        partial(scale_agnostic, image_shape=image_shape),
        partial(minimum_distance, image_shape=image_shape),
        larger_networks,
        augmentation,
        locally_constant_units,
    )
    return [first, *(_require_first(first, judge_claim(evidence)) for judge_claim in judges)]


def _require_first(first: Claim, claim: Claim) -> Claim:
    """Make a claim about the effect's behaviour inconclusive if the effect itself is not shown."""
    if first.verdict == REPRODUCED:
        return claim
    note = f"claim 1, which this presupposes, is {first.verdict}; by its own parts alone it would be {claim.verdict}"
    return replace(claim, verdict=INCONCLUSIVE, note="; ".join(filter(None, [note, claim.note])))


def _add_control(claim: Claim, control: Claim, absent: bool) -> Claim:
    """Add the control's verdict; with ``absent`` the control shows no concentration and therefore passes no claim."""
    remarks = []
    if claim.verdict == REPRODUCED and not absent:
        remarks = {REPRODUCED: [PASSES], INCONCLUSIVE: [OPEN]}.get(control.verdict, [])
    statement = f"{claim.statement} ({ALSO})" if PASSES in remarks else claim.statement
    return replace(claim, control=control.verdict, remarks=remarks, statement=statement)
