"""The findings that open reports: each kind comes where it should, on cases made for it, and not where it should not."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import kagscope as kag
import layer_models as zoo
from kagscope.base.messages import Finding
from kagscope.measuring.caveats import caveats


def by_code(findings: Sequence[Finding]) -> dict[str, Mapping[str, object]]:
    """The numbers of findings by code; the first of a code."""
    return {finding.code: finding.numbers for finding in reversed(findings)}


def found(model: nn.Module, points: int = 12, **options: object) -> dict[str, Mapping[str, object]]:
    options = {"layers": ["1", "3"], "progress": False, **options}
    return by_code(kag.measure(model, zoo.numbers(points, 5), **options).findings)


def test_the_same_network_as_baseline() -> None:
    model = zoo.seeded(zoo.mlp)
    for baseline in (model, copy.deepcopy(model), model.state_dict()):
        same = found(model, baseline=baseline)
        assert "is_its_baseline" in same
        assert not {"concentration", "no_concentration"} & set(same)
    assert "is_its_baseline" not in found(model, baseline="reinit")
    assert "is_its_baseline" not in found(model)


def test_a_model_that_looks_untrained() -> None:
    model = zoo.seeded(zoo.mlp)
    near = copy.deepcopy(model)
    with torch.no_grad():
        near[0].weight += 1e-3 * torch.randn_like(near[0].weight)
    untrained = found(near, baseline=model)
    assert "looks_untrained" in untrained
    assert untrained["no_concentration"]["ratio"] == pytest.approx(1, abs=0.05)
    with torch.no_grad():
        near[0].weight[:, 0] *= 8
    assert "looks_untrained" not in found(near, baseline=model)


def test_what_is_sampled() -> None:
    sampled = found(zoo.seeded(zoo.mlp), points=3, exact_minors=1, k=2)["sampled"]
    assert set(sampled) == {"count", "of", "median_error"}
    assert sampled["median_error"] == pytest.approx(0.05, abs=0.05)


def test_one_random_baseline() -> None:
    model = zoo.seeded(zoo.mlp)
    assert "one_random_baseline" in found(model, baseline="reinit", baseline_seeds=1)
    assert "one_random_baseline" not in found(model, baseline="reinit", baseline_seeds=2)
    report = kag.measure(model, zoo.numbers(3, 5), baseline="reinit", baseline_seeds=1, progress=False)
    assert report.provenance["baseline"] == "one network initialised anew"


def test_a_baseline_of_another_architecture() -> None:
    model, other = zoo.seeded(zoo.mlp), zoo.seeded(lambda: zoo.mlp(6, nn.ReLU))
    kind = type(model[1]).__name__
    report = kag.measure(model, zoo.numbers(12, 5), layers=["1", "3"], baseline=other, progress=False)
    notes = [finding for finding in report.findings if finding.code == "note"]
    assert any(f"(1 is ReLU there and {kind} here)" in note for note in notes)
    assert "note" not in found(model, baseline=zoo.seeded(zoo.mlp))


def test_few_points_and_no_baseline() -> None:
    few = found(zoo.seeded(zoo.mlp), points=3)
    assert few["few_points"] == {"points": 3}
    assert "no_baseline" in few
    assert "few_points" not in found(zoo.seeded(zoo.mlp), points=10)


def test_a_few_points_drive_the_mean() -> None:
    report = kag.measure(zoo.seeded(zoo.mlp), zoo.numbers(12, 5), layers="1", baseline="reinit", progress=False)
    assert "few_points_drive" not in by_code(report.findings)
    pr = (report.table["score"] == "pr") & (report.table["k"] == 2) & (report.table["point"] == 4)
    report.table.loc[pr, "ratio"] = 200.0
    driven = by_code(report.findings)["few_points_drive"]
    assert (driven["layer"], driven["mean"]) == ("1", pytest.approx(17.5, abs=1))


def test_jacobians_of_rank_one() -> None:
    model = zoo.seeded(zoo.mlp)
    with torch.no_grad():
        model[0].weight[:] = torch.outer(torch.arange(1.0, len(model[0].weight) + 1), torch.ones(5))
        model[0].weight += 1e-4 * torch.randn_like(model[0].weight)
    assert found(model)["almost_rank_one"] == {"layer": "1", "effective_rank": pytest.approx(1, abs=5e-4)}
    assert "almost_rank_one" not in found(zoo.seeded(zoo.mlp))


def test_large_errors_and_undefined_shares() -> None:
    report = kag.measure(zoo.seeded(zoo.mlp), zoo.numbers(12, 5), layers="1", baseline="reinit", progress=False)
    table = report.table.copy()
    chosen = (table["score"] == "pr") & (table["k"] == 2)
    table.loc[chosen, ["exact"]] = False
    table.loc[chosen, "stderr"] = 0.2 * table.loc[chosen, "value"]
    ranks = table["score"] == "effective_rank"
    table.loc[ranks & (table["point"] > 2), "value"] = np.nan
    changed = by_code(list(caveats(table, report.summary(), report.provenance)))
    assert changed["large_errors"] == {"largest": pytest.approx(0.2)}
    assert changed["mostly_undefined"] == {"score": "effective_rank", "layer": "1", "share": 0.75}
    usual = by_code(list(caveats(report.table, report.summary(), report.provenance)))
    assert "mostly_undefined" not in usual
    assert usual.get("large_errors") != changed["large_errors"]


def test_a_constant_unit_is_said() -> None:
    dead = zoo.seeded(lambda: zoo.mlp(6, nn.ReLU))
    with torch.no_grad():
        dead[0].bias[:2] = -1e6
    assert found(dead)["constant_units"] == {"layer": "1, 3", "units": 3}


def test_the_page_opens_with_them(tmp_path: Path) -> None:
    report = kag.measure(zoo.seeded(zoo.mlp), zoo.numbers(3, 5), layers="1", progress=False)
    page = report.to_html(tmp_path / "page.html").read_text()
    lead = page[page.index("<header>") : page.index("</header>")]
    for sentence in report.findings:
        assert sentence.replace("'", "&#x27;") in lead
