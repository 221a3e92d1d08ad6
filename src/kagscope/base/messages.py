"""Small sentences of error messages: lists cut short, and names that are close to one that is not there."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def listed(names: Iterable[object], at_most: int = 6) -> str:
    """``"a, b, c"``, cut after ``at_most`` with how many more there are."""
    texts = [str(name) for name in names]
    shown = ", ".join(texts[:at_most])
    return f"{shown} and {len(texts) - at_most} more" if len(texts) > at_most else shown


def close_names(name: str, known: Iterable[str], at_most: int = 3) -> str:
    """``" (did you mean a or b?)"``, or nothing where no known name is close."""
    matches = difflib.get_close_matches(name, list(known), n=at_most, cutoff=0.6)
    return f" (did you mean {' or '.join(matches)}?)" if matches else ""
