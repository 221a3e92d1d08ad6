"""Calibration by simulation: without effect p-values are as small as they should be and no more; intervals cover what they say.

Every score of a made-up study is one repetition: scores are independent, the nets are the same.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from inference_cases import nets_of, runs_of
from kagscope.studies.inference.comparisons import comparisons
from kagscope.studies.inference.trained import trained_against_initial
from kagscope.studies.inference.trends import trends
from kagscope.studies.statistics.kendall import mean_tau

REPETITIONS = 500


def assert_share(hits: np.ndarray, low: float, high: float) -> None:
    """The share lies between two probabilities, up to what chance does once in a thousand times."""
    assert stats.binom.sf(hits.sum() - 1, hits.size, high) > 0.001, f"{hits.mean():.3f} is above {high}"
    assert stats.binom.cdf(hits.sum(), hits.size, low) > 0.001, f"{hits.mean():.3f} is below {low}"


def covered(table: pd.DataFrame, truth: float, low: str = "low", high: str = "high") -> np.ndarray:
    return ((table[low] <= truth) & (truth <= table[high])).to_numpy()


@pytest.mark.parametrize("seeds", [3, 5, 8])
def test_trained_against_initial_without_effect(seeds: int) -> None:
    """Nets of a seed are related over two widths, and points within a net."""
    runs = runs_of({"width": [8, 16]}, seeds)
    rng = np.random.default_rng(seeds)
    logs = rng.normal(0, 0.2, (REPETITIONS, len(runs), 3))
    logs += rng.normal(0, 0.3, (REPETITIONS, len(runs), 1)) + np.tile(rng.normal(0, 0.3, (REPETITIONS, seeds)), 2)[:, :, None]
    table = trained_against_initial(nets_of(runs, logs, ["width"]))
    over_all = table[table["width"] == "all"]
    assert_share((over_all["p_value"] <= 0.05).to_numpy(), 0.04 if seeds < 6 else 0.03, 0.05)
    if seeds < 6:
        assert stats.kstest(over_all["p_value"], "uniform").pvalue > 0.001
    alone = table[table["width"].astype(str) == "8"]
    assert_share((alone["p_value"] <= 0.05).to_numpy(), 0.03, 0.05)


@pytest.mark.parametrize("seeds", [3, 5, 10])
@pytest.mark.parametrize("shared", [0.0, 0.4])
def test_intervals_cover_the_mean_of_all_seeds_and_images(seeds: int, shared: float) -> None:
    """What an image does to all nets is drawn once; the interval knows."""
    runs = runs_of({}, seeds)
    rng = np.random.default_rng(10 * seeds)
    logs = 0.3 + rng.normal(0, 0.2, (REPETITIONS, seeds, 1)) + rng.normal(0, 0.3, (REPETITIONS, seeds, 16))
    logs += rng.normal(0, shared, (REPETITIONS, 1, 16)) if shared else 0.0
    table = trained_against_initial(nets_of(runs, logs, []))
    assert_share(covered(table, np.exp(0.3)), 0.93, 1.0 if shared else 0.98)  # t of three seeds is wide also for images


def test_comparisons_and_mixed_models_with_and_without_effect() -> None:
    """Two trainings of six seeds and two widths; the untrained net does something to both trainings, alike."""
    runs = runs_of({"training": ["standard", "augmented"], "width": [8, 16]}, 6)
    rng, repetitions = np.random.default_rng(6), 200
    net = np.tile(rng.normal(0, 0.4, (repetitions, 12)), 2)
    augmented = (runs["training"] == "augmented").to_numpy()
    logs = (net + rng.normal(0, 0.2, (repetitions, 24)) + 0.3 * augmented)[:, :, None]
    table = comparisons(nets_of(runs, logs, ["training", "width"]))
    trained = table[table["axis"] == "training"]
    assert_share(covered(trained, np.exp(0.3)), 0.93, 0.97)
    assert_share(covered(trained, np.exp(0.3), "mixed_low", "mixed_high"), 0.93, 0.97)
    assert (trained["mixed_p_value"] < trained["p_value"]).mean() > 0.6, "more to go by than six means"
    width = table[table["axis"] == "width"]  # without effect, and the nets differ
    assert_share((width["p_value"] <= 0.05).to_numpy(), 0.02, 0.05)
    assert_share((width["mixed_p_value"] <= 0.05).to_numpy(), 0.03, 0.055)


@pytest.mark.parametrize(("seeds", "levels"), [(3, 3), (5, 4)])
def test_trends_without_effect(seeds: int, levels: int) -> None:
    """Nets of one seed and level are related over two trainings: permuting both alike keeps that."""
    widths = [4 * 2**place for place in range(levels)]
    runs = runs_of({"training": ["standard", "augmented"], "width": widths}, seeds)
    rng = np.random.default_rng(seeds)
    logs = np.tile(rng.normal(0, 0.5, (REPETITIONS, levels * seeds)), 2) + rng.normal(0, 0.3, (REPETITIONS, len(runs)))
    table = trends(nets_of(runs, logs[:, :, None], ["training", "width"]))
    assert_share((table["p_value"] <= 0.05).to_numpy(), 0.02, 0.05)
    assert_share((table["p_value"] <= 0.2).to_numpy(), 0.08, 0.2)


@pytest.mark.parametrize(("seeds", "levels", "slope"), [(3, 3, 0.0), (3, 5, 0.7), (5, 4, 0.3), (5, 4, 2.0), (10, 5, 0.5)])
def test_intervals_of_tau_cover(seeds: int, levels: int, slope: float) -> None:
    rng = np.random.default_rng(100 * seeds + levels)
    y = slope * np.arange(levels) + rng.normal(size=(REPETITIONS, seeds, levels))
    first, second = np.triu_indices(levels, 1)
    scores = np.sign(y[..., second] - y[..., first]).sum(axis=2)
    tau, low, high = mean_tau(scores, np.full(scores.shape, float(first.size)), levels)
    truth = float((2 * stats.norm.cdf(slope * (second - first) / np.sqrt(2)) - 1).mean())
    assert tau.mean() == pytest.approx(truth, abs=0.06)
    assert_share((low <= truth) & (truth <= high), 0.93, 1.0)


def test_intervals_of_tau_cover_where_seeds_differ() -> None:
    """Half of the seeds rise, half fall, and six settings of a seed do the same: the interval is that of seeds."""
    rng = np.random.default_rng(0)
    slopes = rng.choice([-1.0, 1.0], (REPETITIONS, 6, 1, 1))
    y = slopes * np.arange(4) + rng.normal(0, 0.5, (REPETITIONS, 6, 6, 4))
    first, second = np.triu_indices(4, 1)
    scores = np.sign(y[..., second] - y[..., first]).sum(axis=(2, 3))
    _, low, high = mean_tau(scores, np.full(scores.shape, 36.0), 4)
    assert_share((low <= 0) & (high >= 0), 0.9, 1.0)
