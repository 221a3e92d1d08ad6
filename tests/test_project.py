"""What the project's own files say about each other."""

from __future__ import annotations

import ast
import re
import tomllib
from pathlib import Path

import pytest

import kagscope

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
ABSOLUTE = re.compile(
    r"(?<![\w.<~:/)\]])/(?:bin|etc|home|media|mnt|opt|private|root|srv|tmp|usr|var|work|Users|Volumes)\b|\b[A-Z]:\\|~/"
)


def test_one_version_everywhere() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert kagscope.__version__ == version
    assert re.findall(r"^version: (.*)$", (ROOT / "CITATION.cff").read_text(), flags=re.MULTILINE) == [version]


def test_readme_starts_with_commands_that_exist() -> None:
    block = re.search(r"^```\w*\n(.*?)^```", (ROOT / "README.md").read_text(), flags=re.MULTILINE | re.DOTALL)
    assert block is not None
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    wanted = re.findall(r"^make ([a-z-]+)", block[1], flags=re.MULTILINE)
    assert wanted
    assert set(wanted) <= set(targets)


def test_contributing_names_every_target_of_make_and_only_files_that_exist() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text()
    table = text[text.index("| target of `make`") : text.index("## The architecture")]
    first = re.findall(r"^\| (`[^|]*`) \|", table, flags=re.MULTILINE)
    named = {target for cell in first for target in re.findall(r"`([a-z-]+)`", cell)}
    assert named == set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    files = re.findall(r"`([a-z_]+/[a-z_]+\.(?:py|md))`", text)
    assert len(files) > 10
    assert not [file for file in files if not ((ROOT / "src" / "kagscope" / file).exists() or (ROOT / file).exists())]


def test_docstrings_name_arguments_and_attributes_that_exist() -> None:
    wrong = []
    for file in sorted((ROOT / "src").rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                section = re.search(
                    r"^(?:Args|Attributes):\n((?: {4}.*\n?|\n)+)", ast.get_docstring(node) or "", flags=re.MULTILINE
                )
                named = re.findall(r"^ {4}([\w*][\w*, ]*):", section[1], flags=re.MULTILINE) if section else []
                inside = list(ast.walk(node.args if isinstance(node, ast.FunctionDef) else node))
                known = {getattr(part, name, None) for part in inside for name in ("arg", "id", "attr", "name")}
                wrong += [
                    f"{file.name}: {node.name}: {name}" for name in re.findall(r"\w+", " ".join(named)) if name not in known
                ]
    assert not wrong


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_pages_name_no_absolute_paths(page: Path) -> None:
    assert not [line for line in page.read_text().splitlines() if ABSOLUTE.search(line)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text())
    assert not [link for link in links if "://" not in link and not (page.parent / link).exists()]
