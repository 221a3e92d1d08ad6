"""The page of two studies side by side: effects and tests, then the explorer with the networks of both."""

from __future__ import annotations

import html
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from markupsafe import Markup
from matplotlib.axes import Axes

from kagscope.errors import NothingToPlot
from kagscope.figures.forest import plot_comparison
from kagscope.figures.versus import plot_versus
from kagscope.files import atomic_path
from kagscope.report.numbers import number
from kagscope.report.page import embedded, render_report
from kagscope.schema import ALL_SETTINGS, CURVE_COLUMNS, RESULT_COLUMNS

if TYPE_CHECKING:
    from kagscope.studies.side import Side
    from kagscope.studies.versus import Comparison

LEVEL = 0.05
SHOWN = 600  # rows of a table on the page; all are in the CSV file
VERDICTS = ("reproduced", "not reproduced", "inconclusive")


def write_comparison(comparison: Comparison, page: Path, numbers: Path) -> Path:
    """Write page and table, both or neither. Raises :class:`~kagscope.errors.OutputError`."""
    text = render_comparison(comparison, numbers.name)
    table = comparison.table.to_csv(index=False)
    with atomic_path(page) as first:
        first.write_text(text, encoding="utf-8")
        with atomic_path(numbers) as second:
            second.write_text(table, encoding="utf-8")
    return page


def render_comparison(comparison: Comparison, numbers: str) -> str:
    """The page as text; ``numbers`` is the name of the CSV file beside it."""
    a, b = comparison.sides
    shapes = {tuple(side.runs["image_shape"].iloc[0].split(", ")) for side in comparison.sides}
    shape = [int(part) for part in next(iter(shapes))] if len(shapes) == 1 else None
    claims = comparison.claims
    sections = [
        ("compared", "B beside A", f"<h2>{_name(b)} beside {_name(a)}</h2>{_effects(comparison, numbers)}"),
        ("settings", "Settings", f"<h2>Settings and what differs</h2>{_settings(comparison)}"),
    ]
    if len(claims):
        sections.insert(1, ("verdicts", "Claims", f"<h2>Claims side by side</h2>{_verdicts(claims, a, b)}"))
    return render_report(
        results=_union(comparison.sides, "results", RESULT_COLUMNS),
        curves=_union(comparison.sides, "curves", CURVE_COLUMNS),
        claims=[],
        provenance={
            "title": f"{b.name} beside {a.name}",
            "summary": _summary(comparison),
            "findings": comparison.findings,
            "exhibits": [(place, link, Markup(content)) for place, link, content in sections],
            "without": ["claims", "units"],
            "figures": (),
            "elsewhere": True,
            "configs": {f"{side.name}: {run}": config for side in comparison.sides for run, config in _configs(side).items()},
            "image_shape": shape,
            "versions": {side.name: side.versions for side in comparison.sides},
            "config": {side.name: side.store.study.get("settings", {}) for side in comparison.sides},
            "command": "\n".join(str(side.store.study.get("command", "")) for side in comparison.sides),
        },
    )


def _union(sides: Sequence[Side], part: str, columns: dict[str, str]) -> pd.DataFrame:
    """Tables of both; what a run's training is called tells its study and its setting, see :attr:`Side.labels`."""
    tables = []
    for side in sides:
        table = getattr(side, part).astype(dict.fromkeys(_text(columns), str))
        tables.append(table.assign(training=table["run"].map(side.labels), run=f"{side.name}: " + table["run"]))
    return pd.concat(tables, ignore_index=True).astype(columns)[list(columns)]


def _configs(side: Side) -> dict[str, dict[str, Any]]:
    """The configuration of each run, values that are not set left out."""
    rows = side.runs.drop(columns=["accuracy"]).to_dict("index")
    return {str(run): {str(name): value for name, value in row.items() if value == value} for run, row in rows.items()}


def _text(columns: dict[str, str]) -> list[str]:
    return [name for name, dtype in columns.items() if dtype == "category"]


def _name(side: Side) -> str:
    return html.escape(side.name)


def _summary(comparison: Comparison) -> str:
    a, b = comparison.sides
    settings = comparison.settings
    shared = int(((settings["nets_a"] > 0) & (settings["nets_b"] > 0)).sum())
    return (
        f"{len(b.runs)} networks of {b.name} beside {len(a.runs)} of {a.name}, in {shared} setting{'s' * (shared != 1)} that "
        "both have. Effects are B over A; intervals are 95% intervals over networks (seeds). In the explorer below, the networks "
        "of both are told apart by their training's name."
    )


def _effects(comparison: Comparison, numbers: str) -> str:
    table = comparison.table
    a, b = (side.name for side in comparison.sides)
    over_all, whole = table["setting"] == ALL_SETTINGS, table["selection"] == "all"
    pooled = table[over_all & whole]
    tests = "; ".join(pooled["test"].unique())
    parts = [
        f"<p>A is {html.escape(a)}, B is {html.escape(b)}. Trained networks, scores over all columns, all shared settings "
        "together. A score compared as “trained / initial” is the mean of the points’ ratios to the same net before training; an "
        "effect “×” is a ratio of geometric means over networks, “+” or “−” a difference of means. "
        f"Test: {html.escape(tests)}; p is two-sided, after Holm’s correction for the {len(pooled)} rows. "
        f"All rows, of each setting and selection too, are in <code>{html.escape(numbers)}</code> beside this page.</p>"
    ]
    caption = f"{b} over {a}, each score with its 95% interval over networks; filled: differs from 1 after correction"
    parts.append(_figure(lambda: plot_versus(table, (a, b)), caption))
    caption = "PR (k = 2) setting by setting; filled: pairs of networks that start from the same weights; diamonds: all settings"
    parts.append(_figure(lambda: plot_comparison(table, names=(a, b)), caption))
    parts.append(_rows(pooled, "compared"))
    parts.append(_folded("Setting by setting, over all columns", table[~over_all & whole], True))
    parts.append(_folded("By ball radius, minimum distance and other selections of columns", table[over_all & ~whole], False))
    return "".join(parts)


def _figure(draw: Callable[[], Axes], caption: str) -> str:
    """A figure with its caption; nothing where there is nothing to draw."""
    try:
        axes = draw()
    except NothingToPlot:
        return ""
    figure: Any = axes.figure
    text = html.escape(caption)
    return f'<figure><img alt="{text}" src="data:image/png;base64,{embedded(figure)}"><figcaption>{text}</figcaption></figure>'


def _folded(title: str, rows: pd.DataFrame, settings: bool) -> str:
    if rows.empty:
        return ""
    shown = rows.sort_values("p_holm", kind="stable").head(SHOWN) if len(rows) > SHOWN else rows
    note = f'<p class="small muted">The {SHOWN} rows of smallest p of {len(rows)}.</p>' if len(rows) > SHOWN else ""
    return f"<details><summary>{title} ({len(rows)} rows)</summary>{note}{_rows(shown, title, settings)}</details>"


def _rows(rows: pd.DataFrame, label: str, settings: bool = False) -> str:
    columns: list[tuple[str, Callable[[dict[Any, Any]], str], bool]] = [
        ("layer", lambda r: html.escape(str(r["layer"])) or "net", False),
        ("score", lambda r: html.escape(str(r["score"])), False),
        ("k", lambda r: str(r["k"] or "–"), True),
        ("effect", _effect, True),
        ("95% interval", lambda r: f"{number(r['low'])} to {number(r['high'])}", True),
        ("p (Holm)", _p, True),
        ("n", lambda r: str(r["n_a"]) if r["paired"] else f"{r['n_a']}, {r['n_b']}", True),
        ("A", lambda r: number(r["a"]), True),
        ("B", lambda r: number(r["b"]), True),
        ("compared", lambda r: "trained / initial" if r["measure"] == "ratio" else "value", False),
    ]
    if settings:
        columns.insert(0, ("setting", lambda r: html.escape(str(r["setting"])), False))
    elif (rows["selection"] != "all").any():
        columns.insert(1, ("columns", lambda r: html.escape(str(r["selection"])), False))
    head = "".join(f'<th scope="col"{" class=number" * wide}>{name}</th>' for name, _, wide in columns)
    body = "".join(
        "<tr>" + "".join(f"<td{' class=number' * wide}>{show(row)}</td>" for _, show, wide in columns) + "</tr>"
        for row in rows.to_dict("records")
    )
    return _scrolled(label, head, body)


def _effect(row: dict[Any, Any]) -> str:
    if row["effect"] == "ratio":
        return f"× {number(row['estimate'])}"
    text = number(row["estimate"])
    return text if text.startswith("−") or row["estimate"] == 0 else f"+{text}"


def _p(row: dict[Any, Any]) -> str:
    p = row["p_holm"]
    text = "–" if p != p else "&lt; 0.001" if p < 0.001 else number(p, 2)
    return f"<strong>{text}</strong>" if p < LEVEL else text


def _verdicts(claims: pd.DataFrame, a: Side, b: Side) -> str:
    rows = []
    for claim in claims.to_dict("records"):
        verdicts = "".join(
            f'<div>{_chip(claim[f"verdict_{end}"])} {_name(side)}<div class="small muted">{number(claim[f"effect_{end}"])} '
            f"({number(claim[f'ci_low_{end}'])} to {number(claim[f'ci_high_{end}'])}), "
            f"n&nbsp;=&nbsp;{number(claim[f'n_{end}'], 6)}"
            "</div></div>"
            for side, end in ((a, "a"), (b, "b"))
        )
        other = "" if claim["verdict_a"] == claim["verdict_b"] else " <strong>Another verdict.</strong>"
        rows.append(
            f"<tr><td>{html.escape(str(claim['id']).partition('-')[0])}</td><td>{html.escape(str(claim['statement']))}{other}</td>"
            f"<td>{verdicts}</td></tr>"
        )
    head = "".join(f'<th scope="col">{name}</th>' for name in ("", "claim", "verdict, effect, 95% interval"))
    return f'<table class="claims"><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table>'


def _chip(verdict: Any) -> str:
    text = str(verdict)
    kind = text.replace(" ", "-") if text in VERDICTS else "inconclusive"
    return f'<span class="chip {kind}">{html.escape(text)}</span>'


def _settings(comparison: Comparison) -> str:
    a, b = comparison.sides
    parts = []
    for kind, title, none in (
        ("network", "Values of the networks", "None: both trained with the same values."),
        ("measurement", "Values of the measurement", ""),
        ("version", "Versions", "None."),
    ):
        rows = comparison.differences[comparison.differences["kind"] == kind]
        if len(rows):
            body = [(row["value"], row["a"] or "none", row["b"] or "none") for row in rows.to_dict("records")]
            parts.append(f"<h3>{title} that differ</h3>{_plain_table(('', a.name, b.name), body)}")
        elif none:
            parts.append(f"<h3>{title} that differ</h3><p>{none}</p>")
    settings = [
        (
            row["setting"],
            row["nets_a"] or "–",
            row["nets_b"] or "–",
            _how(row),
        )
        for row in comparison.settings.to_dict("records")
    ]
    parts.append(f"<h3>Settings, and networks of each</h3>{_plain_table(('setting', a.name, b.name, 'compared'), settings)}")
    return "".join(parts)


def _how(setting: dict[Any, Any]) -> str:
    """How the networks of a setting are compared."""
    if setting["paired"]:
        return f"in pairs, {setting['seeds']} seeds"
    return "as two groups" if setting["nets_a"] and setting["nets_b"] else "not: in one only"


def _plain_table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    top = "".join(f'<th scope="col">{html.escape(text)}</th>' for text in head)
    body = "".join("<tr>" + "".join(f"<td>{html.escape(str(cell))}</td>" for cell in row) + "</tr>" for row in rows)
    return _scrolled(head[0] or "differences", top, body)


def _scrolled(label: str, head: str, body: str) -> str:
    """A table that scrolls, by keyboard too."""
    region = f'class="scroll tall" tabindex="0" role="region" aria-label="{html.escape(label)}"'
    return f"<div {region}><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
