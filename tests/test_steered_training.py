"""Penalties as settings of training and axes of studies."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import kagscope as kag
from kagscope import data
from kagscope.base.validation import validate
from kagscope.data import Dataset
from kagscope.studies.file import StudyFile, list_jobs
from kagscope.studies.store import RunStore
from kagscope.studies.study import run_study
from kagscope.training import TrainingSettings, train
from kagscope.training.settings import Penalty
from studies import Here


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return data.load("digits")


def _settings(weight: float, **penalty: Any) -> TrainingSettings:
    return TrainingSettings(
        hidden=(12, 8), epochs=2, batch_size=64, checkpoints=2, penalty=Penalty(weight, **penalty) if weight else None
    )


def _log_pr(dataset: Dataset, net: Any, layer: str) -> float:
    from kagscope.studies.networks import inputs_of
    from kagscope.training.models import mlp

    model = mlp(64, (12, 8), 10, seed=0)
    model.load_state_dict(net.final)
    found = kag.measure(model, inputs_of(dataset)[:40], layers=[layer], k=2, scores=["pr"], progress=False).table
    return float(found["value"][found["score"] == "pr"].mean())


@pytest.mark.parametrize(("score", "layer"), [("pr", "hidden1"), ("alignment", "hidden2"), ("rr_pr", "hidden1")])
def test_the_sign_of_the_weight_is_the_direction(digits: Dataset, score: str, layer: str) -> None:
    reached = []
    for weight in (-0.5, 0.0, 0.5):
        (net,) = train(digits, _settings(weight, score=score, layer=layer), [0])
        reached.append(_log_pr(digits, net, layer))
    if score == "pr":
        assert reached[0] > reached[1] > reached[2]
    assert len(set(reached)) == 3


@pytest.mark.parametrize("score", ["jacobian_l1", "jacobian_l2", "loss_gradient_l1", "loss_gradient_l2"])
def test_positive_weights_of_norms_make_gradients_smaller(digits: Dataset, score: str) -> None:
    from kagscope.training.models import mlp

    sizes = []
    for weight in (-0.1, 0.1):
        (net,) = train(digits, _settings(weight, score=score), [0])
        model = mlp(64, (12, 8), 10, seed=0)
        model.load_state_dict(net.final)
        x = torch.from_numpy(digits.test_images[:100]).flatten(1).requires_grad_()
        loss = torch.nn.functional.cross_entropy(model(x), torch.from_numpy(digits.test_labels[:100]), reduction="sum")
        seen = loss if score.startswith("loss") else model[0](x).sum()
        (gradients,) = torch.autograd.grad(seen, x)
        sizes.append(gradients.flatten(1).norm(int(score[-1]), dim=1).mean().item())
    assert sizes[0] > 1.05 * sizes[1]


def test_gradients_of_the_loss_have_no_layer(digits: Dataset) -> None:
    penalty = {"score": "loss_gradient_l1", "layer": ["hidden1", "hidden2"], "weight": 0.1}
    study = validate(StudyFile, {"name": "s", "run": {"width": 8}, "grid": {"penalty": penalty}})
    assert len({run.run_id for run, _ in list_jobs(study, {"digits": digits})}) == 1


def test_a_network_does_not_depend_on_its_neighbours(digits: Dataset) -> None:
    settings = _settings(-0.1)
    together = train(digits, settings, [3, 1])
    (alone,) = train(digits, settings, [1])
    for name, value in alone.final.items():
        assert torch.equal(value, together[1].final[name]), name


def test_bad_penalties() -> None:
    with pytest.raises(kag.InputError, match="hidden3"):
        _settings(0.1, layer="hidden3")
    with pytest.raises(kag.InputError, match="did you mean"):
        _settings(0.1, score="rr_prr")


def test_a_penalty_that_diverges_is_said_at_its_step(digits: Dataset) -> None:
    with pytest.raises(kag.InputError, match=r"seed 2.* at step \d+.*penalty weight"):
        train(digits, TrainingSettings(hidden=(8,), epochs=3, learning_rate=1e3, optimizer="sgd", penalty=Penalty(-1e36)), [2])


def test_an_axis_of_a_study_and_a_run_that_diverges(tmp_path: Path) -> None:
    penalty = {"score": "pr", "layer": "hidden1", "weight": [-0.1, 0, -1e36]}
    values = {
        "name": "steered",
        "run": {"width": 8, "depth": 1, "epochs": 1, "optimizer": "sgd", "learning_rate": 10.0},
        "grid": {"penalty": penalty, "seed": [0]},
        "measure": {"k": [2], "checkpoints": 2, "points": 4, "scores": ["pr"]},
    }
    study = validate(StudyFile, values)
    runs = study.values()
    assert [run.penalty_weight for run in runs] == [-0.1, 0, -1e36]
    assert {run.penalty_score for run in runs} == {"pr"}
    outcome = run_study(study, tmp_path / "out", executor=Here(), pictures=False)
    failures = RunStore(tmp_path / "out").failures()
    assert len(failures) == 1
    assert "diverged at step" in next(iter(failures.values()))
    assert outcome is not None
    assert set(kag.open_study(tmp_path / "out").table["run"].astype(str)).isdisjoint(failures)
    events: list[dict[str, Any]] = []
    run_study(study, tmp_path / "out", executor=Here(), pictures=False, retry_failed=False, on_event=events.append)
    assert not [one for one in events if one["kind"] in ("train", "failed")]
