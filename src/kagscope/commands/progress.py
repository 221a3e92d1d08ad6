"""Output on the terminal while a study runs and at its end. Everything except results goes to standard error."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console as RichConsole
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Column, Table
from rich.text import Text

from kagscope.commands.terminal import print_findings

if TYPE_CHECKING:
    from kagscope.studies.collect import Outcome

VERDICT_STYLE = {"reproduced": "green", "not reproduced": "red", "inconclusive": "yellow"}
NARROW = 100  # columns of a terminal below which the bar is shorter
LINE_EVERY = 10.0  # seconds between lines without a terminal


class Console:
    """Shows events of :func:`kagscope.studies.study.run_study`: as a live bar or, without a terminal, as occasional lines."""

    def __init__(self, *, quiet: bool) -> None:
        self.quiet = quiet
        self.console = RichConsole(stderr=True)
        self.live = not quiet and self.console.is_terminal
        self.narrow = self.console.width < NARROW
        self.bar = Progress(
            TextColumn("{task.description}", table_column=Column(ratio=1, no_wrap=True, overflow="ellipsis")),
            BarColumn(bar_width=8 if self.narrow else 28),
            MofNCompleteColumn(table_column=Column(no_wrap=True)),
            *([] if self.narrow else [TimeElapsedColumn(table_column=Column(no_wrap=True))]),
            TextColumn("{task.fields[pace]}", table_column=Column(no_wrap=True)),
            console=self.console,
            expand=True,
            disable=not self.live,
        )
        self.runs = self.bar.add_task("starting", total=None, visible=False, pace="")
        self.finished = self.total = self.computed = 0
        self.names: dict[str, tuple[str, ...]] = {}
        self.began = self.last_line = time.monotonic()

    def __enter__(self) -> Console:
        self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.stop()

    def event(self, event: dict[str, Any]) -> None:
        """Show one event."""
        if self.quiet:
            return
        kind = event["kind"]
        if kind == "plan":
            self.finished, self.total, self.names = event["finished"], event["runs"], event["names"]
            finished_before = f", {self.finished} of them finished before" if self.finished else ""
            if event.get("failed_before"):
                finished_before += f", {event['failed_before']} failed before (--retry-failed tries them again)"
                self.finished += event["failed_before"]
            self._say(f"{self.total} runs{finished_before}; {event['workers']} at a time")
            self.bar.update(self.runs, total=self.total, completed=self.finished, visible=self.finished < self.total)
        elif kind == "train":
            self._show(f"training {self._describe_runs(event)}: step {event['done']} of {event['total']}")
        elif kind == "measure":
            self._show(f"measuring {self._name(event['run'])}")
        elif kind == "run":
            self._count_finished()
            self._show(f"finished {self._name(event['run'])}, test accuracy {event['accuracy']:z.3f}")
        elif kind == "failed":
            self._count_finished()
            self._say(f"failed {self._name(event['run'])}: {event['error']}")
        elif kind == "stage":
            self.bar.update(self.runs, pace="")
            self._show(f"writing {event['name']}", stage=True)
        elif kind == "note":
            self._say(event["text"])

    def _name(self, run: str) -> str:
        return ", ".join(self.names.get(run, (run,)))

    def _describe_runs(self, event: dict[str, Any]) -> str:
        """Name of the run, or of the setting of several that train together."""
        seeds = event["seeds"]
        return self._name(event["run"]) if seeds == 1 else f"{self.names.get(event['run'], (event['run'],))[0]}, {seeds} seeds"

    def _count_finished(self) -> None:
        self.finished += 1
        self.computed += 1
        if self.computed == 1:
            self.began = time.monotonic()  # excludes the start of processes
        self.bar.update(self.runs, completed=self.finished, pace=self._pace())

    def _pace(self) -> str:
        """Runs per minute since the first one, and the remaining time at this pace."""
        if self.computed < 3 or self.finished >= self.total:
            return ""
        run_seconds = (time.monotonic() - self.began) / (self.computed - 1)
        remaining = f"{timedelta(seconds=round(run_seconds * (self.total - self.finished)))} left"
        return remaining if self.live and self.narrow else f"{60 / run_seconds:.3g} runs/min, {remaining}"

    def _say(self, text: str) -> None:
        self.console.print(Text(text), highlight=False, soft_wrap=not self.console.is_terminal)

    def _show(self, text: str, stage: bool = False) -> None:
        if self.live:
            self.bar.update(self.runs, description=text, visible=True)
        elif time.monotonic() - self.last_line > LINE_EVERY:
            self.last_line = time.monotonic()
            pace = self._pace()
            self._say(text if stage else f"[{self.finished}/{self.total}{', ' if pace else ''}{pace}] {text}")


CONTROL = {"reproduced": "passes", "not reproduced": "fails", "inconclusive": "open"}
"""Description of the control by its verdict."""


def print_outcome(outcome: Outcome) -> None:
    """Print the table of claims, if the study tests any, and the findings to standard output."""
    from kagscope.report.claims import short_name

    console = RichConsole()
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 0, 0, 0))  # fits 80 columns
    table.add_column("claim", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    controls = any(claim.control for claim in outcome.claims)
    if controls:
        table.add_column("control", no_wrap=True)
    for heading in ("effect", "95% interval", "p", "n"):
        table.add_column(heading, justify="right", no_wrap=True)
    for claim in outcome.claims:
        table.add_row(
            Text(short_name(claim.id)),
            Text(claim.verdict, style=VERDICT_STYLE[claim.verdict]),
            *([CONTROL.get(claim.control or "", "–")] if controls else []),
            _number(claim.effect),
            "–" if claim.ci_low != claim.ci_low else f"{_number(claim.ci_low)}, {_number(claim.ci_high)}",
            _p_value(claim.p_value),
            str(claim.n),
        )
    if outcome.claims:
        console.print(table)
    print_findings(outcome.findings, console)
    train, geometry = outcome.seconds.get("train", 0.0), outcome.seconds.get("geometry", 0.0)
    console.print(
        Text(f"{len(outcome.runs)} runs: {train:.0f} s of training and {geometry:.0f} s of geometry, over all workers"),
        highlight=False,
    )


def _number(value: float) -> str:
    return "–" if value != value else f"{value:.3g}"


def _p_value(value: float) -> str:
    return "–" if value != value else "< 0.0001" if value < 1e-4 else f"{value:.2g}"
