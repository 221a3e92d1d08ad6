"""What a study will take: everything that is trained and attacked is counted."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest

from kagscope.studies import plan
from kagscope.studies.study import plan_study
from studies import small_study


@pytest.fixture(autouse=True)
def _same_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "_product_rate", lambda: 1e11)


def estimate(**given: Any) -> plan.Estimate:
    study = plan_study(small_study(trainings=("standard",), claims=False, **given))
    return plan.estimate(study.jobs, study.images, study.classes, workers=1)


def test_penalties_count_in_training() -> None:
    penalties = [
        {"weight": 0.1, "score": "loss_gradient_l2"},
        {"weight": 0.1, "score": "alignment"},
        {"weight": 0.1},
        {"weight": 0.1, "layer": "hidden2"},
        {"weight": 0.1, "layer": "hidden2", "points": 16},
    ]
    given: list[dict[str, Any]] = [{}, *({"penalty": one} for one in penalties)]
    seconds = [estimate(widths=(64,), **one).train_seconds for one in given]
    assert all(before < after for before, after in pairwise(seconds))
    assert estimate(penalty={"weight": 0.0}).train_seconds == estimate().train_seconds


def test_attacks_count_with_geometry() -> None:
    none, one, two = (estimate(measure=given) for given in ({}, *({"robustness": {"restarts": n}} for n in (50, 100))))
    assert two.geometry_seconds - none.geometry_seconds == pytest.approx(
        2 * (one.geometry_seconds - none.geometry_seconds), rel=0.1
    )
    assert none.train_seconds == two.train_seconds


@pytest.mark.parametrize(("kind", "nets"), [("trained", 1), ("like_trained", 8)])
def test_networks_that_first_layers_come_from_are_trained_too(kind: str, nets: int) -> None:
    """Of each of the two seeds, which are two tasks."""
    own: dict[str, Any] = {"widths": (8,), "seeds": 2, "depth": 1}
    plain = estimate(**own).train_seconds
    assert estimate(first_layer=kind, **own).train_seconds == pytest.approx(plain * (1 + nets))
