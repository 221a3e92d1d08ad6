"""Units that the output does not feel are counted and said, with a baseline and without."""

from __future__ import annotations

import copy

import torch
from torch import nn

import kagscope as kag


def net(dead: tuple[int, ...]) -> tuple[nn.Module, nn.Module]:
    """A network whose last layer has no weight on some hidden units; the same before those were cut."""
    torch.manual_seed(0)
    last = nn.Linear(6, 3)
    model = nn.Sequential(nn.Linear(5, 6), nn.Tanh(), last)
    before = copy.deepcopy(model)
    with torch.no_grad():
        last.weight[:, list(dead)] = 0.0
    return model, before


def test_without_a_baseline() -> None:
    model, _ = net((1, 4))
    report = kag.measure(model, torch.randn(4, 5), layer_map="output", progress=False)
    found = report.table.query("score == 'unfelt_units_exact'")
    assert found["value"].tolist() == [2.0]
    assert any("2 of 6 units of layer 1" in one for one in report.findings if one.code.startswith("unfelt_units"))


def test_beside_a_baseline() -> None:
    model, before = net((2,))
    report = kag.measure(model, torch.randn(4, 5), layer_map="output", baseline=before, progress=False)
    (row,) = report.table.query("score == 'unfelt_units_exact'").to_dict("records")
    assert (row["value"], row["baseline"]) == (1.0, 0.0)


def test_the_output_map_alone() -> None:
    model, _ = net((1,))
    report = kag.measure(model, torch.randn(4, 5), layer_map="input", progress=False)
    assert not (report.table["score"] == "unfelt_units_exact").any()
