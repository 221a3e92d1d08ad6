"""Hooks of the Lightning callback, shared by ``lightning.pytorch`` and ``pytorch_lightning``."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from torch import nn

from kagscope.base.errors import InputError
from kagscope.integrations._inputs import move_to_device
from kagscope.tracking.loggers import furthest_ratios, senders
from kagscope.tracking.overhead import MAX_OVERHEAD, check_max_overhead
from kagscope.tracking.schedule import parse_schedule
from kagscope.tracking.tracker import Tracker


class TrackerHooks:
    """Makes a :class:`~kagscope.tracking.tracker.Tracker` when training starts and calls it after every batch.

    Values go to the trainer's own loggers, under the names of :func:`kagscope.tracking.loggers.metrics`. Only the first process
    measures. A step is ``trainer.global_step``, so accumulated batches count once.

    Args:
        probe_inputs: batch at which the network is measured; moved to its device.
        layers: names within ``module``.
        module: name of the submodule of the LightningModule to measure; "" is the module itself, by its ``forward``.
        every, max_overhead, history: as for the Tracker.
        log: loggers in addition to the trainer's.
        progress_bar: show the ratios furthest from 1 in the trainer's progress bar, as ``kag_pr`` and ``kag_kl``; other
            callbacks find them under the same names.
        **settings: as for the Tracker.

    Attributes:
        tracker: the Tracker, once training has started; None in other processes.
    """

    def __init__(
        self,
        probe_inputs: Any,
        layers: Sequence[str] | None = None,
        *,
        module: str = "",
        every: Any = 100,
        max_overhead: float | None = MAX_OVERHEAD,
        history: Any = None,
        log: Any = None,
        progress_bar: bool = True,
        **settings: Any,
    ) -> None:
        super().__init__()
        parse_schedule(every)  # errors are raised here, not when training starts
        check_max_overhead(max_overhead)
        senders(log)
        self.tracker: Tracker | None = None
        self._probe, self._module, self._log, self._progress_bar = probe_inputs, module, log, progress_bar
        self._options = {"layers": layers, "every": every, "max_overhead": max_overhead, "history": history, **settings}

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Measure the network before the first step, or continue the history."""
        if not trainer.is_global_zero:
            return
        step = int(trainer.global_step)
        network = _submodule(pl_module, self._module)
        log = [*trainer.loggers, *([] if self._log is None else [self._log])]
        self.tracker = Tracker(network, move_to_device(self._probe, network), log=log, first_step=step, **self._options)
        self.tracker.step(step, epoch=trainer.current_epoch)

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Report the progress of training to the tracker."""
        if self.tracker is None:
            return
        batches = float(trainer.num_training_batches)  # infinite if the loader has no length
        fraction = (batch_idx + 1) / batches if math.isfinite(batches) else 0.0
        if self.tracker.step(int(trainer.global_step), epoch=trainer.current_epoch + fraction) and self._progress_bar:
            for name, (_, ratio) in furthest_ratios(self.tracker.summary()).items():
                pl_module.log(f"kag_{name}", ratio, prog_bar=True, logger=False, rank_zero_only=True)

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Report the end of an epoch to the tracker."""
        if self.tracker is not None:
            self.tracker.step(int(trainer.global_step), epoch=trainer.current_epoch + 1)

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Measure the final network."""
        if self.tracker is not None:
            self.tracker.finish(int(trainer.global_step))


def _submodule(model: nn.Module, name: str) -> nn.Module:
    try:
        return model.get_submodule(name)
    except AttributeError as error:
        known = ", ".join(child for child, _ in model.named_children())
        raise InputError(f"module={name!r} is not a submodule of {type(model).__name__}; its children are {known}") from error
