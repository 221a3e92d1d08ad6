"""Format numbers for people and for the page's script."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd
from markupsafe import Markup, escape

DIGITS = 4  # significant digits of embedded numbers, as shown on the page


def number(value: Any, digits: int = 3, fixed: bool = False) -> Markup:
    """A number formatted for people, a dash if missing; text is escaped.

    ``fixed`` keeps trailing zeros, so that 0.9996 is written 1.00, not as an integer.
    """
    if value is None or isinstance(value, str):
        return escape(value) if value else Markup("–")
    if isinstance(value, bool):
        return escape("yes" if value else "no")
    if not math.isfinite(float(value)):
        return Markup("–")
    text = (f"{float(value):#.{digits}g}".rstrip(".") if fixed and value else f"{float(value):.{digits}g}").replace("-", "−")
    if "e" in text:
        mantissa, exponent = text.split("e")
        return Markup("{} × 10<sup>{}</sup>").format(mantissa, exponent.replace("−0", "−").replace("+0", "").replace("+", ""))
    return escape(text)


def text_cell(value: Any) -> dict[str, Any]:
    """Text cell of a sortable table."""
    return {"text": str(value) if value not in ("", None) else "–", "value": None}


def number_cell(value: Any, sampled: bool = False) -> dict[str, Any]:
    """Number cell of a sortable table: formatted text, with ``~`` if sampled, and the value to sort by."""
    if value is None or not math.isfinite(float(value)):
        return {"text": "–", "value": ""}
    shown = number(value, fixed=not isinstance(value, int | np.integer))
    return {"text": (escape("~ ") if sampled else escape("")) + shown, "value": clean(value, 8)}


def clean(value: Any, digits: int = DIGITS) -> float | int | None:
    """A number rounded to ``digits`` significant digits; integers are unchanged, None if not finite."""
    as_float = float(value)
    if not math.isfinite(as_float):
        return None
    rounded = as_float if as_float.is_integer() else float(f"{as_float:.{digits}g}")
    return int(rounded) if rounded.is_integer() and abs(rounded) < 1e15 else rounded


def groups(table: pd.DataFrame, keys: Sequence[str]) -> Iterator[tuple[Any, pd.DataFrame]]:
    """Group ``table`` by ``keys``, in order of appearance."""
    yield from table.groupby(list(keys), observed=True, sort=False)


def compact_json(data: object) -> str:
    """JSON without spaces or NaN."""
    return json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
