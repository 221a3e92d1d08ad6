"""A finding is its sentence wherever a string is expected, and keeps its code and numbers; errors fit into a line."""

from __future__ import annotations

import copy
import json
import pickle
from pathlib import Path

import pytest

from kagscope.base.errors import OutputError
from kagscope.base.files import make_folder
from kagscope.base.messages import Finding, one_line, reason_of


def test_a_finding_is_text_and_data() -> None:
    found = Finding("3 of 8 nets did not learn.", code="not_learned", nets=3, of=8)
    assert found == "3 of 8 nets did not learn."
    assert (found.code, found.numbers["nets"]) == ("not_learned", 3)
    assert json.loads(json.dumps([found])) == ["3 of 8 nets did not learn."]
    for same in (pickle.loads(pickle.dumps(found)), copy.deepcopy(found)):
        assert (same, same.code, dict(same.numbers)) == (found, found.code, dict(found.numbers))
        assert isinstance(same, Finding)
    with pytest.raises(TypeError):
        found.numbers["nets"] = 4  # type: ignore[index]


def test_the_reason_of_an_error_is_never_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert reason_of(OSError(28, "No space left on device", "file")) == "No space left on device"
    assert reason_of(OSError("an odd\nfile system")) == "an odd file system"
    assert reason_of(ValueError("embedded null byte")) == "embedded null byte"
    assert (one_line(KeyError()), one_line(ValueError("a b c"), 3)) == ("KeyError", "a b")
    with pytest.raises(OutputError, match="embedded null"):
        make_folder(tmp_path / "a\0b")
    monkeypatch.setattr(Path, "mkdir", lambda *_, **__: (_ for _ in ()).throw(OSError("an odd file system")))
    with pytest.raises(OutputError, match="an odd file system"):
        make_folder(tmp_path / "new")
