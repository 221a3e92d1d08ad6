"""A stranger's change, as docs/extend.md has it: a score and a route dropped into a copy of the tree, nothing else touched."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
USED = """
import json, sys
import numpy as np, torch
from torch import nn
from typer.testing import CliRunner
import kagscope as kag
from kagscope.cli import app
from kagscope import registry

torch.manual_seed(0)
nn_ = nn.Sequential(nn.Linear(16, 8), nn.GELU(), nn.Linear(8, 8), nn.GELU())
x = torch.rand(12, 16)
asked = ["largest_share", "condition", "sparsity", "pr"]
report = kag.measure(nn_, x, layers="3", k=1, scores=asked, baseline="reinit", baseline_seeds=1)  # no kernel to compile
open("net.py", "w").write("from torch import nn\\ndef net():\\n    return nn.Sequential(nn.Linear(64, 4), nn.Tanh())\\n")
command = ["measure", "net.py:net", "--data", "digits", "--points", "3", "--k", "1", "--score", "condition"]
done = CliRunner().invoke(app, [*command, "--csv", "t.csv", "--quiet"])
found = kag.minor_moments(np.array([[3.0, -4.0], [0.0, 12.0]]), k=1, moments=("s1", "s2"))
print(json.dumps({
    "home": kag.__file__,
    "scores": sorted(set(report.table["score"])),
    "label": registry.label("condition"),
    "command": [done.exit_code, open("t.csv").read() if done.exit_code == 0 else done.stderr],
    "route": [found.s1, found.s2, found.plan.routes["s1"]],
}))
"""


@pytest.mark.slow
def test_a_score_and_a_route_in_the_tree_are_one_file_each(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "extend.md").read_text()
    files = dict(re.findall(r'```python title="([^"]+)"\n(.*?)```', page, re.DOTALL))
    copy = tmp_path / "src" / "kagscope"
    shutil.copytree(ROOT / "src" / "kagscope", copy, ignore=shutil.ignore_patterns("__pycache__"))
    (copy / "scores" / "my_scores.py").write_text(files["my_scores.py"])
    (copy / "minors" / "routes" / "entry_powers.py").write_text(files["entry_powers.py"])
    environment = os.environ | {"PYTHONPATH": str(copy.parent), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", USED], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert Path(found["home"]).is_relative_to(tmp_path)
    assert {"largest_share", "condition", "sparsity", "pr"} <= set(found["scores"])
    assert found["label"] == "condition number"
    code, table = found["command"]
    assert code == 0, table
    assert {line.split(",")[4] for line in table.splitlines()[1:]} - {"column_subsets"} == {"condition"}
    assert found["route"] == [19.0, 169.0, "powers of entries"]
