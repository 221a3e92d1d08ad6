"""One record is all that a score needs: it is named, measured, labelled and asked for from there."""

from __future__ import annotations

import importlib
import pkgutil
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import kagscope as kag
import kagscope.scores
from kagscope import registry
from kagscope.base.errors import InputError
from kagscope.measuring.spec import MeasureSpec
from kagscope.minors._input import MOMENTS
from tracked import DATA, LABELS, small_net

INPUTS, CLASSES = DATA[:20], LABELS[:20]

MODULE = '''
import numpy as np

from kagscope.registry import register


@register("my_spread", "my spread", ("moments",), moments=("s1", "s2"), orders=(2,), undefined="undefined: no minor", symbol="sp")
def spread(moments):
    """Minors as if they were equal."""
    return moments.s1**2 / moments.s2


@register("my_entropy", "my entropy", ("moments",), moments=("s1", "entropy"), orders=None)
def entropy(moments):
    """KL of uniform, up to ln N."""
    return moments.kl_uniform - np.log(moments.count)


@register("my_norm", "my norm", ("jacobian",), source="a book")
def norm(J):
    """Frobenius norm."""
    return np.sqrt((J**2).sum(axis=(1, 2)))


@register("my_few", "my costly norm", ("jacobian",), orders=(2,), limit="rotation_points")
def few(J):
    """The same where it is said to cost much, with an error."""
    return norm(J), 0.1 * norm(J)


@register("my_mean", "my mean", ("activations",), undefined="undefined: nothing there")
def mean(activations):
    """Mean output."""
    return float(activations.mean())


@register("my_labels", "my share", ("activations", "labels"), fraction=True)
def share(activations, labels):
    """Mean label."""
    return float(labels.mean())


@register("my_shift", "my shift", ("activations", "initial_activations"))
def shift(activations, initial_activations):
    """How far outputs moved."""
    return float(np.abs(activations - initial_activations).mean())


@register("my_rows", "my rows", ("row_means",), orders=(1, 2, 3))
def rows(means):
    """Largest row mean."""
    return means.max(axis=1)


@register("my_nan", "my nothing", ("jacobian",), undefined="undefined: as it was made")
def nothing(J):
    """Undefined."""
    return np.full(len(J), np.nan)
'''
NAMES = ["my_spread", "my_entropy", "my_norm", "my_few", "my_mean", "my_labels", "my_shift", "my_rows", "my_nan"]


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module above, imported; its scores are forgotten after the test."""
    monkeypatch.setattr(registry, "_SCORES", dict(registry._SCORES))
    (tmp_path / "scores_of_mine.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "scores_of_mine", raising=False)
    yield importlib.import_module("scores_of_mine")
    sys.modules.pop("scores_of_mine", None)


def test_one_file_is_enough(module: Any) -> None:
    assert list(registry.names())[-len(NAMES) :] == NAMES
    assert MeasureSpec(scores=NAMES).scores == tuple(NAMES)
    assert {one.name for one in MeasureSpec().score_records} >= set(NAMES)
    model, before = small_net(), small_net(2)
    report = kag.measure(model, INPUTS, layers="3", k=(1, 2), baseline=before, labels=CLASSES)
    table = report.table[report.table["layer"] == "3"]

    def of(score: str, k: int = 0, column: str = "value") -> np.ndarray:
        values: np.ndarray = table[(table["score"] == score) & (table["k"] == k)][column].to_numpy()
        return values

    assert set(table[table["score"] == "my_spread"]["k"]) == {2}  # the order that it is defined for
    for column in ("value", "baseline", "ratio"):
        np.testing.assert_allclose(of("my_spread", 2, column), of("effective_minors", 2, column), rtol=1e-12)
    J = torch.func.vmap(torch.func.jacrev(model[:4].double()))(INPUTS.double()).detach().numpy()
    np.testing.assert_allclose(of("my_norm"), np.sqrt((J**2).sum(axis=(1, 2))), rtol=1e-9)
    np.testing.assert_allclose(of("my_mean"), model[:4](INPUTS.double()).mean().item(), rtol=1e-9)
    np.testing.assert_allclose(of("my_shift", column="baseline"), 0)
    assert of("my_shift") > 0
    assert of("my_labels") == pytest.approx(float(CLASSES.double().mean()))
    for k in (1, 2):
        np.testing.assert_allclose(of("my_rows", k), kag.row_means(J, k)[: len(of("my_rows", k))].max(axis=1), rtol=1e-9)
    few = table[table["score"] == "my_few"]
    assert len(few) == MeasureSpec().budget.rotation_points
    assert not few["exact"].any()
    np.testing.assert_allclose(few["stderr"], 0.1 * few["value"])
    assert set(table[table["score"] == "my_nan"]["reason"]) == {"undefined: as it was made"}
    summary = report.summary()
    assert set(summary["score"]) >= set(NAMES)
    assert (registry.label("my_norm"), registry.symbol("my_norm"), registry.symbol("my_spread")) == ("my norm", "my norm", "sp")


def test_they_are_asked_for_by_name_at_every_door(module: Any) -> None:
    tracker = kag.Tracker(small_net(), INPUTS, layers="3", every=1, scores=["my_norm"])
    series = kag.measure_series(small_net(), {0: small_net(), 5: small_net(2)}, INPUTS, layers="3", scores=["my_norm"])
    alone = kag.measure(small_net(), INPUTS, layers="3", scores=["my_norm", "pr"], k=2)
    assert set(tracker.table["score"]) == set(series.table["score"]) == {"my_norm"}
    assert set(alone.table["score"]) - {"column_subsets"} == {"my_norm", "pr"}


def test_a_registered_score_of_sampled_moments_has_its_error(module: Any) -> None:
    options: dict[str, Any] = {"layers": "3", "k": 2, "scores": ["my_entropy", "kl_uniform"]}
    torch.manual_seed(0)
    wide, inputs = nn.Sequential(nn.Linear(40, 8), nn.GELU(), nn.Linear(8, 8), nn.GELU()), torch.randn(20, 40)
    exact = kag.measure(wide, inputs, **options).table
    sampled = kag.measure(wide, inputs, exact_minors=100, rel_error=0.1, **options).table
    for table, known in ((exact, True), (sampled, False)):
        mine, kl = (table[table["score"] == name] for name in ("my_entropy", "kl_uniform"))
        assert len(mine) == len(kl) == len(INPUTS)
        np.testing.assert_allclose(np.ptp(mine["value"].to_numpy() - kl["value"].to_numpy()), 0, atol=1e-12)
        assert (mine["exact"] == known).all()
        np.testing.assert_allclose(mine["stderr"], kl["stderr"], rtol=1e-6)  # they differ by a constant
        assert (kl["stderr"] == 0).all() == known


def test_no_score_of_that_name() -> None:
    for ask in (
        lambda: registry.score("kl_unform"),
        lambda: MeasureSpec(scores=["pr", "kl_unform"]),
        lambda: registry.select_scores(["kl_unform"]),
    ):
        with pytest.raises(InputError, match=r"no score 'kl_unform' \(did you mean kl_uniform"):
            ask()
    assert registry.label("kl_unform") == "kl unform"


def test_what_is_no_record_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_SCORES", dict(registry._SCORES))
    with pytest.raises(ValueError, match="takes moment; expected some of moments"):
        registry.register("mine", "mine", ("moment",))
    with pytest.raises(ValueError, match="'pr' is registered twice"):
        registry.register("pr", "another PR", ("moments",))(len)
    record = registry.score("pr")
    registry.register("pr", record.label, record.takes, moments=record.moments)(record.function)  # a module loaded again
    assert "mine" not in registry.names()


def test_every_record_is_complete() -> None:
    for one in registry.all_scores():
        assert re.fullmatch(r"[a-z][a-z0-9_]*", one.name)
        assert one.label
        assert one.source, one.name
        assert set(one.moments) <= {*MOMENTS}
        assert one.is_of("moments") or not one.moments
        assert not one.limit or one.limit in type(MeasureSpec().budget).model_fields
        assert (one.function.__doc__ or "").strip(), one.name
    assert len({one.label for one in registry.all_scores()}) == len(registry.names())
    assert {name.name for name in pkgutil.iter_modules(kagscope.scores.__path__)} >= {"of_jacobians", "of_representations"}
