"""Small faults to put into a file of Python: one changed comparison, number, operator or return value, or one statement less.

Strings, annotations, decorators, assertions, `__repr__` and errors raised with their texts stay as they are: no test should hold
them.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

COMPARISONS: dict[type, tuple[type, ...]] = {
    ast.Lt: (ast.LtE, ast.GtE),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.LtE),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
}
ARITHMETIC: dict[type, type] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult,
    ast.Pow: ast.Mult,
    ast.LShift: ast.RShift,
    ast.RShift: ast.LShift,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
}
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


@dataclass(frozen=True)
class Mutant:
    """One fault: ``after`` in the place of ``before``, in the outermost function or class named, if any."""

    file: str
    line: int
    column: int
    kind: str
    before: str
    after: str
    function: str
    compiled: bool

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}:{self.column} {'kernel ' if self.compiled else ''}{self.kind}"
        return f"{where}: {' '.join(self.before.split())} -> {self.after}"

    def put_into(self, source: str) -> str:
        """The file with the fault."""
        start = sum(len(row) for row in source.encode().splitlines(keepends=True)[: self.line - 1]) + self.column
        whole = source.encode()
        return (whole[:start] + self.after.encode() + whole[start + len(self.before.encode()) :]).decode()


def places(root: Path, file: str) -> list[list[Mutant]]:
    """The mutants of one file of the project in the order of its text: for each place and kind of fault, what may stand there."""
    source = (root / file).read_text()
    rows = source.encode().splitlines(keepends=True)
    found: dict[tuple[int, int, str], list[Mutant]] = {}
    for node, function, compiled in _nodes(ast.parse(source)):
        for kind, fault in _faults(node):
            before = _text(rows, node)
            after = ast.unparse(ast.fix_missing_locations(fault))
            after = f"({after})" if isinstance(node, ast.expr) and not isinstance(node, ast.Constant) else after
            mutant = Mutant(file, node.lineno, node.col_offset, kind, before, after, function, compiled)
            if not before.startswith("elif"):
                found.setdefault((mutant.line, mutant.column, kind), []).append(mutant)
    return [found[place] for place in sorted(found)]


def _text(rows: list[bytes], node: ast.expr | ast.stmt) -> str:
    last = node.end_lineno or node.lineno
    text = b"".join(rows[node.lineno - 1 : last])
    return text[node.col_offset : len(text) - len(rows[last - 1]) + (node.end_col_offset or 0)].decode()


def _nodes(node: ast.AST, function: str = "", compiled: bool = False) -> Iterator[tuple[Any, str, bool]]:
    """Nodes that may get a fault, each with the name of the outermost function around it and whether that is compiled."""
    if isinstance(node, ast.Raise | ast.Assert | ast.JoinedStr) or getattr(node, "name", "") == "__repr__":
        return
    if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
        return
    if isinstance(node, ast.ClassDef) and not function:
        function = node.name
    if isinstance(node, FUNCTIONS) and not compiled:
        function = function or node.name
        compiled = is_compiled(node)
    yield node, function, compiled
    for field, value in ast.iter_fields(node):
        if field not in ("annotation", "returns", "decorator_list"):
            for child in value if isinstance(value, list) else [value]:
                if isinstance(child, ast.AST):
                    yield from _nodes(child, function, compiled)


def is_compiled(node: Any) -> bool:
    """Whether Numba compiles this function."""
    return any(name in ast.unparse(one) for one in node.decorator_list for name in ("njit", "intrinsic"))


def _faults(node: Any) -> Iterator[tuple[str, ast.AST]]:
    """What may stand in the node's place, with the kind of fault."""
    match node:
        case ast.Compare():
            for place, operator in enumerate(node.ops):
                for other in COMPARISONS[type(operator)]:
                    changed = deepcopy(node)
                    changed.ops[place] = other()
                    yield "comparison", changed
        case ast.BinOp(left, operator, right) if type(operator) in ARITHMETIC:
            yield "arithmetic", ast.BinOp(left, ARITHMETIC[type(operator)](), right)
        case ast.AugAssign(target, operator, value):
            if type(operator) in ARITHMETIC:
                yield "arithmetic", ast.AugAssign(target, ARITHMETIC[type(operator)](), value)
            yield "statement", ast.Pass()
        case ast.BoolOp(operator, values):
            yield "boolean", ast.BoolOp(ast.Or() if isinstance(operator, ast.And) else ast.And(), values)
        case ast.UnaryOp(ast.USub() | ast.Not() | ast.Invert(), operand):
            yield "boolean" if isinstance(node.op, ast.Not) else "arithmetic", operand
        case ast.Constant(bool() as value):
            yield "boolean", ast.Constant(not value)
        case ast.Constant(int() as value):
            yield "constant", ast.Constant(value + 1)
            yield "constant", ast.Constant(value - 1)
        case ast.Constant(float() as value):
            yield "constant", ast.Constant(2 * value if value else 1.0)
        case ast.Return(value) if value is not None and ast.unparse(value) != "None":
            yield "return value", ast.Return(ast.Constant(None))
        case ast.Expr(value) if not isinstance(value, ast.Constant):
            yield "statement", ast.Pass()
        case ast.Assign(targets=[ast.Subscript() | ast.Attribute()]) | ast.Continue() | ast.Break() | ast.If(orelse=[]):
            yield "statement", ast.Pass()
