"""Onsets: the first step at which a ratio leaves the baseline's interval, and stays out."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from kagscope.base.errors import InputError
from kagscope.tables.means import summarise
from kagscope.tables.onset import find_onsets
from kagscope.tracking.loggers import metrics
from tracked import make_tracker, small_net, train

ONE = {"layer": "1", "k": 2, "selection": "all", "score": "pr"}


def table_of(values: np.ndarray, baseline: np.ndarray, *, error: float = 0.0, baseline_error: float = 0.0) -> pd.DataFrame:
    """Rows for values (steps, points) of one score, measured at steps 0, 10, 20, …."""
    steps, points = values.shape
    before = np.tile(baseline, steps)
    columns: dict[str, Any] = {
        "step": np.repeat(10 * np.arange(steps), points),
        "epoch": np.nan,
        "point": np.tile(np.arange(points), steps),
        "value": values.ravel(),
        "baseline": before,
        "ratio": values.ravel() / before,
        "stderr": error,
        "baseline_stderr": baseline_error,
        "exact": not (error or baseline_error),
    }
    return pd.DataFrame(columns | ONE)


def test_intervals_are_students_over_points() -> None:
    rng = np.random.default_rng(0)
    values, baseline = rng.uniform(1, 2, (2, 9)), rng.uniform(1, 2, 9)
    for row, values_ in zip(summarise(table_of(values, baseline), confidence=0.9).to_dict("records"), values, strict=True):
        ratio = values_ / baseline
        low, high = stats.t.interval(0.9, 8, ratio.mean(), stats.sem(ratio))
        assert (row["ratio_low"], row["ratio"], row["ratio_high"]) == pytest.approx((low, ratio.mean(), high), rel=1e-12)
        low, high = stats.t.interval(0.9, 8, baseline.mean(), stats.sem(baseline))  # in units of the score
        assert (row["baseline_low"], row["baseline_high"]) == pytest.approx((low, high), rel=1e-12)
        assert row["points"] == 9


def test_sampling_errors_widen_both_intervals_and_do_not_shrink_with_points() -> None:
    t = stats.t.ppf(0.975, 99)
    row = summarise(table_of(np.full((1, 100), 3.0), np.full(100, 2.0), error=0.3, baseline_error=0.1)).iloc[0]
    assert row["ratio_high"] - row["ratio"] == pytest.approx(t * 1.5 * math.hypot(0.1, 0.05))
    assert row["baseline_high"] - row["baseline"] == pytest.approx(t * 0.1)
    assert not row["exact"]


def test_spread_and_sampling_error_add_as_squares() -> None:
    baseline = np.array([1.0, 3.0])
    row = summarise(table_of(np.array([[1.0, 9.0]]), baseline, baseline_error=0.5)).iloc[0]  # ratios 1 and 3
    t = stats.t.ppf(0.975, 1)
    common = (1 * 0.5 + 3 * 0.5 / 3) / 2
    assert row["ratio_high"] - row["ratio"] == pytest.approx(t * math.hypot(math.sqrt(2) / math.sqrt(2), common))
    assert row["baseline_high"] - row["baseline"] == pytest.approx(t * math.hypot(1, 0.5))


def test_tokens_of_a_point_count_as_one() -> None:
    rng = np.random.default_rng(1)
    ratio = rng.uniform(1, 2, (6, 5))  # points, tokens
    rows = table_of(ratio.reshape(1, -1), np.ones(30)).assign(point=np.repeat(np.arange(6), 5), token=np.tile(np.arange(5), 6))
    row = summarise(rows).iloc[0]
    low, high = stats.t.interval(0.95, 5, ratio.mean(), stats.sem(ratio.mean(axis=1)))
    assert (row["ratio_low"], row["ratio_high"]) == pytest.approx((low, high))
    assert row["points"] == 6


def test_undefined_points_are_left_out_of_the_means() -> None:
    values, baseline = np.array([[2.0, np.nan, 4.0]]), np.array([1.0, 1.0, 2.0])
    row = summarise(table_of(values, baseline)).iloc[0]
    assert (row["ratio"], row["value"], row["baseline"], row["points"], row["no_ratio"]) == (2.0, 3.0, 4 / 3, 2, 0)
    assert (row["difference"], row["undefined"]) == (1.5, 1)


def test_ratios_that_some_points_do_not_have_are_counted_and_not_logged() -> None:
    table = table_of(np.array([[2.0, 3.0, 4.0]]), np.array([1.0, np.nan, 2.0]))
    row = summarise(table).iloc[0]
    assert (row["ratio"], row["value"], row["baseline"], row["points"], row["no_ratio"]) == (2.0, 3.0, 1.5, 3, 1)
    assert metrics(summarise(table)) == {"kag/1/k2/all/pr": 3.0}


@settings(deadline=None)
@given(side=st.lists(st.sampled_from([-1, 0, 1]), min_size=1, max_size=12))
def test_onset_is_the_first_of_two_steps_outside_on_the_same_side(side: list[int]) -> None:
    baseline = np.array([1.0, 1.1, 0.9, 1.0])
    values = np.array([baseline * (1 + 0.8 * one) for one in side])
    found = find_onsets(summarise(table_of(values, baseline))).iloc[0]
    wanted = next((10 * i for i in range(len(side) - 1) if side[i] != 0 and side[i] == side[i + 1]), None)
    assert found["step"] == wanted
    if wanted is not None:
        assert isinstance(found["step"], int)
        assert found["confirmed"] == wanted + 10
        assert found["reason"] == ""
        assert found["ratio"] == pytest.approx(1 + 0.8 * side[wanted // 10])
        assert found["direction"] == ("rises" if side[wanted // 10] > 0 else "falls")
        before = np.array([found["baseline_low"], found["baseline_high"]]) / found["baseline"]
        assert found["ratio_low"] > before[1] or found["ratio_high"] < before[0]
    else:
        assert ("not yet confirmed" in found["reason"]) == (side[-1] != 0)
        assert found["direction"] == ""


def test_a_ratio_within_what_the_baseline_is_known_to_is_no_onset() -> None:
    """Every ratio is 1.05 exactly, so its own interval is a point; the baseline is known to 10% only."""
    baseline = np.array([1.0, 1.2, 0.8, 1.1, 0.9])
    assert find_onsets(summarise(table_of(np.array([baseline, 1.05 * baseline, 1.05 * baseline]), baseline)))["step"][0] is None
    assert find_onsets(summarise(table_of(np.array([baseline, 1.5 * baseline, 1.5 * baseline]), baseline)))["step"][0] == 10


def test_a_sampled_baseline_counts_with_its_error() -> None:
    baseline = np.ones(50)
    values = np.array([baseline, 1.2 * baseline, 1.2 * baseline])
    assert find_onsets(summarise(table_of(values, baseline, baseline_error=0.02)))["step"][0] == 10
    assert find_onsets(summarise(table_of(values, baseline, baseline_error=0.1)))["step"][0] is None


def test_one_point_has_no_interval_and_so_no_onset() -> None:
    found = find_onsets(summarise(table_of(np.array([[1.0], [5.0], [5.0]]), np.ones(1))))
    assert found["step"][0] is None
    assert "fewer than two points" in found["reason"][0]
    found = find_onsets(summarise(table_of(np.full((3, 4), 1.0), np.zeros(4) * np.nan)))
    assert found["reason"][0] == "no ratio is defined"


def test_noise_alone_seldom_looks_like_an_onset() -> None:
    """200 trackings of 30 steps in which every value is the truth plus noise, fresh at each step: far fewer than 5% alarms."""
    rng = np.random.default_rng(2)
    tables = []
    for tracking in range(200):
        truth = rng.uniform(1, 1.5, 12)
        baseline = truth + rng.normal(0, 0.1, 12)
        values = truth + rng.normal(0, 0.1, (30, 12))
        tables.append(table_of(values, baseline).assign(layer=str(tracking)))
    found = find_onsets(summarise(pd.concat(tables, ignore_index=True)))
    assert len(found) == 200
    assert found["step"].notna().sum() <= 4


def test_untrained_nets_have_no_onset_and_trained_ones_have() -> None:
    model = small_net()
    tracker = make_tracker(model, every=1)
    for step in range(1, 5):
        tracker.step(step)
    onsets = tracker.onset(score=None)
    assert onsets["step"].isna().all()
    trained = make_tracker(model, every=100)
    train(model, 400, trained.step)
    found = trained.onset()
    assert found["step"].notna().any()
    assert list(found["layer"]) == ["1", "3"]


def test_choosing_what_to_look_at() -> None:
    tracker = make_tracker(small_net(), k=(1, 2))
    tracker.step(10)
    assert set(tracker.onset(["pr", "kl_uniform"], layer="3")["layer"]) == {"3"}
    assert set(tracker.onset(k=1)["k"]) == {1}
    assert len(tracker.onset(k=2)) == len(tracker.onset()) == 2
    assert set(tracker.onset()["k"]) == {2}
    assert len(tracker.onset(score=None)) > len(tracker.onset())
    for confidence in (0, 1, 95, -0.1):
        with pytest.raises(InputError, match="confidence"):
            tracker.onset(confidence=confidence)
