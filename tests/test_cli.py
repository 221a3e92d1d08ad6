"""The command line as scripts and tired people meet it: exit codes, one-line errors, nothing touched."""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from typer.testing import CliRunner

from kagscope.cli import app
from kagscope.studies.collect import Outcome
from kagscope.studies.ready import ready_names

SOURCE = str(Path(__file__).resolve().parents[1] / "src")
ENVIRONMENT = {**os.environ, "PYTHONPATH": SOURCE}
SMALL = (
    "--data",
    "digits",
    "--control",
    "none",
    "--widths",
    "4",
    "--seeds",
    "1",
    "--epochs",
    "1",
    "--training",
    "standard",
    "--points",
    "4",
    "--k",
    "1,2",
    "--workers",
    "1",
)


def as_process(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "kagscope", *arguments]
    return subprocess.run(command, cwd=cwd, env=ENVIRONMENT, capture_output=True, text=True, timeout=240, check=False)


def kagscope(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """The same in this process, which spares the seconds that imports take."""
    with contextlib.chdir(cwd), mock.patch("kagscope.studies.present.study_drawings", return_value={}):
        done = CliRunner().invoke(app, arguments)
    return subprocess.CompletedProcess(arguments, done.exit_code, done.stdout, done.stderr)


def refused(done: subprocess.CompletedProcess[str], message: str, code: int) -> None:
    assert done.returncode == code, done.stderr
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("error: ")
    assert re.search(message, lines[0]), lines[0]
    assert not done.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["measur"], "error: no such command 'measur'. Did you mean 'measure'? (see kagscope --help)"),
        (["measure"], "error: missing argument 'MODEL' (see kagscope measure --help)"),
        (["study", "run"], "error: missing argument 'FILE' (see kagscope study run --help)"),
        (
            ["reproduce", "--seed", "1"],
            "error: no such option: --seed (Possible options: --seeds) (see kagscope reproduce --help)",
        ),
        (["--version=3"], "error: option '--version' does not take a value (see kagscope --help)"),
    ],
)
def test_wrong_commands_and_options_are_told_in_one_line(arguments: list[str], said: str, tmp_path: Path) -> None:
    done = kagscope(*arguments, cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr.strip()) == (2, "", said)


def test_a_call_without_arguments_shows_the_help(tmp_path: Path) -> None:
    for arguments in ([], ["study"]):
        done = kagscope(*arguments, cwd=tmp_path)
        assert "Commands:" in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--data", "mnits"), "unknown data set 'mnits'.*did you mean mnist"),
        (("--widths", "0"), "width.*got 0"),
        (("--widths", "-4,8"), "width.*got -4"),
        (("--widths", "a,b"), "--widths is 'a,b'; expected whole numbers"),
        (("--widths", "2"), "k = 3 needs at least as many inputs and units per layer.* 2"),
        (("--k", "9"), "--k.*expected whole numbers from 1 to 6"),
        (("--seeds", "100000"), "900,000 runs; at most 100,000"),
        (("--seeds", "0"), "seeds.*got 0"),
        (("--activation", "step"), "activation.*got 'step'"),
        (("--training", "nice"), "--training.*got 'nice'"),
        (("--learning-rate", "nan"), "--learning-rate"),
        (("--executor", "slurm"), "expected 'local' or 'ray'"),
        (("--workers", "0"), "workers is 0"),
        (("--points", "100000"), "2000 test images"),
        (("--batch-size", "100000"), "10000 training images"),
    ],
)
def test_bad_options(arguments: tuple[str, ...], message: str, tmp_path: Path) -> None:
    refused(kagscope("reproduce", "--out", "out", *arguments, cwd=tmp_path), message, 2)
    assert not list(tmp_path.iterdir())


def test_a_refusal_as_a_process(tmp_path: Path) -> None:
    """Of an option that is read before anything heavy is imported."""
    refused(as_process("prune", "nets.py:net", "--out", "out", "--input-shape", "a", cwd=tmp_path), "--input-shape is 'a'", 2)


def idx(array: np.ndarray) -> bytes:
    return (
        bytes([0, 0, 8, array.ndim])
        + b"".join(size.to_bytes(4, "big") for size in array.shape)
        + array.astype(np.uint8).tobytes()
    )


def test_bad_data_files(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    folder = tmp_path / "data"
    folder.mkdir()

    def write(part: str, images: int, labels: int) -> None:
        (folder / f"{part}-images-idx3-ubyte").write_bytes(idx(rng.integers(0, 256, (images, 6, 5))))
        (folder / f"{part}-labels-idx1-ubyte").write_bytes(idx(rng.integers(0, 3, labels)))

    def run() -> subprocess.CompletedProcess[str]:
        return kagscope("reproduce", "--out", "out", *SMALL, "--data", "data", "--batch-size", "8", cwd=tmp_path)

    refused(run(), "data.*", 1)
    write("train", 40, 40)
    refused(run(), "t10k", 1)
    write("t10k", 20, 19)
    refused(run(), "19 labels.*20 images", 1)
    write("t10k", 20, 20)
    whole = (folder / "train-images-idx3-ubyte").read_bytes()
    (folder / "train-images-idx3-ubyte").write_bytes(whole[:-7])
    refused(run(), "train-images-idx3-ubyte", 1)
    (folder / "train-images-idx3-ubyte").write_bytes(b"\x00\x00\x08\x09" + whole[4:])
    refused(run(), "train-images-idx3-ubyte", 1)
    (folder / "train-images-idx3-ubyte").unlink()
    (folder / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(whole)[:-20])
    refused(run(), "train-images-idx3-ubyte.gz", 1)
    assert {entry.name for entry in tmp_path.iterdir()} == {"data"}


def test_output_folders_that_cannot_be_used(study: Outcome, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("mine")
    other = tmp_path / "other"
    shutil.copytree(study.folder, other)
    before = {path: path.stat().st_mtime_ns for path in other.rglob("*")}
    for name, message in (("file", "is a file"), ("full", "not empty"), ("other", "holds another study"), ("x" * 300, "cannot")):
        refused(kagscope("reproduce", "--out", name, *SMALL, cwd=tmp_path), message, 1)
    assert (tmp_path / "file").read_text() == "mine"
    assert [entry.name for entry in (tmp_path / "full").iterdir()] == ["thesis.tex"]
    assert {path: path.stat().st_mtime_ns for path in other.rglob("*")} == before


@pytest.mark.slow
def test_json_quiet_and_again(tmp_path: Path) -> None:
    first = as_process("reproduce", "--out", "out", *SMALL, "--json", cwd=tmp_path)
    assert first.returncode == 0, first.stderr
    found = json.loads(first.stdout)
    assert len(found["claims"]) == 6
    assert (tmp_path / found["report"]).is_file()
    again = kagscope("reproduce", "--out", "out", *SMALL, "--quiet", cwd=tmp_path)
    assert again.returncode == 0
    assert again.stdout == "out/report.html\n"
    assert again.stderr == ""
    plain = kagscope("report", "out", cwd=tmp_path)
    assert plain.returncode == 0
    assert plain.stdout.strip().splitlines()[-1] == "out/report.html"
    assert "1 concentrates" in plain.stdout


def test_report_of_what_is_no_study(study: Outcome, tmp_path: Path) -> None:
    refused(kagscope("report", "nowhere", cwd=tmp_path), "nowhere is not there", 1)
    (tmp_path / "empty").mkdir()
    refused(kagscope("report", "empty", cwd=tmp_path), "holds no kagscope study", 1)
    shutil.copytree(study.folder, tmp_path / "unfinished")
    shutil.rmtree(tmp_path / "unfinished" / "runs")
    refused(kagscope("report", "unfinished", cwd=tmp_path), "no finished run", 1)


@pytest.mark.slow
def test_a_damaged_run_is_named_and_left_out(study: Outcome, tmp_path: Path) -> None:
    shutil.copytree(study.folder, tmp_path / "out")
    table = min((tmp_path / "out" / "runs" / study.runs[0] / "tables").iterdir())
    table.write_bytes(table.read_bytes()[:-1] + b"x")
    done = kagscope("report", "out", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert list(found["left_out"]) == [study.runs[0]]
    assert study.runs[0] in (tmp_path / "out" / "report.html").read_text()


def _runs(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir()) if folder.is_dir() else []


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_interrupted_at_any_moment_it_goes_on(how: signal.Signals, tmp_path: Path) -> None:
    arguments = ["reproduce", "--out", "out", *SMALL, "--seeds", "4"]
    started = subprocess.Popen(
        [sys.executable, "-m", "kagscope", *arguments],
        cwd=tmp_path,
        env=ENVIRONMENT,
        text=True,
        stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background jobs ignore it, and so would this
    )
    runs = tmp_path / "out" / "runs"
    deadline = time.monotonic() + 120
    while not any(not name.startswith(".") for name in _runs(runs)) and time.monotonic() < deadline:
        time.sleep(0.02)
    started.send_signal(how)
    _, said = started.communicate(timeout=60)
    assert started.returncode == (130 if how is signal.SIGINT else -signal.SIGKILL)
    if how is signal.SIGINT:
        assert said.strip().splitlines()[-1].startswith("interrupted")
        assert "Traceback" not in said
    time.sleep(3)  # orphans notice within a second that nobody waits for them
    kept = [name for name in _runs(runs) if not name.startswith(".")]
    assert 1 <= len(kept) < 4
    for name in kept:
        assert (runs / name / "manifest.json").is_file()
    done = kagscope(*arguments, "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout)["runs"]) == 4
    assert not [name for name in _runs(runs) if name.startswith(".")]


@pytest.mark.slow
def test_no_space_left(tmp_path: Path) -> None:
    """A file size limit stands in for a full disk: writes fail in the middle."""
    script = f"""
import resource, runpy, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, 30_000))
import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
sys.argv = ["kagscope", "reproduce", "--out", "out", *{SMALL!r}]
runpy.run_module("kagscope", run_name="__main__")
"""
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1, done.stdout + done.stderr
    assert done.stderr.strip().splitlines()[-1].startswith("error: ")
    assert "Traceback" not in done.stderr
    assert not _runs(tmp_path / "out" / "runs")


def test_help_is_quick_and_version_is_known(tmp_path: Path) -> None:
    heavy = "'torch', 'pandas', 'numba', 'matplotlib'"
    code = f"import sys; from kagscope.cli import app; print([m for m in ({heavy}) if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], env=ENVIRONMENT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    assert "reproduce" in as_process("--help", cwd=tmp_path).stdout
    assert re.fullmatch(r"kagscope \d+\.\d+\.\d+\n", as_process("--version", cwd=tmp_path).stdout)


def test_help_names_every_ready_study(tmp_path: Path) -> None:
    assert {*as_process("study", "--help", cwd=tmp_path).stdout.split()} >= {*ready_names()}


def test_a_plan_of_many_axes_is_not_cut_on_a_narrow_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    axes = {
        "weight_decay": [0.125, 0.25],
        "optimizer": ["adam", "rmsprop"],
        "activation": ["gelu", "relu"],
        "training": ["standard", "augmented"],
        "learning_rate": [0.0625, 0.5],
        "label_noise": [0.0, 0.375],
    }
    grid = [f"{name} = {json.dumps(values)}" for name, values in axes.items()]
    (tmp_path / "many.toml").write_text("\n".join(['name = "many"', "[grid]", *grid]))
    shown = CliRunner().invoke(app, ["study", "plan", str(tmp_path / "many.toml")])
    assert shown.exit_code == 0
    assert "…" not in shown.stdout.partition("more")[0].removesuffix("… and 24 ")
    words = shown.stdout.replace(",", " ").split()
    assert {"0.125", "adam", "standard", "augmented", "0.0625", "0.375", "learning_rate"} <= {*words}
