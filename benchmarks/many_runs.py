"""What a study costs beside training and geometry: runs per minute by executor, overhead per run, a store of 10,000 runs.

    python benchmarks/many_runs.py [--ray] [--runs 10000]

Runs are tiny on purpose. "own" is what a run itself measured for training and geometry; the rest of the time is overhead.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

from kagscope.minors import warm_up
from kagscope.provenance import hardware
from kagscope.schema import RESULT_COLUMNS
from kagscope.studies.config import validated
from kagscope.studies.executors import choose_executor
from kagscope.studies.file import StudyFile
from kagscope.studies.run_file import run_file
from kagscope.studies.store import RunStore
from kagscope.studies.tables import RESULTS, joined, whole_runs

FEW = {"points": 4, "visited_points": 1, "rotation_points": 0, "window_points": 1, "window_grid": 2, "layer_points": 50}
STUDY: dict[str, Any] = {
    "name": "overhead",
    "run": {"width": 16, "epochs": 5},
    "grid": {"learning_rate": [1e-3, 2e-3, 3e-3, 4e-3], "seed": {"count": 10}},
    "measure": {"k": [2], "checkpoints": 2, **FEW},
}


def executor(name: str, workers: int) -> None:
    """Time a study of 40 tiny runs."""
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        outcome = run_file(validated(StudyFile, STUDY), "overhead", Path(folder) / "out", executor=choose_executor(name, workers))
        wall = time.perf_counter() - began
        own = outcome.seconds["train"] + outcome.seconds["geometry"]
        count = len(outcome.runs)
        overhead = (wall * workers - own) / count
        print(f"{name:>6} {workers:>8} {count / wall * 60:>14.0f} {own / count:>14.3f} {overhead:>16.3f}", flush=True)


def store(count: int) -> None:
    """List and load a store of many runs, made of copies of a few."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out"
        small = STUDY | {"grid": {"seed": {"count": 2}}}
        outcome = run_file(validated(StudyFile, small), "overhead", out, executor=choose_executor("local", 1))
        opened = RunStore(out)
        source = opened.run_folder(outcome.runs[0])
        names = [f"copy-{index}" for index in range(count)]
        for name in names:
            shutil.copytree(source, opened.run_folder(name))
        rows = _renamed(opened, names)
        times = []
        for _ in range(3):
            began = time.perf_counter()
            whole, _ = whole_runs(opened, names)
            table = joined(opened, whole, "table.parquet", RESULTS, RESULT_COLUMNS)
            times.append(time.perf_counter() - began)
        assert len(whole) == count, len(whole)
        first, *later = times
        again = " and ".join(f"{seconds:.2f}" for seconds in later)
        print(f"{count:,} runs of {rows} rows: listed and loaded in {first:.1f} s the first time, then in {again} s")
        assert len(table) == count * rows


def _renamed(opened: RunStore, names: list[str]) -> int:
    """Give each copy's table its own name and a small number of rows, and its manifest the new checksum."""
    import hashlib

    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pq.read_table(opened.run_folder(names[0]) / "table.parquet").slice(0, 60)
    manifest = opened.manifest(names[0])
    for name in names:
        folder = opened.run_folder(name)
        column = pa.array([name] * len(table)).dictionary_encode()
        pq.write_table(table.set_column(table.column_names.index("run"), "run", column), folder / "table.parquet")
        manifest["files"]["table.parquet"] = hashlib.sha256((folder / "table.parquet").read_bytes()).hexdigest()
        (folder / "manifest.json").write_text(json.dumps(manifest))
    return len(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ray", action="store_true", help="time Ray as well")
    parser.add_argument("--runs", type=int, default=10_000, help="in the store")
    given = parser.parse_args()
    print(hardware())
    warm_up(print)
    print(f"{'':>6} {'workers':>8} {'runs / minute':>14} {'own s / run':>14} {'overhead s / run':>16}")
    for workers in (1, 2):
        executor("local", workers)
    if given.ray:
        executor("ray", 2)
    store(given.runs)


if __name__ == "__main__":
    main()
