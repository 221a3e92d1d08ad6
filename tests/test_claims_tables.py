"""What must never matter to the claims, what may be missing, how often they err, and how long they take."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from judging import INCONCLUSIVE, REPRODUCED, judge, verdicts
from kagscope.base.errors import InputError
from kagscope.studies.claims import Claim, evaluate_claims
from synthetic import make_results


@pytest.fixture(scope="module")
def planted() -> pd.DataFrame:
    return make_results()


@pytest.fixture(scope="module")
def found(planted: pd.DataFrame) -> dict[int, Claim]:
    return judge(planted)


def test_the_order_of_rows_and_the_dtype_of_text_do_not_matter(planted: pd.DataFrame, found: dict[int, Claim]) -> None:
    shuffled = planted.sample(frac=1, random_state=1)
    assert judge(shuffled) == found
    strings = shuffled.astype(dict.fromkeys(("run", "training", "layer", "selection", "score"), str))
    assert judge(strings) == found


# --- what may be missing


def test_one_seed_is_inconclusive_everywhere() -> None:
    claims = judge(make_results(seeds=1))
    assert [claim.verdict for claim in claims.values()] == [INCONCLUSIVE] * 6
    assert all("1 seed cannot reach p < 0.05; 5 can" in c.note for c in claims.values())
    assert all(np.isnan(c.ci_low) for c in claims.values())


def test_a_setting_that_few_seeds_have_is_left_out_and_so_is_a_seed_that_lacks_one(found: dict[int, Claim]) -> None:
    claim = judge(make_results(drop=lambda t: (t["width"] == 8) & (t["seed"] > 0)))[1]
    assert "1 settings left out" in claim.note
    assert claim.n == 5
    pr, before = (next(row for row in one.parts if row["part"].startswith("PR")) for one in (claim, found[1]))
    assert pr["effect"] > before["effect"]
    claim = judge(make_results(seeds=6, drop=lambda t: (t["width"] == 8) & (t["seed"] == 2)))[1]
    assert "1 of 6 seeds left out" in claim.note
    assert claim.n == 5


def test_four_seeds_cannot_reproduce() -> None:
    assert set(verdicts(make_results(widths=(8,), seeds=4))) == {INCONCLUSIVE}
    assert verdicts(make_results(widths=(8,), seeds=5))[0] == REPRODUCED


def test_undefined_values_are_left_out_and_counted() -> None:
    claims = judge(make_results(undefined=0.1))
    assert [claim.verdict for claim in claims.values()] == [REPRODUCED] * 6
    assert all("undefined values left out" in claims[i].note for i in (1, 2, 3, 4, 5))
    nothing = make_results()
    nothing[["value", "ratio"]] = np.nan
    assert [claim.verdict for claim in judge(nothing).values()] == [INCONCLUSIVE] * 6


def test_an_empty_table_is_inconclusive(planted: pd.DataFrame) -> None:
    assert verdicts(planted.iloc[:0]) == [INCONCLUSIVE] * 6


@pytest.mark.parametrize("alone", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_what_a_table_lacks_is_never_an_error(alone: bool) -> None:
    small = make_results(points=2, seeds=2, widths=(8, 16), steps=(0, 100))
    small = small[~small["selection"].isin(["ball(4)", "ball(6)", "apart(4)", "apart(6)"])]  # which are treated as others are
    for column in ("score", "selection", "layer", "training", "step", "k"):
        for value in small[column].unique():
            judge(small[(small[column] == value) == alone], resamples=20)


def test_rows_taken_away_at_random_are_no_error() -> None:
    small = make_results(points=3, seeds=2, widths=(8, 16))
    for seed in range(10):
        judge(small.sample(frac=0.02, random_state=seed), resamples=50)


def test_what_is_no_table_of_results_is_refused(planted: pd.DataFrame) -> None:
    with pytest.raises(InputError, match="lacks ratio"):
        evaluate_claims(planted.drop(columns="ratio"))
    with pytest.raises(InputError, match="DataFrame"):
        evaluate_claims([1])  # type: ignore[arg-type]
