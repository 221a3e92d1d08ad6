"""What opens the page of a study: each finding comes where it should, on tables made for it, with its numbers."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from kagscope.studies.claims import evaluate_claims
from kagscope.studies.findings import (
    claim_findings,
    few_points_findings,
    learning_findings,
    left_out_findings,
    sampling_findings,
    study_findings,
)
from kagscope.studies.inference.findings import effect_text
from synthetic import make_results


def accuracies(first: float, middle: float, last: float, runs: int = 2) -> pd.DataFrame:
    table = make_results(widths=(8,), trainings=("standard",), seeds=runs, steps=(0, 10, 40), points=3)
    return table.assign(accuracy=table["step"].map({0: first, 10: middle, 40: last}))


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ((0.1, 0.8, 0.9), None),
        ((0.1, 0.12, 0.15), "not_learned"),
        ((-3.0, -0.5, 0.02), "not_learned"),
        ((0.1, 0.9, 0.6), "accuracy_lost"),
        ((0.1, 0.9, 0.1), "accuracy_lost"),
        ((0.1, 0.3, 0.4), "low_accuracy"),
    ],
)
def test_nets_that_did_not_learn(path: tuple[float, float, float], expected: str | None) -> None:
    found = learning_findings(accuracies(*path))
    assert [one.code for one in found] == ([expected] if expected else [])
    assert all(dict(one.numbers) == {"nets": 2, "of": 2, "settings": "standard"} for one in found)


def test_nets_that_were_not_trained() -> None:
    table = make_results(widths=(8,), seeds=2, steps=(0,), points=3)
    assert [one.code for one in learning_findings(table)] == ["not_trained"]


def test_seeds_points_sampling_and_what_is_left_out() -> None:
    table = make_results(widths=(8,), trainings=("standard",), seeds=1, points=3)
    found = {one.code: dict(one.numbers) for one in study_findings(table, {"run-9": "failed: no", "run-8": "not finished"})}
    pr = table[(table["score"] == "pr") & (table["selection"] == "all") & (table["step"] == table["step"].max())]
    means = pr.groupby("layer", observed=True)["ratio"].mean()
    assert found.pop("pr_growth") == {
        "layer": means.idxmax(),
        "width": 8,
        "training": "standard",
        "most": pytest.approx(means.max()),
        "least": pytest.approx(means.min()),
        "above": 1,
    }
    assert found == {
        "all_exact": {},
        "one_seed": {},
        "few_points": {"points": 3},
        "runs_unfinished": {"runs": 1, "of": 3},
        "run_left_out": {"run": "run-9", "why": "failed: no"},
    }
    assert few_points_findings(make_results(widths=(8,), seeds=1, points=12)) == []
    sampled = table.assign(
        exact=table["score"] != "rr_max", stderr=np.where(table["score"] == "rr_max", 0.2 * table["value"].abs(), 0.0)
    )
    (one,) = sampling_findings(sampled[sampled["step"] == sampled["step"].max()])
    assert (one.code, one.numbers["scores"]) == ("sampled", "rr_max (k = 2)")
    assert one.numbers["error"] == pytest.approx(0.2)
    undefined = sampling_findings(make_results(widths=(8,), seeds=1, points=12, undefined=0.2))[-1]
    assert undefined.code == "undefined"
    assert str(undefined.numbers["reasons"]).startswith("made so (")


def test_verdicts_are_counted_and_few_seeds_said() -> None:
    claims = evaluate_claims(make_results(widths=(8,), seeds=2, points=3), resamples=50)
    verdicts, few = claim_findings(claims, 2)
    assert (verdicts.code, sum(int(count) for count in verdicts.numbers.values())) == ("verdicts", 6)
    assert (few.code, dict(few.numbers)) == ("few_seeds", {"seeds": 2, "needed": 5})


def test_many_runs_left_out_are_counted() -> None:
    found = left_out_findings({f"r{i}": "failed: no" for i in range(9)} | {f"m{i}": "not finished" for i in range(40)}, 11)
    assert [one.code for one in found] == ["runs_unfinished", *["run_left_out"] * 5, "runs_left_out"]
    assert dict(found[0].numbers) == {"runs": 40, "of": 60}
    assert dict(found[-1].numbers) == {"runs": 4}


def test_the_control_is_not_among_the_nets_whose_growth_is_told() -> None:
    """Of a run with a control the largest ratio told was that of nets which had nothing to learn."""
    true = make_results(widths=(8,), trainings=("standard",), seeds=2)
    control = make_results(widths=(8,), trainings=("standard",), seeds=2, excess=5.0).assign(labels="shuffled")
    control["run"] = control["run"].astype(str) + "-shuffled"
    (alone,) = [one for one in study_findings(true, {}) if one.code == "pr_growth"]
    (beside,) = [one for one in study_findings(pd.concat([true, control]), {}) if one.code == "pr_growth"]
    assert beside.numbers == alone.numbers
    assert beside.startswith(alone.removesuffix("."))
    assert "; on shuffled labels it ends between " in beside
    (only,) = [one for one in study_findings(control, {}) if one.code == "pr_growth"]
    assert float(only.numbers["most"]) > float(alone.numbers["most"])


@pytest.mark.parametrize(
    ("effect", "low", "high", "text"),
    [
        (0.0042, 0.0011, 0.0163, "0.0042 times (0.0011 to 0.016)"),
        (0.02, 0.004, 0.11, "0.02 times (0.004 to 0.11)"),
        (1.0004, 1.0001, 1.0007, "1.00040 times (1.00010 to 1.00070)"),
        (1117.59, 855.29, 1460.33, "1117.59 times (855.29 to 1460.33)"),
        (0.0, 0.0, 0.0, "0.00 times (0.00 to 0.00)"),
        (0.0042, np.nan, np.nan, "0.0042 times"),
    ],
)
def test_no_ratio_is_rounded_to_nothing(effect: float, low: float, high: float, text: str) -> None:
    row = pd.Series({"measure": "ratio", "effect": effect, "low": low, "high": high}, dtype=object)
    assert effect_text(row) == text
