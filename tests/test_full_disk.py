"""A disk that is really full: one line that says so, nothing half-written, and the same command goes on when there is space."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from kagscope.studies.store import RunStore
from test_study_runs import TINY

IN_NAMESPACE = ["unshare", "--map-root-user", "--mount", "sh", "-c"]  # a mount that nobody else sees, without being root
SCRIPT = """
mount -t tmpfs -o size={size}k tmpfs disk || exit 77
again() {{ "$PYTHON" -m kagscope study run tiny.toml --out disk/out --workers 1 --quiet; }}
again 2>full.txt; echo $? >full.code
cp -r disk/out full
mount -o remount,size=100m disk
again 2>space.txt; echo $? >space.code
cp -r disk/out space
"""


def run_on_a_disk_of(size: int, folder: Path) -> None:
    """Run the tiny study on a disk of so many KiB, then on a larger one; what it leaves is in ``full`` and ``space``."""
    if shutil.which("unshare") is None:
        pytest.skip("no unshare here to mount a small disk with")
    (folder / "disk").mkdir()
    (folder / "tiny.toml").write_text(TINY)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "PYTHON": sys.executable}
    ended = subprocess.run(
        [*IN_NAMESPACE, SCRIPT.format(size=size)], cwd=folder, env=environment, capture_output=True, text=True, timeout=280
    )
    if not (folder / "full.code").exists():
        pytest.skip(f"a small disk cannot be mounted here: {ended.stderr.strip()}")


@pytest.mark.slow
def test_a_full_disk(tmp_path: Path) -> None:
    run_on_a_disk_of(220, tmp_path)  # two or three of the four runs fit
    assert (tmp_path / "full.code").read_text() == "1\n"
    said = (tmp_path / "full.txt").read_text()
    assert "No space left on device" in said
    assert said.count("\n") == 1, said
    assert "free some space" in said or "run again" in said
    runs = tmp_path / "full" / "runs"
    for run in runs.iterdir() if runs.exists() else ():
        assert RunStore(tmp_path / "full").check(run.name).damage is None
    assert (tmp_path / "space.code").read_text() == "0\n", (tmp_path / "space.txt").read_text()
    store = RunStore.existing(tmp_path / "space")
    assert store.folders() == set(store.study["runs"])
    assert store.failures() == {}
    assert (tmp_path / "space" / "report.html").exists()
