"""``kagscope measure`` as scripts and tired people meet it: tables, files, series, and what is refused."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from typer.testing import CliRunner, Result

import kagscope as kag
from kagscope.cli import app
from kagscope.commands.spec_options import as_options, option_name, spec_fields
from kagscope.data import load
from kagscope.loading import load_model, load_state, save_weights
from kagscope.measuring.observe import choose_points
from kagscope.measuring.report import Report
from kagscope.measuring.spec import Budget, MeasureSpec
from kagscope.studies.collect import Outcome

NETS = """
import torch
from torch import nn

def net(width=6):
    print("building")
    return nn.Sequential(nn.Linear(64, width), nn.GELU(), nn.Linear(width, 10))

def conv():
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(72, 5), nn.Tanh())

class Deep(nn.Module):
    def __init__(self):
        super().__init__()
        self.a_long_name_of_a_block = nn.ModuleDict({"another_long_name_of_a_layer": nn.Linear(64, 5)})
        self.unused = nn.Linear(64, 5)

    def forward(self, x):
        return self.a_long_name_of_a_block["another_long_name_of_a_layer"](x).tanh()

class Tokens(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(11, 4)
        self.mlp = nn.Sequential(nn.Linear(4, 6), nn.GELU())

    def forward(self, input_ids, attention_mask=None):
        h = self.embed(input_ids)
        return self.mlp(h if attention_mask is None else h * attention_mask[..., None])
"""
SMALL = ("--data", "digits", "--points", "4")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with nets.py, weights and a run of three checkpoints, which the test works in."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    Path("nets.py").write_text(NETS)
    Path("run").mkdir()
    for step, seed in ((0, 0), (20, 1), (100, 2)):
        save_weights(f"run/step_{step}.safetensors", load_model("nets.py:net", seed=seed).state_dict())
    return tmp_path


def measure(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["measure", *arguments])


def done(*arguments: str) -> Result:
    result = measure(*arguments)
    assert result.exit_code == 0, result.stderr
    return result


def digits() -> tuple[torch.Tensor, np.ndarray]:
    data = load("digits")
    return torch.from_numpy(data.test_images).flatten(1), data.test_labels


def model(seed: int) -> torch.nn.Module:
    return load_model("nets.py:net", seed=seed)


def test_the_numbers_are_those_of_the_library(here: Path) -> None:
    weights = ("--weights", "run/step_100.safetensors", "--baseline", "run/step_0.safetensors")
    selections = ("--selection", "all", "--selection", "ball(2)")
    done("nets.py:net", *weights, *SMALL, "--layer", "1", *selections, "--k", "2", "--parquet", "t.parquet", "--csv", "t.csv")
    inputs, labels = digits()
    expected = kag.measure(
        model(2),
        inputs,
        points=4,
        layers=["1"],
        k=2,
        selections=["all", "ball(2)"],
        image_shape=(8, 8),
        baseline=model(0),
        labels=labels,
    ).table
    found = pd.read_parquet("t.parquet")
    assert set(found["point"]) - {-1} == set(choose_points(len(labels))[:4])
    pd.testing.assert_frame_equal(found, expected, check_dtype=False, check_categorical=False)
    assert len(pd.read_csv("t.csv")) == len(found)


def test_what_the_terminal_shows(here: Path) -> None:
    out = done("nets.py:net", "--weights", "run/step_100.safetensors", "--baseline", "initial", *SMALL, "--out", "o")
    assert "Sequential, 1 of 1 layers at 4 points of digits" in out.stdout
    assert "baseline the model as built" in out.stdout
    assert re.search(r"^ 1 +1 +0\.\d+ +\d\.\d\d \(\d\.\d\d to \d\.\d\d\)", out.stdout, re.MULTILINE)
    assert "wrote o\nwrote o/report.html" in out.stdout
    assert "building" not in out.stdout  # what the user's code prints
    assert "note: baseline: nets.py:net as it was built (seed 0)" in out.stderr.replace("\n", " ")
    deep = done("nets.py:Deep", *SMALL, "--layer", "**.another*", "--selection", "all", "--selection", "window(3,3,2)")
    layers = done("nets.py:Deep", *SMALL, "--list-layers")
    shown = [line for text in (out.stdout, deep.stdout, layers.stdout) for line in text.splitlines()]
    assert max(len(line) for line in shown if not line.startswith("• ")) <= 80
    assert re.search(r"unused +Linear +not called +325", layers.stdout)
    assert re.search(r"unused +Linear +325", done("nets.py:Deep", "--list-layers").stdout)
    assert {entry.name for entry in Path("o").iterdir()} == {
        "table.parquet",
        "units.parquet",
        "curves.parquet",
        "report.json",
        "summary.csv",
        "report.html",
    }
    assert Report.load("o").provenance["data"] == "digits"


def test_json_quiet_and_skipped_layers(here: Path) -> None:
    every = done("nets.py:Deep", *SMALL, "--layer", "**", "--k", "1", "--json")
    found = json.loads(every.stdout)
    assert {"summary", "layers", "findings", "notes", "settings", "provenance", "files"} == set(found)
    skipped = [layer for layer in found["layers"] if layer["reason"]]
    assert [(layer["name"], layer["reason"]) for layer in skipped if layer["name"] == "unused"] == [
        ("unused", "never called in the forward pass")
    ]
    assert "NaN" not in every.stdout
    quiet = done("nets.py:net", *SMALL, "--quiet", "--html", "page.html", "--parquet", "t.parquet")
    assert quiet.stdout == "page.html\nt.parquet\n"
    assert quiet.stderr.replace("building\n", "") == ""
    again = done("nets.py:net", *SMALL, "--layer", "1", "--layer-map", "output", "--k", "1")
    assert "map output" in again.stdout


def test_images_tokens_and_keyword_inputs(here: Path) -> None:
    conv = json.loads(done("nets.py:conv", *SMALL, "--k", "1", "--selection", "ball(2)", "--json").stdout)
    assert [layer["columns"] for layer in conv["layers"]] == [64, 64]
    assert conv["settings"]["image_shape"] == [8, 8]
    rng = np.random.default_rng(0)
    np.savez("tokens.npz", input_ids=rng.integers(0, 11, (5, 7)), attention_mask=np.ones((5, 7)), labels=np.arange(5) % 2)
    block = ("--layer", "mlp", "--layer-map", "block", "--k", "1,2")
    done("nets.py:Tokens", "--data", "tokens.npz", *block, "--tokens", "0,3", "--parquet", "t.parquet")
    table = pd.read_parquet("t.parquet")
    assert set(table.loc[table["score"] == "pr", "token"]) == {0, 3}
    done("nets.py:Tokens", "--data", "tokens.npz", *block, "--tokens", "3", "--parquet", "t.parquet")
    table = pd.read_parquet("t.parquet")
    assert set(table.loc[table["score"] == "pr", "token"]) == {0, 3, 6}
    wide = json.loads(done("nets.py:net", "--argument", "width=9", *SMALL, "--k", "1", "--json").stdout)
    assert wide["layers"][0]["rows"] == 9


def test_a_series(here: Path) -> None:
    out = done("nets.py:net", "--weights", "run/step_*.safetensors", *SMALL, "--k", "2", "--out", "o")
    assert "3 checkpoints" in out.stdout
    assert "baseline step 0" in out.stdout
    series = Report.load("o")
    assert series.steps == [0, 20, 100]
    assert {"scores_by_step.png", "scores_by_step.pdf", "report.json", "report.html"} <= {e.name for e in Path("o").iterdir()}
    table = pd.read_parquet("o/table.parquet")
    assert list(table.columns)[:2] == ["step", "layer"]
    assert (table.loc[table["step"] == 0, "ratio"].dropna() == 1).all()
    inputs, labels = digits()
    alone = kag.measure(model(2), inputs, points=4, k=2, baseline=model(0), labels=labels, image_shape=(8, 8)).table
    last = table[table["step"] == 100].drop(columns="step").reset_index(drop=True)
    pd.testing.assert_frame_equal(last, alone, check_dtype=False, check_categorical=False)
    scores = ("--k", "1", "--score", "kl_uniform")  # none of those that the picture of steps shows
    done("nets.py:net", "--weights", "run/step_*.safetensors", *SMALL, *scores, "--out", "few")
    assert Path("few/table.parquet").exists()


def test_a_damaged_checkpoint_is_named_and_left_out(here: Path) -> None:
    whole = Path("run/step_20.safetensors").read_bytes()
    Path("run/step_20.safetensors").write_bytes(whole[:-9])
    torch.save(torch.nn.Linear(2, 2), "run/step_30.pt")
    result = measure("nets.py:net", "--weights", "run/step_*", *SMALL, "--json", "--csv", "t.csv")
    assert result.exit_code == 1
    assert re.search(r"error: 2 of 4 checkpoints were left out.*step_20\.safetensors: truncated", result.stderr)
    found = json.loads(result.stdout)
    assert list(found["left_out"]) == ["run/step_20.safetensors", "run/step_30.pt"]
    assert set(pd.read_csv("t.csv")["step"]) == {0, 100}
    for path in Path("run").iterdir():
        path.write_bytes(b"damaged")
    result = measure("nets.py:net", "--weights", "run/step_*", *SMALL, "--csv", "none.csv")
    assert result.exit_code == 1
    assert "no checkpoint could be measured" in result.stderr
    assert not Path("none.csv").exists()


def test_checkpoints_of_other_loops(here: Path) -> None:
    for step, seed in ((5, 0), (10, 1)):
        state = {f"net.{name}": tensor for name, tensor in model(seed).state_dict().items()}
        torch.save({"state_dict": state, "epoch": 1}, f"epoch=1-step={step}.ckpt")
    out = done("nets.py:net", "--weights", "epoch=1-step=5.ckpt", "--weights", "epoch=1-step=10.ckpt", *SMALL, "--k", "2")
    said = " ".join(out.stdout.split())
    assert "epoch=1-step=5.ckpt and 1 more: took 'state_dict'; left epoch." in said
    assert "dropped net. from the names" in said
    single = done("nets.py:net", "--weights", "run/step_100.safetensors", "--baseline", "epoch=1-step=5.ckpt", *SMALL, "--k", "1")
    assert "baseline epoch=1-step=5.ckpt" in single.stdout


def test_a_run_of_reproduce(study: Outcome, here: Path) -> None:
    folder = study.folder / "runs" / study.runs[0]
    found = json.loads(done(str(folder), "--points", "4", "--k", "2", "--json").stdout)
    assert [layer["name"] for layer in found["layers"]] == ["hidden1", "hidden2"]
    assert found["provenance"]["baseline"] == "the same network at step 0"
    stored = kag.open_study(study.folder).table
    stored = stored[stored["run"] == study.runs[0]]
    last = stored[(stored["step"] == stored["step"].max()) & (stored["score"] == "pr") & (stored["k"] == 2)]
    last = last[(last["layer"] == "hidden2") & (last["selection"] == "all")]
    points = [int(point) for point in last["point"]]
    done(str(folder), "--k", "2", "--points", str(len(points)), "--layer", "hidden2", "--parquet", "t.parquet")
    table = pd.read_parquet("t.parquet")
    ratios = table[table["score"] == "pr"].set_index("point")["ratio"]
    np.testing.assert_allclose(ratios.loc[points], last["ratio"], rtol=1e-9)  # a study's points, by their number alone


def test_damaged_runs(study: Outcome, here: Path) -> None:
    def refused(message: str) -> None:
        result = measure("copy", "--points", "2", "--k", "1")
        assert result.exit_code == 1, result.stderr
        assert re.search(message, result.stderr), result.stderr

    shutil.copytree(study.folder / "runs" / study.runs[0], "copy")
    result = measure("copy", "--weights", "run/step_0.safetensors")
    assert result.exit_code == 2
    assert "is a run with its own weights" in result.stderr
    weights = load_state("copy/weights.safetensors")
    save_weights("copy/weights.safetensors", {name: tensor for name, tensor in weights.items() if name.endswith("weight")})
    refused("holds other layers than config.json says")
    save_weights("copy/weights.safetensors", {"0.weight": torch.zeros(2)})
    refused("holds no steps of a run")
    Path("copy/config.json").write_text("{}")
    refused("copy is not a run of kagscope reproduce .config.json: ValidationError")


BAD: list[tuple[tuple[str, ...], str, int]] = [
    (("nets.py:nett", *SMALL), "nets.py has no 'nett' .did you mean net", 2),
    (("nets.py", *SMALL), "names no module or nothing in it; nets.py defines net, conv, Deep, Tokens", 2),
    (("net.py:net", *SMALL), "net.py: no such file .did you mean nets.py", 2),
    (("no_such_package.nets:net", *SMALL), "no module 'no_such_package'", 2),
    (("nets.py:net",), "--data is missing", 2),
    (("nets.py:net", "--data", "digitz"), "unknown data set 'digitz' .did you mean digits", 2),
    (("nets.py:net", "--data", "missing.npz"), "missing.npz: no such file", 1),
    (("nets.py:net", "--data", "digits", "--points", "100000"), "--points is 100000, but digits holds 355 inputs", 2),
    (("nets.py:net", "--data", "digits", "--points", "0"), "error: --points is 0; expected a positive number of points$", 2),
    (("nets.py:net", *SMALL, "--split", "valid"), "split is 'valid'", 2),
    (("nets.py:net", *SMALL, "--input-shape", "1,9,9"), "input shape .1, 9, 9. is 81 numbers", 2),
    (("nets.py:net", *SMALL, "--input-shape", "a"), "--input-shape is 'a'", 2),
    (("nets.py:net", *SMALL, "--input-shape", "1,8,8"), "takes the inputs in no shape that was tried", 2),
    (("nets.py:net", *SMALL, "--image-shape", "8"), r"error: --image-shape is \(8,\); expected \(height, width\)", 2),
    (("nets.py:net", *SMALL, "--image-shape", "7,7", "--selection", "ball(2)"), "image_shape|49", 2),
    (("nets.py:net", *SMALL, "--layer", "fc"), "no layer 'fc'", 2),
    (("nets.py:Deep", *SMALL, "--layer", "unused"), "'unused' .Linear. cannot be measured: never called", 2),
    (
        ("nets.py:net", *SMALL, "--layer-map", "both"),
        "error: --layer-map is 'both'; expected one of 'input', 'block', 'output'",
        2,
    ),
    (("nets.py:net", *SMALL, "--k", "0"), "k is .0,.; expected whole numbers", 2),
    (("nets.py:net", *SMALL, "--k", "two"), "--k is 'two'", 2),
    (("nets.py:net", *SMALL, "--selection", "bal(2)"), "selection 'bal.2.' is not known", 2),
    (("nets.py:net", *SMALL, "--tokens", "some"), "--tokens is 'some'; expected all, flat", 2),
    (("nets.py:net", *SMALL, "--memory", "lots"), "--memory is 'lots'; expected an amount", 2),
    (("nets.py:net", *SMALL, "--memory", "9" * 400), "--memory is '999.*expected an amount", 2),
    (("nets.py:net", *SMALL, "--seed", str(2**70)), "--seed: .*less than", 2),
    (("nets.py:net", *SMALL, "--memory", "1KB"), "error: --memory: .*1048576 .got 1000", 2),
    (("nets.py:net", *SMALL, "--seed", "-1"), "error: --seed: .*got -1", 2),
    (("nets.py:net", *SMALL, "--rel-error", "small"), "--rel-error is 'small'; expected a number", 2),
    (("nets.py:net", *SMALL, "--rotations", "1"), "error: --rotations: .*got 1", 2),
    (("nets.py:net", *SMALL, "--score", "kl_unform"), "no score 'kl_unform' .did you mean kl_uniform", 2),
    (("nets.py:net", *SMALL, "--argument", "width"), "--argument 'width'; expected NAME=VALUE", 2),
    (("nets.py:net", *SMALL, "--argument", "wdth=3"), "unexpected keyword argument 'wdth'.*did you mean width", 2),
    (("nets.py:net", *SMALL, "--argument", 'width="six"'), "calling nets.py:net raised TypeError", 2),
    (("nets.py:net", *SMALL, "--weights", "missing.safetensors"), "missing.safetensors: no such file", 1),
    (("nets.py:net", *SMALL, "--weights", "run"), "is a folder", 1),
    (("nets.py:net", *SMALL, "--weights", "nope_*.pt"), "no file is named like 'nope_", 1),
    (("nets.py:net", *SMALL, "--weights", "whole.pt"), "asks for torch.nn.modules.*Sequential .the whole model was pickled", 1),
    (("nets.py:conv", *SMALL, "--weights", "run/step_0.safetensors"), "do not fit the model: they lack 3.weight, 3.bias", 1),
    (
        ("nets.py:net", "--argument", "width=7", *SMALL, "--weights", "run/step_0.safetensors"),
        r"0.weight has shape \(6, 64\), expected \(7, 64\)",
        1,
    ),
    (("nets.py:net", *SMALL, "--weights", "a.pt", "--weights", "b.pt"), "a.pt: there is no number in its name", 2),
    (("nets.py:net", *SMALL, "--baseline", "initial"), "no --weights are given", 2),
    (("nets.py:net", *SMALL, "--baseline", "first"), "first checkpoint of a series", 2),
    (("nets.py:net", *SMALL, "--baseline", "missing.pt"), "missing.pt: no such file", 1),
    (("nets.py:net", *SMALL, "--weights", "nan.safetensors"), "the Jacobian of layer '1' at input 164 has", 2),
    (("run", "--points", "3"), "run is not a run of kagscope reproduce", 1),
    (("nets.py:net", *SMALL, "--html", "nowhere/page.html"), "cannot write nowhere/page.html: the folder nowhere does not", 1),
    (("nets.py:net", *SMALL, "--csv", "run"), "run is a folder; give a file", 1),
    (("nets.py:net", *SMALL, "--csv", "t", "--parquet", "./t"), "name the same file", 2),
    (("nets.py:net", *SMALL, "--out", "run"), "run is not empty and was not written by this command", 1),
    (("nets.py:net", *SMALL, "--out", "nets.py"), "nets.py is a file, but the output must be a folder", 1),
    (("nets.py:net", *SMALL, "--out", "x" * 300), "cannot read x", 1),
]


@pytest.mark.parametrize(("arguments", "message", "code"), BAD)
def test_what_is_refused(arguments: tuple[str, ...], message: str, code: int, here: Path) -> None:
    torch.save(model(0), "whole.pt")
    save_weights("nan.safetensors", {name: tensor * torch.nan for name, tensor in model(0).state_dict().items()})
    before = {path: path.stat().st_mtime_ns for path in here.rglob("*") if "__pycache__" not in str(path)}
    result = measure(*arguments)
    assert result.exit_code == code, result.stderr
    lines = [line for line in result.stderr.splitlines() if line != "building" and not line.startswith("note: ")]
    errors = [line for line in lines if line.startswith("error: ")]
    assert len(errors) == 1, result.stderr
    assert re.search(message, errors[0]), errors[0]
    assert "bug in kagscope" not in errors[0]
    assert not result.stdout
    assert {path: path.stat().st_mtime_ns for path in here.rglob("*") if "__pycache__" not in str(path)} == before


@pytest.mark.parametrize("option", ["--csv", "--html", "--parquet"])
@pytest.mark.parametrize("name", ["in.npz", "nets.py", "run/step_0.safetensors", "run/step_100.safetensors", "link.npz"])
def test_what_is_read_is_not_written(here: Path, option: str, name: str) -> None:
    inputs, _ = digits()
    np.savez("in.npz", x=inputs.numpy())
    Path("link.npz").symlink_to("in.npz")
    before = Path(name).read_bytes()
    series = ("--weights", "run/step_*.safetensors")
    result = measure("nets.py:net", "--data", "in.npz", *series, "--points", "2", "--k", "1", option, name)
    assert result.exit_code == 2
    assert f"error: {name} would be replaced" in result.stderr
    assert Path(name).read_bytes() == before


@pytest.mark.parametrize(
    ("said", "here_said"),
    [
        ('or use layer_map="block" or "output"', 'or use --layer-map block or "output"'),
        ("say which: wrt='a' or wrt='b'", "say which: --wrt a or --wrt b"),
        ("with exact=True, max_rows=None or rel_error=0.01", "with --exact, without --max-rows or --rel-error 0.01"),
        ("tokens=[0, 3], memory_budget=64 and size=3", "--tokens [0, 3], --memory 64 and size=3"),
        ("memory_budget: expected 64 (got 3)", "--memory: expected 64 (got 3)"),
        (
            "points is 0; expected a positive number of points, or None for all",
            "--points is 0; expected a positive number of points",
        ),
    ],
)
def test_errors_name_options_as_they_are_written_here(said: str, here_said: str) -> None:
    assert as_options(said) == here_said


def test_folders_of_a_report_are_written_again_whole(here: Path) -> None:
    one = ("nets.py:net", "--data", "digits", "--points", "2", "--k", "1", "--out", "o", "--quiet")
    several = (*one, "--weights", "run/step_*.safetensors")
    done(*one)
    assert Report.load("o").steps == []
    done(*several)
    assert Report.load("o").steps == [0, 20, 100]
    done(*one)
    assert Report.load("o").steps == []
    assert not list(Path("o").glob("scores_by_step.*"))  # of the series that is no more


def test_every_field_of_the_spec_is_an_option(here: Path) -> None:
    """What is given on the command line is what the spec in the report says; what is not given is the spec's default."""
    given = {
        "--layer": "1", "--layer-map": "input", "--k": "1,3", "--selection": "ball(2)", "--image-shape": "8,8",
        "--tokens": "flat", "--wrt": "0", "--mode": "eval", "--precision": "model", "--score": "pr", "--points": "3",
        "--zero-row-quantile": "0.05", "--seed": "4", "--exact-minors": "1e7",
        "--rel-error": "0.02", "--triple-points": "2",
        "--rotation-points": "1", "--rotations": "3", "--drawn-minors": "50",
        "--row-points": "2", "--divergence-points": "2", "--unit-points": "2",
        "--samples": "12", "--window-points": "1", "--max-rows": "4", "--memory": "64MB", "--window-map": "0",
    }  # fmt: skip
    assert {*given, "--exact"} == {f"--{option_name(name)}" for name in spec_fields()}
    arguments = ["--exact", *(part for pair in given.items() for part in pair)]
    found = json.loads(done("nets.py:net", "--data", "digits", *arguments, "--json").stdout)["settings"]
    assert MeasureSpec(**found) == MeasureSpec(
        layers=["1"], k=(1, 3), selections=["ball(2)"], image_shape=(8, 8), tokens="flat", wrt=0, precision="model",
        scores=["pr"], points=3, zero_row_quantile=0.05, seed=4,
        budget=Budget(exact_minors=1e7, exact=True, rel_error=0.02,
                      triple_points=2, rotation_points=1, rotations=3, drawn_minors=50, row_points=2,
                      divergence_points=2, unit_points=2, samples=12, window_points=1, max_rows=4, memory_budget=64 * 10**6),
    )  # fmt: skip
    usual = json.loads(done("nets.py:net", *SMALL, "--json").stdout)["settings"]
    assert MeasureSpec(**usual) == MeasureSpec(points=4, image_shape=(8, 8))
    shown = done("--help").stdout
    assert all(option in shown for option in given)


def test_as_a_process(here: Path) -> None:
    """From another process: a package beside the caller, output to a pipe, nothing but the table on standard output."""
    package = here / "package"
    package.mkdir()
    shutil.move(here / "nets.py", package / "nets.py")
    command = [sys.executable, "-m", "kagscope", "measure", "package.nets:net", *SMALL, "--k", "1"]
    source = str(Path(kag.__file__).resolve().parents[1])
    environment = {**os.environ, "PYTHONPATH": source}
    ran = subprocess.run(command, cwd=here, env=environment, capture_output=True, text=True, timeout=240, check=False)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.startswith("Sequential, 1 of 1 layers")
    assert "building" in ran.stderr
