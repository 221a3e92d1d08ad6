"""First layers that nets start from instead of drawn ones, frozen layers, and studies of both."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

import kagscope as kag
from kagscope.base.errors import InputError
from kagscope.data import load
from kagscope.data.variants import degrade, small_mnist10k
from kagscope.studies.file import list_jobs
from kagscope.studies.setting_tables import steps_to
from kagscope.studies.study import run_study
from kagscope.training import TrainingSettings, train
from kagscope.training.first_layer import FIRST_LAYERS, rows_like, start_first_layer
from kagscope.training.models import mlp
from studies import Here, small_study

DIGITS = degrade(load("digits"), 96)
SETTINGS: dict[str, Any] = {"hidden": (6, 5), "epochs": 2, "batch_size": 32, "checkpoints": 3}


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _donors(n: int, width: int) -> list[dict[str, torch.Tensor]]:
    return [mlp(n, [width], 3, seed=seed).state_dict() for seed in range(4)]


@pytest.mark.parametrize("kind", [kind for kind in FIRST_LAYERS if kind not in ("drawn", "trained")])
def test_another_first_layer_has_the_scale_of_the_drawn_one(kind: str) -> None:
    state = mlp(12, [7, 4], 3, seed=1).state_dict()
    found = start_first_layer(kind, state, _donors(12, 7), _generator())
    weight, *others = list(state)
    assert torch.linalg.matrix_norm(found[weight]) == pytest.approx(float(torch.linalg.matrix_norm(state[weight])), rel=1e-6)
    assert not torch.equal(found[weight], state[weight])
    assert all(torch.equal(found[name], state[name]) for name in others)


def test_axis_aligned_and_orthogonal_rows() -> None:
    state = mlp(5, [8], 3, seed=1).state_dict()
    aligned = next(iter(start_first_layer("axis_aligned", state, [], _generator()).values()))
    assert ((aligned != 0).sum(1) == 1).all()
    assert (aligned != 0).sum(0).min() >= 1
    columns = next(iter(start_first_layer("orthogonal", state, [], _generator()).values())).double()
    gram = columns.T @ columns
    assert torch.allclose(gram, torch.eye(5, dtype=torch.float64) * gram[0, 0], atol=1e-6)


def test_rows_like_trained_ones_have_their_distributions_and_correlations() -> None:
    generator = _generator(3)
    first = torch.randn(400, 1, generator=generator)
    noise = torch.randn(400, 1, generator=generator)
    sparse = torch.where(torch.rand(400, 1, generator=generator) < 0.9, 0.0, 1.0)
    trained = torch.cat([first, 0.8 * first + 0.6 * noise, sparse, torch.full((400, 1), 2.5)], 1)
    drawn = rows_like(trained, 4000, _generator())
    assert torch.corrcoef(drawn[:, :2].T)[0, 1] == pytest.approx(0.8, abs=0.05)
    assert (drawn[:, 2] == 0).double().mean() == pytest.approx(0.9, abs=0.03)
    assert (drawn[:, 3] == 2.5).all()
    assert (drawn.amin(0) >= trained.amin(0)).all()
    assert (drawn.amax(0) <= trained.amax(0)).all()


def test_a_frozen_trained_layer_is_that_of_a_net_of_its_own() -> None:
    nets = train(DIGITS, TrainingSettings(**SETTINGS, first_layer="trained", frozen=True), [0, 3])
    alone = train(DIGITS, TrainingSettings(**{**SETTINGS, "hidden": (6,)}), [3])[0]
    for step in nets[1].steps:
        for name in ("hidden1.0.weight", "hidden1.0.bias"):
            assert torch.equal(nets[1].checkpoints[step][name], alone.final[name])
    assert not torch.equal(nets[1].final["hidden2.0.weight"], nets[1].initial["hidden2.0.weight"])


def test_a_seed_does_not_depend_on_its_neighbours() -> None:
    settings = TrainingSettings(**SETTINGS, first_layer="like_trained")
    together, alone = train(DIGITS, settings, [0, 1])[1], train(DIGITS, settings, [1])[0]
    assert all(torch.equal(value, alone.final[name]) for name, value in together.final.items())


def test_settings_that_do_not_go_together() -> None:
    with pytest.raises(InputError, match="weight_decay"):
        TrainingSettings(frozen=True, weight_decay=0.1)
    with pytest.raises(InputError, match="axis_aligned"):
        TrainingSettings(first_layer="axis_alinged")
    study = small_study(first_layer="like_trained", first_layer_data="mnist10k")
    with pytest.raises(InputError, match=r"first_layer_data.*28"):
        list_jobs(study, {name: load(name) for name in ("digits", "mnist10k")})


def test_other_handwriting_has_the_size_of_digits() -> None:
    small = small_mnist10k()
    assert small.image_shape == (8, 8)
    full = load("mnist10k").test_images
    assert small.test_images[7, 2, 5] == pytest.approx(full[7, 8:11, 17:20].mean())


def test_a_study_of_a_layer_on_a_frozen_one(tmp_path: Path) -> None:
    measure = {"layers": ["hidden2"], "layer_map": "block", "k": [1, 2], "scores": ["pr", "zero_rows"]}
    study = small_study(
        widths=(6,), trainings=("standard",), claims=False, measure=measure, depth=2, first_layer="trained", frozen=True
    )
    outcome = run_study(study, tmp_path / "out", executor=Here(), pictures=False)
    assert not outcome.left_out
    opened = kag.open_study(tmp_path / "out")
    assert set(opened.table["layer"]) == {"hidden2"}
    run = opened.runs[0]
    model = opened.model(run)
    report = kag.measure(model.hidden2, model.hidden1(opened.inputs).detach(), layers=["1"], k=2, scores=["pr"], points=6)
    own = report.table[report.table["score"] == "pr"]["value"]
    last = opened.table[(opened.table["run"] == run) & (opened.table["step"] > 0) & (opened.table["k"] == 2)]
    last = last[(last["score"] == "pr") & (last["step"] == last["step"].max())]
    assert last["value"].to_numpy() == pytest.approx(own.to_numpy(), rel=1e-6)


def test_first_layers_of_other_data_are_a_setting_of_their_own(tmp_path: Path) -> None:
    study = small_study(widths=(6,), trainings=("standard",), claims=False, measure={"k": [1], "scores": ["pr"]}, epochs=1)
    other = "kagscope.data.variants:small_mnist10k"
    varied = {"first_layer": ["drawn", "like_trained", "like_trained"], "first_layer_data": ["digits", "digits", other]}
    study = study.model_copy(update={"zip": (varied,)})
    run_study(study, tmp_path / "out", executor=Here(), pictures=False)
    summary = pd.read_csv(tmp_path / "out" / "summary.csv")
    assert set(zip(summary["first_layer"], summary["first_layer_data"], strict=True)) == {
        ("drawn", "same"),
        ("like_trained", "same"),
        ("like_trained", other),
    }
    assert set(summary["nets"]) == {2}


def test_steps_to_an_accuracy_are_between_kept_steps() -> None:
    accuracy = {"0": 0.1, "100": 0.5, "200": 0.9}
    assert steps_to(0.7, accuracy) == pytest.approx(150)
    assert steps_to(0.1, accuracy) == 0
    assert math.isnan(steps_to(0.95, accuracy))
