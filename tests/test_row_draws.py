"""What rows drawn of a layer tell of all of them: estimates of the whole, with errors, or a stated refusal."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import kagscope as kag
from kagscope.base.reasons import code_of
from kagscope.minors.moment_scores import kl_init_error
from kagscope.minors.row_draws import RowDraws


@pytest.mark.parametrize(("units", "at_most", "least"), [(40, 10, 2), (41, 40, 3), (300, 128, 2), (1536, 512, 3), (9, 2, 6)])
def test_groups_have_no_more_rows_than_allowed(units: int, at_most: int, least: int) -> None:
    drawn = RowDraws.of(units, at_most, least, 0)
    assert (drawn.groups == RowDraws.of(units, at_most, least, 0).groups).all()
    assert len(drawn.rows) <= at_most
    assert drawn.groups.shape[1] >= min(least, at_most)
    assert all(len(set(group)) == len(group) for group in drawn.groups.tolist())
    assert set(drawn.groups.ravel()) == set(range(len(drawn.rows)))


def estimate(J: np.ndarray, k: int, seed: int, at_most: int = 128, **options: Any) -> kag.Moments:
    drawn = RowDraws.of(len(J), at_most, k, seed)
    return drawn.combine([kag.minor_moments(J[drawn.rows[rows]][None], k, **options) for rows in drawn.groups])


def test_errors_under_lognormal_gains_are_not_known() -> None:
    """Few rows carry every sum; the entropy alone had an error in 3 of 60 draws, and was off by more."""
    own = np.random.default_rng(5)
    J = own.normal(size=(600, 6)) * np.exp(2 * own.normal(size=(600, 1)))
    for seed in range(6):
        drawn = RowDraws.of(600, 192, 2, seed)
        uneven = drawn.dominated_sums(J[None, drawn.rows])
        assert all(uneven[name].all() for name in ("s1", "s2", "s4", "entropy"))


def test_sums_are_those_of_the_whole_and_errors_hold() -> None:
    J = np.random.default_rng(0).normal(size=(200, 6)) * np.random.default_rng(1).uniform(0.2, 1, size=(200, 1))
    names = ("s1", "s2", "entropy", "kl_uniform", "participation_ratio")
    for k in (1, 2):
        exact = kag.minor_moments(J, k)
        off: dict[str, list[float]] = {name: [] for name in names}
        for seed in range(12):
            found = estimate(J, k, seed, moments=("s1", "s2", "s4", "entropy"))
            assert found.count == exact.count
            assert not found.exact
            assert np.isnan(found.stderr["s4"][0]), "few rows carry it"
            for name in names:
                error = found.stderr[name][0]
                off[name] += [(getattr(found, name)[0] - getattr(exact, name)) / error] if np.isfinite(error) else []
        for name, z in off.items():
            assert len(z) >= 2, name
            assert np.abs(z).max() < 4, name
            assert abs(np.mean(z)) < 3.5 / np.sqrt(len(z)), name


@pytest.mark.parametrize("at_most", [128, 40, 24])
def test_moments_of_unlike_numbers_of_replicates_add(at_most: int) -> None:
    """64 replicates of drawn pairs, whose histograms are in 16 groups, beside 32, 16 or 12 groups of rows."""
    rng = np.random.default_rng(0)
    drawn = estimate(rng.normal(size=(200, 6)), 2, 0, at_most)
    J = 0.5 * rng.normal(size=(1, 40, 60))
    many = kag.minor_moments(J, 2, method="sampled", rel_error=0.3)
    assert many.draws == 64
    assert drawn.draws in (32, 16, 12)
    for both in (drawn + many, many + drawn):
        assert both.count == drawn.count + many.count
        assert both.entropy == pytest.approx(drawn.entropy + many.entropy)
        assert both.histogram.counts.sum() + both.histogram.zeros == pytest.approx(both.count)
        if drawn.draws < 16:  # no error is known of so few
            assert np.isnan([both.stderr[name][0] for name in ("s1", "entropy", "kl_uniform")]).all()
        else:
            assert both.stderr["entropy"] == pytest.approx(np.hypot(drawn.stderr["entropy"], many.stderr["entropy"]), rel=0.5)
            assert 0 < both.stderr["participation_ratio"][0] < drawn.stderr["participation_ratio"][0]
            assert 0 < both.stderr["near_zero"][0] < 0.01
    other = drawn + kag.minor_moments(J**3, 2, method="sampled", rel_error=0.3)
    for one, initial in ((drawn + many, other), (other, many + drawn)):
        assert np.isnan(kl_init_error(one, initial)).all() == (drawn.draws < 16)


def test_scales_of_groups_are_brought_together() -> None:
    """Rows of 1 and 2^-600: a group of small ones alone has another exponent."""
    J = np.random.default_rng(2).normal(size=(60, 4))
    small = np.arange(60) % 4 > 0
    both = estimate(np.where(small[:, None], J * 2.0**-600, J), 1, 0, at_most=48)
    alone = estimate(np.where(small[:, None], 0.0, J), 1, 0, at_most=48)
    assert both.s1 == pytest.approx(alone.s1, rel=1e-12)
    assert both.s2 == pytest.approx(alone.s2, rel=1e-12)
    assert both.histogram.counts.sum() + both.histogram.zeros.sum() == pytest.approx(both.count)


def test_what_no_group_met_is_not_zero() -> None:
    J = np.zeros((200, 5))
    J[[3, 77]] = 1.0
    J[77, 0] = 2.0
    drawn = next(one for seed in itertools.count() if not {3, 77} <= set((one := RowDraws.of(200, 32, 2, seed)).rows.tolist()))
    found = drawn.combine([kag.minor_moments(J[drawn.rows[rows]][None], 2) for rows in drawn.groups])
    assert np.isnan(found.s1).all()
    assert np.isnan(found.stderr["s1"]).all()


def test_a_few_rows_that_carry_a_sum_leave_its_error_unknown() -> None:
    J = np.random.default_rng(3).normal(size=(200, 5))
    J[:4] *= 30
    found = estimate(J, 1, 0, moments=("s1", "s4"))
    assert np.isnan(found.stderr["s4"]).all()
    assert np.isfinite(found.s4).all()


@pytest.fixture(scope="module")
def tables() -> tuple[Any, Any]:
    """Of 90 ReLU units: from drawn rows, and whole; both against a baseline."""
    torch.manual_seed(0)
    models = [nn.Sequential(nn.Linear(6, 90), nn.ReLU()) for _ in range(2)]
    x = torch.randn(3, 6)
    options: dict[str, Any] = {"layers": "1", "k": (1, 2), "baseline": models[1], "progress": False}
    part, whole = (kag.measure(models[0], x, max_rows=rows, **options).table for rows in (64, None))
    keys = ["k", "selection", "point", "score"]
    return part, part.merge(whole, on=keys, suffixes=("", "_whole"))


def test_scores_of_a_layer_are_estimates_or_refused(tables: tuple[Any, Any]) -> None:
    part, both = tables
    drawn = both[~both["score"].isin(["column_subsets", "cka_init", "effective_dimension", "intrinsic_dimension"])]
    assert not drawn["exact"].any()
    refused = {"effective_rank", "stable_rank", "sv_participation", "rr_max", "rr_sampled"}
    assert set(part[part["value"].isna()]["score"]) == refused
    assert set(part[part["value"].isna()]["reason"].map(code_of)) == {"rows_drawn"}
    known = drawn[drawn["stderr"].notna()]
    z = (known["value"] - known["value_whole"]) / known["stderr"]
    assert z.abs().max() < 5
    told = {"pr", "kl_uniform", "rr_pr", "zero_rows", "kl_init", "axis_alignment", "constant_share", "column_divergence"}
    assert told <= set(known["score"])


def test_outputs_of_all_units_cost_no_jacobian(tables: tuple[Any, Any]) -> None:
    _, both = tables
    outputs = both[both["score"].isin(["cka_init", "effective_dimension", "intrinsic_dimension"])]
    assert outputs["exact"].all()
    assert outputs["value"].equals(outputs["value_whole"])
