"""Docstrings as the API pages want them: roles become code, tables of equals signs Markdown, "a, b: …" a line each.

Fields of pydantic models are documented by their descriptions.
"""

from __future__ import annotations

import ast
import re
from typing import Any

import griffe

ROLE = re.compile(r":(?:func|class|meth|mod|data|attr):`~?([^`<]*?)(?:\s*<[^`]*>)?`")
MATHS = re.compile(r"\bMATH\.md\b")
TABLE = re.compile(r"^(=+(?: +=+)+)\n(?:(.*?)\n\1\n)?(.*?)\n\1$", re.MULTILINE | re.DOTALL)
SEVERAL = re.compile(r"^( {4})((?:\w+, )+\w+): (.*(?:\n {8,}\S.*)*)", re.MULTILINE)
SECTION = re.compile(r"^(\w+:)$", re.MULTILINE)
SPLIT = ("Args:", "Attributes:", "Raises:")


class Docstrings(griffe.Extension):
    """Rewrites each docstring before its sections are parsed."""

    def on_instance(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        if obj.docstring is not None:
            obj.docstring.value = rewritten(obj.docstring.value)

    def on_attribute_instance(self, *, attr: griffe.Attribute, **kwargs: Any) -> None:
        if attr.docstring is None and (text := description(str(attr.value))):
            attr.docstring = griffe.Docstring(rewritten(text), lineno=attr.lineno, parent=attr)


def description(value: str) -> str:
    """The description in ``Field(..., description="...")``, source code; "" where there is none."""
    if not value.startswith("Field("):
        return ""
    call = ast.parse(value, mode="eval").body
    keywords = {word.arg: word.value for word in call.keywords} if isinstance(call, ast.Call) else {}
    return str(ast.literal_eval(keywords["description"])) if "description" in keywords else ""


def rewritten(text: str) -> str:
    text = MATHS.sub("[MATH.md](math.md)", ROLE.sub(r"`\1`", text))
    text = TABLE.sub(_markdown_table, text)
    parts = ["", *SECTION.split(text)]
    return "".join(
        SEVERAL.sub(_one_each, part) if head in SPLIT else part for head, part in zip(["", *parts], parts, strict=False)
    )


def _one_each(found: re.Match[str]) -> str:
    """``a, b: text`` as ``a: text`` and ``b: the same``."""
    indent, names, text = found.groups()
    first, *others = names.split(", ")
    return "\n".join([f"{indent}{first}: {text}", *(f"{indent}{name}: See `{first}`." for name in others)])


def _markdown_table(found: re.Match[str]) -> str:
    rule, head, body = found.groups()
    starts = [mark.start() for mark in re.finditer(r"=+", rule)]
    ends = [*starts[1:], None]
    rows: list[list[str]] = []
    for line in body.splitlines():
        cells = [line[a:b].strip() for a, b in zip(starts, ends, strict=True)]
        if cells[0] or not rows:
            rows.append(cells)
        else:  # a cell goes on
            rows[-1] = [f"{old} {new}".strip() for old, new in zip(rows[-1], cells, strict=True)]
    top = [(head or "")[a:b].strip() for a, b in zip(starts, ends, strict=True)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [top, ["---"] * len(starts), *rows])
