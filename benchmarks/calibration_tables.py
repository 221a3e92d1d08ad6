"""How often do the tables of a study err, and how many seeds do they take? ``python benchmarks/calibration_tables.py``.

A study is simulated by the log ratio of each net in three scores of two layers, over three widths and two trainings; of the noise
of nets of one seed a share ``rho`` is common to all. The first table has the share of studies in which a table of tests says of
any of them, after correction, that it differs (rises, goes with accuracy, occurs) although none does. The second has how often
one of them is found that does, by as much as nets of equal settings scatter, against the number of seeds. ``--studies N`` says
how many are simulated, ``--write`` puts both into docs/studies_statistics.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import product

import numpy as np
import pandas as pd

from calibration import AT_ONCE, DOCS, RHO, options, table, write
from kagscope.studies.inference import paired
from kagscope.studies.inference.comparisons import comparisons
from kagscope.studies.inference.trained import trained_against_initial
from kagscope.studies.inference.trends import trends
from kagscope.studies.nets import RATIO, VALUE, Block, Nets
from kagscope.studies.relations import relations
from kagscope.studies.statistics.multiple_testing import holm
from kagscope.studies.statistics.student import mean_of, t_test
from kagscope.tables.means import corrected_p

AXES: dict[str, tuple[object, ...]] = {"width": (8, 16, 32), "training": ("standard", "augmented")}
SCORES = [(layer, score) for layer in ("1", "3") for score in ("pr", "kl_uniform", "rr_pr")]
EFFECT = 1.0  # in standard deviations of nets of equal settings
Test = Callable[["Design", np.ndarray], np.ndarray]
"""From (studies, scores, nets) to corrected p-values (studies, questions)."""


class Design:
    """Nets of a study: width, training, seed last."""

    def __init__(self, seeds: int) -> None:
        rows = [dict(zip(AXES, values, strict=True)) | {"seed": seed} for *values, seed in product(*AXES.values(), range(seeds))]
        self.runs = pd.DataFrame(rows)
        self.runs["run"] = [f"run{place}" for place in range(len(rows))]
        self.seed, self.seeds = self.runs["seed"].to_numpy(), seeds

    def noise(self, studies: int, rho: float, rng: np.random.Generator) -> np.ndarray:
        """(studies, scores, nets), of standard deviation 1."""
        common = rng.normal(size=(studies, len(SCORES), self.seeds))[:, :, self.seed]
        return np.asarray(np.sqrt(rho) * common + np.sqrt(1 - rho) * rng.normal(size=common.shape))

    def nets(self, logs: np.ndarray, runs: pd.DataFrame | None = None, axes: tuple[str, ...] = tuple(AXES)) -> Nets:
        """All studies as one, each a kind of selection, which is a family of its own."""
        keys = pd.DataFrame(SCORES * len(logs), columns=["layer", "score"]).assign(k=2, selection="all", measure=RATIO, reason="")
        keys["kind"] = np.repeat([f"study {place}" for place in range(len(logs))], len(SCORES))
        values = logs.reshape(len(keys), -1)[:, :, None]
        return Nets(self.runs if runs is None else runs, axes, keys, (Block(np.arange(len(keys)), values),))


def by_study(found: pd.DataFrame) -> np.ndarray:
    """(studies, questions)."""
    study = found["family"].str.extract(r"study (\d+)$")[0].astype(int).to_numpy()
    ordered = corrected_p(found).iloc[np.argsort(study, kind="stable")].to_numpy(dtype=float)
    return np.asarray(ordered.reshape(int(study.max()) + 1, -1))


def training_changes(design: Design, logs: np.ndarray) -> np.ndarray:
    found = trained_against_initial(design.nets(logs))
    return by_study(found[found["width"].astype(str) == "all"])


def training_changes_somewhere(design: Design, logs: np.ndarray) -> np.ndarray:
    found = trained_against_initial(design.nets(logs))
    return by_study(found[found["width"].astype(str) != "all"])


def categories(design: Design, logs: np.ndarray) -> np.ndarray:
    return by_study(comparisons(design.nets(logs), ["training"], mixed=False))


def categories_without_pairs(design: Design, logs: np.ndarray) -> np.ndarray:
    """A learning rate of its own for each net."""
    runs = design.runs.assign(learning_rate=np.random.default_rng(0).uniform(1e-3, 1e-1, len(design.runs)))
    return by_study(comparisons(design.nets(logs, runs, ("training", "learning_rate")), ["training"], mixed=False))


def trends_over_width(design: Design, logs: np.ndarray) -> np.ndarray:
    return by_study(trends(design.nets(logs)))


def occurrence(design: Design, logs: np.ndarray) -> np.ndarray:
    """Of the three signatures the first is in question, the others hold by far; Holm over settings and layers."""
    grid = logs.reshape(len(logs), 2, 3, -1, design.seeds) + np.array([0.0, 5.0, 5.0])[:, None, None]
    p = t_test(mean_of(np.moveaxis(grid, -1, 0)), "greater").max(axis=2)
    return np.array([holm(one.ravel().tolist()) for one in p])


def relations_within_settings(design: Design, logs: np.ndarray) -> np.ndarray:
    """The last score stands for accuracy; all depend on the setting."""
    drift = 3.0 * (np.arange(len(design.runs)) // design.seeds)
    keys = pd.DataFrame(SCORES, columns=["layer", "score"]).assign(k=2, selection="all", measure=RATIO, reason="", kind="all")
    outcome = {"layer": "", "score": "accuracy", "k": 0, "selection": "", "measure": VALUE, "reason": "", "kind": "outcome"}
    keys = pd.concat([keys.iloc[:-1], pd.DataFrame([outcome])], ignore_index=True)
    rows = np.arange(len(keys))
    found = [relations(Nets(design.runs, tuple(AXES), keys, (Block(rows, (one + drift)[:, :, None]),))) for one in logs]
    return np.array([one["p_joint"].to_numpy() for one in found])


def mixed_models(design: Design, logs: np.ndarray) -> np.ndarray:
    found = comparisons(design.nets(logs), ["training"])
    return by_study(found.assign(p_joint=np.nan, p_holm=found["mixed_p_holm"]))


TESTS: dict[str, Test] = {
    "training changes a score, over all settings": training_changes,
    "training changes a score in some setting": training_changes_somewhere,
    "categories, in pairs": categories,
    "categories, no pairs": categories_without_pairs,
    "trends": trends_over_width,
    "where geometry occurs": occurrence,
    "relations within settings": relations_within_settings,
    "mixed model (in no finding)": mixed_models,
}
FEWER: dict[Test, int] = {
    trends_over_width: 4,
    relations_within_settings: 4,
    mixed_models: 40,
}  # times fewer studies, of what takes long


def effect(test: Test, design: Design) -> np.ndarray:
    """(nets,) what the first score has where the answer is yes."""
    if test in (categories, categories_without_pairs, mixed_models):
        return EFFECT * (design.runs["training"] == "augmented").to_numpy(dtype=float)
    if test is trends_over_width:
        return np.asarray(EFFECT * np.log2(design.runs["width"].to_numpy(dtype=float) / 8) / 2)
    return np.full(len(design.runs), EFFECT)


def batches(test: Test, seeds: int, rho: float, studies: int, there: bool) -> Iterator[np.ndarray]:
    """Corrected p-values, some studies at a time."""
    design, rng, done = Design(seeds), np.random.default_rng([seeds, round(10 * rho), len(test.__name__)]), 0
    while done < studies:
        logs = design.noise(min(AT_ONCE, studies - done), rho, rng)
        if there and test is relations_within_settings:
            logs[:, -1] = (logs[:, 0] + logs[:, -1]) / np.sqrt(2)
        elif there:
            logs[:, 0] += effect(test, design)
        yield test(design, logs)
        done += len(logs)


def share(test: Test, seeds: int, rho: float, studies: int, *, there: bool) -> str:
    """Percent of studies in which anything is found, or with an effect the first score."""
    p = np.concatenate(list(batches(test, seeds, rho, max(1, studies // FEWER.get(test, 1)), there)))
    return f"{100 * ((p[:, :1] if there else p) < 0.05).any(axis=1).mean():.1f}"


def main() -> None:
    """Print both tables."""
    given = options(__doc__)
    paired.RESAMPLES = 2  # of intervals, at which nobody looks here
    wrong = [
        [name, *(" ".join(share(test, seeds, rho, given.studies, there=False) for rho in RHO) for seeds in (5, 6))]
        for name, test in TESTS.items()
    ]
    right = [
        [name, *(share(test, seeds, 0.2, given.studies // 4, there=True) if seeds in known else "–" for seeds in (3, 5, 6, 10))]
        for name, test in TESTS.items()
        if (known := () if test is mixed_models else (5, 6) if test is relations_within_settings else (3, 5, 6, 10))
    ]
    lines = [
        f"Something is found though nothing is there, %, rho = 0, 0.2, 0.7 ({given.studies} studies a cell, "
        f"{given.studies // 4} of trends and relations, {given.studies // 40} of mixed models):",
        "",
        *table(["question", "5 seeds", "6 seeds"], wrong),
        *("", f"An effect of {EFFECT:g} standard deviation (of a relation: correlation 0.7) is found, %, rho = 0.2:", ""),
        *table(["question", "3 seeds", "5 seeds", "6 seeds", "10 seeds"], right),
    ]
    print("\n".join(lines))
    if given.write:
        write(DOCS / "studies_statistics.md", "calibration", lines)


if __name__ == "__main__":
    main()
