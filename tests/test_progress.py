"""What is told before and while something is measured, and the first look that takes seconds."""

from __future__ import annotations

from math import comb
from typing import Any

import pytest
import torch
from torch import nn
from typer.testing import CliRunner

import kagscope as kag
from kagscope.base import progress
from kagscope.base.errors import InputError
from kagscope.cli import app
from kagscope.measuring import cost
from kagscope.measuring.spec import QUICK, MeasureSpec, spec_from
from kagscope.minors.row_draws import RowDraws
from kagscope.minors.threads import threads
from kagscope.studies import reproduce
from tracked import PROBE, small_net

X = torch.rand(12, 16, generator=torch.Generator().manual_seed(0))


def test_parts_of_parts_are_shares_of_the_whole() -> None:
    seen: list[tuple[str, float | None]] = []
    tell = progress.partial_progress(lambda text, share=None: seen.append((text, share)), 1, 4)
    tell("half", 0.5)
    progress.partial_progress(tell, 1, 2)("half of the second half", 0.5)
    tell("a line")
    assert seen == [("half", 0.375), ("half of the second half", 0.4375), ("a line", None)]


def test_a_function_is_told_each_layer_once() -> None:
    seen: list[str] = []
    kag.measure(small_net(), X, layers=["1", "3"], k=1, baseline=small_net(2), progress=seen.append)
    assert seen == ["1", "3", "1 of the baseline", "3 of the baseline"]


def test_shares_grow_from_nothing_to_one(monkeypatch: pytest.MonkeyPatch) -> None:
    shares: list[float | None] = []
    monkeypatch.setattr(progress, "_skip_repeats", lambda say: lambda text, share=None: shares.append(share))
    by_step = {0: small_net(0), 5: small_net(1)}
    kag.measure_series(small_net(), by_step, X, layers=["1", "3"], k=1, baseline=small_net(2), progress=print)
    known = [share for share in shares if share is not None]
    assert known == sorted(known)
    assert known[0] == 0.0
    assert known[-1] == pytest.approx(1.0)


def test_without_a_terminal_there_is_a_line_now_and_then(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "LINE_EVERY", -1.0)
    kag.measure(small_net(), X, layers=["1"], k=1)
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.splitlines()[0].split() == ["[0%]", "measuring", "1"]
    monkeypatch.undo()
    kag.measure(small_net(), X, layers=["1"], k=1)
    kag.measure(small_net(), X, layers=["1"], k=1, progress=False)
    assert capsys.readouterr().err == ""


def test_what_takes_more_than_a_minute_is_foretold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cost, "WORTH_SAYING", 0.0)
    seen: list[str] = []
    kag.measure(small_net(), X, layers=["1"], k=1, baseline=small_net(2), progress=seen.append)
    assert seen[0] == "24 Jacobians of 8 x 16, about 1 s"  # a quick look would take as long
    assert seen[1] == "1"


def test_estimates_follow_the_counts() -> None:
    spec = MeasureSpec(exact_minors=1e12, rotation_points=0)
    each = cost.layer_seconds(64, 784, 1, spec) - cost.layer_seconds(64, 784, 0, spec)
    assert each == pytest.approx(comb(64, 2) * comb(784, 2) / cost.MINORS_PER_SECOND)
    few = MeasureSpec(scores=["pr"])
    assert cost.layer_seconds(64, 784, 10, few) < cost.layer_seconds(64, 784, 10, spec)
    assert cost.layer_seconds(64, 784, 10, few, moved=1e9) - cost.layer_seconds(64, 784, 10, few) == pytest.approx(5.0)
    told = cost.forecast([(512, 784, 12, 0.0)], MeasureSpec(exact_minors=1e14, points=12), spec_from("quick", {}), 1)
    seconds = 12 * comb(512, 2) * comb(784, 2) / cost.MINORS_PER_SECOND / threads()
    assert told.startswith(f"12 Jacobians of 512 x 784, about {seconds / 60:.0f} min; quick: ")


def test_estimates_count_the_minors_of_groups_of_drawn_rows() -> None:
    """Of 1536 rows 512 in 64 groups, not all pairs of 512; rotations, which drawn rows do not tell, cost nothing."""
    spec = MeasureSpec(max_rows=512, exact=True)
    groups, rows = RowDraws.of(1536, 512, 2, spec.seed).groups.shape
    each = cost.layer_seconds(1536, 100, 1, spec) - cost.layer_seconds(1536, 100, 0, spec)
    assert each == pytest.approx(groups * comb(rows, 2) * comb(100, 2) / cost.MINORS_PER_SECOND)
    small = cost.layer_seconds(400, 100, 1, spec.with_(rotation_points=0))
    assert small == cost.layer_seconds(400, 100, 1, MeasureSpec(exact=True, rotation_points=0))


def test_a_quick_look_takes_few_points_and_few_scales() -> None:
    report = kag.measure(small_net(), X, spec="quick", layers=["1"], image_shape=(4, 4))
    assert set(report.table["selection"]) == {"all", "ball(1)", "ball(2)"}
    assert report.table["point"].nunique() - (-1 in set(report.table["point"])) == QUICK["points"] == 5
    assert spec_from("quick", {"points": 3, "selections": ["all"], "image_shape": (4, 4)}).points == 3
    assert len(spec_from("quick", {"selections": ["all"], "image_shape": (4, 4)}).selections) == 1
    series = kag.measure_series(small_net(), {0: small_net(0)}, X, spec="quick", layers=["1"])
    assert series.settings["points"] == 5
    tracker = kag.Tracker(small_net(), PROBE, ["1"], spec="quick")
    assert tracker.report.settings["points"] == 5
    assert tracker.report.settings["layers"] == ["1"]


@pytest.mark.parametrize("spec", ["slow", 3])
def test_other_words_are_no_spec(spec: Any) -> None:
    with pytest.raises(InputError, match="quick"):
        kag.measure(nn.Linear(16, 3), X, spec=spec)


def test_reproduce_takes_a_quick_look(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, Any]] = []

    def stop(**options: Any) -> None:
        asked.append(options)
        raise InputError("enough")

    monkeypatch.setattr("kagscope.studies.reproduce.reproduction", stop)
    CliRunner().invoke(app, ["reproduce", "--quick", "--seeds", "4", "--out", str(tmp_path)])
    CliRunner().invoke(app, ["reproduce", "--out", str(tmp_path)])
    assert asked[0].items() >= (reproduce.QUICK | {"seeds": 4}).items()
    assert asked[1]["points"] is None
