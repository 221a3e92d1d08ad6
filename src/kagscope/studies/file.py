"""The study file: TOML, read, overridden from the command line, validated, and turned into runs."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import Field, model_validator

from kagscope.base.errors import DataError, InputError
from kagscope.base.files import open_regular
from kagscope.base.messages import close_names, one_line
from kagscope.base.validation import validate
from kagscope.data import Dataset
from kagscope.steering.gradients import NORMS
from kagscope.studies.axes import Axes, RunValues
from kagscope.studies.config import AUGMENTATION, OF_A_LAYER, PENALTY, SMALL_IMAGE, RunConfig, Strict
from kagscope.studies.measure import Job, Measure, Measurements
from kagscope.studies.ready import ready_names
from kagscope.studies.relations import SCORES
from kagscope.training.first_layer import IMITATING
from kagscope.training.vit import check_vit

MAX_BYTES = 2**20
FEW_IMAGES = 20_000  # in a training set; fewer are trained on for twice as many epochs


class Relations(Strict):
    """Scores and outcomes to correlate, chosen before the runs, as every additional pair costs power."""

    scores: tuple[str, ...] = Field(default=SCORES, description="names of scores")
    outcomes: tuple[str, ...] = Field(
        default=(), description="accuracies and the like, such as accuracy or pgd_linf_0.1; by default all that differ"
    )


class StudyFile(Axes):
    """A study: its name, what all runs share (``run``), what varies (``grid``, ``zip``, ``random``), what is measured."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$", description="letters, digits, dots, dashes, underscores")
    description: str = ""
    claims: bool = Field(
        default=False, description="test the article's claims; the folder then holds this very study, which cannot grow"
    )
    relations: Relations = Field(default_factory=Relations, description="which correlations of geometry are asked for")
    run: dict[str, Any] = Field(default_factory=dict, description="values that every run has")
    measure: Measure = Field(default_factory=Measure)

    @model_validator(mode="before")
    @classmethod
    def _penalty(cls, tables: Any) -> Any:
        """``penalty = {score = "pr", weight = [-0.1, 0]}`` in [run] or [grid]: a list is an axis, another value every run's."""
        if not isinstance(tables, dict):
            return tables
        tables = dict(tables)
        for section in ("run", "grid"):
            table = tables.get(section)
            if not isinstance(table, dict) or not isinstance(table.get("penalty"), dict):
                continue
            tables[section] = {name: value for name, value in table.items() if name != "penalty"}
            for name, value in table["penalty"].items():
                target = "grid" if isinstance(value, list | dict) else "run"
                tables[target] = {**tables.get(target, {}), f"penalty_{name}": value}
        return tables

    def values(self) -> list[RunValues]:
        """Distinct values of runs, in the order of the axes.

        Raises:
            InputError: a run has an invalid value; the message names the run.
        """
        twice = [name for name in self.run if name in self.names()]
        if twice:
            verb = "is" if len(twice) == 1 else "are"
            raise InputError(f"{', '.join(twice)} {verb} set in [run] and varied as well; leave one of the two out")
        unique: dict[str, RunValues] = {}
        for point in self.points():
            try:
                run = validate(RunValues, self.run | point)
            except InputError as error:
                raise InputError(f"{self._dotted_name(str(error).partition(':')[0])}{error}") from None
            unique.setdefault(run.model_dump_json(), run)
        return list(unique.values())

    def data_names(self) -> set[str]:
        """Data sets that the runs need, including those of nets that provide first layers."""
        runs = self.values()
        return {run.data for run in runs} | {run.first_layer_data for run in runs if run.first_layer_data}

    def _dotted_name(self, name: str) -> str:
        """Dotted name of a value, with its table."""
        if name in self.grid:
            return "grid."
        if any(name in block for block in self.zip):
            return "zip."
        if self.random is not None and name in self.random.draw:
            return "random.draw."
        return "run." if name != "settings" else ""


def read_study_file(path: str | Path, overrides: Sequence[str] = ()) -> StudyFile:
    """Read and validate a study file.

    Args:
        path: a ``.toml`` file, or the name of a ready study.
        overrides: ``key=value`` as for ``--set``: dotted keys, values in TOML, such as ``grid.width=[16,32]``.

    Raises:
        DataError: the file is missing or cannot be read.
        InputError: not TOML, an unknown key, or an invalid value.
    """
    known = ready_names()
    if str(path) not in known and not Path(path).suffix and not Path(path).exists():
        close = close_names(str(path), known)
        raise InputError(f"{path}: neither a file nor a ready study{close}; ready are {', '.join(known)}")
    values = tomllib.loads(ready_study(str(path))) if str(path) in known else _read(Path(path))
    for override in overrides:
        _override(values, override)
    return validate(StudyFile, values)


def _read(path: Path) -> dict[str, Any]:
    with open_regular(path) as stream:
        content = stream.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise DataError(f"{path}: larger than {MAX_BYTES // 2**20} MiB; expected a short study file")
    if path.suffix != ".toml":
        raise InputError(f"{path}: a study file ends in .toml")
    try:
        return tomllib.loads(content.decode("utf-8-sig"))  # editors on Windows begin with a byte order mark
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as toml: {one_line(error)}") from error


def ready_study(name: str) -> str:
    """Text of the study file of a ready study."""
    return resources.files("kagscope.studies.ready").joinpath(f"{name}.toml").read_text(encoding="utf-8")


def _override(values: dict[str, Any], override: str) -> None:
    """Set ``key=value`` in the tables and lists of a file: ``grid.width=[8]``, ``zip.0.seed=[1, 2]``."""
    key, equals, text = (text_part.strip() for text_part in override.partition("="))
    if not equals or not re.fullmatch(r"[\w-]+(\.[\w-]+)*", key):
        raise InputError(f"--set is {override!r}; expected key=value, such as grid.width=[16,32] or run.epochs=5")
    node: Any = values
    *parents, last = key.split(".")
    for parent in parents:
        node = node.setdefault(parent, {}) if isinstance(node, dict) else node[_index(key, parent, node)]
        if not isinstance(node, dict | list):
            raise InputError(f"--set {key}: {parent} is {node!r}, no table or list of the study file")
    node[last if isinstance(node, dict) else _index(key, last, node)] = _value(key, text)


def _index(key: str, text: str, entries: list[Any]) -> int:
    if not text.isdecimal() or int(text) >= len(entries):
        raise InputError(f"--set {key}: {text!r} is not a place in a list of {len(entries)}; expected a number from 0")
    return int(text)


def _value(key: str, text: str) -> Any:
    try:
        return tomllib.loads(f"x = {text}")["x"]
    except tomllib.TOMLDecodeError as error:
        if not text or text[0] in "[{\"'":
            raise InputError(f"--set {key}: {text!r} cannot be read ({error}); expected a value as in TOML") from None
        return text  # a plain word


def list_jobs(study: StudyFile, datasets: Mapping[str, Dataset]) -> list[Job]:
    """Every run of a study and its measurements, with defaults that depend on its data.

    Raises:
        InputError: settings do not fit the data.
    """
    known: dict[tuple[str, str, int, tuple[int, ...]], Measurements] = {}
    jobs = []
    for values in study.values():
        dataset = datasets[values.data]
        if values.first_layer_data and datasets[values.first_layer_data].image_shape != dataset.image_shape:
            shape = datasets[values.first_layer_data].image_shape
            raise InputError(f"first_layer_data is {values.first_layer_data}, whose images are {shape}; expected those of "
                             f"{values.data}, {dataset.image_shape}")  # fmt: skip
        run = _config(values, study.measure, dataset)
        key = (run.data_fingerprint, run.architecture, len(run.widths), run.steps)
        if key not in known:
            known[key] = _measurements(study.measure, dataset, run)
        _check_orders(known[key], dataset, run)
        jobs.append(Job(run, known[key]))
    return jobs


def _config(values: RunValues, measure: Measure, dataset: Dataset) -> RunConfig:
    _check_task(values, dataset)
    small = dataset.n_inputs <= SMALL_IMAGE
    batch_size = values.batch_size or (32 if small else 128)
    images = values.train_size or len(dataset.train_labels)
    if images > len(dataset.train_labels):
        raise InputError(f"train_size is {images}, but {values.data} has {len(dataset.train_labels)} training images")
    if batch_size > images:
        raise InputError(f"batch_size is {batch_size}, but there are {images} training images; use a smaller one")
    usual = 60 if small else 20 if images <= FEW_IMAGES else 10
    epochs = values.epochs if values.epochs is not None else usual
    same = values.model_dump(exclude={"data", "width", "depth", "widths", "epochs", "batch_size"})
    if values.training == "standard":  # strengths without effect make no new run
        same |= {name: RunConfig.model_fields[name].default for name in AUGMENTATION}
    if values.first_layer not in IMITATING or values.first_layer_data == values.data:
        same["first_layer_data"] = None
    if not values.penalty_weight:
        same |= {name: RunConfig.model_fields[name].default for name in PENALTY}
    elif values.penalty_score in NORMS:
        same |= {name: RunConfig.model_fields[name].default for name in OF_A_LAYER}
    config = RunConfig(
        data=values.data,
        data_fingerprint=dataset.fingerprint(),
        image_shape=dataset.image_shape,
        widths=values.hidden,
        epochs=epochs,
        batch_size=batch_size,
        steps=measure.checkpoint_steps(epochs, -(-images // batch_size)),
        **same,
    )
    config.training_settings()  # raises if settings do not fit
    if config.architecture == "vit":
        check_vit(config.widths, config.image_shape)
    return config


def _check_task(values: RunValues, dataset: Dataset) -> None:
    """Raise :class:`InputError` if a regression on points in space is given settings for images with labels."""
    if not dataset.is_regression:
        return
    if values.training == "augmented":
        raise InputError(
            f"training is 'augmented', but {values.data} is a regression on points, not on images; expected 'standard'"
        )
    if values.label_noise:
        raise InputError(f"label_noise is {values.label_noise:g}, but {values.data} is a regression without labels; expected 0")


def _measurements(measure: Measure, dataset: Dataset, run: RunConfig) -> Measurements:
    measurements = measure.of_run(dataset, len(run.widths), run.steps, run.architecture)
    points, images = max((spec.points or 0 for spec in measurements.specs.values()), default=0), len(dataset.test_labels)
    if points > images:
        raise InputError(f"points is {points}, but {run.data} has {images} test images")
    if measure.robustness is not None and dataset.is_regression:
        raise InputError(f"measure.robustness attacks classifiers, but {run.data} is a regression; leave it out")
    if measure.robustness is not None and not 0 <= dataset.test_images.min() <= dataset.test_images.max() <= 1:
        raise InputError(f"measure.robustness needs images in [0, 1]; {run.data} has others: scale them, or leave it out")
    return measurements


def _check_orders(measurements: Measurements, dataset: Dataset, run: RunConfig) -> None:
    smallest = min(dataset.n_inputs, *run.widths)
    largest = max(k for spec in measurements.specs.values() for k in spec.k)
    if largest > smallest:
        raise InputError(f"k = {largest} needs at least as many inputs and units per layer; a run has {smallest}")
