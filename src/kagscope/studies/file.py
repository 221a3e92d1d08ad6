"""The study file: TOML or YAML, read, overridden from the command line, validated, and turned into runs."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import Field, field_validator

from kagscope.data import Dataset
from kagscope.errors import DataError, InputError
from kagscope.files import open_regular
from kagscope.studies.axes import Axes, RunValues, _Strict
from kagscope.studies.config import SMALL_IMAGE, GeometrySettings, RobustnessSettings, RunConfig, validated

MAX_BYTES = 2**20


class Measure(_Strict):
    """What is measured of every run; what is left out has a default by the size of the images."""

    k: tuple[int, ...] = Field(default=(1, 2), description="orders of the minors, among 1, 2, 3")
    checkpoints: int = Field(default=8, ge=2, le=1000, description="geometrically spaced steps at which geometry is measured")
    points: int | None = Field(default=None, ge=1, le=1_000_000)
    visited_points: int | None = Field(default=None, ge=1)
    track_points: int | None = Field(default=None, ge=1)
    track_visited_points: int | None = Field(default=None, ge=0)
    rotation_points: int | None = Field(default=None, ge=0)
    rotations: int | None = Field(default=None, ge=2)
    k3_points: int | None = Field(default=None, ge=1)
    window_points: int | None = Field(default=None, ge=1)
    window_grid: int | None = Field(default=None, ge=1)
    layer_points: int | None = Field(default=None, ge=10)
    robustness: RobustnessSettings | None = Field(default=None, description="adversarial accuracy and calibration; a table")

    @field_validator("k")
    @classmethod
    def _orders(cls, k: tuple[int, ...]) -> tuple[int, ...]:
        if not k or any(order not in (1, 2, 3) for order in k) or len(set(k)) != len(k):
            raise ValueError(f"k must name orders among 1, 2, 3, each once; got {list(k)}")
        return tuple(sorted(k))

    def geometry(self, n_inputs: int) -> GeometrySettings:
        """With defaults for images of this size."""
        return GeometrySettings.for_inputs(n_inputs, **self.model_dump(exclude={"checkpoints", "robustness"}))


class StudyFile(Axes):
    """A study: its name, what all runs share (``run``), what varies (``grid``, ``zip``, ``random``), what is measured."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$", description="letters, digits, dots, dashes, underscores")
    description: str = ""
    run: dict[str, Any] = Field(default_factory=dict, description="values that every run has")
    measure: Measure = Field(default_factory=Measure)

    def values(self) -> list[RunValues]:
        """Every run's values, each once, in the order of the axes.

        Raises:
            InputError: a value that a run cannot have; which run is said.
        """
        twice = [name for name in self.run if name in self.names()]
        if twice:
            raise InputError(f"{', '.join(twice)} stand in [run] and vary as well; leave one of the two out")
        found: dict[str, RunValues] = {}
        for point in self.points():
            run = validated(RunValues, self.run | point)
            found.setdefault(run.model_dump_json(), run)
        return list(found.values())


def read_study_file(path: str | Path, overrides: Sequence[str] = ()) -> StudyFile:
    """Read and validate a study file.

    Args:
        path: ``.toml``, ``.yaml`` or ``.yml``, or the name of a ready study.
        overrides: ``key=value`` as of ``--set``: dotted keys, values in TOML's notation, such as ``grid.width=[16,32]``.

    Raises:
        DataError: the file is missing or cannot be read.
        InputError: not TOML or YAML, an unknown key, or a value that cannot be used.
    """
    path = Path(path)
    if str(path) in ready_names():
        values = tomllib.loads(ready(str(path)))
        for override in overrides:
            _override(values, override)
        return validated(StudyFile, values)
    with open_regular(path) as stream:
        content = stream.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise DataError(f"{path}: larger than {MAX_BYTES // 2**20} MiB; expected a short study file")
    values = _parsed(path, content)
    for override in overrides:
        _override(values, override)
    return validated(StudyFile, values)


def ready_names() -> list[str]:
    """Names of the studies that come with kagscope."""
    folder = resources.files("kagscope.studies.ready")
    return sorted(entry.name.removesuffix(".toml") for entry in folder.iterdir() if entry.name.endswith(".toml"))


def ready(name: str) -> str:
    """The study file of a ready study."""
    return resources.files("kagscope.studies.ready").joinpath(f"{name}.toml").read_text(encoding="utf-8")


def _parsed(path: Path, content: bytes) -> dict[str, Any]:
    try:
        if path.suffix == ".toml":
            values: Any = tomllib.loads(content.decode())
        elif path.suffix in (".yaml", ".yml"):
            import yaml

            values = yaml.safe_load(content)
        else:
            raise InputError(f"{path}: a study file ends in .toml, .yaml or .yml")
    except InputError:
        raise
    except Exception as error:  # the parsers' own errors, and text that is not UTF-8
        raise InputError(f"{path}: cannot be read as {path.suffix[1:]}: {' '.join(str(error).split())}") from error
    if not isinstance(values, dict):
        raise InputError(f"{path}: holds {type(values).__name__}; expected keys such as name, run, grid, measure")
    return values


def _override(values: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not re.fullmatch(r"[\w-]+(\.[\w-]+)*", key):
        raise InputError(f"--set is {override!r}; expected key=value, such as grid.width=[16,32] or run.epochs=5")
    try:
        value = tomllib.loads(f"x = {text}")["x"]
    except tomllib.TOMLDecodeError:
        value = text  # a plain word is itself
    place = values
    *parents, last = key.split(".")
    for parent in parents:
        inner = place.setdefault(parent, {})
        if not isinstance(inner, dict):
            raise InputError(f"--set {key}: {parent} is no table of the study file")
        place = inner
    place[last] = value


def configs(study: StudyFile, datasets: Mapping[str, Dataset]) -> list[RunConfig]:
    """Every run of a study, with defaults filled in for its data.

    Raises:
        InputError: settings that do not fit the data.
    """
    return [_config(values, study.measure, datasets[values.data]) for values in study.values()]


def _config(values: RunValues, measure: Measure, dataset: Dataset) -> RunConfig:
    n_inputs, small = dataset.n_inputs, dataset.n_inputs <= SMALL_IMAGE
    least = min(n_inputs, *values.hidden)
    if max(measure.k) > least:
        raise InputError(f"k = {max(measure.k)} needs at least as many inputs and units per layer; a run has {least}")
    batch_size = values.batch_size or (32 if small else 128)
    images = values.train_size or len(dataset.train_labels)
    if images > len(dataset.train_labels):
        raise InputError(f"train_size is {images}, but {values.data} has {len(dataset.train_labels)} training images")
    if batch_size > images:
        raise InputError(f"batch_size is {batch_size}, but there are {images} training images; use a smaller one")
    geometry = measure.geometry(n_inputs)
    if geometry.points > len(dataset.test_labels):
        raise InputError(f"points is {geometry.points}, but {values.data} has {len(dataset.test_labels)} test images")
    if measure.robustness is not None and dataset.is_regression:
        raise InputError(f"measure.robustness attacks classifiers, but {values.data} is a regression; leave it out")
    if measure.robustness is not None and not 0 <= dataset.test_images.min() <= dataset.test_images.max() <= 1:
        raise InputError(f"measure.robustness needs images in [0, 1]; {values.data} has others: scale them, or leave it out")
    if values.momentum and values.optimizer not in ("sgd", "rmsprop"):
        raise InputError(f"momentum is {values.momentum:g}, but {values.optimizer} takes none; vary it with sgd or rmsprop only")
    same = values.model_dump(exclude={"data", "width", "depth", "widths", "epochs", "batch_size"})
    if values.training == "standard":  # strengths that do nothing make no new run
        same |= {name: RunConfig.model_fields[name].default for name in ("rotation", "translation", "scale")}
    return RunConfig(
        data=values.data,
        data_fingerprint=dataset.fingerprint(),
        image_shape=dataset.image_shape,
        widths=values.hidden,
        epochs=values.epochs if values.epochs is not None else 60 if small else 10,
        batch_size=batch_size,
        checkpoints=measure.checkpoints,
        geometry=geometry,
        robustness=measure.robustness,
        **same,
    )


def schema() -> str:
    """JSON Schema of the study file."""
    described = StudyFile.model_json_schema()
    described["properties"]["run"]["properties"] = RunValues.model_json_schema()["properties"]
    return json.dumps(described, indent=1) + "\n"


TEMPLATE = """# A kagscope study. `kagscope study plan FILE` lists its runs, `kagscope study run FILE --out DIR` computes them.
name = "my-study"
description = "How width and label noise change the geometry."

[run]                          # what all runs share; everything left out has its default
{run}

[grid]                         # every combination of these
width = [16, 32, 64]
label_noise = [0.0, 0.2]
seed = {{ count = 3 }}           # 0, 1, 2; also {{ linspace = [a, b, n] }} and {{ geomspace = [a, b, n] }} for numbers

# [[zip]]                      # lists that go together, one entry after the other
# learning_rate = [1e-3, 3e-4]
# batch_size = [32, 128]

# [random]                     # random draws, combined with the grid
# count = 20
# seed = 0
# [random.draw]
# learning_rate = {{ log_uniform = [1e-4, 1e-2] }}   # also uniform, integers, choice
# activation = {{ choice = ["gelu", "relu"] }}

[measure]
k = [1, 2]                     # orders of the minors
checkpoints = 6                # steps at which geometry is followed
# points = 24                  # test images; default by the size of the images
# robustness = {{ linf = [0.05, 0.1], l2 = [0.5, 1.0], points = 500, steps = 20 }}   # adversarial accuracy, calibration
"""


def template() -> str:
    """A commented study file that runs as it is."""
    lines = []
    for name, field in RunValues.model_fields.items():
        if name in ("width", "widths", "label_noise", "seed"):
            continue
        about = field.description or _choices(field.annotation)
        value, mark = ("…", "# ") if field.default is None else (json.dumps(field.default), "")
        lines.append(f"{mark}{f'{name} = {value}':<32}  # {about}".rstrip(" #"))
    return TEMPLATE.format(run="\n".join(lines))


def _choices(annotation: Any) -> str:
    values = getattr(annotation, "__args__", ())
    return ", ".join(map(str, values)) if values and all(isinstance(value, str) for value in values) else ""
