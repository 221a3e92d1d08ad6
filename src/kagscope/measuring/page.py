"""The HTML page of a measured model: the page of a study with a single network."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from kagscope.base.errors import DataError
from kagscope.measuring.overview import SCORES
from kagscope.measuring.printed import network_names, report_figures
from kagscope.report.numbers import number_cell, text_cell
from kagscope.report.page import write_report
from kagscope.tables.schema import CURVE_COLUMNS, RESULT_COLUMNS

if TYPE_CHECKING:
    from kagscope.measuring.report import Report

SHOWN = {"pr": "PR", **SCORES}  # scores of the table of layers, by what print(report) calls them
MEANT = {
    "pr": "the participation ratio",
    "kl_uniform": "the divergence of the minors from uniform",
    "rr_pr": "PR over that of the same matrix with its rows rotated at random",
    "zero_rows": "the share of units (k = 1) or sets of k units that do next to nothing",
}
UNKNOWN = {"epoch": float("nan"), "accuracy": float("nan")}
RUN: dict[str, Any] = {"run": "model", "training": "standard", "labels": "true", "seed": 0, **UNKNOWN}


def write_page(report: Report, path: str | os.PathLike[str], follow: int | None = None) -> Path:
    """Write the page of a measurement, of one network or of several steps of its training.

    Args:
        report: what was measured.
        path: of the HTML file.
        follow: seconds after which the page reloads itself, while training goes on.

    Raises:
        DataError: nothing was measured.
        OutputError: the page cannot be written.
    """
    if report.table.empty:
        raise DataError("nothing was measured yet; make the page after the first measurement")
    width = max((int(layer["rows"]) for layer in report.layers), default=0)
    table = report.table[report.table["score"] != "skipped"]
    table = table.assign(**{**RUN, **({"epoch": table["epoch"]} if "epoch" in table else {})}, width=width)
    if not report.steps:  # the network as step 1, its baseline as step 0
        initial = table.assign(step=0, value=table["baseline"], ratio=table["ratio"] / table["ratio"])
        table = pd.concat([initial[initial["value"].notna()], table.assign(step=1)])
    curves = report.curves.assign(run="model", width=width, training="standard", seed=0)
    if report.steps:
        curves = curves[curves["network"] == "model"]
    else:
        curves["step"] = curves["network"].map({"model": 1, "baseline": 0})
    provenance, shape = report.provenance, report.settings.get("image_shape")
    windows = bool(report.settings.get("window_map")) or any("window(" in str(name) for name in table["selection"].unique())
    empty = {
        "training": not report.steps,
        "minors": curves.empty,
        "where": not windows,
        "scales": bool(report.steps) and (table["selection"] == "all").all(),
    }
    about_layers = _layer_table(report)
    along = " during training" if report.steps else ""
    results = table.astype(RESULT_COLUMNS)[[*RESULT_COLUMNS, *({"token"} & set(table.columns))]]
    return write_report(
        Path(path),
        results=results,
        curves=curves.astype(CURVE_COLUMNS)[list(CURVE_COLUMNS)],
        claims=[],
        provenance={
            "title": f"Kolmogorov–Arnold geometry of {provenance.get('model', 'a model')}{along}",
            "summary": _summary_sentence(report),
            "without": ["claims", "runs", *(name for name, absent in empty.items() if absent)],
            "names": network_names(report),
            "thing": about_layers["head"][0],
            "intervals": "points",
            "follow": follow,
            "exhibits": [("layers", about_layers["title"], "layers.html", about_layers)] if about_layers["rows"] else [],
            "numbers": "every single number is in the report's table: report.save(folder) or report.to_csv(file) keeps it.",
            "findings": report.findings,
            "figures": (),
            "printed": report_figures(report, results),
            "image_shape": list(shape) if shape else None,
            "units": {RUN["run"]: report.units} if not report.units.empty else {},
            "versions": provenance.get("versions"),
            "hardware": provenance.get("hardware"),
            "config": report.settings,
            "timings": {"measuring": provenance.get("seconds", 0.0)},
        },
    )


def _summary_sentence(report: Report) -> str:
    """One sentence on what was measured."""
    provenance, measured = report.provenance, sum(not layer["reason"] for layer in report.layers)
    if provenance.get("matrices"):
        return f"The minors of {measured} {'matrix' if measured == 1 else 'matrices'}, against {provenance['baseline']}."
    jacobians = {
        "input": "their Jacobians with respect to the model's input",
        "block": "their Jacobians, each with respect to the layer's own input",
        "output": "the Jacobians of the model's output with respect to them",
    }
    steps = f" at {len(report.steps)} steps of its training" if report.steps else ""
    points = provenance.get("points", "?")
    against = (
        f"against the baseline ({provenance['baseline']})"
        if provenance.get("baseline") not in (None, "none")
        else "without a baseline"
    )
    return (
        f"{measured} layer{'s' * (measured != 1)} of {provenance.get('model', 'a model')}{steps}: the minors of "
        f"{jacobians[report.settings.get('layer_map', 'input')]}, at {points} data point{'s' * (points != 1)}, {against}."
    )


def _layer_table(report: Report) -> dict[str, Any]:
    """Sortable table of the main scores per layer, order and selection, of model and baseline, and whether they are exact."""
    summary = report._last_summary()
    summary = summary[summary["score"].isin(list(SHOWN)) & ~summary["selection"].str.startswith("window(")]
    scores = [name for name in SHOWN if (summary["score"] == name).any()]
    against = summary["ratio"].notna().any()
    ends = ["ratio", *(("ratio_low", "ratio_high") if summary["ratio_low"].notna().any() else ())]
    beside = ["/ baseline", "from", "to"][: len(ends)]
    heads = [[SHOWN[name], *(beside if against and name == "pr" else [])] for name in scores]
    several = summary["selection"].nunique() > 1
    rows = []
    for (layer, k, selection), group in summary.groupby(["layer", "k", "selection"], observed=True, sort=False):
        by_score = {str(row["score"]): row for row in group.to_dict("records")}
        if "pr" not in by_score:
            continue
        cells = [text_cell(layer), number_cell(k), *([text_cell(selection)] if several else [])]
        for name in scores:
            row = by_score.get(name, {})
            cells.append(number_cell(row.get("value"), sampled=not row.get("exact", True)))
            if against and name == "pr":
                cells += [number_cell(row.get(end)) for end in ends]
        cells.append(text_cell("exact" if all(bool(row["exact"]) for row in by_score.values()) else "~ sampled"))
        rows.append(cells)
    means = "" if report.provenance.get("matrices") else "Means over the points; "
    interval = ", with its 95% interval from and to" if len(ends) > 1 else ""
    ratio = f"/ baseline is PR over the baseline's{interval}; " if against else ""
    words = ", ".join(f"{SHOWN[name]} is {MEANT[name]}" for name in scores)
    note = f"{means}{ratio}~ stands before what was sampled. {words}. A click on a heading sorts; CSV saves what is shown."
    noun, title = ("matrix", "Matrices") if report.provenance.get("matrices") else ("layer", "Layers")
    head = [noun, "k", *(["columns"] if several else []), *(name for names in heads for name in names), "how"]
    return {"title": title, "label": f"the main scores of each {noun}", "note": note, "head": head, "rows": rows}
