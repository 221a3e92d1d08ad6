"""The Lightning callback in real Trainer runs, with real TensorBoard event files read back."""

from __future__ import annotations

import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import kagscope as kag
from kagscope.base.errors import InputError
from tracked import DATA, LABELS, PROBE, events_in, small_net

pytestmark = pytest.mark.skipif(find_spec("lightning") is None, reason="no lightning here")
BATCHES = 8  # an epoch: 256 points in batches of 32


def fit(folder: Path, *callbacks: Any, **options: Any) -> tuple[Any, Any]:
    """See :func:`lightning_runs.fit`."""
    import lightning_runs

    return lightning_runs.fit(folder, *callbacks, **options)


def callback(**options: Any) -> Any:
    """See :func:`lightning_runs.callback`."""
    import lightning_runs

    return lightning_runs.callback(**options)


def test_values_land_in_the_event_files_and_training_is_the_same_bit_for_bit(tmp_path: Path) -> None:
    from lightning.pytorch.loggers import TensorBoardLogger

    tracking = callback()
    logger = TensorBoardLogger(str(tmp_path), name="run", version="0")
    watched, trainer = fit(tmp_path, tracking, logger=logger)
    plain, _ = fit(tmp_path)
    for (name, one), other in zip(plain.state_dict().items(), watched.state_dict().values(), strict=True):
        assert torch.equal(one, other), name
    tracker = tracking.tracker
    assert tracker is not None
    assert tracker.steps == [0, 5, 10, 15, 16]
    events = events_in(logger.log_dir)
    assert "loss" in events.Tags()["scalars"]
    summary = tracker.summary()
    for layer in ("net.1", "net.5"):
        rows = summary[(summary["layer"] == layer) & (summary["score"] == "pr")]
        scalars = events.Scalars(f"kag/{layer}/k2/all/pr_ratio")
        assert [one.step for one in scalars] == tracker.steps
        np.testing.assert_allclose([one.value for one in scalars], rows["ratio"], rtol=1e-6)
    assert tracker.table["epoch"].unique().tolist() == [step / BATCHES for step in tracker.steps]
    assert float(trainer.callback_metrics["kag_pr"]) == pytest.approx(kag_pr_at(tracker, 15), rel=1e-6)
    measured = kag.measure(watched, PROBE, layers=["net.1"], k=(2,), progress=False).table
    ours = tracker.table[(tracker.table["step"] == 16) & (tracker.table["layer"] == "net.1")]
    for score in ("pr", "kl_uniform", "rr_pr"):
        one, other = (table.loc[table["score"] == score, "value"].to_numpy(float) for table in (measured, ours))
        np.testing.assert_allclose(one, other, rtol=1e-12)


def kag_pr_at(tracker: kag.Tracker, step: int) -> float:
    summary = tracker.summary()
    rows = summary[(summary["step"] == step) & (summary["score"] == "pr")]
    return float(rows["ratio"].iloc[int(np.abs(np.log(rows["ratio"].to_numpy())).argmax())])


def test_accumulated_batches_count_once(tmp_path: Path) -> None:
    tracking = callback(every=2, module="net", layers=["1"])
    fit(tmp_path, tracking, accumulate_grad_batches=3)
    assert tracking.tracker is not None
    assert tracking.tracker.steps == [0, 2, 4, 6]  # 8 batches an epoch are 3 steps
    assert set(tracking.tracker.table["layer"]) == {"1"}


def test_schedules_in_epochs(tmp_path: Path) -> None:
    tracking = callback(every=("epochs", 1))
    fit(tmp_path, tracking, max_epochs=3)
    assert tracking.tracker is not None
    assert tracking.tracker.steps == [0, BATCHES, 2 * BATCHES, 3 * BATCHES]
    assert tracking.tracker.table["epoch"].unique().tolist() == [0, 1, 2, 3]


def test_continued_from_a_checkpoint_with_its_history(tmp_path: Path) -> None:
    whole = callback(history=tmp_path / "whole")
    fit(tmp_path, whole, max_epochs=3)
    first = callback(history=tmp_path / "parts")
    _, trainer = fit(tmp_path, first, max_epochs=1)
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    second = callback(history=tmp_path / "parts")
    fit(tmp_path, second, max_epochs=3, checkpoint=str(tmp_path / "last.ckpt"))
    assert whole.tracker is not None
    assert second.tracker is not None
    assert second.tracker.steps == [0, 5, 8, 10, 15, 20, 24]  # 8: the end of the first training
    ratios = second.tracker.table.loc[second.tracker.table["step"] == 0, "ratio"].dropna()
    assert (ratios == 1).all()
    assert second.tracker.table["ratio"].notna().any()
    again = callback(history=tmp_path / "parts")
    import lightning.pytorch as pl

    from lightning_runs import Classifier

    model = Classifier()
    with torch.no_grad():
        next(model.parameters())[0, 0] += 1
    with pytest.raises(InputError, match="other weights"):
        pl.Trainer(
            max_epochs=1, accelerator="cpu", callbacks=[again], logger=False, enable_checkpointing=False,
            enable_progress_bar=False, enable_model_summary=False,
        ).fit(model, DataLoader(TensorDataset(DATA, LABELS), batch_size=32))  # fmt: skip


def test_only_the_first_process_measures(tmp_path: Path) -> None:
    class Second:
        is_global_zero = False

    from lightning_runs import Classifier

    tracking = callback()
    tracking.on_train_start(Second(), Classifier())
    tracking.on_train_batch_end(Second(), Classifier(), None, None, 0)
    tracking.on_train_epoch_end(Second(), Classifier())
    tracking.on_train_end(Second(), Classifier())
    assert tracking.tracker is None


def test_the_other_package_has_its_own_callback(tmp_path: Path) -> None:
    other = pytest.importorskip("pytorch_lightning")
    from lightning.pytorch import Callback

    from kagscope.integrations.pytorch_lightning import KagscopeCallback as Other

    assert issubclass(Other, other.Callback)
    assert isinstance(callback(), Callback)

    class Net(other.LightningModule):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.net = small_net()

        def training_step(self, batch: Any, index: int) -> torch.Tensor:
            return nn.functional.cross_entropy(self.net(batch[0]), batch[1])

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), 0.1)

    tracking = Other(PROBE, layers=["1"], module="net", k=(2,), every=4)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        other.Trainer(
            max_epochs=1, accelerator="cpu", callbacks=[tracking], logger=False, enable_checkpointing=False,
            enable_progress_bar=False, enable_model_summary=False, default_root_dir=str(tmp_path),
        ).fit(Net(), DataLoader(TensorDataset(DATA, LABELS), batch_size=32))  # fmt: skip
    assert tracking.tracker is not None
    assert tracking.tracker.steps == [0, 4, 8]


@pytest.mark.parametrize("options", [{"every": "daily"}, {"max_overhead": 3}, {"log": 7}])
def test_bad_arguments_are_found_when_the_callback_is_made(options: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        callback(**options)


def test_bad_submodule_and_layer(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="its children are net"):
        fit(tmp_path, callback(module="backbone"))
    with pytest.raises(InputError, match=r"net\.1"):
        fit(tmp_path, callback(layers=["nett.1"]))
