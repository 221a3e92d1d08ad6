"""The six claims of MATH.md section 5, judged on a study's results by the criteria of ``docs/claims.md``."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd

from kagscope.studies.claims.augmentation import augmentation
from kagscope.studies.claims.concentration import concentration
from kagscope.studies.claims.constant_units import locally_constant_units
from kagscope.studies.claims.evidence import Evidence
from kagscope.studies.claims.scales import minimum_distance, scale_agnostic
from kagscope.studies.claims.verdicts import INCONCLUSIVE, REPRODUCED, Claim, Settings
from kagscope.studies.claims.width import larger_networks

__all__ = ["Claim", "evaluate_claims"]


def evaluate_claims(
    results: pd.DataFrame,
    *,
    image_shape: tuple[int, int] | None = None,
    confidence: float = 0.95,
    resamples: int = 4000,
    seed: int = 0,
) -> list[Claim]:
    """Judge all six claims.

    Args:
        results: The results table of :mod:`kagscope.tables.schema`, rows in any order.
        image_shape: Height and width in pixels of the images; tells which minimum distances leave too few pairs.
        confidence: Of the intervals, in (0, 1); tests are at level ``1 - confidence``.
        resamples: Of each bootstrap.
        seed: Of all resampling: equal tables and equal seeds give equal numbers.

    Returns:
        Exactly six claims, in order. What the table does not allow is inconclusive, and its note says what is missing.

    Raises:
        InputError: no table of that schema, or arguments out of range.
    """
    settings = Settings(confidence, resamples, seed, image_shape)
    evidence = Evidence(results)
    first = concentration(evidence, settings)
    others = [
        judge(evidence, settings)
        for judge in (scale_agnostic, minimum_distance, larger_networks, augmentation, locally_constant_units)
    ]
    return [first, *(_presupposing(first, claim) for claim in others)]


def _presupposing(first: Claim, claim: Claim) -> Claim:
    """A claim about how the effect behaves says nothing where the effect is not shown."""
    if first.verdict == REPRODUCED:
        return claim
    note = f"claim 1, which this presupposes, is {first.verdict}; this claim's own numbers would read: {claim.verdict}"
    return replace(claim, verdict=INCONCLUSIVE, note="; ".join(filter(None, [note, claim.note])))
