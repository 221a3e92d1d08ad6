"""Every code block of README and docs runs, page by page and block by block in the order of the page, in one temporary folder.

What a block is, its fence says::

    ```python                  runs; names live on to the next block of the page
    ```python title="nets.py"  a file of that name, written for the blocks after it; so with any other language
    ```text title="prints"     what the block before it prints, to the letter but for seconds; … in a line of its own: and more
    ```sh                      each line that calls kagscope or python runs as a process of its own
    ```text, ```toml, …        is shown

Commands that are not run stand in :data:`ONLY_PARSED`, with the reason; their options are still parsed by the command line.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

pytest.importorskip("sybil")
from sybil import Document, Example, Region, Sybil
from sybil.evaluators.python import PythonEvaluator
from sybil.parsers.markdown.lexers import RawFencedCodeBlockLexer

from kagscope import registry
from kagscope.minors import routes

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
# many seconds each; what README shows is theirs too, what extend.md adds is in test_extend.py
SLOW = {
    "docs/extend.md",
    "docs/interventions.md",
    "docs/measure.md",
    "docs/prune.md",
    "docs/report.md",
    "docs/reproduce.md",
    "docs/start.md",
    "docs/studies.md",
    "docs/studies_statistics.md",
    "docs/tracking.md",
}
NEEDS = {"docs/tracking.md": ("lightning", "transformers", "accelerate", "tensorboard")}

ONLY_PARSED = {  # beginning of the command: why it is not run here
    "kagscope reproduce --data mnist": "MNIST, ten minutes",
    "kagscope reproduce --out out/mnist --data": "MNIST, ten minutes",
    "kagscope reproduce --out out/mnist10k": "the whole main job, minutes",
    "kagscope reproduce --out out/relu": "the main job again, minutes",
    "kagscope reproduce --data my-images": "the reader's own images, an hour",
    "kagscope report out/mine": "what that command would have made",
    "kagscope report out/study out/phase": "the second is what that command would have made",
    "kagscope study run ka-phase-diagram": "a ready study, minutes",
    "kagscope study run geometry-vs-robustness": "a ready study, minutes",
    "kagscope study run augmentation-strength": "a ready study, minutes",
    "kagscope study run grokking": "a ready study, minutes",
    "kagscope study run steering": "a ready study, an hour",
    "kagscope study run initialisation": "a ready study, minutes",
    "kagscope study run freeze-and-extend": "a ready study, minutes",
    "kagscope study run vision-transformer": "a ready study, half an hour",
    "kagscope study run study.toml --out out --workers 8": "the study that the page is about is the reader's",
    "kagscope study run study.toml --out out --executor ray": "the same",
    "kagscope study run study.toml --out /shared/out": "on a cluster",
    "python benchmarks/": "minutes each, on idle cores",
    "python docs/make_transformer_page.py": "minutes, and a package of 84 MB",
    "python -m venv": "the environment is the one that runs this",
}
PAIR = (
    "kagscope reproduce --data digits --control none --widths 8,16 --seeds 3 "
    "--epochs {} --k 1,2 --points 12 --checkpoints 4 --out {}"
)
TINY = "--widths 6 --seeds 2 --training standard --k 1,2 --points 4 --checkpoints 2 --workers 1"
SMALLER = {  # what is added where the command of the page takes minutes
    PAIR.format(5, "out/short"): f"{TINY} --epochs 1",
    PAIR.format(20, "out/long"): f"{TINY} --epochs 2",
    "kagscope study run small.toml --out out/gallery --workers 1": (
        "--set run.epochs=2 --set grid.width=[6,32] --set measure.points=4 --set measure.checkpoints=3"
    ),
    "kagscope reproduce --data stripes --widths 16 --seeds 2 --epochs 3 --k 1,2 --points 8 --out out/stripes": (
        "--workers 1 --training standard"
    ),
    "kagscope study run study.toml --out out/study": (
        "--workers=1 --set run.epochs=1 --set run.train_size=200 --set grid.width=[6] --set grid.seed=[0] "
        "--set grid.label_noise=[0.0,0.2] --set measure.checkpoints=2 --set measure.points=4"
    ),
}
BEFORE = {  # what a page takes for granted
    "docs/studies_statistics.md": (
        "kagscope study run ka-phase-diagram --out out/phase --workers 1 --set grid.epochs=[2] --set measure.points=4 "
        "--set measure.checkpoints=3 --set grid.width=[4,8] --set grid.seed=[0,1,2] "
        """--set grid.data='["linear3","xor3"]'"""
    ),
}
SHOWN = {
    ".venv/bin/pip",
    ".venv/bin/python",
    ".venv/bin/pre-commit",
    "make",
    "pip",
    "git",
    "srun",
    "sbatch",
    "ray",
    "head=$(scontrol",
    "sleep",
    "tensorboard",
    "cd",
}  # not kagscope's own
NOISE = re.compile(r"(\b\d+(\.\d+)? s\b|[ \t]+)$", re.MULTILINE)  # seconds at the end of a line, and blanks there
INFO = re.compile(r"(?P<language>[\w+-]*)[ \t]*(?:title=\"(?P<title>[^\"\n]*)\")?[ \t]*$\n", re.MULTILINE)


class Blocks:
    """Sybil's parser of fenced blocks; it keeps what the last Python block printed."""

    def __init__(self) -> None:
        self._lexer = RawFencedCodeBlockLexer(INFO)
        self._python = PythonEvaluator()

    def __call__(self, document: Document) -> list[Region]:
        regions = list(self._lexer(document))
        for region in regions:
            region.parsed, region.evaluator = region.lexemes["source"], self.evaluate
        return regions

    def evaluate(self, example: Example) -> None:
        language, title, source = (example.region.lexemes[name] for name in ("language", "title", "source"))
        if title == "prints":
            printed, shown = (NOISE.sub("", text) for text in (example.namespace["_printed"], str(source)))
            start = shown.removesuffix("…\n")
            assert (printed == shown) if start == shown else printed.startswith(start)
        elif title:
            path = Path(title)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(source)
        elif language == "python":
            with contextlib.redirect_stdout(io.StringIO()) as stream:
                self._python(example)
            example.namespace["_printed"] = stream.getvalue()
        elif language in ("", "sh"):
            example.namespace["_printed"] = "".join(map(run, commands(source)))


def commands(block: str) -> list[str]:
    """The lines of a shell block, those that end in a backslash joined, without comments."""
    lines = re.sub(r"\\\n\s*", "", block).splitlines()
    return [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]


def run(line: str) -> str:
    """What the command prints; nothing where it is not run."""
    if any(line.startswith(start) for start in ONLY_PARSED) and line not in BEFORE.values():
        if line.startswith("kagscope"):
            parse(shlex.split(line)[1:])
        return ""
    program, *arguments = shlex.split(f"{line} {SMALLER.get(line, '')}")
    if program in SHOWN:
        return ""
    assert program in ("kagscope", "python"), f"what is {program!r}? Run it, or name it in SHOWN or ONLY_PARSED"
    call = [sys.executable, *(["-m", "kagscope"] if program == "kagscope" else []), *arguments]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT / "src"), "."]), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(call, capture_output=True, text=True, env=environment, timeout=300)
    assert done.returncode == 0, f"{line}\n{done.stderr}"
    return done.stdout


def parse(arguments: list[str]) -> None:
    """The command line reads these options without complaint; nothing is run."""
    from kagscope.cli import app

    command: Any = typer.main.get_command(app)
    rest, context, name = list(arguments), None, "kagscope"
    while hasattr(command, "commands"):
        context = command.make_context(name, rest, parent=context, allow_interspersed_args=False)
        name, command, rest = command.resolve_command(context, [*context._protected_args, *context.args])
    command.make_context(name, rest, parent=context)


def _pages() -> Iterator[Any]:
    for page in PAGES:
        name = page.relative_to(ROOT).as_posix()
        yield pytest.param(page, id=name, marks=[pytest.mark.slow] if name in SLOW else [])


@pytest.mark.parametrize("page", list(_pages()))
def test_every_block_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    name = page.relative_to(ROOT).as_posix()
    for package in NEEDS.get(name, ()):
        pytest.importorskip(package)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)  # files that the page wrote can be imported
    routes.routes_of_kind("formula", on_device=True)  # all of them, before what the page registers, which ends with it
    monkeypatch.setattr(routes, "_ROUTES", dict(routes._ROUTES))
    monkeypatch.setattr(registry, "_SCORES", dict(registry._SCORES))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path / "run" / "bert" / "events"))
    if name == "docs/report.md":  # it goes on with a study that another page makes
        shutil.copytree(request.getfixturevalue("study").folder, tmp_path / "out" / "small")
    if name in BEFORE:
        run(BEFORE[name])
    document = Sybil(parsers=[Blocks()]).parse(page)
    for example in document.examples():
        example.evaluate()
    check = CHECKS.get(name)
    if check is not None:
        check(document.namespace, tmp_path)


def _tracked(names: dict[str, Any], folder: Path) -> None:
    """What the guide to tracking says besides what it shows."""
    assert (folder / "pr.png").stat().st_size > 10_000
    assert list(names["onsets"]["layer"]) == ["1", "3"]
    assert names["onsets"]["step"].notna().all()
    assert names["track"].steps == [0, 10, 20, 30]
    assert names["tracking"].tracker.steps == [0, 4, 8]
    for part in ("events", "lightning", "bert"):
        assert list((folder / "run" / part).rglob("events.out.tfevents*"))


def _pruned(names: dict[str, Any], folder: Path) -> None:
    """What the guide to pruning says of its example."""
    assert sum(map(len, names["pruning"].removed.values())) > 10
    assert names["pruning"].accuracy_after == names["pruning"].accuracy_before > 0.95


CHECKS = {"docs/tracking.md": _tracked, "docs/prune.md": _pruned}


def test_commands_that_do_not_exist_are_noticed() -> None:
    parse(shlex.split("reproduce --data mnist --seeds 3"))
    for wrong in ("reproduce --sides 3", "study fly", "measure nets.py:mlp --k"):
        with pytest.raises(Exception, match=r"(?i)no such|requires an argument"):
            parse(shlex.split(wrong))
