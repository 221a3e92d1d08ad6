"""A finished study in a notebook: its networks have its numbers to the last digit, and what is not there is said."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

import kagscope as kag
from kagscope.base.errors import DataError, InputError
from kagscope.data import load
from kagscope.studies.collect import Outcome
from kagscope.tables.schema import CURVE_COLUMNS, RESULT_COLUMNS

KEY = ["layer", "k", "selection", "point", "score"]


@pytest.fixture(scope="module")
def opened(study: Outcome) -> kag.Study:
    return kag.open_study(study.folder)


def test_a_network_measured_with_the_spec_of_the_study_has_its_numbers(opened: kag.Study) -> None:
    run = opened.runs[3]
    report = kag.measure(
        opened.model(run),
        opened.inputs,
        spec=opened.spec,
        baseline=opened.model(run, step=0),
        labels=opened.labels,
        progress=False,
    )
    own = opened.table[(opened.table["run"] == run) & (opened.table["step"] == opened.steps(run)[-1])]
    numbers = ["value", "baseline", "ratio", "stderr"]
    mine, theirs = (table.astype({"layer": str, "selection": str, "score": str}) for table in (report.table, own))
    both = mine.merge(theirs, on=KEY, suffixes=("", "_of_study"))
    assert len(both) == len(mine)
    assert set(theirs["score"]) - set(mine["score"]) == {"prune_change", "prune_change_exact", "unfelt_units", "unfelt_share"}
    for name in numbers:
        assert np.array_equal(both[name], both[f"{name}_of_study"], equal_nan=True)


def test_the_other_specs_are_those_of_the_steps_between_and_of_the_output(opened: kag.Study) -> None:
    run = opened.runs[0]
    assert set(opened.specs) == {"main", "along", "output"}
    assert opened.specs["output"].layer_map == "output"
    between = opened.steps(run)[1]
    report = kag.measure(
        opened.model(run, between), opened.inputs, spec=opened.specs["along"], labels=opened.labels, progress=False
    )
    own = opened.table[(opened.table["run"] == run) & (opened.table["step"] == between)]
    assert set(own["score"]) >= set(report.table["score"]) >= {"pr", "kl_uniform", "kernel_alignment"}
    mine, theirs = (table.astype({"layer": str, "selection": str, "score": str}) for table in (report.table, own))
    both = mine.merge(theirs, on=KEY, suffixes=("", "_of_study"))
    assert np.array_equal(both["value"], both["value_of_study"], equal_nan=True)


def test_tables_runs_and_data(opened: kag.Study, study: Outcome) -> None:
    assert opened.runs == study.runs
    assert list(opened.table.columns) == list(RESULT_COLUMNS)
    assert list(opened.curves.columns) == list(CURVE_COLUMNS)
    pd.testing.assert_frame_equal(opened.table, pd.read_parquet(study.folder / "results.parquet"))
    assert set(opened.table["labels"]) == {"true"}
    digits = load("digits")
    assert opened.inputs.shape == (355, 64)
    assert opened.inputs.dtype == torch.float32
    assert np.array_equal(opened.labels, digits.test_labels)
    config = opened.config(opened.runs[0])
    assert (config.widths, config.training, config.seed) == ((6, 6), "standard", 0)
    assert repr(opened) == f"<Study 'small' in {study.folder}: 8 runs; data digits>"


def test_models_are_those_of_the_steps(opened: kag.Study) -> None:
    run = opened.runs[0]
    steps = opened.steps(run)
    last, first = opened.model(run), opened.model(run, step=0)
    assert not last.training
    assert isinstance(last, nn.Sequential)
    for one, other in ((last, opened.model(run, steps[-1])), (first, opened.model(run, -len(steps)))):
        assert all(torch.equal(tensor, other.state_dict()[name]) for name, tensor in one.state_dict().items())
    accuracy = (last(opened.inputs).argmax(1).numpy() == opened.labels).mean()
    rows = opened.table[(opened.table["run"] == run) & (opened.table["step"] == steps[-1])]
    assert rows["accuracy"].iloc[0] == pytest.approx(accuracy)
    with torch.no_grad():
        next(last.parameters()).zero_()
    assert next(opened.model(run).parameters()).any(), "a new one at every call"


def test_what_is_not_there_is_said(opened: kag.Study, study: Outcome, tmp_path: Path) -> None:
    run = opened.runs[0]
    steps = ", ".join(map(str, opened.steps(run)))
    for step in (1000, -4):
        with pytest.raises(InputError, match=f"run {run} keeps no step {step}; expected one of {steps}"):
            opened.model(run, step)
    with pytest.raises(InputError, match=rf"there is no run '{run[:-1]}' .*did you mean {run}"):
        opened.model(run[:-1])
    with pytest.raises(DataError, match="holds no kagscope study"):
        kag.open_study(tmp_path)
    shutil.copytree(study.folder, tmp_path / "study")
    shutil.rmtree(tmp_path / "study" / "runs" / run)
    fewer = kag.open_study(tmp_path / "study")
    assert run not in fewer.runs
    assert "7 runs, 1 not finished or left out" in repr(fewer)
    with pytest.raises(InputError, match=f"run {run} cannot be used: not finished"):
        fewer.config(run)


def test_data_that_changed_or_are_gone_are_said(study: Outcome, monkeypatch: pytest.MonkeyPatch) -> None:
    from kagscope.studies import opened as module

    monkeypatch.setattr(module, "load_local", lambda source: None)
    with pytest.raises(DataError, match="the data digits are not on this machine"):
        _ = kag.open_study(study.folder).inputs
    monkeypatch.setattr(module, "load_local", lambda source: load("xor3"))
    with pytest.raises(DataError, match="are not those that this study was run on"):
        _ = kag.open_study(study.folder).labels


def test_nothing_is_written(study: Outcome) -> None:
    before = {path: path.stat().st_mtime_ns for path in study.folder.rglob("*")}
    one = kag.open_study(study.folder)
    _ = (one.table, one.curves, one.inputs, one.spec, one.model(one.runs[0]), repr(one))
    assert {path: path.stat().st_mtime_ns for path in study.folder.rglob("*")} == before
