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


def start(folder: Path, executor: str = "local") -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "kagscope", "study", "run", "tiny.toml", "--out", "out", "--workers", "2", "--quiet"]
    command += ["--executor", executor]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.DEVNULL, start_new_session=True)


def study(folder: Path) -> Path:
    folder.mkdir()
    (folder / "tiny.toml").write_text(TINY.replace("seed = [0, 1]", "seed = { count = 12 }"))
    return folder


def finished(folder: Path) -> dict[str, int]:
    return {path.parent.name: path.stat().st_mtime_ns for path in (folder / "out" / "runs").glob("[!.]*/manifest.json")}


@pytest.mark.slow
@pytest.mark.parametrize(("executor", "kills", "latest"), [("local", KILLS, 9.0), ("ray", 5, 25.0)])
def test_killed_at_random_moments(executor: str, kills: int, latest: float, tmp_path: Path) -> None:
    """The driver and, where they are local, its workers too; Ray's own processes are not in its group and end by themselves."""
    if executor == "ray":
        pytest.importorskip("ray")
    quiet, killed = study(tmp_path / "quiet"), study(tmp_path / "killed")
    assert start(quiet).wait(timeout=600) == 0
    moments = random.Random(0)
    for _ in range(kills):
        before = finished(killed)
        process = start(killed, executor)
        time.sleep(moments.uniform(0.2, latest))
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        after = finished(killed)
        assert all(after.get(run) == when for run, when in before.items()), "a finished run was lost or computed again"
        time.sleep(1.5)
    assert start(killed, executor).wait(timeout=600) == 0
    as_if_never_killed(quiet, killed)


@pytest.mark.slow
def test_a_local_and_a_ray_driver_on_one_store(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    quiet, both = study(tmp_path / "quiet"), study(tmp_path / "both")
    assert start(quiet).wait(timeout=600) == 0
    drivers = [start(both, "ray"), start(both, "local")]
    assert [driver.wait(timeout=600) for driver in drivers] == [0, 0]
    as_if_never_killed(quiet, both)


def as_if_never_killed(quiet: Path, other: Path) -> None:
    whole, mended = (pd.read_parquet(folder / "out" / "results.parquet") for folder in (quiet, other))
    pd.testing.assert_frame_equal(whole, mended)
    store = RunStore(other / "out")
    assert sorted(finished(other)) == sorted(store.study["runs"])
    assert not [path for path in (other / "out" / "runs").iterdir() if path.name.startswith(".")]
    assert not (other / "out" / "leases").exists()


def gone(group: int) -> bool:
    """Whether the processes of a group end within a few seconds (multiprocessing's own helper sees the end of its parent)."""
    until = time.monotonic() + 20
    while time.monotonic() < until:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.1)
    return False


@pytest.mark.slow
@pytest.mark.parametrize("moment", [0.0, 3.0], ids=["at once", "while it works"])
def test_ctrl_c_says_how_to_go_on_and_leaves_no_process(moment: float, tmp_path: Path) -> None:
    folder = study(tmp_path / "stopped")
    command = [sys.executable, "-m", "kagscope", "study", "run", "tiny.toml", "--out", "out", "--workers", "2"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen(
        command,
        cwd=folder,
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background jobs ignore it, and so would this
    )
    assert process.stderr is not None
    said = process.stderr.readline()
    while "at a time" not in said:
        said = process.stderr.readline()
    until = time.monotonic() + 60
    while moment and not list((folder / "out").glob("leases/*")) and time.monotonic() < until:
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to every process in the foreground
    rest = process.stderr.read()  # to the end: no worker holds the pipe any more
    assert process.wait(timeout=60) == 130
    assert rest.splitlines()[-1] == "interrupted: finished runs are kept, the same command goes on from there"
    assert "Traceback" not in rest
    assert gone(process.pid), "a process of the study is left"
    assert not list((folder / "out").glob("leases/*"))
    assert not list((folder / "out" / "runs").glob(".*"))
