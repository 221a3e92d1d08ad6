"""Study files: what they stand for, what they refuse, and that the same values are the same runs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kagscope.data import Dataset, load
from kagscope.errors import KagscopeError
from kagscope.studies.axes import RunValues
from kagscope.studies.config import StudySettings, validated
from kagscope.studies.file import StudyFile, configs, read_study_file
from kagscope.studies.template import schema, template


@pytest.fixture(scope="module")
def digits() -> dict[str, Dataset]:
    return {"digits": load("digits")}


def study(**values: object) -> StudyFile:
    return validated(StudyFile, {"name": "t", **values})


def test_the_template_is_a_study_that_fits_its_data(digits: dict[str, Dataset]) -> None:
    import tomllib

    made = validated(StudyFile, tomllib.loads(template()))
    runs = configs(made, digits)
    assert len(runs) == made.count() == 18
    assert len({run.run_id for run in runs}) == 18
    for name in RunValues.model_fields:
        assert f"{name} =" in template() or name == "widths", name


def test_grid_zip_and_random_draws_combine() -> None:
    made = study(
        grid={"width": [4, 8], "seed": {"count": 3}},
        zip=[{"learning_rate": [0.1, 0.2], "batch_size": [8, 16]}],
        random={"count": 5, "draw": {"weight_decay": {"log_uniform": [1e-6, 1e-2]}, "activation": {"choice": ["relu", "tanh"]}}},
    )
    values = made.values()
    assert len(values) == made.count() == 2 * 3 * 2 * 5
    assert {(v.learning_rate, v.batch_size) for v in values} == {(0.1, 8), (0.2, 16)}
    assert len({v.weight_decay for v in values}) == 5
    assert all(1e-6 <= v.weight_decay <= 1e-2 for v in values)
    assert [v.seed for v in values[:3]] == [0, 1, 2], "seeds of a setting stand together"


def test_more_random_draws_keep_the_first_ones() -> None:
    few, many = (study(random={"count": n, "seed": 3, "draw": {"learning_rate": {"uniform": [0, 1]}}}) for n in (3, 9))
    assert few.values() == many.values()[:3]
    assert study(random={"count": 3, "seed": 4, "draw": {"learning_rate": {"uniform": [0, 1]}}}).values() != few.values()


@given(a=st.lists(st.integers(1, 50), min_size=1, max_size=4, unique=True), n=st.integers(1, 4), zipped=st.integers(1, 3))
@settings(max_examples=60, deadline=None)
def test_as_many_runs_as_combinations(a: list[int], n: int, zipped: int) -> None:
    made = study(
        grid={"width": a, "seed": {"count": n}}, zip=[{"epochs": list(range(zipped)), "batch_size": list(range(1, zipped + 1))}]
    )
    assert len(made.values()) == made.count() == len(a) * n * zipped


def test_values_that_say_the_same_are_one_run(digits: dict[str, Dataset]) -> None:
    made = study(grid={"rotation": [5.0, 10.0], "seed": [0, 0]})  # strengths do nothing without augmentation
    assert len({run.run_id for run in configs(made, digits)}) == 1
    assert study(grid={"learning_rate": {"geomspace": [1e-3, 1e-1, 3]}}).values()[1].learning_rate == 0.01
    assert [v.width for v in study(grid={"width": {"linspace": [8, 24, 3]}}).values()] == [8, 16, 24]


def test_a_run_of_a_file_is_the_run_of_reproduce(digits: dict[str, Dataset]) -> None:
    data = digits["digits"]
    plain = next(StudySettings(widths=(32,), k=(1, 2)).runs(data.fingerprint(), data.image_shape))
    assert configs(study(run={"width": 32}), digits)[0].run_id == plain.run_id


def test_yaml_and_overrides(tmp_path: Path) -> None:
    file = tmp_path / "s.yaml"
    file.write_text("name: s\nrun: {epochs: 3}\ngrid:\n  width: [8, 16]\n")
    made = read_study_file(file, ["grid.width=[4]", "run.activation=relu", "measure.k=[1]", "grid.seed={count = 2}"])
    assert [(v.width, v.activation, v.epochs, v.seed) for v in made.values()] == [(4, "relu", 3, 0), (4, "relu", 3, 1)]
    assert made.measure.k == (1,)


def test_the_schema_is_json_and_names_every_value() -> None:
    described = json.loads(schema())
    assert set(RunValues.model_fields) <= set(described["properties"]["run"]["properties"])


BAD_VALUES: list[tuple[dict[str, object], str]] = [
    ({"name": "../x"}, "name"),
    ({"name": ""}, "name"),
    ({"colour": 1}, "colour"),
    ({"grid": {"widht": [1]}}, "unknown axis 'widht'"),
    ({"grid": {"width": []}}, "empty"),
    ({"grid": {"width": [8], "seed": {"count": 0}}}, "count"),
    ({"grid": {"width": ["a"]}}, "width"),
    ({"grid": {"width": [0]}}, "width"),
    ({"grid": {"width": {"count": 99_999}, "seed": {"count": 99_999}}}, "at most 100,000"),
    ({"grid": {"width": {"linspace": [1, 2, 10**9]}}}, "how many"),
    ({"grid": {"width": {"geomspace": [0, 2, 3]}}}, "positive"),
    ({"grid": {"width": {"count": 2, "linspace": [1, 2, 2]}}}, "one of"),
    ({"zip": [{"width": [1, 2], "depth": [1]}]}, "as long"),
    ({"grid": {"width": [8]}, "zip": [{"width": [8]}]}, "two places"),
    ({"grid": {"width": [8]}, "run": {"width": 8}}, "vary as well"),
    ({"run": {"widths": [8], "width": 8}}, "not both"),
    ({"run": {"optimizer": "lion"}}, "optimizer"),
    ({"run": {"label_noise": 2.0}}, "label_noise"),
    ({"run": {"momentum": 0.9}}, "momentum"),
    ({"run": {"train_size": 10**6}}, "train_size"),
    ({"run": {"train_size": 8}}, "batch_size"),
    ({"run": {"width": 1}}, "k = 2"),
    ({"measure": {"k": [4]}}, "k must"),
    ({"measure": {"points": 10**5}}, "points"),
    ({"measure": {"robustness": {"linf": [-1.0]}}}, "radii"),
    ({"random": {"count": 2, "draw": {}}}, "draw"),
    ({"random": {"count": 2, "draw": {"width": {"uniform": [2, 1]}}}}, "first end"),
    ({"random": {"count": 2, "draw": {"width": {"log_uniform": [0, 1]}}}}, "positive"),
    ({"random": {"count": 2, "draw": {"width": {}}}}, "one of"),
]


@pytest.mark.parametrize(("values", "said"), BAD_VALUES, ids=[str(values)[:60] for values, _ in BAD_VALUES])
def test_bad_values_are_refused_in_one_line(values: dict[str, object], said: str, digits: dict[str, Dataset]) -> None:
    with pytest.raises(KagscopeError) as error:
        configs(study(**values), digits)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("s.toml", b"name = ", "cannot be read as toml"),
        ("s.toml", b"\xff\xfe", "cannot be read as toml"),
        ("s.yaml", b"a: [", "cannot be read as yaml"),
        ("s.yaml", b"- 1", "list"),
        ("s.json", b"{}", "ends in"),
        ("s.yaml", b"!!python/object/apply:os.system ['echo']", "cannot be read as yaml"),
        ("s.toml", b"#" * (2**20 + 1), "larger"),
    ],
)
def test_bad_files(tmp_path: Path, name: str, content: bytes, said: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(KagscopeError, match=said):
        read_study_file(tmp_path / name)


@pytest.mark.parametrize("override", ["width", "=1", "grid..width=1", "name.x=1"])
def test_bad_overrides(tmp_path: Path, override: str) -> None:
    (tmp_path / "s.toml").write_text('name = "s"\n')
    with pytest.raises(KagscopeError, match="--set"):
        read_study_file(tmp_path / "s.toml", [override])


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(KagscopeError, match="no such file"):
        read_study_file(tmp_path / "none.toml")
