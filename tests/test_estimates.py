"""Sampled moments against exact ones, through the public interface."""

from __future__ import annotations

import math

import numpy as np
import pytest

import kagscope as kag
from kagscope.base.errors import InputError

SUMS = ("s1", "s2", "s4", "entropy")
SCORES = ("participation_ratio", "pr_normalized", "effective_minors", "ipr", "kl_uniform")


@pytest.mark.parametrize("k", [2, 3])
@pytest.mark.parametrize("selection", [kag.All(), kag.Ball(2), kag.Apart(2), kag.Window((2, 2), 2)], ids=str)
@pytest.mark.parametrize("scale", [1.0, 1e-60])
def test_sampled_against_exact(k: int, selection: kag.Selection, scale: float) -> None:
    J = np.random.default_rng(k).normal(size=(12, 25)) * scale
    where = {"image_shape": (5, 5)}
    exact = kag.minor_moments(J, k, selection, **where)
    sampled = kag.minor_moments(J, k, selection, method="sampled", seed=1, **where)
    assert not sampled.exact
    assert sampled.count == exact.count
    error = sampled.stderr
    for name in SUMS:
        if sampled.sums[name][0] != 0 and 0 < abs(getattr(exact, name)) < 1e300 and error[name] > 0:
            assert abs(getattr(sampled, name) - getattr(exact, name)) < 5 * error[name]
    for name in SCORES:
        assert error[name] > 0
        assert abs(getattr(sampled, name) - getattr(exact, name)) < 5 * error[name]
    assert sampled.top <= exact.top * (1 + 1e-12)
    assert np.isnan(error["top"])
    assert sampled.histogram.counts.sum() + sampled.histogram.zeros == pytest.approx(exact.count, rel=1e-6)
    assert sampled.near_zero == pytest.approx(exact.near_zero, abs=0.01)


def test_same_seed_same_bits() -> None:
    J = np.random.default_rng(0).normal(size=(10, 30))
    results = []
    for count in (1, 2):
        with kag.limit_threads(count):
            results.append(kag.minor_moments(J, 3, method="sampled", seed=7))
    assert all((results[0].sums[name] == results[1].sums[name]).all() for name in results[0].sums)
    assert kag.minor_moments(J, 3, method="sampled", seed=8).s1 != results[0].s1


def test_auto_samples_what_is_out_of_reach() -> None:
    J = np.random.default_rng(0).normal(size=(64, 784))
    m = kag.minor_moments(J, 3, moments=("s1", "s2"), seed=0)
    assert not m.exact
    assert m.count == math.comb(64, 3) * math.comb(784, 3)
    assert 0 < m.stderr["s1"] < 0.01 * m.s1
    assert "s2" not in m.stderr  # exact by the spectrum
    squares = np.linalg.svd(J, compute_uv=False) ** 2
    assert m.s2 == pytest.approx(np.poly(-squares)[3], rel=1e-8)
    assert "singular values" in m.plan.explain()
    ratio = kag.haar_mean_s1(J[:, :40], 3) / kag.minor_moments(J[:, :40], 3, moments=("s1",)).s1
    assert ratio == pytest.approx(1, abs=0.02)  # a Gaussian matrix is as good as rotated


def test_four_by_four() -> None:
    J = np.random.default_rng(0).normal(size=(20, 60))
    m = kag.minor_moments(J, 4)
    assert not m.exact
    ball = kag.minor_moments(J, 4, kag.Ball(12), positions=np.arange(60))
    assert 0 < ball.count < m.count
    with pytest.raises(InputError, match=r"listing their subsets|too many column subsets"):
        kag.minor_moments(np.ones((5, 200)), 4, kag.Ball(150), positions=np.arange(200), method="exact")


def test_intervals_of_sums_and_scores_cover() -> None:
    """93 to 97% of 1200 repetitions (a share that is truly 95% leaves that range once in 700 times); of the entropy at its own
    scale, where the errors of its two terms partly cancel."""
    J = np.random.default_rng(1).normal(size=(10, 14)) * 1000
    exact = kag.minor_moments(J, 2)
    hits = dict.fromkeys((*SUMS, *SCORES), 0)
    for seed in range(1200):
        m = kag.minor_moments(J, 2, method="sampled", seed=seed)
        error = m.stderr
        for name in hits:
            hits[name] += abs(getattr(m, name) - getattr(exact, name)) <= 1.96 * error[name]
    assert all(0.93 <= count / 1200 <= 0.97 for count in hits.values()), hits


def test_errors_of_added_entropies() -> None:
    """Shells sampled at unlike scales: the error of the sum against its spread over seeds."""
    near, far = (np.random.default_rng(size).normal(size=(6, size)) * scale for size, scale in ((9, 1.0), (10, 40.0)))
    added = [
        kag.minor_moments(near, 2, method="sampled", seed=seed) + kag.minor_moments(far, 2, method="sampled", seed=seed + 500)
        for seed in range(200)
    ]
    spread = np.std([m.entropy for m in added], ddof=1)
    assert spread == pytest.approx(np.mean([m.stderr["entropy"] for m in added]), rel=0.2)


def test_s4_has_met_the_minors_that_carry_it() -> None:
    J = np.random.default_rng(0).normal(size=(10, 30))
    with_s4 = kag.minor_moments(J, 3, method="sampled", moments=("s1", "s4"))
    without = kag.minor_moments(J, 3, method="sampled", moments=("s1",))
    assert with_s4.stderr["s4"] < 0.025 * with_s4.s4
    assert without.plan.notes[0].startswith("32768 minors")
    assert without.stderr["s1"] < 0.01 * without.s1


@pytest.mark.slow
def test_intervals_cover() -> None:
    """95 % intervals of S1 and of the participation ratio cover 93 to 97 % of 400 repetitions."""
    J = np.random.default_rng(0).normal(size=(10, 14))
    exact = kag.minor_moments(J, 3)
    for name in ("s1", "participation_ratio", "kl_uniform"):
        hits = 0
        for seed in range(400):
            m = kag.minor_moments(J, 3, method="sampled", seed=seed)
            hits += abs(getattr(m, name) - getattr(exact, name)) < 1.96 * m.stderr[name]
        assert 0.93 <= hits / 400 <= 0.97, (name, hits)
