"""Estimate the cost of a study before anything starts: runs, time, memory and disk."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import torch

from kagscope.measuring.cost import layer_seconds
from kagscope.measuring.spec import MeasureSpec
from kagscope.steering.gradients import NORMS
from kagscope.steering.penalty import DRAWN, OF_ENTRIES
from kagscope.studies.config import RunConfig
from kagscope.studies.measure import OUTPUT, Job
from kagscope.studies.networks import steps_of
from kagscope.studies.runs import SEEDS_TOGETHER, group_by_setting, tasks_for
from kagscope.training.first_layer import DONORS, IMITATING, OF_DONORS
from kagscope.training.loop import one_thread
from kagscope.training.vit import TOKENS

# Fitted to finished runs (MNIST, digits, functions of three variables) on 2 CPU cores; docs/studies.md says how well.
STEP_OVERHEAD = 35e-6  # seconds of an optimiser step in addition to its arithmetic
SHARE_OF_PEAK = 0.7  # speed of training relative to a large matrix product
VIT_SHARE = 0.2  # of that, for small transformers, with small products and memory-bound operations
# Processor seconds of a penalty per step for 1 net at 4 images, fitted to 44 trainings (widths 16 and 96; 64 and 784 pixels).
PENALTY_CALL, GRADIENT_CALL = 5e-3, 5e-4  # on geometry; on the loss's gradient
PULLED_ROW, DRAWN_POINT = 2.5e-4, 1.7e-3  # per row of Jacobians other than diag(d) W; per image of these with drawn pairs
SORTED_PER_SECOND, COLUMN_PAIR = 9e8, 2e-7  # steps of sorting, with derivatives; per pair of columns of rr_pr
ATTACK_STEP, ATTACK_NUMBER = 6e-4, 7e-9  # per step of PGD; per number of an image or hidden layer in it
# Memory of a worker: libraries, copies of the images, states of a net besides its checkpoints (with gradients and optimiser),
# copies of the Jacobians of all points.
WORKER_BYTES, IMAGE_COPIES, STATES, JACOBIANS = 0.7e9, 2.5, 4, 3
BYTES_PER_ROW, BYTES_PER_RUN = 3.0, 1e5  # of compressed tables


@dataclass(frozen=True)
class Estimate:
    """Estimated cost of runs.

    Attributes:
        runs: number of runs.
        train_seconds, geometry_seconds: totals over runs, each on one core; attacks count as geometry.
        bytes: bytes on disk.
        memory: maximum bytes of memory of a worker.
    """

    runs: int
    train_seconds: float
    geometry_seconds: float
    bytes: float
    memory: float

    def wall_seconds(self, workers: int) -> float:
        """Wall time with ``workers`` concurrent runs."""
        return (self.train_seconds + self.geometry_seconds) / max(1, min(workers, self.runs))


def estimate(jobs: Sequence[Job], images: dict[str, int], classes: dict[str, int], workers: int = 1) -> Estimate:
    """Estimate the cost of runs.

    Args:
        jobs: runs to be computed.
        images, classes: training images and classes of each data set by name.
        workers: concurrent runs; networks that first layers imitate are trained again in each task.
    """
    rate = _product_rate() * SHARE_OF_PEAK
    train = sum(_train_seconds(job.run, images[job.run.data], classes[job.run.data], rate) for job in jobs)
    groups = [group for task in tasks_for(jobs, Path(), workers) for group in group_by_setting(task.jobs)]
    train += sum(_donor_seconds([job.run for job in group], images, classes, rate) for group in groups)
    geometry = _geometry_seconds(jobs) + sum(_attack_seconds(job, classes[job.run.data], rate) for job in jobs)
    size = sum(4.0 * len(job.run.steps) * _parameters(job.run, classes[job.run.data]) + _table_bytes(job) for job in jobs)
    memory = max((task_memory(job, images[job.run.data]) for job in jobs), default=0.0)
    return Estimate(len(jobs), train, geometry, size, memory)


def task_memory(job: Job, images: int) -> float:
    """Approximate bytes of a worker that trains as many seeds of a run as go together on ``images`` training images."""
    run = job.run
    nets = 4.0 * SEEDS_TOGETHER * _parameters(run, 10) * (STATES + len(run.steps))
    entries = max((sum(map(math.prod, _shapes(run, spec))) for spec in job.measurements.specs.values()), default=0)
    return WORKER_BYTES + IMAGE_COPIES * 4.0 * images * run.n_inputs + nets + 8.0 * JACOBIANS * entries


def _points(spec: MeasureSpec) -> int:
    return spec.points or spec.budget.samples


def _parameters(run: RunConfig, classes: int) -> int:
    if run.architecture == "vit":  # without biases
        n = run.widths[0] // 2
        return n * (run.n_inputs // _tokens(run) + _tokens(run) + classes) + sum(4 * n**2 + 2 * n * units for units in run.widths)
    return sum(a * b + b for a, b in pairwise([run.n_inputs, *run.widths, classes]))


def _tokens(run: RunConfig) -> int:
    return TOKENS if run.architecture == "vit" else 1


def _train_seconds(run: RunConfig, images: int, classes: int, rate: float) -> float:
    count = min(run.train_size or images, images)
    steps = run.epochs * -(-count // run.batch_size)
    rate *= VIT_SHARE if run.architecture == "vit" else 1.0
    step_seconds = STEP_OVERHEAD + _penalty_seconds(run)
    return steps * step_seconds + 6.0 * run.epochs * count * _parameters(run, classes) * _tokens(run) / rate


def _penalty_seconds(run: RunConfig) -> float:
    """Additional seconds per step due to a penalty."""
    if not run.penalty_weight:
        return 0.0
    if run.penalty_score in NORMS:
        return GRADIENT_CALL
    index = int(run.penalty_layer.removeprefix("hidden")) - 1
    m, n, score = run.widths[index], run.n_inputs, run.penalty_score
    points = run.penalty_points if index else 1  # the first layer is diag(d) W, whose sums are shared by all images
    drawn = score in DRAWN and 0 < run.penalty_rows < math.comb(m, 2)
    seconds = PENALTY_CALL + (PULLED_ROW * m + DRAWN_POINT * points * drawn if index else 0.0)
    if score in OF_ENTRIES:
        return seconds
    pairs = run.penalty_rows if drawn else math.comb(min(m, n) if index else m, 2)
    seconds += 2.0 * points * pairs * n * math.log2(max(n, 2)) / SORTED_PER_SECOND
    return seconds + COLUMN_PAIR * points * n**2 * (score == "rr_pr")


def _donor_seconds(group: Sequence[RunConfig], images: dict[str, int], classes: dict[str, int], rate: float) -> float:
    """Seconds to train the networks that provide the first layers of runs of one setting."""
    run = group[0]
    if run.first_layer not in OF_DONORS:
        return 0.0
    data = run.first_layer_data or run.data
    trained_donors = run.first_layer not in IMITATING
    plain = {"penalty_weight": 0.0, "widths": run.widths[:1] if trained_donors else run.widths}
    plain |= {"train_size": None} if run.first_layer_data else {}
    donor_seconds = _train_seconds(run.model_copy(update=plain), images[data], classes[data], rate)
    return donor_seconds * (len(group) if trained_donors else len(DONORS))


def _attack_seconds(job: Job, classes: int, rate: float) -> float:
    """Seconds of attacks on a trained net."""
    run, settings = job.run, job.measurements.robustness
    if settings is None:
        return 0.0
    steps = (len(settings.linf) + len(settings.l2)) * (1 + settings.steps * settings.restarts)
    rate *= VIT_SHARE if run.architecture == "vit" else 1.0
    numbers = settings.points * (run.n_inputs + 2 * sum(run.widths) * _tokens(run))
    products = 6.0 * settings.points * _parameters(run, classes) * _tokens(run)
    return steps * (ATTACK_STEP + numbers * ATTACK_NUMBER + products / rate)


def _geometry_seconds(jobs: Sequence[Job]) -> float:
    """Seconds to measure each network at each of its steps, and shared initial networks once."""
    seconds, initial = 0.0, {}
    for run, measurements in jobs:
        for name, spec in measurements.specs.items():
            state_seconds = sum(layer_seconds(*shape, spec) for shape in _shapes(run, spec))
            seconds += state_seconds * sum(step != 0 for step in steps_of(name, run.steps))
            initial[run.at_initialisation(seed=run.seed), spec.id] = state_seconds
    return seconds + sum(initial.values())


def _shapes(run: RunConfig, spec: MeasureSpec) -> list[tuple[int, int, int]]:
    """Rows, columns and number of the Jacobians of each measured layer."""
    indices = range(len(run.widths))
    places = indices if isinstance(spec.layers, str) else [int(name.removeprefix("hidden")) - 1 for name in spec.layers]
    before = [run.widths[0] // 2] * len(run.widths) if run.architecture == "vit" else [run.n_inputs, *run.widths]
    return [
        (run.widths[index], before[index if spec.layer_map == "block" else 0], _points(spec) * _tokens(run)) for index in places
    ]


def _table_bytes(job: Job) -> float:
    rows = 0
    for name, spec in job.measurements.specs.items():
        per_point = len(job.run.widths) * len(spec.k) * len(spec.selections) * min(8, len(spec.score_records))
        rows += per_point * _points(spec) * len(steps_of(name, job.run.steps)) if name != OUTPUT else 0
    return BYTES_PER_ROW * rows + BYTES_PER_RUN


def _product_rate() -> float:
    """Floating-point operations per second of a large float32 product on one thread, measured for 0.05 s."""
    a = torch.randn(512, 512)
    with one_thread():
        a @ a
        began, count = time.perf_counter(), 0
        while time.perf_counter() - began < 0.05:
            a @ a
            count += 1
        return count * 2 * 512**3 / (time.perf_counter() - began)
