"""How often do intervals of scores estimated from drawn rows cover those of the whole layer? k = 1, 2 and 3, six kinds of layers.

``python benchmarks/drawn_rows.py [seeds [orders]]`` prints the table of docs/benchmarks.md: 400 units, 12 inputs, of which
``max_rows=160`` draws some; the share of seeds whose 95% interval holds the exact value, in brackets the share in which the error
was said not to be known, and the median standard error over the value.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import numpy as np

import kagscope as kag
from kagscope.jacobians.compute import Batch
from kagscope.jacobians.forms import DenseJacobian
from kagscope.measuring.compare import compare
from kagscope.measuring.scoring import LayerScores
from kagscope.measuring.state import LayerRecord, State
from kagscope.minors.row_draws import RowDraws

UNITS, INPUTS, ROWS = 400, 12, 160
SCORES = ("pr", "ipr", "kl_uniform", "rr_pr", "near_zero", "zero_rows", "kl_init", "ratio of pr", "axis_alignment")
Make = Callable[[np.random.Generator], np.ndarray]


def gaussian(rng: np.random.Generator) -> np.ndarray:
    return np.asarray(rng.normal(size=(UNITS, INPUTS)))


KINDS: dict[str, Make] = {
    "Gaussian": gaussian,
    "half of the rows zero": lambda rng: gaussian(rng) * (rng.random((UNITS, 1)) < 0.5),
    "lognormal gains, sigma 0.5": lambda rng: gaussian(rng) * np.exp(0.5 * rng.normal(size=(UNITS, 1))),
    "lognormal gains, sigma 1": lambda rng: gaussian(rng) * np.exp(rng.normal(size=(UNITS, 1))),
    "lognormal entries, sigma 1": lambda rng: gaussian(rng) * np.exp(rng.normal(size=(UNITS, INPUTS))),
    "rows along axes": lambda rng: 0.1 * gaussian(rng) + np.eye(INPUTS)[rng.integers(INPUTS, size=UNITS)],
}


def table(J: np.ndarray, before: np.ndarray, k: int, drawn: RowDraws | None) -> dict[str, tuple[float, float]]:
    """Values and standard errors of the scores of one order, and of the ratio of PR."""
    wanted = [one for one in SCORES if one != "ratio of pr" and (k == 1 or one != "axis_alignment")]
    spec = kag.MeasureSpec(k=k, scores=wanted, exact=True)
    states = []
    for matrix in (J, before):
        scores = LayerScores("layer", np.array([[0, -1]]), spec, 2.0**-53, drawn)
        rows = matrix if drawn is None else matrix[drawn.rows]
        scores.update(Batch(DenseJacobian(rows[None]), np.zeros(1, int), np.full(1, -1), np.zeros((1, len(rows)))))
        states.append(State(spec, [LayerRecord("layer", "matrix")], {"layer": scores.compute(None, None)}))
    found = compare(states[0], states[1:])
    by = {str(row["score"]): row for row in found[found["k"].isin([0, k])].to_dict("records")}
    cells = {name: (row["value"], row["stderr"]) for name, row in by.items()}
    pr = by["pr"]
    relative = np.hypot(pr["stderr"] / pr["value"], pr["baseline_stderr"] / pr["baseline"])
    return cells | {"ratio of pr": (pr["ratio"], pr["ratio"] * relative)}


def main(seeds: int = 400, *orders: int) -> None:
    print(f"| layer | k | {' | '.join(SCORES)} |\n|{'---|' * (len(SCORES) + 2)}")
    for name, make in KINDS.items():
        for k in orders or (1, 2, 3):
            rng = np.random.default_rng(11)
            J = make(rng)
            before = 0.7 * J + 0.7 * make(rng)
            exact = table(J, before, k, None)
            found = [table(J, before, k, RowDraws.of(UNITS, ROWS, k, seed)) for seed in range(seeds)]
            cells = []
            for score in SCORES:
                if score not in exact:
                    cells.append("")
                    continue
                truth = exact[score][0]
                known = [(value, error) for value, error in (one[score] for one in found) if np.isfinite(error)]
                hits = np.mean([abs(value - truth) <= 1.96 * error for value, error in known]) if known else np.nan
                size = np.median([error / abs(value) if value else np.inf for value, error in known]) if known else np.nan
                refused = 1 - len(known) / seeds
                cells.append(f"{hits:.1%} ({refused:.0%}), {size:.1%}" if known else "refused")
            print(f"| {name} | {k} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main(*(int(argument) for argument in sys.argv[1:]))
