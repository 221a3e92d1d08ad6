"""Who calls a function of the package, and who calls them: found by the names in the text of functions and classes."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

Name = tuple[str, str]  # file and name there


def callers(root: Path, file: str, name: str) -> dict[str, int]:
    """Names that lead to this function or class, without leading underscores, and in how many steps."""
    steps, new, far = {(file, name): 0}, {(file, name)}, 0
    while new:
        far += 1
        new = {one for one, used in _uses(root).items() if used & new} - steps.keys()
        steps |= dict.fromkeys(new, far)
    found: dict[str, int] = {}
    for (_, one), far in steps.items():
        found[one.strip("_")] = min(far, found.get(one.strip("_"), far))
    return found


@cache
def _uses(root: Path) -> dict[Name, set[Name]]:
    """By function, class or value of each module: what of the package its text names."""
    found: dict[Name, set[Name]] = {}
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
                found[file, name] = used
    return found


def _defines(node: ast.stmt) -> list[str]:
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return [node.name]
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    return [one.id for one in targets if isinstance(one, ast.Name)]


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
