"""The page of what still runs: rebuilt when runs are finished, reloading itself until the last of them."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from kagscope.commands.follow import follow_study
from kagscope.studies.collect import Outcome


@pytest.mark.slow
def test_a_study_is_followed_to_its_last_run(study: Outcome, tmp_path: Path) -> None:
    folder, aside = tmp_path / "out", tmp_path / "aside"
    shutil.copytree(study.folder, folder)
    shutil.move(folder / "runs" / study.runs[-1], aside)
    page, seen = folder / "report.html", []

    def wait(seconds: float) -> None:
        seen.append('http-equiv="refresh" content="7"' in page.read_text())
        shutil.move(aside, folder / "runs" / study.runs[-1])

    assert follow_study(folder, seconds=7, sleep=wait) == page
    assert seen == [True]
    assert 'http-equiv="refresh"' not in page.read_text()
    assert f"{len(study.runs)} networks trained" in page.read_text()
