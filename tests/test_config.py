"""Settings: every mistake is one line before work starts; equal settings, equal fingerprint, on every machine."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from kagscope.base.errors import InputError
from kagscope.studies.config import MAX_WIDTH, GeometrySettings, RobustnessSettings, RunConfig, StudySettings, settings_from

GEOMETRY = GeometrySettings.for_inputs(64).model_dump()
RUN = next(StudySettings().runs("ab" * 32, (8, 8)))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"width": 3}, "^width: .*got 3"),
        ({"widths": ()}, "^widths: at least one width"),
        ({"widths": (0,)}, f"^widths: a width is a number of units from 1 to {MAX_WIDTH}; got 0"),
        ({"widths": (10**9,)}, "got 1000000000"),
        ({"widths": (32, 32)}, "each width once"),
        ({"widths": (1.5,)}, "^widths: .*got 1.5"),
        ({"widths": ("many",)}, "^widths: .*got 'many'"),
        ({"widths": 64}, "^widths: .*got 64"),
        ({"widths": None}, "^widths: .*got None"),
        ({"depth": 0}, "^depth: .*got 0"),
        ({"depth": 65}, "^depth: .*got 65"),
        ({"points": 0}, "^points: .*got 0"),
        ({"batch_size": 2**21}, "^batch_size: .*got 2097152"),
        ({"geometry": {}}, r"^geometry\.points: Field required"),
        ({"geometry": {**GEOMETRY, "k": (9,)}}, r"geometry\.k is \[9\] but k is \[1, 2, 3\]"),
        ({"activation": "step"}, "^activation: .*'gelu'.*got 'step'"),
        ({"trainings": ("standard", "standard")}, "^trainings: .*each once"),
        ({"trainings": ()}, "^trainings: name 'standard', 'augmented' or both"),
        ({"trainings": ("strange",)}, "^trainings: .*got 'strange'"),
        ({"seeds": 0}, "^seeds: .*got 0"),
        ({"seeds": -1}, "^seeds: .*got -1"),
        ({"seeds": 1001}, "^seeds: .*got 1001"),
        ({"seeds": "five"}, "^seeds: .*got 'five'"),
        ({"epochs": -1}, "^epochs: .*got -1"),
        ({"epochs": 1.5}, "^epochs: .*got 1.5"),
        ({"epochs": math.inf}, "^epochs: .*got inf"),
        ({"batch_size": 0}, "^batch_size: .*got 0"),
        ({"learning_rate": 0}, "^learning_rate: .*got 0"),
        ({"learning_rate": math.nan}, "^learning_rate: .*got nan"),
        ({"learning_rate": math.inf}, "^learning_rate: .*got inf"),
        ({"weight_decay": -1e-9}, "^weight_decay: .*got -1e-09"),
        ({"weight_decay": math.nan}, "^weight_decay: .*got nan"),
        ({"weight_decay": math.inf}, "^weight_decay: .*got inf"),
        ({"checkpoints": 1}, "^checkpoints: .*got 1"),
        ({"data": 3}, "^data: .*got 3"),
        ({"geometry": 3}, "^geometry: .*got 3"),
        ({"k": ()}, r"^k: k must name orders among 1, 2, 3"),
        ({"k": (4,)}, r"^k: .*got \[4\]"),
        ({"k": (2, 2)}, r"^k: .*each once"),
        ({"geometry": {**GEOMETRY, "points": 0}}, r"^geometry\.points: .*got 0"),
        ({"geometry": {**GEOMETRY, "k3_rel_error": 1.0}}, r"^geometry\.k3_rel_error: .*got 1.0"),
        ({"geometry": {**GEOMETRY, "zero_row_quantile": 0}}, r"^geometry\.zero_row_quantile: .*got 0"),
        ({"geometry": {**GEOMETRY, "colour": "red"}}, r"^geometry\.colour: .*got 'red'"),
        ({"widths": (2, 64)}, "^settings: k = 3 needs layers of at least 3 units, but width 2 was given"),
        ({"widths": tuple(range(3, 203)), "seeds": 1000}, "^settings: 400000 networks asked for; at most 100000"),
        ({"two\nlines": 1}, "two"),
    ],
    ids=str,
)
def test_mistakes_are_one_line_each(values: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        settings_from(values)
    text = str(caught.value)
    assert "\n" not in text
    assert "pydantic" not in text
    assert len(text) < 300


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**12), 10**12) | st.floats() | st.text(max_size=6),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(max_size=4), children, max_size=2),
    max_leaves=5,
)


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(st.sampled_from(sorted(StudySettings.model_fields)), JSON, max_size=3))
def test_whatever_a_file_says_is_settings_or_one_line(values: dict[str, Any]) -> None:
    try:
        found = settings_from(values)
    except InputError as error:
        assert "\n" not in str(error)  # noqa: PT017
    else:
        assert settings_from(found.model_dump()) == found


def test_defaults_are_the_reproduction() -> None:
    found = settings_from({})
    assert found == StudySettings()
    runs = list(found.runs("ab" * 32, (8, 8)))
    assert len(runs) == len({run.run_id for run in runs}) == 3 * 2 * 5
    assert {run.widths for run in runs} == {(32, 32), (64, 64), (128, 128)}
    assert [run.seed for run in runs[:5]] == [0, 1, 2, 3, 4]
    assert all(runs[0].same_setting(run) for run in runs[:5])
    assert not any(runs[0].same_setting(run) for run in runs[5:])


def test_content_of_the_data_counts_and_its_name_does_not() -> None:
    study = StudySettings()
    assert study.study_fingerprint("ab" * 32) != study.study_fingerprint("ba" * 32)
    assert StudySettings(data="elsewhere").study_fingerprint("ab" * 32) == study.study_fingerprint("ab" * 32)
    assert RUN.model_copy(update={"data": "elsewhere"}).run_id == RUN.run_id
    assert RUN.model_copy(update={"data_fingerprint": "ba" * 32}).run_id != RUN.run_id


@pytest.mark.parametrize(("n_inputs", "epochs", "batch_size"), [(64, 60, 32), (256, 60, 32), (257, 10, 128), (784, 10, 128)])
def test_defaults_go_by_the_size_of_the_images(n_inputs: int, epochs: int, batch_size: int) -> None:
    done = StudySettings().resolved(n_inputs)
    assert (done.epochs, done.batch_size, done.geometry) == (epochs, batch_size, GeometrySettings.for_inputs(n_inputs))
    assert done.resolved(n_inputs) == done
    given = StudySettings(epochs=0, batch_size=7, points=3, k=(2,)).resolved(n_inputs)
    assert (given.epochs, given.batch_size) == (0, 7)
    assert given.geometry is not None
    assert (given.geometry.points, given.geometry.k) == (3, (2,))


def test_more_orders_than_pixels_are_refused() -> None:
    with pytest.raises(InputError, match="k = 3 needs at least 3 inputs, but the images have 2 pixels"):
        next(StudySettings().runs("ab" * 32, (1, 2)))


def test_run_ids_are_plain_names() -> None:
    assert RUN.run_id == f"standard-32x32-seed0-{RUN.fingerprint()[:10]}"
    for run in StudySettings(depth=3, widths=(4, 5)).runs("cd" * 32, (28, 28)):
        assert run.run_id == Path(run.run_id).name
        assert set(run.run_id) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")


def test_fingerprints_are_the_same_in_another_process() -> None:
    code = (
        "from kagscope.studies.config import StudySettings as S; s = S();"
        "print(s.fingerprint(), next(s.runs('ab' * 32, (8, 8))).run_id)"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[1] / "src"), "PYTHONHASHSEED": "7"}
    said = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True).stdout
    assert said.split() == [StudySettings().fingerprint(), RUN.run_id]


OTHER: dict[str, Any] = {
    "data": "mnist",
    "widths": (32, 64),
    "depth": 3,
    "activation": "relu",
    "trainings": ("augmented", "standard"),
    "seeds": 4,
    "epochs": 11,
    "batch_size": 64,
    "learning_rate": 2e-3,
    "weight_decay": 1e-4,
    "checkpoints": 9,
    "k": (1, 2),
    "points": 51,
    "geometry": GeometrySettings.for_inputs(64, points=51),
}
OTHER_RUN: dict[str, Any] = {
    **{
        name: OTHER[name]
        for name in ("data", "activation", "epochs", "batch_size", "learning_rate", "weight_decay", "checkpoints")
    },
    "schema_version": 2,
    "data_fingerprint": "ba" * 32,
    "image_shape": (4, 16),
    "widths": (32, 33),
    "training": "augmented",
    "seed": 1,
    "geometry": GeometrySettings.for_inputs(64, rotations=9),
    "optimizer": "sgd",
    "momentum": 0.9,
    "init": "orthogonal",
    "init_scale": 2.0,
    "rotation": 30.0,
    "translation": 0.2,
    "scale": 0.3,
    "train_size": 100,
    "label_noise": 0.2,
    "data_seed": 1,
    "robustness": RobustnessSettings(),
    "schedule": (0, 3, 7),
}
OLD_NAMES = ("standard-32x32-seed0-47218b78f5", "standard-32x32-seed0-084ae456ed", "standard-32x32-seed0-3086b00995")
LATER_GEOMETRY: dict[str, Any] = {"selections": ("all",), "layers": ("1",), "scores": ("pr",)}
OTHER_GEOMETRY: dict[str, Any] = LATER_GEOMETRY | {
    name: (1, 2) if name == "k" else value / 2 if isinstance(value, float) else value + 1
    for name, value in GEOMETRY.items()
    if name not in LATER_GEOMETRY
}
OTHER_ROBUSTNESS: dict[str, Any] = {"linf": (0.3,), "l2": (0.3,), "points": 7, "steps": 7, "restarts": 7}


@pytest.mark.parametrize(
    ("made", "changes"),
    [
        (StudySettings(), OTHER),
        (RUN, OTHER_RUN),
        (GeometrySettings(**GEOMETRY), OTHER_GEOMETRY),
        (RobustnessSettings(), OTHER_ROBUSTNESS),
    ],
    ids=["study", "run", "geometry", "robustness"],
)
def test_the_fingerprint_sees_every_field_but_the_name_of_the_data(
    made: StudySettings | RunConfig | GeometrySettings | RobustnessSettings, changes: dict[str, Any]
) -> None:
    assert set(changes) == set(type(made).model_fields), "name another value for each field"
    prints = {made.fingerprint()}
    for name, value in changes.items():
        changed = type(made)(**{**made.model_dump(), name: value})
        assert changed != made
        prints.add(changed.fingerprint())
        assert (changed.fingerprint() == made.fingerprint()) == (name == "data")
    assert len(prints) == 1 + len(changes) - ("data" in changes)


def test_fields_that_came_later_do_not_rename_old_runs() -> None:
    """These names stand in stores that were made before ``selections``, ``layers``, ``scores``, ``restarts`` and ``schedule``."""
    assert RUN.model_copy(update={"robustness": RobustnessSettings()}).run_id == OLD_NAMES[0]
    assert RUN.run_id == OLD_NAMES[1]
    assert RUN.model_copy(update={"init": "orthogonal"}).run_id == OLD_NAMES[2]


def test_the_fingerprint_sees_values_not_spelling() -> None:
    plain = StudySettings()
    for same in (
        {"widths": [32, 64, 128]},
        {"widths": ["32", "64", "128"]},
        {"learning_rate": 0.001, "seeds": 5.0},
        {"k": [3, 1, 2]},
        {"weight_decay": 0},
    ):
        assert settings_from(same).fingerprint() == plain.fingerprint()


def test_a_run_reads_back_from_its_json() -> None:
    again = RunConfig.model_validate_json(RUN.model_dump_json())
    assert again == RUN
    assert again.run_id == RUN.run_id


def test_settings_cannot_be_changed_later() -> None:
    for made, name in ((StudySettings(), "seeds"), (RUN, "seed"), (GeometrySettings(**GEOMETRY), "points")):
        with pytest.raises(ValidationError, match="frozen"):
            setattr(made, name, 3)
