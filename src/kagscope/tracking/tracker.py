"""Geometry of a network while it trains."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import pandas as pd
import torch
from torch import nn

from kagscope.base.errors import InputError, KagscopeError, OutputError
from kagscope.base.provenance import hardware, versions
from kagscope.jacobians.forward import unwrap
from kagscope.jacobians.layers import Layers
from kagscope.jacobians.surroundings import preserve_global_state
from kagscope.measuring.api import describe_baseline
from kagscope.measuring.compare import compare
from kagscope.measuring.report import Report
from kagscope.measuring.spec import MeasureSpec, spec_from
from kagscope.measuring.state import WHOLE, State
from kagscope.tables.means import CONFIDENCE, summarise
from kagscope.tracking.history import History
from kagscope.tracking.loggers import LOGGED, Send, check_logged, line, metrics, senders
from kagscope.tracking.overhead import ALLOWANCE, MAX_OVERHEAD, Clock, Overhead, check_max_overhead
from kagscope.tracking.parts import Part, join_measurements, merge_sessions
from kagscope.tracking.probe import Probe, warm_up_measuring
from kagscope.tracking.schedule import Schedule, check_epoch, check_step, parse_schedule
from kagscope.tracking.start import FIRST_STEP, begin, check_continues, name_baseline

if TYPE_CHECKING:
    from matplotlib.axes import Axes

logger = logging.getLogger("kagscope")
CHEAPER: dict[str, Any] = {"rotation_points": 0, "exact_minors": 1e8, "tokens": 4}


class Tracker:
    """Measures a network on the same probe inputs as it trains, against what it was at the start.

    The network is measured when the tracker is made (that is the baseline of all ratios), at every step that is due, and by
    :meth:`finish`. It is measured in eval mode and left as it was: mode, gradients, weights, random numbers. A network that
    cannot be measured any more, because it diverged, leaves undefined rows with the reason; training goes on.

    Args:
        model: the network that is being trained.
        probe_inputs: what it is measured on: a batch as for :func:`kagscope.measure`, the same at every step. It is copied.
        layers: names as ``named_modules()`` gives them, patterns, or module classes; None: every activation.
        every: when: steps (100), ``"geometric"`` (1, 2, 4, 8, …), ``("geometric", 1.5)``, ``("epochs", 1)``, or a list of steps.
        max_overhead: largest share of the training time that measuring may take, once it takes more than two seconds in all;
            measurements that are due are then left out as needed (``thinned`` lists them). The first and the last are made
            always. None: no limit.
        history: folder that keeps each measurement as it is made; a tracker on the same folder continues it.
        log: TensorBoard ``SummaryWriter``, an object with ``log(dict, step=)`` or ``log_metrics``, a function of a dict, or a
            list of such.
        log_scores: scores that are logged; None for all.
        baseline, baseline_seeds: what ratios refer to, as for :func:`kagscope.measure`; None: ``model`` as it is now.
        labels: (inputs,) classes, for kernel alignment.
        spec: what to measure, whole, instead of ``layers`` and ``settings``; "quick" is a first look, which these change.
        first_step: optimiser steps that ``model`` has behind it, where a new history or none begins.
        clock: seconds, for the share of time.
        **settings: fields of :class:`kagscope.MeasureSpec`: ``k``, ``selections``, ``image_shape``, ``layer_map``, ``tokens``, ….
            Three defaults are cheaper than those of a single measurement (:data:`CHEAPER`): no rotation ratio of the maximum,
            entropies are sampled, with their standard error, where there are more minors, and of sequences four tokens are taken.

    Raises:
        InputError: a schedule, limit, logger, layer, setting or input that cannot be used, or a history of other settings or of
            another network.
        OutputError: a history folder that cannot be written or holds something else.
        DataError: a history that is damaged in its settings or initial weights.
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
        self._model = model = unwrap(model)  # which shares its parameters
        self._probe = Probe.of(probe_inputs, labels, _spec(spec, layers, settings), model)
        self._log_scores = check_logged(log_scores, self._probe.spec)
        count = self._probe.inputs.count_up_to(self._probe.spec.points)
        self._about = {"model": type(model).__name__, "versions": versions(model.modules()), "points": count}
        first_step = check_step(first_step, "first_step")
        self._unwritten: list[Part] = []
        self._skipped: list[int] = []
        self._warned: set[str] = set()
        self._found: Report | None = None
        warm_up_measuring(self._probe.spec.k)
        self._overhead = Overhead(max_overhead, clock, ALLOWANCE)
        with self._measuring():
            start = begin(model, self._probe, history, baseline, baseline_seeds, first_step, {"schedule": str(self.schedule)})
        self._baseline, self._history, self._damaged = start.baseline, start.history, start.damaged
        from_start = baseline is None  # the network as it was at the first step
        self._about["baseline"] = FIRST_STEP if from_start else describe_baseline(baseline, len(start.baseline))
        self._parts = merge_sessions(start.parts)
        self._session = 1 + max((part.session for part in start.parts), default=0)
        self._since = self._step = start.step
        self._epoch = 0.0 if start.step == 0 else math.nan
        self._to_continue = bool(start.parts)  # until the first call of step() says where training goes on
        for text in self._damaged:
            self._warn(text, f"history {history}: {text}; it is left out")
        if not self._parts:
            self._measure(start.now)
        self._passed = self._moments(self._step, self._epoch)

    # -- while training --------------------------------------------------------------------------------------------------------

    def step(self, step: int | None = None, *, epoch: float | None = None) -> bool:
        """Tell how far training is; measures when that is due. Call it after the optimiser's step.

        Args:
            step: optimiser steps taken so far; one more than at the last call by default. The same step twice is fine.
            epoch: passes over the training data so far, such as ``step / steps_per_epoch``; needed by schedules in epochs.

        Returns:
            Whether it was measured.

        Raises:
            InputError: the step goes back, a schedule in epochs is not told the epoch, or training goes on at the first step of a
                history with another network than that began with.
        """
        if step is None and self._to_continue:
            raise InputError("the history was begun before: say where training goes on, tracker.step(step)")
        step = self._step + 1 if step is None else check_step(step, "step")
        if self._to_continue:
            self._continue_at(step)
        if step < self._step:
            raise InputError(
                f"step={step} after step {self._step}: steps count the optimiser's updates and never go back; "
                "to train again from an older checkpoint make a new Tracker (it may continue the same history)"
            )
        passes = check_epoch(epoch)
        moments = self._moments(step, passes)
        due = moments is not None and self._passed is not None and moments > self._passed
        if moments is None and self.schedule.needs_epoch:
            raise InputError(f"measuring {self.schedule} needs the epoch: call tracker.step(step, epoch=step / steps_per_epoch)")
        self._step, self._epoch, self._passed = step, passes, moments
        if not due or self._is_measured():
            return False
        if not self._overhead.allows_another():
            self._skip()
            return False
        self._measure()
        return True

    def finish(self, step: int | None = None, *, epoch: float | None = None) -> Self:
        """Measure the network as training leaves it, unless that was done, and write what could not be written before.

        Args:
            step: optimiser steps taken; that of the last call by default.
            epoch: passes over the training data.

        Raises:
            InputError: the step goes back.
            OutputError: the history folder cannot be written.
        """
        if step is not None:
            self.step(step, epoch=self._epoch if epoch is None else epoch)
        if not self._to_continue and not self._is_measured():
            self._measure()
        self._write(raising=True)
        return self

    def show(self, bar: Any) -> None:
        """Put :attr:`line` behind a tqdm progress bar."""
        bar.set_postfix_str(self.line, refresh=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if kind is None:
            self.finish()

    # -- reading ---------------------------------------------------------------------------------------------------------------

    @staticmethod
    def load(folder: str | os.PathLike[str]) -> Report:
        """What a history folder holds, without the network: table, onsets, picture. Raises :class:`DataError`."""
        history = History.existing(folder)
        parts, damaged = history.read()
        settings, trajectory = history.settings(), merge_sessions(parts)
        points = {int(point) for part in trajectory for point in part.table["point"].unique()} - {WHOLE}
        about = {"model": "a network in training", "points": len(points), "baseline": name_baseline(settings.get("baseline"))}
        spec = {name: value for name, value in settings.items() if name in MeasureSpec.model_fields}
        return _report(trajectory, damaged, (), spec, about)

    @property
    def report(self) -> Report:
        """What was measured so far."""
        if self._found is None:
            about = {**self._about, "seconds": round(self._overhead.measuring, 3), "hardware": hardware()}
            settings = self._probe.spec.as_json()
            notes = self._baseline[0].notes
            self._found = _report(self._parts, self._damaged, self._skipped, settings, about, notes)
        return self._found

    @property
    def table(self) -> pd.DataFrame:
        """One row per number, as in a :class:`Report <kagscope.measuring.report.Report>`, with ``epoch`` after ``step``."""
        return self.report.table

    @property
    def steps(self) -> list[int]:
        """Steps that were measured."""
        return [part.step for part in self._parts]

    @property
    def thinned(self) -> list[int]:
        """Due steps that were not measured, to stay under ``max_overhead``."""
        return self.report.thinned

    @property
    def overhead(self) -> float:
        """Time spent measuring over the time spent otherwise, since the tracker was made."""
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

    def _moments(self, step: int, epoch: float) -> int | None:
        """Moments of the schedule so far; None where it goes by epochs and the epoch is not known."""
        if self.schedule.needs_epoch and math.isnan(epoch):
            return None
        return self.schedule.count_due(step, epoch)

    def _continue_at(self, step: int) -> None:
        """The first call on a history that was begun before: training goes on at ``step``, wherever earlier sessions came to."""
        if self._history is not None:
            check_continues(self._model, self._history, step)
        self._to_continue = False
        self._since = self._step = step
        self._passed = self._moments(max(step - 1, 0), math.nan)
        self._parts = [part for part in self._parts if part.step <= step]
        self._found = None

    def _is_measured(self) -> bool:
        return any(part.step == self._step for part in self._parts)

    @contextlib.contextmanager
    def _measuring(self, *, goes_on: bool = False) -> Iterator[None]:
        if any(tensor.is_cuda for tensor in self._model.parameters()):
            torch.cuda.synchronize()  # what still runs on the device is training, not measuring
        # Numba's OpenMP kernels set torch's threads, among others
        with preserve_global_state(), self._overhead.measurement(goes_on=goes_on):
            yield

    def _measure(self, state: State | None = None) -> None:
        """Measure the network (or take what was), keep it in the history, log it."""
        with self._measuring(goes_on=state is not None):
            thinned = tuple(step for step in self._skipped if step != self._step)
            rows, layers = self._compare(state)
            part = Part(self._step, self._epoch, rows, self._session, self._since, thinned, layers)
            self._parts = merge_sessions([*self._parts, part])
            self._skipped, self._found = [], None
            if self._history is not None:
                self._unwritten.append(part)
                self._write(raising=False)
            if self._senders:
                values = metrics(summarise(part.rows()), self._log_scores)
                for send in self._senders:
                    self._send(send, values, part.step)

    def _compare(self, state: State | None) -> tuple[pd.DataFrame, tuple[dict[str, Any], ...]]:
        """Rows of the network as it is, and how each layer was measured."""
        try:
            state = state or self._probe.observe(self._model)
            return compare(state, self._baseline), tuple(record.as_json() for record in state.layers)
        except (KagscopeError, MemoryError, torch.OutOfMemoryError) as error:  # must not end the training as well
            why = str(error) or "there is not enough memory"
            self._warn("failed", f"step {self._step} could not be measured: {why}")
            rows = compare(self._baseline[0], self._baseline).assign(value=np.nan, ratio=np.nan, stderr=np.nan, reason=why)
            return rows, tuple(record.as_json() for record in self._baseline[0].layers)

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
        self._found = None
        limit = 100 * (self._overhead.limit or 0)
        self._warn(
            "thinned",
            f"a measurement takes {self._overhead.last:.2g} s: to stay under {limit:g}% of the training time, due ones are left "
            f"out, the first at step {self._step}; tracker.thinned lists them, max_overhead=None measures all",
        )

    def _send(self, send: Send, values: Mapping[str, float], step: int) -> None:
        """Log a measurement; whatever a logger raises, training goes on."""
        try:
            send(values, step)
        except Exception as error:
            self._warn("logger", f"a logger failed at step {step} ({type(error).__name__}: {error}); the numbers are kept here")

    def _warn(self, kind: str, text: str) -> None:
        """Log a warning, once of each kind."""
        if kind not in self._warned:
            self._warned.add(kind)
            logger.warning("%s", text)


def _spec(spec: MeasureSpec | str | None, layers: Layers, settings: Mapping[str, Any]) -> MeasureSpec:
    if spec is None:
        return MeasureSpec(layers=layers, **(CHEAPER | dict(settings)))
    return spec_from(spec, dict(settings) | ({} if layers is None else {"layers": layers}))


def _report(
    parts: Sequence[Part],
    damaged: Sequence[str],
    pending: Sequence[int],
    settings: Mapping[str, Any],
    provenance: Mapping[str, Any],
    notes: Sequence[str] = (),
) -> Report:
    curves = pd.DataFrame(columns=["step", "layer", "k", "selection", "curve", "x", "y", "network"])
    return Report(
        join_measurements(parts),
        curves,
        layers=parts[-1].layers if parts else (),
        settings=settings,
        notes=notes,
        provenance=provenance,
        left_out=dict(text.split(" is ", 1) for text in damaged),
        thinned=sorted({step for part in parts for step in part.thinned} | set(pending)),
    )
