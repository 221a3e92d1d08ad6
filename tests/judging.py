"""Claims of a made-up table by number, with what must be true of any of them."""

from __future__ import annotations

import json
import math

import pandas as pd

from kagscope.studies.claims import Claim, evaluate_claims
from kagscope.tables.schema import VERDICTS

CLAIM_FIELDS = ("id", "statement", "verdict", "effect", "ci_low", "ci_high", "p_value", "n")  # of claims.json

IDS = [
    "1-concentration",
    "2-scale-agnostic",
    "3-minimum-distance",
    "4-larger-networks",
    "5-augmentation",
    "6-locally-constant-units",
]
REPRODUCED, NOT_REPRODUCED, INCONCLUSIVE = VERDICTS


def judge(table: pd.DataFrame, **options: object) -> dict[int, Claim]:
    """Claims by number, in their order, JSON-able and well formed."""
    claims = evaluate_claims(table, **({"resamples": 200} | options))  # type: ignore[arg-type]
    assert [claim.id for claim in claims] == IDS
    for claim in claims:
        record = claim.as_json()
        assert json.loads(json.dumps(record, allow_nan=False)) == record
        assert {*CLAIM_FIELDS, "parts", "control", "remarks", "decided_by"} <= set(record)
        assert claim.verdict in VERDICTS
        assert claim.statement
        assert claim.criterion
        if claim.verdict != INCONCLUSIVE and not math.isnan(claim.ci_low):
            assert claim.ci_low <= claim.effect <= claim.ci_high
    return {int(claim.id[0]): claim for claim in claims}


def verdicts(table: pd.DataFrame, **options: object) -> list[str]:
    return [claim.verdict for claim in judge(table, **options).values()]
