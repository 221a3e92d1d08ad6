"""Which tests run which lines, found once by coverage's tracer, so that a mutant is given only to tests that can see it."""

from __future__ import annotations

import ast
import hashlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import coverage

from callers import mentions
from mutants import FUNCTIONS, Mutant


def trace(root: Path, items: list[Any], run: Callable[[Any, None], None], kept: Path) -> None:
    """Runs tests, each with fixtures and caches of its own, and keeps the lines of the package that they ran."""
    tracer = coverage.Coverage(data_file=None, config_file=False, include=[f"{root}/src/kagscope/*"])
    tracer.start()
    for item in items:
        _empty_caches()
        tracer.switch_context(item.nodeid)
        run(item, None)
        tracer.switch_context("")
        item.session.testsfailed = 0
    tracer.stop()
    data, tests, files = tracer.get_data(), [item.nodeid for item in items], {}
    number = {name: place for place, name in enumerate(tests)}
    for file in (root / "src/kagscope").rglob("*.py"):
        lines = {line: [number[name] for name in names if name] for line, names in data.contexts_by_lineno(str(file)).items()}
        files[str(file.relative_to(root))] = {"text": _digest(file), "lines": lines}
    own = {name: _digest(root / name) for name in {_file(test) for test in tests}}
    kept.write_text(json.dumps({"tests": tests, "own": own, "files": files}))


class Traced:
    """What :func:`trace` kept, of files and tests that are still the same."""

    def __init__(self, root: Path, kept: Path) -> None:
        self.root = root
        found = json.loads(kept.read_text()) if kept.exists() else {"tests": [], "own": {}, "files": {}}
        same = {name for name, text in found["own"].items() if (root / name).exists() and text == _digest(root / name)}
        self.tests: dict[str, int] = {name: place for place, name in enumerate(found["tests"]) if _file(name) in same}
        self.lines: dict[str, dict[int, list[int]]] = {
            file: {int(line): tests for line, tests in one["lines"].items()}
            for file, one in found["files"].items()
            if (root / file).exists() and one["text"] == _digest(root / file)
        }

    def unseen(self, mutant: Mutant) -> tuple[frozenset[str], frozenset[str]]:
        """Tests that do not run its line or, where that is compiled or outside functions, one that names it; and the names."""
        places, names = _places(self.root, mutant)
        if any(file not in self.lines for file, _ in places):
            return frozenset(), names
        seen = {test for file, line in places for test in self.lines[file].get(line, ())}
        return frozenset(name for name, place in self.tests.items() if place not in seen), names


def _places(root: Path, mutant: Mutant) -> tuple[set[tuple[str, int]], frozenset[str]]:
    around = [one for one in ast.walk(ast.parse((root / mutant.file).read_text())) if isinstance(one, ast.stmt)]
    around = [one for one in around if one.lineno <= mutant.line <= (one.end_lineno or 0)]  # from outside in
    if mutant.compiled or not any(isinstance(one, FUNCTIONS) for one in around):
        targets = [one.id for one in ast.walk(around[0]) if isinstance(one, ast.Name) and isinstance(one.ctx, ast.Store)]
        return mentions(root, mutant.file, mutant.function or targets[0])
    body = getattr(around[-1], "body", None)
    last = body[0].lineno - 1 if body and not isinstance(around[-1], FUNCTIONS) else around[-1].end_lineno or 0
    return {(mutant.file, line) for line in range(around[-1].lineno, max(around[-1].lineno, last) + 1)}, frozenset()


def _empty_caches() -> None:
    """So that what one test remembered runs again in the next."""
    for name, module in list(sys.modules.items()):
        for key, value in list(vars(module).items()) if name.startswith("kagscope") else ():
            if hasattr(value, "cache_clear"):
                value.cache_clear()
            elif isinstance(value, dict) and key.startswith("_") and key.islower() and not key.startswith("__"):
                value.clear()


def _file(test: str) -> str:
    return test.partition("::")[0]


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
