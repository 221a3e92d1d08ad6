"""A page in which everything that a user can name is named to do harm."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from figure_tables import make_tables, make_units
from kagscope.report import write_report

HOSTILE = "</script><script>alert(1)</script>{training}-{width}-{seed}<img src=x onerror=alert(2)>\u2028\u202e\"'&amp;"
LAYER = "<svg onload=alert(4)>\u202e]'\"&layer=1"
TRAINING = '</script><svg onload=alert(3)>~,\u2028"'


def make_hostile_page(path: Path) -> Path:
    """Run names, layers, trainings, claims, provenance, configurations: each with markup, quotes, separators and directions."""
    results, curves = make_tables(seeds=1, points=2, last_step=2, widths=(8,), layers=("hidden1", LAYER), run_name=HOSTILE)
    rename = {"augmented": TRAINING}
    results, curves = (one.assign(training=one["training"].cat.rename_categories(rename)) for one in (results, curves))
    claim = dict.fromkeys(("id", "statement", "verdict", "decided_by", "criterion", "note", "control"), HOSTILE) | {
        "parts": [{HOSTILE: HOSTILE, "layer": LAYER, "effect": None}]
    }
    runs = [str(run) for run in results["run"].unique()]
    facts: dict[str, Any] = dict.fromkeys(("title", "command", "data", "hardware"), HOSTILE)
    facts |= {"versions": {HOSTILE: HOSTILE}, "config": {"a": [HOSTILE]}, "findings": [HOSTILE]}
    facts |= {
        "image_shape": [8, 8],
        "figures": [],  # test_figures.py draws these names
        "configs": {run: {HOSTILE: HOSTILE} for run in runs},
        "units": make_units(runs, ("hidden1", LAYER)),
    }
    return write_report(path, results=results, curves=curves, claims=[claim], provenance=facts)
