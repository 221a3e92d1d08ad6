"""What a study asks for is what it measures: scores, selections, layers, checkpoints; asking for more trains nothing again."""

from __future__ import annotations

import shutil
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import kagscope as kag
from kagscope import registry
from kagscope.base.validation import validate
from kagscope.data import load
from kagscope.data.variants import degrade
from kagscope.measuring import layer_minors, scoring
from kagscope.studies.file import StudyFile, list_jobs
from kagscope.studies.measure import ALONG, MAIN, Job, Measurements
from kagscope.studies.networks import Measuring, inputs_of, network
from kagscope.studies.study import run_study
from kagscope.training import TrainedNetwork, train
from kagscope.training.settings import TrainingSettings, linear_steps
from studies import Here

BASE: dict[str, Any] = {
    "points": 4,
    "exact_minors": 40320.0,  # of two points of 5 units
    "rel_error": 0.1,  # of the others
    "rotation_points": 1,
    "rotations": 3,
    "samples": 30,
    "unit_points": 30,
    "along": {"points": 3},
}
KEY = ["step", "layer", "k", "selection", "score", "point"]
DATA = load("digits")
SMALL = degrade(DATA, 100)
MEASURED = [one.name for one in registry.all_scores() if one.name != "unfelt_units_exact"]
OF_MINORS = {one.name for one in registry.all_scores() if one.is_of("moments")}
SEEN_WHERE_CHEAP = ("kl_uniform", "near_zero", "kl_init", "top", "zero_rows", "zero_rows_exact")


def job(**measure: Any) -> Job:
    values = {"name": "t", "run": {"width": 5, "epochs": 1, "train_size": 100}, "measure": BASE | {"k": [1, 2, 3]} | measure}
    return list_jobs(validate(StudyFile, values), {"digits": DATA})[0]


@cache
def net(steps: tuple[int, ...]) -> TrainedNetwork:
    run = job().run
    return train(SMALL, run.model_copy(update={"steps": steps}).training_settings(), [0])[0]


def table(one: Job, only: str = "") -> pd.DataFrame:
    specs = {name: spec for name, spec in one.measurements.specs.items() if only in ("", name)}
    measuring, trained = Measuring(DATA), net(one.run.steps)
    found = {name: measuring.measure(one.run, trained, name, one.measurements.specs[name]) for name in specs}
    rows: pd.DataFrame = pd.concat(rows for rows, _ in found.values())
    return rows.astype({"layer": str, "selection": str, "score": str})


@cache
def every() -> pd.DataFrame:
    return table(job())


def asked(rows: pd.DataFrame) -> pd.DataFrame:
    return rows[rows["score"] != "column_subsets"].set_index(KEY)[["value", "baseline", "stderr"]].sort_index()


QUICK = ("pr", "kl_init", "rr_pr", "rr_max", "zero_rows", "cka_init")  # of each kind of need one


@pytest.mark.parametrize("score", [pytest.param(one, marks=[] if one in QUICK else [pytest.mark.slow]) for one in MEASURED])
def test_a_score_asked_for_alone_is_what_it_is_among_all(score: str) -> None:
    rows = table(job(scores=[score]))
    found, expected = asked(rows), asked(every()[every()["score"] == score])
    assert set(rows["score"]) - {"column_subsets"} == {score}
    assert len(found)
    exact = found.index.intersection(expected[expected["stderr"] == 0].index)
    assert len(exact) or (expected["stderr"] > 0).any()
    pd.testing.assert_frame_equal(found.loc[exact], expected.loc[exact], rtol=1e-9, atol=1e-12)
    if score not in SEEN_WHERE_CHEAP:  # which points have these depends on what else is looked at
        pd.testing.assert_index_equal(found.index, expected.index)


@given(st.lists(st.sampled_from(MEASURED), min_size=1, max_size=4, unique=True))
@settings(max_examples=5, deadline=None)
def test_several_scores_are_measured_and_no_other(scores: list[str]) -> None:
    assert set(table(job(scores=scores))["score"]) - {"column_subsets"} == set(scores)


def test_what_is_not_asked_for_is_not_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    one = job(scores=["pr"], selections=["all"], k=[2])

    def never(*args: Any, **kwargs: Any) -> Any:
        raise AssertionError("computed though nobody asked")

    for name in ("haar_means", "drawn_haar_means", "row_means", "window_moments", "spectrum"):
        monkeypatch.setattr(scoring, name, never)
    real, looked = kag.minor_moments, []

    def seen(*args: Any, **kwargs: Any) -> Any:
        looked.append(set(kwargs.get("moments", ())))
        return real(*args, **kwargs)

    monkeypatch.setattr(layer_minors, "minor_moments", seen)
    assert set(table(one)["score"]) == {"pr", "column_subsets"}
    assert all(moments == {"s1", "s2"} for moments in looked)


def test_selections_and_layers() -> None:
    rows = table(job(selections=["ball(2)", "shell(1, 3)", "window(3,3,2)"], layers=["last"]))
    moments = rows[rows["score"].isin(OF_MINORS) & (rows["k"] > 1)]
    assert set(moments["selection"]) == {"ball(2)", "shell(1,3)", "window(3,3,2)"}
    assert set(rows["layer"]) == {"hidden2", ""}
    assert set(rows[(rows["k"] == 1) & rows["score"].isin(OF_MINORS)]["selection"]) == {"all", "window(3,3,2)"}
    both = [
        asked(part[(part["selection"] == "ball(2)") & (part["layer"] == "hidden2") & (part["k"] == 2)])
        for part in (rows, every())
    ]
    means = ["pr", "pr_normalized", "effective_minors", "ipr", "kl_uniform", "rr_pr"]
    shared = both[0].index.intersection(both[1].index)
    shared = shared[shared.get_level_values("score").isin(means)]
    first, second = (one.loc[shared] for one in both)
    error = (first["stderr"] ** 2 + second["stderr"] ** 2) ** 0.5  # draws go by all selections of a call
    apart = (first["value"] - second["value"]).abs()
    known = error.notna() & first["value"].notna()
    assert known.sum() > 20
    assert (apart <= 6 * error + 1e-9 * first["value"].abs())[known].all()
    maps = table(job(selections=["all"], scores=["pr"], k=[2], window_map=3))
    assert maps["selection"].str.startswith("window(").any()
    assert not table(job(window_map=0))["selection"].str.startswith("window(").any()


@pytest.mark.parametrize("layer_map", ["block", "output"])
def test_other_maps_have_each_row_once_and_as_measure_has_it(layer_map: str) -> None:
    one = job(layer_map=layer_map)
    rows = table(one)
    assert not rows.duplicated(KEY).any()
    trained = net(one.run.steps)
    nets = {step: network(one.run, trained.checkpoints[step]) for step in (0, trained.steps[-1])}
    for step, measured in nets.items():
        spec, labels = one.measurements.specs[MAIN], DATA.test_labels
        report = kag.measure(measured, inputs_of(DATA), spec=spec, baseline=nets[0], labels=labels, progress=False)
        expected = report.table.assign(step=step).astype({"layer": str, "selection": str, "score": str})
        found = rows[(rows["step"] == step) & rows["score"].isin(set(expected["score"]))]
        pd.testing.assert_frame_equal(asked(found), asked(expected), check_index_type=False, check_dtype=False)
    whole = {"prune_change", "prune_change_exact"}
    assert set(rows["score"]) >= whole | {"unfelt_units", "unfelt_share"}
    if layer_map == "output":  # what is constant does not depend on the map that is measured
        one_by_name, other = (part[part["score"].isin(whole)].set_index("score")["value"] for part in (rows, every()))
        pd.testing.assert_series_equal(one_by_name, other)


def ids(what: Measurements) -> dict[str, str]:
    return {name: spec.id for name, spec in what.specs.items()}


@pytest.mark.parametrize(
    "measure",
    [
        {"selections": ["all", *(f"{kind}({r})" for kind in ("ball", "apart") for r in (2, 4, 6, 8))], "window_map": 8},
        {"layers": ["hidden2", "first"]},
        {"layers": ["hidden1", "hidden2"]},
        {"scores": list(reversed(registry.names()))},
        {"schedule": "geometric"},
        {"row_points": 20},
        {"memory_budget": 2**24},
    ],
    ids=str,
)
def test_saying_the_default_is_the_same_table(measure: dict[str, Any]) -> None:
    assert job(**measure).run.run_id == job().run.run_id
    assert ids(job(**measure).measurements) == ids(job().measurements)


@pytest.mark.parametrize(
    "measure", [{"selections": ["all"]}, {"layers": ["first"]}, {"scores": ["pr"]}, {"rel_error": 0.2}, {"seed": 3}], ids=str
)
def test_another_question_is_another_table_of_the_same_run(measure: dict[str, Any]) -> None:
    assert job(**measure).run == job().run
    assert ids(job(**measure).measurements)[MAIN] != ids(job().measurements)[MAIN]


def test_what_is_asked_between_the_ends_leaves_their_table_as_it_is() -> None:
    other = job(along={"points": 2, "scores": ["pr"]})
    assert other.run == job().run
    assert ids(other.measurements)[MAIN] == ids(job().measurements)[MAIN]
    assert ids(other.measurements)[ALONG] != ids(job().measurements)[ALONG]
    between = [step for step in other.run.steps if 0 < step < other.run.steps[-1]]
    rows = table(other, only=ALONG)
    assert set(rows["step"]) == set(between)
    assert set(rows["score"]) - {"column_subsets"} == {"pr"}


@pytest.mark.parametrize("measure", [{"schedule": "linear", "checkpoints": 3}, {"schedule": {"steps": [3]}}], ids=str)
def test_other_checkpoints_are_another_run(measure: dict[str, Any]) -> None:
    assert job(**measure).run.run_id != job().run.run_id


def test_schedules() -> None:
    kept = {
        "linear": job(schedule="linear", checkpoints=3),
        "steps": job(schedule={"steps": [3, 1]}),
        "epochs": job(schedule={"epochs": [0.5]}),
    }
    steps = {name: list(one.run.steps) for name, one in kept.items()}  # 4 steps of 32 images
    assert steps == {"linear": [0, 2, 4], "steps": [0, 1, 3, 4], "epochs": [0, 2, 4]}
    assert {name: net(one.run.steps).steps for name, one in kept.items()} == steps
    assert kept["linear"].run.run_id == kept["epochs"].run.run_id
    same = net((0, 2, 4)).checkpoints[2], net((0, 1, 2, 4)).checkpoints[2]
    assert all(torch.equal(same[0][name], same[1][name]) for name in same[0])


@given(last=st.integers(0, 10_000), count=st.integers(2, 50))
def test_linear_steps_are_even(last: int, count: int) -> None:
    steps = linear_steps(last, count)
    assert steps[0] == 0
    assert steps[-1] == last
    assert len(steps) == min(count, last + 1)
    assert np.ptp(np.diff(steps)) <= 1 if last else steps == [0]


def test_schedules_of_a_training_are_checked() -> None:
    with pytest.raises(Exception, match="step 9, but training ends at step 4"):
        TrainingSettings(epochs=1, batch_size=25, schedule=[9]).checkpoint_steps(100)
    with pytest.raises(Exception, match="expected one of geometric, linear"):
        TrainingSettings(schedule="cubic")  # type: ignore[arg-type]


def study(folder: Path, measure: dict[str, Any]) -> tuple[kag.Study, pd.DataFrame, list[str]]:
    """Compute the study in ``folder``: what it holds, its runs, and the kinds of events."""
    values = {
        "name": "t",
        "run": {"width": 5, "epochs": 1, "train_size": 100},
        "grid": {"seed": [0, 1]},
        "measure": BASE | {"k": [1, 2], "selections": ["all", "ball(4)"], "window_map": 0} | measure,
    }
    events: list[str] = []
    run_study(
        validate(StudyFile, values),
        folder,
        executor=Here(),
        on_event=lambda event: events.append(event["kind"]),
        pictures=False,
    )
    return kag.open_study(folder), pd.read_parquet(folder / "runs.parquet").set_index("run"), events


ATTACKS = {"linf": [0.1], "l2": [], "points": 20, "steps": 2}


def test_asking_for_more_scores_trains_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    few: dict[str, Any] = {"scores": ["pr", "axis_alignment"], "robustness": ATTACKS}
    more = few | {"scores": ["pr", "axis_alignment", "zero_rows", "kernel_alignment"]}
    first, *_ = study(tmp_path / "grown", few)
    kept = {
        path: path.read_bytes() for path in (tmp_path / "grown" / "runs").rglob("*") if path.suffix != ".json" and path.is_file()
    }
    fresh, fresh_runs, _ = study(tmp_path / "fresh", more)
    with monkeypatch.context() as patched:
        patched.setattr("kagscope.studies.networks.adversarial_accuracy", None)  # known
        grown, grown_runs, events = study(tmp_path / "grown", more)
    assert "train" not in events
    assert events.count("run") == 2
    assert grown.runs == fresh.runs == first.runs
    pd.testing.assert_frame_equal(grown.table, fresh.table)
    assert all(path.read_bytes() == content for path, content in kept.items())
    shared = [name for name in grown_runs.columns if not name.endswith("_seconds")]
    pd.testing.assert_frame_equal(grown_runs[shared], fresh_runs[shared])
    again, _, events = study(tmp_path / "grown", few)
    assert "run" not in events, "the old question has its old tables"
    pd.testing.assert_frame_equal(again.table, first.table)


def test_attacks_are_added_to_finished_runs(tmp_path: Path) -> None:
    study(tmp_path / "a", {"scores": ["pr"]})
    _, runs, events = study(tmp_path / "a", {"scores": ["pr"], "robustness": ATTACKS})
    assert "train" not in events
    assert runs["pgd_linf_0.1"].between(0, 1).all()


def test_steps_that_were_not_kept_and_damaged_runs_are_trained_again(tmp_path: Path) -> None:
    study(tmp_path / "a", {"scores": ["pr"], "checkpoints": 2})
    *_, events = study(tmp_path / "a", {"scores": ["pr"], "schedule": {"steps": [2]}})
    assert "train" in events
    shutil.rmtree(tmp_path / "a")
    study(tmp_path / "a", {"scores": ["pr"], "checkpoints": 2})
    for file in (tmp_path / "a" / "runs").glob("*/weights.safetensors"):
        file.write_bytes(file.read_bytes()[:-3])
    *_, events = study(tmp_path / "a", {"scores": ["pr", "top"], "checkpoints": 2})
    assert "train" in events
