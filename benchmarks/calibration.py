"""How often do verdicts err, and how many seeds do they take? ``python benchmarks/calibration.py [studies]`` prints both tables.

A study is simulated by one number of each net and score; of the noise of nets of one seed a share ``rho`` is common to all. A
claim is as false as it can be while nearly true where one part of it (for claim 6, where any layer would do: every layer) lies
at its threshold, and the rest hold by far: the first table has the share of studies in which it is "reproduced" all the same.
The second has how often it is reproduced where it is true, against the number of seeds.
"""

from __future__ import annotations

import sys
from itertools import product
from typing import NamedTuple

import numpy as np
import pandas as pd

from kagscope.studies.claims.augmentation import augmentation
from kagscope.studies.claims.layers import concentration, larger_networks, locally_constant_units
from kagscope.studies.claims.parts import REPRODUCED, Claim, Settings
from kagscope.studies.claims.scales import minimum_distance, scale_agnostic
from kagscope.studies.claims.seeds import Checkpoint, Evidence
from kagscope.studies.nets import Block, Key, Nets

STUDIES = 400
RHO = (0.0, 0.2, 0.7)
NOISE, SCALE_NOISE = 0.05, 0.02  # of a net's ratio, and of it at one scale
LAYERS = ("hidden1", "hidden2")
SCALES = {"ball": ("ball(7)", "ball(14)", "ball(28)"), "apart": ("apart(7)", "apart(14)", "apart(21)")}
KINDS: dict[str, dict[str, tuple[object, ...]]] = {
    "one width": {"width": (64,)},
    "three widths": {"width": (32, 64, 128)},
    "three widths, two activations": {"width": (32, 64, 128), "activation": ("gelu", "relu")},
}
SETTINGS = Settings(resamples=0)


class World(NamedTuple):
    """True effects: of the first layer, where they are clear, and of the second."""

    ratio: tuple[float, float] = (1.6, 1.6)
    kl: tuple[float, float] = (0.5, 0.5)
    turned: tuple[float, float] = (1.4, 1.4)
    tilt: tuple[float, float] = (0.0, 0.0)  # of the first of three scales, relative to their mean
    widest: tuple[float, float] = (1.0, 1.0)
    share: tuple[float, float] = (0.7, 0.7)
    zero_rows: tuple[float, float] = (0.1, 0.1)


AT_THRESHOLD = {
    1: World(ratio=(1.6, 1.01)),
    2: World(tilt=(0.0, 0.1)),
    3: World(tilt=(0.0, 0.1)),
    4: World(widest=(1.3, 1.01)),
    5: World(share=(0.7, 0.85)),
    6: World(zero_rows=(0.01, 0.01)),
}
TRUE = {
    1: World(ratio=(1.06, 1.06), turned=(1.06, 1.06)),
    2: World(tilt=(0.07, 0.07)),
    3: World(tilt=(0.07, 0.07)),
    4: World(widest=(1.06, 1.06)),
    5: World(share=(0.77, 0.77)),
    6: World(zero_rows=(0.025, 0.025)),
}


class Study:
    """A made-up study, whose numbers can be drawn again."""

    def __init__(self, kind: str, seeds: int) -> None:
        axes = KINDS[kind] | {"training": ("standard", "augmented")}
        rows = [dict(zip(axes, values, strict=True)) | {"seed": seed} for *values, seed in product(*axes.values(), range(seeds))]
        runs = pd.DataFrame(rows).assign(run=[f"run{place}" for place in range(len(rows))])
        self.seed, width = runs["seed"].to_numpy(), runs["width"].to_numpy(dtype=float)
        self.augmented = (runs["training"] == "augmented").to_numpy()
        self.ladder = np.log2(width / width.min()) / max(np.log2(width.max() / width.min()), 1)
        keys = [Key(layer, 2, name, "pr") for layer in LAYERS for name in ("all", *SCALES["ball"], *SCALES["apart"])]
        keys += [Key(layer, 2, "all", score) for layer in LAYERS for score in ("kl_uniform", "rr_pr")]
        keys += [Key(layer, k, "all", score) for layer in LAYERS for k, score in ((1, "zero_rows"), (0, "constant_units"))]
        table = pd.DataFrame(keys, columns=list(Key._fields))
        table["kind"] = table["selection"].str.partition("(")[0]
        self.value = np.zeros((len(keys), len(rows), 1))
        before = (table["k"] != 0).to_numpy(dtype=float)[:, None, None] * np.ones_like(self.value)
        recorded = np.ones(self.value.shape, dtype=bool)
        block = Block(np.arange(len(keys)), self.value, np.zeros(1, np.int64), self.value, before, recorded)
        nets = Nets(runs, tuple(axes), table, (block,))
        self.rows = {key: self.value[place, :, 0] for key, place in nets.places.items()}
        self.evidence = Evidence(nets, pd.DataFrame({"step": [10]}))
        vars(self.evidence)["checkpoints"] = {
            (layer, run): [Checkpoint(10, 0.9, np.zeros(1, np.int64), self.rows[Key(layer, 2, "all", "pr")][place : place + 1])]
            for layer in LAYERS
            for place, run in enumerate(runs["run"])
        }

    def draw(self, world: World, rho: float, rng: np.random.Generator) -> None:
        """Draw all numbers; those of one seed correlate by ``rho``."""

        def noise(size: float) -> np.ndarray:
            common, own = rng.normal(size=int(self.seed.max()) + 1)[self.seed], rng.normal(size=self.seed.size)
            return np.asarray(size * (np.sqrt(rho) * common + np.sqrt(1 - rho) * own))

        for place, layer in enumerate(LAYERS):
            ratio = world.ratio[place] * world.widest[place] ** self.ladder
            ratio = np.where(self.augmented, 1 + world.share[place] * (ratio - 1), ratio) + noise(NOISE)
            self.rows[Key(layer, 2, "all", "pr")][:] = ratio
            for names in SCALES.values():
                for factor, name in zip((1, -0.5, -0.5), names, strict=True):
                    tilt = 1 + factor * world.tilt[place] + noise(SCALE_NOISE)
                    self.rows[Key(layer, 2, name, "pr")][:] = ratio * tilt
            self.rows[Key(layer, 2, "all", "kl_uniform")][:] = 1 + world.kl[place] + noise(NOISE)
            self.rows[Key(layer, 2, "all", "rr_pr")][:] = world.turned[place] + noise(NOISE)
            self.rows[Key(layer, 1, "all", "zero_rows")][:] = 1 + world.zero_rows[place] + noise(NOISE / 3)


def judged(number: int, evidence: Evidence) -> Claim:
    """One claim, of itself."""
    if number in (2, 3):
        return (scale_agnostic if number == 2 else minimum_distance)(evidence, SETTINGS, (28, 28))
    judge = {1: concentration, 4: larger_networks, 5: augmentation, 6: locally_constant_units}[number]
    return judge(evidence, SETTINGS)


def reproduced(number: int, kind: str, seeds: int, world: World, rho: float, studies: int) -> str:
    """In what share of studies, in percent."""
    rng, made = np.random.default_rng([number, seeds, round(10 * rho), len(kind)]), Study(kind, seeds)
    found = 0
    for _ in range(studies):
        made.draw(world, rho, rng)
        found += judged(number, made.evidence).verdict == REPRODUCED
    return f"{100 * found / studies:.1f}"


def main() -> None:
    """Print both tables."""
    studies = int(sys.argv[1]) if len(sys.argv) > 1 else STUDIES
    print(f"{studies} studies a cell\n\n| reproduced at its threshold, %, rho = 0, 0.2, 0.7 | seeds | 1 | 2 | 3 | 4 | 5 | 6 |")
    print("|---|---|---|---|---|---|---|---|")
    for kind, seeds in (*product(KINDS, (5,)), ("three widths", 8)):
        cells = [
            " ".join(reproduced(number, kind, seeds, world, rho, studies) for rho in RHO)
            if number != 4 or len(KINDS[kind]["width"]) > 1
            else "–"
            for number, world in AT_THRESHOLD.items()
        ]
        print(f"| {kind} | {seeds} | {' | '.join(cells)} |", flush=True)
    print("\n| reproduced where true, %, three widths, rho = 0.7 | 1 | 2 | 3 | 4 | 5 | 6 |\n|---|---|---|---|---|---|---|")
    for seeds in (4, 5, 6, 8, 12):
        cells = [reproduced(number, "three widths", seeds, world, RHO[-1], studies // 2) for number, world in TRUE.items()]
        print(f"| {seeds} seeds | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
