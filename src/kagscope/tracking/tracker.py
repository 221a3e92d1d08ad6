"""The tracker: measures a network while it trains."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import pandas as pd
import torch
from torch import nn

from kagscope.base.errors import InputError, KagscopeError, OutputError
from kagscope.base.provenance import hardware
from kagscope.jacobians.forward import unwrap
from kagscope.jacobians.layers import Layers
from kagscope.jacobians.patches import run_as_written
from kagscope.jacobians.surroundings import preserve_global_state
from kagscope.measuring.api import describe_baseline, model_facts
from kagscope.measuring.compare import compare
from kagscope.measuring.report import Report
from kagscope.measuring.spec import MeasureSpec, spec_from
from kagscope.measuring.state import State
from kagscope.tables.means import CONFIDENCE, summarise
from kagscope.tracking.loggers import LOGGED, Send, check_logged, line, metrics, senders
from kagscope.tracking.overhead import ALLOWANCE, MAX_OVERHEAD, Clock, Overhead, check_max_overhead
from kagscope.tracking.parts import Part, merge_sessions
from kagscope.tracking.probe import Probe, warm_up_measuring
from kagscope.tracking.reports import load_report, report_of
from kagscope.tracking.schedule import Schedule, check_epoch, check_step, parse_schedule
from kagscope.tracking.start import FIRST_STEP, begin_tracking, check_continues

if TYPE_CHECKING:
    from matplotlib.axes import Axes

logger = logging.getLogger("kagscope")
CHEAPER: dict[str, Any] = {"rotation_points": 0, "exact_minors": 1e8, "tokens": 4}


class Tracker:
    """Measures a network on the same probe inputs while it trains, against its state at the start.

    The network is measured when the tracker is made (the baseline of all ratios), at every step that is due, and by
    :meth:`finish`. It is measured in eval mode and left unchanged: mode, gradients, weights, random state. A network that
    can no longer be measured, because it diverged, gives undefined rows with the reason; training goes on.

    Args:
        model: the network being trained.
        probe_inputs: batch at which it is measured at every step, as for :func:`kagscope.measure`; it is copied.
        layers: names as ``named_modules()`` gives them, patterns, or module classes; None: every activation.
        every: schedule: 100 (steps), ``"geometric"`` (1, 2, 4, 8, …), ``("geometric", 1.5)``, ``("epochs", 1)`` or a list.
        max_overhead: largest share of the training time that measuring may take once it exceeds two seconds in total;
            due measurements are then skipped as needed (``thinned`` lists them). The first and the last are always made.
            None: no limit.
        history: folder to which each measurement is written at once; a tracker on the same folder continues it.
        log: TensorBoard ``SummaryWriter``, an object with ``log(dict, step=)`` or ``log_metrics``, a function of a dict, or a
            list of these.
        log_scores: scores to log; None for all.
        baseline, baseline_seeds: what ratios refer to, as for :func:`kagscope.measure`; None: ``model`` as it is now.
        labels: (N,) classes of the inputs, for kernel alignment.
        spec: full spec instead of ``layers`` and ``settings``; "quick" is a cheap preset, which these modify.
        first_step: optimiser steps that ``model`` has taken already, if it continues no history.
        clock: clock in seconds, for ``max_overhead``.
        **settings: fields of :class:`kagscope.MeasureSpec`: ``k``, ``selections``, ``image_shape``, ``layer_map``, ``tokens``, ….
            Three defaults are cheaper than for a single measurement (:data:`CHEAPER`): no rotation ratio of the maximum,
            entropies of more minors are sampled, with a standard error, and sequences are measured at four tokens.

    Raises:
        InputError: an unusable schedule, limit, logger, layer, setting or input, or a history of other settings or of
            another network.
        OutputError: the history folder cannot be written or holds something else.
        DataError: the history's settings or initial weights are damaged.
    """

    def __init__(
        self,
        model: nn.Module,
        probe_inputs: Any,
        layers: Layers = None,
        *,
        every: int | str | tuple[str, float] | Sequence[int] | Schedule = 100,
        max_overhead: float | None = MAX_OVERHEAD,
        history: str | os.PathLike[str] | None = None,
        log: Any = None,
        log_scores: Sequence[str] | None = LOGGED,
        baseline: Any = None,
        baseline_seeds: int | Sequence[int] = 3,
        labels: Any = None,
        spec: MeasureSpec | str | None = None,
        first_step: int = 0,
        clock: Clock = time.monotonic,
        **settings: Any,
    ) -> None:
        if not isinstance(model, nn.Module):
            raise InputError(f"model is {type(model).__name__}, expected the torch.nn.Module that is being trained")
        self.schedule = parse_schedule(every)
        self._senders = senders(log)
        check_max_overhead(max_overhead)
        self._model = model = unwrap(model)  # shares its parameters
        self._probe = Probe.of(probe_inputs, labels, _spec(spec, layers, settings), model)
        self._log_scores = check_logged(log_scores, self._probe.spec)
        self._provenance = model_facts(model, self._probe.inputs, self._probe.spec)
        first_step = check_step(first_step, "first_step")
        self._unwritten: list[Part] = []
        self._skipped: list[int] = []
        self._warned: set[str] = set()
        self._cached_report: Report | None = None
        warm_up_measuring(self._probe.spec.k)
        self._overhead = Overhead(max_overhead, clock, ALLOWANCE)
        with self._measurement():
            facts = {"schedule": str(self.schedule)}
            start = begin_tracking(model, self._probe, history, baseline, baseline_seeds, first_step, facts)
        self._baseline, self._history, self._damaged = start.baseline, start.history, start.damaged
        from_start = baseline is None  # the network as it was at the first step
        self._provenance["baseline"] = FIRST_STEP if from_start else describe_baseline(baseline, len(start.baseline))
        self._parts = merge_sessions(start.parts)
        self._session = 1 + max((part.session for part in start.parts), default=0)
        self._since = self._step = start.step
        self._epoch = 0.0 if start.step == 0 else math.nan
        self._resuming = bool(start.parts)  # until the first call of step() says where training goes on
        for text in self._damaged:
            self._warn(text, f"history {history}: {text}; it is left out")
        if not self._parts:
            self._measure(start.now)
        self._due_count = self._count_due(self._step, self._epoch)

    # -- while training --------------------------------------------------------------------------------------------------------

    @run_as_written
    def step(self, step: int | None = None, *, epoch: float | None = None) -> bool:
        """Report the progress of training and measure if due. Call it after the optimiser's step.

        Args:
            step: optimiser steps taken so far; by default one more than at the last call. A step may be repeated.
            epoch: passes over the training data so far, such as ``step / steps_per_epoch``; required by schedules in epochs.

        Returns:
            Whether the network was measured.

        Raises:
            InputError: the step decreases, a schedule in epochs gets no epoch, or training resumes at the first step of a
                history with a different network.
        """
        if step is None and self._resuming:
            raise InputError("the history was begun before: say where training goes on, tracker.step(step)")
        step = self._step + 1 if step is None else check_step(step, "step")
        if self._resuming:
            self._continue_at(step)
        if step < self._step:
            raise InputError(
                f"step={step} after step {self._step}: steps count the optimiser's updates and never go back; "
                "to train again from an older checkpoint make a new Tracker (it may continue the same history)"
            )
        passed_epochs = check_epoch(epoch)
        due_count = self._count_due(step, passed_epochs)
        due = due_count is not None and self._due_count is not None and due_count > self._due_count
        if due_count is None and self.schedule.needs_epoch:
            raise InputError(f"measuring {self.schedule} needs the epoch: call tracker.step(step, epoch=step / steps_per_epoch)")
        self._step, self._epoch, self._due_count = step, passed_epochs, due_count
        if not due or self._is_measured():
            return False
        if not self._overhead.allows_another():
            self._skip()
            return False
        self._measure()
        return True

    @run_as_written
    def finish(self, step: int | None = None, *, epoch: float | None = None) -> Self:
        """Measure the final network, unless done already, and write any measurements not yet written.

        Args:
            step: optimiser steps taken; by default as at the last call.
            epoch: passes over the training data.

        Raises:
            InputError: the step decreases.
            OutputError: the history folder cannot be written.
        """
        if step is not None:
            self.step(step, epoch=self._epoch if epoch is None else epoch)
        if not self._resuming and not self._is_measured():
            self._measure()
        self._write(raising=True)
        return self

    def show(self, bar: Any) -> None:
        """Show :attr:`line` after a tqdm progress bar."""
        bar.set_postfix_str(self.line, refresh=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if kind is None:
            self.finish()

    # -- reading ---------------------------------------------------------------------------------------------------------------

    @staticmethod
    def load(folder: str | os.PathLike[str]) -> Report:
        """Load the report of a history folder, without the network. Raises :class:`DataError`."""
        return load_report(folder)

    @property
    def report(self) -> Report:
        """Report of the measurements so far."""
        if self._cached_report is None:
            provenance = {**self._provenance, "seconds": round(self._overhead.measuring, 3), "hardware": hardware()}
            settings = self._probe.spec.as_json()
            notes = self._baseline[0].notes
            self._cached_report = report_of(self._parts, self._damaged, self._skipped, settings, provenance, notes)
        return self._cached_report

    @property
    def table(self) -> pd.DataFrame:
        """One row per number, as in a :class:`Report <kagscope.measuring.report.Report>`, with ``epoch`` after ``step``."""
        return self.report.table

    @property
    def steps(self) -> list[int]:
        """Measured steps."""
        return [part.step for part in self._parts]

    @property
    def thinned(self) -> list[int]:
        """Due steps skipped to stay under ``max_overhead``."""
        return self.report.thinned

    @property
    def overhead(self) -> float:
        """Ratio of measuring time to all other time since the tracker was made."""
        return self._overhead.share

    @property
    def line(self) -> str:
        """The last measurement in a few words, for a progress bar."""
        return line(self.report.summary())

    def summary(self, confidence: float = CONFIDENCE) -> pd.DataFrame:
        """Means over points with intervals, by step; see :meth:`Report.summary`."""
        return self.report.summary(confidence)

    def onset(
        self, score: str | Sequence[str] | None = "pr", layer: str | Sequence[str] | None = None, **options: Any
    ) -> pd.DataFrame:
        """First step at which a ratio leaves the baseline's interval; see :meth:`Report.onset`."""
        return self.report.onset(score, layer, **options)

    def plot(self, score: str = "pr", **options: Any) -> Axes:
        """Ratio by step, a line per layer, onsets marked; see :meth:`Report.plot`."""
        return self.report.plot(score, **options)

    def __repr__(self) -> str:
        steps = self.steps
        text = f"Tracker({self.schedule}; measured {len(steps)} times, steps {steps[0]} to {steps[-1]}"
        if self.overhead <= 1:
            text += f", {100 * self.overhead:.1f}% of the training time"
        else:
            text += f", in {self._overhead.measuring:.2g} s"
        if self.thinned:
            text += f"; {len(self.thinned)} due measurements left out to limit the overhead"
        if self._damaged:
            text += f"; left out: {', '.join(self._damaged)}"
        return f"{text}; {self.line})"

    # -- inside ----------------------------------------------------------------------------------------------------------------

    def _count_due(self, step: int, epoch: float) -> int | None:
        """Measurements due so far by the schedule; None if it counts epochs and the epoch is unknown."""
        if self.schedule.needs_epoch and math.isnan(epoch):
            return None
        return self.schedule.count_due(step, epoch)

    def _continue_at(self, step: int) -> None:
        """Resume an existing history at ``step``, however far earlier sessions came."""
        if self._history is not None:
            check_continues(self._model, self._history, step)
        self._resuming = False
        self._since = self._step = step
        self._due_count = self._count_due(max(step - 1, 0), math.nan)
        self._parts = [part for part in self._parts if part.step <= step]
        self._cached_report = None

    def _is_measured(self) -> bool:
        return any(part.step == self._step for part in self._parts)

    @contextlib.contextmanager
    def _measurement(self, *, goes_on: bool = False) -> Iterator[None]:
        if any(tensor.is_cuda for tensor in self._model.parameters()):
            torch.cuda.synchronize()  # work still queued on the device is training, not measuring
        # Numba's OpenMP kernels set torch's number of threads, among others
        with preserve_global_state(), self._overhead.measurement(goes_on=goes_on):
            yield

    def _measure(self, state: State | None = None) -> None:
        """Measure the network (or take ``state``), add it to the history, and log it."""
        with self._measurement(goes_on=state is not None):
            thinned = tuple(step for step in self._skipped if step != self._step)
            rows, layers = self._compare(state)
            part = Part(self._step, self._epoch, rows, self._session, self._since, thinned, layers)
            self._parts = merge_sessions([*self._parts, part])
            self._skipped, self._cached_report = [], None
            if self._history is not None:
                self._unwritten.append(part)
                self._write(raising=False)
            if self._senders:
                values = metrics(summarise(part.rows()), self._log_scores)
                for send in self._senders:
                    self._send(send, values, part.step)

    def _compare(self, state: State | None) -> tuple[pd.DataFrame, tuple[dict[str, Any], ...]]:
        """Table of the current network, and how each layer was measured."""
        try:
            state = state or self._probe.observe(self._model)
            return compare(state, self._baseline), tuple(asdict(record) for record in state.layers)
        except (KagscopeError, MemoryError, torch.OutOfMemoryError) as error:  # must not end the training as well
            reason = str(error) or "there is not enough memory"
            self._warn("failed", f"step {self._step} could not be measured: {reason}")
            rows = compare(self._baseline[0], self._baseline).assign(value=np.nan, ratio=np.nan, stderr=np.nan, reason=reason)
            return rows, tuple(asdict(record) for record in self._baseline[0].layers)

    def _write(self, *, raising: bool) -> None:
        while self._history is not None and self._unwritten:
            try:
                self._history.write(self._unwritten[0])
            except OutputError as error:
                if raising:
                    raise
                self._warn("unwritten", f"{error}; measurements are kept in memory and written as soon as that is possible")
                return
            self._unwritten.pop(0)

    def _skip(self) -> None:
        self._skipped.append(self._step)
        self._cached_report = None
        limit = 100 * (self._overhead.limit or 0)
        self._warn(
            "thinned",
            f"a measurement takes {self._overhead.last:.2g} s: to stay under {limit:g}% of the training time, due ones are left "
            f"out, the first at step {self._step}; tracker.thinned lists them, max_overhead=None measures all",
        )

    def _send(self, send: Send, values: Mapping[str, float], step: int) -> None:
        """Log a measurement; an error in a logger does not stop training."""
        try:
            send(values, step)
        except Exception as error:
            self._warn("logger", f"a logger failed at step {step} ({type(error).__name__}: {error}); the numbers are kept here")

    def _warn(self, kind: str, text: str) -> None:
        """Log a warning once per kind."""
        if kind not in self._warned:
            self._warned.add(kind)
            logger.warning("%s", text)


def _spec(spec: MeasureSpec | str | None, layers: Layers, settings: Mapping[str, Any]) -> MeasureSpec:
    if spec is None:
        return MeasureSpec(layers=layers, **(CHEAPER | dict(settings)))
    return spec_from(spec, dict(settings) | ({} if layers is None else {"layers": layers}))
