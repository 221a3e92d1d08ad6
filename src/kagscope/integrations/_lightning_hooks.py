"""The hooks of the Lightning callback; ``lightning.pytorch`` and ``pytorch_lightning`` call the same ones."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from torch import nn

from kagscope.base.errors import InputError
from kagscope.integrations._inputs import on_device
from kagscope.tracking.loggers import furthest_ratios, senders
from kagscope.tracking.overhead import MAX_OVERHEAD, check_max_overhead
from kagscope.tracking.schedule import parse_schedule
from kagscope.tracking.tracker import Tracker


class TrackerHooks:
    """Makes a :class:`~kagscope.tracking.tracker.Tracker` when training starts and tells it of every batch.

    Values go to the trainer's own loggers, under the names of :func:`kagscope.tracking.loggers.metrics`. Only the first process
    measures. A step is ``trainer.global_step``, so accumulated batches count once.

    Args:
        probe_inputs: what the network is measured on; moved to its device.
        layers: names within ``module``.
        module: name of the submodule to measure within the LightningModule; "" is the module itself, by its ``forward``.
        every, max_overhead, history: as for the Tracker.
        log: further loggers beside the trainer's.
        progress_bar: whether the largest ratios are shown in the trainer's progress bar, as ``kag_pr`` and ``kag_kl``; other
            callbacks find them under these names too.
        **settings: as for the Tracker.

    Attributes:
        tracker: the Tracker, from the start of training on; None in other processes.
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
        parse_schedule(every)  # bad ones are found when the callback is made, not when training starts
        check_max_overhead(max_overhead)
        senders(log)
        self.tracker: Tracker | None = None
        self._probe, self._module, self._log, self._progress_bar = probe_inputs, module, log, progress_bar
        self._options = {"layers": layers, "every": every, "max_overhead": max_overhead, "history": history, **settings}

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Measure the network as it is before the first step, or continue the history."""
        if not trainer.is_global_zero:
            return
        step = int(trainer.global_step)
        network = _submodule(pl_module, self._module)
        log = [*trainer.loggers, *([] if self._log is None else [self._log])]
        self.tracker = Tracker(network, on_device(self._probe, network), log=log, first_step=step, **self._options)
        self.tracker.step(step, epoch=trainer.current_epoch)

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Tell the tracker how far training is."""
        if self.tracker is None:
            return
        batches = float(trainer.num_training_batches)  # infinite where the loader has no length
        fraction = (batch_idx + 1) / batches if math.isfinite(batches) else 0.0
        if self.tracker.step(int(trainer.global_step), epoch=trainer.current_epoch + fraction) and self._progress_bar:
            for name, (_, ratio) in furthest_ratios(self.tracker.summary()).items():
                pl_module.log(f"kag_{name}", ratio, prog_bar=True, logger=False, rank_zero_only=True)

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Tell the tracker that a pass over the data is complete."""
        if self.tracker is not None:
            self.tracker.step(int(trainer.global_step), epoch=trainer.current_epoch + 1)

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Measure the network as training leaves it."""
        if self.tracker is not None:
            self.tracker.finish(int(trainer.global_step))


def _submodule(model: nn.Module, name: str) -> nn.Module:
    try:
        return model.get_submodule(name)
    except AttributeError as error:
        known = ", ".join(child for child, _ in model.named_children())
        raise InputError(f"module={name!r} is not a submodule of {type(model).__name__}; its children are {known}") from error
