"""Tables printed by the study commands, to standard output."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from kagscope.studies.file import StudyFile
    from kagscope.studies.plan import Estimate
    from kagscope.studies.study import Status

LISTED = 40  # maximum runs listed individually
WIDE = 1000  # columns, wider than any table of runs
STATE_STYLE = {"done": "green", "running": "cyan", "failed": "red", "damaged": "red", "missing": "yellow"}


def print_plan(
    study: StudyFile, runs: Sequence[str], done: Collection[str], cost: Estimate, workers: int, remark: str = ""
) -> None:
    """Print the runs and the estimated cost of those that are missing."""
    console = Console()
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("run", no_wrap=True)
    names = [name for name in study.names() if name != "widths"]
    for name in names:
        table.add_column(name, justify="right", no_wrap=True)
    values = study.values()
    lines = []
    for run, value in list(zip(runs, values, strict=True))[:LISTED]:
        mark, cells = Text(run, style="green" if run in done else ""), [_format(getattr(value, name)) for name in names]
        table.add_row(mark, *cells)
        lines.append(Text.assemble(mark, ": ", ", ".join(f"{name} {cell}" for name, cell in zip(names, cells, strict=True))))
    width = console.measure(table, options=console.options.update(width=WIDE)).maximum
    for content in [table] if width <= console.width else lines:  # a narrow table would cut its cells
        console.print(content, highlight=False)
    if len(runs) > LISTED:
        console.print(f"… and {len(runs) - LISTED:,} more", highlight=False)
    finished = f", {len(done):,} of them finished" if done else ""
    console.print(f"{len(runs):,} runs{finished}", highlight=False)
    console.print(
        f"to do: {cost.runs:,} runs, about {duration(cost.wall_seconds(workers))} with {workers} at a time "
        f"({duration(cost.train_seconds)} of training, {duration(cost.geometry_seconds)} of geometry), "
        f"{size(cost.bytes)} of disk, {size(cost.memory)} of memory per worker; expect to be off by a factor of two",
        highlight=False,
    )
    if remark:
        console.print(remark, highlight=False)


def _format(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def print_status(current: Status) -> None:
    """Print counts, and every run that is neither done nor missing."""
    console = Console()
    counts = current.counts()
    console.print(", ".join(f"{count:,} {state}" for state, count in counts.items() if count) or "no runs", highlight=False)
    special = [(run, state) for run, state in current.states.items() if state not in ("done", "missing")]
    for run, state in special[:LISTED]:
        error = f": {current.errors[run]}" if run in current.errors else ""
        console.print(Text.assemble((state, STATE_STYLE[state]), f"  {run}{error}"), highlight=False)
    if len(special) > LISTED:
        console.print(f"… and {len(special) - LISTED:,} more (--json lists all)", highlight=False)


def duration(seconds: float) -> str:
    """Format a duration for people."""
    for unit, length in (("days", 86_400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.3g} {unit}"
    return f"{seconds:.2g} seconds"


def size(count: float) -> str:
    """Format a number of bytes for people."""
    for unit, length in (("TiB", 2**40), ("GiB", 2**30), ("MiB", 2**20)):
        if count >= length:
            return f"{count / length:.3g} {unit}"
    return f"{count / 2**10:.3g} KiB"
