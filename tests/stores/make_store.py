"""Make the store that all later versions must open: ``python tests/stores/make_store.py v2`` writes it beside this file.

Made once for a version of the store and never again: what later versions write is not what they have to read.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kagscope.base.validation import validate
from kagscope.studies.execute.base import Failure, OnEvent, Work, attempt
from kagscope.studies.file import StudyFile
from kagscope.studies.study import run_study

STUDY: dict[str, Any] = {
    "name": "kept",
    "run": {"data": "digits", "epochs": 1, "train_size": 64},
    "grid": {"width": [3, 4], "seed": [0, 1]},
    "measure": {
        "k": [1, 2],
        "checkpoints": 3,
        "selections": ["all", "ball(2)"],
        "points": 2,
        "rotation_points": 1,
        "rotations": 2,
        "samples": 20,
        "unit_points": 20,
        "robustness": {"linf": [0.1], "l2": [], "points": 10, "steps": 2},
    },
}
KEPT = {"study.json", "runs"}  # the rest is made of these


class Here:
    """Runs tasks in this process."""

    workers = 1

    def run(self, tasks: Sequence[Any], work: Work, on_event: OnEvent) -> list[Failure]:
        return [failure for task in tasks if (failure := attempt(task, work, on_event))]


if __name__ == "__main__":
    folder = Path(__file__).parent / sys.argv[1]
    run_study(validate(StudyFile, STUDY), folder, executor=Here(), pictures=False)
    for entry in folder.iterdir():
        if entry.name not in KEPT:
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
