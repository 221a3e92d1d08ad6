"""The sentences that open reports: each kind comes where it should, on cases made for it, and not where it should not."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import torch
from torch import nn

import kagscope as kag
import layer_models as zoo
from kagscope.measuring.caveats import caveats


def said(model: nn.Module, points: int = 12, **options: object) -> str:
    options = {"layers": ["1", "3"], "progress": False, **options}
    return "\n".join(kag.measure(model, zoo.numbers(points, 5), **options).findings)


def test_the_same_network_as_baseline() -> None:
    model = zoo.seeded(zoo.mlp)
    for baseline in (model, copy.deepcopy(model), model.state_dict()):
        text = said(model, baseline=baseline)
        assert "The model and its baseline give the very same numbers" in text
        assert "In no layer" not in text
    assert "very same numbers" not in said(model, baseline="reinit")
    assert "very same numbers" not in said(model)


def test_a_model_that_looks_untrained() -> None:
    model = zoo.seeded(zoo.mlp)
    near = copy.deepcopy(model)
    with torch.no_grad():
        near[0].weight += 1e-3 * torch.randn_like(near[0].weight)
    text = said(near, baseline=model)
    assert "The model looks untrained: its mean PR, KL, ranks and axis alignment are within 10%" in text
    assert "In no layer do the 2 x 2 minors concentrate over 5% more" in text
    with torch.no_grad():
        near[0].weight[:, 0] *= 8
    assert "looks untrained" not in said(near, baseline=model)


def test_one_random_baseline() -> None:
    model = zoo.seeded(zoo.mlp)
    assert "The baseline is one random network" in said(model, baseline="reinit", baseline_seeds=1)
    assert "one random network" not in said(model, baseline="reinit", baseline_seeds=2)
    report = kag.measure(model, zoo.numbers(3, 5), baseline="reinit", baseline_seeds=1, progress=False)
    assert report.provenance["baseline"] == "one network initialised anew"


def test_a_baseline_of_another_architecture() -> None:
    model, other = zoo.seeded(zoo.mlp), zoo.seeded(lambda: zoo.mlp(6, nn.ReLU))
    kind = type(model[1]).__name__
    text = said(model, baseline=other)
    assert f"The baseline is of another architecture (1 is ReLU there and {kind} here): ratios compare architectures" in text
    assert "another architecture" not in said(model, baseline=zoo.seeded(zoo.mlp))


def test_few_points_and_no_baseline() -> None:
    text = said(zoo.seeded(zoo.mlp), points=3)
    assert "Only 3 data points: intervals over points say little; measure at least 10." in text
    assert "There is no baseline: nothing here tells trained geometry from that of a random net." in text
    assert "data points:" not in said(zoo.seeded(zoo.mlp), points=10)


def test_a_few_points_drive_the_mean() -> None:
    report = kag.measure(zoo.seeded(zoo.mlp), zoo.numbers(12, 5), layers="1", baseline="reinit", progress=False)
    assert "drive the mean" not in "\n".join(report.findings)
    pr = (report.table["score"] == "pr") & (report.table["k"] == 2) & (report.table["point"] == 4)
    report.table.loc[pr, "ratio"] = 200.0
    assert "A few points drive the mean PR ratio of layer 1: it is 17." in "\n".join(report.findings)


def test_jacobians_of_rank_one() -> None:
    model = zoo.seeded(zoo.mlp)
    with torch.no_grad():
        model[0].weight[:] = torch.outer(torch.arange(1.0, len(model[0].weight) + 1), torch.ones(5))
        model[0].weight += 1e-4 * torch.randn_like(model[0].weight)
    assert "The Jacobians of layer 1 are almost of rank one (mean effective rank 1.000)" in said(model)
    assert "rank one" not in said(zoo.seeded(zoo.mlp))


def test_large_errors_and_undefined_shares() -> None:
    report = kag.measure(zoo.seeded(zoo.mlp), zoo.numbers(12, 5), layers="1", baseline="reinit", progress=False)
    table = report.table.copy()
    chosen = (table["score"] == "pr") & (table["k"] == 2)
    table.loc[chosen, ["exact"]] = False
    table.loc[chosen, "stderr"] = 0.2 * table.loc[chosen, "value"]
    ranks = table["score"] == "effective_rank"
    table.loc[ranks & (table["point"] > 2), "value"] = np.nan
    text = "\n".join(caveats(table, report.summary(), report.provenance))
    assert "pr (k = 2): 20%" in text
    assert "effective_rank of layer 1 is undefined at 75% of its points" in text
    usual = "\n".join(caveats(report.table, report.summary(), report.provenance))
    assert "pr (k = 2)" not in usual
    assert "is undefined at" not in usual


def test_a_constant_unit_is_said_with_its_tolerance() -> None:
    dead = zoo.seeded(lambda: zoo.mlp(6, nn.ReLU))
    with torch.no_grad():
        dead[0].bias[:2] = -1e6
    assert "are constant around every point: their slopes there are below the rounding of float32" in said(dead)


def test_the_page_opens_with_them(tmp_path: Path) -> None:
    report = kag.measure(zoo.seeded(zoo.mlp), zoo.numbers(3, 5), layers="1", progress=False)
    page = report.to_html(tmp_path / "page.html").read_text()
    lead = page[page.index("<header>") : page.index("</header>")]
    for sentence in report.findings:
        assert sentence.replace("'", "&#x27;") in lead
