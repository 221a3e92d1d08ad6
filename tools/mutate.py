"""Mutation testing of the rooms that compute: ``python tools/mutate.py --sample 120 --seed 0``.

Tests are collected once. For each mutant of a random sample (``tools/mutants.py``) of ``minors/``, ``scores/``, ``jacobians/``
this process forks; the child puts the fault into the function in memory, drops the compiled kernels that hold it, and runs the
tests that can see it (``tools/traced.py``, in a first run of them all, minutes long), the nearest and cheapest first, until one
fails or its processor time is spent. A survivor says how many of these it survived: the rates are lower bounds. Results are
kept as they come: the same command goes on where it stopped, ``--again`` tries survivors anew.

Our own because of the kernels and of the time: mutmut keeps all mutants of a function behind a switch, which Numba cannot
compile; cosmic-ray changes files and starts one command for each, which imports and compiles everything, or trusts a stale cache.
"""

from __future__ import annotations
import __future__

import argparse
import ast
import importlib
import inspect
import json
import math
import os
import random
import re
import resource
import signal
import sys
import time
from collections import Counter
from collections.abc import Collection
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from numba.core.caching import NullCache
from numba.core.dispatcher import Dispatcher
from scipy.stats import binomtest

from callers import callers
from mutants import FUNCTIONS, Mutant, places
from traced import Traced, trace

ROOT = Path(__file__).resolve().parents[1]
KERNELS = {"too": (False, True), "alone": (True,), "not": (False,)}
ROOMS = ("minors", "scores", "jacobians")
TESTS = (
    *("moments", "truth", "zonogon", "zonotope", "hull", "haar", "multipole", "column_pairs"),
    *("sampling", "score_errors", "estimates", "functional", "representations", "published", "logarithm", "planner"),
    *("selections", "torch_backend", "jacobians", "layer_maps", "jacobian_checks", "token_jacobians", "transformer"),
    *("untouched", "unfelt", "unit_statistics", "other_arrays", "bad_input_engine", "registry"),
    *("measure_inputs", "bad_input_measure", "penalty", "battery", "functional_battery", "row_draws", "measure_matrices"),
    *("measure", "one_road", "det3", "reasons", "own_scores", "prune", "prune_models", "hub_models", "numpy_numbers"),
)  # the test files near these rooms, in the order in which they are tried where nothing else tells them apart


def draw(count: int, seed: int, only: str, kernels: Collection[bool]) -> list[Mutant]:
    """A random sample, of places in the text, then of what may stand there; with ``only``, all whose line holds that text.

    A smaller sample of the same seed is the beginning of a larger one.
    """
    files = [str(path.relative_to(ROOT)) for room in ROOMS for path in sorted((ROOT / "src/kagscope" / room).rglob("*.py"))]
    everything = [place for file in files for place in places(ROOT, file) if place[0].compiled in kernels]
    if only:
        return [one for place in everything for one in place if only in str(one)]
    rng = random.Random(seed)
    rng.shuffle(everything)
    return [rng.choice(place) for place in everything[:count]]


class Mutation:
    """Plugin that gives mutants, instead of the code as it is, to the tests that pytest collected."""

    def __init__(self, mutants: list[Mutant], given: argparse.Namespace) -> None:
        self.mutants, self.given = mutants, given
        self.sound: set[str] = set()  # tests that pass without a mutant
        (given.folder / "costs").touch()
        self.kept = given.folder / f"results-{re.sub('[^a-z0-9_.]', '-', given.only) or f'{given.seed}-{given.kernels}'}.json"
        self.outcomes: dict[str, list[str]] = json.loads(self.kept.read_text()) if self.kept.exists() else {}

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        kept = self.given.folder / "traced.json"
        if self.given.trace or not (kept.exists() or self.given.only):
            if not (child := os.fork()):
                trace(ROOT, session.items, self._timed, kept)
                os._exit(0)
            os.waitpid(child, 0)
        self.traced = Traced(ROOT, kept)
        for mutant in self.mutants:
            name = str(mutant)
            if name in self.outcomes and not (self.given.again and self.outcomes[name][0] == "survived"):
                continue
            self.outcomes[name] = self._outcome(mutant, session.items)
            spent = sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2])
            os.write(self.given.out, f"{name} {self.outcomes[name]} {spent:.0f} s\n".encode())
            self.kept.write_text(json.dumps(self.outcomes, indent=1))
        return True

    def _outcome(self, mutant: Mutant, items: list[pytest.Item]) -> list[str]:
        """What became of a mutant, and by which test; one that fails without any mutant is never asked again."""
        unseen, names = self.traced.unseen(mutant)
        while True:
            seeing = [item for item in items if item.nodeid not in unseen or names & _words(item)[1]]
            near = nearest(mutant, seeing, self._costs())
            code, said = self._fork(mutant, near)
            if code == 0:
                return ["survived", f"{said or 0} of {len(near)} tests"]
            if code == 9:
                return ["not tried", said]
            if code != 1 or said in self.sound:
                return ["killed", said if code == 1 else f"ended by {code} after {said or 0} tests"]
            (killer,) = (item for item in items if item.nodeid == said)
            if self._fork(None, [killer])[0] == 0:
                self.sound.add(said)
            else:
                items.remove(killer)

    def _costs(self) -> dict[str, float]:
        """Processor time of tests that ran, the least that was seen: often that of compiling is in it."""
        found: dict[str, float] = {}
        for line in (self.given.folder / "costs").read_text().splitlines():
            name, _, seconds = line.rpartition("\t")
            found[name] = min(found.get(name, math.inf), float(seconds))
        return found

    def _fork(self, mutant: Mutant | None, items: list[pytest.Item]) -> tuple[int, str]:
        """Runs tests in a child: 0 and how many passed, 1 and which failed, 9 and why it was not tried, or minus a signal."""
        log = self.given.folder / "said"
        log.write_text("")
        child = os.fork()
        if child:
            return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), log.read_text()
        try:
            resource.setrlimit(resource.RLIMIT_CPU, (int(4 * self.given.seconds) + 120, -1))
            signal.alarm(3600)  # for what waits
            if mutant is not None:
                put_in(mutant)
            compiling = 0.0
            for ran, item in enumerate(items, start=1):
                self._timed(item, items[ran] if ran < len(items) else None)
                if item.session.testsfailed:
                    log.write_text(item.nodeid)
                    os._exit(1)
                log.write_text(str(ran))
                compiling = time.process_time() if ran == 1 else compiling  # is most of the first test
                if time.process_time() - compiling > self.given.seconds:
                    break
            os._exit(0)
        except Exception as error:
            log.write_text(str(error))
        finally:
            os._exit(9)

    def _timed(self, item: pytest.Item, after: pytest.Item | None) -> None:
        """Runs a test, and keeps its processor time."""
        start = time.process_time()
        item.config.hook.pytest_runtest_protocol(item=item, nextitem=after)
        with open(self.given.folder / "costs", "a") as costs:
            costs.write(f"{item.nodeid}\t{time.process_time() - start:.3f}\n")


class NotHere(Exception):
    """A mutant that cannot be put into running code."""


def nearest(mutant: Mutant, items: list[pytest.Item], costs: dict[str, float]) -> list[pytest.Item]:
    """Tests by how many calls are between what they name and the mutant, then by whether they name its module; cheap ones first.

    Of each parametrised test a few come before the others.
    """
    steps = callers(ROOT, mutant.file, mutant.function)
    word = Path(mutant.file).stem.strip("_").split("_")[0]
    order, seen = [], Counter[str]()
    for place, item in enumerate(items):
        own, around = _words(item)
        named: list[float] = [min(steps[name] for name in own & steps.keys())] if own & steps.keys() else []
        named += [min(steps[name] for name in around & steps.keys()) + 0.5] if around & steps.keys() else []
        far = min(named, default=99.0) - 2 * (word in item.nodeid)
        function = item.nodeid.partition("[")[0]
        order.append((far, min(seen[function], 4), word not in around, costs.get(item.nodeid, 0.2), place, item))
        seen[function] += 1
    return [item for *_, item in sorted(order, key=lambda one: one[:-1])]


def _words(item: Any) -> tuple[frozenset[str], frozenset[str]]:
    """What the test itself names, and what its file does."""
    function = _innermost(item.function)
    return _words_of(getattr(getattr(function, "hypothesis", None), "inner_test", function)), _words_of(item.module)


@cache
def _words_of(thing: Any) -> frozenset[str]:
    return frozenset(re.findall(r"\w+", inspect.getsource(thing)))


def put_in(mutant: Mutant) -> None:
    """Puts a fault into the running package: new code for its function, or a new value for the name that is given one."""
    name = mutant.file.removeprefix("src/").removesuffix(".py").removesuffix("/__init__").replace("/", ".")
    module, source = importlib.import_module(name), (ROOT / mutant.file).read_text()
    parts = zip(_parts(ast.parse(source)), _parts(ast.parse(mutant.put_into(source))), strict=True)
    changed = [(path, new) for (path, old), (_, new) in parts if ast.dump(old) != ast.dump(new)]
    if len(changed) != 1:
        raise NotHere("no single part differs")
    (path, node) = changed[0]
    if isinstance(node, FUNCTIONS):
        if any(isinstance(one, ast.Assign) and f"{node.name}(" in ast.unparse(one.value) for one in ast.parse(source).body):
            raise NotHere("ran as its module was imported")
        node.decorator_list = []
    elif not (isinstance(node, ast.Assign | ast.AnnAssign) and len(path) == 1):
        raise NotHere(f"a {type(node).__name__} outside functions")
    made: dict[str, Any] = {}
    space = module.__dict__
    flags = __future__.annotations.compiler_flag
    exec(compile(ast.fix_missing_locations(ast.Module([node], [])), mutant.file, "exec", flags), space, made)
    made.pop("__annotations__", None)
    ((name, value),) = made.items()
    if re.search(rf"^@.*\b{name}\b", source, re.MULTILINE):
        raise NotHere("read by a decorator as its module was imported")
    owner: Any = module
    if isinstance(node, FUNCTIONS):
        for part in path[:-1]:
            owner = getattr(owner, part)
        function = _innermost(vars(owner)[name])
        try:
            function.__code__ = value.__code__
        except (ValueError, AttributeError) as error:
            raise NotHere(str(error)) from error
        function.__defaults__, function.__kwdefaults__ = value.__defaults__, value.__kwdefaults__
    else:
        old = space[name]
        for other in [one for key, one in sys.modules.items() if key.startswith("kagscope")]:
            for key in [key for key, held in vars(other).items() if key == name and held is old]:
                setattr(other, key, value)
    _forget_compiled(vars(owner)[name])


def _parts(tree: ast.AST, path: tuple[str, ...] = ()) -> list[tuple[tuple[str, ...], ast.stmt]]:
    """Functions, methods and other statements of a module, with the names that lead to them."""
    found: list[tuple[tuple[str, ...], ast.stmt]] = []
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.ClassDef):
            found += _parts(node, (*path, node.name))
        elif isinstance(node, ast.stmt):
            found.append(((*path, getattr(node, "name", "")), node))
    return found


def _innermost(value: Any) -> Any:
    """The plain function inside decorators, properties and dispatchers."""
    while True:
        if hasattr(value, "cache_clear"):
            value.cache_clear()
        for name in ("__wrapped__", "py_func", "fget", "__func__", "func", "_defn"):
            if getattr(value, name, None) is not None and not isinstance(getattr(value, name), str):
                value = getattr(value, name)
                break
        else:
            return value


def _forget_compiled(changed: Any) -> None:
    """Drops what Numba compiled of a kernel or constant, and of every kernel that names it, or names one that does."""
    held = [one for key, one in sys.modules.items() if key.startswith("kagscope")]
    kernels: list[Any] = list(
        {id(value): value for one in held for value in vars(one).values() if isinstance(value, Dispatcher)}.values()
    )
    gone = {id(changed)}

    def is_stale(kernel: Any) -> bool:
        space = kernel.py_func.__globals__
        return id(kernel) in gone or any(id(space[name]) in gone for name in kernel.py_func.__code__.co_names if name in space)

    while stale := [kernel for kernel in kernels if is_stale(kernel)]:
        for kernel in stale:
            kernel._make_finalizer()()
            kernel._reset_overloads()
            kernel.overloads.clear()
            kernel._cache = NullCache()
        gone |= {id(kernel) for kernel in stale}
        kernels = [kernel for kernel in kernels if id(kernel) not in gone]


def table(outcomes: dict[str, list[str]]) -> str:
    """Killed of all, with Clopper and Pearson's interval, for each kind of fault; then who survived."""
    rows = ["| kind | mutants | killed | rate | 95% |", "|---|---|---|---|---|"]
    tried = {name: found for name, (found, _) in outcomes.items() if found != "not tried"}
    for kind in [*sorted({name.split(" ", 1)[1].partition(":")[0] for name in tried}), "all"] if tried else ():
        of_kind = [found for name, found in tried.items() if kind == "all" or f" {kind}: " in name]
        killed = of_kind.count("killed")
        low, high = binomtest(killed, len(of_kind)).proportion_ci()
        rows.append(f"| {kind} | {len(of_kind)} | {killed} | {killed / len(of_kind):.2f} | {low:.2f} to {high:.2f} |")
    return "\n".join([*rows, "", *(f"{name}  {found}" for name, found in outcomes.items() if found[0] != "killed")])


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--sample", type=int, default=120, help="number of mutants")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="instead of a sample every mutant whose line in the output holds this text")
    parser.add_argument("--kernels", choices=list(KERNELS), default="too", help="what Numba compiles, too, alone, or not")
    parser.add_argument("--again", action="store_true", help="give those that survived to the tests again")
    parser.add_argument("--trace", action="store_true", help="find anew which tests run which lines")
    parser.add_argument("--seconds", type=float, default=30.0, help="processor time of the tests for one mutant")
    parser.add_argument("--tests", default=" ".join(TESTS), help="test files, such as 'moments haar'")
    parser.add_argument("--folder", type=Path, default=ROOT / "out/mutation", help="for the results")
    given = parser.parse_args()
    given.folder = given.folder.resolve()
    given.folder.mkdir(parents=True, exist_ok=True)
    given.out = os.dup(1)
    os.chdir(ROOT)
    sys.path.insert(0, str(ROOT / "src"))  # and not another checkout that is installed
    plugin = Mutation(draw(given.sample, given.seed, given.only, KERNELS[given.kernels]), given)
    files = [f"tests/test_{name}.py" for name in given.tests.split()]
    with open(os.devnull, "w") as nothing:  # what pytest says of each fork
        os.dup2(nothing.fileno(), 1)
        pytest.main(["--tb=no", "-p", "no:cacheprovider", *files], plugins=[plugin])
        os.dup2(given.out, 1)
    print(table({str(one): plugin.outcomes[str(one)] for one in plugin.mutants if str(one) in plugin.outcomes}))


if __name__ == "__main__":
    main()
