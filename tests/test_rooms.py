"""The layout shows the architecture: a module imports only from rooms above its own, and no imports form a circle."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

import kagscope

ROOT = Path(kagscope.__file__).parent
ROOMS = [  # CONTRIBUTING.md says what each holds
    ["base", "errors"],
    ["registry"],
    ["columns"],
    ["tables"],
    ["minors"],
    ["scores"],
    ["jacobians"],
    ["steering"],
    ["data", "loading", "training"],
    ["figures", "report"],
    ["measuring"],
    ["tracking", "integrations"],
    ["pruning", "robustness"],
    ["studies"],
    ["commands", "cli", "__main__"],
]
FLOOR = {room: floor for floor, rooms in enumerate(ROOMS) for room in rooms}


@cache
def _modules() -> dict[str, Path]:
    found = {}
    for path in ROOT.rglob("*.py"):
        parts = ["kagscope", *path.relative_to(ROOT).with_suffix("").parts]
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


@cache
def _imports(path: Path) -> frozenset[str]:
    """Modules of kagscope that a file imports, inside functions too; not those for type checkers alone."""
    modules, tree = _modules(), ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            node.body = []
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {one for one in inner if one in modules} or {node.module}
    return frozenset(one for one in found if one in modules and one != "kagscope")


def _room(module: str) -> str:
    return module.split(".")[1]


def test_rooms_import_only_from_rooms_above() -> None:
    modules = _modules()
    upwards = [
        f"{name} imports {other}"
        for name, path in modules.items()
        if name != "kagscope"
        for other in _imports(path)
        if _room(other) != _room(name) and FLOOR[_room(other)] > FLOOR[_room(name)]
    ]
    assert not upwards, "\n".join(sorted(upwards))


def test_no_imports_form_a_circle() -> None:
    modules = _modules()
    edges = {name: {o for o in _imports(p) if o != name and not name.startswith(f"{o}.")} for name, p in modules.items()}
    done: set[str] = set()

    def walk(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, " -> ".join([*path[path.index(name) :], name])
        if name not in done:
            for other in sorted(edges[name]):
                walk(other, (*path, name))
            done.add(name)

    for name in sorted(edges):
        walk(name, ())


def test_inner_modules_import_each_other_and_not_the_public_face() -> None:
    through = [name for name, path in _modules().items() if name != "kagscope" and "import kagscope as kag" in path.read_text()]
    assert not through
