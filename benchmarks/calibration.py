"""How often do verdicts on claims err, and how many seeds do they take? ``python benchmarks/calibration.py [--studies N]``.

A study is simulated by one number of each net and score; of the noise of nets of one seed a share ``rho`` is common to all. A
claim is as false as it can be while nearly true where one part of it (for claim 6, where any layer would do: every layer) lies
at its threshold, and the rest hold by far: the first table has the share of studies in which it is "reproduced" all the same.
It is as true as it can be while nearly false where every part lies at its threshold: the second table has how often it is "not
reproduced" then. The third has how often it is reproduced where it is true, against the number of seeds.

Thousands of studies are judged at once, by the rules of docs/claims.md written down here again for arrays; the first studies of
each cell are judged by kagscope too, which must agree. ``--write`` puts the tables into docs/claims.md.
"""

from __future__ import annotations

import argparse
from itertools import product
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from kagscope.studies.claims.augmentation import augmentation
from kagscope.studies.claims.layers import concentration, larger_networks, locally_constant_units
from kagscope.studies.claims.parts import INCONCLUSIVE, NOT_REPRODUCED, REPRODUCED
from kagscope.studies.claims.scales import scale_agnostic
from kagscope.studies.claims.seeds import Checkpoint, Evidence
from kagscope.studies.nets import Block, Key, Nets
from kagscope.studies.statistics.multiple_testing import step_down
from kagscope.studies.statistics.permutation import ROUNDING, sign_flips
from kagscope.tables.schema import ALPHA

DOCS = Path(__file__).resolve().parents[1] / "docs"
STUDIES, CHECKED, AT_ONCE = 2000, 2, 250
RHO = (0.0, 0.2, 0.7)
NOISE, SCALE_NOISE = 0.05, 0.02  # of a net's ratio, and of it at one scale
LAYERS = ("hidden1", "hidden2")
SCALES = ("ball(7)", "ball(14)", "ball(28)")
KINDS: dict[str, dict[str, tuple[object, ...]]] = {
    "one width": {"width": (64,)},
    "three widths": {"width": (32, 64, 128)},
    "three widths, two activations": {"width": (32, 64, 128), "activation": ("gelu", "relu")},
}


class World(NamedTuple):
    """True effects: of the first layer, where they are clear, and of the second."""

    ratio: tuple[float, float] = (1.6, 1.6)
    kl: tuple[float, float] = (0.5, 0.5)
    turned: tuple[float, float] = (1.4, 1.4)
    tilt: tuple[float, float] = (0.0, 0.0)  # of the first of three scales, relative to their mean
    widest: tuple[float, float] = (1.0, 1.0)
    share: tuple[float, float] = (0.7, 0.7)
    zero_rows: tuple[float, float] = (0.1, 0.1)


# Claims 2 and 3 are judged by one function: their column says both.
AT_THRESHOLD = {
    1: World(ratio=(1.6, 1.01)),
    2: World(tilt=(0.0, 0.1)),
    4: World(widest=(1.3, 1.01)),
    5: World(share=(0.7, 0.85)),
    6: World(zero_rows=(0.01, 0.01)),
}
BARELY_TRUE = {
    1: World(ratio=(1.01, 1.01), kl=(0.01, 0.01), turned=(1.01, 1.01)),
    2: World(tilt=(0.1, 0.1)),
    4: World(widest=(1.01, 1.01)),
    5: World(share=(0.85, 0.85)),
    6: World(zero_rows=(0.01, 0.01)),
}
TRUE = {
    1: World(ratio=(1.06, 1.06), turned=(1.06, 1.06)),
    2: World(tilt=(0.07, 0.07)),
    4: World(widest=(1.06, 1.06)),
    5: World(share=(0.77, 0.77)),
    6: World(zero_rows=(0.025, 0.025)),
}


Numbers = dict[Key, np.ndarray]
"""(studies, nets) what was measured of each net."""


class Study:
    """A made-up design, nets in the order of its axes, seeds last."""

    def __init__(self, kind: str, seeds: int) -> None:
        axes = KINDS[kind] | {"training": ("standard", "augmented")}
        self.shape = (len(axes["width"]), len(axes.get("activation", ("gelu",))), 2, seeds)
        rows = [dict(zip(axes, values, strict=True)) | {"seed": seed} for *values, seed in product(*axes.values(), range(seeds))]
        self.runs = pd.DataFrame(rows).assign(run=[f"run{place}" for place in range(len(rows))])
        self.axes, self.seed = tuple(axes), self.runs["seed"].to_numpy()
        self.augmented = (self.runs["training"] == "augmented").to_numpy()
        width = self.runs["width"].to_numpy(dtype=float)
        self.ladder = np.log2(width / width.min()) / max(np.log2(width.max() / width.min()), 1)

    def draw(self, world: World, rho: float, studies: int, rng: np.random.Generator) -> Numbers:
        """Numbers of so many studies; those of one seed correlate by ``rho``."""

        def noise(size: float) -> np.ndarray:
            common, own = rng.normal(size=(studies, self.shape[-1]))[:, self.seed], rng.normal(size=(studies, self.seed.size))
            return np.asarray(size * (np.sqrt(rho) * common + np.sqrt(1 - rho) * own))

        found: Numbers = {}
        for place, layer in enumerate(LAYERS):
            ratio = world.ratio[place] * world.widest[place] ** self.ladder
            ratio = np.where(self.augmented, 1 + world.share[place] * (ratio - 1), ratio) + noise(NOISE)
            found[Key(layer, 2, "all", "pr")] = ratio
            for factor, name in zip((1, -0.5, -0.5), SCALES, strict=True):
                found[Key(layer, 2, name, "pr")] = ratio * (1 + factor * world.tilt[place] + noise(SCALE_NOISE))
            found[Key(layer, 2, "all", "kl_uniform")] = 1 + world.kl[place] + noise(NOISE)
            found[Key(layer, 2, "all", "rr_pr")] = world.turned[place] + noise(NOISE)
            found[Key(layer, 1, "all", "zero_rows")] = 1 + world.zero_rows[place] + noise(NOISE / 3)
            found[Key(layer, 0, "all", "constant_units")] = np.zeros_like(ratio)
        return found

    def margins(self, number: int, numbers: Numbers) -> np.ndarray:
        """(studies, sides, seeds) how far each seed lies on the right side of each threshold of a claim."""

        def mean(layer: str, score: str, selection: str = "all", k: int = 2, training: int = 0) -> np.ndarray:
            return np.asarray(by_width(layer, score, selection, k, training).mean(axis=1))

        def by_width(layer: str, score: str, selection: str = "all", k: int = 2, training: int = 0) -> np.ndarray:
            return np.asarray(numbers[Key(layer, k, selection, score)].reshape(-1, *self.shape)[:, :, :, training].mean(axis=2))

        sides: list[np.ndarray] = []
        for layer in LAYERS:
            pr = mean(layer, "pr")
            if number == 1:
                sides += [pr - 1.01, mean(layer, "kl_uniform") - 1.01, mean(layer, "rr_pr") - 1.01]
            elif number == 2:
                scales = np.stack([mean(layer, "pr", name) for name in SCALES])
                middle = scales.mean(axis=0)
                for own in scales:
                    sides += [own - 0.9 * middle, 1.1 * middle - own, own - 1.01]
            elif number == 4:
                widths = by_width(layer, "pr")
                sides.append(widths[:, -1] - 1.01 * widths[:, 0])
            elif number == 5:
                left = mean(layer, "pr", training=1)
                sides += [left - 1.01, left - 1 - 0.55 * (pr - 1), 0.85 * (pr - 1) - (left - 1)]
            else:
                sides.append(mean(layer, "zero_rows", k=1) - 1.01)
        return np.stack(sides, axis=1)

    def judged(self, number: int, numbers: Numbers, study: int) -> str:
        """The verdict of kagscope on one of the studies."""
        keys = pd.DataFrame(list(numbers), columns=list(Key._fields))
        keys["kind"] = keys["selection"].str.partition("(")[0]
        value = np.stack([one[study] for one in numbers.values()])[:, :, None]
        before = (keys["k"] != 0).to_numpy(dtype=float)[:, None, None] * np.ones_like(value)
        block = Block(np.arange(len(keys)), value, np.zeros(1, np.int64), value, before, np.ones(value.shape, dtype=bool))
        evidence = Evidence(Nets(self.runs, self.axes, keys, (block,)), pd.DataFrame({"step": [10]}), resamples=0)
        vars(evidence)["checkpoints"] = {
            (layer, run): [Checkpoint(10, 0.9, np.zeros(1, np.int64), numbers[Key(layer, 2, "all", "pr")][study, place, None])]
            for layer in LAYERS
            for place, run in enumerate(self.runs["run"])
        }
        if number == 2:
            return scale_agnostic(evidence, None).verdict
        judge = {1: concentration, 4: larger_networks, 5: augmentation, 6: locally_constant_units}[number]
        return judge(evidence).verdict


def verdicts(number: int, margins: np.ndarray) -> list[str]:
    """Of each study, from (studies, sides, seeds): docs/claims.md."""
    draws = margins @ sign_flips(margins.shape[2]).T  # (studies, sides, flips)
    reach = ROUNDING * np.abs(draws).max(axis=2, keepdims=True)
    p, against = ((sign * draws >= sign * draws[..., :1] - reach).mean(axis=2) for sign in (1, -1))
    return [_verdict(number, *study) for study in zip(draws.swapaxes(1, 2), p, against, strict=True)]


def _verdict(number: int, draws: np.ndarray, p: np.ndarray, against: np.ndarray) -> str:
    if number == 6:  # any layer will do
        hopeful = against >= ALPHA
        if not hopeful.any():
            return NOT_REPRODUCED
        return REPRODUCED if (step_down(draws[:, hopeful], "greater") < ALPHA).any() else INCONCLUSIVE
    if (p < ALPHA).all():
        return REPRODUCED
    failed = against.min() < ALPHA and (step_down(-draws[:, p >= ALPHA], "greater") < ALPHA).any()
    return NOT_REPRODUCED if failed else INCONCLUSIVE


def share_of(verdict: str, number: int, kind: str, seeds: int, world: World, rho: float, studies: int) -> float:
    """In what share of the studies the claim gets this verdict, in percent."""
    rng, made = np.random.default_rng([number, seeds, round(10 * rho), len(kind)]), Study(kind, seeds)
    found: list[str] = []
    while len(found) < studies:
        numbers = made.draw(world, rho, min(AT_ONCE, studies - len(found)), rng)
        judged = verdicts(number, made.margins(number, numbers))
        if not found:
            by_kagscope = [made.judged(number, numbers, study) for study in range(min(CHECKED, studies))]
            assert judged[:CHECKED] == by_kagscope, f"claim {number}: {judged[:CHECKED]} here, {by_kagscope} by kagscope"
        found += judged
    return 100 * found.count(verdict) / studies


def table(head: list[str], rows: list[list[str]]) -> list[str]:
    """Lines of Markdown."""
    return [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows)]


def write(page: Path, mark: str, lines: list[str]) -> None:
    """Put lines between ``<!-- mark -->`` and ``<!-- end -->`` of a page."""
    before, _, rest = page.read_text().partition(f"<!-- {mark} -->\n")
    _, _, after = rest.partition("<!-- end -->")
    text = "\n".join(lines)
    page.write_text(f"{before}<!-- {mark} -->\n{text}\n<!-- end -->{after}")


def options(about: str | None) -> argparse.Namespace:
    """Of this script and of calibration_tables.py."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=STUDIES, help="of each cell")
    parser.add_argument("--write", action="store_true", help="put the tables into the documentation")
    return parser.parse_args()


def main() -> None:
    """Print the tables."""
    given = options(__doc__)
    claims = ["1", "2, 3", "4", "5", "6"]

    def cells(verdict: str, worlds: dict[int, World], kind: str, seeds: int) -> list[str]:
        return [
            " ".join(f"{share_of(verdict, number, kind, seeds, world, rho, given.studies):.1f}" for rho in RHO)
            if number != 4 or len(KINDS[kind]["width"]) > 1
            else "–"
            for number, world in worlds.items()
        ]

    studies = [("three widths", 5), ("three widths", 8), ("one width", 5), ("three widths, two activations", 5)]
    said = "%, rho = 0, 0.2, 0.7"
    wrong = [[kind, str(seeds), *cells(REPRODUCED, AT_THRESHOLD, kind, seeds)] for kind, seeds in studies]
    failed = [[kind, str(seeds), *cells(NOT_REPRODUCED, BARELY_TRUE, kind, seeds)] for kind, seeds in studies[:2]]
    power = [
        [
            str(seeds),
            *(f"{share_of(REPRODUCED, n, 'three widths', seeds, w, RHO[-1], given.studies // 4):.0f}" for n, w in TRUE.items()),
        ]
        for seeds in (4, 5, 6, 8, 12)
    ]
    lines = [
        *(f"Reproduced though one part lies at its threshold ({given.studies} studies a cell):", ""),
        *table([said, "seeds", *claims], wrong),
        *("", "Not reproduced though every part lies at its threshold:", ""),
        *table([said, "seeds", *claims], failed),
        *("", f"Reproduced where true, %, three widths, rho = 0.7 ({given.studies // 4} studies a cell):", ""),
        *table(["seeds", *claims], power),
    ]
    print("\n".join(lines))
    if given.write:
        write(DOCS / "claims.md", "calibration", lines)


if __name__ == "__main__":
    main()
