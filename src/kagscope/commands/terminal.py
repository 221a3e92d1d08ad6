"""What ``kagscope measure`` shows: a line while it works, then tables and sentences that fit 80 columns."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import pandas as pd
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from kagscope.jacobians.layers import Call

LINE_EVERY = 10.0  # seconds between lines where there is no terminal
UNDEFINED = "–"
HEADINGS = ("layer", "k", "columns", "step", "PR", "/ baseline (95%)", "KL", "rr_pr", "zero rows")
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

    def __call__(self, layer: str) -> None:
        """Show which layer is being measured."""
        self.show(f"measuring {layer}")

    def show(self, text: str) -> None:
        """Show what is being done."""
        if self.status:
            self.status.update(Text(text))
        elif not self.quiet and time.monotonic() - self.last > LINE_EVERY:
            self.last = time.monotonic()
            self.console.print(Text(text), highlight=False)


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
        shape = " x ".join(map(str, call.shape[1:]))
        if call.reason:  # in full when the layer is measured
            shape = "not measurable" if call.shape else "not called" if call.reason.startswith("never") else "no tensor"
        table.add_row(*map(Text, (call.name, call.kind, shape, f"{parameters.get(call.path, 0):,}".replace(",", "\u202f"))))
    Console().print(table)


def print_summary(summary: pd.DataFrame) -> None:
    """The main scores of a report or series; every score is in the files.

    Args:
        summary: of a report, or of a series, which has a column ``step``.
    """
    rows = _wide(summary)
    if not rows:
        return
    columns = [name for name in HEADINGS if any(row[name] not in ("", UNDEFINED) for row in rows)]
    table = _table(*columns)
    before: dict[str, str] = {}
    for row in rows:
        group = {name: row[name] for name in (("layer", "k", "columns") if row["step"] else ("layer",))}
        if row["step"] and before and group != before:
            table.add_section()
        cells = row | (dict.fromkeys(group, "") if group == before else {})
        before = group
        table.add_row(*(Text(cells[name]) for name in columns))
    Console().print(table)


def _wide(summary: pd.DataFrame) -> list[dict[str, str]]:
    """One row of cells for each layer, k, selection and step, from one row for each score."""
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
                "PR": number(pr["value"], pr["stderr"]),
                "/ baseline (95%)": _interval(pr),
                **{label: _of(by_score.get(score)) for score, label in SCORES.items()},
            }
        )
    places = [list(dict.fromkeys(row[name] for row in rows)) for name in ("layer", "k", "columns")]
    return sorted(  # steps of the same map together; sorting keeps the order of steps
        rows,
        key=lambda row: [place.index(row[name]) for place, name in zip(places, ("layer", "k", "columns"), strict=True)],
    )


def _interval(row: Any) -> str:
    """Mean ratio and its 95% interval over points; "" where there is no baseline."""
    if row["ratio"] != row["ratio"]:
        return ""
    if row["ratio_low"] != row["ratio_low"]:
        return f"{row['ratio']:.2f}"
    return f"{row['ratio']:.2f} ({row['ratio_low']:.2f} to {row['ratio_high']:.2f})"


def _of(row: Any) -> str:
    return UNDEFINED if row is None else number(row["value"], row["stderr"])


def number(value: float, stderr: float = 0.0) -> str:
    """Three significant digits; ``~`` before what was sampled."""
    if value != value:
        return UNDEFINED
    digits = f"{value:#.3g}".rstrip(".") if value else "0"
    return f"{'~' if stderr > 0 else ''}{digits}"


LEFT = ("layer", "kind", "columns", "output")
GIVES_WAY = ("layer", "output", "columns")  # on a narrow terminal


def _table(*headings: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 0, 0, 1))
    for heading in headings:
        gives = heading in GIVES_WAY
        justify: Literal["left", "right"] = "left" if heading in LEFT else "right"
        table.add_column(heading, justify=justify, overflow="fold", no_wrap=not gives, min_width=8 if gives else None)
    return table
