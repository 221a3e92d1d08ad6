"""What a study costs beside training and geometry: runs per minute by executor, overhead per run, a store of 10,000 runs.

    python benchmarks/many_runs.py [--ray] [--runs 10000] [--only overhead|store]

Runs are tiny on purpose. "own" is what a run itself measured for training and geometry; the rest is overhead: what a study costs
once, however large it is (processes, imports, figures), and what each run adds. The second is told from the first by the
difference of two studies of the same settings, one with more seeds.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from resource import RUSAGE_CHILDREN, RUSAGE_SELF, getrusage
from typing import Any

from kagscope.base.provenance import hardware
from kagscope.base.validation import validate
from kagscope.data import load
from kagscope.minors import warm_up
from kagscope.studies.execute.choose import choose_executor
from kagscope.studies.file import StudyFile, list_jobs
from kagscope.studies.record import table_file
from kagscope.studies.store import RunStore
from kagscope.studies.study import run_study
from kagscope.studies.tables import RESULTS, find_finished_runs, read_tables, write_run_table
from kagscope.tables.schema import RESULT_COLUMNS

FEW = {"points": 4, "exact_minors": 2.5e5, "rotation_points": 0, "window_points": 1, "window_map": 2, "samples": 50}
STUDY: dict[str, Any] = {
    "name": "overhead",
    "run": {"width": 16, "epochs": 5},
    "grid": {"learning_rate": [1e-3, 2e-3, 3e-3, 4e-3]},
    "measure": {"k": [2], "checkpoints": 2, **FEW},
}
SEEDS = (2, 10)  # of the smaller and the larger study, times four settings
STAGES = ("start", "runs", "tables", "figures", "report")


@dataclass
class Cost:
    """Of one study, in seconds: wall time of each stage, processor time of all processes, what its runs measured themselves."""

    runs: int
    stages: dict[str, float]
    cpu: float
    own: float

    @property
    def wall(self) -> float:
        return sum(self.stages.values())


def study(name: str, workers: int, seeds: int) -> Cost:
    """Run one."""
    moments = {"start": time.perf_counter()}

    def note(event: dict[str, Any]) -> None:
        stage = "runs" if event["kind"] in ("train", "run") else event.get("name") if event["kind"] == "stage" else None
        if stage is not None:
            moments.setdefault(stage, time.perf_counter())

    before = _cpu()
    with tempfile.TemporaryDirectory() as folder:
        given = validate(StudyFile, STUDY | {"grid": STUDY["grid"] | {"seed": {"count": seeds}}})
        outcome = run_study(given, Path(folder) / "out", executor=choose_executor(name, workers), on_event=note)
    ends = [moments[stage] for stage in STAGES[1:]] + [time.perf_counter()]
    stages = {stage: end - moments[stage] for stage, end in zip(STAGES, ends, strict=True)}
    return Cost(len(outcome.runs), stages, _cpu() - before, outcome.seconds["train"] + outcome.seconds["geometry"])


def _cpu() -> float:
    """Processor time of this process and of its children that have ended."""
    return sum(used.ru_utime + used.ru_stime for used in map(getrusage, (RUSAGE_SELF, RUSAGE_CHILDREN)))


def executor(name: str, workers: int) -> None:
    """Time two studies of tiny runs, and tell what each run adds from what a study costs once."""
    few, many = (study(name, workers, seeds) for seeds in SEEDS)
    more = many.runs - few.runs
    while_running = workers * (many.stages["runs"] - few.stages["runs"]) - (many.own - few.own)
    at_the_end = sum(many.stages[stage] - few.stages[stage] for stage in STAGES[2:])
    once = few.wall - few.stages["runs"]
    numbers = (many.runs / many.wall * 60, (many.own - few.own) / more, while_running / more, at_the_end / more)
    print(f"{name:>6} {workers:>8} {numbers[0]:>14.0f} {numbers[1]:>10.3f} {numbers[2]:>14.3f} {numbers[3]:>11.3f} {once:>10.1f}")
    for cost in (few, many):
        parts = ", ".join(f"{stage} {seconds:.1f}" for stage, seconds in cost.stages.items())
        print(f"       {cost.runs} runs: {parts}; wall {cost.wall:.1f}, processor {cost.cpu:.1f}, own {cost.own:.1f}", flush=True)


def parts_of_a_run(seeds: int = 10) -> None:
    """Processor and wall time of everything that a run does beside training and geometry, in this process."""
    from kagscope.studies import runs, store
    from kagscope.studies.locks import Leases
    from kagscope.studies.networks import Measuring

    spent: dict[str, list[float]] = {}

    def timed(owner: Any, name: str, label: str) -> Any:
        function = getattr(owner, name)

        def wrapped(*args: Any, **kwargs: Any) -> Any:
            wall, cpu = time.perf_counter(), time.process_time()
            try:
                return function(*args, **kwargs)
            finally:
                into = spent.setdefault(label, [0.0, 0.0])
                into[0] += time.perf_counter() - wall
                into[1] += time.process_time() - cpu

        setattr(owner, name, wrapped)
        return lambda: setattr(owner, name, function)

    undo = [
        timed(runs, "run_task", "a whole task"),
        timed(runs, "train", "training"),
        timed(Measuring, "tables", "geometry"),
        timed(RunStore, "is_complete", "look whether it is there"),
        timed(Leases, "_take", "lease"),
        timed(runs, "_write", "write tables"),
        timed(store, "_digest", "checksums"),
        timed(store, "_fsync_folder", "flush to disk"),
        timed(runs, "_data", "data"),
    ]
    try:
        with tempfile.TemporaryDirectory() as folder:
            given = validate(StudyFile, STUDY | {"grid": STUDY["grid"] | {"seed": {"count": seeds}}})
            listed = list_jobs(given, {"digits": load("digits")})
            RunStore.open(folder, {}, "overhead")
            for task in runs.tasks_for(listed, Path(folder), 1):
                runs.run_task(task, lambda event: None)
    finally:
        for restore in undo:
            restore()
    whole, *rest = [spent.pop("a whole task"), *spent.values()]
    spent["the rest"] = [total - sum(part[i] for part in rest) for i, total in enumerate(whole)]
    print("one run in one process     wall ms  processor ms")
    for label, (wall, cpu) in spent.items():
        print(f"  {label:<40} {wall / len(listed) * 1e3:>8.2f} {cpu / len(listed) * 1e3:>8.2f}")


def store(count: int) -> None:
    """List and load a store of many runs, made of copies of a few."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out"
        small = STUDY | {"grid": {"seed": {"count": 2}}}
        outcome = run_study(validate(StudyFile, small), out, executor=choose_executor("local", 1))
        opened = RunStore(out)
        source = opened.run_folder(outcome.runs[0])
        names = [f"copy-{index}" for index in range(count)]
        for name in names:
            shutil.copytree(source, opened.run_folder(name))
        (out / "study.json").write_text(json.dumps({**opened.study, "runs": dict.fromkeys(names, 0)}))
        rows = _renamed(opened, names)

        def loaded(some: list[str]) -> float:
            began = time.perf_counter()
            whole, _ = find_finished_runs(opened, some)
            (table,) = read_tables(opened, whole, RESULTS)
            assert (len(whole), len(table)) == (len(some), len(some) * rows)
            return time.perf_counter() - began

        least, again, nothing = [], [], []
        for _ in range(3):
            (out / RESULTS.file).unlink()
            loaded(names[: count * 4 // 5])  # what a driver has joined, at least, when it is killed
            least.append(loaded(names))
            again.append(loaded(names))
            (out / RESULTS.file).unlink()
            nothing.append(loaded(names))
        print(f"{count:,} runs of {rows} rows, listed and loaded, three times:")
        for label, times in (("all joined before", again), ("four fifths joined", least), ("nothing joined", nothing)):
            print(f"  {label:<20}" + "".join(f"{seconds:8.2f} s" for seconds in times))


def _renamed(opened: RunStore, names: list[str]) -> int:
    """Give each copy's table its own name and a small number of rows, and its manifest the new checksum."""
    import hashlib

    import pandas as pd

    files = [table_file(one) for one in opened.study["measured"][0]["tables"].values()]
    tables = {file: pd.read_parquet(opened.run_folder(names[0]) / file).head(60 // len(files)) for file in files}
    manifest = opened.manifest(names[0])
    for name in names:
        folder = opened.run_folder(name)
        for file, table in tables.items():
            write_run_table(table.assign(run=name).astype(RESULT_COLUMNS), folder / file)
            manifest["files"][file] = hashlib.sha256((folder / file).read_bytes()).hexdigest()
        (folder / "manifest.json").write_text(json.dumps(manifest))
    return sum(len(table) for table in tables.values())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ray", action="store_true", help="time Ray as well")
    parser.add_argument("--runs", type=int, default=10_000, help="in the store")
    parser.add_argument("--only", choices=("overhead", "parts", "store"), help="one of the three")
    given = parser.parse_args()
    print(hardware())
    warm_up(print)
    if given.only in (None, "parts"):
        parts_of_a_run()
    if given.only in (None, "overhead"):
        headings = ("workers", 8), ("runs / minute", 14), ("own s/run", 10), ("+ running", 14), ("+ end", 11), ("once s", 10)
        print(" " * 6, *(f"{heading:>{width}}" for heading, width in headings))
        for name, workers in (("local", 1), ("local", 2), *([("ray", 2)] if given.ray else [])):
            executor(name, workers)
    if given.only in (None, "store"):
        store(given.runs)


if __name__ == "__main__":
    main()
