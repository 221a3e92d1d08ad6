"""Sentences and verdicts that a hostile reader would find false, on tables made so that the obvious way would say them."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from inference_cases import nets_of, results_of, runs_of
from judging import INCONCLUSIVE, NOT_REPRODUCED, REPRODUCED, judge
from kagscope.studies.claims import evaluate_claims
from kagscope.studies.file import StudyFile
from kagscope.studies.findings import claim_findings, run_findings, study_findings
from kagscope.studies.inference.comparisons import comparisons
from kagscope.studies.inference.findings import findings_of_tests
from kagscope.studies.inference.trained import trained_against_initial
from kagscope.studies.inference.trends import trends
from kagscope.studies.nets import Nets
from kagscope.studies.relations import relations
from kagscope.studies.setting_tables import tied_axes
from kagscope.studies.study import plan_study
from synthetic import make_results


def told(nets: Nets) -> dict[str, dict[str, object]]:
    """Numbers of the findings of tests, by code."""
    found = findings_of_tests(trained_against_initial(nets), comparisons(nets), trends(nets))
    return {one.code: dict(one.numbers) for one in found}


def test_width_that_changes_with_something_else_decides_nothing_about_width() -> None:
    table = make_results(trainings=("standard",), per_doubling=0.3)
    runs = table[["run", "width", "training", "seed", "labels"]].drop_duplicates("run")
    runs = runs.assign(learning_rate=runs["width"] / 1e4)
    claims = judge(table, runs=runs, varied=["width", "learning_rate", "seed"])
    assert (claims[1].verdict, claims[4].verdict) == (REPRODUCED, INCONCLUSIVE)
    assert "two widths" in claims[4].note
    partly = runs.assign(learning_rate=np.where(runs["width"] == 32, 1e-3, 1e-2))
    assert judge(table, runs=partly, varied=["width", "learning_rate", "seed"])[4].verdict == INCONCLUSIVE


def test_axes_that_go_together_are_one() -> None:
    runs = runs_of({"training": ["standard", "augmented"], "rotation": [0.0, 10.0]}, 5)
    runs = runs.assign(scale=runs["rotation"] / 100, labels=np.where(runs["training"] == "standard", "true", "shuffled"))
    assert tied_axes(runs, ["scale", "rotation", "labels", "training", "seed"]) == {
        "scale": ["rotation"],
        "training": ["labels"],
        "seed": [],
    }
    assert tied_axes(runs.assign(scale=0.1 * (runs["rotation"] > 0) * (runs["seed"] > 1)), ["scale", "rotation"]) == {
        "scale": [],
        "rotation": [],
    }
    (finding,) = run_findings(runs.assign(accuracy=0.5, data="digits"), tied_axes(runs, ["rotation", "scale", "seed"]))
    assert finding.numbers["varied"] == "rotation (and with it scale), seed"


def test_a_control_that_shows_no_concentration_passes_nothing() -> None:
    both = [make_results(), make_results(labels="shuffled", trainings=("standard",), kl_rise=0.0)]
    claims = judge(pd.concat(both, ignore_index=True))
    assert claims[1].control == NOT_REPRODUCED
    assert [claim.remarks for claim in claims.values()] == [[]] * 6


def test_claims_that_hold_without_a_control_say_so() -> None:
    claims = evaluate_claims(make_results(), resamples=0)
    assert [one.code for one in claim_findings(claims, 5)] == ["verdicts", "no_control"]
    none = evaluate_claims(make_results(steps=(0,)), resamples=0)
    assert [one.code for one in claim_findings(none, 5)] == ["verdicts"]


def test_enough_seeds_of_which_too_few_are_common_to_the_settings_have_a_reason() -> None:
    runs = runs_of({"width": [8, 16]}, 5)
    runs["seed"] += 4 * (runs["width"] == 16)
    runs = runs.assign(accuracy=np.linspace(0, 1, len(runs)))
    logs = np.random.default_rng(0).normal(size=(1, len(runs), 1))
    table = relations(Nets.of(results_of(runs, logs, ["pr"]), runs, ["width", "seed"]), ("pr",))
    assert table["p_value"].isna().all()
    assert "common" in table["reason"].iloc[0]


def test_nets_of_one_seed_are_one_observation_without_pairs_too() -> None:
    """Ten settings of each of two seeds: the seeds differ, and with them all nets of a category."""
    rng = np.random.default_rng(0)
    runs = runs_of({"optimizer": ["adam", "sgd"], "place": list(range(10))}, 2)
    runs["seed"] += 2 * (runs["optimizer"] == "sgd")
    runs = runs.assign(learning_rate=rng.uniform(1e-3, 1e-1, len(runs)))
    luck = rng.normal(size=(100, 4))[:, runs["seed"].to_numpy()]
    logs = luck + 0.5 * rng.normal(size=luck.shape)
    table = comparisons(nets_of(runs, logs[:, :, None], ["optimizer", "learning_rate"]), ["optimizer"])
    assert (table["p_value"] < 0.05).sum() <= 10


def test_settings_without_pairs_are_one_observation_in_all_their_seeds() -> None:
    runs = runs_of({"learning_rate": [1e-3, 2e-3, 3e-3, 4e-3]}, 6)
    runs["optimizer"] = np.where(runs["learning_rate"] < 2.5e-3, "adam", "sgd")
    runs["learning_rate"] += 0.0
    levels = runs["learning_rate"].map({1e-3: 0, 2e-3: 1, 3e-3: 0.2, 4e-3: 1.1}).to_numpy()
    logs = levels + np.random.default_rng(1).normal(0, 0.01, len(runs))
    row = comparisons(nets_of(runs, logs[None, :, None], ["optimizer", "learning_rate"]), ["optimizer"]).iloc[0]
    assert (row["n"], row["pairs"]) == (4, 0)
    assert row["p_value"] > 0.5


def test_rounding_is_no_effect() -> None:
    runs = runs_of({"training": ["standard", "augmented"]}, 8)
    logs = np.full((1, len(runs), 3), 3e-14) * np.random.default_rng(0).uniform(1, 2, (1, len(runs), 3))
    table = trained_against_initial(nets_of(runs, logs, ["training"]))
    assert table["p_value"].isna().all()
    assert set(table["reason"]) == {"no difference in any net"}
    assert told(nets_of(runs, logs, ["training"])) == {}


@pytest.mark.parametrize("seeds", [5, 8])
def test_the_clearest_is_the_largest_that_survives_not_the_smallest_that_is_steady(seeds: int) -> None:
    runs = runs_of({"width": [8, 16]}, seeds)
    rng = np.random.default_rng(3)
    shared = np.tile(rng.normal(size=(2, seeds)), 2)
    steady, large = 1e-3 * (1 + 1e-3 * shared[0]), 0.5 * (1 + 0.05 * shared[1])
    wild = 2 * rng.normal(size=len(runs))
    found = told(nets_of(runs, np.stack([steady, large, wild])[:, :, None], ["width"], ["steady", "large", "wild"]))
    assert (found["training_effect"]["score"], found["training_effect"]["differ"]) == ("large", 2)


def test_the_growth_of_untrained_nets_is_not_told() -> None:
    assert "pr_growth" not in {one.code for one in study_findings(make_results(steps=(0,), seeds=2), {})}


def plan(seeds: int, **more: object) -> str:
    values = {"name": "few", "run": {"data": "digits", "epochs": 1}, "grid": {"seed": {"count": seeds}}} | more
    return plan_study(StudyFile.model_validate(values)).remark()


def test_the_plan_says_what_so_few_seeds_cannot_tell() -> None:
    assert "3 seeds cannot reach p < 0.05; 5 can" in plan(3, claims=True)
    assert plan(5, claims=True) == plan(5) == ""
    assert "cannot reach" not in plan(3), "Student's t can"
    assert "5" in plan(3)
    tied = [{"width": [8, 16, 32, 64, 128], "seed": [0, 1, 2, 3, 4]}]
    assert "1 seed" in plan(1, claims=True, grid={}, zip=tied), "five seeds, but one in each setting"
