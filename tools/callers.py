"""Who calls a function of the package, and who calls them: found by the names in the text of functions and classes."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

from mutants import FUNCTIONS, is_compiled

Name = tuple[str, str]  # file and name there


def callers(root: Path, file: str, name: str) -> dict[str, int]:
    """Names that lead to this function or class, without leading underscores, and in how many steps."""
    steps, new, far = {(file, name): 0}, {(file, name)}, 0
    while new:
        far += 1
        new = {one for one, (_, used) in _uses(root).items() if used & new} - steps.keys()
        steps |= dict.fromkeys(new, far)
    found: dict[str, int] = {}
    for (_, one), far in steps.items():
        found[one.strip("_")] = min(far, found.get(one.strip("_"), far))
    return found


def mentions(root: Path, file: str, name: str) -> tuple[set[tuple[str, int]], frozenset[str]]:
    """Files and lines of code that is not compiled which name this kernel or value, or one made with it; and all their names."""
    found, new, gone = set[tuple[str, int]](), {(file, name)}, {(file, name)}
    while new:
        wanted, new = new, set()
        for one, (node, used) in _uses(root).items():
            if not used & wanted or one in gone:
                continue
            if isinstance(node, ast.ClassDef) or (isinstance(node, FUNCTIONS) and not is_compiled(node)):
                names = {other for _, other in used & wanted}
                places = (each for each in ast.walk(node) if isinstance(each, ast.Name | ast.Attribute))
                found |= {
                    (one[0], each.lineno) for each in places if (each.id if isinstance(each, ast.Name) else each.attr) in names
                }
            else:
                new.add(one)
        gone |= new
    return found, frozenset(one for _, one in gone)


@cache
def _uses(root: Path) -> dict[Name, tuple[ast.stmt, set[Name]]]:
    """By function, class or value of each module: its text, and what of the package that names."""
    found: dict[Name, tuple[ast.stmt, set[Name]]] = {}
    for path in sorted((root / "src/kagscope").rglob("*.py")):
        file, tree = str(path.relative_to(root)), ast.parse(path.read_text())
        own = {name: (file, name) for node in tree.body for name in _defines(node)}
        known = own | _imports(root, tree)
        for node in tree.body:
            used = {known[one.id] for one in ast.walk(node) if isinstance(one, ast.Name) and one.id in known}
            for one in ast.walk(node):
                if isinstance(one, ast.Attribute) and isinstance(one.value, ast.Name) and one.value.id in known:
                    used.add((known[one.value.id][0], one.attr))  # of a module
            for name in _defines(node):
                found[file, name] = node, used
    return found


def _defines(node: ast.stmt) -> list[str]:
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return [node.name]
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    return [one.id for target in targets for one in ast.walk(target) if isinstance(one, ast.Name)]


def _imports(root: Path, tree: ast.Module) -> dict[str, Name]:
    """By name: where it comes from; of a module, its file and no name."""
    found: dict[str, Name] = {}
    for one in ast.walk(tree):
        if isinstance(one, ast.ImportFrom) and (one.module or "").startswith("kagscope"):
            base = f"src/{(one.module or '').replace('.', '/')}"
            for alias in one.names:
                is_module = (root / f"{base}/{alias.name}.py").exists()
                found[alias.asname or alias.name] = (f"{base}/{alias.name}.py", "") if is_module else (f"{base}.py", alias.name)
    return found
