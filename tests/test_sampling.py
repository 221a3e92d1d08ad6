"""Sampled moments: exactly uniform subsets, unbiased sums, honest intervals, the same bits whatever the threads."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from fractions import Fraction
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from kagscope.base.errors import InputError
from kagscope.minors.routes import sampling
from kagscope.minors.routes.draws import column_source, draw_subsets
from kagscope.minors.routes.sampling import SUMS, sampled_moments
from kernel_cases import det, fractions, minors, read_truth, selected, truth_cases, with_threads


def cliques(pairs: np.ndarray, k: int) -> list[tuple[int, ...]]:
    return [C for C in combinations(range(len(pairs)), k) if all(pairs[a, b] for a, b in combinations(C, 2))]


def exact(J: np.ndarray, k: int, subsets: list[tuple[int, ...]] | None = None) -> np.ndarray:
    """S1, S2, S4, E of J over the column subsets, from exact minors."""
    F = fractions(J)
    chosen = subsets if subsets is not None else list(combinations(range(J.shape[1]), k))
    M = np.array([float(abs(det([[F[r][c] for c in C] for r in R]))) for R in combinations(range(len(J)), k) for C in chosen])
    return np.array([M.sum(), (M**2).sum(), (M**4).sum(), (M[M > 0] * np.log(M[M > 0])).sum()])


def normalised(J: np.ndarray) -> np.ndarray:
    return np.asarray(np.ldexp(J, -int(np.frexp(np.abs(J).max())[1])))


@pytest.mark.parametrize("file", truth_cases())
@pytest.mark.parametrize("proposal", ["uniform", "norms"])
def test_truth_within_the_errors(file: Path, proposal: str) -> None:
    J, positions, entries = read_truth(file)
    wild = "wide-dynamic" in file.stem  # the few minors that matter are hardly ever drawn: no error bar can know of them
    for entry in entries:
        got = sampled_moments(
            J, entry["k"], **selected(positions, entry["selection"]), proposal=proposal, max_draws=sampling.BLOCK
        )
        assert got.count == entry["count"]
        scale = Fraction(2) ** (entry["k"] * got.exponent)
        assert got.top <= float(Fraction(entry["top"]) / scale) * (1 + 1e-12)
        if wild or entry["count"] == 0:
            continue
        for name, power in (("s1", 1), ("s2", 2), ("s4", 4)):
            wanted = float(Fraction(entry[name]) / scale**power)
            assert abs(got.sums[name] - wanted) <= 5 * got.stderr[name] + 1e-7 * wanted, (entry["k"], entry["selection"], name)


@pytest.mark.parametrize("k", [1, 2, 3, 4])
def test_cliques_are_drawn_uniformly(k: int) -> None:
    """Chi-square over all subsets that a graph allows; cliques of four are drawn unequally, so their weights must correct it."""
    rng = np.random.default_rng(k)
    pairs = rng.random((9, 9)) < 0.75
    pairs |= pairs.T
    wanted = cliques(pairs, k)
    source = column_source(np.zeros((9, 3)), k, None, pairs, None, False)
    if k < 4:
        assert source.total == len(wanted)
    draws = 60_000
    out, weights = np.empty((draws, k), dtype=np.int64), np.ones(draws)
    draw_subsets(source, np.array([12345], dtype=np.uint64), out, weights)
    counts: dict[tuple[int, ...], float] = defaultdict(float)
    squares: dict[tuple[int, ...], float] = defaultdict(float)
    for subset, weight in zip(np.sort(out, axis=1).tolist(), weights.tolist(), strict=True):
        if weight > 0:
            counts[tuple(subset)] += weight
            squares[tuple(subset)] += weight**2
    assert set(counts) == set(wanted)
    scores = [(counts[C] / draws - 1) * draws / math.sqrt(squares[C]) for C in wanted]
    assert np.mean(np.square(scores)) < 1 + 5 * math.sqrt(2 / len(wanted))


def test_large_graph_uses_every_word_of_its_bits() -> None:
    n = 150
    pairs = np.abs(np.subtract.outer(np.arange(n), np.arange(n))) <= 70
    source = column_source(np.zeros((n, 3)), 3, None, pairs, None, False)
    draws = 200_000
    out, weights = np.empty((draws, 3), dtype=np.int64), np.ones(draws)
    draw_subsets(source, np.array([7], dtype=np.uint64), out, weights)
    spread = out.max(axis=1) - out.min(axis=1)
    assert spread.max() <= 70
    widths = np.arange(2, 71)
    share = (n - widths) * (widths - 1.0)
    assert source.total == share.sum()
    got = np.bincount(spread, minlength=71)[2:]
    expected = draws * share / share.sum()
    assert ((got - expected) ** 2 / expected).sum() < 69 + 5 * math.sqrt(2 * 69)


@pytest.mark.parametrize("proposal", ["uniform", "norms"])
@pytest.mark.parametrize(("k", "graph"), [(1, False), (2, False), (2, True), (3, False), (3, True), (4, False), (4, True)])
def test_unbiased_with_honest_errors(k: int, graph: bool, proposal: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampling, "BLOCK", 2048)
    rng = np.random.default_rng(20 + k)
    J = normalised(rng.normal(size=(6, 8)) * np.exp(0.5 * rng.normal(size=(6, 1))))
    pairs = np.abs(np.subtract.outer(np.arange(8), np.arange(8))) <= 4 if graph else None
    wanted = exact(J, k, cliques(pairs, k) if pairs is not None and k > 1 else None)
    values, errors = np.empty((2, 200, 4))
    for seed in range(200):
        got = sampled_moments(J, k, pairs=pairs, proposal=proposal, seed=seed, max_draws=2048)
        values[seed] = [got.sums[name] for name in SUMS]
        errors[seed] = [got.stderr[name] for name in SUMS]
    spread = values.std(axis=0, ddof=1)
    assert (np.abs(values.mean(axis=0) - wanted) < 4 * spread / math.sqrt(200)).all()
    np.testing.assert_allclose(np.sqrt((errors**2).mean(axis=0)), spread, rtol=0.25)


@pytest.mark.parametrize("proposal", ["uniform", "norms"])
def test_intervals_cover_93_to_97_percent_over_400_repetitions(proposal: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampling, "BLOCK", 4096)
    J = normalised(np.random.default_rng(30).normal(size=(8, 12)))
    wanted = exact(J, 2)
    hits = np.zeros(4)
    for seed in range(400):
        got = sampled_moments(J, 2, proposal=proposal, seed=seed, max_draws=4096)
        hits += [abs(got.sums[name] - value) <= 1.96 * got.stderr[name] for name, value in zip(SUMS, wanted, strict=True)]
    assert (hits >= 0.93 * 400).all()
    assert (hits <= 0.97 * 400).all()


def test_covariance_gives_the_error_of_a_score(monkeypatch: pytest.MonkeyPatch) -> None:
    """The participation ratio by the delta method against its spread over seeds."""
    monkeypatch.setattr(sampling, "BLOCK", 4096)
    J = np.random.default_rng(31).normal(size=(8, 12))
    values, errors = [], []
    for seed in range(200):
        got = sampled_moments(J, 2, seed=seed, proposal="uniform", max_draws=4096)
        s1, s2 = got.sums["s1"], got.sums["s2"]
        gradient = np.array([-math.sqrt(s2) / s1**2, 0.5 / (math.sqrt(s2) * s1), 0, 0])
        values.append(math.sqrt(s2) / s1)
        errors.append(math.sqrt(gradient @ got.covariance @ gradient))
    assert np.std(values) == pytest.approx(np.mean(errors), rel=0.2)


def test_shells_add_up_to_the_ball() -> None:
    rng = np.random.default_rng(32)
    J = rng.normal(size=(5, 12))
    distance = np.abs(np.subtract.outer(np.arange(12), np.arange(12)))
    parts = [sampled_moments(J, 2, pairs=(distance >= low) & (distance < low + 3), seed=low) for low in (1, 4)]
    whole = sampled_moments(J, 2, pairs=distance < 7)
    assert sum(part.count for part in parts) == whole.count
    error = math.sqrt(sum(part.stderr["s1"] ** 2 for part in parts) + whole.stderr["s1"] ** 2)
    assert abs(sum(part.sums["s1"] for part in parts) - whole.sums["s1"]) < 4.5 * error


def test_listed_subsets_and_columns() -> None:
    J = normalised(np.random.default_rng(33).normal(size=(4, 9)))
    subsets: list[tuple[int, ...]] = [(0, 1, 2), (3, 5, 8), (1, 4, 7)]
    got = sampled_moments(J, 3, subsets=np.array(subsets))
    assert got.count == 12
    assert abs(got.sums["s2"] - exact(J, 3, subsets)[1]) < 5 * got.stderr["s2"]
    columns = np.arange(9) % 2 == 0
    got = sampled_moments(J, 2, columns=columns)
    assert abs(got.sums["s1"] - exact(J[:, columns], 2)[0]) < 5 * got.stderr["s1"]


@pytest.mark.parametrize("scale", [1.0, 1e-120, 1e120])
@pytest.mark.parametrize("proposal", ["uniform", "norms"])
def test_histogram_and_zeros(scale: float, proposal: str) -> None:
    J = np.array([[1.0, 2, 0, -1, 3], [2, 4, 0, 1, 1], [0, 0, 0, 0, 0], [1, -1, 2, 0.5, 0.3]]) * 2.0 ** round(math.log2(scale))
    M = [m for row in minors(J, 2) for m in row]
    got = sampled_moments(J, 2, rel_error=1e-3, proposal=proposal, max_draws=1 << 18)
    bins: Counter[int] = Counter()
    for m in M:
        if m:
            low = math.floor(8 * (math.log2(m.numerator) - math.log2(m.denominator)) + 1e-9)
            bins[low] += 1
    assert got.counts.sum() + got.zeros == pytest.approx(60, rel=0.02)
    assert got.zeros == pytest.approx(M.count(Fraction(0)), abs=1.0)
    for index, count in bins.items():
        assert got.counts[index - got.first] == pytest.approx(count, abs=1.0)
    assert len(got.counts) == max(bins) - min(bins) + 1


def test_accuracy_is_met_or_said_not_to_be() -> None:
    J = np.random.default_rng(34).normal(size=(30, 80))
    met = sampled_moments(J, 2, rel_error=0.002)
    assert met.converged
    assert 0 < met.stderr["s1"] <= 0.002 * met.sums["s1"]
    short = sampled_moments(J, 2, rel_error=1e-6, max_draws=sampling.BLOCK)
    assert not short.converged
    assert short.draws == sampling.BLOCK


def test_auto_takes_the_proposal_with_less_variance() -> None:
    rng = np.random.default_rng(35)
    flat = rng.normal(size=(20, 40))
    heavy = flat * np.exp(2 * rng.normal(size=(20, 1))) * np.exp(2 * rng.normal(size=40))
    errors = {
        p: sampled_moments(heavy, 2, proposal=p, max_draws=sampling.BLOCK).stderr["s1"] for p in ("uniform", "norms", "auto")
    }
    assert errors["norms"] < errors["uniform"] / 5
    assert errors["auto"] == errors["norms"]


def test_same_bits_for_any_number_of_threads() -> None:
    J = np.random.default_rng(36).normal(size=(12, 30))
    one, two = (with_threads(count, lambda: sampled_moments(J, 3, rel_error=1e-6, seed=5, max_draws=1 << 18)) for count in (1, 2))
    assert one.sums == two.sums
    assert np.array_equal(one.covariance, two.covariance)
    assert np.array_equal(one.counts, two.counts)
    assert one.sums != sampled_moments(J, 3, rel_error=1e-6, seed=6, max_draws=1 << 18).sums


def test_nothing_to_draw() -> None:
    assert sampled_moments(np.zeros((3, 4)), 2).sums == dict.fromkeys(SUMS, 0.0)
    assert sampled_moments(np.zeros((3, 4)), 2).zeros == 18
    empty = sampled_moments(np.eye(4), 2, pairs=np.eye(4, dtype=bool))
    assert empty.count == 0
    assert empty.converged
    one_row = np.zeros((3, 4))
    one_row[1] = 1.0
    got = sampled_moments(one_row, 2, proposal="norms")
    assert got.sums["s1"] == 0
    assert got.zeros == pytest.approx(18)


def test_bad_arguments_say_what_would_do() -> None:
    with pytest.raises(InputError, match="expected 1 to 3"):
        sampled_moments(np.ones((3, 4)), 4)
    with pytest.raises(InputError, match="expected 'auto'"):
        sampled_moments(np.ones((3, 4)), 2, proposal="best")
