"""How often do intervals of sampled moments cover the truth? 400 seeds, k = 2 and 3, six kinds of matrices.

``python benchmarks/sampled_coverage.py [seeds [orders]]`` prints the table of docs/benchmarks.md: for each score the share of
seeds whose 95% interval holds the exact value, "exact" where it needs no sample, and in brackets the share of seeds in which the
error was said not to be known. Sampling aims at 3%.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

import numpy as np

import kagscope as kag

Make = Callable[..., np.ndarray]
SCORES = ("participation_ratio", "s1", "s2", "s4", "kl_uniform", "ipr")
SIZES = {2: (12, 120), 3: (10, 30)}  # so many pairs that few are visited, and so few triples that all can be


def convolution(rng: np.random.Generator, rows: int, columns: int) -> np.ndarray:
    """Rows with supports of 3 x 3 pixels of an image."""
    side = int(columns**0.5) + 2
    J = np.zeros((rows + 2, side * side))
    for row in range(len(J)):
        y, x = divmod(row, 4)
        for dy in range(3):
            J[row, (y + y // 2 + dy) % side * side + x + np.arange(3)] = rng.normal(size=3)
    return J


def lognormal(sigma: float) -> Make:
    def make(rng: np.random.Generator, *shape: int) -> np.ndarray:
        return np.asarray(np.exp(sigma * rng.normal(size=shape)) * rng.choice([-1.0, 1.0], size=shape))

    return make


def sparse(rng: np.random.Generator, rows: int, columns: int) -> np.ndarray:
    shape = (2 * rows, columns * 4 // 3)
    return rng.normal(size=shape) * (rng.random(shape) < 0.1)


MATRICES: dict[str, Make] = {
    "Gaussian": lambda rng, *shape: rng.normal(size=shape),
    **{f"lognormal, sigma {sigma}": lognormal(sigma) for sigma in (1, 2, 3)},
    "10% dense": sparse,
    "convolution": convolution,
}


def positions(J: np.ndarray) -> np.ndarray:
    """Columns on a line."""
    return np.arange(float(J.shape[1]))


def share(J: np.ndarray, k: int, selection: kag.Selection, seeds: int) -> list[str]:
    """The cells of one row of the table."""
    exact = kag.minor_moments(J, k, selection, positions=positions(J), method="exact")
    hits, unknown, sampled = dict.fromkeys(SCORES, 0), dict.fromkeys(SCORES, 0), dict.fromkeys(SCORES, 0)
    wanted = ("s1", "s2", "s4", "entropy")
    for seed in range(seeds):
        found = kag.minor_moments(
            J, k, selection, positions=positions(J), method="sampled", moments=wanted, seed=seed, rel_error=0.03
        )
        errors = found.stderr
        for score in SCORES:
            error, value, truth = errors[score], float(getattr(found, score)), float(getattr(exact, score))
            sampled[score] += score in errors
            unknown[score] += np.isnan(error)
            hits[score] += abs(value - truth) <= 1.96 * error + 1e-9 * abs(truth)
    cells = []
    for score in SCORES:
        known = seeds - unknown[score]
        text = "exact" if not sampled[score] and hits[score] == seeds else f"{hits[score] / known:.1%}" if known else "refused"
        cells.append(f"{text} ({unknown[score] / seeds:.0%})" if known and unknown[score] else text)
    return cells


def main(seeds: int = 400, *orders: int) -> None:
    print(f"| matrix | k | over | {' | '.join(SCORES)} | ms a call |\n|{'---|' * (len(SCORES) + 4)}")
    for name, make in MATRICES.items():
        for k, selection in ((2, kag.All()), (2, kag.Ball(60)), (3, kag.All()), (3, kag.Ball(9))):
            if orders and k not in orders:
                continue
            J = make(np.random.default_rng(7), *SIZES[k])
            began = time.process_time()
            cells = share(J, k, selection, seeds)
            spent = (time.process_time() - began) / seeds
            print(f"| {name} | {k} | {selection} | {' | '.join(cells)} | {1e3 * spent:.0f} |", flush=True)


if __name__ == "__main__":
    main(*(int(argument) for argument in sys.argv[1:]))
