"""Scores and selections that users bring along."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import kagscope as kag
from kagscope.base.errors import InputError
from kagscope.columns.layout import Layout
from kagscope.columns.selections import Selection
from kagscope.registry import names as known_names
from kagscope.tables.schema import BOOKKEEPING


def net(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(9, 6), nn.Tanh(), nn.Linear(6, 5), nn.Tanh())


X = torch.linspace(-1, 1, 27).reshape(3, 9)


def test_they_stand_in_the_table_with_baseline_and_ratio() -> None:
    model, before = net(), net(1)
    report = kag.measure(
        model,
        X,
        layers="3",
        k=(1, 2),
        selections=[kag.All(), kag.Ball(1)],
        image_shape=(3, 3),
        baseline=before,
        scores={"effective": lambda m: m.s1**2 / m.s2},
        jacobian_scores={"mean_square": lambda J: (J**2).mean(axis=(1, 2))},
    )
    ours = report.table.query("score == 'effective'").reset_index(drop=True)
    known = report.table.query("score == 'effective_minors'").reset_index(drop=True)
    assert len(ours) == (1 + 2) * 3  # k = 1 stands once, under "all"
    for column in ("value", "baseline", "ratio"):
        np.testing.assert_allclose(ours[column], known[column], rtol=1e-12)
    squares = report.table.query("score == 'mean_square'")
    for x, value, baseline in zip(X, squares["value"], squares["baseline"], strict=True):
        for one, found in ((model, value), (before, baseline)):
            J = torch.func.jacrev(one.double())(x.double())
            assert found == pytest.approx(float((J.detach() ** 2).mean()), rel=1e-10)
    assert (report.settings["own_scores"], report.settings["jacobian_scores"]) == (["effective"], ["mean_square"])


def test_undefined_values_say_why() -> None:
    report = kag.measure(
        net(),
        X,
        layers="3",
        k=3,
        scores={"odd": lambda m: m.s1 * np.nan},
    )
    rows = report.table.query("score == 'odd'")
    assert rows["value"].isna().all()
    assert set(rows["reason"]) == {"undefined: the score gave NaN"}


def test_a_tracker_takes_them_too() -> None:
    tracker = kag.Tracker(net(), X, layers=["3"], every=1, scores={"spread": lambda m: m.top / m.s1})
    tracker.finish()
    assert "spread" in set(tracker.table["score"])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"scores": {"pr": len}}, "is a score of kagscope"),
        ({"scores": {"a b": len}}, "letters"),
        ({"scores": {"mine": 3}}, "expected a function"),
        ({"scores": [len]}, "functions by name"),
        ({"scores": {"mine": len}, "jacobian_scores": {"mine": len}}, "a name of its own"),
        ({"scores": {"mine": lambda m: 1.0}}, "one number for each of the"),
        ({"jacobian_scores": {"mine": lambda J: J}}, "one number for each of the"),
        ({"jacobian_scores": {"mine": lambda J: "high"}}, "one number for each of the"),
    ],
)
def test_what_is_no_score_is_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        kag.measure(net(), X, layers="3", **options)


def test_every_score_of_a_measurement_has_a_name_that_is_known() -> None:
    x = torch.randn(12, 9, generator=torch.Generator().manual_seed(0))
    tables = [
        kag.measure(net(), x, layers="1", baseline=net(1), labels=np.arange(12) % 3, layer_map=layer_map, k=(1, 2, 3)).table
        for layer_map in ("input", "output")
    ]
    names = set().union(*(set(table["score"]) for table in tables))
    assert names <= {*known_names(), *BOOKKEEPING}
    assert len(names) > 20


@dataclass(frozen=True)
class Stripe(Selection):
    """Pairs of columns at most ``step`` indices apart."""

    step: int

    def __str__(self) -> str:
        return f"stripe({self.step})"

    def pairs(self, layout: Layout) -> np.ndarray:
        index = np.arange(layout.columns)
        return np.asarray(np.abs(index[:, None] - index[None, :]) <= self.step)


@pytest.mark.parametrize("k", [1, 2, 3])
def test_a_selection_of_ones_own_counts_what_it_says(k: int) -> None:
    J = np.random.default_rng(0).normal(size=(5, 7))
    allowed = [c for c in combinations(range(7), k) if c[-1] - c[0] <= 2]
    sizes = [abs(np.linalg.det(J[np.ix_(r, c)])) for r in combinations(range(5), k) for c in allowed]
    found = kag.minor_moments(J, k, selection=Stripe(2), method="exact")
    assert found.count == len(sizes)
    assert found.s1 == pytest.approx(sum(sizes))
    assert kag.haar_mean_s1(J, k, selection=Stripe(2)) > 0
    report = kag.measure(net(), X, layers="1", selections=[kag.All(), Stripe(2)], k=k)
    assert ("stripe(2)" in set(report.table["selection"])) == (k > 1)
