"""The small vision transformer of studies: what it computes, that seeds stay apart, how studies measure and refuse it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import pytest
import torch
from typer.testing import CliRunner

import kagscope as kag
from kagscope.base.errors import InputError
from kagscope.cli import app
from kagscope.data import load
from kagscope.data.variants import degrade
from kagscope.studies.file import list_jobs, read_study_file
from kagscope.studies.measure import Job
from kagscope.studies.plan import estimate
from kagscope.studies.study import run_study
from kagscope.tables.means import summarise, token_means
from kagscope.training import TrainingSettings, train
from kagscope.training.settings import Penalty
from kagscope.training.vit import check_vit, vit
from studies import Here, small_study

DIGITS = degrade(load("digits"), 96)
SMALL = TrainingSettings(architecture="vit", hidden=(16, 8), epochs=2, batch_size=40, checkpoints=3)


def test_patches_are_squares_of_the_image_and_mean_over_tokens_forgets_their_order() -> None:
    model = vit((3, 8, 12), [16], 5, seed=0).eval()
    seen: list[torch.Tensor] = []
    model.embed.register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    images = torch.arange(2 * 3 * 8 * 12, dtype=torch.float32).view(2, 3, 8, 12) / 100
    out = model(images.flatten(1))
    assert out.shape == (2, 5)
    assert torch.equal(seen[0][1, 5], images[1, :, 2:4, 3:6].flatten())  # second row of patches, second of four
    model.places.weight.data.zero_()
    turned = images.view(2, 3, 4, 2, 4, 3).flip(2, 4).reshape(2, -1)
    assert torch.allclose(model(images.flatten(1)), model(turned), atol=1e-5)


def test_weights_are_those_of_the_seed_and_the_global_generator_is_left_alone() -> None:
    before = torch.get_rng_state()
    one, same, other = (vit((8, 8), [16, 8], 3, seed=seed).state_dict() for seed in (1, 1, 2))
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not torch.equal(one["hidden2.0.weight"], other["hidden2.0.weight"])
    assert all(bool(value.isfinite().all()) for value in one.values())


@pytest.mark.parametrize("labels", ["true", "shuffled"])
def test_a_seed_trains_alone_as_among_others(labels: Literal["true", "shuffled"]) -> None:
    settings = replace(SMALL, labels=labels)
    together = train(DIGITS, settings, [3, 0])
    (alone,) = train(DIGITS, settings, [0])
    for step in alone.steps:
        for name, value in alone.checkpoints[step].items():
            assert torch.equal(value, together[1].checkpoints[step][name]), (step, name)
    assert alone.train_accuracy == together[1].train_accuracy
    start = vit(DIGITS.image_shape, settings.hidden, 10, seed=0).state_dict()
    assert all(torch.equal(value, start[name]) for name, value in alone.initial.items())


def test_its_first_step_is_adams() -> None:
    (net,) = train(DIGITS, replace(SMALL, epochs=1, batch_size=96, checkpoints=2), [0])
    model = vit(DIGITS.image_shape, SMALL.hidden, 10, seed=0)
    images, labels = torch.from_numpy(DIGITS.train_images).flatten(1), torch.from_numpy(DIGITS.train_labels)
    optimizer = torch.optim.Adam(model.parameters(), lr=SMALL.learning_rate)
    torch.nn.functional.cross_entropy(model(images), labels).backward()
    optimizer.step()
    for name, value in model.state_dict().items():
        moved, expected = net.final[name] - net.initial[name], value - net.initial[name]
        assert torch.allclose(moved, expected, atol=2e-4), name
        assert float((moved - expected).abs().median()) < 1e-5, name


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(InputError, match="multiple of 4"):
        TrainingSettings(architecture="vit", hidden=(16, 6))
    with pytest.raises(InputError, match="a penalty"):
        TrainingSettings(architecture="vit", hidden=(16,), penalty=Penalty(0.1))
    with pytest.raises(InputError, match="architecture is 'cnn'"):
        TrainingSettings(architecture="cnn")
    with pytest.raises(InputError, match="9 x 8"):
        check_vit([8], (9, 8))
    study = small_study(architecture="vit", widths=(16,), claims=False)
    with pytest.raises(InputError, match="expected 'block'"):
        list_jobs(
            study.model_copy(update={"measure": study.measure.model_copy(update={"layer_map": "output"})}), {"digits": DIGITS}
        )


def _table(values: list[float], reasons: list[str]) -> pd.DataFrame:
    n = len(values)
    fixed: dict[str, Any] = {"layer": "a", "k": 1, "selection": "all", "score": "pr", "baseline": 2.0, "stderr": 0.0}
    rows = pd.DataFrame({"point": [0] * n, "token": range(n), "value": values, "ratio": np.array(values) / 2, "reason": reasons})
    return rows.assign(**fixed, baseline_stderr=0.0, exact=True)


def test_means_over_tokens_are_those_of_a_summary() -> None:
    table = _table([1.0, 3.0, np.nan], ["", "", "every minor is zero"])
    (row,) = token_means(table).to_dict("records")
    assert (row["value"], row["ratio"], row["reason"], row["exact"]) == (2.0, 1.0, "", True)
    assert row["value"] == summarise(table)["value"][0]
    (none,) = token_means(_table([np.nan, np.nan], ["why", "why"])).to_dict("records")
    assert np.isnan(none["value"])
    assert none["reason"] == "why"
    bare = table.drop(columns="token")
    assert token_means(bare) is bare


@pytest.mark.slow
def test_a_study_of_it_measures_hidden_layers_of_tokens(tmp_path: Path) -> None:
    study = small_study(architecture="vit", widths=(16,), trainings=("augmented",), claims=False)
    found = list_jobs(study, {"digits": load("digits")})
    assert all(what.specs["main"].layer_map == "block" for _, what in found)
    assert estimate([Job(*one) for one in found], {"digits": 1438}, {"digits": 10}).train_seconds > 0
    outcome = run_study(study, tmp_path / "out", executor=Here())
    opened = kag.open_study(outcome.folder)
    table = opened.table
    assert "token" not in table.columns
    assert not table.duplicated(["run", "step", "layer", "k", "selection", "score", "point"]).any()
    assert set(table["layer"]) >= {"hidden1", "hidden2"}
    run = opened.runs[0]
    model, before = opened.model(run), opened.model(run, 0)
    spec = opened.specs_of(run)["main"].with_(scores=["pr"], k=1)
    report = kag.measure(model, opened.inputs, spec=spec, baseline=before, progress=False)
    means = report.table[report.table["score"] == "pr"].groupby(["layer", "point"], observed=True)["value"].mean()
    last = table[(table["run"] == run) & (table["step"] == table["step"].max()) & (table["score"] == "pr") & (table["k"] == 1)]
    own = last.set_index(["layer", "point"])["value"]
    assert len(own) == len(means) > 0
    assert np.allclose(own, means.reindex(own.index), rtol=1e-12)
    options = ["--layer", "hidden1", "--layer-map", "block", "--k", "1", "--score", "pr", "--points", "2", "--json"]
    done = CliRunner().invoke(app, ["measure", str(outcome.folder / "runs" / run), *options])
    assert done.exit_code == 0, done.stderr
    found = json.loads(done.stdout)
    assert [one["name"] for one in found["layers"]] == ["hidden1"]
    assert found["provenance"]["baseline"] == "the same network at step 0"


def test_the_ready_study_has_six_blocks() -> None:
    study = read_study_file("vision-transformer")
    assert {len(one.hidden) for one in study.values()} == {6}
    assert {one.labels for one in study.values()} == {"true", "shuffled"}
