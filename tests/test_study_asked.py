"""What a study asks for is what it measures: scores, selections, layers, checkpoints; asking for more trains nothing again."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
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
from kagscope.base.validation import validated
from kagscope.data import load
from kagscope.data.variants import degraded
from kagscope.measuring import geometry
from kagscope.measuring.geometry import measure_state
from kagscope.scores import of_jacobians as scores_module
from kagscope.studies.config import RunConfig
from kagscope.studies.file import StudyFile, configs
from kagscope.studies.networks import measure_initial, measure_run, probe_of, training_settings
from kagscope.studies.run_file import study_of
from kagscope.studies.setting_tables import runs_table
from kagscope.studies.store import RunStore
from kagscope.studies.study import run_study
from kagscope.studies.tables import joined, whole_runs
from kagscope.tables.schema import RESULT_COLUMNS
from kagscope.training import TrainedNetwork, train
from kagscope.training.models import mlp
from kagscope.training.settings import TrainingSettings, linear_steps
from kagscope.wanted import NEEDS, SCORE_NAMES
from test_study_runs import Here

BASE: dict[str, Any] = {
    "points": 4,
    "visited_points": 2,
    "track_points": 3,
    "rotation_points": 1,
    "rotations": 3,
    "layer_points": 30,
}
KEY = ["step", "layer", "k", "selection", "score", "point"]
DATA = load("digits")
SMALL = degraded(DATA, 100)


def config(**measure: Any) -> RunConfig:
    values = {"name": "t", "run": {"width": 5, "epochs": 1, "train_size": 100}, "measure": BASE | {"k": [1, 2, 3]} | measure}
    return configs(validated(StudyFile, values), {"digits": DATA})[0]


@cache
def net(run: RunConfig) -> TrainedNetwork:
    return train(SMALL, training_settings(run), [0])[0]


@cache
def table(run: RunConfig) -> pd.DataFrame:
    found, _ = measure_run(run, net(run), DATA, measure_initial(run, net(run), DATA))
    return found.astype({"layer": str, "selection": str, "score": str})


def asked(rows: pd.DataFrame) -> pd.DataFrame:
    return (
        rows[rows["score"] != "column_subsets"]
        .set_index([*(["seed"] if rows["seed"].nunique() > 1 else []), *KEY])[["value", "baseline", "stderr"]]
        .sort_index()
    )


@pytest.mark.parametrize("score", SCORE_NAMES)
def test_a_score_asked_for_alone_is_what_it_is_among_all(score: str) -> None:
    rows, every = table(config(scores=[score])), table(config())
    found, expected = asked(rows), asked(every[every["score"] == score])
    assert set(rows["score"]) - {"column_subsets"} == {score}
    assert len(found)
    exact = found.index.intersection(expected[expected["stderr"] == 0].index)
    assert len(exact) or (expected["stderr"] > 0).any()
    pd.testing.assert_frame_equal(found.loc[exact], expected.loc[exact], rtol=1e-9, atol=1e-12)
    if score not in ("kl_uniform", "near_zero", "kl_init", "top"):  # which points have these depends on what else is looked at
        pd.testing.assert_index_equal(found.index, expected.index)


@given(st.lists(st.sampled_from(SCORE_NAMES), min_size=1, max_size=4, unique=True))
@settings(max_examples=8, deadline=None)
def test_several_scores_are_measured_and_no_other(scores: list[str]) -> None:
    assert set(table(config(scores=scores))["score"]) - {"column_subsets"} == set(scores)


def test_what_is_not_asked_for_is_not_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    run = config(scores=["pr"], selections=["all"])
    model = mlp(64, run.widths, 10, seed=0)

    def never(*args: Any, **kwargs: Any) -> Any:
        raise AssertionError("computed though nobody asked")

    for name in ("haar_mean_s1", "row_means", "window_moments", "column_divergence"):
        monkeypatch.setattr(kag, name, never)
    for name in ("rotation_ratio_estimate", "hidden_activations", "output_slopes", "intrinsic_dimension", "kernel_alignment"):
        monkeypatch.setattr(geometry, name, never)
    real, looked = kag.minor_moments, []

    def seen(*args: Any, **kwargs: Any) -> Any:
        looked.append(set(kwargs.get("moments", ())))
        return real(*args, **kwargs)

    monkeypatch.setattr(kag, "minor_moments", seen)
    only_two = run.geometry.model_copy(update={"k": (2,)})
    state = measure_state(model, probe_of(run, DATA), only_two, full=True)
    assert looked == [{"s1", "s2"}, {"s1", "s2"}]
    assert ("hidden1", 2, "all", "pr") in state.scores


def test_selections_and_layers() -> None:
    rows = table(config(selections=["ball(2)", "shell(1, 3)", "window(3,3,2)"], layers=["last"]))
    every = table(config())
    moments = rows[rows["score"].isin(NEEDS) & (rows["k"] > 1)]
    assert set(moments["selection"]) == {"ball(2)", "shell(1,3)", "window(3,3,2)"}
    assert set(rows["layer"]) == {"hidden2", ""}
    assert set(rows[rows["k"] == 1]["selection"]) == {"all", "window(3,3,2)"}, "balls say nothing of single columns"
    both = [
        asked(part[(part["selection"] == "ball(2)") & (part["layer"] == "hidden2") & (part["k"] == 2)]) for part in (rows, every)
    ]
    pd.testing.assert_frame_equal(both[0], both[1], rtol=1e-9)
    maps = table(config(selections=["windows"], scores=["pr"]))
    assert (maps[maps["k"] == 2]["selection"].str.startswith("window(")).all()
    assert not table(config(window_points=0))["selection"].str.startswith("window(").any()


@pytest.mark.parametrize(
    "measure",
    [
        {"selections": ["all", *(f"{kind}({r})" for kind in ("ball", "apart") for r in (2, 4, 6, 8)), "windows"]},
        {"layers": ["hidden2", "first"]},
        {"scores": list(reversed(SCORE_NAMES))},
        {"schedule": "geometric"},
        {"robustness": {"restarts": 1}},
    ],
    ids=str,
)
def test_saying_the_default_is_the_same_run(measure: dict[str, Any]) -> None:
    plain: dict[str, Any] = {"robustness": {}} if "robustness" in measure else {}
    assert config(**measure).run_id == config(**plain).run_id


@pytest.mark.parametrize(
    "measure",
    [
        {"selections": ["all"]},
        {"layers": ["hidden1"]},
        {"scores": ["pr"]},
        {"schedule": "linear", "checkpoints": 3},
        {"schedule": {"steps": [3]}},
        {"robustness": {"restarts": 2}},
    ],
    ids=str,
)
def test_another_question_is_another_run(measure: dict[str, Any]) -> None:
    plain: dict[str, Any] = {"robustness": {}} if "robustness" in measure else {}
    assert config(**measure).run_id != config(**plain).run_id
    assert config(**measure).training_fingerprint() == config(**plain).training_fingerprint()


def test_schedules() -> None:
    kept = {
        "linear": config(schedule="linear", checkpoints=3),
        "steps": config(schedule={"steps": [3, 1]}),
        "epochs": config(schedule={"epochs": [0.5]}),
    }
    steps = {name: training_settings(run).checkpoint_steps(100) for name, run in kept.items()}  # 4 steps of 32 images
    assert steps == {"linear": [0, 2, 4], "steps": [0, 1, 3, 4], "epochs": [0, 2, 4]}
    assert {name: net(run).steps for name, run in kept.items()} == steps
    same = net(kept["linear"]).checkpoints[2], net(kept["epochs"]).checkpoints[2]
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


def study(folder: Path, measure: dict[str, Any]) -> tuple[pd.DataFrame, pd.DataFrame, list[str]]:
    """Compute the study in ``folder``: its results, its runs, and the kinds of events."""
    values = {
        "name": "t",
        "run": {"width": 5, "epochs": 1, "train_size": 100},
        "grid": {"seed": [0, 1]},
        "measure": BASE | measure,
    }
    file = validated(StudyFile, values)
    events: list[str] = []
    found: list[pd.DataFrame] = []

    def collect(store: RunStore, names: Sequence[str], report: Any) -> Any:
        whole, left_out = whole_runs(store, names)
        assert not left_out
        found.append(joined(store, whole, "table.parquet", "results.parquet", RESULT_COLUMNS))
        found.append(runs_table(store, names).set_index("run"))

    made = study_of(file, configs(file, {"digits": DATA}), "t.toml", folder)
    run_study(made, folder, collect, executor=Here(), on_event=lambda event: events.append(event["kind"]))
    return found[0], found[1], events


def test_asking_for_more_scores_trains_nothing_and_measures_what_is_new(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    few: dict[str, Any] = {"scores": ["pr", "axis_alignment"], "robustness": {"linf": [0.1], "l2": [], "points": 20, "steps": 2}}
    more = few | {"scores": ["pr", "axis_alignment", "zero_rows", "kernel_alignment"]}
    study(tmp_path / "grown", few)
    *fresh, _ = study(tmp_path / "fresh", more)
    with monkeypatch.context() as patched:
        patched.setattr("kagscope.studies.networks.adversarial_accuracy", None)  # known
        patched.setattr(scores_module, "axis_alignment", None)
        *grown, events = study(tmp_path / "grown", more)
    assert "train" not in events
    assert events.count("run") == 2
    tables = [asked(table.astype(dict.fromkeys(KEY, str))) for table in (grown[0], fresh[0])]
    pd.testing.assert_frame_equal(tables[0], tables[1], rtol=1e-9)
    shared = [name for name in grown[1].columns if not name.endswith("_seconds")]
    pd.testing.assert_frame_equal(grown[1][shared], fresh[1][shared])
    *_, events = study(tmp_path / "grown", few)
    assert "run" not in events, "the old question has its old runs"


def test_other_points_are_measured_afresh_on_the_same_weights(tmp_path: Path) -> None:
    study(tmp_path / "a", {"scores": ["pr"]})
    grown, _, events = study(tmp_path / "a", {"scores": ["pr"], "points": 6, "checkpoints": 2})
    assert "train" not in events
    fresh, *_ = study(tmp_path / "b", {"scores": ["pr"], "points": 6, "checkpoints": 2})
    pd.testing.assert_frame_equal(grown, fresh)


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
