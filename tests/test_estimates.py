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
    assert not sampled.exact or k == 2  # so few column pairs are all visited
    assert sampled.count == exact.count
    error = sampled.stderr
    for name in (*SUMS, *SCORES):
        wanted = getattr(exact, name)
        if 0 < abs(wanted) < 1e300:
            assert abs(getattr(sampled, name) - wanted) <= 5 * error[name] + 1e-9 * abs(wanted), name
    assert sampled.exact or "kl_uniform" in error
    assert sampled.top <= exact.top * (1 + 1e-12)
    assert sampled.histogram.counts.sum() + sampled.histogram.zeros == pytest.approx(exact.count, rel=1e-6)
    assert sampled.near_zero == pytest.approx(exact.near_zero, abs=0.01)


def test_same_seed_same_bits() -> None:
    J = np.random.default_rng(0).normal(size=(10, 30))
    results = []
    for count in (1, 2):
        with kag.limit_threads(count):
            results.append(kag.minor_moments(J, 3, method="sampled", seed=7))
    assert all((results[0].sums[name] == results[1].sums[name]).all() for name in results[0].sums)
    assert kag.minor_moments(J, 3, method="sampled", seed=8).entropy != results[0].entropy


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


def test_errors_of_added_entropies() -> None:
    """Shells sampled at unlike scales: the error of the sum against its spread over seeds."""
    near, far = (np.random.default_rng(size).normal(size=(6, size)) * scale for size, scale in ((9, 1.0), (10, 40.0)))
    added = [
        kag.minor_moments(near, 2, method="sampled", seed=seed) + kag.minor_moments(far, 2, method="sampled", seed=seed + 500)
        for seed in range(200)
    ]
    spread = np.std([m.entropy for m in added], ddof=1)
    assert spread == pytest.approx(np.mean([m.stderr["entropy"] for m in added]), rel=0.2)
