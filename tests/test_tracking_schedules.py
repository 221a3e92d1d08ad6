"""When measurements are due, and what they may cost."""

from __future__ import annotations

import itertools
import logging
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import kagscope as kag
from kagscope.base.errors import InputError
from kagscope.tracking.overhead import Overhead, check_max_overhead
from kagscope.tracking.probe import Probe
from kagscope.tracking.schedule import AtSteps, EveryEpochs, EverySteps, Geometric, parse_schedule
from tracked import PROBE, HandClock, make_tracker, small_net


def due_steps(every: Any, calls: list[int], steps_per_epoch: int = 10) -> list[int]:
    """Steps, among those at which a tracker is called, at which a measurement is due."""
    schedule = parse_schedule(every)
    passed = [schedule.count_due(step, step / steps_per_epoch) for step in [0, *calls]]
    return [step for step, (before, now) in zip(calls, itertools.pairwise(passed), strict=True) if now > before]


@given(n=st.integers(1, 60), last=st.integers(1, 300))
def test_every_n_steps_are_the_multiples(n: int, last: int) -> None:
    assert due_steps(n, list(range(1, last + 1))) == list(range(n, last + 1, n))


@given(factor=st.floats(1.01, 5), last=st.integers(1, 2000))
def test_geometric_steps_are_the_powers_rounded_up(factor: float, last: int) -> None:
    powers = [factor**i for i in range(int(math.log(last) / math.log(factor)) + 2)]
    wanted = sorted({math.ceil(power - 1e-6) for power in powers if math.ceil(power - 1e-6) <= last})
    assert due_steps(("geometric", factor), list(range(1, last + 1))) == wanted


def test_geometric_by_default_doubles() -> None:
    assert due_steps("geometric", list(range(1, 5000))) == [2**i for i in range(13)]


@given(steps_per_epoch=st.integers(1, 97), n=st.sampled_from([1, 2, 3, 0.5, 0.25, 0.1]))
def test_epochs_end_where_they_end(steps_per_epoch: int, n: float) -> None:
    calls = list(range(1, 6 * steps_per_epoch + 1))
    wanted = sorted({math.ceil(i * n * steps_per_epoch - 1e-6) for i in range(1, 61) if i * n <= 6})
    assert due_steps(("epochs", n), calls, steps_per_epoch) == wanted


@given(
    steps=st.lists(st.integers(0, 100), min_size=1, max_size=10),
    calls=st.lists(st.integers(1, 100), min_size=1, max_size=50, unique=True).map(sorted),
)
def test_a_listed_step_between_two_calls_is_made_up_for_once(steps: list[int], calls: list[int]) -> None:
    after = {min((call for call in calls if call >= step), default=None) for step in steps if step > 0}
    assert due_steps(steps, calls) == sorted(step for step in after if step is not None)


@pytest.mark.parametrize(
    "every", [0, -5, True, 2.5, "daily", "", ("epochs", 0), ("epochs", -1), ("epochs", "1"), ("epochs", math.nan),
              ("geometric", 1), ("geometric", math.inf), [], [3, -1], [1.5], {"steps": 3}, None, np.array([])]
)  # fmt: skip
def test_what_is_no_schedule_is_refused_with_the_forms_there_are(every: Any) -> None:
    with pytest.raises(InputError, match="geometric"):
        make_tracker(small_net(), every=every)


@pytest.mark.parametrize(
    ("every", "schedule", "words"),
    [
        (100, EverySteps(100), "every 100 steps"),
        (np.int64(1), EverySteps(1), "every step"),
        (("epochs", 1), EveryEpochs(1.0), "every epoch"),
        (["epochs", 0.5], EveryEpochs(0.5), "every 0.5 epochs"),
        ("geometric", Geometric(2.0), "geometric, factor 2"),
        ([500, 0, 10, 10], AtSteps((0, 10, 500)), "at steps 0, 10, 500"),
        (EverySteps(3), EverySteps(3), "every 3 steps"),
    ],
)
def test_forms(every: Any, schedule: Any, words: str) -> None:
    assert parse_schedule(every) == schedule
    assert str(parse_schedule(every)) == words


def test_a_schedule_in_epochs_asks_for_the_epoch() -> None:
    tracker = make_tracker(small_net(), every=("epochs", 1))
    with pytest.raises(InputError, match="epoch="):
        tracker.step(10)
    assert not tracker.step(10, epoch=0.5)
    assert tracker.step(20, epoch=1.0)
    assert tracker.table["epoch"].unique().tolist() == [0.0, 1.0]


# -- cost ------------------------------------------------------------------------------------------------------------------------


@settings(deadline=None)
@given(
    limit=st.floats(0.01, 1),
    pace=st.lists(st.floats(0.001, 2), min_size=5, max_size=120),
    cost=st.floats(0.01, 5),
    every=st.integers(1, 5),
)
def test_measuring_stays_under_its_share_of_the_time(limit: float, pace: list[float], cost: float, every: int) -> None:
    """The share is kept from the second measurement on, with the last one, always made, budgeted for."""
    clock = HandClock()
    overhead = Overhead(limit, clock)
    with overhead.measurement():
        clock.advance(cost)
    made = 0
    for step, seconds in enumerate(pace, 1):
        clock.advance(seconds)
        if step % every == 0 and overhead.allows_another():
            with overhead.measurement():
                clock.advance(cost)
            made += 1
            assert overhead.measuring + cost <= limit * overhead.training * (1 + 1e-9)
    assert overhead.training == pytest.approx(sum(pace))
    if made == 0:
        assert 3 * cost > limit * (sum(pace) - sum(pace[-every:])) * (1 - 1e-9)
    with overhead.measurement():
        clock.advance(cost)
    if made:
        assert overhead.share <= limit * (1 + 1e-9)


@pytest.mark.usefixtures("allowance")
def test_tracker_thins_itself_and_says_so_once(caplog: pytest.LogCaptureFixture) -> None:
    clock = HandClock()
    tracker = make_tracker(
        small_net(), every=1, max_overhead=0.05, clock=clock, log=lambda values: clock.advance(1.0)
    )  # logging is part of what a measurement costs
    with caplog.at_level(logging.WARNING, "kagscope"):
        for step in range(1, 201):
            clock.advance(1.0)
            tracker.step(step)
    tracker.finish()
    # 1 s each: the n-th needs 20 s of training for each of the n before it, for itself and for the last one
    assert tracker.steps == [0, 60, 80, 100, 120, 140, 160, 180, 200]
    assert tracker.overhead <= 0.05
    assert tracker.thinned == [step for step in range(1, 200) if step not in tracker.steps]
    assert tracker.report.thinned == tracker.thinned
    assert "192 due measurements left out" in repr(tracker)
    assert "4.5% of the training time" in repr(tracker)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "under 5% of the training time" in caplog.text


@pytest.mark.usefixtures("allowance")
def test_the_first_and_last_are_measured_whatever_they_cost() -> None:
    clock = HandClock()
    tracker = make_tracker(small_net(), every=1, max_overhead=0.01, clock=clock, log=lambda values: clock.advance(50.0))
    for step in range(1, 6):
        clock.advance(1.0)
        assert not tracker.step(step)
    assert tracker.finish().steps == [0, 5]
    assert tracker.thinned == [1, 2, 3, 4]


@pytest.mark.usefixtures("allowance")
@pytest.mark.parametrize(("cost", "steps"), [(50.0, [0, 3]), (0.4, [0, 1, 2, 3])])
def test_a_tenth_of_the_training_time_is_the_default_beyond_two_seconds(cost: float, steps: list[int]) -> None:
    clock = HandClock()
    tracker = kag.Tracker(small_net(), PROBE, ["1"], k=1, every=1, clock=clock, log=lambda values: clock.advance(cost))
    for step in range(1, 4):
        clock.advance(100.0)
        tracker.step(step)
    tracker.finish()
    assert tracker.steps == steps


def test_what_is_loaded_once_counts_as_neither_training_nor_measuring(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = HandClock()
    monkeypatch.setattr("kagscope.tracking.tracker.warm_up_measuring", lambda k: clock.advance(20.0))
    tracker = make_tracker(small_net(), clock=clock)
    clock.advance(1.0)
    assert (tracker._overhead.measuring, tracker._overhead.training) == (0.0, 1.0)


def test_without_a_limit_the_schedule_is_kept() -> None:
    clock = HandClock()
    tracker = make_tracker(small_net(), every=1, max_overhead=None, clock=clock, log=lambda values: clock.advance(50.0))
    for step in range(1, 4):
        tracker.step(step)
    assert tracker.steps == [0, 1, 2, 3]
    assert tracker.thinned == []


@pytest.mark.parametrize("limit", [0, -0.1, 1.5, math.nan, "5%", True])
def test_a_limit_out_of_range_is_refused(limit: Any) -> None:
    with pytest.raises(InputError, match="max_overhead"):
        check_max_overhead(limit)
    with pytest.raises(InputError, match="max_overhead"):
        make_tracker(small_net(), max_overhead=limit)


@pytest.mark.usefixtures("allowance")
def test_the_first_measurement_says_what_one_costs(monkeypatch: pytest.MonkeyPatch) -> None:
    """It was taken for the time of comparing it with itself, so that the next ones seemed to cost nothing."""
    clock, observe = HandClock(), Probe.observe

    def slowly(*given: Any, **options: Any) -> Any:
        clock.advance(5.0)
        return observe(*given, **options)

    monkeypatch.setattr(Probe, "observe", slowly)
    tracker = make_tracker(small_net(), every=1, clock=clock, max_overhead=0.1)
    clock.advance(60.0)
    assert not tracker.step(1)  # 5 seconds of measuring and twice 5 more are above 10% of 60
    clock.advance(100.0)
    assert tracker.step(2)
