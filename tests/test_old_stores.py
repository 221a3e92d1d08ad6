"""Stores of earlier versions keep opening: their runs are read as data, found again by their names, and never computed twice."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from kagscope.data import load
from kagscope.studies.collect import collect
from kagscope.studies.config import RunConfig, settings_from
from kagscope.studies.reproduce import reproduce
from kagscope.studies.store import RunStore

STORES = sorted((Path(__file__).parent / "stores").iterdir())


@pytest.mark.parametrize("store", STORES, ids=lambda path: path.name)
def test_an_old_store_opens(store: Path, tmp_path: Path) -> None:
    folder = tmp_path / "old"
    shutil.copytree(store, folder)
    opened = RunStore.existing(folder)
    outcome = collect(opened, opened.study["runs"])
    assert outcome.runs == opened.study["runs"]
    assert outcome.left_out == {}
    assert outcome.report.is_file()


@pytest.mark.parametrize("store", STORES, ids=lambda path: path.name)
def test_its_runs_keep_their_names(store: Path) -> None:
    opened = RunStore(store)
    for run in opened.study["runs"]:
        config = json.loads((opened.run_folder(run) / "config.json").read_text())
        assert RunConfig(**config).run_id == run


@pytest.mark.parametrize("store", STORES, ids=lambda path: path.name)
def test_the_same_study_goes_on_in_it(store: Path, tmp_path: Path) -> None:
    folder = tmp_path / "old"
    shutil.copytree(store, folder)
    settings = settings_from(RunStore(folder).study["settings"])
    assert settings.study_fingerprint(load(settings.data).fingerprint()) == RunStore(folder).study["fingerprint"]
    events: list[str] = []
    reproduce(settings, folder, on_event=lambda event: events.append(event["kind"]))
    assert "run" not in events
