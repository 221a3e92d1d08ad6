"""Sentences that users read: findings, lists cut short, and names that are close to one that is not there."""

from __future__ import annotations

import difflib
import json
import math
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any, Self

Number = float | int | str


class Finding(str):
    """A sentence about results that also is data: it says what was found, and with which numbers.

    It is a plain string wherever one is expected: joined, printed, pickled, written as JSON.

    Attributes:
        code: what kind of finding it is, such as "not_learned"; the same in every version.
        numbers: the numbers and names that the sentence gives, by name; read-only.

    Examples:
        >>> found = Finding("3 of 8 nets did not learn.", code="not_learned", nets=3, of=8)
        >>> found.code, dict(found.numbers), found.upper()
        ('not_learned', {'nets': 3, 'of': 8}, '3 OF 8 NETS DID NOT LEARN.')
    """

    code: str
    numbers: Mapping[str, Number]

    def __new__(cls, text: str, *, code: str, **numbers: Number) -> Self:
        """A finding of this sentence; what it is called and its numbers are keywords."""
        found = super().__new__(cls, text)
        found.code, found.numbers = code, MappingProxyType(numbers)
        return found

    def __reduce__(self) -> tuple[Any, ...]:
        """How it is pickled and copied: text, code and numbers."""
        return _finding, (str(self), self.code, dict(self.numbers))


def _finding(text: str, code: str, numbers: Mapping[str, Number]) -> Finding:
    return Finding(text, code=code, **numbers)


INVALIDATES = frozenset(
    ("nothing_measured", "not_trained", "not_learned", "accuracy_lost", "low_accuracy", "looks_untrained", "is_its_baseline")
)
"""Codes of findings without which the others would be misread."""
RESULTS = frozenset(
    (
        *("verdicts", "concentration", "no_concentration", "layers_above_baseline", "layer_course", "pr_growth"),
        *("phase_count", "phase_where", "phase_onset", "training_effect", "study_effect", "category_effect", "trend"),
        *("relations", "strongest_relation", "constant_units", "unfelt_units"),
    )
)
"""Codes of findings that say what came out; of the rest, what to distrust comes before how things were measured."""
MANNER = frozenset(
    ("course", "sampled", "all_exact", "undefined", "note", "layer_note", "runs", "left_out", "more_left_out", "thinned")
)
"""Codes of findings that say how it was measured."""


def strongest_first(findings: Iterable[Finding]) -> list[Finding]:
    """What would make the others misread, results, what to distrust, then how it was measured; as they stand within each."""

    def place(one: Finding) -> int:
        return 0 if one.code in INVALIDATES else 1 if one.code in RESULTS else 3 if one.code in MANNER else 2

    return sorted(findings, key=place)


def listing(names: Iterable[object], at_most: int = 6) -> str:
    """``"a, b, c"``, cut after ``at_most`` with how many more there are."""
    texts = [str(name) for name in names]
    shown = ", ".join(texts[:at_most])
    return f"{shown} and {len(texts) - at_most} more" if len(texts) > at_most else shown


def median_error(error: float) -> str:
    """What is said of the relative standard errors of sampled numbers, by their median; NaN where none is known."""
    return "errors that are not known" if math.isnan(error) else f"a median standard error of {error:.2%}"


def by_order(pairs: Iterable[tuple[str, int]]) -> str:
    """Scores and orders of minors: ``"pr, ipr (k = 2); pr (k = 3)"``, each order once."""
    found: dict[int, set[str]] = {}
    for score, k in pairs:
        found.setdefault(k, set()).add(score)
    return "; ".join(f"{', '.join(sorted(names))} (k = {k})" for k, names in sorted(found.items()))


def close_names(name: str, known: Iterable[str], at_most: int = 3) -> str:
    """``" (did you mean a or b?)"``, or nothing where no known name is close."""
    matches = difflib.get_close_matches(name, list(known), n=at_most, cutoff=0.6)
    return f" (did you mean {' or '.join(matches)}?)" if matches else ""


def differences(there: Any, here: Any, name: str = "") -> list[str]:
    """What differs between two nested mappings of plain values, each as "run.epochs is 20 there and 10 here"."""
    if isinstance(there, Mapping) and isinstance(here, Mapping):
        keys = dict.fromkeys([*there, *here])
        return [one for key in keys for one in differences(there.get(key), here.get(key), f"{name}.{key}" if name else str(key))]
    return [] if there == here else [f"{name} is {_short_json(there)} there and {_short_json(here)} here"]


def _short_json(value: Any) -> str:
    text = "not given" if value is None else json.dumps(value)
    return text if len(text) <= 60 else f"{text[:59]}…"
