"""Do workers stay busy until the end of a study? The schedule of its tasks, simulated from what each run takes.

    python benchmarks/schedule.py [--store OUT]

Tasks are cut and ordered as a study does it, and each goes to the first worker that is free. A run takes what `study plan`
estimates, or, with --store, what the runs of a finished study took (mean of the same width, training and labels). Efficiency is
the work over workers times the time until the last one ends; what a study does once (start, tables, page) is not in it, see
benchmarks/many_runs.py.
"""

from __future__ import annotations

import argparse
import heapq
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from kagscope.base.validation import validate
from kagscope.data import load
from kagscope.studies.file import StudyFile, list_jobs
from kagscope.studies.measure import Job
from kagscope.studies.plan import estimate
from kagscope.studies.reproduce import reproduction
from kagscope.studies.runs import tasks_for
from kagscope.studies.store import RunStore

Seconds = Callable[[Job], float]
LARGE, CORES = 100_000, 1000


def kind(job: Job) -> tuple[int, str, str]:
    """What decides how long a run of one study takes."""
    return job.run.width, job.run.training, job.run.labels


def estimated(jobs: Sequence[Job], images: dict[str, int], classes: dict[str, int]) -> Seconds:
    known: dict[tuple[int, str, str], float] = {}
    for job in jobs:
        if kind(job) not in known:
            known[kind(job)] = estimate([job], images, classes).wall_seconds(1)
    return lambda job: known[kind(job)]


def measured(jobs: Sequence[Job], store: RunStore) -> Seconds:
    took = defaultdict(list)
    for job in jobs:
        if store.is_complete(job.run.run_id):
            facts = store.manifest(job.run.run_id)
            took[kind(job)].append(facts["train_seconds"] + facts["geometry_seconds"])
    means = {key: float(np.mean(values)) for key, values in took.items()}
    return lambda job: means[kind(job)]


def efficiency(jobs: Sequence[Job], workers: int, seconds: Seconds) -> tuple[int, float, float]:
    """Tasks, seconds until the last one ends, and the share of the workers' time that is work."""
    lengths = [sum(map(seconds, task.jobs)) for task in tasks_for(jobs, Path(), workers)]
    free = [0.0] * workers
    for length in lengths:
        heapq.heappush(free, heapq.heappop(free) + length)
    return len(lengths), max(free), sum(lengths) / (workers * max(free))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", type=Path, help="of a finished `kagscope reproduce` with its defaults")
    options = parser.parse_args()
    data = {"mnist10k": load("mnist10k")}
    study = reproduction()
    jobs = list_jobs(study, data)
    images, classes = {"mnist10k": len(data["mnist10k"].train_labels)}, {"mnist10k": data["mnist10k"].n_classes}
    seconds = measured(jobs, RunStore.existing(options.store)) if options.store else estimated(jobs, images, classes)
    print("| runs | workers | tasks | seconds | efficiency |\n|---|---|---|---|---|")
    for workers in (1, 2, 4, 8):
        tasks, wall, share = efficiency(jobs, workers, seconds)
        print(f"| {len(jobs)} | {workers} | {tasks} | {wall:.0f} | {share:.1%} |")
    rates = {"geomspace": [1e-4, 1e-2, LARGE // len(jobs)]}
    many = validate(StudyFile, study.model_dump(exclude_unset=True) | {"grid": study.grid | {"learning_rate": rates}})
    jobs = list_jobs(many, data)
    tasks, wall, share = efficiency(jobs, CORES, seconds)
    print(f"| {len(jobs)} | {CORES} | {tasks} | {wall:.0f} | {share:.1%} |")


if __name__ == "__main__":
    main()
