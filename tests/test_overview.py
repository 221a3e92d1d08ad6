"""The small table that a report shows, and figures that keep their lines apart."""

from __future__ import annotations

import copy
from functools import cache

import numpy as np
import pytest
import torch
from torch import nn

import kagscope as kag
from kagscope.measuring.overview import number, overview


@cache
def measured(baseline: bool = True, selections: tuple[str, ...] = ("all",)) -> kag.Report:
    torch.manual_seed(0)
    first = nn.Linear(9, 6)
    model = nn.Sequential(first, nn.GELU(), nn.Linear(6, 5), nn.GELU(), nn.Linear(5, 3))
    before = copy.deepcopy(model)
    with torch.no_grad():
        first.weight[0] *= 4.0
    return kag.measure(
        model, torch.randn(4, 9), selections=selections, image_shape=(3, 3), baseline=before if baseline else None, progress=False
    )


def test_one_row_for_each_layer_and_order() -> None:
    report = measured()
    table = overview(report.summary())
    assert list(zip(table["layer"], table["k"], strict=True)) == [("1", "1"), ("1", "2"), ("3", "1"), ("3", "2")]
    summary = report.summary().set_index(["layer", "k", "score"])
    pr = summary.loc[("1", 2, "pr")]
    assert table.loc[1, "PR"] == number(pr["value"])
    assert table.loc[1, "/ baseline (95%)"] == f"{pr['ratio']:.2f} ({pr['ratio_low']:.2f} to {pr['ratio_high']:.2f})"
    assert "columns" not in table


def test_without_a_baseline_there_is_no_ratio() -> None:
    assert "/ baseline (95%)" not in overview(measured(baseline=False).summary())


def test_selections_are_told_apart_until_rows_are_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    report = measured(selections=("all", "ball(1)"))
    assert set(report.overview()["columns"]) == {"all", "ball(1)"}
    assert "ball(1)" in repr(report)
    monkeypatch.setattr("kagscope.measuring.report.MOST_ROWS", 1)
    assert "columns" not in report.overview()
    assert repr(report).count("ball(1)") == 1, "as measured too"
    assert "ball(1)" in repr(measured(selections=("ball(1)", "ball(2)")))


def test_html_escapes_names() -> None:
    report = measured()
    model = copy.copy(report)
    model.provenance = report.provenance | {"model": "<script>"}
    assert "<script>" not in model._repr_html_()
    assert "/ baseline (95%)" in model._repr_html_()


@pytest.mark.parametrize(
    ("value", "error", "said"), [(0.25, 0.0, "0.250"), (0.0, 0.0, "0"), (1.0, 0.1, "~1.00"), (np.nan, 0.0, "–")]
)
def test_numbers(value: float, error: float, said: str) -> None:
    assert number(value, error) == said


def test_figures_show_themselves_and_keep_layers_apart() -> None:
    report = measured(selections=("all", "ball(1)", "ball(2)"))
    ax = report.plot_scales()
    first, second = (container.lines[0].get_xdata() for container in ax.containers)
    assert (np.asarray(first) != np.asarray(second)).all()
    assert ax.figure._repr_png_().startswith(b"\x89PNG")
