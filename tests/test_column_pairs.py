"""Column pairs drawn by their S2: unbiased, with honest errors, exact where nothing is left to chance (MATH.md 4.11)."""

from __future__ import annotations

from unittest import mock

import numpy as np
import pytest

import kagscope as kag
from kagscope.minors.pair_draws import Draws, PairDraws
from kagscope.minors.subsets import list_subsets
from kernel_cases import with_threads

WHERE = {"positions": np.arange(80.0)}
SELECTIONS = [kag.Ball(9), kag.Ball(30), kag.Apart(30), kag.Shell(9, 30)]
SAMPLED = {"method": "sampled", "rel_error": 0.02, **WHERE}
SCORES = ("s1", "kl_uniform", "participation_ratio")


def matrix(kind: str = "Gaussian", rows: int = 9) -> np.ndarray:
    generator = np.random.default_rng(3)
    J = generator.normal(size=(rows, 80))
    if kind == "heavy":
        return np.asarray(J * np.exp(2 * generator.normal(size=J.shape)))
    return J * (generator.random(J.shape) < 0.3) if kind == "sparse" else J


def test_one_pass_answers_every_selection_as_enumeration_does() -> None:
    J = matrix("sparse")
    exact = kag.minor_moments(J, 2, SELECTIONS, method="exact", **WHERE)
    found = kag.minor_moments(J, 2, SELECTIONS, **SAMPLED)
    for one, truth in zip(found, exact, strict=True):
        assert (one.s2, one.s4) == pytest.approx((truth.s2, truth.s4), rel=1e-9)
        assert one.histogram.zeros == pytest.approx(truth.histogram.zeros, rel=0.1)
        assert one.histogram.counts.sum() + one.histogram.zeros == pytest.approx(one.count)
        for score in SCORES:
            assert abs(getattr(one, score) - getattr(truth, score)) < 4.5 * one.stderr[score] + 1e-12 * abs(getattr(truth, score))


def test_all_pairs_taken_for_certain_are_exact() -> None:
    J = matrix()[:, :20]
    where = {"positions": np.arange(20.0), "method": "sampled"}
    m, exact = kag.minor_moments(J, 2, kag.Ball(5), **where), kag.minor_moments(J, 2, kag.Ball(5), **where | {"method": "exact"})
    assert m.exact
    assert (m.s1, m.entropy, m.top) == pytest.approx((exact.s1, exact.entropy, exact.top), rel=1e-12)
    assert (m.histogram.counts == exact.histogram.counts).all()


@pytest.mark.parametrize(("kind", "rows"), [("Gaussian", 9), ("heavy", 9), pytest.param("Gaussian", 300, marks=pytest.mark.slow)])
def test_draws_are_unbiased_and_their_spread_is_the_error(kind: str, rows: int) -> None:
    """Of 150 stages; 300 rows are drawn as well."""
    J = matrix(kind, rows)
    pairs, starts = list_subsets([kag.Ball(30)], kag.columns.layout.make_layout(80, None, WHERE["positions"], None), 2).by_cell
    own = PairDraws(J, pairs, starts, True)
    with mock.patch("kagscope.minors.pair_draws.ROW_DRAWS", 12):
        stages = np.stack([own.draw(np.array([2]), [seed], False).sums[:, 0] for seed in range(150)])
    minors = np.abs(np.stack([J[:, a][:, None] * J[:, b] - J[:, b][:, None] * J[:, a] for a, b in pairs]))
    truth = minors.sum() / 2, (minors * np.log(np.where(minors > 0, minors, 1))).sum() / 2
    assert own.rows_drawn == (rows > 256)
    for values, wanted in zip(stages[:, [0, 2]].swapaxes(0, 1), truth, strict=True):
        means, errors = values.mean(axis=1), values.std(axis=1, ddof=1) / 8
        assert abs(means.mean() - wanted) < 4.5 * means.std() / np.sqrt(150) + 0.002 * abs(wanted)
        assert 0.8 < means.std(ddof=1) / np.sqrt((errors**2).mean()) < 1.2


def _counts(found: Draws, cell: int) -> dict[int, list[float]]:
    """Of the slots that are not empty."""
    assert found.hist is not None
    return {found.first + slot: counts for slot, counts in enumerate(found.hist[cell].T.tolist()) if any(counts)}


def test_cells_drawn_often_enough_stand_and_the_others_are_drawn_anew() -> None:
    """Also in the histogram, whose slots begin and end elsewhere then."""
    selections = [kag.Ball(9), kag.Ball(40)]
    pairs, starts = list_subsets(selections, kag.columns.layout.make_layout(80, None, WHERE["positions"], None), 2).by_cell
    own = PairDraws(matrix("heavy"), pairs, starts, True)
    assert own.cells == 2
    first = own.draw(np.array([2, 2]), [1], True)
    both, fresh = own.draw(np.array([2, 5]), [7], True, first), own.draw(np.array([3, 5]), [7], True)
    for cell, alone in ((0, first), (1, fresh)):
        assert (both.sums[:, cell] == alone.sums[:, cell]).all()
        assert (both.spread[cell] == alone.spread[cell]).all()
        assert (both.top[cell], both.complete[cell], both.alike[cell]) == (
            alone.top[cell],
            alone.complete[cell],
            alone.alike[cell],
        )
        assert _counts(both, cell) == _counts(alone, cell)
    assert both.steps > first.steps


def test_adjacent_shells_add_with_their_covariance() -> None:
    J, shells = matrix("heavy"), [kag.Shell(0, 9), kag.Shell(9, 30), kag.Shell(30, 90)]
    values, errors = [], []
    for seed in range(100):
        a, b, c = kag.minor_moments(J, 2, shells, **SAMPLED, seed=seed, moments=("s1", "s2"))
        values.append((a + b + c).participation_ratio)
        errors.append((a + b + c).stderr["participation_ratio"])
    assert 0.75 < np.std(values, ddof=1) / np.mean(errors) < 1.3


def test_draws_go_on_until_the_error_of_kl_is_small() -> None:
    """It asks for more draws than S1 does, whose error is a third of it here."""
    rng = np.random.default_rng(3)
    J = rng.normal(size=(9, 400)) * np.exp(rng.normal(size=(9, 400)))
    options = {"method": "sampled", "positions": np.arange(400.0), "moments": ("entropy",)}
    m = kag.minor_moments(J, 2, kag.Ball(150), rel_error=0.01, **options)
    assert 0 < m.stderr["kl_uniform"] < 0.0125  # a stage may fall short by half of its draws


def test_zero_columns_repeats_and_mixed_scales() -> None:
    J = matrix()
    J[:, ::4] = 0.0
    J[:, 1::4] = 2 * J[:, 1:2]
    J[5:] *= 1e-120
    exact, m = (kag.minor_moments(J, 2, kag.Ball(30), **SAMPLED | {"method": method}) for method in ("exact", "sampled"))
    assert (m.s2, m.s4) == pytest.approx((exact.s2, exact.s4), rel=1e-9)
    assert m.s1 == pytest.approx(exact.s1, rel=1e-12, abs=4.5 * m.stderr["s1"])


def test_same_bits_for_any_number_of_threads() -> None:
    one, two = (with_threads(count, lambda: kag.minor_moments(matrix(), 2, SELECTIONS, **SAMPLED)) for count in (1, 2))
    for left, right in zip(one, two, strict=True):
        assert all((left.replicates[name] == right.replicates[name]).all() for name in left.replicates)
        assert (left.histogram.counts == right.histogram.counts).all()


@pytest.mark.parametrize("scale", [1.0, 50.0])
def test_intervals_of_few_distinct_values(scale: float) -> None:
    """Of signs S1 goes with S2 in a few ratios, the rarest met in three samples of four: their intervals held 0.7 of the time."""
    J = np.random.default_rng(5).choice([-1.0, 1.0], size=(10, 81)) * np.where(np.arange(81) == 7, scale, 1.0)
    options = {"selection": kag.Shell(0, 4), "image_shape": (9, 9), "moments": ("s1", "s2", "entropy")}
    true = kag.minor_moments(J, 2, method="exact", **options)
    known = hits = 0
    for seed in range(40):
        m = kag.minor_moments(J, 2, method="sampled", rel_error=0.02, seed=seed, **options)
        error = m.stderr["s1"]
        known += not np.isnan(error)
        hits += abs(m.s1 - true.s1) <= 1.96 * error + 1e-12 * true.s1
    assert hits >= 0.85 * known
    large = np.random.default_rng(5).choice([-1.0, 1.0], size=(10, 400))
    m = kag.minor_moments(
        large, 2, kag.Shell(0, 12), image_shape=(20, 20), method="sampled", rel_error=0.05, moments=("s1", "s2")
    )
    assert m.exact or np.isnan(m.stderr["s1"])  # or every pair was visited


def test_a_known_s1_makes_kl_better() -> None:
    """The entropy is corrected by how far the draws miss it; alone, S1 without an error would leave that of the entropy whole."""
    rng = np.random.default_rng(0)
    J = rng.normal(size=(9, 300)) * np.exp(rng.normal(size=(9, 300)))
    options = {"method": "sampled", "positions": np.arange(300.0), "moments": ("s1", "entropy"), "rel_error": 0.05}
    known, drawn = kag.minor_moments(J, 2, [kag.All(), kag.Ball(1000)], **options)
    assert known.stderr["s1"] == 0 < drawn.stderr["s1"]
    assert 0 < known.stderr["kl_uniform"] < drawn.stderr["kl_uniform"]


@pytest.mark.parametrize("kind", ["Gaussian", "heavy"])
def test_s4_of_pairs_takes_much_of_the_error_of_s1(kind: str) -> None:
    """And some of that of the entropy: both go with how few minors carry a pair's S2."""
    J = matrix(kind)
    pairs, starts = list_subsets([kag.Ball(200)], kag.columns.layout.make_layout(80, None, WHERE["positions"], None), 2).by_cell
    found = [PairDraws(J, pairs, starts, powers).draw(np.array([6]), [1], False) for powers in (False, True)]
    without, with_s4 = (one.spread[0].std(axis=1) for one in found)
    assert (with_s4[[0, 2]] < (0.7, 0.95) * without[[0, 2]]).all()


def test_errors_make_up_for_slopes_that_were_fitted_to_the_same_draws() -> None:
    """Of S1 without any relation to what is known: residuals of n draws after three slopes and a mean are too small by 4 / n."""
    J = matrix()
    pairs, starts = list_subsets([kag.Ball(200)], kag.columns.layout.make_layout(80, None, WHERE["positions"], None), 2).by_cell
    own, rng, nothing = PairDraws(J, pairs, starts, True), np.random.default_rng(5), np.zeros(0, dtype=np.int64)
    chance = np.full(128, 1 / len(pairs))
    found = []
    for _ in range(400):
        index = rng.integers(len(pairs), size=128)
        spread = own._estimate(0, rng.normal(size=(3, 128)) * chance, nothing, index, chance)[1]
        found.append(((2 * spread[0]) ** 2).mean())  # two draws in each of 64 replicates
    assert np.mean(found) == pytest.approx(1 + 4 / 128, abs=0.025)
