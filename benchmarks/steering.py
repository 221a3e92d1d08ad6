"""What derivatives cost beside values, and what a penalty costs a step of training: processor time, least of several.

python benchmarks/steering.py [--large]
"""

from __future__ import annotations

import argparse
import itertools
import time
from collections.abc import Callable
from functools import partial

import torch
from torch import nn

import kagscope as kag
from kagscope.scores import functional


def least(work: Callable[[], object], times: int = 5) -> float:
    """Processor seconds of ``work``, the least of several."""
    found = []
    for _ in range(times):
        since = time.process_time()
        work()
        found.append(time.process_time() - since)
    return min(found)


def derivative(J: torch.Tensor) -> None:
    """Value and derivative."""
    functional.log_participation_ratio(J).backward()


def of_scores(shapes: list[tuple[int, int]], times: int) -> None:
    """Value (S1 and S2 by the engine, S1 and S2 here) and value with derivative."""
    print(f"{'matrix':>12} {'engine s':>9} {'value s':>9} {'with derivative s':>18} {'ratio':>6}")
    for shape in shapes:
        J = torch.randn(shape, generator=torch.Generator().manual_seed(0)).requires_grad_()
        plain = J.detach()
        others = itertools.count(1)  # the engine remembers areas of a matrix that it has seen
        engine = least(lambda: kag.minor_moments(plain + 1e-3 * next(others), 2, moments=("s1", "s2")), times)  # noqa: B023
        value = least(partial(functional.log_participation_ratio, plain), times)
        both = least(partial(derivative, J), times)
        print(f"{shape[0]:>6}x{shape[1]:<5} {engine:9.4f} {value:9.4f} {both:18.4f} {both / value:6.2f}")


def of_steps(steps: int = 100) -> None:
    """A step of Adam on 784-64-64-10, batch 128, without and with penalties, each from the same start."""
    x, y = torch.rand(128, 784), torch.randint(10, (128,))
    penalties: dict[str, tuple[str, dict[str, int]] | None] = {
        "none": None,
        "layer 1, rows=32": ("1", {"points": 8, "rows": 32}),
        "layer 1, rows=8": ("1", {"points": 8, "rows": 8}),
        "layer 1, rows=32, every=4": ("1", {"points": 8, "rows": 32, "every": 4}),
        "layer 1, rows=32, every=8": ("1", {"points": 8, "rows": 32, "every": 8}),
        "layer 1, exact": ("1", {"points": 8}),
        "layer 2, rows=32": ("3", {"points": 4, "rows": 32}),
        "layer 2, exact": ("3", {"points": 4}),
    }

    def run(given: tuple[str, dict[str, int]] | None, count: int) -> None:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(784, 64), nn.GELU(), nn.Linear(64, 64), nn.GELU(), nn.Linear(64, 10))
        optimizer = torch.optim.Adam(model.parameters(), fused=True)
        penalty = None if given is None else kag.GeometryPenalty(model, [given[0]], "pr", -0.1, **given[1])
        for _ in range(count):
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(x), y)
            (loss if penalty is None else loss + penalty(x)).backward()
            optimizer.step()

    base = 0.0
    for name, given in penalties.items():
        count = steps if given is None or "rows" in given[1] else steps // 4
        took = least(partial(run, given, count), 3) / count
        base = base or took
        print(f"{name:>26}: {1e3 * took:7.2f} ms a step, {took / base:5.2f} times", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--large", action="store_true", help="768 x 3072 and 4096 x 4096 too: minutes")
    large = parser.parse_args().large
    torch.set_num_threads(1)
    kag.warm_up()
    functional.log_participation_ratio(torch.randn(4, 5, requires_grad=True)).backward()
    with kag.limit_threads(1):
        of_scores([(64, 784), (784, 64), (128, 784)], 5)
        if large:
            of_scores([(768, 3072), (4096, 4096)], 1)
        of_steps()
