"""What ``kagscope measure`` shows: a line while it works, then tables and sentences that fit 80 columns."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from kagscope.jacobians.layers import Call

LINE_EVERY = 10.0  # seconds between lines where there is no terminal
UNDEFINED = "–"
SCORES = {"kl_uniform": "KL", "rr_pr": "rr_pr", "zero_rows": "zero rows"}


class Working:
    """One line on standard error that says what is being measured; without a terminal a line now and then."""

    def __init__(self, *, quiet: bool) -> None:
        self.console = Console(stderr=True)
        self.quiet = quiet
        self.status = self.console.status("measuring") if self.console.is_terminal and not quiet else None
        self.last = time.monotonic()

    def __enter__(self) -> Working:
        if self.status:
            self.status.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.status:
            self.status.stop()

    def __call__(self, text: str) -> None:
        """Show ``text``, such as the name of a layer."""
        if self.status:
            self.status.update(Text(f"measuring {text}"))
        elif not self.quiet and time.monotonic() - self.last > LINE_EVERY:
            self.last = time.monotonic()
            self.console.print(Text(f"measuring {text}"), highlight=False)


def print_notes(notes: Sequence[str]) -> None:
    """Choices that were made on the way, to standard error."""
    console = Console(stderr=True, highlight=False)
    for note in notes:
        console.print(Text(f"note: {note}"))


def print_lines(lines: Sequence[str]) -> None:
    """Sentences, to standard output."""
    console = Console(highlight=False)
    for line in lines:
        console.print(Text(line))


def print_layers(calls: Sequence[Call], parameters: dict[str, int]) -> None:
    """Name, kind, shape of the output and number of parameters of every layer."""
    table = _table("layer", "kind", "output", "parameters")
    for call in calls:
        shape = " x ".join(map(str, call.shape[1:])) if not call.reason else call.reason
        table.add_row(*map(Text, (call.name, call.kind, shape, f"{parameters.get(call.path, 0):,}".replace(",", "\u202f"))))
    Console().print(table)


def print_summary(summary: pd.DataFrame) -> None:
    """The main scores of a report or series; every score is in the files.

    Args:
        summary: of a report, or of a series, which has a column ``step``.
    """
    for rows in _wide(summary):
        with_baseline = any(row["ratio"] for row in rows)
        columns = [name for name in ("layer", "step", "k", "columns", "points") if any(row.get(name) for row in rows)]
        shown = [*columns, "PR", *(["/ baseline", "95%"] if with_baseline else [])]
        shown += [name for name in SCORES.values() if any(row[name] != UNDEFINED for row in rows)]
        table = _table(*shown)
        before = None
        for row in rows:
            if before is not None and before != row["layer"] and "step" in columns:
                table.add_section()
            again = before == row["layer"]
            before = row["layer"]
            cells = {**row, "layer": "" if again else row["layer"], "/ baseline": row["ratio"] or UNDEFINED}
            table.add_row(*(Text(str(cells[name])) for name in shown))
        Console().print(table)


def _wide(summary: pd.DataFrame) -> list[list[dict[str, Any]]]:
    """One row for each layer, step, k and selection, from one row for each score."""
    minors = summary[(summary["k"] > 0) & summary["score"].isin(["pr", *SCORES])]
    many = minors["selection"].astype(str).nunique() > 1
    keys = ["layer", *(["step"] if "step" in minors.columns else []), "k", "selection"]
    rows = []
    for key, group in minors.groupby(keys, observed=True, sort=False):
        named = dict(zip(keys, key if isinstance(key, tuple) else (key,), strict=True))
        by_score = {str(row["score"]): row for row in group.to_dict("records")}
        if "pr" not in by_score:
            continue
        pr = by_score["pr"]
        rows.append(
            {
                "layer": str(named["layer"]),
                "step": str(named["step"]) if "step" in named else "",
                "k": str(named["k"]),
                "columns": str(named["selection"]) if many else "",
                "points": str(pr["points"]),
                "PR": number(pr["value"], pr["stderr"]),
                "ratio": "" if pd.isna(pr["ratio"]) else f"{pr['ratio']:.3g}",
                "95%": UNDEFINED if pd.isna(pr["ratio_low"]) else f"{pr['ratio_low']:.3g} to {pr['ratio_high']:.3g}",
                **{label: _of(by_score.get(score)) for score, label in SCORES.items()},
            }
        )
    return [rows] if rows else []


def _of(row: dict[str, Any] | None) -> str:
    return UNDEFINED if row is None else number(row["value"], row["stderr"])


def number(value: float, stderr: float = 0.0) -> str:
    """Three significant digits; ``~`` before what was sampled."""
    if pd.isna(value):
        return UNDEFINED
    return f"{'~' if stderr > 0 else ''}{value:.3g}"


LEFT = ("layer", "kind", "columns", "output")


def _table(*headings: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in headings:
        left = heading in LEFT
        table.add_column(heading, justify="left" if left else "right", overflow="fold", no_wrap=not left)
    return table
