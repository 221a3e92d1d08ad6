"""Options and run settings: every mistake is one line before work starts; equal settings, equal names, on every machine."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from kagscope.base.errors import InputError, KagscopeError
from kagscope.data import Dataset, load
from kagscope.measuring.spec import Budget, MeasureSpec
from kagscope.studies.config import RunConfig
from kagscope.studies.file import StudyFile, list_jobs
from kagscope.studies.measure import ALONG, MAIN, OUTPUT, Job, Measure, RobustnessSettings
from kagscope.studies.reproduce import PLACES, command, reproduction
from kagscope.studies.study import PlannedStudy

DIGITS = load("digits")


def jobs(file: StudyFile) -> list[Job]:
    """Of the digits, whatever the default is: they load faster."""
    return list_jobs(file.model_copy(update={"run": file.run | {"data": "digits"}}), {"digits": DIGITS})


RUN = jobs(reproduction(checkpoints=8))[0][0]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"width": 3}, "^there is no option width; expected some of data, widths"),
        ({"widths": ()}, "--widths: .*|axis 'width' is empty"),
        ({"widths": (0,)}, "^--widths: .*greater than or equal to 1.*got 0"),
        ({"widths": (10**9,)}, "^--widths: .*got 1000000000"),
        ({"widths": (1.5,)}, "^--widths: .*got 1.5"),
        ({"widths": ("many",)}, "^--widths: .*got 'many'"),
        ({"widths": 64}, "^--widths: .*got 64"),
        ({"depth": 0}, "^--depth: .*got 0"),
        ({"depth": 65}, "^--depth: .*got 65"),
        ({"points": 0}, "^--points: points is 0"),
        ({"batch_size": 2**21}, "^--batch-size: .*got 2097152"),
        ({"activation": "step"}, "^--activation: .*'gelu'.*got 'step'"),
        ({"training": ()}, "axis 'training' is empty"),
        ({"training": ("strange",)}, "^--training: .*got 'strange'"),
        ({"seeds": 0}, "^--seeds: .*got 0"),
        ({"seeds": -1}, "^--seeds: .*got -1"),
        ({"seeds": "five"}, "^--seeds: .*got 'five'"),
        ({"epochs": -1}, "^--epochs: .*got -1"),
        ({"epochs": 1.5}, "^--epochs: .*got 1.5"),
        ({"epochs": math.inf}, "^--epochs: .*got inf"),
        ({"batch_size": 0}, "^--batch-size: .*got 0"),
        ({"learning_rate": 0}, "^--learning-rate: .*got 0"),
        ({"learning_rate": math.nan}, "^--learning-rate: .*got nan"),
        ({"learning_rate": math.inf}, "^--learning-rate: .*got inf"),
        ({"weight_decay": -1e-9}, "^--weight-decay: .*got -1e-09"),
        ({"weight_decay": math.nan}, "^--weight-decay: .*got nan"),
        ({"checkpoints": 1}, "^--checkpoints: .*got 1"),
        ({"data": 3}, "^--data: .*got 3"),
        ({"k": ()}, r"^--k: k is \(\); expected whole numbers from 1 to 6"),
        ({"k": (9,)}, r"^--k: k is \(9,\); expected whole numbers from 1 to 6"),
        ({"k": (2, 2)}, r"^--k: .*each once"),
        ({"widths": tuple(range(3, 203)), "seeds": 1000}, "the axes make 600,000 runs; at most 100,000"),
    ],
    ids=str,
)
def test_mistakes_are_one_line_each(values: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        reproduction(**values)
    text = str(caught.value)
    assert "\n" not in text
    assert "pydantic" not in text
    assert len(text) < 300


def test_minors_that_a_layer_has_not_are_refused() -> None:
    with pytest.raises(InputError, match="k = 3 needs at least as many inputs and units per layer; a run has 2"):
        jobs(reproduction(widths=(2, 64)))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**12), 10**12) | st.floats() | st.text(max_size=6),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(max_size=4), children, max_size=2),
    max_leaves=5,
)


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from([*sorted(PLACES), "training", "control"]), JSON, max_size=3))
def test_whatever_is_asked_for_is_a_study_or_one_line(values: dict[str, Any]) -> None:
    try:
        found = reproduction(**values)
    except KagscopeError as error:
        assert "\n" not in str(error)  # noqa: PT017
    else:
        assert StudyFile.model_validate_json(found.model_dump_json()) == found


def test_defaults_are_the_reproduction() -> None:
    file = reproduction()
    assert file.claims
    runs = [run for run, _ in jobs(file)]
    assert len(runs) == len({run.run_id for run in runs}) == 3 * 3 * 5
    assert file.run["data"] == "mnist10k"
    assert {run.widths for run in runs} == {(32, 32), (64, 64), (128, 128)}
    assert [run.seed for run in runs[:5]] == [0, 1, 2, 3, 4]
    assert all(runs[0].same_setting(run) for run in runs[:5])
    assert not any(runs[0].same_setting(run) for run in runs[5:])


def test_controls_are_trained_as_the_nets_that_they_control() -> None:
    def trained(**options: Any) -> list[tuple[str, str]]:
        return list(dict.fromkeys((run.training, run.labels) for run, _ in jobs(reproduction(seeds=1, **options))))

    standard, augmented = ("standard", "true"), ("augmented", "true")
    assert trained() == [standard, augmented, ("standard", "shuffled")]
    assert trained(control="none") == [standard, augmented]
    assert trained(training=("augmented",)) == [augmented, ("augmented", "shuffled")]
    with pytest.raises(InputError, match=r"^--control is 'random'"):
        reproduction(control="random")


def test_the_command_makes_the_same_study() -> None:
    words = command({"data": "digits", "widths": (8, 16), "seeds": 2, "batch_size": 8, "points": None}, "out")
    assert words == "kagscope reproduce --out out --data digits --widths 8,16 --seeds 2 --batch-size 8"


def planned(file: StudyFile) -> PlannedStudy:
    return PlannedStudy(file, tuple(Job(*pair) for pair in jobs(file)), {}, {})


def test_a_study_of_claims_is_its_runs_and_another_is_its_name() -> None:
    claims, other = reproduction(seeds=1), reproduction(seeds=2)
    assert planned(claims).fingerprint != planned(other).fingerprint
    assert planned(claims).fingerprint != planned(reproduction(seeds=1, points=5)).fingerprint
    assert planned(claims).fingerprint == planned(reproduction(seeds=1, widths=[32, 64, 128])).fingerprint
    loose = [file.model_copy(update={"claims": False}) for file in (claims, other)]
    assert planned(loose[0]).fingerprint == planned(loose[1]).fingerprint


def noise(side: tuple[int, int]) -> Dataset:
    rng = np.random.default_rng(0)
    images, labels = rng.random((140, *side), dtype=np.float32), rng.integers(0, 2, 140)
    return Dataset("noise", images[:70], labels[:70], images[70:], labels[70:])


@pytest.mark.parametrize(
    ("side", "epochs", "batch_size", "points", "along", "minors", "window_map"),
    [
        ((16, 16), 60, 32, 64, 24, 64 * 8128 * 32640, 8),
        ((1, 257), 20, 128, 12, 4, 0.1 * 8128 * 32896, 10),
        ((28, 28), 20, 128, 12, 4, 0.1 * 8128 * 306936, 10),
    ],
)
def test_defaults_go_by_the_size_of_the_images(
    side: tuple[int, int], epochs: int, batch_size: int, points: int, along: int, minors: float, window_map: int
) -> None:
    file = reproduction(data="digits", batch_size=None if batch_size == 32 else 32)
    (run, what), *_ = list_jobs(file, {"digits": noise(side)})
    assert run.epochs == epochs
    assert what.specs[MAIN].points == points
    assert what.specs[ALONG].points == along
    assert what.specs[MAIN].budget.exact_minors == pytest.approx(minors)
    assert what.specs[MAIN].window_map == window_map
    assert what.specs[ALONG].window_map == 0
    assert what.specs[OUTPUT].layer_map == "output"
    given = list_jobs(reproduction(data="digits", epochs=0, batch_size=7, points=3, k=(2,)), {"digits": noise(side)})[0]
    assert (given[0].epochs, given[0].batch_size) == (0, 7)
    assert (given[1].specs[MAIN].points, given[1].specs[MAIN].k) == (3, (2,))


def test_run_ids_are_plain_names() -> None:
    assert RUN.run_id == f"standard-32x32-seed0-{RUN.fingerprint()[:10]}"
    for run, _ in jobs(reproduction(depth=3, widths=(4, 5))):
        assert run.run_id == Path(run.run_id).name
        assert set(run.run_id) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")


OTHER_RUN: dict[str, Any] = {
    "schema_version": 3,
    "data": "elsewhere",
    "data_fingerprint": "ba" * 32,
    "image_shape": (4, 16),
    "architecture": "vit",
    "widths": (32, 33),
    "activation": "relu",
    "training": "augmented",
    "seed": 1,
    "epochs": 11,
    "batch_size": 64,
    "learning_rate": 2e-3,
    "weight_decay": 1e-4,
    "steps": (0, 3, 7),
    "optimizer": "sgd",
    "momentum": 0.9,
    "init": "orthogonal",
    "init_scale": 2.0,
    "first_layer": "like_trained",
    "first_layer_data": "mnist10k",
    "frozen": True,
    "rotation": 30.0,
    "translation": 0.2,
    "scale": 0.3,
    "train_size": 100,
    "label_noise": 0.2,
    "labels": "shuffled",
    "normalize": True,
    "data_seed": 1,
    "penalty_weight": -0.1,
    "penalty_score": "alignment",
    "penalty_layer": "hidden2",
    "penalty_points": 8,
    "penalty_rows": 0,
}
UNNAMED = {"data", "schema_version"}


def test_a_run_is_named_by_every_field_but_the_name_of_the_data() -> None:
    assert set(OTHER_RUN) == set(RunConfig.model_fields), "name another value for each field"
    prints = {RUN.fingerprint()}
    for name, value in OTHER_RUN.items():
        changed = RunConfig(**{**RUN.model_dump(), name: value})
        assert changed != RUN
        prints.add(changed.fingerprint())
        assert (changed.fingerprint() == RUN.fingerprint()) == (name in UNNAMED), name
    assert len(prints) == 1 + len(OTHER_RUN) - len(UNNAMED)


def test_fields_that_come_later_do_not_rename_old_runs() -> None:
    """This name stands in stores of version 2; a default or the canonical JSON that changes it orphans their runs."""
    fixed = RUN.model_copy(update={"data_fingerprint": "ab" * 32})
    assert fixed.run_id == "standard-32x32-seed0-caac1f1991"


OTHER_ROBUSTNESS: dict[str, Any] = {"linf": (0.3,), "l2": (0.3,), "points": 7, "steps": 7, "restarts": 7}


def test_attacks_are_named_by_every_field() -> None:
    assert set(OTHER_ROBUSTNESS) == set(RobustnessSettings.model_fields)
    plain = RobustnessSettings()
    ids = {plain.id, *(plain.model_copy(update={name: value}).id for name, value in OTHER_ROBUSTNESS.items())}
    assert len(ids) == 1 + len(OTHER_ROBUSTNESS)


def test_a_study_file_takes_the_fields_of_the_spec_and_of_its_budget() -> None:
    own = {"layers", "along", "checkpoints", "schedule", "robustness"}
    taken = {"layer_map", "k", "selections", "window_map", "scores", "points", "zero_row_quantile", "precision", "seed"}
    assert set(Measure.model_fields) == own | taken | set(Budget.model_fields)
    for name in taken - {"selections"}:
        assert Measure.model_fields[name].description == MeasureSpec.model_fields[name].description


def test_saying_it_otherwise_is_the_same_study() -> None:
    names = [run.run_id for run, _ in jobs(reproduction())]
    specs = [{name: spec.id for name, spec in what.specs.items()} for _, what in jobs(reproduction())]
    for same in ({"widths": [32, 64, 128]}, {"learning_rate": 0.001, "seeds": 5.0}, {"k": [3, 1, 2]}, {"weight_decay": 0}):
        found = jobs(reproduction(**same))
        assert [run.run_id for run, _ in found] == names
        assert [{name: spec.id for name, spec in what.specs.items()} for _, what in found] == specs


def test_a_run_reads_back_from_its_json() -> None:
    again = RunConfig.model_validate_json(RUN.model_dump_json())
    assert again == RUN
    assert again.run_id == RUN.run_id


def test_settings_cannot_be_changed_later() -> None:
    for made, name in ((RUN, "seed"), (Measure(), "points"), (RobustnessSettings(), "points")):
        with pytest.raises(ValidationError, match="frozen"):
            setattr(made, name, 3)
