"""A number is the same whichever door it was asked at: a call, a series of checkpoints, a tracker; and a spec says what it is."""

from __future__ import annotations

import copy
import itertools
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import kagscope as kag
from kagscope.measuring.observe import choose_points
from kagscope.measuring.spec import Budget, MeasureSpec
from tracked import DATA, LABELS, small_net, train

INPUTS, CLASSES = DATA[:40], LABELS[:40]
STEPS = (0, 8, 20)
NAMED = ["layer", "k", "selection", "point", "score"]
SCORES = {"pr", "kl_uniform", "rr_pr", "rr_max", "zero_rows", "kl_init", "axis_alignment", "column_divergence",
          "effective_dimension", "kernel_alignment", "cka_init", "constant_units"}  # fmt: skip


class Mixer(nn.Module):
    """A network on sequences of 4 tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.act, self.head = nn.Linear(4, 6), nn.GELU(), nn.Linear(24, 4)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.act(self.embed(x.reshape(len(x), 4, 4))).flatten(1))
        return out


def mixer() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Mixer()


@dataclass(frozen=True)
class Case:
    """What is measured of which network."""

    what: dict[str, Any]
    make: Callable[[], nn.Module] = small_net
    inputs: Callable[[], Any] = lambda: INPUTS
    baseline: Any = "first"
    labels: bool = True


CASES = {
    "pairs in balls": Case({"layers": ["1", "3"], "selections": ["all", "ball(2)"], "image_shape": (4, 4)}),
    "triples at some points": Case({"layers": "3", "k": (1, 2, 3), "points": 9, "triple_points": 4}),
    "sampled": Case({"layers": "3", "k": 2, "exact_minors": 3000, "rel_error": 0.05, "points": 12}),
    "tokens": Case({"layers": "act", "layer_map": "block", "tokens": 2}, mixer),
    "several baselines": Case({"layers": ["1", "3"], "points": 10}, baseline="reinit"),
    "another network": Case({"layers": ["1", "3"], "points": 10}, baseline=small_net(5)),
    "of the output": Case({"layers": ["1", "3"], "layer_map": "output"}),
    "a loader": Case(
        {"layers": "3", "points": 14}, inputs=lambda: DataLoader(TensorDataset(INPUTS, CLASSES), batch_size=8), labels=False
    ),
    "some scores": Case({"layers": "1", "scores": ["pr", "cka_init", "rr_max"], "rotations": 4}),
    "one's own": Case(
        {
            "layers": "3",
            "own_scores": {"mine": lambda m: m.s1**2 / m.s2},
            "jacobian_scores": {"size": lambda J: np.abs(J).sum(axis=(1, 2))},
        }
    ),
}


THREE_STEPS = ("some scores", "one's own")  # the others are measured at the first and the last of them
SLOW = ("of the output", "a loader", "triples at some points", "another network")


@pytest.mark.parametrize("name", [pytest.param(one, marks=[pytest.mark.slow] if one in SLOW else []) for one in CASES])
def test_values_and_summaries_of_measure_series_and_tracker_are_the_same(name: str) -> None:
    case, steps = CASES[name], STEPS if name in THREE_STEPS else STEPS[::2]
    model = case.make()
    first = isinstance(case.baseline, str) and case.baseline == "first"
    given = {"labels": CLASSES} if case.labels else {}
    spec = MeasureSpec(**case.what)
    tracker = kag.Tracker(
        model, case.inputs(), every=list(steps), baseline=None if first else case.baseline, baseline_seeds=2, spec=spec, **given
    )
    states: dict[int, Any] = {0: copy.deepcopy(model.state_dict())}
    for start, step in itertools.pairwise(steps):
        if case.make is small_net:
            train(model, step, tracker.step, first=start + 1)
        else:
            grown(model, step, tracker)
        states[step] = copy.deepcopy(model.state_dict())
    series = kag.measure_series(case.make(), states, case.inputs(), baseline=case.baseline, baseline_seeds=2, spec=spec, **given)
    assert tracker.steps == series.steps == list(steps)
    pd.testing.assert_frame_equal(
        tracker.table.drop(columns="epoch"), series.table, check_exact=True, check_dtype=False, check_categorical=False
    )
    own, summary = (one.summary().drop(columns="epoch", errors="ignore") for one in (tracker, series))
    pd.testing.assert_frame_equal(own, summary, check_exact=True, check_dtype=False, check_categorical=False)
    pd.testing.assert_frame_equal(tracker.onset(None).drop(columns="epoch"), series.onset(None).drop(columns="epoch"))
    for step in steps[1:]:
        network, before = case.make(), case.make()
        network.load_state_dict(states[step])
        before.load_state_dict(states[0])
        alone = kag.measure(
            network, case.inputs(), baseline=before if first else case.baseline, baseline_seeds=2, spec=spec, **given
        )
        one = series.at(step)
        pd.testing.assert_frame_equal(one.table, alone.table, check_exact=True, check_dtype=False, check_categorical=False)
        pd.testing.assert_frame_equal(
            one.summary(), alone.summary(), check_exact=True, check_dtype=False, check_categorical=False
        )
        assert one.settings == alone.settings == tracker.report.settings == spec.as_json()
    assert len(series.table) > 50


def grown(model: nn.Module, step: int, tracker: kag.Tracker) -> None:
    """Another network, as if it had been trained."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1 + step / 20)
    tracker.step(step)


def test_the_scores_of_the_design_are_all_there() -> None:
    table = kag.measure(small_net(), INPUTS, labels=CLASSES, baseline=small_net(2)).table
    assert set(table["score"]) >= SCORES


# -- points ----------------------------------------------------------------------------------------------------------------------


def test_fewer_points_are_a_prefix_and_say_the_same() -> None:
    model, before = small_net(), small_net(2)
    tables = {
        points: kag.measure(model, INPUTS, points=points, baseline=before, layers="3", labels=CLASSES).table
        for points in (5, 12, None)
    }
    taken = {points: set(table["point"]) - {-1} for points, table in tables.items()}
    order = choose_points(len(INPUTS))
    assert taken == {5: set(order[:5]), 12: set(order[:12]), None: set(range(len(INPUTS)))}
    assert sorted(taken[5]) != [0, 1, 2, 3, 4]
    for fewer, more in ((5, 12), (12, None)):
        both = tables[fewer].merge(tables[more], on=NAMED, suffixes=("", "_more"))
        both = both[(both["point"] >= 0) & ~both["score"].isin(["rr_max"])]
        assert set(both["point"]) == taken[fewer]
        same = ~both["score"].isin(["zero_rows"])  # whose threshold is a quantile over the points
        np.testing.assert_allclose(both["value"][same], both["value_more"][same], rtol=1e-10)
        shared = set(both["score"])
        assert shared >= {"pr", "kl_uniform", "column_divergence", "axis_alignment"}


def test_representations_are_scored_over_all_inputs_whatever_the_points() -> None:
    few, all_of_them = (
        kag.measure(small_net(), INPUTS, points=points, baseline=small_net(2), layers="3", labels=CLASSES).table
        for points in (3, None)
    )
    names = ["kernel_alignment", "cka_init", "effective_dimension"]
    one, other = (table[table["score"].isin(names)].sort_values("score")["value"].to_numpy() for table in (few, all_of_them))
    assert len(one) == 3
    assert np.array_equal(one, other)


def test_points_are_indices_in_the_inputs_as_given() -> None:
    table = kag.measure(small_net(), INPUTS, points=6, layers="1", k=2).table
    for row in table[table["score"] == "pr"].to_dict("records"):
        alone = kag.measure(small_net(), INPUTS[[row["point"]]], layers="1", k=2).table
        assert row["value"] == pytest.approx(float(alone[alone["score"] == "pr"]["value"].iloc[0]), rel=1e-12)
    points = table[table["score"] == "pr"]["point"].tolist()
    assert points == sorted(points)


def test_single_columns_stand_once_unless_the_selection_is_a_window() -> None:
    selections = ["all", "ball(1)", "apart(2)", "window(1,1,1)"]
    table = kag.measure(small_net(), INPUTS[:3], layers="1", k=(1, 2), selections=selections, image_shape=(4, 4)).table
    found = {k: set(table[(table["score"] == "pr") & (table["k"] == k)]["selection"]) for k in (1, 2)}
    assert found == {1: {"all", "window(1,1,1)"}, 2: set(selections)}


# -- the spec --------------------------------------------------------------------------------------------------------------------


def test_a_spec_given_whole_is_its_options() -> None:
    options: dict[str, Any] = {"layers": ["3"], "k": (2,), "selections": ["ball(2)"], "image_shape": (4, 4), "rel_error": 0.02}
    spec = MeasureSpec(**options)
    whole, parts = kag.measure(small_net(), INPUTS, spec=spec), kag.measure(small_net(), INPUTS, **options)
    pd.testing.assert_frame_equal(whole.table, parts.table)
    assert whole.provenance["spec"] == parts.provenance["spec"] == spec.id
    assert kag.MeasureSpec is MeasureSpec
    assert kag.Budget(rel_error=0.02) == spec.budget == Budget(rel_error=0.02)


def test_the_id_is_stable_and_only_of_what_decides_numbers() -> None:
    assert MeasureSpec().id == MeasureSpec(memory_budget=2**24).id == MeasureSpec(budget=Budget(memory_budget=2**22)).id
    assert MeasureSpec(k=[2, 1]).id == MeasureSpec().id
    assert MeasureSpec(selections="Ball(2.0)").id == MeasureSpec(selections=[kag.Ball(2)]).id
    others: list[dict[str, Any]] = [
        {"k": 2}, {"rel_error": 0.02}, {"selections": "ball(2)"}, {"points": 3}, {"seed": 1}, {"layers": "1"}, {"mode": "train"},
        {"scores": ["pr"]}, {"rotations": 17}, {"tokens": 3}, {"image_shape": (4, 4)},
    ]  # fmt: skip
    ids = {MeasureSpec(**other).id for other in others} | {MeasureSpec().id}
    assert len(ids) == len(others) + 1
    assert all(len(one) == 10 and int(one, 16) >= 0 for one in ids)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {
            "layers": ["1", "**.mlp"],
            "k": (1, 3),
            "selections": [kag.All(), kag.Ball(2), kag.Shell(1, 2.5)],
            "image_shape": (1, 4, 4),
        },
        {
            "tokens": [0, 3],
            "wrt": "x",
            "scores": ["rr_pr", "pr"],
            "points": 7,
            "max_rows": 4,
            "precision": "model",
            "window_map": 3,
        },
        {"tokens": "flat", "layer_map": "block", "triple_points": 3, "seed": 4},
        {"selections": [kag.Window((1, 2), 3), kag.Apart(2)], "image_shape": (4, 4), "groups": None},
    ],
)
def test_the_json_of_a_spec_read_back_is_the_spec(options: dict[str, Any]) -> None:
    spec = MeasureSpec(**options)
    again = MeasureSpec(**json.loads(json.dumps(spec.as_json())))
    assert again.id == spec.id
    assert again.as_json() == spec.as_json()
    changed = again.with_(k=2, rel_error=0.3)
    assert (changed.k, changed.budget.rel_error, changed.budget.samples) == ((2,), 0.3, 1000)
    assert changed.with_(k=spec.k, rel_error=spec.budget.rel_error).id == spec.id


def test_help_describes_every_field() -> None:
    for kind in (kag.MeasureSpec, kag.Budget):
        lines = str(kind.__doc__).splitlines()
        assert {name for name in kind.model_fields if any(line.strip().startswith(f"{name}: ") for line in lines)} == set(
            kind.model_fields
        )


def test_a_spec_cannot_be_changed() -> None:
    with pytest.raises(Exception, match="frozen"):
        MeasureSpec().k = (2,)
