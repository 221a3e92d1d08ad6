"""The reproduction as a ready study: from options of ``kagscope reproduce`` to a study file."""

from __future__ import annotations

import re
import shlex
import tomllib
from collections.abc import Mapping
from typing import Any

from kagscope.base.errors import InputError
from kagscope.base.validation import validate
from kagscope.studies.file import StudyFile, ready_study

PLACES = {
    "data": "run.data",
    "widths": "grid.width",
    "depth": "run.depth",
    "activation": "run.activation",
    "seeds": "grid.seed.count",
    "epochs": "run.epochs",
    "batch_size": "run.batch_size",
    "learning_rate": "run.learning_rate",
    "weight_decay": "run.weight_decay",
    "normalize": "run.normalize",
    "checkpoints": "measure.checkpoints",
    "k": "measure.k",
    "points": "measure.points",
    "exact": "measure.exact",
}
"""Location of options in a study file; ``training`` and ``control`` set ``zip``."""
CONTROLS = ("shuffled", "none")
QUICK: dict[str, Any] = {
    "data": "digits",
    "widths": (16, 32),
    "training": ("standard",),
    "control": "none",
    "seeds": 3,
    "epochs": 20,
    "checkpoints": 2,
    "k": (1, 2),
    "points": 5,
}
"""Options of a quick run within seconds, in place of those not given."""


def reproduction(**options: Any) -> StudyFile:
    """The study ``reproduce`` with values replaced by these options (names of :data:`PLACES`, None for the default).

    ``control="none"`` leaves out the nets on shuffled labels; else these use "standard" training, or the only training
    requested.

    Raises:
        InputError: an unknown option or an invalid value; the message names the option.
    """
    control, trainings = (options.pop(name, None) for name in ("control", "training"))
    control = CONTROLS[0] if control is None else control
    if unknown := options.keys() - PLACES.keys():
        raise InputError(
            f"there is no option {', '.join(sorted(unknown))}; expected some of {', '.join(PLACES)}, training, control"
        )
    if control not in CONTROLS:
        raise InputError(f"--control is {control!r}; expected {' or '.join(CONTROLS)}")
    values = tomllib.loads(ready_study("reproduce"))
    kinds, trainings = values["zip"][0], ("standard", "augmented") if trainings is None else trainings
    kinds["training"] = trainings
    if isinstance(trainings, tuple | list):  # else validation raises
        controls = [] if control == "none" else ["standard"] if "standard" in trainings else trainings[:1]
        kinds |= {"training": [*trainings, *controls], "labels": ["true"] * len(trainings) + ["shuffled"] * len(controls)}
    for name, value in options.items():
        if value is not None:
            table, *inner = PLACES[name].split(".")
            node = values[table]
            for key in inner[:-1]:
                node = node[key]
            node[inner[-1]] = list(value) if isinstance(value, tuple) else value
    try:
        file = validate(StudyFile, values)
        file.values()  # raises for invalid values of runs
    except InputError as error:
        raise InputError(as_options(str(error))) from None
    return file


def as_options(message: str) -> str:
    """Rewrite locations in the study file in an error message as options."""
    for option, key in {**PLACES, "training": "zip.training"}.items():
        message = re.sub(rf"^{re.escape(key.removesuffix('.count'))}(\.count)?\b", f"--{option.replace('_', '-')}", message)
    return message


def command(options: Mapping[str, Any], out: Any) -> str:
    """Command line that runs this study again."""
    words = ["kagscope", "reproduce", "--out", str(out)]
    for name, value in options.items():
        if value is not None and value is not False:
            text = ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
            words += [f"--{name.replace('_', '-')}", *([] if value is True else [text])]
    return shlex.join(words)
