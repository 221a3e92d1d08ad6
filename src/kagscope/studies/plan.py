"""What a study will take: runs, time and disk, estimated before anything starts."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch

from kagscope.measuring.cost import layer_seconds
from kagscope.measuring.spec import MeasureSpec
from kagscope.studies.config import RunConfig
from kagscope.studies.measure import OUTPUT
from kagscope.studies.networks import steps_of
from kagscope.studies.runs import SEEDS_TOGETHER, Job
from kagscope.training.vit import TOKENS

# Fitted to finished runs (MNIST, digits, functions of three variables) on 2 CPU cores; docs/studies.md says how well.
STEP_OVERHEAD = 35e-6  # seconds of an optimiser step beside its arithmetic
SHARE_OF_PEAK = 0.7  # of a large product's speed that training reaches
VIT_SHARE = 0.2  # of that, small transformers: their products are small, and normalising and softmax move memory
# Of a worker: its libraries, copies of the images, states of a net beside its checkpoints (with gradients and the optimiser's),
# copies of the Jacobians of all points.
WORKER_BYTES, IMAGE_COPIES, STATES, JACOBIANS = 0.7e9, 2.5, 4, 3
BYTES_PER_ROW, BYTES_PER_RUN = 3.0, 1e5  # of compressed tables


@dataclass(frozen=True)
class Estimate:
    """What a number of runs will take.

    Attributes:
        runs: how many.
        train_seconds, geometry_seconds: added up over runs, on one core each.
        bytes: on disk.
        memory: bytes that one worker takes, at most.
    """

    runs: int
    train_seconds: float
    geometry_seconds: float
    bytes: float
    memory: float

    def wall_seconds(self, workers: int) -> float:
        """With so many runs at a time."""
        return (self.train_seconds + self.geometry_seconds) / max(1, min(workers, self.runs))


def estimate(jobs: Sequence[Job], images: dict[str, int], classes: dict[str, int]) -> Estimate:
    """Time and disk of runs.

    Args:
        jobs: to be computed.
        images, classes: training images and classes of each data set by name.
    """
    rate = _product_rate() * SHARE_OF_PEAK
    train = sum(_train_seconds(job.run, images[job.run.data], classes[job.run.data], rate) for job in jobs)
    geometry = _geometry_seconds(jobs)
    size = sum(4.0 * len(job.run.steps) * _parameters(job.run, classes[job.run.data]) + _table_bytes(job) for job in jobs)
    memory = max((task_memory(job, images[job.run.data]) for job in jobs), default=0.0)
    return Estimate(len(jobs), train, geometry, size, memory)


def task_memory(job: Job, images: int) -> float:
    """Bytes that a worker takes which trains as many seeds of a run as go together on ``images`` training images, about."""
    run = job.run
    nets = 4.0 * SEEDS_TOGETHER * _parameters(run, 10) * (STATES + len(run.steps))
    entries = max((sum(map(math.prod, _shapes(run, spec))) for spec in job.what.specs.values()), default=0)
    return WORKER_BYTES + IMAGE_COPIES * 4.0 * images * run.n_inputs + nets + 8.0 * JACOBIANS * entries


def _points(spec: MeasureSpec) -> int:
    return spec.points or spec.budget.samples


def _sizes(run: RunConfig, classes: int) -> list[int]:
    return [run.n_inputs, *run.widths, classes]


def _parameters(run: RunConfig, classes: int) -> int:
    if run.architecture == "vit":  # without biases
        n = run.widths[0] // 2
        return n * (run.n_inputs // _tokens(run) + _tokens(run) + classes) + sum(4 * n**2 + 2 * n * units for units in run.widths)
    sizes = _sizes(run, classes)
    return sum(a * b + b for a, b in pairwise(sizes))


def _tokens(run: RunConfig) -> int:
    return TOKENS if run.architecture == "vit" else 1


def _train_seconds(run: RunConfig, images: int, classes: int, rate: float) -> float:
    count = min(run.train_size or images, images)
    steps = run.epochs * -(-count // run.batch_size)
    rate *= VIT_SHARE if run.architecture == "vit" else 1.0
    return steps * STEP_OVERHEAD + 6.0 * run.epochs * count * _parameters(run, classes) * _tokens(run) / rate


def _geometry_seconds(jobs: Sequence[Job]) -> float:
    """Each network at each of its steps, and at initialisation once for all trainings that start there."""
    seconds, initial = 0.0, {}
    for run, what in jobs:
        for name, spec in what.specs.items():
            each = _state_seconds(run, spec)
            seconds += each * sum(step != 0 for step in steps_of(name, run.steps))
            initial[run.at_initialisation(seed=run.seed), spec.id] = each
    return seconds + sum(initial.values())


def _state_seconds(run: RunConfig, spec: MeasureSpec) -> float:
    return sum(layer_seconds(*shape, spec) for shape in _shapes(run, spec))


def _shapes(run: RunConfig, spec: MeasureSpec) -> list[tuple[int, int, int]]:
    """Rows, columns and number of the Jacobians of each measured layer."""
    every = range(len(run.widths))
    places = every if isinstance(spec.layers, str) else [int(one.removeprefix("hidden")) - 1 for one in spec.layers]
    before = [run.widths[0] // 2] * len(run.widths) if run.architecture == "vit" else [run.n_inputs, *run.widths]
    return [
        (run.widths[place], before[place if spec.layer_map == "block" else 0], _points(spec) * _tokens(run)) for place in places
    ]


def _table_bytes(job: Job) -> float:
    rows = 0
    for name, spec in job.what.specs.items():
        per_point = len(job.run.widths) * len(spec.k) * len(spec.selections) * min(8, len(spec.asked))
        rows += per_point * _points(spec) * len(steps_of(name, job.run.steps)) if name != OUTPUT else 0
    return BYTES_PER_ROW * rows + BYTES_PER_RUN


def _product_rate() -> float:
    """Floating point operations per second of a large float32 product on one thread, measured for a twentieth of a second."""
    a = torch.randn(512, 512)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        a @ a
        began, count = time.perf_counter(), 0
        while time.perf_counter() - began < 0.05:
            a @ a
            count += 1
        return count * 2 * 512**3 / (time.perf_counter() - began)
    finally:
        torch.set_num_threads(before)
