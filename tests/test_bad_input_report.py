"""`kagscope report` of what is no study, of damaged ones and into places that cannot be written: one line, nothing changed."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
from torch import nn
from typer.testing import CliRunner, Result

import kagscope as kag
from kagscope.base.errors import DataError, OutputError
from kagscope.base.files import atomic_write, holds_mark
from kagscope.cli import app
from kagscope.pruning.pruned_files import check_new

Two = tuple[Path, Path]


@pytest.fixture
def place(two_studies: Two, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with copies of two studies, "short" and "long"."""
    for study in two_studies:
        shutil.copytree(study, tmp_path / study.name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def report(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["report", *arguments])


def content(folder: Path) -> dict[str, str]:
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "" for path in folder.rglob("*")}


def refused(place: Path, message: str, code: int, *arguments: str) -> None:
    before = content(place)
    done = report(*arguments)
    assert done.exit_code == code, done.output
    lines = [line for line in done.stderr.splitlines() if line.strip() and not line.startswith("writing ")]
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("error: ")
    assert re.search(message, lines[0]), lines[0]
    assert not done.stdout
    assert content(place) == before


def first_run(study: Path) -> Path:
    return sorted((study / "runs").iterdir())[0]


def main_table(run: Path) -> Path:
    """The table of a run's first spec."""
    study = json.loads((run.parent.parent / "study.json").read_text())
    return run / "tables" / f"{study['measured'][study['runs'][run.name]]['tables']['main']}.parquet"


def edit(file: Path, change: Callable[[Any], None]) -> None:
    found = json.loads(file.read_text())
    change(found)
    file.write_text(json.dumps(found))


def sign(run: Path) -> None:
    """Bring the manifest of a run up to date with its files, as another version of kagscope would have written it."""
    edit(
        run / "manifest.json",
        lambda manifest: manifest["files"].update({name: _digest(run / name) for name in manifest["files"]}),
    )


def _digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


# -- folders ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("beside", [(), ("long",)])
def test_no_study(place: Path, beside: tuple[str, ...]) -> None:
    (place / "empty").mkdir()
    (place / "thesis.tex").write_text("mine")
    run = os.path.relpath(first_run(place / "short"), place)
    for folder, message in (
        ("nowhere", "nowhere is not there; give the output folder of reproduce or study run"),
        ("thesis.tex", "thesis.tex is a file"),
        ("empty", "empty holds no kagscope study, measured model or history;"),
        (".", r"\. holds no kagscope study.* \(in it are long, short\)"),
        (run, r"holds no kagscope study.* \(it is one run of the study in short\)"),
    ):
        refused(place, message, 1, folder, *beside)


def test_study_json_that_is_damaged_or_newer(place: Path) -> None:
    edit(place / "long" / "study.json", lambda study: study.update(kagscope_store=99))
    for arguments in (("long",), ("short", "long")):
        refused(place, "long was written by a newer kagscope .*reads 2.*upgrade", 1, *arguments)
    (place / "long" / "study.json").write_text('{"kagscope_store": 1')
    for arguments in (("long",), ("short", "long")):
        refused(place, "study.json cannot be read", 1, *arguments)


@pytest.mark.parametrize("wrong", [{"runs": [1]}, {"measured": []}, {"measured": [{"tables": 3}]}])
def test_study_json_with_other_content(place: Path, wrong: dict[str, Any]) -> None:
    edit(place / "long" / "study.json", lambda study: study.update(wrong))
    refused(place, "study.json is damaged", 1, "long")


def test_no_finished_run(place: Path) -> None:
    shutil.rmtree(place / "long" / "runs")
    for arguments in (("long",), ("short", "long")):
        refused(place, "long holds no finished run; run the study first", 1, *arguments)
    (place / "long" / "failed").mkdir()
    run = json.loads((place / "long" / "study.json").read_text())["runs"]
    run = list(run)[1]
    (place / "long" / "failed" / f"{run}.json").write_text('{"error": "the loss is NaN"}')
    refused(place, f"long holds no run that can be used, of 3: {run} failed: the loss is NaN", 1, "long")


def test_every_run_damaged(place: Path) -> None:
    for run in (place / "long" / "runs").iterdir():
        main_table(run).write_bytes(b"PAR1")
    for arguments in (("long",), ("short", "long")):
        refused(place, "no run that can be used, of 3: .* damaged: tables/\\w+.parquet differs from its checksum", 1, *arguments)


def test_tables_of_a_newer_schema(place: Path) -> None:
    for run in (place / "long" / "runs").iterdir():
        edit(run / "config.json", lambda config: config.update(schema_version=3))
        sign(run)
    for arguments in (("long",), ("short", "long")):
        refused(place, "of 3: .* of a newer kagscope: its schema is 3, this one reads up to 2; upgrade", 1, *arguments)


def test_a_table_without_columns_this_version_needs(place: Path) -> None:
    run = first_run(place / "long")
    table = pq.read_table(main_table(run))
    pq.write_table(table.drop_columns(["ratio"]).append_column("quotient", table["ratio"]), main_table(run))
    sign(run)
    for arguments in (("long",), ("short", "long")):
        refused(place, f"tables/.*parquet of run {run.name} lacks the columns ratio, so another version.*upgrade", 1, *arguments)


# -- damaged and unfinished: allowed, and said -----------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_damaged_run_is_left_out_and_said_so_on_the_page(place: Path) -> None:
    run = first_run(place / "long")
    (run / "weights.safetensors").write_bytes(b"")
    done = report("short", "long", "--quiet")
    assert done.exit_code == 0
    assert done.stdout == "short-vs-long.html\n"
    said = f"long: Run {run.name} was left out: damaged: weights.safetensors differs from its checksum."
    assert said in (place / "short-vs-long.html").read_text()
    alone = report("long")
    assert alone.exit_code == 0
    assert f"Run {run.name} was left out: damaged" in (place / "long" / "report.html").read_text()


def test_a_study_still_running_says_how_many_are_missing(place: Path) -> None:
    shutil.rmtree(first_run(place / "long"))
    found = json.loads(report("short", "long", "--json").stdout)
    assert "long: 1 of 3 runs is not finished yet and left out." in found["findings"]


@pytest.mark.slow
def test_joined_tables_that_are_damaged_are_made_again(place: Path) -> None:
    whole = (place / "long" / "results.parquet").read_bytes()
    (place / "long" / "results.parquet").write_bytes(whole[:4] + bytes(2000) + whole[2004:])
    (place / "short" / "curves.parquet").write_bytes(b"")
    assert report("short", "long", "-q").exit_code == 0
    assert report("long", "-q").exit_code == 0
    assert len(pd.read_parquet(place / "long" / "results.parquet")) == sum(
        len(pd.read_parquet(table)) for table in (place / "long" / "runs").glob("*/tables/*.parquet")
    )


# -- two that cannot be compared -------------------------------------------------------------------------------------------------


def test_the_same_folder_twice(place: Path) -> None:
    (place / "link").symlink_to("short")
    for other in ("short", "./long/../short", "link"):
        refused(place, "are the same folder; give two studies to compare, or one", 2, "short", other)


def test_one_folder_or_several(place: Path) -> None:
    refused(place, "short and short are the same folder", 2, "short", "long", "short")
    refused(place, "--out is for comparing studies", 2, "short", "--out", "x.html")
    assert report().exit_code == 2


def test_nothing_in_common(place: Path) -> None:
    for run in (place / "long" / "runs").iterdir():
        edit(run / "config.json", lambda config: config.update(widths=[12, 12]))
        sign(run)
    refused(
        place, "short and long have no setting in common: width is 4, 6 in the first and 12 in the second", 2, "short", "long"
    )


def test_no_score_in_common(place: Path) -> None:
    for run in (place / "long" / "runs").iterdir():
        for file in (run / "tables").iterdir():
            pd.read_parquet(file).assign(layer="encoder").to_parquet(file, index=False)
        sign(run)
    refused(place, r"short \(layers hidden1, hidden2\) and long \(layers encoder\) have no score", 2, "short", "long")


def test_only_studies_are_compared(place: Path) -> None:
    kag.measure(nn.Sequential(nn.Linear(3, 4), nn.GELU()), torch.ones(2, 3), progress=False).save(place / "model")
    refused(place, r"model is the folder of a measured model; .*Report.load\(A\).compare", 2, "short", "model")


# -- where to write --------------------------------------------------------------------------------------------------------------


def test_outputs_that_cannot_be_written(place: Path) -> None:
    (place / "folder.csv").mkdir()
    (place / "mine.csv").write_text("a,b\n1,2\n")
    (place / "file").write_text("mine")
    for out, message, code in (
        ("missing/page.html", "cannot write missing/page.html: the folder missing does not exist", 1),
        ("file/page.html", "cannot write file/page.html: the folder file", 1),
        ("page.pdf", "page.pdf is neither a file that ends in .html nor a folder", 2),
        ("nowhere", "nowhere is neither a file that ends in .html nor a folder", 2),
        ("file", "file is neither", 2),
        ("folder.html", "folder.csv is a folder; give another --out", 1),
        ("mine.html", "mine.csv would be replaced, and is not the table of a comparison", 1),
        ("x" * 300 + ".html", "File name too long|cannot", 1),
    ):
        refused(place, message, code, "short", "long", "--out", out)


def test_a_write_protected_folder(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (place / "closed").mkdir()
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path).name != "closed")  # the tests may run as root
    refused(
        place,
        "cannot write closed/page.html: the folder closed cannot be written to",
        1,
        "short",
        "long",
        "--out",
        "closed/page.html",
    )


@pytest.mark.parametrize("which", [pytest.param(".html", marks=pytest.mark.slow), ".csv"])
def test_no_space_leaves_the_old_files(place: Path, monkeypatch: pytest.MonkeyPatch, which: str) -> None:
    assert report("short", "long", "-q").exit_code == 0
    write = Path.write_text

    def full(path: Path, *args: Any, **more: Any) -> int:
        if path.suffix == which:
            write(path, "half")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(path, *args, **more)

    monkeypatch.setattr(Path, "write_text", full)
    refused(place, f"cannot write short-vs-long{which}: No space left on device", 1, "short", "long")


@pytest.mark.slow
def test_a_page_is_written_over_an_older_one(place: Path) -> None:
    for _ in range(2):
        assert report("short", "long", "-q", "--out", "page.html").exit_code == 0


# -- the other folders -----------------------------------------------------------------------------------------------------------


def test_one_command_for_every_folder(place: Path) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.GELU(), nn.Linear(6, 2))
    x = torch.randn(12, 4)
    what: dict[str, Any] = {"layers": "1", "k": 1, "progress": False}
    kag.measure(model, x, baseline="reinit", baseline_seeds=2, **what).save(place / "model")
    start = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with kag.Tracker(model, x, every=1, history=place / "history", layers="1", k=1) as tracker, torch.no_grad():
        for step in range(1, 4):
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter), alpha=0.3)
            tracker.step(step)
    kag.measure_series(model, {0: start, 3: model.state_dict()}, x, **what).save(place / "series")
    for folder, said in (
        ("model", "networks"),
        ("series", "measurements, from step 0 to step 3"),
        ("history", "measurements, from step 0 to step 3"),
    ):
        done = report(folder)
        assert done.exit_code == 0, done.output
        assert done.stdout.strip().splitlines()[-1] == f"{folder}/report.html"
        assert said in " ".join(done.stdout.split())
        assert "<html" in (place / folder / "report.html").read_text()
    assert json.loads(report("model", "--json").stdout)["findings"]
    assert kag.Tracker.load(place / "history").steps == [0, 1, 2, 3]


def test_damaged_folders_of_models(place: Path) -> None:
    for name, file in (("model", "report.json"), ("history", "tracker.json")):
        (place / name).mkdir()
        (place / name / file).write_text("{")
        refused(place, f"{name}.*(damaged|cannot be read)", 1, name)
    (place / "model" / "report.json").write_text('{"format": 99}')
    refused(place, "format 99, this kagscope reads up to 1; upgrade", 1, "model")


def test_a_history_without_any_measurement(place: Path) -> None:
    model = nn.Sequential(nn.Linear(3, 2), nn.GELU())
    with kag.Tracker(model, torch.ones(2, 3), every=1, history=place / "history") as tracker:
        tracker.step(1)
    for part in (place / "history" / "parts").glob("*"):
        part.unlink()
    refused(place, "nothing was measured yet", 1, "history")


@pytest.mark.parametrize("kind", ["a FIFO", "a device", "a folder"])
def test_what_is_no_plain_file_is_not_replaced(kind: str, tmp_path: Path) -> None:
    target = tmp_path / "page.html"
    if kind == "a FIFO":
        os.mkfifo(target)
    elif kind == "a device":
        target.symlink_to(os.devnull)
    else:
        target.mkdir()
    before = target.lstat()
    with pytest.raises(OutputError, match=kind):
        atomic_write(target, "text")
    assert target.lstat() == before
    assert list(tmp_path.iterdir()) == [target]


def test_a_name_that_is_no_text_is_refused(tmp_path: Path) -> None:
    name = Path(os.fsdecode(bytes(tmp_path) + b"/\xff"))
    marked: Callable[[], Any] = lambda: holds_mark(name, "mark", otherwise="is another's", instead="stop")  # noqa: E731
    for use in (lambda: atomic_write(name, "text"), marked, lambda: check_new(name)):
        with pytest.raises(OutputError, match="surrogates"):
            use()
    assert not list(tmp_path.iterdir())


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    report = kag.measure(nn.Sequential(nn.Linear(4, 3), nn.GELU()), torch.rand(2, 4), k=1, progress=False)
    return Path(report.save(tmp_path_factory.mktemp("saved") / "report"))


@pytest.mark.parametrize(
    ("place", "wrong"),
    [
        ("layers", 3),
        ("layers", [{"name": "1"}]),
        ("notes", None),
        ("provenance", [1]),
        ("left_out", {"a": {}}),
        ("table.value", "word"),
        ("table.score", None),
        ("curves.y", None),
        ("units.row_norm", "word"),
    ],
)
def test_a_saved_report_with_other_content_is_refused(saved: Path, tmp_path: Path, place: str, wrong: Any) -> None:
    folder = shutil.copytree(saved, tmp_path / "report")
    name, _, column = place.partition(".")
    if column:
        table = pd.read_parquet(folder / f"{name}.parquet")
        changed = table.drop(columns=column) if wrong is None else table.assign(**{column: wrong})
        changed.to_parquet(folder / f"{name}.parquet")
    else:
        about = json.loads((folder / "report.json").read_text())
        (folder / "report.json").write_text(json.dumps(about | {name: wrong}))
    with pytest.raises(DataError, match=re.escape(name)) as caught:
        kag.Report.load(folder)
    assert "\n" not in str(caught.value)
