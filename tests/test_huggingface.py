"""The Hugging Face callback in real Trainer runs of tiny models built from configurations, with event files read back."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset

from kagscope.base.errors import InputError
from tracked import events_in

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
# imported in functions: it takes seconds, and every worker imports every test file
pytestmark = pytest.mark.skipif(not (find_spec("transformers") and find_spec("accelerate")), reason="no transformers here")

TOKENS = torch.randint(0, 20, (48, 6), generator=torch.Generator().manual_seed(0))
PROBE = {"input_ids": TOKENS[:4], "attention_mask": torch.ones(4, 6, dtype=torch.long)}
MLP = "bert.encoder.layer.0.intermediate"


class Sentences(Dataset[dict[str, torch.Tensor]]):
    def __len__(self) -> int:
        return len(TOKENS)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return {"input_ids": TOKENS[index], "labels": (TOKENS[index].sum() % 2).long()}


def tiny_bert() -> Any:
    """One block, width 8, dropout on."""
    import transformers

    torch.manual_seed(1)
    options: dict[str, Any] = {"num_labels": 2}
    config = transformers.BertConfig(
        vocab_size=20, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=12,
        max_position_embeddings=8, **options,
    )  # fmt: skip
    return transformers.BertForSequenceClassification(config)


def make_trainer(folder: Path, *callbacks: Any, model: Any = None, **options: Any) -> Any:
    import transformers

    given: dict[str, Any] = {
        "report_to": ["tensorboard"],
        "num_train_epochs": 2,
        "logging_steps": 4,
        "save_strategy": "no",
    } | options
    given |= {"per_device_train_batch_size": 8, "learning_rate": 1e-2, "use_cpu": True, "seed": 3, "disable_tqdm": True}
    args = transformers.TrainingArguments(**given, output_dir=str(folder))
    trainer = transformers.Trainer(
        model=model if model is not None else tiny_bert(), args=args, train_dataset=Sentences(), callbacks=list(callbacks)
    )
    trainer.remove_callback(transformers.PrinterCallback)
    return trainer


def callback(**options: Any) -> Any:
    from kagscope.integrations.huggingface import KagscopeTrainerCallback

    given: dict[str, Any] = {"layers": [MLP], "layer_map": "block", "k": (2,), "tokens": 2, "every": 5} | options
    return KagscopeTrainerCallback(PROBE, **given)


@pytest.fixture(autouse=True)
def logging_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path / "events"))


def test_values_reach_every_reporter_and_training_is_the_same_bit_for_bit(tmp_path: Path) -> None:
    tracking = callback()
    trainer = make_trainer(tmp_path, tracking)
    assert tracking.attach(trainer) is tracking
    trainer.train()
    plain = make_trainer(tmp_path / "plain", report_to=[])
    plain.train()
    for (name, one), other in zip(plain.model.state_dict().items(), trainer.model.state_dict().values(), strict=True):
        assert torch.equal(one, other), name
    losses = [[one["loss"] for one in who.state.log_history if "loss" in one] for who in (plain, trainer)]
    assert losses[0] == losses[1]
    assert len(losses[0]) == 3
    tracker = tracking.tracker
    assert tracker is not None
    assert tracker.steps == [0, 5, 10, 12]
    assert tracker.table["token"].nunique() == 2 + 1  # and -1, for scores of the whole layer
    name = f"kag/{MLP}/k2/all/pr_ratio"
    history = [(one["step"], one[name]) for one in trainer.state.log_history if name in one]
    assert [step for step, _ in history] == tracker.steps
    events = events_in(tmp_path / "events")
    scalars = events.Scalars(f"train/{name}")
    assert [one.step for one in scalars] == tracker.steps
    summary = tracker.summary()
    rows = summary[summary["score"] == "pr"]
    np.testing.assert_allclose([one.value for one in scalars], rows["ratio"], rtol=1e-6)
    assert [value for _, value in history] == rows["ratio"].tolist()
    assert len(events.Scalars("train/loss")) == 3


def test_without_the_trainer_event_files_hold_the_values_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tracking = callback(every=("epochs", 1))
    trainer = make_trainer(tmp_path, tracking)
    trainer.train()
    assert tracking.tracker is not None
    assert tracking.tracker.steps == [0, 6, 12]
    assert tracking.tracker.table["epoch"].unique().tolist() == [0, 1, 2]
    name = f"kag/{MLP}/k2/all/pr"
    assert [one["step"] for one in trainer.state.log_history if name in one] == [0, 6, 12]
    events = events_in(tmp_path / "events")
    assert [one.step for one in events.Scalars(f"train/{name}")] == [0, 6, 12]
    assert len(events.Scalars("train/loss")) == 3
    monkeypatch.delenv("TENSORBOARD_LOGGING_DIR")
    monkeypatch.chdir(tmp_path)
    make_trainer(tmp_path / "other", callback(every=6)).train()
    events = events_in(tmp_path / "other" / "runs" / "kagscope")
    assert [one.step for one in events.Scalars(f"train/{name}")] == [0, 6, 12]


def test_accumulated_gradients_count_once_and_histories_continue(tmp_path: Path) -> None:
    """A small GPT-2, stopped after one epoch and resumed from its checkpoint."""
    import transformers

    torch.manual_seed(2)
    config = transformers.GPT2Config(vocab_size=20, n_positions=8, n_embd=8, n_layer=1, n_head=2)
    state = transformers.GPT2ForSequenceClassification(config).state_dict()

    def part(**options: Any) -> Any:
        model = transformers.GPT2ForSequenceClassification(config)
        model.config.pad_token_id = 0
        model.load_state_dict(state)
        tracking = callback(layers=["transformer.h.0.mlp.act"], tokens=[1, 4], every=2, history=tmp_path / "history")
        shared = {"gradient_accumulation_steps": 2, "report_to": [], "save_strategy": "epoch"}
        trainer = make_trainer(tmp_path / "out", tracking, model=model, **(shared | options))
        return tracking, trainer

    first, trainer = part(num_train_epochs=1)
    trainer.train()
    assert first.tracker.steps == [0, 2, 3]  # 6 batches are 3 steps
    second, trainer = part(num_train_epochs=3)
    trainer.train(resume_from_checkpoint=str(tmp_path / "out" / "checkpoint-3"))
    assert second.tracker.steps == [0, 2, 3, 4, 6, 8, 9]
    initial = second.tracker.table.query("step == 0")["ratio"].dropna()
    assert (initial == 1).all()


def test_only_the_first_process_measures(tmp_path: Path) -> None:
    import transformers

    tracking = callback()
    state = transformers.TrainerState(is_world_process_zero=False)
    args = transformers.TrainingArguments(output_dir=str(tmp_path), report_to=[])
    control = transformers.TrainerControl()
    for hook in (tracking.on_train_begin, tracking.on_step_end, tracking.on_train_end):
        hook(args, state, control, model=tiny_bert())
    assert tracking.tracker is None


@pytest.mark.parametrize("options", [{"every": 0}, {"max_overhead": -1}, {"log": object()}])
def test_bad_arguments_are_found_when_the_callback_is_made(options: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        callback(**options)
