"""What a study will take: runs, time and disk, estimated before anything starts."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import comb

import torch

from kagscope.measuring.geometry import SUMS
from kagscope.minors._input import MOMENTS
from kagscope.studies.config import RunConfig
from kagscope.training.models import layer_names
from kagscope.wanted import NEEDS, moments_for, wants

# Fitted to finished runs (MNIST, digits, functions of three variables) on 2 CPU cores; docs/studies.md says how well.
STEP_OVERHEAD = 35e-6  # seconds of an optimiser step beside its arithmetic
SHARE_OF_PEAK = 0.7  # of a large product's speed that training reaches
STATE_OVERHEAD = 0.09  # seconds to measure one layer of one checkpoint, however small
MINORS_PER_SECOND = 3e8  # visited on one core, with everything that is measured beside them
TRIPLE_SECONDS, MOST_PER_TRIPLE_POINT = 1e-8, 1.0  # a 3-minor's, up to what a sampled point takes
# Of a worker: its libraries, copies of the images, states of a net beside its checkpoints (with gradients and the optimiser's),
# copies of the Jacobians of all points.
WORKER_BYTES, IMAGE_COPIES, STATES, JACOBIANS = 0.7e9, 2.5, 4, 3
BYTES_PER_ROW, BYTES_PER_RUN = 3.0, 1e5  # of compressed tables


@dataclass(frozen=True)
class Estimate:
    """Of a number of runs.

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


def estimate(runs: Sequence[RunConfig], images: dict[str, int], classes: dict[str, int]) -> Estimate:
    """Time and disk of runs.

    Args:
        runs: to be computed.
        images, classes: training images and classes of each data set by name.
    """
    rate = _product_rate() * SHARE_OF_PEAK
    train = sum(_train_seconds(run, images[run.data], classes[run.data], rate) for run in runs)
    geometry = sum(_geometry_seconds(run) for run in runs)
    size = sum(4.0 * run.checkpoints * _parameters(run, classes[run.data]) + _table_bytes(run) for run in runs)
    memory = max((task_memory(run, images[run.data]) for run in runs), default=0.0)
    return Estimate(len(runs), train, geometry, size, memory)


def task_memory(run: RunConfig, images: int, seeds: int = 16) -> float:
    """Bytes that a worker takes which trains some seeds of ``run`` side by side on ``images`` training images, about."""
    n = run.image_shape[0] * run.image_shape[1]
    nets = 4.0 * seeds * _parameters(run, 10) * (STATES + run.checkpoints)
    jacobians = 8.0 * JACOBIANS * run.geometry.points * n * sum(run.widths)
    return WORKER_BYTES + IMAGE_COPIES * 4.0 * images * n + nets + jacobians


def _sizes(run: RunConfig, classes: int) -> list[int]:
    return [run.image_shape[0] * run.image_shape[1], *run.widths, classes]


def _parameters(run: RunConfig, classes: int) -> int:
    sizes = _sizes(run, classes)
    return sum(a * b + b for a, b in pairwise(sizes))


def _train_seconds(run: RunConfig, images: int, classes: int, rate: float) -> float:
    count = min(run.train_size or images, images)
    steps = run.epochs * -(-count // run.batch_size)
    return steps * STEP_OVERHEAD + 6.0 * run.epochs * count * _parameters(run, classes) / rate


def _geometry_seconds(run: RunConfig) -> float:
    n = run.image_shape[0] * run.image_shape[1]
    plan, between, total = run.geometry, run.checkpoints - 2, 0.0
    looks = not set(moments_for(plan.scores, MOMENTS)) <= set(SUMS)  # at every minor: formulas do not give all that is asked for
    for layer, width in zip(layer_names(len(run.widths)), run.widths, strict=True):
        if plan.layers is not None and layer not in plan.layers:
            continue
        visited = (2 * plan.visited_points + between * plan.track_visited_points) * looks
        total += run.checkpoints * STATE_OVERHEAD + visited * comb(width, 2) * comb(n, 2) / MINORS_PER_SECOND
        if 3 in plan.k and wants(plan.scores, *NEEDS):
            total += 2 * plan.k3_points * min(TRIPLE_SECONDS * comb(width, 3) * comb(n, 3), MOST_PER_TRIPLE_POINT)
    return total


def _table_bytes(run: RunConfig) -> float:
    plan = run.geometry
    selections = 9 if plan.selections is None else len(plan.selections)
    scores = 8 if plan.scores is None else len(plan.scores)
    rows = len(plan.layers or run.widths) * len(plan.k) * selections * scores
    return BYTES_PER_ROW * rows * (2 * run.geometry.points + (run.checkpoints - 2) * run.geometry.track_points) + BYTES_PER_RUN


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
