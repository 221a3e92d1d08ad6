"""Checkpoints of a run by their names: patterns, natural order, and the step in a name."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kagscope.base.errors import DataError, InputError
from kagscope.loading.checkpoints import find_checkpoints, is_pattern
from kagscope.loading.weights import load_state, save_weights


@pytest.mark.parametrize(
    ("names", "steps"),
    [
        (["step_10.pt", "step_9.pt", "step_100.pt"], [9, 10, 100]),
        (["run3/net2_0.pt", "run3/net2_500.pt"], [0, 500]),
        (["epoch=1-step=400.ckpt", "epoch=0-step=200.ckpt"], [200, 400]),
        (["epoch=3-val_loss=0.52.ckpt", "epoch=11-val_loss=0.31.ckpt"], [3, 11]),
        (["checkpoint-500/model.safetensors", "checkpoint-1000/model.safetensors"], [500, 1000]),
        (["vit16_iter0003.pt", "vit16_iter0020.pt"], [3, 20]),
        (["step_000.pt", "step_0010.pt"], [0, 10]),
        (["init_0.pt", "weights-step7.pt"], [0, 7]),
        (["resnet50_step7.pt"], [7]),
        (["model7.pt"], [7]),
    ],
)
def test_steps_of_names(names: list[str], steps: list[int]) -> None:
    shuffled = random.Random(0).sample(names, len(names))
    found = find_checkpoints(shuffled)
    assert [checkpoint.step for checkpoint in found] == steps
    assert {str(checkpoint.path) for checkpoint in found} == set(names)


@given(st.sets(st.integers(0, 10**9), min_size=1), st.sampled_from(["a{}.pt", "step={}-loss=0.5.ckpt", "run2/{}/w.safetensors"]))
def test_any_steps_come_back_in_order(steps: set[int], name: str) -> None:
    found = find_checkpoints([name.format(step) for step in steps])
    assert [checkpoint.step for checkpoint in found] == sorted(steps)
    assert [str(checkpoint.path) for checkpoint in found] == [name.format(step) for step in sorted(steps)]


def test_patterns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("run/step_2.pt", "run/step_10.pt", "run/step_x.txt", "odd[1].pt"):
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_text("")
    Path("run/step_3.pt").mkdir()
    assert is_pattern("run/step_*.pt")
    assert not is_pattern("odd[1].pt")
    assert [str(found.path) for found in find_checkpoints("run/step_*.pt")] == ["run/step_2.pt", "run/step_10.pt"]
    assert [found.step for found in find_checkpoints(["run/*_2.pt", "**/step_*.pt"])] == [2, 10]
    refused: list[tuple[str | list[str], type[Exception], str]] = [
        ("run/step-*.pt", DataError, r"no file is named like 'run/step-\*\.pt' \(did you mean run/step_"),
        ("nowhere/*.pt", DataError, "no file is named like"),
        ("run/step_*", InputError, "step_x.txt: there is no number"),
        ([], InputError, "no checkpoint was given"),
        (["a/step_1.pt", "b/step_1.pt"], InputError, "a/step_1.pt and b/step_1.pt both have step 1"),
        (["a1.pt", "a01.pt"], InputError, "do not differ"),
    ]
    for given_names, error, message in refused:
        with pytest.raises(error, match=message):
            find_checkpoints(given_names)


def test_folders_of_weights_are_checkpoints(tmp_path: Path) -> None:
    for step in (500, 1000):
        folder = tmp_path / f"checkpoint-{step}"
        folder.mkdir()
        save_weights(folder / "model.safetensors", {"w": torch.full((1,), float(step))})
    (tmp_path / "checkpoint-7").mkdir()
    (tmp_path / "checkpoint-7" / "optimizer.pt").write_bytes(b"")
    found = find_checkpoints(str(tmp_path / "checkpoint-*"))
    assert [one.step for one in found] == [500, 1000]
    assert [float(load_state(one.path)["w"]) for one in found] == [500.0, 1000.0]
