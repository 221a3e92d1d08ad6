"""What a study will take: runs, time and disk, estimated before anything starts."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import comb

import torch

from kagscope.studies.config import RunConfig

# Fitted to runs on 2 CPU cores; what a number stands for is said beside it.
STEP_OVERHEAD = 60e-6  # seconds of an optimiser step beside its arithmetic
SHARE_OF_PEAK = 0.25  # of a large product's speed that small ones reach
BYTES_PER_ROW = 12.0  # of a compressed results table
MINORS_PER_SECOND = 6e8  # enumerated on one core, with entropy and histogram at every scale


@dataclass(frozen=True)
class Estimate:
    """Of a number of runs.

    Attributes:
        runs: how many.
        train_seconds, geometry_seconds: added up over runs, on one core each.
        bytes: on disk.
    """

    runs: int
    train_seconds: float
    geometry_seconds: float
    bytes: float

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
    return Estimate(len(runs), train, geometry, size)


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
    plan, total = run.geometry, 0.0
    for width in run.widths:
        minors = comb(width, 2) * comb(n, 2)
        visited = 2 * plan.visited_points + (run.checkpoints - 2) * plan.track_visited_points
        summed = 2 * plan.points + (run.checkpoints - 2) * plan.track_points
        total += visited * minors / MINORS_PER_SECOND + summed * n * n * width * 2e-10 + 0.15
    return total


def _table_bytes(run: RunConfig) -> float:
    selections, scores = 9, 8
    rows = len(run.widths) * len(run.geometry.k) * selections * scores
    return BYTES_PER_ROW * rows * (2 * run.geometry.points + (run.checkpoints - 2) * run.geometry.track_points) + 2e5


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
