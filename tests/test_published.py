"""The authors' sampled scores: how they relate to ours over all minors."""

from __future__ import annotations

from unittest import mock

import numpy as np
import pytest
import torch
from scipy.stats import sem

import kagscope as kag
from kagscope.minors.published import DRAWS, drawn_rotation_ratio
from kagscope.scores.of_jacobians import rotation_ratio_of_drawn


def test_of_all_minors_drawn_once_they_are_ours() -> None:
    J = np.array([[1.0, 2.0, -3.0]])  # a single row: three minors of order 1, drawn again and again
    drawn = kag.published_scores(J, 1, samples=30_000)
    ours = kag.minor_moments(J, 1)
    assert drawn["pr"] * np.sqrt(30_000 / 3) == pytest.approx(ours.participation_ratio, rel=0.01)
    assert drawn["kl"] == pytest.approx(ours.kl_uniform, abs=0.01)
    assert drawn["rr"] == pytest.approx(1), "O(1) has no rotations"


@pytest.mark.parametrize("k", [1, 2, 3])
def test_pr_scales_with_the_number_of_minors_and_kl_is_the_same(k: int) -> None:
    J = np.random.default_rng(k).normal(size=(8, 30))
    ours = kag.minor_moments(J, k)
    drawn = [kag.published_scores(J, k, samples=500, seed=seed) for seed in range(40)]
    scale = np.sqrt(ours.count / 500)
    for name, expected in (("pr", ours.participation_ratio * scale), ("kl", ours.kl_uniform)):
        values = np.array([one[name] for one in drawn])
        assert values.mean() == pytest.approx(expected, rel=0.02)
        assert abs(values.mean() - expected) < 4 * values.std() / np.sqrt(40) + 0.01 * expected


def test_the_largest_of_drawn_minors_over_rotated_ones_is_another_number_than_over_all() -> None:
    torch.manual_seed(0)
    layers = [torch.nn.Linear(196, 16).weight.detach() for _ in range(12)]
    drawn = np.mean([kag.published_scores(W, 2, seed=seed)["rr"] for seed, W in enumerate(layers)])
    assert drawn > np.mean([kag.rotation_ratio(W, 2, kind="max") for W in layers]) + 0.1


def test_batches_seeds_scales_and_zeros() -> None:
    J = np.random.default_rng(0).normal(size=(3, 5, 7))
    J[2] = 0
    found = kag.published_scores(J, 2, seed=4)
    assert {name: values.shape for name, values in found.items()} == {"pr": (3,), "kl": (3,), "rr": (3,)}
    assert all(np.isnan(values[2]) for values in found.values())
    alone = kag.published_scores(J[1] * 2.0**400, 2, seed=4)
    assert alone == {name: values[1] for name, values in found.items()}
    assert kag.published_scores(J[1], 2, seed=5) != alone


def test_minors_that_are_rounding_alone_are_none() -> None:
    """Determinants by LU gave PR 0.26 of whole numbers of rank one, RR 1.04 of the only minor of two near rows, or infinity."""
    rank_one = np.outer([49.0, 3, 7, 11], [1.0, 49, 3, 7, 13])
    rank_three = np.random.default_rng(3).integers(-9, 9, (5, 3)) @ np.random.default_rng(4).integers(-9, 9, (3, 6))
    for J, k in ((rank_one, 2), (rank_one, 3), (rank_three.astype(float), 4)):
        assert np.isnan(list(kag.published_scores(J, k).values())).all()
    for second in ([1.0, 1 + 2.0**-50], [1e-170, 2e-170]):
        found = kag.published_scores(np.array([[1.0, 1.0], second]), 2)
        assert found == {"pr": pytest.approx(500**-0.5), "kl": pytest.approx(0, abs=1e-12), "rr": 1.0}
    near = np.outer(np.arange(1.0, 4), [1.0, 1, 1, 1]) + 2.0**-48 * np.random.default_rng(5).integers(0, 9, (3, 4))
    assert np.isnan(kag.published_scores(near, 2)["rr"])


@pytest.mark.parametrize("samples", [0, -1, 2.5, True])
def test_samples_are_a_number_of_minors(samples: object) -> None:
    with pytest.raises(kag.InputError, match="samples"):
        kag.published_scores(np.eye(3), 2, samples=samples)


def test_the_score_has_the_error_that_it_says() -> None:
    """Over seeds it spreads as its standard error says, around the mean of single draws; where a draw sees nothing it is NaN."""
    J = np.random.default_rng(1).normal(size=(1, 8, 30)) * np.exp(np.random.default_rng(2).normal(size=(8, 30)))
    found = np.array([rotation_ratio_of_drawn(J, 200, seed) for seed in range(60)])[:, :, 0]
    single = np.mean([kag.published_scores(J[0], 2, samples=200, seed=seed)["rr"] for seed in range(400)])
    spread = found[:, 0].std(ddof=1)
    assert spread == pytest.approx(np.sqrt((found[:, 1] ** 2).mean()), rel=0.25)
    assert found[:, 0].mean() == pytest.approx(single, abs=5 * spread / np.sqrt(60))
    with mock.patch("kagscope.minors.published._scores", return_value=np.array([(0.0, 0.0, x) for x in range(DRAWS)])):
        mean, error = drawn_rotation_ratio(J, 2, 200, 0)
    assert (mean[0], error[0]) == pytest.approx(((DRAWS - 1) / 2, sem(range(DRAWS))))
    sparse = np.zeros((2, 9, 40))
    sparse[:, [0, 1], [0, 1]] = 1.0
    assert np.isnan(rotation_ratio_of_drawn(sparse, 10, 0)[0]).all()


def test_in_tables_it_is_sampled_beside_the_exact_maximum() -> None:
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(20, 6), torch.nn.GELU())
    options = {"scores": ["rr_max", "rr_sampled"], "baseline": None, "k": 2, "rotation_points": 2, "progress": False}
    table = kag.measure(net, torch.rand(5, 20), **options).table
    drawn = table[table["score"] == "rr_sampled"]
    assert len(drawn) == 2
    assert not drawn["exact"].any()
    assert (drawn["stderr"] > 0).all()
    fewer = kag.measure(net, torch.rand(5, 20), **options, drawn_minors=10).table
    assert (fewer.loc[fewer["score"] == "rr_sampled", "stderr"].to_numpy() > drawn["stderr"].to_numpy()).all()
