"""The page of two studies side by side: effects and tests, then the explorer with the networks of both."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from markupsafe import Markup, escape
from matplotlib.axes import Axes

from kagscope.base.errors import NothingToPlot
from kagscope.base.files import atomic_path
from kagscope.figures.forest import plot_comparison
from kagscope.figures.versus import plot_versus
from kagscope.report.numbers import number
from kagscope.report.page import embedded, render_report
from kagscope.tables.schema import ALL_SETTINGS, CURVE_COLUMNS, RESULT_COLUMNS

if TYPE_CHECKING:
    from kagscope.studies.side import Side
    from kagscope.studies.versus import Comparison

TEMPLATE = "versus.html"
LEVEL = 0.05
SHOWN = 600  # rows of a table on the page; all are in the CSV file
VERDICTS = ("reproduced", "not reproduced", "inconclusive")


def write_comparison(comparison: Comparison, page: Path, numbers: Path) -> Path:
    """Write page and table, both or neither. Raises :class:`~kagscope.base.errors.OutputError`."""
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
    sections: list[tuple[str, str, str, Any]] = [
        ("compared", "B beside A", TEMPLATE, _effects(comparison, numbers)),
        ("verdicts", "Claims", TEMPLATE, _verdicts(comparison.claims, a, b)),
        ("settings", "Settings", TEMPLATE, _settings(comparison)),
    ]
    return render_report(
        results=_union(comparison.sides, "results", RESULT_COLUMNS),
        curves=_union(comparison.sides, "curves", CURVE_COLUMNS),
        claims=[],
        provenance={
            "title": f"{b.name} beside {a.name}",
            "summary": _summary(comparison),
            "findings": comparison.findings,
            "exhibits": [section for section in sections if section[-1]],
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


def _summary(comparison: Comparison) -> str:
    a, b = comparison.sides
    settings = comparison.settings
    shared = int(((settings["nets_a"] > 0) & (settings["nets_b"] > 0)).sum())
    return (
        f"{len(b.runs)} networks of {b.name} beside {len(a.runs)} of {a.name}, in {shared} setting{'s' * (shared != 1)} that "
        "both have. Effects are B over A; intervals are 95% intervals over networks (seeds). In the explorer below, the networks "
        "of both are told apart by their training's name."
    )


Cell = tuple[Any, bool, bool]  # what it says, whether it is a number, whether it is strong


def _effects(comparison: Comparison, numbers: str) -> dict[str, Any]:
    table = comparison.table
    a, b = (side.name for side in comparison.sides)
    over_all, whole = table["setting"] == ALL_SETTINGS, table["selection"] == "all"
    pooled = table[over_all & whole]
    forest = f"{b} over {a}, each score with its 95% interval over networks; filled: differs from 1 after correction"
    pairs = "PR (k = 2) setting by setting; filled: pairs of networks that start from the same weights; diamonds: all settings"
    drawn = [(forest, _image(lambda: plot_versus(table, (a, b)))), (pairs, _image(lambda: plot_comparison(table, names=(a, b))))]
    return {
        "a": a,
        "b": b,
        "tests": "; ".join(pooled["test"].unique()),
        "numbers": numbers,
        "figures": [(caption, image) for caption, image in drawn if image],
        "pooled": _rows(pooled, "compared"),
        "more": [
            _rows(table[~over_all & whole], "Setting by setting, over all columns", settings=True),
            _rows(table[over_all & ~whole], "By ball radius, minimum distance and other selections of columns"),
        ],
    }


def _image(draw: Callable[[], Axes]) -> str:
    """A figure as PNG in base64; nothing where there is nothing to draw."""
    try:
        figure: Any = draw().figure
    except NothingToPlot:
        return ""
    return embedded(figure)


def _rows(rows: pd.DataFrame, label: str, *, settings: bool = False) -> dict[str, Any]:
    """A table of effects; of one that a page would not hold, the rows of smallest p."""
    count = len(rows)
    rows = rows.sort_values("p_holm", kind="stable").head(SHOWN) if count > SHOWN else rows
    columns: list[tuple[str, bool, Callable[[dict[Any, Any]], Any]]] = [
        ("layer", False, lambda r: str(r["layer"]) or "net"),
        ("score", False, lambda r: str(r["score"])),
        ("k", True, lambda r: str(r["k"] or "–")),
        ("effect", True, _effect),
        ("95% interval", True, lambda r: number(r["low"]) + " to " + number(r["high"])),
        ("p (Holm)", True, _p),
        ("n", True, lambda r: str(r["n_a"]) if r["paired"] else f"{r['n_a']}, {r['n_b']}"),
        ("A", True, lambda r: number(r["a"])),
        ("B", True, lambda r: number(r["b"])),
        ("compared", False, lambda r: "trained / initial" if r["measure"] == "ratio" else "value"),
    ]
    if settings:
        columns.insert(0, ("setting", False, lambda r: str(r["setting"])))
    elif (rows["selection"] != "all").any():
        columns.insert(1, ("columns", False, lambda r: str(r["selection"])))
    body = [
        [(show(row), wide, show is _p and row["p_holm"] < LEVEL) for _, wide, show in columns] for row in rows.to_dict("records")
    ]
    return {"label": label, "count": count, "head": [(name, wide) for name, wide, _ in columns], "rows": body}


def _effect(row: dict[Any, Any]) -> Markup:
    text = number(row["estimate"])
    if row["effect"] == "ratio":
        return escape("× ") + text
    return text if text.startswith("−") or row["estimate"] == 0 else escape("+") + text


def _p(row: dict[Any, Any]) -> str:
    p = row["p_holm"]
    return "–" if p != p else "< 0.001" if p < 0.001 else number(p, 2)


def _verdicts(claims: pd.DataFrame, a: Side, b: Side) -> list[dict[str, Any]]:
    return [
        {
            "mark": str(claim["id"]).partition("-")[0],
            "statement": str(claim["statement"]),
            "differ": claim["verdict_a"] != claim["verdict_b"],
            "sides": [
                {"name": side.name, "kind": _kind(str(claim[f"verdict_{end}"]))}
                | {part: claim[f"{part}_{end}"] for part in ("verdict", "effect", "ci_low", "ci_high", "n")}
                for side, end in ((a, "a"), (b, "b"))
            ],
        }
        for claim in claims.to_dict("records")
    ]


def _kind(verdict: str) -> str:
    """The class that colours a verdict."""
    return verdict.replace(" ", "-") if verdict in VERDICTS else "inconclusive"


def _settings(comparison: Comparison) -> dict[str, Any]:
    a, b = comparison.sides
    differences = []
    for kind, title, none in (
        ("network", "Values of the networks", "None: both trained with the same values."),
        ("measurement", "Values of the measurement", ""),
        ("version", "Versions", "None."),
    ):
        rows = comparison.differences[comparison.differences["kind"] == kind].to_dict("records")
        body = [(row["value"], row["a"] or "none", row["b"] or "none") for row in rows]
        differences.append((title, _plain(("", a.name, b.name), body) if rows else None, none))
    settings = [
        (row["setting"], row["nets_a"] or "–", row["nets_b"] or "–", _how(row)) for row in comparison.settings.to_dict("records")
    ]
    return {"differences": differences, "settings": _plain(("setting", a.name, b.name, "compared"), settings)}


def _how(setting: dict[Any, Any]) -> str:
    """How the networks of a setting are compared."""
    if setting["paired"]:
        return f"in pairs, {setting['seeds']} seeds"
    return "as two groups" if setting["nets_a"] and setting["nets_b"] else "not: in one only"


def _plain(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> dict[str, Any]:
    cells: list[list[Cell]] = [[(cell, False, False) for cell in row] for row in rows]
    return {"head": [(name, False) for name in head], "rows": cells}
