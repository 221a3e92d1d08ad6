"""Find the checkpoints of a training run, with their steps, from file names and patterns."""

from __future__ import annotations

import glob
import itertools
import os
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kagscope.base.errors import DataError, InputError
from kagscope.base.messages import close_names, listing
from kagscope.loading.weights import weights_in

LABELS = ("step", "steps", "iter", "iteration", "it", "checkpoint", "ckpt", "epoch", "ep")
"""Words before the number that is the step, in order of preference."""

_NUMBER = re.compile(r"\d+")
_WORD_BEFORE = re.compile(r"([a-z]*)[^a-z0-9]*$")


@dataclass(frozen=True)
class Checkpoint:
    """A file of weights and the step in its name."""

    step: int
    path: Path


def is_pattern(name: str) -> bool:
    """Whether ``name`` is a pattern: it has ``*``, ``?`` or ``[…]`` and is not a file itself."""
    return glob.has_magic(name) and not Path(name).exists()


def find_checkpoints(names: str | os.PathLike[str] | Sequence[str | os.PathLike[str]]) -> list[Checkpoint]:
    """Find the checkpoints that match names and patterns, sorted by step.

    The step is read from the path: of the numbers in which the paths differ, the one after a word of :data:`LABELS`
    (``epoch=1-step=400.ckpt`` is step 400), else the last (``run3_100.pt`` beside ``run3_200.pt`` is step 100,
    ``checkpoint-500/model.safetensors`` is step 500).

    Raises:
        InputError: nothing is given, a path has no number, or two have the same step.
        DataError: a pattern matches no file. A name that is not a file is kept and fails when it is read.
    """
    patterns: list[Any] = list(names) if isinstance(names, Iterable) and not isinstance(names, str | bytes) else [names]
    for name in patterns:
        if not isinstance(name, str | os.PathLike):
            kind = type(name).__name__
            raise InputError(f"checkpoints are of type {kind}; expected files or patterns, or weights by step, {{0: state_dict}}")
    if not patterns:
        raise InputError("no checkpoint was given; expected files, or a pattern such as 'run/step_*.safetensors'")
    paths = list(dict.fromkeys(path for name in patterns for path in _expand(os.fspath(name))))
    checkpoints = sorted(
        (Checkpoint(step, Path(path)) for step, path in zip(_steps(paths), paths, strict=True)),
        key=lambda c: c.step,
    )
    for first, second in itertools.pairwise(checkpoints):
        if first.step == second.step:
            raise InputError(
                f"{first.path} and {second.path} both have step {first.step} in their names; give one of them, or rename them"
            )
    return checkpoints


def _expand(name: str) -> list[str]:
    if not is_pattern(name):
        return [name]
    paths = [path for path in glob.glob(name, recursive=True) if not Path(path).is_dir() or weights_in(Path(path))]
    if not paths:
        folder = Path(name).parent
        entries = [str(entry) for entry in folder.iterdir()] if folder.is_dir() else []
        content = f"; {folder} holds {listing(sorted(Path(b).name for b in entries), 4)}" if entries else ""
        raise DataError(f"no file is named like {name!r}{close_names(name, entries, 1) or content}")
    return paths


def _steps(paths: Sequence[str]) -> list[int]:
    """The step in each path."""
    numbers = [list(_NUMBER.finditer(path)) for path in paths]
    for path, matches in zip(paths, numbers, strict=True):
        if not matches:
            raise InputError(
                f"{path}: there is no number in its name to tell its step; rename it, or leave it out of the pattern"
            )
    alike = len({_NUMBER.sub("0", path) for path in paths}) == 1
    if len(paths) == 1 or not alike:
        return [_step_number(path, matches, range(len(matches))) for path, matches in zip(paths, numbers, strict=True)]
    differing = [i for i in range(len(numbers[0])) if len({int(matches[i].group()) for matches in numbers}) > 1]
    if not differing:
        repeated = Counter(int(matches[-1].group()) for matches in numbers)
        raise InputError(f"{listing(paths, 3)}: the numbers in these names do not differ (step {next(iter(repeated))})")
    return [_step_number(path, matches, differing) for path, matches in zip(paths, numbers, strict=True)]


def _step_number(path: str, numbers: Sequence[re.Match[str]], places: Sequence[int]) -> int:
    """The number after one of :data:`LABELS`, else the last in the file's name, else the last in the path."""
    words: dict[str, int] = {}
    for index in places:
        before = _WORD_BEFORE.search(path[: numbers[index].start()].lower())
        words.setdefault(before.group(1) if before else "", index)
    for label in LABELS:
        if label in words:
            return int(numbers[words[label]].group())
    return int(numbers[places[-1]].group())
