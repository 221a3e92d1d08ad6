"""The tracker in a plain loop: what it measures, what it leaves alone, what it logs and shows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

import kagscope as kag
from kagscope.base.errors import InputError
from kagscope.base.reasons import code_of
from kagscope.tracking.probe import Probe
from tracked import DATA, PROBE, events_in, make_tracker, small_net, train


def brute_force_pr(model: nn.Sequential, layer: str) -> np.ndarray:
    """PR of the 2-minors of a layer at each probe point, from autograd and every minor."""
    stem = model[: int(layer) + 1].double()
    found = []
    for x in PROBE.double():
        J = torch.autograd.functional.jacobian(stem, x)
        rows, columns = torch.combinations(torch.arange(J.shape[0])), torch.combinations(torch.arange(J.shape[1]))
        a, b = J[rows[:, 0]], J[rows[:, 1]]
        M = (a[:, columns[:, 0]] * b[:, columns[:, 1]] - a[:, columns[:, 1]] * b[:, columns[:, 0]]).abs()
        found.append(float((M**2).sum().sqrt() / M.sum()))
    return np.array(found)


def test_values_are_those_of_the_network_at_that_step() -> None:
    model = small_net()
    tracker = make_tracker(model, every=15)
    train(model, 40, tracker.step)
    table = tracker.finish().table
    assert tracker.steps == [0, 15, 30, 40]
    again = small_net()
    for step, first in ((0, 1), (15, 1), (30, 16), (40, 31)):
        train(again, step, first=first)
        for layer in ("1", "3"):
            rows = table[(table["step"] == step) & (table["layer"] == layer) & (table["score"] == "pr")]
            assert len(rows) == len(PROBE)
            np.testing.assert_allclose(rows["value"], brute_force_pr(pickle_free_copy(again), layer), rtol=1e-9)
    initial = table[table["step"] == 0].dropna(subset="ratio")
    assert (initial["ratio"] == 1).all()
    assert not initial.empty


def pickle_free_copy(model: nn.Sequential) -> nn.Sequential:
    copy = small_net()
    copy.load_state_dict(model.state_dict())
    return copy


def test_training_is_the_same_bit_for_bit() -> None:
    """Dropout and batch norm in training mode: measured in eval mode, random numbers and running statistics left alone."""

    def run(tracked: bool) -> tuple[nn.Module, torch.Tensor]:
        torch.manual_seed(5)
        model = nn.Sequential(nn.Linear(16, 8), nn.BatchNorm1d(8), nn.GELU(), nn.Dropout(0.3), nn.Linear(8, 4))
        model.train()
        model[0].weight.requires_grad_(False)
        tracker = kag.Tracker(model, PROBE, layers=["2"], every=3) if tracked else None
        train(model, 20, tracker.step if tracker else lambda step: None)
        if tracker:
            assert tracker.finish().steps == [0, 3, 6, 9, 12, 15, 18, 20]
            assert model.training
            assert not model[0].weight.requires_grad
            assert all(not one._forward_hooks and not one._forward_pre_hooks for one in model.modules())
        return model, torch.rand(3)

    (plain, after), (watched, after_watched) = run(False), run(True)
    for (name, one), other in zip(plain.state_dict().items(), watched.state_dict().values(), strict=True):
        assert torch.equal(one, other), name
    for one, other in zip(plain.parameters(), watched.parameters(), strict=True):
        assert (one.grad is None) == (other.grad is None)
        assert one.grad is None or other.grad is None or torch.equal(one.grad, other.grad)
    assert torch.equal(after, after_watched)


@pytest.mark.slow
def test_a_training_step_that_is_compiled_whole() -> None:
    """The step was traced, and the network "cannot be measured inside torch.compile"."""
    tracker = make_tracker(small_net(), every=1, k=(1,))

    @torch.compile(backend="eager")
    def step(number: int) -> None:
        tracker.step(number)

    step(1)
    assert tracker.steps == [0, 1]
    assert tracker.table["ratio"].dropna().eq(1).all()
    assert not (tracker.table["value"].isna() & (tracker.table["reason"] != "")).any()


def test_threads_of_torch_are_as_before() -> None:
    """Their number decides the order of sums, and with it the last bits of training."""
    before = torch.get_num_threads()
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            tracker = make_tracker(small_net(), every=1)
            tracker.step(1)
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)


def test_probe_inputs_are_copied() -> None:
    model, probe = small_net(), PROBE.clone()
    tracker = make_tracker(model, probe_inputs=probe)
    probe.zero_()
    tracker.step(10)
    table = tracker.table
    assert (table["ratio"].dropna() == 1).all()


def test_steps_count_themselves_and_repeat_without_harm() -> None:
    model = small_net()
    tracker = make_tracker(model, every=3)
    assert [tracker.step() for _ in range(7)] == [False, False, True, False, False, True, False]
    assert not tracker.step(7)  # gradient accumulation: several calls within one optimiser step
    assert tracker.finish().steps == [0, 3, 6, 7]
    assert tracker.finish().steps == [0, 3, 6, 7]
    with pytest.raises(InputError, match="never go back"):
        tracker.step(6)


def test_with_block_finishes_unless_it_fails() -> None:
    with make_tracker(small_net(), every=100) as tracker:
        tracker.step(5)
    assert tracker.steps == [0, 5]
    tracker = make_tracker(small_net(), every=100)
    tracker.step(5)
    with pytest.raises(ZeroDivisionError), tracker:
        raise ZeroDivisionError
    assert tracker.steps == [0]


def test_another_network_as_baseline() -> None:
    model, baseline = small_net(1), small_net(2)
    tracker = make_tracker(model, baseline=baseline, first_step=30)
    assert tracker.steps == [30]
    rows = tracker.table[(tracker.table["layer"] == "3") & (tracker.table["score"] == "pr")]
    np.testing.assert_allclose(rows["ratio"], brute_force_pr(model, "3") / brute_force_pr(baseline, "3"), rtol=1e-9)


def test_a_network_that_diverged_leaves_undefined_rows_and_training_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    model = small_net()
    tracker = make_tracker(model, every=1)
    weight = next(model.parameters())
    with torch.no_grad():
        weight[0, 0] = float("nan")
    assert tracker.step(1)
    assert tracker.step(2)
    with torch.no_grad():
        weight[0, 0] = 0.5
    assert tracker.step(3)
    table = tracker.table
    lost = table[table["step"].isin([1, 2])]
    assert lost["value"].isna().all()
    assert lost["ratio"].isna().all()
    assert len(lost) == 2 * (table["step"] == 0).sum()
    assert lost["reason"].str.contains("NaN").all()
    assert table.loc[table["step"] == 3, "value"].notna().any()
    assert len(caplog.records) == 1
    assert tracker.onset()["step"].isna().all()


@pytest.mark.parametrize("rows", [None, 20])
def test_a_layer_that_grows_has_its_numbers_all_the_same(rows: int | None) -> None:
    """What goes with minors of the baseline has none; the spectrum and PR of the layer as it is are no less known."""

    def net(width: int) -> nn.Sequential:
        return nn.Sequential(nn.Linear(16, width), nn.GELU(), nn.Linear(width, 4))

    model = net(24)
    scores = ["pr", "kl_init", "zero_rows", "axis_alignment", "cka_init", "near_zero"]
    tracker = make_tracker(model, every=1, layers=["1"], scores=scores, max_rows=rows)
    model[0], model[2] = nn.Linear(16, 40), nn.Linear(40, 4)
    assert tracker.step(1)
    table = tracker.table
    first, grown = (table[table["step"] == step].set_index("score") for step in (0, 1))
    assert set(grown.index) == set(first.index)
    assert grown.loc[["kl_init"], "value"].isna().all()
    assert set(grown.loc[["kl_init"], "reason"].map(code_of)) == {"other_minors"}
    others = grown.drop(index="kl_init")
    assert others["value"].notna().all(), others[others["value"].isna()]["reason"].unique()


def test_training_goes_on_where_measuring_takes_too_much_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    def observe(*_: object) -> None:
        raise MemoryError

    model = small_net()
    tracker = make_tracker(model, every=1)
    monkeypatch.setattr(type(tracker._probe), "observe", observe)
    assert tracker.step(1)
    lost = tracker.table[tracker.table["step"] == 1]
    assert lost["value"].isna().all()
    assert lost["reason"].str.contains("memory").all()


# -- bad input, found when the tracker is made ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"layers": ["7"]}, "7"),
        ({"probe_inputs": DATA[:0]}, "empty|no points|0 "),
        ({"probe_inputs": DATA[:4, :5]}, "."),
        ({"k": (0,)}, "k"),
        ({"colour": "red"}, "colour"),
        ({"first_step": -1}, "first_step"),
        ({"log": 3}, "SummaryWriter"),
        ({"model": "resnet"}, "model"),
    ],
)
def test_bad_arguments(options: dict[str, Any], words: str) -> None:
    arguments: dict[str, Any] = {"model": small_net(), "probe_inputs": PROBE, "layers": ["1"]} | options
    with pytest.raises(InputError, match=words):
        kag.Tracker(arguments.pop("model"), arguments.pop("probe_inputs"), **arguments)


@pytest.mark.parametrize("step", [-1, 1.5, "3", True, None])
def test_bad_steps(step: Any) -> None:
    tracker = make_tracker(small_net())
    if step is not None:
        with pytest.raises(InputError, match="step"):
            tracker.step(step)


def test_what_was_not_measured_is_named() -> None:
    tracker = make_tracker(small_net())
    with pytest.raises(InputError, match="two steps or more"):
        tracker.onset("colour")
    tracker.step(10)
    with pytest.raises(InputError, match=r"score='colour'.*pr"):
        tracker.onset("colour")
    with pytest.raises(InputError, match="layer='9'"):
        tracker.plot(layer="9")


# -- logging and showing --------------------------------------------------------------------------------------------------------


def test_tensorboard_event_files_hold_every_measurement(tmp_path: Path) -> None:
    model = small_net()
    with SummaryWriter(str(tmp_path)) as writer:
        tracker = make_tracker(model, log=writer)
        train(model, 30, tracker.step)
        tracker.finish()
    events = events_in(tmp_path)
    summary = tracker.summary()
    for layer in ("1", "3"):
        rows = summary[(summary["layer"] == layer) & (summary["score"] == "pr")]
        for name, column in ((f"kag/{layer}/k2/all/pr", "value"), (f"kag/{layer}/k2/all/pr_ratio", "ratio")):
            scalars = events.Scalars(name)
            assert [one.step for one in scalars] == [0, 10, 20, 30]
            np.testing.assert_allclose([one.value for one in scalars], rows[column], rtol=1e-6)


class Run:
    """Anything with ``log(dict, step=)``."""

    def __init__(self) -> None:
        self.seen: list[tuple[int, dict[str, float]]] = []

    def log(self, values: dict[str, float], step: int) -> None:
        self.seen.append((step, values))


def test_several_loggers_told_apart_by_what_they_take() -> None:
    run, plain, keyword = Run(), list[dict[str, float]](), list[tuple[int, dict[str, float]]]()
    model = small_net()
    tracker = make_tracker(model, log=[run, plain.append, lambda values, step: keyword.append((step, values))])
    train(model, 10, tracker.step)
    assert [step for step, _ in run.seen] == [0, 10]
    assert keyword == run.seen
    assert plain == [{"step": step, **values} for step, values in run.seen]
    assert all(np.isfinite(value) for _, values in run.seen for value in values.values())
    assert run.seen[0][1]["kag/1/k2/all/pr_ratio"] == 1.0


def test_line_in_the_progress_bar() -> None:
    model = small_net()
    tracker = make_tracker(model)
    assert tracker.line.startswith("PR x1.00 (layer 1) | KL x1.00 (layer 1)")
    with tqdm(total=40, disable=None) as bar:
        train(model, 40, tracker.step)
        tracker.show(bar)
        assert bar.postfix is None or bar.postfix == tracker.line
    last = tracker.summary()
    last = last[(last["step"] == 40) & (last["score"] == "pr") & (last["k"] == 2) & (last["selection"] == "all")]
    furthest = last.loc[np.log(last["ratio"]).abs().idxmax()]
    assert f"PR x{furthest['ratio']:.2f} (layer {furthest['layer']})" in tracker.line
    assert len(tracker.line) < 80


def test_plot_shows_each_layer_with_its_onset() -> None:
    model = small_net()
    tracker = make_tracker(model, every="geometric")
    train(model, 256, tracker.step)
    ax = tracker.plot()
    onset = tracker.onset()
    lines = {line.get_label(): line for line in ax.get_lines() if not str(line.get_label()).startswith("_")}
    assert len(lines) == 2
    summary = tracker.summary()
    for label, line in lines.items():
        layer = str(label).split(",")[0].removeprefix("layer ")
        rows = summary[(summary["layer"] == layer) & (summary["score"] == "pr")]
        np.testing.assert_array_equal(line.get_xdata(), rows["step"])
        np.testing.assert_array_equal(line.get_ydata(), rows["ratio"])
        step = onset.loc[onset["layer"] == layer, "step"].iloc[0]
        assert (f"onset {step}" in str(label)) == (step is not None)
    assert ax.get_xscale() == "symlog"
    assert ax.get_xlabel() == "training step"
    assert len(tracker.plot(layer="3", score="kl_uniform").get_legend().get_texts()) == 1


def test_table_is_tidy() -> None:
    tracker = make_tracker(small_net())
    columns = ["step", "epoch", "layer", "k", "selection", "point", "score", "value", "baseline", "ratio", "stderr",
               "baseline_stderr", "exact", "reason"]  # fmt: skip
    assert list(tracker.table.columns) == columns
    assert not tracker.table.duplicated(["step", "layer", "k", "selection", "point", "score"]).any()
    assert isinstance(tracker.table, pd.DataFrame)


def test_labels_may_be_part_of_a_graph() -> None:
    labels = torch.arange(float(len(PROBE)), requires_grad=True) * 2
    kept = Probe.of(PROBE, labels, kag.MeasureSpec(k=1), small_net()).labels
    assert not kept.requires_grad
    assert kept.data_ptr() != labels.data_ptr()
