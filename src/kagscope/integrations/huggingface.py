"""Tracking with the Hugging Face Trainer.

>>> callback = KagscopeTrainerCallback(probe, layers=["encoder.layer.0.intermediate"], layer_map="block", every=50)
>>> trainer = Trainer(model, args, train_dataset=data, callbacks=[callback])
>>> callback.attach(trainer)  # so that values reach every reporter of the trainer
>>> trainer.train()
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from typing import Any, Self

from kagscope.integrations._inputs import move_to_device
from kagscope.tracking.loggers import senders
from kagscope.tracking.overhead import MAX_OVERHEAD, check_max_overhead
from kagscope.tracking.schedule import parse_schedule
from kagscope.tracking.tracker import Tracker

try:
    from transformers import TrainerCallback
except ImportError as error:
    raise ImportError("this callback needs transformers: pip install transformers accelerate") from error

logger = logging.getLogger("kagscope")


class KagscopeTrainerCallback(TrainerCallback):
    """Makes a :class:`~kagscope.tracking.tracker.Tracker` when training starts and calls it after every optimiser step.

    Only the first process measures. After :meth:`attach`, values go through ``trainer.log`` to ``state.log_history``
    and to every reporter in ``args.report_to``. A callback cannot see its Trainer, so without ``attach`` they go to
    ``state.log_history`` and, if ``args.report_to`` names TensorBoard, to separate event files: beside the Trainer's in
    ``TENSORBOARD_LOGGING_DIR`` if set, else in the run ``<output_dir>/runs/kagscope``. Names are those of
    :func:`kagscope.tracking.loggers.metrics`, with the prefix "train/" in TensorBoard.

    Args:
        probe_inputs: batch at which the network is measured, such as a mapping with ``input_ids``; moved to its device.
        layers: names as ``model.named_modules()`` gives them.
        every, max_overhead, history: as for the Tracker.
        log: further loggers.
        **settings: as for the Tracker.

    Attributes:
        tracker: the Tracker, once training has started; None in other processes.
    """

    def __init__(
        self,
        probe_inputs: Any,
        layers: Sequence[str] | None = None,
        *,
        every: Any = 100,
        max_overhead: float | None = MAX_OVERHEAD,
        history: Any = None,
        log: Any = None,
        **settings: Any,
    ) -> None:
        parse_schedule(every)  # errors are raised here, not when training starts
        check_max_overhead(max_overhead)
        senders(log)
        self.tracker: Tracker | None = None
        self._trainer: Any = None
        self._probe, self._log = probe_inputs, log
        self._options = {"layers": layers, "every": every, "max_overhead": max_overhead, "history": history, **settings}

    def attach(self, trainer: Any) -> Self:
        """Log through ``trainer``; adds the callback to it if needed."""
        self._trainer = trainer
        if self not in trainer.callback_handler.callbacks:
            trainer.add_callback(self)
        return self

    def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        """Measure the network before the first step, or continue the history."""
        if not state.is_world_process_zero:
            return
        report = _TrainerLogger(self._trainer) if self._trainer is not None else _DirectLogger(args, state)
        log = [report, *([] if self._log is None else [self._log])]
        self.tracker = Tracker(model, move_to_device(self._probe, model), log=log, first_step=state.global_step, **self._options)
        self.tracker.step(state.global_step, epoch=state.epoch)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Report the progress of training to the tracker; the last step is measured before reporters close."""
        if self.tracker is not None:
            self.tracker.step(state.global_step, epoch=state.epoch)
            if state.global_step >= state.max_steps:
                self.tracker.finish()

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Measure the final network, also if training ended early."""
        if self.tracker is not None:
            self.tracker.finish()


class _TrainerLogger:
    """Logs through the Trainer."""

    def __init__(self, trainer: Any) -> None:
        self.trainer = trainer

    def log(self, values: Mapping[str, float], step: int) -> None:
        should_log = self.trainer.control.should_log  # log() resets it, but the loss is not logged yet
        self.trainer.log(dict(values))
        self.trainer.control.should_log = should_log


class _DirectLogger:
    """Logs to the Trainer's history, and to TensorBoard if the Trainer reports to it."""

    def __init__(self, args: Any, state: Any) -> None:
        self.state = state
        self.writer: Any = None
        others = [name for name in args.report_to if name != "tensorboard"]
        if others:
            logger.warning("values do not reach %s; call callback.attach(trainer) before training", ", ".join(others))
        if "tensorboard" in args.report_to:
            from torch.utils.tensorboard import SummaryWriter

            shared = os.environ.get("TENSORBOARD_LOGGING_DIR")
            self.writer = SummaryWriter(
                os.path.expanduser(shared) if shared else os.path.join(args.output_dir, "runs", "kagscope"),
                filename_suffix=".kagscope",
            )

    def log(self, values: Mapping[str, float], step: int) -> None:
        self.state.log_history.append({**values, "epoch": self.state.epoch, "step": step})
        if self.writer is not None:
            for name, value in values.items():
                self.writer.add_scalar(f"train/{name}", value, step)
            self.writer.flush()


__all__ = ["KagscopeTrainerCallback"]
