"""Do 95% intervals of sampled moments cover what they should? 1000 repetitions of each setting against the exact moments.

Run: ``python benchmarks/intervals.py`` (minutes). Prints the share of repetitions in which value plus or minus 1.96 standard
errors holds the exact number. A share that is truly 95% comes out within 1.4% of it in 19 of 20 cases.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

import kagscope as kag

REPETITIONS = 1000
NAMES = ("s1", "s2", "s4", "entropy", "participation_ratio", "kl_uniform", "ipr")
IMAGE = {"image_shape": (5, 6)}


def shares(J: np.ndarray, k: int, chosen: kag.Selection, first_seed: int) -> list[float]:
    """Share of the repetitions that cover, by name."""
    exact = kag.minor_moments(J, k, chosen, method="exact", **IMAGE)
    hits = dict.fromkeys(NAMES, 0)
    for seed in range(first_seed, first_seed + REPETITIONS):
        found = kag.minor_moments(J, k, chosen, method="sampled", seed=seed, **IMAGE)
        for name in NAMES:
            hits[name] += abs(getattr(found, name) - getattr(exact, name)) <= 1.96 * found.stderr[name]
    return [hits[name] / REPETITIONS for name in NAMES]


def row(cells: Sequence[str]) -> None:
    print("| " + " | ".join(cells) + " |", flush=True)


def main() -> None:
    rng = np.random.default_rng(0)
    plain = rng.normal(size=(10, 30))
    matrices = {"Gaussian": plain, "rows of unlike size": plain * np.exp(rng.normal(size=(10, 1)))}
    row(["matrix 10 x 30", "k", "selection", *NAMES])
    row(["---"] * (3 + len(NAMES)))
    settings = [(1, kag.All()), *((k, chosen) for k in (2, 3) for chosen in (kag.All(), kag.Ball(2)))]
    for title, J in matrices.items():
        for k, chosen in settings:
            found = shares(J, k, chosen, int(rng.integers(2**31)))  # other draws for each setting
            row([title, str(k), str(chosen), *(f"{share:.1%}" for share in found)])


if __name__ == "__main__":
    main()
