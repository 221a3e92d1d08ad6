"""Closing output of ``kagscope measure``: tables and sentences that fit 80 columns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    import pandas as pd

    from kagscope.jacobians.layers import Call


def print_notes(notes: Sequence[str]) -> None:
    """Print notes on choices made, to standard error."""
    console = Console(stderr=True, highlight=False)
    for note in notes:
        console.print(Text(f"note: {note}"))


def print_lines(lines: Sequence[str]) -> None:
    """Print lines to standard output without breaking paths."""
    for line in lines:
        Console(highlight=False).print(Text(line), soft_wrap=True)


def print_findings(findings: Sequence[str], console: Console | None = None) -> None:
    """Print one finding per line; on a terminal wrapped beside its bullet."""
    console = console or Console(highlight=False)
    for sentence in findings:
        if console.is_terminal:
            grid = Table.grid(padding=(0, 1))
            grid.add_row("•", Text(sentence))
            console.print(grid)
        else:
            console.print(Text(f"• {sentence}"), highlight=False, soft_wrap=True)


def print_layers(calls: Sequence[Call], parameters: dict[str, int]) -> None:
    """Print name, kind, output shape (if known) and number of parameters of every layer."""
    known = any(call.shape or call.reason for call in calls)
    table = _table("layer", "kind", *(["output"] if known else []), "parameters")
    for call in calls:
        shape = " x ".join(map(str, call.shape[1:]))
        if call.reason:  # given in full when the layer is measured
            shape = "not measurable" if call.shape else "not called" if call.reason.startswith("never") else "no tensor"
        count = f"{parameters.get(call.path, 0):,}".replace(",", "\u202f")
        table.add_row(*map(Text, (call.name, call.kind, *([shape] if known else []), count)))
    Console().print(table)


def print_summary(summary: pd.DataFrame) -> None:
    """Print the main scores of a report; all scores are in the files."""
    from kagscope.measuring.overview import overview  # imports torch, so only when needed

    cells = overview(summary)
    if cells.empty:
        return
    columns = list(cells.columns)
    steps = "step" in columns
    table = _table(*columns)
    before: dict[str, str] = {}
    for cell in cells.to_dict("records"):
        row = {str(name): str(text) for name, text in cell.items()}
        group: dict[str, str] = {name: row[name] for name in (("layer", "k", "columns") if steps else ("layer",)) if name in row}
        if steps and before and group != before:
            table.add_section()
        shown = row | (dict.fromkeys(group, "") if group == before else {})
        before = group
        table.add_row(*(Text(shown[name]) for name in columns))
    Console().print(table)


LEFT = ("layer", "kind", "columns", "output")
GIVES_WAY = ("layer", "output", "columns")  # columns that shrink on a narrow terminal


def _table(*headings: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 0, 0, 1))
    for heading in headings:
        gives = heading in GIVES_WAY
        justify: Literal["left", "right"] = "left" if heading in LEFT else "right"
        table.add_column(heading, justify=justify, overflow="fold", no_wrap=not gives, min_width=8 if gives else None)
    return table
