"""Reasons why a number is undefined: sentences for tables, and a code for each that is stable across versions."""

from __future__ import annotations

import re

_PATTERNS: dict[str, re.Pattern[str]] = {}


def _reason(code: str, text: str) -> str:
    _PATTERNS[code] = re.compile(re.sub(r"\\\{\w+\\\}", ".+", re.escape(text)), re.DOTALL)
    return text


ALL_ZERO = _reason("all_zero", "undefined: every minor is zero")
OUT_OF_RANGE = _reason("out_of_range", "undefined: what it is made of leaves the range of float64")
ZERO_JACOBIAN = _reason("zero_jacobian", "undefined: the Jacobian is zero")
EMPTY_SELECTION = _reason("empty_selection", "undefined: no column subset in this selection")
NO_MINORS = _reason("no_minors", "undefined: a {rows} x {columns} matrix has no {k} x {k} minors")
RANK_BELOW_K = _reason("rank_below_k", "undefined: numerical rank below {k}, so that the minors are rounding noise")
NOT_SEEN = _reason("not_seen", "undefined: no nonzero minor was met in sampling, which is no proof that there is none")
ROWS_DRAWN = _reason(
    "rows_drawn", "undefined: only {rows} of the layer's {units} rows were drawn, which do not determine this score"
)
OTHER_MINORS = _reason("other_minors", "undefined: the network has {own}, its baseline {other}")
FEW_COLUMNS = _reason("few_columns", "undefined: fewer than two nonzero columns")
CONSTANT_ACTIVATIONS = _reason("constant_activations", "undefined: the activations are constant")
FEW_ACTIVATIONS = _reason("few_activations", "undefined: too few distinct activations")
OWN_SCORE_NAN = _reason("own_score_nan", "undefined: the score gave NaN")
SKIPPED = _reason("skipped", "skipped: {reason}")
OTHER = "other"


def code_of(reason: str) -> str:
    """The code of a reason as it stands in a table; "" for no reason, "other" for one of a score of the user's own."""
    if not reason:
        return ""
    return next((code for code, pattern in _PATTERNS.items() if pattern.fullmatch(reason)), OTHER)
