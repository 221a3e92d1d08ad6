"""Sentences for users: findings, shortened lists, and suggestions of close names."""

from __future__ import annotations

import difflib
import json
import logging
import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any, Self

Number = float | int | str


class Finding(str):
    """A sentence about results that is also data: a code and the numbers in it.

    It behaves as a plain string: it can be joined, printed, pickled, written as JSON.

    Attributes:
        code: kind of finding, such as "not_learned"; the same in every version.
        numbers: the numbers and names in the sentence, by name; read-only.

    Examples:
        >>> found = Finding("3 of 8 nets did not learn.", code="not_learned", nets=3, of=8)
        >>> found.code, dict(found.numbers), found.upper()
        ('not_learned', {'nets': 3, 'of': 8}, '3 OF 8 NETS DID NOT LEARN.')
    """

    code: str
    numbers: Mapping[str, Number]

    def __new__(cls, text: str, *, code: str, **numbers: Number) -> Self:
        """Make a finding from its sentence, code and numbers."""
        finding = super().__new__(cls, text)
        finding.code, finding.numbers = code, MappingProxyType(numbers)
        return finding

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle and copy text, code and numbers."""
        return _finding, (str(self), self.code, dict(self.numbers))


def _finding(text: str, code: str, numbers: Mapping[str, Number]) -> Finding:
    return Finding(text, code=code, **numbers)


INVALIDATES = frozenset(
    ("nothing_measured", "not_trained", "not_learned", "accuracy_lost", "low_accuracy", "looks_untrained", "is_its_baseline")
)
"""Codes of findings that change how the others must be read."""
RESULTS = frozenset(
    (
        *("verdicts", "concentration", "no_concentration", "layers_above_baseline", "layer_course", "pr_growth"),
        *("phase_count", "phase_where", "phase_onset", "training_effect", "study_effect", "category_effect", "trend"),
        *("relations", "strongest_relation", "constant_units", "unfelt_units"),
    )
)
"""Codes of findings that state results; of the rest, caveats come before how things were measured."""
MANNER = frozenset(
    ("course", "sampled", "all_exact", "undefined", "note", "layer_note", "runs", "left_out", "more_left_out", "thinned")
)
"""Codes of findings that state how things were measured."""


def strongest_first(findings: Iterable[Finding]) -> list[Finding]:
    """Sort findings stably: those that change how others are read, results, caveats, then how things were measured."""

    def rank(finding: Finding) -> int:
        return 0 if finding.code in INVALIDATES else 1 if finding.code in RESULTS else 3 if finding.code in MANNER else 2

    return sorted(findings, key=rank)


def listing(names: Iterable[object], at_most: int = 6) -> str:
    """``"a, b, c"``, cut after ``at_most`` names with a count of the rest."""
    texts = [str(name) for name in names]
    shown = ", ".join(texts[:at_most])
    return f"{shown} and {len(texts) - at_most} more" if len(texts) > at_most else shown


def describe_error(error: float) -> str:
    """Describe the relative standard errors of sampled numbers by their median; NaN if none is known."""
    return "errors that are not known" if math.isnan(error) else f"a median standard error of {error:.2%}"


def group_by_order(pairs: Iterable[tuple[str, int]]) -> str:
    """List scores by order of minors: ``"pr, ipr (k = 2); pr (k = 3)"``."""
    scores: dict[int, set[str]] = {}
    for score, k in pairs:
        scores.setdefault(k, set()).add(score)
    return "; ".join(f"{', '.join(sorted(names))} (k = {k})" for k, names in sorted(scores.items()))


def close_names(name: str, known: Iterable[str], at_most: int = 3) -> str:
    """``" (did you mean a or b?)"``, or "" if no known name is close."""
    matches = difflib.get_close_matches(name, list(known), n=at_most, cutoff=0.6)
    return f" (did you mean {' or '.join(matches)}?)" if matches else ""


def differences(there: Any, here: Any, name: str = "") -> list[str]:
    """Differences between two nested mappings of plain values, each as "run.epochs is 20 there and 10 here"."""
    if isinstance(there, Mapping) and isinstance(here, Mapping):
        keys = dict.fromkeys([*there, *here])
        path = {key: f"{name}.{key}" if name else str(key) for key in keys}
        return [line for key in keys for line in differences(there.get(key), here.get(key), path[key])]
    return [] if there == here else [f"{name} is {_short_json(there)} there and {_short_json(here)} here"]


def _short_json(value: Any) -> str:
    text = "not given" if value is None else json.dumps(value)
    return text if len(text) <= 60 else f"{text[:59]}…"


def one_line(error: BaseException, at_most: int | None = None) -> str:
    """An error's message in one line, cut after ``at_most`` letters; its type if it has none."""
    return " ".join(str(error).split())[:at_most] or type(error).__name__


def reason_of(error: BaseException) -> str:
    """What the system says of an error, or else what the error says."""
    return (error.strerror if isinstance(error, OSError) else None) or one_line(error)


@contextmanager
def only_errors(logger: logging.Logger) -> Iterator[None]:
    """Let a library log nothing below errors; the exception that follows says the rest in one line."""
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
