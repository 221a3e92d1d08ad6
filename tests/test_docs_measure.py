"""The guide's code runs as it stands, in order, and prints what the guide says."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path
from typing import Any

import pytest

GUIDE = Path(__file__).resolve().parents[1] / "docs" / "measure.md"
BLOCK = re.compile(r"^```(python setup|python|text output)\n(.*?)^```$", flags=re.MULTILINE | re.DOTALL)


def test_the_guide(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    found = [(kind, code) for kind, code in BLOCK.findall(GUIDE.read_text())]
    setup = [code for kind, code in found if kind == "python setup"]
    assert len(setup) == 1
    names: dict[str, Any] = {}
    exec(setup[0], names)
    printed = ""
    for number, (kind, code) in enumerate(found):
        if kind == "python":
            with contextlib.redirect_stdout(io.StringIO()) as stream:
                exec(compile(code, f"block {number} of measure.md", "exec"), names)
            printed = stream.getvalue()
        elif kind == "text output":
            assert printed == code
