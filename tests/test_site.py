"""The documentation site builds without a warning (so does ``make docs``), asks nothing of the network, has every public name."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

import kagscope

pytestmark = pytest.mark.skipif(
    not all(find_spec(name) for name in ("material", "mkdocstrings", "mkdocs_jupyter")), reason="no mkdocs-material here"
)

ROOT = Path(__file__).resolve().parents[1]
FETCHED = re.compile(
    r"""<(?:script|img|iframe|source|embed|video|audio)\b[^>]*\bsrc=["']?(?:https?:)?//[^"'>\s]+"""
    r"""|<link\b(?=[^>]*\brel=["']?(?:stylesheet|preload|preconnect|icon|dns-prefetch))[^>]*\bhref=["']?(?:https?:)?//[^"'>\s]+"""
    r"""|@import\s+["'(][^)]*//[^;]+|url\(["']?(?:https?:)?//[^)]*|\bimport\(["'`][^)]*//[^)]*\)"""
)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1", "PYTHONPATH": str(ROOT / "src")}
    call = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    done = subprocess.run(call, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.slow
def test_no_page_asks_the_network(site: Path) -> None:
    files = [*site.rglob("*.html"), *site.rglob("*.css")]
    assert len(files) > 30
    assert not {str(file.relative_to(site)): found for file in files if (found := FETCHED.findall(file.read_text()))}


def test_what_asks_the_network_is_noticed() -> None:
    for text in (
        '<script src="https://a/b.js">',
        "<link rel=stylesheet href=//a/b.css>",
        '@import "https://a";',
        "url(//a/b.woff)",
    ):
        assert FETCHED.search(text)
    assert not FETCHED.search('<a href="https://arxiv.org/abs/2511.21626"><link rel="canonical" href="https://a">')


@pytest.mark.slow
def test_the_reference_has_every_public_name(site: Path) -> None:
    there = set(re.findall(r'id="?([\w.]+)', (site / "api.html").read_text()))
    wanted = {f"kagscope.{module}.{name}" for name, module in kagscope._PUBLIC.items()}
    assert not wanted - there


@pytest.mark.slow
def test_docstrings_are_rendered_without_leftovers(site: Path) -> None:
    """No role of Sphinx, no heading of a section that was not read as one, no table drawn with equals signs."""
    page = (site / "api.html").read_text()
    assert not re.findall(r":(?:func|class|meth|mod|data):|={8,}|<p>(?:Args|Returns|Raises|Attributes|Yields):", page)


def test_docstrings_for_the_site() -> None:
    sys.path.insert(0, str(ROOT / "docs"))
    try:
        from site_docstrings import rewritten
    finally:
        sys.path.pop(0)
    text = "Do.\n\nArgs:\n    a, b: numbers\n        of :func:`~kagscope.measure`.\n    c: one.\n\nReturns:\n    x, y: two."
    assert rewritten(text) == (
        "Do.\n\nArgs:\n    a: numbers\n        of `kagscope.measure`.\n    b: See `a`.\n    c: one.\n\nReturns:\n    x, y: two."
    )
    assert rewritten("=== ====\na   b\n=== ====\nc   d\n    e\n=== ====") == "| a | b |\n| --- | --- |\n| c | d e |"
