"""A series of checkpoints from Python: each number is that of a single measurement; what cannot be measured is named."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn

import kagscope as kag
from kagscope.base.errors import DataError, InputError, OutputError
from kagscope.loading.weights import save_weights
from kagscope.measuring.observe import choose_points
from kagscope.training.models import mlp

INPUTS = torch.randn(5, 6, generator=torch.Generator().manual_seed(0))
OPTIONS: dict[str, Any] = {"layers": ["hidden1"], "k": 2, "selections": "all"}


def net(seed: int) -> nn.Sequential:
    return mlp(6, [4], 3, seed=seed)


def alike(left: pd.DataFrame, right: pd.DataFrame) -> None:
    pd.testing.assert_frame_equal(left.reset_index(drop=True), right, check_dtype=False, check_categorical=False)


def shown(ax: Any) -> list[Any]:
    """The lines of the legend, in its order."""
    return [line for line in ax.get_lines() if not str(line.get_label()).startswith("_")]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for step in (0, 9, 10):
        save_weights(f"step_{step}.safetensors", net(step).state_dict())
    return tmp_path


@pytest.mark.parametrize("baseline", ["first", None, "reinit", "model"])
def test_every_step_is_a_measurement_of_its_own(baseline: Any, run: Path) -> None:
    given = net(77) if baseline == "model" else baseline
    model = net(5)
    series = kag.measure_series(model, "step_*.safetensors", INPUTS, baseline=given, baseline_seeds=2, **OPTIONS)
    assert series.steps == [0, 9, 10]
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), net(5).parameters(), strict=True))
    for step in (0, 9, 10):
        other = net(0) if baseline == "first" else given
        alone = kag.measure(net(step), INPUTS, baseline=other, baseline_seeds=2, **OPTIONS)
        alike(series.table[series.table["step"] == step].drop(columns="step"), alone.table)
        alike(series.curves[series.curves["step"] == step].drop(columns="step"), alone.curves)
    summary = series.summary()
    assert list(summary.columns)[:2] == ["step", "layer"]
    assert set(summary["step"]) == {0, 9, 10}


def test_the_course_of_a_layer_names_the_step_that_is_furthest_from_the_baseline() -> None:
    """Of a layer that fell and came back it said that it was "highest, 1.00, at step 0"."""
    start = net(0)
    fallen = net(0)
    with torch.no_grad():
        for weight in fallen.parameters():
            weight.sign_()  # all entries of one size
    series = kag.measure_series(net(5), {0: start, 9: fallen, 10: net(0)}, INPUTS, **OPTIONS)
    (told,) = [one for one in series.findings if one.code == "layer_course"]
    rows = series.summary().query("score == 'pr' and k == 2").set_index("step")["ratio"]
    assert f"is 1.00 (1.00 to 1.00) times the baseline's at step 10, after {rows[9]:.2f} at step 9; " in told
    series = kag.measure_series(net(5), {0: start, 9: fallen}, INPUTS, **OPTIONS)
    (told,) = [one for one in series.findings if one.code == "layer_course"]
    assert "at step 9; no onset (" in told


def test_weights_by_step_and_labels(run: Path) -> None:
    by_step = {10: net(10), 0: net(0).state_dict(), 9: "step_9.safetensors"}
    seen: list[str] = []
    given = kag.measure_series(net(5), by_step, INPUTS, progress=seen.append, **OPTIONS)
    named = kag.measure_series(
        net(5), ["step_10.safetensors", "step_9.safetensors", Path("step_0.safetensors")], INPUTS, **OPTIONS
    )
    alike(given.table, named.table)
    assert seen == ["step 0 (1 of 3): layer hidden1", "step 9 (2 of 3): layer hidden1", "step 10 (3 of 3): layer hidden1"]
    inputs, labels = torch.randn(12, 6), torch.arange(12) % 2
    labelled = kag.measure_series(net(5), {0: net(0)}, inputs, labels=labels, **OPTIONS)
    alone = kag.measure(net(0), inputs, labels=labels, **OPTIONS)
    assert "kernel_alignment" in set(labelled.table["score"])
    assert "kernel_alignment" in set(alone.table["score"])
    few = kag.measure_series(net(5), {0: net(0)}, inputs, labels=labels, points=3, **OPTIONS)
    assert set(few.table["point"]) - {-1} == set(choose_points(12)[:3])


class Tied(nn.Module):
    """Embedding and output matrix are one parameter, of which a file may hold one name or both."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.encode, self.act, self.decode = nn.Linear(6, 4, bias=False), nn.Tanh(), nn.Linear(4, 6, bias=False)
        self.decode.weight = nn.Parameter(self.encode.weight.detach().T.contiguous())
        self.other = nn.Linear(4, 6, bias=False)
        self.other.weight = self.decode.weight

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.act(self.encode(x))
        both: Tensor = self.decode(hidden) + self.other(hidden)
        return both


def test_tied_and_compiled_models() -> None:
    options: dict[str, Any] = {"layers": ["act"], "k": 1}
    once = {name: tensor for name, tensor in Tied(1).state_dict().items() if name != "other.weight"}
    alone = kag.measure(Tied(1), INPUTS, baseline=Tied(1), **options)
    for state in (once, Tied(1).state_dict()):
        series = kag.measure_series(Tied(0), {3: state}, INPUTS, **options)
        alike(series.table.drop(columns="step"), alone.table)
    compiled: Any = torch.compile(net(5))
    series = kag.measure_series(compiled, {0: {f"_orig_mod.{k}": v for k, v in net(0).state_dict().items()}}, INPUTS, **OPTIONS)
    alike(series.table.drop(columns="step"), kag.measure(net(0), INPUTS, baseline=net(0), **OPTIONS).table)


class Holds(nn.Module):
    """Takes a weight from a list of its own, and keeps extra state in its state dict."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.layer, self.act = nn.Linear(6, 4).double(), nn.Tanh()
        self.held = [self.layer.weight]

    def get_extra_state(self) -> Any:
        return {"version": 1}

    def set_extra_state(self, state: Any) -> None:
        assert state == {"version": 1}

    def forward(self, x: Tensor) -> Any:
        return self.act(x.double() @ self.held[0].T)


@pytest.mark.filterwarnings("error:Converting a tensor")
def test_weights_that_a_model_holds_elsewhere_and_extra_state(tmp_path: Path) -> None:
    options: dict[str, Any] = {"layers": ["act"], "k": 1}
    alone = kag.measure(Holds(1), INPUTS, baseline=Holds(0), **options).table
    assert not np.allclose(alone["ratio"].dropna(), 1)
    states = {step: Holds(step).state_dict() for step in (0, 1)}
    for step, state in states.items():
        torch.save(state, tmp_path / f"step_{step}.pt")
    alike(kag.measure(Holds(1), INPUTS, baseline=states[0], **options).table, alone)
    for checkpoints in (states, str(tmp_path / "step_*.pt")):
        series = kag.measure_series(Holds(5), checkpoints, INPUTS, **options)
        alike(series.at(1).table, alone)
    for step in (0, 1):  # the second continues the history, whose first weights stand for the baseline
        tracker = kag.Tracker(Holds(step), INPUTS, every=1, history=tmp_path / "history", **options)
        tracker.step(step)
        tracker.finish()
    alike(tracker.table[tracker.table["step"] == 1].drop(columns=["step", "epoch"]), alone)


NO_WEIGHTS: dict[str, tuple[Any, str]] = {
    "arrays": (lambda tensor: tensor.numpy(), "ndarray"),
    "sparse": (lambda tensor: tensor.to_sparse(), "sparse"),
    "complex": (lambda tensor: tensor.to(torch.complex64), "complex"),
    "meta": (lambda tensor: tensor.to("meta"), "meta device"),
    "quantised": (lambda tensor: torch.quantize_per_tensor(tensor, 0.1, 0, torch.qint8), "quantised"),
}


@pytest.mark.parametrize("name", NO_WEIGHTS)
def test_state_dicts_of_what_is_no_dense_tensor(name: str) -> None:
    change, said = NO_WEIGHTS[name]
    state = {key: change(tensor) for key, tensor in net(0).state_dict().items()}
    with pytest.raises(InputError, match=f"hidden1.0.weight' is .*{said}.*expected a dense tensor"):
        kag.measure(net(1), INPUTS, baseline=state, **OPTIONS)
    with pytest.raises(InputError, match=said):
        kag.Tracker(net(1), INPUTS, baseline=state, **OPTIONS)
    series = kag.measure_series(net(1), {0: net(0), 1: state}, INPUTS, **OPTIONS)
    assert said in series.left_out["step 1"]
    numbered = dict(enumerate(net(0).state_dict().values()))
    assert "step 1" in kag.measure_series(net(1), {0: net(0), 1: numbered}, INPUTS, **OPTIONS).left_out


def test_checkpoints_that_cannot_be_measured_are_left_out(run: Path) -> None:
    Path("step_0.safetensors").write_bytes(b"damaged")
    diverged = {name: tensor * torch.nan for name, tensor in net(9).state_dict().items()}
    save_weights("step_11.safetensors", diverged)
    save_weights("step_12.safetensors", mlp(6, [5], 3, seed=0).state_dict())
    series = kag.measure_series(net(5), "step_*", INPUTS, **OPTIONS)
    assert series.steps == [9, 10]
    assert list(series.left_out) == ["step_0.safetensors", "step_11.safetensors", "step_12.safetensors"]
    assert series.left_out["step_0.safetensors"].startswith("truncated, damaged or no weights")
    assert "NaN" in series.left_out["step_11.safetensors"]
    assert "hidden1.0.weight has shape (5, 6), expected (4, 6)" in series.left_out["step_12.safetensors"]
    assert (series.table.loc[series.table["step"] == 9, "ratio"].dropna() == 1).all()
    assert series.at(10).provenance["baseline"] == "step 9"
    left_out = [dict(one.numbers)["name"] for one in series.findings if one.code == "left_out"]
    assert left_out == ["step_0.safetensors", "step_11.safetensors", "step_12.safetensors"]


def test_a_first_checkpoint_that_diverged_is_left_out() -> None:
    diverged = {name: tensor * torch.nan for name, tensor in net(0).state_dict().items()}
    series = kag.measure_series(net(5), {0: diverged, 1: net(1), 2: net(2)}, INPUTS, **OPTIONS)
    assert series.steps == [1, 2]
    assert list(series.left_out) == ["step 0"]
    assert series.at(2).provenance["baseline"] == "step 1"


def test_a_first_checkpoint_with_state_that_is_no_tensor() -> None:
    class Counting(nn.Sequential):
        def get_extra_state(self) -> dict[str, int]:
            return {"calls": 1}

        def set_extra_state(self, state: dict[str, int]) -> None:
            pass

    model = Counting(net(0))
    diverged = {name: value * torch.nan if isinstance(value, Tensor) else value for name, value in model.state_dict().items()}
    series = kag.measure_series(model, {0: diverged, 1: Counting(net(1))}, INPUTS, layers=["0.hidden1"], k=2)
    assert series.steps == [1]
    with pytest.raises(InputError, match="nonsense"):
        kag.measure_series(model, {0: Counting(net(1))}, INPUTS, layers=["nonsense"], k=2)


def test_series_that_are_refused(run: Path) -> None:
    refused: list[tuple[Any, dict[str, Any], type[Exception], str]] = [
        ("nothing_*", {}, DataError, "no file is named like"),
        ([], {}, InputError, "no checkpoint was given"),
        (None, {}, InputError, "of type NoneType"),
        (3, {}, InputError, "of type int"),
        ([net(0).state_dict()], {}, InputError, "of type OrderedDict"),
        ({0: net}, {}, InputError, "weights are of type function"),
        ({}, {}, InputError, "checkpoints by step"),
        ({"one": net(0)}, {}, InputError, "whole number"),
        ("step_*", {"layers": ["7"]}, InputError, "no layer '7'"),
        ("step_*", {"k": 0}, InputError, "k is"),
        ("step_*", {"baseline": "step_99.safetensors"}, DataError, "no such file"),
        ({0: mlp(6, [5], 3, seed=0)}, {}, DataError, "no checkpoint could be measured: step 0: .*0.weight has shape"),
        ({0: {n: t * torch.nan for n, t in net(0).state_dict().items()}}, {}, InputError, "NaN"),
    ]
    for checkpoints, changed, error, message in refused:
        with pytest.raises(error, match=message):
            kag.measure_series(net(5), checkpoints, INPUTS, **{**OPTIONS, **changed})
    with pytest.raises(InputError, match=r"expected a torch\.nn\.Module"):
        kag.measure_series("net", "step_*", INPUTS)


def test_files_and_figures(run: Path) -> None:
    series = kag.measure_series(net(5), "step_*", INPUTS, **OPTIONS)
    folder = series.save("out")
    again = kag.Report.load(folder)
    alike(again.table, series.table)
    alike(again.curves, series.curves)
    pd.testing.assert_frame_equal(again.onset(), series.onset())
    assert again.findings == series.findings
    assert [one.code for one in again.findings] == [one.code for one in series.findings]
    assert repr(again) == repr(series)
    assert series.headline.startswith("Sequential: steps 0, 9, 10, 1 of 1 layers, 5 points, map input, baseline step 0")
    assert list(series.overview()["step"]) == ["0", "9", "10"]
    page = series.to_html("page.html").read_text()
    assert "during training" in page
    ax = series.plot("pr")
    (line,) = shown(ax)
    np.testing.assert_array_equal(line.get_xdata(), [0, 9, 10])
    summary = series.summary().query("score == 'pr' and k == 2")
    np.testing.assert_allclose(np.asarray(line.get_ydata(), dtype=float), summary["ratio"])
    values = series.plot("pr", measure="value").get_lines()[0].get_ydata()
    np.testing.assert_allclose(np.asarray(values, dtype=float), summary["value"])
    with pytest.raises(InputError, match=r"nothing was measured for.*k=3"):
        series.plot("pr", k=3)
    short = kag.measure_series(net(5), {0: net(0)}, INPUTS, **OPTIONS)
    with pytest.raises(InputError, match="two steps or more"):
        short.onset()
    with pytest.raises(InputError, match="no steps"):
        kag.measure(net(5), INPUTS, **OPTIONS).plot()
    with pytest.raises(InputError, match="step 7 was not measured; measured were 0, 9, 10"):
        series.at(7)
    Path("full").mkdir()
    Path("full/thesis.tex").write_text("mine")
    with pytest.raises(OutputError, match="holds something else"):
        series.save("full")
    (folder / "table.parquet").write_bytes(b"damaged")
    with pytest.raises(DataError, match="no report, or a damaged one"):
        kag.Report.load(folder)
    with pytest.raises(DataError, match="no report"):
        kag.Report.load("nowhere")


def test_steps_of_other_layers_do_not_mix() -> None:
    """Two layers, three steps: the figure's lines are the table's."""
    deep = [mlp(6, [4, 4], 3, seed=seed) for seed in range(3)]
    series = kag.measure_series(copy.deepcopy(deep[0]), dict(enumerate(deep)), INPUTS, k=1)
    for layer, line in zip(("hidden1", "hidden2"), shown(series.plot("pr", k=1)), strict=True):
        assert str(line.get_label()).endswith(layer[-1])
        rows = series.summary().query("score == 'pr' and k == 1 and layer == @layer")
        np.testing.assert_allclose(np.asarray(line.get_ydata(), dtype=float), rows["ratio"])
