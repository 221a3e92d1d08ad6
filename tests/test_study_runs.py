"""Studies from a file, really run: what is written, what is computed again, what fails, two drivers at once."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pandas as pd
import pytest
from scipy.stats import ttest_1samp

from kagscope.base.errors import DataError, OutputError
from kagscope.commands.progress import Console
from kagscope.studies.execute.base import Failure, OnEvent, Work
from kagscope.studies.file import StudyFile, read_study_file
from kagscope.studies.record import CONFIG, MANIFEST, WEIGHTS
from kagscope.studies.runs import data_source
from kagscope.studies.setting_tables import run_names
from kagscope.studies.store import RunStore
from kagscope.studies.study import RunsFailed, command, plan_study, run_study, status
from kagscope.studies.tables import find_finished_runs
from studies import Here

TINY = """
name = "tiny"
[run]
epochs = 2
width = 5
train_size = 300
[grid]
learning_rate = [1e-3, 1e-2]
seed = [0, 1]
[measure]
k = [1, 2]
checkpoints = 2
points = 3
exact_minors = 40320               # two points of 5 units
rel_error = 0.1                    # of the others
rotation_points = 0
window_points = 1
window_map = 2
samples = 20
unit_points = 20
robustness = { linf = [0.1], l2 = [], points = 20, steps = 2 }
"""


def file_of(folder: Path, *overrides: str) -> StudyFile:
    path = folder / "tiny.toml"
    path.write_text(TINY)
    return read_study_file(path, overrides)


def run(folder: Path, *overrides: str, drawn: bool = False, **options: Any) -> tuple[Any, list[dict[str, Any]]]:
    events: list[dict[str, Any]] = []
    outcome = run_study(
        file_of(folder, *overrides),
        folder / "out",
        command=command("tiny.toml", folder / "out", overrides),
        executor=Here(),
        on_event=events.append,
        retry_failed=options.pop("retry_failed", False),
        pictures=drawn,
        **options,
    )
    return outcome, [event for event in events if event["kind"] in ("run", "failed")]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("study")
    outcome, events = run(folder, drawn=True)
    assert len(outcome.runs) == len(events) == 4
    return folder


def table_of(store: RunStore, run: str) -> Path:
    """One of the tables of a run."""
    return min((store.run_folder(run) / "tables").iterdir())


def copied(finished: Path, folder: Path) -> Path:
    shutil.copytree(finished / "out", folder / "out")
    return folder


def test_the_command_to_run_again_has_what_was_set(tmp_path: Path) -> None:
    given = ("grid.seed=[0]", "grid.learning_rate=[1e-2]", "run.epochs=1", "grid.rotation=[5.0,10.0]")
    outcome, _ = run(tmp_path, *given)
    assert len(outcome.runs) == 1, "strengths of augmentation make no difference to standard training"
    said = shlex.split(RunStore.existing(tmp_path / "out").study["command"])
    assert said[:4] == ["kagscope", "study", "run", "tiny.toml"]
    assert [value for flag, value in pairwise(said) if flag == "--set"] == list(given)


def test_what_is_written(finished: Path) -> None:
    out = finished / "out"
    assert {entry.name for entry in out.iterdir()} == {
        *("study.json", "runs", "runs.parquet", "results.parquet", "curves.parquet", "summary.csv", "relations.csv"),
        *("trained_vs_initial.csv", "comparisons.csv", "trends.csv", "phase_diagram.csv", "data", "figures", "report.html"),
    }
    runs = pd.read_parquet(out / "runs.parquet").set_index("run")
    results = pd.read_parquet(out / "results.parquet")
    assert set(runs.index) == set(results["run"]) == set(status(RunStore.existing(out)).states)
    assert sorted(runs["learning_rate"]) == [0.001, 0.001, 0.01, 0.01]
    assert ((runs["pgd_linf_0.1"] <= runs["accuracy"] + 0.2) & (runs["pgd_linf_0.1"] >= 0)).all()
    assert np.allclose(runs["generalization_gap"], runs["train_accuracy"] - runs["accuracy"])
    summary = pd.read_csv(out / "summary.csv")
    row = summary[
        (summary["learning_rate"] == 0.01) & (summary["score"] == "pr") & (summary["k"] == 2) & (summary["layer"] == "hidden2")
    ]
    only = row[row["selection"] == "all"].iloc[0]
    mine = results[
        results["run"].isin(runs.index[runs["learning_rate"] == 0.01]) & (results["score"] == "pr") & (results["k"] == 2)
    ]
    mine = mine[(mine["layer"] == "hidden2") & (mine["selection"] == "all") & (mine["step"] == mine["step"].max())]
    assert only["nets"] == 2
    assert only["ratio"] == pytest.approx(mine.groupby("run", observed=True)["ratio"].mean().mean())
    what = {"learning_rate": "0.01", "score": "pr", "k": 2, "layer": "hidden2", "selection": "all"}
    tested = pd.read_csv(out / "trained_vs_initial.csv", dtype={"learning_rate": str})
    (tested_row,) = tested[(tested[list(what)] == pd.Series(what)).all(axis=1)].to_dict("records")
    logs = np.log(mine["ratio"]).groupby(mine["run"].astype(str)).mean()
    assert tested_row["effect"] == pytest.approx(np.exp(logs.mean()))
    assert tested_row["p_value"] == pytest.approx(ttest_1samp(logs, 0).pvalue)
    compared = pd.read_csv(out / "comparisons.csv")
    assert set(zip(compared["axis"], compared["first"], compared["category"], strict=True)) == {("learning_rate", 0.001, 0.01)}
    assert pd.read_csv(out / "trends.csv").empty


def test_a_larger_study_computes_only_what_is_new(finished: Path, tmp_path: Path) -> None:
    folder = copied(finished, tmp_path)
    before = {path: path.stat().st_mtime_ns for path in (folder / "out" / "runs").glob("*/manifest.json")}
    outcome, events = run(folder, "grid.seed=[0,1,2]")
    assert sorted(event["run"].split("-")[2] for event in events) == ["seed2", "seed2"]
    assert len(outcome.runs) == 6
    assert all(path.stat().st_mtime_ns == time for path, time in before.items())
    outcome, events = run(folder)
    assert events == []
    assert len(outcome.runs) == 4, "a smaller study shows its own runs only"


@pytest.mark.parametrize("axes", [{}, {"width": [5, 6], "depth": [1, 2]}, {"widths": [[5, 6], [6, 5], [5]]}])
def test_runs_have_names_of_their_own_made_of_what_varies(axes: dict[str, Any]) -> None:
    axes = {"learning_rate": [1.00001e-3, 1.00002e-3], "seed": [0, 1], **axes}
    runs = [job.run for job in plan_study(StudyFile.model_validate({"name": "named", "grid": axes})).jobs]
    names = run_names(runs)
    assert len(set(names.values())) == len(runs)
    assert len({setting for setting, _ in names.values()}) == len(runs) // 2
    assert {repetition for _, repetition in names.values()} == {"seed 0", "seed 1"}
    several = len({run.width for run in runs}) > 1
    assert all((f"width {run.width}" in names[run.run_id][0]) == several for run in runs)


def test_progress_names_settings_as_the_page_does(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = next(iter(run_names([job.run for job in plan_study(file_of(finished)).jobs]).values()))
    console = Console(quiet=False)
    events: list[dict[str, Any]] = [{"kind": "plan", "runs": 1, "finished": 0, "workers": 1, "names": {"a": name}}]
    events += [{"kind": "failed", "run": run, "error": "diverged"} for run in ("a", "b")]
    for event in events:
        console.event(event)
    said = capsys.readouterr().err
    assert f"{', '.join(name)}: diverged" in said
    assert "b: diverged" in said


def test_a_failed_run_is_named_and_tried_again_when_asked(finished: Path, tmp_path: Path) -> None:
    folder = copied(finished, tmp_path)
    diverging = ("run.depth=8", "run.init_scale=1e6")  # 1e6 to the ninth is more than float32 holds
    with pytest.raises(RunsFailed, match="diverged"):
        run(folder, *diverging)
    found = status(RunStore.existing(folder / "out"))
    assert found.counts()["failed"] == 4
    assert all("diverged" in error for error in found.errors.values())
    with pytest.raises(RunsFailed):
        assert run(folder, *diverging)[1] == [], "not tried again unasked"
    outcome, events = run(folder, "grid.learning_rate=[1e-3]")
    assert events == []
    assert len(outcome.runs) == 2


def test_a_failed_run_beside_finished_ones(finished: Path, tmp_path: Path) -> None:
    folder = copied(finished, tmp_path)
    store = RunStore.existing(folder / "out")
    lost = next(iter(store.study["runs"]))
    shutil.rmtree(store.run_folder(lost))
    store.fail(lost, "power cut", "")
    outcome, events = run(folder)
    assert events == []
    assert outcome.left_out == {lost: "failed: power cut"}
    assert any("power cut" in sentence for sentence in outcome.findings)
    outcome, events = run(folder, retry_failed=True)
    assert [event["run"] for event in events] == [lost]
    assert outcome.left_out == {}
    assert not list((folder / "out" / "failed").glob("*"))


def test_a_damaged_run_is_computed_again_and_is_the_same(finished: Path, tmp_path: Path) -> None:
    folder = copied(finished, tmp_path)
    store = RunStore.existing(folder / "out")
    name = list(store.study["runs"])[1]
    table = table_of(store, name)
    whole = table.read_bytes()
    table.write_bytes(whole[:-100])
    assert status(store).states[name] == "damaged"
    _, events = run(folder)
    assert [event["run"] for event in events] == [name]
    assert table.read_bytes() == whole


@pytest.mark.parametrize("file", [CONFIG, WEIGHTS, MANIFEST, "tables", "curves", "robustness"])
def test_truncated_and_unreadable_runs_are_named_and_never_read_as_data(file: str, finished: Path, tmp_path: Path) -> None:
    """Both at once: one run loses its last byte, of another the file becomes a folder (which even root cannot read)."""
    folder = copied(finished, tmp_path)
    store = RunStore.existing(folder / "out")
    cut, unreadable, *whole = store.study["runs"]
    path = store.run_folder(cut) / file
    inside = sorted(path.iterdir())[0].name if path.is_dir() else ""
    file = f"{file}/{inside}" if inside else file
    path = store.run_folder(cut) / file
    path.write_bytes(path.read_bytes()[:-2])
    (store.run_folder(unreadable) / file).unlink()
    (store.run_folder(unreadable) / file).mkdir()
    found = status(store).states
    assert [found[name] for name in (cut, unreadable, *whole)] == ["damaged", "damaged", "done", "done"]
    left, out = find_finished_runs(store)
    assert list(left) == whole
    assert set(out) == {cut, unreadable}
    assert all("damaged" in why and (file in why or "Error" in why) for why in out.values())


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root reads everything")
def test_a_run_without_read_permission_is_computed_again(finished: Path, tmp_path: Path) -> None:
    folder = copied(finished, tmp_path)
    store = RunStore.existing(folder / "out")
    name = next(iter(store.study["runs"]))
    table_of(store, name).chmod(0)
    assert "PermissionError" in str(store.check(name).damage)
    _, events = run(folder)
    assert [event["run"] for event in events] == [name]


# -- what users of a well-known tuner met ----------------------------------------------------------------------------------------


@pytest.mark.slow
def test_ray_12347_runs_that_waited_survive_a_stop(tmp_path: Path) -> None:
    """Stopped after its first run: the other three were waiting, and are computed by the next start."""

    class Stop(Here):
        def run(self, tasks: Sequence[Any], work: Work, on_event: OnEvent) -> list[Failure]:
            def until_one_is_done(event: dict[str, Any]) -> None:
                on_event(event)
                if event["kind"] == "run":
                    raise KeyboardInterrupt

            return super().run(tasks, work, until_one_is_done)

    with pytest.raises(KeyboardInterrupt):
        run_study(file_of(tmp_path), tmp_path / "out", executor=Stop())
    store = RunStore.existing(tmp_path / "out")
    assert status(store).counts() == {"done": 1, "running": 0, "failed": 0, "damaged": 0, "missing": 3}
    outcome, events = run(tmp_path)
    assert len(events) == 3
    assert outcome.runs == list(store.study["runs"])


@pytest.mark.slow
def test_ray_20886_a_finished_study_can_be_extended(finished: Path, tmp_path: Path) -> None:
    """Another depth and another learning rate: only what is new is computed, and what was there is not touched."""
    folder = copied(finished, tmp_path)
    before = {path: path.stat().st_mtime_ns for path in (folder / "out" / "runs").glob("*/*")}
    outcome, events = run(folder, "grid.depth=[2,3]", "grid.learning_rate=[1e-3,1e-2,3e-2]")
    assert (len(events), len(outcome.runs)) == (8, 12)
    assert all(path.stat().st_mtime_ns == moment for path, moment in before.items())


def test_another_study_is_refused(finished: Path, tmp_path: Path) -> None:
    folder = copied(finished, tmp_path)
    with pytest.raises(OutputError, match="another study"):
        run(folder, "name=other")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError):
        RunStore.existing(tmp_path / "empty")


@pytest.mark.slow
def test_two_drivers_on_one_store_share_the_work(tmp_path: Path) -> None:
    (tmp_path / "tiny.toml").write_text(TINY)
    command = [sys.executable, "-m", "kagscope", "study", "run", "tiny.toml", "--out", "out", "--workers", "1", "--json"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    drivers = [
        subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    said = [driver.communicate(timeout=300) for driver in drivers]
    assert [driver.returncode for driver in drivers] == [0, 0], said
    assert [len(json.loads(out)["runs"]) for out, _ in said] == [4, 4]
    assert not (tmp_path / "out" / "leases").exists()


def grown(folder: Path, name: str, *overrides: str) -> list[int]:
    """Runs that a table held whenever a run was finished."""
    held: list[int] = []

    def look(event: dict[str, Any]) -> None:
        if event["kind"] == "run":
            table = folder / "out" / name
            held.append(pd.read_parquet(table)["run"].nunique() if table.exists() else 0)

    run_study(file_of(folder, *overrides), folder / "out", executor=Here(), on_event=look, pictures=False)
    return held


@pytest.mark.slow
def test_tables_grow_while_a_study_computes(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kagscope.studies.study.AT_LEAST", 2)
    assert grown(tmp_path, "results.parquet") == [0, 0, 2, 2]
    for name in ("results.parquet", "curves.parquet"):
        pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "out" / name), pd.read_parquet(finished / "out" / name))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["results.parquet", "curves.parquet"])
def test_tables_go_on_growing(name: str, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kagscope.studies.study.AT_LEAST", 2)
    copied(finished, tmp_path)
    # a study that grew holds four to begin with
    assert grown(tmp_path, name, "grid.seed=[0,1,2,3]") == [4, 4, 6, 6]
    larger = pd.read_parquet(tmp_path / "out" / name)
    (tmp_path / "out" / name).unlink()
    assert grown(tmp_path, name, "grid.seed=[0,1,2,3]") == []
    pd.testing.assert_frame_equal(larger, pd.read_parquet(tmp_path / "out" / name))  # in the study's order, not that of joining
    # begun again where a driver died before it joined anything: what it left counts
    (tmp_path / "out" / name).unlink()
    (tmp_path / "out" / "curves.parquet").unlink(missing_ok=True)
    assert grown(tmp_path, name, "grid.seed=[0,1,2,3,4]") == [0, 9]


def test_a_table_that_cannot_grow_stops_no_run(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kagscope.studies.study.AT_LEAST", 1)
    folder = copied(finished, tmp_path)
    store = RunStore.existing(folder / "out")
    for lost in list(store.study["runs"])[:2]:
        shutil.rmtree(store.run_folder(lost))
    for table in ("results.parquet", "curves.parquet"):
        (folder / "out" / table).unlink()
    tries = mock.Mock(side_effect=OutputError("no space left"))
    with mock.patch("kagscope.studies.study.join", tries):
        outcome, events = run(folder)
    assert (len(outcome.runs), len(events)) == (4, 2)
    assert tries.call_count == 2


def test_workers_find_the_data_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("digits", "xor3", "mixed3:0.5", "package.module:function"):
        assert data_source(name) == name
    assert data_source("mine") == str(tmp_path / "mine")
    assert data_source("own.py:digits") == f"{tmp_path / 'own.py'}:digits"
    (tmp_path / "a:b").mkdir()
    assert data_source("a:b") == str(tmp_path / "a:b")
