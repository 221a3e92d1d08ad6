"""From plain values to a validated model, and from pydantic's errors to one line that names the key."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError

from kagscope.base.errors import InputError

Model = TypeVar("Model", bound=BaseModel)

TAGS = ("list", "rule", "word")  # tags of alternatives in pydantic's locations, which are not keys
EXPECTED = {
    "tuple_type": "expected a list, such as [1, 2]",
    "list_type": "expected a list of values, such as [1, 2], or a rule, such as { count = 3 }",
    "too_short": "expected at least one value",
    "dict_type": "expected a table of keys and values",
    "model_type": "expected a table of keys and values",
    "model_attributes_type": "expected a table of keys and values",
    "string_pattern_mismatch": "expected letters, digits, dots, dashes and underscores, at most 64, the first a letter or digit",
}


def validate(kind: type[Model], values: dict[str, Any]) -> Model:
    """A validated ``kind`` from plain values.

    Raises:
        InputError: the first thing wrong, in one line: the key it came from, what was given, what is expected.
    """
    try:
        return kind(**values)
    except ValidationError as error:
        raise first_error(kind, error) from None


def first_error(kind: type[BaseModel], error: ValidationError) -> InputError:
    """The first thing wrong, in one line: the key it came from, what was given, what is expected."""
    first = error.errors()[0]
    keys = [str(key) for key in first["loc"] if not isinstance(key, int) and key not in TAGS]
    location = " ".join(".".join(keys).split()) or "settings"
    message = EXPECTED.get(first["type"], first["msg"]).removeprefix("Value error, ")
    if first["type"] == "extra_forbidden":
        message = _unknown_key_hint(kind, keys)
    given = f" (got {first['input']!r:.200})" if first["loc"] and first["type"] != "value_error" else ""
    return InputError(f"{location}: {message}{given}")


def _unknown_key_hint(kind: type[BaseModel], keys: list[str]) -> str:
    """What to write instead of the last of ``keys``, which its table has not."""
    names = list(_table(kind, keys[:-1]).model_fields)
    close = difflib.get_close_matches(keys[-1], names, 1)
    hint = f"did you mean {close[0]}? " if close else ""
    return f"unknown key; {hint}expected one of {', '.join(names)}"


def _table(kind: type[BaseModel], keys: list[str]) -> type[BaseModel]:
    """The model that stands at ``keys``."""
    for key in keys:
        if key in kind.model_fields:
            kind = next(_models(kind.model_fields[key].annotation), kind)
    return kind


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    """The models in a type, whatever it wraps them in."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in get_args(annotation):
        yield from _models(inner)
