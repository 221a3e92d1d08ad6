"""Why a number is undefined: every reason in a table has a code."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import kagscope as kag
from kagscope.base.reasons import ALL_ZERO, NO_MINORS, OUT_OF_RANGE, RANK_BELOW_K, SKIPPED, code_of


@pytest.mark.parametrize(
    ("reason", "code"),
    [
        ("", ""),
        (ALL_ZERO, "all_zero"),
        (OUT_OF_RANGE, "out_of_range"),
        (NO_MINORS.format(rows=2, columns=9, k=3), "no_minors"),
        (RANK_BELOW_K.format(k=3), "rank_below_k"),
        (SKIPPED.format(reason="it is never called"), "skipped"),
        ("undefined: what a user's own score says", "other"),
    ],
)
def test_codes(reason: str, code: str) -> None:
    assert code_of(reason) == code


def test_minors_behind_a_code_of_two_are_noise() -> None:
    """MATH.md 3: noise is not geometry. A layer behind two units has no 3-minors, whatever rounding leaves of them."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(20, 2), nn.Linear(2, 30), nn.GELU())
    report = kag.measure(model, torch.rand(6, 20), layers=["2"], k=(1, 2, 3), baseline="reinit", baseline_seeds=2)
    of_triples = report.table[(report.table["k"] == 3) & (report.table["score"] != "column_subsets")]
    assert of_triples["value"].isna().all()
    assert {code_of(str(reason)) for reason in of_triples["reason"]} == {"rank_below_k"}
    pairs = report.table[(report.table["k"] == 2) & (report.table["score"] == "pr")]
    assert pairs["value"].notna().all()
    undefined = next(one for one in report.findings if one.code == "undefined")
    assert undefined.numbers["reasons"] == "rank_below_k"


def test_small_gains_alone_are_no_reason() -> None:
    """diag(d) W is judged by the rows of W: slopes of 1e-12 beside slopes of 1 hide no geometry."""
    torch.manual_seed(0)
    layer = nn.Linear(8, 6)
    with torch.no_grad():
        layer.weight[3:] *= 1e-13
    report = kag.measure(nn.Sequential(layer, nn.Identity()), torch.rand(4, 8), layers=["0"], k=(2, 3))
    assert report.table.loc[report.table["score"] == "pr", "value"].notna().all()


@pytest.mark.parametrize("options", [{}, {"selections": [kag.All(), kag.Ball(2)], "positions": range(4)}, {"max_rows": 5}])
@pytest.mark.parametrize("k", [1, 2, 3])
def test_scores_without_scale_are_told_whatever_the_scale(k: int, options: dict[str, Any]) -> None:
    """S1 and its Haar mean of entries near 1e-200 are 1e-400 for k = 2: their ratio is that of entries near 1."""
    tables = []
    for exponent in (0, -660, 600):
        linear = nn.Linear(4, 6).double()
        with torch.no_grad():
            linear.weight.copy_(torch.randn(6, 4, generator=torch.Generator().manual_seed(0)).double() * 2.0**exponent)
        net = nn.Sequential(linear, nn.Identity())
        found = kag.measure(net, torch.ones(1, 4).double(), layers="0", k=k, scores=["pr", "rr_pr"], progress=False, **options)
        tables.append(found.table[found.table["score"].isin(["pr", "rr_pr"])])
    assert tables[0]["value"].notna().all()
    for table in tables[1:]:
        np.testing.assert_array_equal(table[["value", "stderr"]], tables[0][["value", "stderr"]])
