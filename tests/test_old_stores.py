"""Stores of earlier versions keep opening: their runs are read as data, found again by their names, and never trained twice."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

import kagscope as kag
from kagscope.base.validation import validate
from kagscope.studies.config import RunConfig
from kagscope.studies.file import StudyFile
from kagscope.studies.store import RunStore
from kagscope.studies.study import conclude, run_study
from studies import Here

STORES = sorted(path for path in (Path(__file__).parent / "stores").iterdir() if path.is_dir() and path.name.startswith("v"))


@pytest.mark.parametrize("store", STORES, ids=lambda path: path.name)
def test_an_old_store_opens(store: Path, tmp_path: Path) -> None:
    folder = tmp_path / "old"
    shutil.copytree(store, folder)
    outcome = conclude(RunStore.existing(folder), pictures=False)
    assert outcome.runs == list(RunStore.existing(folder).study["runs"])
    assert outcome.left_out == {}
    study = kag.open_study(folder)
    assert study.runs == outcome.runs
    for run in study.runs:
        assert study.model(run)(study.inputs[:3]).shape == (3, 10)
        assert study.table[study.table["run"] == run]["value"].notna().any()


@pytest.mark.parametrize("store", STORES, ids=lambda path: path.name)
def test_its_runs_keep_their_names(store: Path) -> None:
    opened = RunStore(store)
    for run in opened.study["runs"]:
        config = json.loads((opened.run_folder(run) / "config.json").read_text())
        assert RunConfig(**config).run_id == run


@pytest.mark.slow
@pytest.mark.parametrize("store", STORES, ids=lambda path: path.name)
def test_the_same_study_goes_on_in_it(store: Path, tmp_path: Path) -> None:
    """An engine that gives other numbers may measure again; it trains nothing."""
    folder = tmp_path / "old"
    shutil.copytree(store, folder)
    before = kag.open_study(folder)
    weights = {run: before.model(run).state_dict() for run in before.runs}
    events: list[str] = []
    file = validate(StudyFile, RunStore(folder).study["settings"])
    run_study(file, folder, executor=Here(), on_event=lambda event: events.append(event["kind"]), pictures=False)
    assert "train" not in events
    after = kag.open_study(folder)
    assert after.runs == before.runs
    for run, state in weights.items():
        assert all(torch.equal(state[name], tensor) for name, tensor in after.model(run).state_dict().items())
