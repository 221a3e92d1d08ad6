"""How does cost grow with rows, columns and batch, against the counts of the cost model? Draws one log-log picture and prints it.

Run: ``python benchmarks/growth.py`` (a minute or two). Processor time on one thread, shortest of several runs; the grey lines
are the number of steps that the planner counts (``kagscope.minors.plan``), through the largest point.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from math import comb
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes

import kagscope as kag
from kagscope.columns.layout import make_layout
from kagscope.minors.plan import reference_seconds
from kagscope.minors.routes.auto import Auto
from kagscope.minors.task import Matrices, Task

matplotlib.use("agg")
from matplotlib import pyplot as plt

PICTURE = Path(__file__).resolve().parents[1] / "docs" / "pictures" / "growth.png"
EVERYTHING = frozenset(("s1", "s2", "s4", "entropy", "top", "histogram"))
Way = tuple[str, tuple[str, ...] | str, int, str]
WAYS: list[Way] = [
    ("S1, S2, S4 by formulas, k = 2", ("s1", "s2", "s4"), 2, "C0"),
    ("every moment by enumeration, k = 2", "all", 2, "C1"),
    ("S1 by zonotopes, k = 3", ("s1",), 3, "C2"),
]


def seconds(work: Callable[[], object], repeats: int = 5) -> float:
    """Processor time of the shortest of several runs: other load only ever adds."""
    work()
    times = []
    for _ in range(repeats):
        began = time.process_time()
        work()
        times.append(time.process_time() - began)
        if sum(times) > 3:
            break
    return min(times)


def steps(k: int, m: int, n: int, wanted: tuple[str, ...] | str) -> float:
    """Seconds of the reference core: the cost model's count, weighted where several kernels take part."""
    names = EVERYTHING if wanted == "all" else frozenset(wanted)
    task = Task(Matrices(np.broadcast_to(0.0, (1, m, n)), k), k, kag.All(), comb(n, k), make_layout(n), names, "exact")
    (choice,) = Auto().choose([task])
    return reference_seconds({kernel: count for route in choice for kernel, count in route.steps(task).items()})


def sizes(k: int, axis: str) -> list[tuple[int, int, int]]:
    """(batch, m, n) along one axis."""
    if axis == "rows m":
        return [(1, m, 256) for m in (8, 16, 32, 64, 128)] if k == 2 else [(1, m, 48) for m in (6, 8, 12, 16, 24)]
    if axis == "columns n":
        return [(1, 32, n) for n in (64, 128, 256, 512, 1024)] if k == 2 else [(1, 12, n) for n in (32, 48, 64, 96, 128)]
    return [(b, 16, 64) if k == 2 else (b, 8, 24) for b in (1, 4, 16, 64)]


def main() -> None:
    rng = np.random.default_rng(0)
    kag.warm_up(print)
    figure, panels = plt.subplots(1, 3, figsize=(11, 3.6), sharey=True, layout="constrained")
    with kag.limit_threads(1):
        for panel, axis in zip(panels, ("rows m", "columns n", "matrices in a batch"), strict=True):
            for way in WAYS:
                draw(panel, axis, way, rng)
            panel.set_xlabel(axis)
            panel.set_xscale("log", base=2)
            panel.set_yscale("log")
    panels[0].set_ylabel("seconds, one core")
    panels[0].legend(fontsize=7)
    PICTURE.parent.mkdir(exist_ok=True)
    figure.savefig(PICTURE, dpi=110)


def draw(panel: Axes, axis: str, way: Way, rng: np.random.Generator) -> None:
    """One line of measurements and its count, and the exponent of each between the two largest sizes."""
    name, wanted, k, color = way
    shapes = sizes(k, axis)
    column = ("matrices in a batch", "rows m", "columns n").index(axis)
    where = [shape[column] for shape in shapes]
    measured = [
        seconds(partial(kag.minor_moments, rng.normal(size=shape), k, moments=wanted, method="exact")) for shape in shapes
    ]
    counted = np.array([shape[0] * steps(k, *shape[1:], wanted) for shape in shapes])
    panel.plot(where, counted * measured[-1] / counted[-1], color="0.7", linewidth=3)
    panel.plot(where, measured, "o-", color=color, markersize=4, label=name)
    grown, expected = slope(where, measured), slope(where, counted)
    span = f"{where[0]:>4} to {where[-1]:>4}: {1e3 * measured[0]:7.2f} to {1e3 * measured[-1]:6.1f} ms"
    print(f"{axis:<20} {name:<36} {span}; exponent {grown:.2f}, counted {expected:.2f}", flush=True)


def slope(where: Sequence[float], values: Sequence[float] | np.ndarray) -> float:
    """Exponent of growth between the last two points."""
    return float(np.log(values[-1] / values[-2]) / np.log(where[-1] / where[-2]))


if __name__ == "__main__":
    main()
