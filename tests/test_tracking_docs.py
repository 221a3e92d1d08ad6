"""The guide to tracking runs as it stands."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

PAGE = Path(__file__).resolve().parents[1] / "docs" / "tracking.md"


def test_every_example_runs_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for package in ("lightning", "transformers", "accelerate", "tensorboard"):
        pytest.importorskip(package)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path / "run" / "bert" / "events"))
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), flags=re.MULTILINE | re.DOTALL)
    assert len(blocks) == 7
    names: dict[str, Any] = {}
    for number, block in enumerate(blocks, 1):
        exec(compile(block, f"{PAGE.name}, example {number}", "exec"), names)
        if number == 2:
            onsets = names["tracker"].onset()
            assert list(onsets["layer"]) == ["1", "3"]
            assert onsets["step"].notna().all()
    assert (tmp_path / "pr.png").stat().st_size > 10_000
    assert names["track"].steps == [0, 10, 20, 30]
    assert names["tracking"].tracker.steps == [0, 4, 8]
    for folder in ("events", "lightning", "bert"):
        assert list((tmp_path / "run" / folder).rglob("events.out.tfevents*"))
