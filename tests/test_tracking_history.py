"""The history folder: nothing lost but the measurement in flight, continued as if nothing had happened."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from pandas.testing import assert_frame_equal

import kagscope as kag
from kagscope.base.errors import DataError, InputError, OutputError
from tracked import DATA, HandClock, make_tracker, small_net, train

QUICK: dict[str, Any] = {"layers": ["1"], "probe_inputs": DATA[:4]}


def parts(folder: Path) -> list[Path]:
    return sorted((folder / "parts").glob("[0-9]*.parquet"))


def make(model: torch.nn.Module, **options: Any) -> kag.Tracker:
    return make_tracker(model, **(QUICK | options))


def tracked_run(folder: Path, steps: int = 40, **options: Any) -> tuple[torch.nn.Sequential, kag.Tracker]:
    model = small_net()
    tracker = make(model, history=folder, **options)
    train(model, steps, tracker.step)
    return model, tracker.finish()


def test_what_is_loaded_is_what_was_measured(tmp_path: Path) -> None:
    _, tracker = tracked_run(tmp_path / "run" / "geometry")
    loaded = kag.Tracker.load(tmp_path / "run" / "geometry")
    assert_frame_equal(loaded.table, tracker.table)
    assert_frame_equal(loaded.onset(), tracker.onset())
    assert loaded.settings == tracker.report.settings
    about = [dict(one.provenance) for one in (loaded, tracker.report)]
    assert [one["points"] for one in about] == [4, 4]
    assert [one["baseline"] for one in about] == ["the first step"] * 2
    assert [one.code for one in loaded.findings] == [one.code for one in tracker.report.findings]
    assert [one["name"] for one in loaded.layers] == ["1"]
    assert_frame_equal(loaded.summary(), tracker.summary())
    assert loaded.steps == [0, 10, 20, 30, 40]
    assert len(loaded.plot().get_lines()) >= 1


def test_each_measurement_is_there_as_soon_as_it_was_made(tmp_path: Path) -> None:
    model = small_net()
    tracker = make(model, history=tmp_path)
    for step in range(1, 31):
        tracker.step(step)
        assert kag.Tracker.load(tmp_path).steps == tracker.steps
    assert not list(tmp_path.rglob(".*"))


def test_continued_from_a_checkpoint_as_if_never_interrupted(tmp_path: Path) -> None:
    """Killed after step 47, training goes on from the checkpoint at step 25."""
    _, whole = tracked_run(tmp_path / "whole", 80)
    model = small_net()
    first = make(model, history=tmp_path / "halves")
    train(model, 25, first.step)
    checkpoint = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    train(model, 47, first.step, first=26)
    model = small_net(9)  # any weights: those of the checkpoint are loaded
    model.load_state_dict(checkpoint)
    second = make(model, history=tmp_path / "halves")
    assert all(torch.equal(now, then) for now, then in zip(model.state_dict().values(), checkpoint.values(), strict=True))
    assert second.steps == [0, 10, 20, 30, 40]
    train(model, 80, second.step, first=26)
    assert_frame_equal(second.finish().table, whole.table)
    assert_frame_equal(kag.Tracker.load(tmp_path / "halves").table, whole.table)


def test_what_was_measured_of_a_training_that_was_lost_is_superseded(tmp_path: Path) -> None:
    """Going on from step 20 with other batches: steps 30 and 40 of the first session are of a training that no longer exists."""
    model = small_net()
    first = make(model, history=tmp_path)
    train(model, 20, first.step)
    checkpoint = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    train(model, 40, first.step, first=21)
    lost = first.table
    model.load_state_dict(checkpoint)
    second = make(model, history=tmp_path)
    train(model, 35, second.step, first=21, seed=8)
    assert second.steps == [0, 10, 20, 30]
    assert kag.Tracker.load(tmp_path).steps == [0, 10, 20, 30]
    for step, same in ((20, True), (30, False)):
        one, other = (table.loc[table["step"] == step, "value"].to_numpy() for table in (lost, second.table))
        assert np.array_equal(one, other, equal_nan=True) == same


def test_from_the_beginning_again_with_the_same_seed(tmp_path: Path) -> None:
    _, first = tracked_run(tmp_path)
    model = small_net()
    again = make(model, history=tmp_path)
    again.step(0)
    assert again.steps == [0]
    train(model, 40, again.step)
    assert_frame_equal(again.finish().table, first.table)


def test_from_the_beginning_again_with_another_seed_is_refused(tmp_path: Path) -> None:
    tracked_run(tmp_path)
    tracker = make(small_net(2), history=tmp_path)
    with pytest.raises(InputError, match="other weights"):
        tracker.step(0)


def test_reading_a_continued_history_without_training_on(tmp_path: Path) -> None:
    _, first = tracked_run(tmp_path)
    again = make(small_net(), history=tmp_path)
    assert_frame_equal(again.finish().table, first.table)
    assert len(parts(tmp_path)) == 5


@pytest.mark.usefixtures("allowance")
def test_thinned_steps_are_kept(tmp_path: Path) -> None:
    clock = HandClock()
    tracker = make(small_net(), every=1, max_overhead=0.5, clock=clock, history=tmp_path, log=lambda values: clock.advance(1.0))
    for step in range(1, 20):
        clock.advance(1.0)
        tracker.step(step)
    tracker.finish()
    assert kag.Tracker.load(tmp_path).thinned == tracker.thinned != []


def test_own_baseline_needs_no_weights_in_the_folder(tmp_path: Path) -> None:
    model = small_net()
    tracker = make(model, history=tmp_path, baseline=small_net(5))
    train(model, 20, tracker.step)
    assert not (tmp_path / "initial.safetensors").exists()
    assert make(model, history=tmp_path, baseline=small_net(5)).steps == [0, 10, 20]
    with pytest.raises(InputError, match="baseline"):
        make(model, history=tmp_path, baseline=small_net(6))
    with pytest.raises(InputError, match="baseline"):
        make(model, history=tmp_path)


# -- damage and strangers -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("damage", ["truncated", "empty", "flipped", "text", "folder", "other columns"])
def test_a_damaged_measurement_is_named_and_left_out(tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture) -> None:
    _, tracker = tracked_run(tmp_path)
    file = parts(tmp_path)[2]
    content = file.read_bytes()
    if damage == "flipped":
        place = content.index(b'"step": 20')  # one bit: step 30 instead of 20
        content = content[: place + 8] + b"3" + content[place + 9 :]
    file.unlink()
    if damage == "folder":
        file.mkdir()
    elif damage == "other columns":
        pd.DataFrame({"a": [1]}).to_parquet(file)
    else:
        file.write_bytes({"truncated": content[:200], "empty": b"", "text": b"step,value\n"}.get(damage, content))
    if damage == "other columns":  # written whole, by somebody else
        content = file.read_bytes()
        file = file.rename(file.with_name(f"0001-000000000020-{hashlib.sha256(content).hexdigest()[:16]}.parquet"))
    loaded = kag.Tracker.load(tmp_path)
    assert loaded.steps == [0, 10, 30, 40]
    ((name, reason),) = loaded.left_out.items()
    assert name == f"parts/{file.name}"
    assert reason.startswith("damaged (")
    assert "\n" not in reason
    assert [dict(one.numbers)["name"] for one in loaded.findings if one.code == "left_out"] == [name]
    again = make(small_net(), history=tmp_path)
    assert file.name in caplog.text
    assert file.name in repr(again)
    del tracker


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"k": (1, 2)}, "k"),
        ({"probe_inputs": DATA[5:9]}, "probe_inputs"),
        ({"probe_inputs": DATA[:4].double()}, "probe_inputs"),
        ({"selections": (kag.All(), kag.Ball(2)), "image_shape": (4, 4)}, "selections"),
        ({"seed": 3}, "seed"),
    ],
)
def test_other_settings_are_refused_by_name(tmp_path: Path, options: dict[str, Any], name: str) -> None:
    tracked_run(tmp_path)
    before = {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*")}
    with pytest.raises(InputError, match=f"begun with {name}="):
        make(small_net().to(options.get("probe_inputs", DATA).dtype), history=tmp_path, **options)
    assert {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*")} == before


def test_the_schedule_may_change(tmp_path: Path) -> None:
    model, _ = tracked_run(tmp_path)
    again = make(model, history=tmp_path, every=5, max_overhead=1.0)
    again.step(40)
    again.step(45)
    assert 45 in again.finish().steps


def test_another_network_is_refused(tmp_path: Path) -> None:
    tracked_run(tmp_path)
    wider = torch.nn.Sequential(
        torch.nn.Linear(16, 9), torch.nn.GELU(), torch.nn.Linear(9, 8), torch.nn.GELU(), torch.nn.Linear(8, 4)
    )
    with pytest.raises(InputError, match=r"another network.*0\.weight"):
        make(wider, history=tmp_path)


def test_folders_of_others_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("text")
    (tmp_path / "file").write_text("text")
    newer, broken = tmp_path / "newer", tmp_path / "broken"
    for folder, text in ((newer, json.dumps({"kagscope_history": 99, "settings": {}})), (broken, "{")):
        folder.mkdir()
        (folder / "tracker.json").write_text(text)
    for folder, kind in (
        (tmp_path, OutputError), (tmp_path / "file", OutputError), (newer, DataError), (broken, DataError),
        (tmp_path / "nul\0", OutputError),
    ):  # fmt: skip
        with pytest.raises(kind) as caught:
            make(small_net(), history=folder)
        assert "\n" not in str(caught.value)
    assert sorted(one.name for one in tmp_path.iterdir()) == ["broken", "file", "newer", "thesis.tex"]
    for folder in (tmp_path, tmp_path / "file", tmp_path / "missing", newer, broken):
        with pytest.raises(DataError):
            kag.Tracker.load(folder)


def test_a_layer_that_is_not_there_leaves_no_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError):
        kag.Tracker(small_net(), DATA[:5], layers=["17"], history=tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_lost_initial_weights_are_not_replaced_by_others(tmp_path: Path) -> None:
    model, _ = tracked_run(tmp_path)
    (tmp_path / "initial.safetensors").unlink()
    with pytest.raises(DataError, match=r"initial\.safetensors is missing"):
        make(model, history=tmp_path)
    assert not (tmp_path / "initial.safetensors").exists()


def test_a_continued_history_is_told_where_training_goes_on(tmp_path: Path) -> None:
    model, _ = tracked_run(tmp_path)
    again = make(model, history=tmp_path)
    with pytest.raises(InputError, match="where training goes on"):
        again.step()
    assert not again.step(40)
    assert not again.step()
    assert again.finish().steps == [0, 10, 20, 30, 40, 41]


def test_damaged_initial_weights_are_an_error(tmp_path: Path) -> None:
    tracked_run(tmp_path)
    (tmp_path / "initial.safetensors").write_bytes(b"\x80\x04K.")  # a pickle is not read
    with pytest.raises(DataError, match=r"initial\.safetensors"):
        make(small_net(), history=tmp_path)


def test_a_start_that_was_interrupted_is_made_up_for(tmp_path: Path) -> None:
    """At each point between the settings file and the first measurement."""
    _, whole = tracked_run(tmp_path / "whole")
    for left in (
        ["tracker.json"],
        ["tracker.json", "parts"],
        ["tracker.json", "parts", "initial.safetensors"],
        [".tracker.json.x"],
    ):
        folder = tmp_path / "-".join(left)
        shutil.copytree(tmp_path / "whole", folder)
        for file in parts(folder):
            file.unlink()
        for entry in folder.iterdir():
            if entry.name not in left:
                shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
        if left[0].startswith("."):
            (folder / left[0]).write_text("")
        _, again = tracked_run(folder)
        assert_frame_equal(again.table, whole.table)


def test_a_folder_that_cannot_be_written_loses_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = small_net()
    tracker = make(model, history=tmp_path / "history")
    train(model, 10, tracker.step)
    (tmp_path / "history" / "parts").rename(tmp_path / "away")
    train(model, 30, tracker.step, first=11)  # training is not stopped
    assert len(caplog.records) == 1
    with pytest.raises(OutputError):
        tracker.finish()
    (tmp_path / "away").rename(tmp_path / "history" / "parts")
    train(model, 40, tracker.step, first=31)
    assert kag.Tracker.load(tmp_path / "history").steps == [0, 10, 20, 30, 40]
    assert_frame_equal(kag.Tracker.load(tmp_path / "history").table, tracker.finish().table)


SCRIPT = """
import sys
sys.path[:0] = [{tests!r}]
from tracked import *
model = small_net()
tracker = make_tracker(model, every=1, history={folder!r}, layers=["1"], probe_inputs=DATA[:4], max_overhead=None)
def tell(step):
    print("begin", step, flush=True)
    tracker.step(step)
    print("end", step, flush=True)
train(model, 100_000, tell)
"""


@pytest.mark.slow
def test_killed_at_any_moment(tmp_path: Path) -> None:
    """SIGKILL during training: every measurement that was told to be complete is in the folder, whole."""
    folder = tmp_path / "history"
    script = SCRIPT.format(tests=str(Path(__file__).parent), folder=str(folder))
    rng = np.random.default_rng(int(time.time()))
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, env=dict(os.environ)) as child:
        assert child.stdout is not None
        said: list[str] = []
        for line in child.stdout:
            said.append(line)
            if line == "end 5\n":
                time.sleep(float(rng.uniform(0, 0.02)))
                child.send_signal(signal.SIGKILL)
        child.wait()
    completed = max(int(line.split()[1]) for line in said if line.startswith("end"))
    loaded = kag.Tracker.load(folder)
    assert loaded.left_out == {}
    assert loaded.steps in (list(range(completed + 1)), list(range(completed + 2)))
    model = small_net()
    again = make(model, every=1, history=folder)
    train(model, completed + 3, again.step)
    fresh_model = small_net()
    fresh = make(fresh_model, every=1)
    train(fresh_model, completed + 3, fresh.step)
    assert_frame_equal(again.table, fresh.table)
