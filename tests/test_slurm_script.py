"""The SLURM script of the documentation, run: its srun and scontrol start things here, and Ray is real."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from kagscope.studies.store import RunStore
from test_study_runs import TINY

SCRIPT = Path(__file__).parents[1] / "docs" / "ray_on_slurm.sh"
STUBS = {
    "scontrol": 'test "$1 $2" = "show hostnames" && echo "$3" | tr "," "\\n"',
    # one task of the step here, without srun's own options; what was asked for is written down
    "srun": 'echo "srun $*" >>"$SLURM_LOG"; while [ "${1#--}" != "$1" ]; do shift; done; exec "$@"',
    "hostname": 'test "$1" = --ip-address && "$PYTHON" -c "import ray; print(ray.util.get_node_ip_address(), 1)"',
    "kagscope": 'exec "$PYTHON" -m kagscope "$@"',
    "ray": 'exec "$PYTHON" -m ray.scripts.scripts "$@"',
}


def test_it_is_a_script() -> None:
    assert subprocess.run(["bash", "-n", str(SCRIPT)], capture_output=True, check=False).returncode == 0
    directives = [line for line in SCRIPT.read_text().splitlines() if line.startswith("#SBATCH ")]
    assert {"--nodes=4", "--ntasks-per-node=1"} <= {line.split()[1] for line in directives}


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed (extra 'ray')")
@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash")
def test_it_starts_a_cluster_and_finishes_a_study(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    for name, body in STUBS.items():
        stub = tmp_path / "bin" / name
        stub.write_text(f"#!/bin/bash\n{body}\n")
        stub.chmod(0o755)
    (tmp_path / "tiny.toml").write_text(TINY)
    environment = {
        **os.environ,
        "PATH": f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "PYTHON": sys.executable,
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        "SLURM_LOG": str(tmp_path / "srun.log"),
        "SLURM_JOB_ID": str(10_000 + os.getpid() % 10_000),
        "SLURM_JOB_NUM_NODES": "2",
        "SLURM_JOB_NODELIST": "first,second",
        "SLURM_CPUS_PER_TASK": "1",
    }
    with (tmp_path / "said.txt").open("w") as said:
        ended = subprocess.run(
            ["bash", str(SCRIPT), "tiny.toml", "out"], cwd=tmp_path, env=environment, stdout=said, stderr=said, timeout=500
        )
    text = (tmp_path / "said.txt").read_text()
    assert ended.returncode == 0, text
    asked = (tmp_path / "srun.log").read_text()
    assert "--nodelist=first --overlap ray start --head --node-ip-address=" in asked
    assert "--nodes=1 --ntasks=1 --exclude=first" in asked
    store = RunStore.existing(tmp_path / "out")
    assert store.folders() == set(store.study["runs"])
    assert "4 runs; " in text
    assert (tmp_path / "out" / "report.html").exists()
