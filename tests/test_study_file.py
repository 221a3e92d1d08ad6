"""Study files: what they stand for, what they refuse, and that the same values are the same runs."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kagscope.base.errors import InputError, KagscopeError
from kagscope.base.validation import validate
from kagscope.data import Dataset, load
from kagscope.studies.axes import RunValues
from kagscope.studies.file import StudyFile, list_jobs, read_study_file
from kagscope.studies.measure import Measure, RobustnessSettings
from kagscope.studies.ready import ready_names
from kagscope.studies.reproduce import reproduction
from kagscope.studies.template import schema, template


@pytest.fixture(scope="module")
def digits() -> dict[str, Dataset]:
    return {"digits": load("digits")}


def study(**values: object) -> StudyFile:
    return validate(StudyFile, {"name": "t", **values})


def test_the_template_is_a_study_that_fits_its_data(digits: dict[str, Dataset]) -> None:
    import tomllib

    made = validate(StudyFile, tomllib.loads(template()))
    runs = list_jobs(made, digits)
    assert len(runs) == made.count() == 18
    assert len({run.run_id for run, _ in runs}) == 18
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
@settings(deadline=None)
def test_as_many_runs_as_combinations(a: list[int], n: int, zipped: int) -> None:
    made = study(
        grid={"width": a, "seed": {"count": n}}, zip=[{"epochs": list(range(zipped)), "batch_size": list(range(1, zipped + 1))}]
    )
    assert len(made.values()) == made.count() == len(a) * n * zipped


def test_values_that_say_the_same_are_one_run(digits: dict[str, Dataset]) -> None:
    made = study(grid={"rotation": [5.0, 10.0], "seed": [0, 0]})  # strengths do nothing without augmentation
    assert len({run.run_id for run, _ in list_jobs(made, digits)}) == 1
    assert study(grid={"learning_rate": {"geomspace": [1e-3, 1e-1, 3]}}).values()[1].learning_rate == 0.01
    assert [v.width for v in study(grid={"width": {"linspace": [8, 24, 3]}}).values()] == [8, 16, 24]


def test_a_run_of_a_file_is_the_run_of_reproduce(digits: dict[str, Dataset]) -> None:
    mine = list_jobs(study(run={"width": 32}, measure={"k": [1, 2, 3]}), digits)[0]
    assert mine == list_jobs(reproduction(data="digits", widths=(32,), checkpoints=8), digits)[0]


def test_overrides(tmp_path: Path) -> None:
    file = tmp_path / "s.toml"
    file.write_text('name = "s"\nrun = {epochs = 3}\n[grid]\nwidth = [8, 16]\n')
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
    ({"grid": {"widht": [1]}}, "unknown axis 'widht' (did you mean width"),
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
    ({"grid": {"width": [8]}, "run": {"width": 8}}, "varied as well"),
    ({"run": {"widths": [8], "width": 8}}, "not both"),
    ({"run": {"optimizer": "lion"}}, "optimizer"),
    ({"run": {"label_noise": 2.0}}, "label_noise"),
    ({"run": {"momentum": 0.9}}, "momentum"),
    ({"run": {"train_size": 10**6}}, "train_size"),
    ({"run": {"train_size": 8}}, "batch_size"),
    ({"run": {"width": 1}}, "k = 2"),
    ({"measure": {"k": [9]}}, "measure.k: k is (9,)"),
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
        list_jobs(study(**values), digits)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


SAID: list[tuple[dict[str, object], tuple[str, ...]]] = [
    ({"run": {"epoch": 3}}, ("run.epoch", "got 3", "did you mean epochs")),
    ({"run": {"activation": "swish"}}, ("run.activation", "'swish'", "gelu")),
    ({"run": {"init": "he"}}, ("run.init", "'he'", "kaiming_normal")),
    ({"run": {"widths": []}}, ("run.widths", "got []", "at least one")),
    ({"run": {"widths": 8}}, ("run.widths", "got 8", "list")),
    ({"run": {"learning_rate": "fast"}}, ("run.learning_rate", "'fast'", "number")),
    ({"run": {"epochs": True}}, ("run.epochs", "got True", "number")),
    ({"grid": {"width": [4, "8"]}}, ("grid.width", "got '8'", "number")),
    ({"run": {"widths": [4, True]}}, ("run.widths", "got True", "number")),
    ({"grid": {"learning_rate": {"linspace": ["1", 2, 3]}}}, ("grid.learning_rate.linspace", "got '1'", "number")),
    ({"measure": {"samples": "100"}}, ("measure.samples", "got '100'", "number")),
    ({"grid": {"width": 16}}, ("grid.width", "got 16", "expected a list")),
    ({"grid": {"width": {"counts": 3}}}, ("grid.width.counts", "got 3", "did you mean count")),
    ({"grid": {"label_noise": [0.1, 2]}}, ("grid.label_noise", "got 2", "less than or equal to 1")),
    ({"grid": {"widths": [8, 16]}}, ("grid.widths", "got 8", "list")),
    ({"zip": [{"depth": [1, 99]}]}, ("zip.depth", "got 99", "64")),
    ({"zip": [{"width": [1, 2], "depth": 3}]}, ("zip.depth", "got 3", "list")),
    ({"random": {"count": 2}}, ("random.draw", "Field required")),
    ({"random": {"count": 2, "draw": {"width": [1, 2]}}}, ("random.draw.width", "got [1, 2]", "table")),
    ({"random": {"count": 1, "draw": {"width": {"uniform": [1, 8]}}}}, ("random.draw.width", "integer")),
    ({"grid": [1]}, ("grid", "got [1]", "table")),
    ({"measure": {"k": 2}}, ("measure.k", "got 2", "list")),
    ({"measure": {"point": 3}}, ("measure.point", "got 3", "did you mean points")),
    ({"measure": {"selections": "all"}}, ("measure.selections", "'all'", "list")),
    ({"measure": {"selections": ["ball"]}}, ("measure.selections", "'ball'", "ball(7)")),
    ({"measure": {"selections": ["shell(3,1)"]}}, ("measure.selections", "Shell(3.0, 1.0)", "greater than")),
    ({"measure": {"selections": ["ball(2)", "ball(2.0)"]}}, ("measure.selections", "ball(2)", "once")),
    ({"measure": {"selections": ["window(3,3)"]}}, ("measure.selections", "window(3,3)", "(row, column)")),
    ({"measure": {"layers": ["5"]}}, ("measure.layers", "'5'", "hidden1, hidden2")),
    ({"measure": {"layers": []}}, ("measure.layers", "got []", "at least one")),
    ({"measure": {"scores": ["participation_ratio"]}}, ("measure.scores", "'participation_ratio'", "expected some of pr,")),
    ({"measure": {"schedule": "log"}}, ("measure.schedule", "'log'", "'geometric' or 'linear'")),
    ({"measure": {"schedule": {"step": [1]}}}, ("measure.schedule.step", "got [1]", "did you mean steps")),
    ({"measure": {"schedule": {"steps": []}}}, ("measure.schedule.steps", "got []", "at least one")),
    ({"measure": {"schedule": {"epochs": [1, -1]}}}, ("measure.schedule", "got -1", "at least 0")),
    ({"measure": {"schedule": {"steps": [10**7]}}}, ("measure.schedule", "10000000", "2760")),
    ({"measure": {"schedule": {"epochs": [1]}, "checkpoints": 4}}, ("checkpoints", "one of them")),
    ({"measure": {"checkpoints": 1}}, ("measure.checkpoints", "got 1", "greater than or equal to 2")),
    ({"measure": {"robustness": {"eps": [0.1]}}}, ("measure.robustness.eps", "got [0.1]", "linf, l2")),
    ({"measure": {"robustness": {"linf": 0.1}}}, ("measure.robustness.linf", "got 0.1", "list")),
    ({"measure": {"robustness": {"restarts": 0}}}, ("measure.robustness.restarts", "got 0", "greater than or equal to 1")),
    ({"run": {"data": "xor3", "label_noise": 0.1}}, ("label_noise", "0.1", "expected 0")),
    ({"run": {"data": "xor3", "training": "augmented"}}, ("training", "'augmented'", "expected 'standard'")),
    ({"run": {"data": "xor3"}, "measure": {"robustness": {}}}, ("measure.robustness", "xor3", "leave it out")),
]


@pytest.mark.parametrize(("values", "said"), SAID, ids=[str(values)[:60] for values, _ in SAID])
def test_errors_name_the_key_what_was_given_and_what_is_expected(
    values: dict[str, object], said: tuple[str, ...], digits: dict[str, Dataset]
) -> None:
    with pytest.raises(KagscopeError) as error:
        list_jobs(study(**values), {**digits, "xor3": load("xor3")})
    for part in said:
        assert part in str(error.value)
    assert "\n" not in str(error.value)


def test_overrides_reach_into_tables_and_lists(tmp_path: Path) -> None:
    file = tmp_path / "s.toml"
    file.write_text('name = "s"\n[[zip]]\nwidth = [4, 8]\nepochs = [1, 2]\n[measure.robustness]\nlinf = [0.1, 0.2]\n')
    made = read_study_file(
        file,
        [
            "zip.0.width=[5, 9]",
            "measure.robustness.linf.1=0.3",
            "measure.robustness.restarts = 4",
            'measure.scores=["pr", "top"]',
            "measure.schedule={epochs=[0.5]}",
            "run.data=mixed3:0.5",
            "random={count=2, draw={learning_rate={log_uniform=[1e-4, 1e-2]}}}",
            "random.draw.momentum.choice=[0.0]",
        ],
    )
    assert [(v.width, v.epochs) for v in made.values()] == [(5, 1), (5, 1), (9, 2), (9, 2)]
    assert made.measure.robustness is not None
    assert made.measure.robustness.linf == (0.1, 0.3)
    assert made.measure.robustness.restarts == 4
    assert made.measure.scores == ("pr", "top")
    assert made.values()[0].data == "mixed3:0.5"


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("zip.1.width=[1]", "zip.1.width: '1' is not a place in a list of 1"),
        ("zip.one.width=[1]", "'one' is not a place"),
        ("zip.0.width.9=1", "'9' is not a place in a list of 2"),
        ("name.x.y=1", "name is 's', no table"),
        ("grid.width=[8, ", "'[8,' cannot be read"),
        ("grid.width=", "'' cannot be read"),
        ("run.epochs={a=", "cannot be read"),
    ],
)
def test_bad_overrides_of_nested_values(tmp_path: Path, override: str, said: str) -> None:
    (tmp_path / "s.toml").write_text('name = "s"\n[[zip]]\nwidth = [4, 8]\n')
    with pytest.raises(KagscopeError) as error:
        read_study_file(tmp_path / "s.toml", [override])
    assert "--set" in str(error.value)
    assert said in str(error.value)


def test_the_template_and_the_schema_cover_every_key() -> None:
    described = json.loads(schema())["$defs"]
    for model, name in ((Measure, "Measure"), (RobustnessSettings, "RobustnessSettings")):
        for key in model.model_fields:
            assert key in described[name]["properties"]
            assert re.search(rf"^(# |\[measure\.| *#? ?\[measure\.)?{key}( =|\])", template(), re.MULTILINE), key


def test_every_commented_key_of_the_template_can_be_turned_on(digits: dict[str, Dataset]) -> None:
    """Take away the comment marks of whole lines of values: what stands there is a study too."""
    import tomllib

    text = re.sub(r"^# (?=(\w+ = (?!…))|\[)", "", template(), flags=re.MULTILINE)
    made = validate(StudyFile, tomllib.loads(text.replace("width = [16, 32, 64]", "width = [16]")) | {"random": None, "zip": []})
    assert made.measure.scores == ("pr", "kl_uniform", "rr_pr", "zero_rows")
    assert made.measure.robustness is not None
    assert list_jobs(made, digits)


@pytest.mark.parametrize("name", ready_names())
def test_ready_studies_are_valid(name: str) -> None:
    made = read_study_file(name)
    assert made.name == name
    assert len(made.values()) == made.count()


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("s.toml", b"name = ", "cannot be read as toml"),
        ("s.toml", b"\xff\xfe", "cannot be read as toml"),
        ("s.yaml", b"name: s", "ends in"),
        ("s.json", b"{}", "ends in"),
        ("s.toml", b"#" * (2**20 + 1), "larger"),
    ],
)
def test_bad_files(tmp_path: Path, name: str, content: bytes, said: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(KagscopeError, match=said):
        read_study_file(tmp_path / name)


def test_a_byte_order_mark_is_passed_over(tmp_path: Path) -> None:
    """As editors on Windows write it."""
    (tmp_path / "s.toml").write_bytes(b'\xef\xbb\xbfname = "s"\n')
    assert read_study_file(tmp_path / "s.toml").name == "s"


@pytest.mark.parametrize("override", ["width", "=1", "grid..width=1", "name.x=1"])
def test_bad_overrides(tmp_path: Path, override: str) -> None:
    (tmp_path / "s.toml").write_text('name = "s"\n')
    with pytest.raises(KagscopeError, match="--set"):
        read_study_file(tmp_path / "s.toml", [override])


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(KagscopeError, match="no such file"):
        read_study_file(tmp_path / "none.toml")


def test_a_name_that_is_close_to_a_ready_study_is_told_which() -> None:
    with pytest.raises(InputError, match=r"neither a file nor a ready study .did you mean ka-phase-diagram"):
        read_study_file("ka-phase-diagrm")
