"""Help for writing study files: a commented template that runs as it is, and the JSON Schema for completion in editors."""

from __future__ import annotations

import json
import textwrap
from typing import Any

from pydantic import BaseModel

from kagscope.studies.axes import RunValues
from kagscope.studies.file import StudyFile
from kagscope.studies.measure import Measure, RobustnessSettings

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

[measure]                      # what is left out has its default; what is not asked for costs nothing
k = [1, 2]                     # orders of the minors
checkpoints = 6                # steps at which geometry is measured, the first and last included
{measure}

# [measure.along]              # any of the above, otherwise between the first and the last step
# points = 8

# [measure.robustness]         # adversarial accuracy and calibration, of classifiers of images in [0, 1]
{robustness}
"""

WIDE = 110  # length of a line with its comment

EXAMPLES = {
    "selections": '["all", "ball(2)", "apart(4)"]',
    "layers": '["first", "last"]',
    "scores": '["pr", "kl_uniform", "rr_pr", "zero_rows"]',
    "schedule": '"linear"',
}


def schema() -> str:
    """JSON Schema of the study file."""
    described = StudyFile.model_json_schema()
    described["properties"]["run"]["properties"] = RunValues.model_json_schema()["properties"]
    return json.dumps(described, indent=1) + "\n"


def template() -> str:
    """A commented study file that runs as it is."""
    return TEMPLATE.format(
        run=_lines(RunValues, ("width", "widths", "label_noise", "seed")),
        measure=_lines(Measure, ("k", "checkpoints", "along", "robustness"), off=True),
        robustness=_lines(RobustnessSettings, (), off=True),
    )


def _lines(model: type[BaseModel], without: tuple[str, ...], *, off: bool = False) -> str:
    """A line for every field: its default or an example, and its description; commented out without default or with ``off``."""
    lines = []
    for name, field in model.model_fields.items():
        if name in without:
            continue
        text = field.description or _choices(field.annotation)
        value = EXAMPLES.get(name, "…") if field.default is None else EXAMPLES.get(name) or json.dumps(field.default)
        mark = "# " if off or field.default is None else ""
        line = f"{mark}{f'{name} = {value}':<{28 if mark else 30}}"
        if len(line) + len(text) > WIDE:
            lines += textwrap.wrap(text, WIDE, initial_indent="# ", subsequent_indent="# ")
            text = ""
        lines.append(f"{line}  # {text}".rstrip(" #"))
    return "\n".join(lines)


def _choices(annotation: Any) -> str:
    values = getattr(annotation, "__args__", ())
    return ", ".join(map(str, values)) if values and all(isinstance(value, str) for value in values) else ""
