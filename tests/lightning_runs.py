"""Real Lightning trainings with the callback, apart from their tests: every worker imports all of these, which takes seconds."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from kagscope.integrations.lightning import KagscopeCallback
from tracked import DATA, LABELS, PROBE, small_net

logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)


class Classifier(pl.LightningModule):
    """The small net with dropout and batch norm, as a user would write it."""

    def __init__(self) -> None:
        super().__init__()
        first, activation, *rest = small_net()
        self.net = nn.Sequential(first, activation, nn.BatchNorm1d(8), nn.Dropout(0.2), *rest)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.net(x)
        return out

    def training_step(self, batch: Any, index: int) -> torch.Tensor:
        loss = nn.functional.cross_entropy(self(batch[0]), batch[1])
        self.log("loss", loss)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), 1e-2)


def fit(folder: Path, *callbacks: Any, logger: Any = False, checkpoint: str | None = None, **options: Any) -> tuple[Any, Any]:
    """One seeded training; returns the module and the Trainer."""
    pl.seed_everything(4, verbose=False)
    loader = DataLoader(TensorDataset(DATA, LABELS), batch_size=32, shuffle=True)
    model = Classifier()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer = pl.Trainer(
            **({"max_epochs": 2} | options), accelerator="cpu", callbacks=list(callbacks), logger=logger, log_every_n_steps=1,
            default_root_dir=str(folder), enable_checkpointing=False, enable_model_summary=False, enable_progress_bar=False,
        )  # fmt: skip
        trainer.fit(model, loader, ckpt_path=checkpoint)
    return model, trainer


def callback(**options: Any) -> KagscopeCallback:
    given: dict[str, Any] = {"layers": ["net.1", "net.5"], "k": (2,), "every": 5} | options
    return KagscopeCallback(PROBE, **given)
