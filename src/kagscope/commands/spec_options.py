"""Options of ``kagscope measure``, generated from the fields of :class:`kagscope.MeasureSpec`."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from typing import Annotated, Any, get_args

import typer
from pydantic import ByteSize, Field, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from kagscope.base.errors import InputError
from kagscope.commands.common import parse_numbers
from kagscope.measuring.spec import Budget, MeasureSpec

ONLY_IN_PYTHON = ("own_scores", "jacobian_scores", "positions", "groups", "budget")
REPEATED = {"layers": "layer", "selections": "selection", "scores": "score"}
NAMED = {"memory_budget": "memory"}
DEFAULTS = {
    "layers": "every activation",
    "selections": "all",
    "scores": "all",
    "tokens": "all",
    "points": "up to 100",
    "image_shape": "that of the data",
    "wrt": "the only one",
    "triple_points": "all",
    "unit_points": "as --points",
    "max_rows": "all",
    "memory_budget": "1GiB",
}
AS_TEXT = {
    "layers": "a layer by its name (--list-layers shows them), or a pattern (* one part of a name, ** any number); repeatable",
    "selections": "which columns may be combined: all, ball(7), apart(7), shell(7,14), window(13,13,7), …; quote it; repeatable",
    "scores": "a score by its name, such as pr; repeatable",
    "tokens": "of layers on sequences: all (of more than 256 as many, evenly spaced), 4 (so many, evenly spaced), 0,3,7 (these) "
    "or flat (a sequence whole)",
}
"""Values that are written differently on the command line than in Python."""
AMOUNT = TypeAdapter(Annotated[ByteSize, Field(lt=2**60)])


def spec_fields() -> dict[str, FieldInfo]:
    """Fields of the spec and of its budget that can be written as text, by name."""
    fields = {name: field for name, field in MeasureSpec.model_fields.items() if name not in ONLY_IN_PYTHON}
    return fields | dict(Budget.model_fields)


def option_name(field: str) -> str:
    """The option of a field, without leading dashes."""
    return REPEATED.get(field, NAMED.get(field, field.replace("_", "-")))


def as_options(message: str) -> str:
    """Rewrite settings in an error message from Python (``layer_map="block"``) to command-line options."""
    names = "|".join(sorted(spec_fields(), key=len, reverse=True))
    value = r"""(?:"([^"]*)"|'([^']*)'|(\[[^]]*\]|[^\s,;)]+))"""

    def option(match: re.Match[str]) -> str:
        text = next(group for group in match.groups()[1:] if group is not None)
        flag = f"--{option_name(match[1])}"
        return flag if text == "True" else f"without {flag}" if text in ("None", "False") else f"{flag} {text}"

    message = re.sub(rf"^({names})(?=: | is )", lambda match: f"--{option_name(match[1])}", message)
    return re.sub(rf"\b({names})={value}", option, message).replace(", or None for all", "")


def add_spec_options(command: Callable[..., Any]) -> None:
    """Add the options of the spec to ``command``, which receives them as keyword arguments by field name."""
    signature = inspect.signature(command)
    parameters = [parameter for parameter in signature.parameters.values() if parameter.kind is not parameter.VAR_KEYWORD]
    hints = inspect.get_annotations(command, eval_str=True)
    parameters = [parameter.replace(annotation=hints[parameter.name], kind=parameter.KEYWORD_ONLY) for parameter in parameters]
    made = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=_option(name, field))
        for name, field in spec_fields().items()
    ]
    command.__signature__ = signature.replace(parameters=[*parameters, *made])  # type: ignore[attr-defined]
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in [*parameters, *made]}


def _option(name: str, field: FieldInfo) -> Any:
    text = AS_TEXT.get(name) or re.sub("; None .*$", "", (field.description or "").rstrip("."))
    text = f"{text[0].upper()}{text[1:]}."
    panel = "Budget" if name in Budget.model_fields else "What is measured"
    if field.annotation is bool:
        return Annotated[
            bool | None, typer.Option(f"--{option_name(name)}", help=text, show_default=False, rich_help_panel=panel)
        ]
    text += f" [default: {DEFAULTS.get(name, _format(field.get_default(call_default_factory=True)))}]"
    info = typer.Option(
        f"--{option_name(name)}", metavar=_metavar(name, field), help=text, show_default=False, rich_help_panel=panel
    )
    return Annotated[list[str] | None if name in REPEATED else str | None, info]


def _format(default: Any) -> str:
    if isinstance(default, tuple):
        return ",".join(map(str, default))
    return "none" if default is None else f"{default:g}" if isinstance(default, float) else str(default)


def _metavar(name: str, field: FieldInfo) -> str:
    if name == "memory_budget":
        return "SIZE"
    kinds = {kind.__name__ for kind in (field.annotation, *get_args(field.annotation)) if isinstance(kind, type)}
    if name in REPEATED or "str" in kinds or "Any" in str(field.annotation):
        return "NAME"
    return "N,N" if "tuple" in str(field.annotation) else "N"


def spec_values(texts: Mapping[str, Any]) -> dict[str, Any]:
    """Parse the texts given as options to values of the spec's fields; options not given are left out.

    Raises:
        InputError: a text is not a valid value; the message names the option.
    """
    fields = spec_fields()
    return {name: _value(name, fields[name], text) for name, text in texts.items() if text is not None and text != []}


def _value(name: str, field: FieldInfo, text: Any) -> Any:
    option = option_name(name)
    if isinstance(text, bool):
        return text
    if name in REPEATED:
        return list(text)
    if name == "tokens":
        return _tokens(text)
    if name == "wrt":
        return int(text) if text.isdecimal() else text
    if name == "memory_budget":
        try:
            return int(AMOUNT.validate_python(text))
        except ValidationError:
            raise InputError(f"--{option} is {text!r}; expected an amount of memory such as 2GB or 512MiB") from None
    kinds = [kind for kind in (field.annotation, *get_args(field.annotation)) if kind is not type(None)]
    if "tuple" in str(field.annotation):
        return parse_numbers(option, text)
    for kind, expected in ((int, "a whole number"), (float, "a number")):
        if kind in kinds:
            try:
                return kind(text)
            except ValueError:
                raise InputError(f"--{option} is {text!r}; expected {expected}") from None
    return text


def _tokens(text: str) -> Any:
    if text in ("all", "flat"):
        return None if text == "all" else text
    try:
        return int(text) if "," not in text else [int(word) for word in text.split(",") if word.strip()]
    except ValueError:
        raise InputError(f"--tokens is {text!r}; expected all, flat, a number, or positions such as 0,3,7") from None
