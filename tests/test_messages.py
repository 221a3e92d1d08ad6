"""A finding is its sentence wherever a string is expected, and keeps its code and numbers."""

from __future__ import annotations

import copy
import json
import pickle

import pytest

from kagscope.base.messages import Finding


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
