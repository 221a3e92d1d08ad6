"""A study killed again and again: nothing finished is lost, nothing doubled, and the end is as if it had never been killed."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

from kagscope.studies.store import RunStore
from test_study_runs import TINY

KILLS = 20


def start(folder: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "kagscope.cli", "study", "run", "tiny.toml", "--out", "out", "--workers", "2", "--quiet"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.DEVNULL, start_new_session=True)


def study(folder: Path) -> Path:
    folder.mkdir()
    (folder / "tiny.toml").write_text(TINY.replace("seed = [0, 1]", "seed = { count = 12 }"))
    return folder


def finished(folder: Path) -> dict[str, int]:
    return {path.parent.name: path.stat().st_mtime_ns for path in (folder / "out" / "runs").glob("[!.]*/manifest.json")}


@pytest.mark.slow
def test_killed_at_twenty_random_moments(tmp_path: Path) -> None:
    quiet, killed = study(tmp_path / "quiet"), study(tmp_path / "killed")
    assert start(quiet).wait(timeout=600) == 0
    moments = random.Random(0)
    for _ in range(KILLS):
        before = finished(killed)
        process = start(killed)
        time.sleep(moments.uniform(0.2, 9.0))
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)  # the driver and its workers
        process.wait()
        after = finished(killed)
        assert all(after.get(run) == when for run, when in before.items()), "a finished run was lost or computed again"
        time.sleep(1.5)
    assert start(killed).wait(timeout=600) == 0
    whole, mended = (pd.read_parquet(folder / "out" / "results.parquet") for folder in (quiet, killed))
    pd.testing.assert_frame_equal(whole, mended)
    store = RunStore(killed / "out")
    assert sorted(finished(killed)) == sorted(store.study["runs"])
    assert not [path for path in (killed / "out" / "runs").iterdir() if path.name.startswith(".")]
