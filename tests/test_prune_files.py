"""A pruned model on disk: loaded by a process that cannot import kagscope; and the command that writes it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from typer.testing import CliRunner

import kagscope as kag
from kagscope.base.errors import OutputError
from kagscope.cli import app
from kagscope.pruning.pruned_files import save_pruned

ARCHITECTURE = """
from collections import OrderedDict
from torch import nn
from torch.nn import functional

class Net(nn.Module):
    def __init__(self, width=6):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(1, width, 3, bias=False), nn.BatchNorm2d(width)
        self.inner, self.out = nn.Linear(width, 8), nn.Linear(8, 10, bias=False)

    def forward(self, x):
        x = functional.relu(self.norm(self.conv(x))).mean((2, 3))
        return self.out(functional.dropout(self.inner(x).sigmoid(), 0.1, self.training))
"""

WITHOUT_KAGSCOPE = """
import sys
sys.modules["kagscope"] = None  # importing it fails
import torch
sys.path.insert(0, sys.argv[1])
import model, architecture
x, y = torch.load(sys.argv[2], weights_only=True)
rebuilt = model.load(architecture.Net()).eval()
torch.testing.assert_close(rebuilt(x), y)
assert rebuilt.conv.out_channels == rebuilt.norm.num_features == rebuilt.inner.in_features == len(rebuilt.conv.weight)
rebuilt(x).sum().backward()  # it can be trained further
assert rebuilt.conv.weight.grad is not None
program = torch.export.load(sys.argv[1] + "/model.pt2").module()
torch.testing.assert_close(program(x), y)
torch.testing.assert_close(program(x[:3]), y[:3])
print("same", sum(p.numel() for p in rebuilt.parameters()))
"""


@pytest.fixture
def network(tmp_path: Path) -> Any:
    (tmp_path / "architecture.py").write_text(ARCHITECTURE)
    namespace: dict[str, Any] = {}
    exec(ARCHITECTURE, namespace)
    torch.manual_seed(0)
    net = namespace["Net"]()
    torch.manual_seed(1)
    with torch.no_grad():
        net.norm.bias.fill_(1.0)  # on
        net.norm.bias[[1, 4]] = -100
        net.inner.weight[[0, 2]] = 0
    return net


@pytest.mark.slow
@pytest.mark.parametrize("training", [True, False])
def test_files_load_without_kagscope(network: Any, tmp_path: Path, training: bool) -> None:
    network.train(training)
    x = torch.rand(5, 1, 8, 8)
    smaller, pruning = kag.prune(network, x)
    assert pruning.removed == {"conv": (1, 4), "inner": (0, 2)}
    report = save_pruned(tmp_path / "out", smaller, pruning)
    assert [module.training for module in smaller.modules()] == [training] * len(list(smaller.modules()))
    assert report == json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["removed"] == {"conv": [1, 4], "inner": [0, 2]}
    torch.save((x, smaller.eval()(x).detach()), tmp_path / "points.pt")
    script = tmp_path / "script.py"
    script.write_text(WITHOUT_KAGSCOPE)
    command = [sys.executable, str(script), str(tmp_path / "out"), str(tmp_path / "points.pt")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["same", str(pruning.parameters_after)]


def test_a_model_that_cannot_be_exported_says_why(tmp_path: Path) -> None:
    class Stubborn(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(4, 6), nn.Linear(6, 2)

        def forward(self, x: torch.Tensor) -> Any:
            hidden = self.first(x).relu()
            return self.second(hidden) if float(x.sum()) > 0 else -self.second(hidden)

    smaller, pruning = kag.prune(Stubborn(), torch.rand(3, 4))
    report = save_pruned(tmp_path / "out", smaller, pruning)
    assert report["program"] is None
    assert "PyTorch cannot export this model" in report["program_failure"]
    assert not (tmp_path / "out" / "model.pt2").exists()
    assert (tmp_path / "out" / "weights.safetensors").exists()
    with pytest.raises(OutputError, match="holds files already"):
        save_pruned(tmp_path / "out", smaller, pruning)


def test_command(network: Any, tmp_path: Path) -> None:
    save_file(network.state_dict(), tmp_path / "weights.safetensors")
    arguments = ["prune", f"{tmp_path / 'architecture.py'}:Net", "--weights", str(tmp_path / "weights.safetensors")]
    arguments += ["--data", "digits", "--split", "test"]
    done = CliRunner().invoke(app, [*arguments, "--out", str(tmp_path / "out"), "--curve", "0,0.5", "--latency"])
    assert done.exit_code == 0, done.output
    assert "4 of 14 units removed" in done.stdout
    assert "FLOPs per input" in done.stdout
    assert done.stdout.splitlines()[-1] == str(tmp_path / "out")
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["removed"] == {"conv": [1, 4], "inner": [0, 2]}
    assert [row["tolerance"] for row in report["curve"]] == [0, 0.5]
    assert report["accuracy_before"] == report["accuracy_after"]
    assert report["latency_after"] > 0

    done = CliRunner().invoke(app, [*arguments, "--out", str(tmp_path / "json"), "--json", "--points", "7"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["latency_points"] == 7
    done = CliRunner().invoke(app, [*arguments, "--out", str(tmp_path / "quiet"), "--quiet"])
    assert done.stdout.strip() == str(tmp_path / "quiet")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--tolerance", "-1"], "tolerance is -1.0; expected a finite number from 0"),
        (["--tolerance", "nan"], "tolerance is nan; expected a finite number from 0"),
        (["--curve", "0,x"], "--curve is '0,x'"),
        (["--curve", "0,-1"], "tolerance is -1.0"),
        (["--input-shape", "1,4,4"], "input shape (1, 4, 4)"),
    ],
)
def test_command_with_bad_options(network: Any, tmp_path: Path, change: list[str], message: str) -> None:
    arguments = ["prune", f"{tmp_path / 'architecture.py'}:Net", "--data", "digits", "--out", str(tmp_path / "out"), *change]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 2
    assert message in done.stderr
    assert not (tmp_path / "out").exists()


def test_command_leaves_other_folders_alone(network: Any, tmp_path: Path) -> None:
    arguments = ["prune", f"{tmp_path / 'architecture.py'}:Net", "--data", "digits", "--out", str(tmp_path)]
    before = sorted(path.name for path in tmp_path.iterdir())
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 1
    assert "holds files already" in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == before
