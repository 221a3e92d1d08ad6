"""The torch path against the kernels and the truth files: on CPU tensors everywhere, on CUDA where there is one."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from torch.utils._python_dispatch import TorchDispatchMode

import kagscope as kag
from kagscope.base.errors import InputError
from kagscope.columns.layout import make_layout
from kagscope.minors import _input, subsets
from kagscope.minors.moments import at_exponent
from kagscope.minors.routes import torch_enumeration, torch_formulas
from kagscope.minors.routes.determinants import minor_matrix
from kernel_cases import matrices
from test_truth import CASES, HARD, SCORES, SUMS, close, load, selection

rng = np.random.default_rng(0)
IMAGE = {"image_shape": (5, 6)}
DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
SELECTIONS: dict[str, Any] = {
    "all": kag.All(),
    "ball": kag.Ball(2),
    "apart": kag.Apart(3),
    "shell": kag.Shell(1, 3),
    "window": kag.Window((2, 2), 1.5),
    "subsets": kag.Subsets([(0, 1), (3, 29), (7, 8)]),
    "empty": kag.Ball(0.5),
    "list": [kag.All(), *(kag.Ball(r) for r in (1, 2, 4)), kag.Apart(2), kag.Subsets([(1, 2)]), kag.Window((0, 0), 2)],
}
CHEAP = ("s1", "s2", "s4")
FEW = tuple({"s1", "s2", "top"})


@pytest.fixture(params=DEVICES)
def device(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """A device whose tensors take the torch path: also "cpu", which otherwise never does."""
    monkeypatch.setattr(_input, "DEVICES", ("cuda", "cpu"))
    return str(request.param)


def cases() -> dict[str, np.ndarray]:
    J = rng.normal(size=(3, 7, 30))
    special = J.copy()
    special[0, [2, 5]] = 0
    special[1] = 0
    special[2, 3:] = 0
    parallel = J.copy()
    parallel[0, :, 4] = parallel[0, :, 5]
    parallel[1, 2] = -2 * parallel[1, 6]
    parallel[2] = np.outer(rng.integers(-9, 10, size=7), rng.integers(-9, 10, size=30))  # in whole numbers: every minor is 0
    near = J.copy()
    near[0, 1] = near[0, 0] + 1e-7 * near[0, 2]
    near[1, :, 3] = near[1, :, 9] + 1e-6 * near[1, :, 7]
    near[2] = near[2, :1] + 1e-7 * near[2]
    return {
        "gaussian": J,
        "one matrix": J[0],
        "one row": J[:, :1],
        "two rows": J[:, :2],
        "tall": rng.normal(size=(2, 50, 30)),
        "single precision": J.astype(np.float32),
        "zero rows": special,
        "zero columns": J * (np.arange(30) % 3 > 0),
        "parallel": parallel,
        "near parallel": near,
        "tiny": J * 1e-150,
        "huge": J * 1e150,
        "largest": J / np.abs(J).max() * 1.5e308,
        "wide": np.ldexp(J, rng.integers(-40, 40, size=J.shape)),
        "whole numbers": rng.integers(-2, 3, size=J.shape).astype(float),
    }


ALL_CASES = cases()


def agree(got: kag.Moments, want: kag.Moments, tolerance: float) -> None:
    """The same moments up to rounding: of the entropy, against the size of its terms at the normalised scale."""
    assert got.count == want.count
    assert got.exact
    assert got.sums.keys() == want.sums.keys()
    exponent = np.maximum(got.exponent, want.exponent)  # a window alone is scaled by its own largest entry
    sums = at_exponent(got, exponent).sums
    for name, values in at_exponent(want, exponent).sums.items():
        scale = np.abs(values) + (want.sums["s1"] if name == "entropy" else 0.0)
        # of the products, where they cancel: a device subtracts rounded ones, the CPU is careful with nearly parallel columns
        each = {"s1": 1e-16, "entropy": 1e-14, "s2": 1e-31, "s4": 1e-62}.get(name, 0.0)
        rounding = 1e-16 if name == "top" else each * got.count
        assert (np.abs(sums[name] - values) <= tolerance * scale + rounding).all(), name
    if want.bins is None:
        assert got.bins is None
        return
    assert got.bins is not None
    for row in range(len(want)):
        one, two = got[row].histogram, want[row].histogram
        assert one.zeros == two.zeros
        assert one.counts.sum() == two.counts.sum()
        if one.first == two.first and one.counts.shape == two.counts.shape:
            assert np.abs(one.counts - two.counts).sum() <= 2 + 1e-9 * want.count  # at the edge of a bin
        else:
            assert abs(one.first - two.first) <= 1


@pytest.mark.parametrize("wanted", ["all", CHEAP, FEW], ids=["everything", "sums", "top"])
@pytest.mark.parametrize("k", [1, 2])
@pytest.mark.parametrize("name", list(ALL_CASES))
def test_agrees_with_the_kernels(name: str, k: int, wanted: Any, device: str) -> None:
    J = ALL_CASES[name]
    if k > min(J.shape[-2:]):
        pytest.skip("no minors of that order")
    for chosen in SELECTIONS.values():
        if k == 1:  # without the explicit pairs
            chosen = [one for one in (chosen if isinstance(chosen, list) else [chosen]) if not isinstance(one, kag.Subsets)]
            chosen = [*chosen, kag.Subsets([(3,), (7,)])]
        want = kag.minor_moments(J, k, chosen, moments=wanted, **IMAGE)
        got = kag.minor_moments(torch.from_numpy(J).to(device), k, chosen, moments=wanted, **IMAGE)
        for one, two in zip(got, want, strict=True) if isinstance(want, list) else [(got, want)]:
            agree(one, two, 1e-6 if name == "near parallel" else 1e-9)
            assert all(device in route for route in one.plan.routes.values())
            assert one.plan.notes == ()


@pytest.mark.skipif(not CASES, reason="no truth files in ../shared/oracles/truth")
@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
@pytest.mark.parametrize("wanted", ["all", CHEAP], ids=["everything", "sums"])
def test_truth(path: Path, wanted: Any, device: str) -> None:
    J, case = load(path)
    where = {"image_shape": tuple(case["image_shape"])} if case["image_shape"] else {}
    hard = any(word in case["name"] for word in HARD)
    for t in json.loads(path.read_text())["truth"]:
        if t["k"] > 2:
            continue
        m = kag.minor_moments(torch.from_numpy(J).to(device), t["k"], selection(t["selection"]), moments=wanted, **where)
        assert m.count == t["count"]
        floor = np.abs(J).max() ** t["k"] * 1e-4
        for name in SUMS if wanted == "all" else wanted:
            assert close(getattr(m, name), float(t[name]), floor * 1e-10 if name in ("s1", "entropy", "top") else 0, hard), name
        for name in SCORES if wanted == "all" else SCORES[:4]:
            if name in t:
                assert close(getattr(m, name), float(t[name]), 1e-3 if name == "kl_uniform" else 0.0, hard), name
            else:
                assert math.isnan(getattr(m, name))
        if wanted == "all" and not hard:
            assert m.histogram.zeros == t["exact_zeros"]


@settings(deadline=None)
@given(J=matrices(min_rows=2, min_columns=2))
def test_any_matrix(J: np.ndarray) -> None:
    """Every minor is the kernel's own, bit for bit: tops and zeros are equal, not only close."""
    want = kag.minor_moments(J, 2)
    subsets = kag.minors.subsets.cached_subsets((kag.All(),), make_layout(J.shape[1]), 2)
    _, [(sums, hist)] = torch_enumeration.selection_sums(
        torch.from_numpy(J)[None], 2, subsets, frozenset((*SUMS, "histogram")), 2**24
    )
    assert sums[0, 4] == want.sums["top"][0]
    assert hist is not None
    assert hist[0, 1:].sum() == want.count - want.histogram.zeros
    assert np.allclose(sums[0, :3], [want.sums[name][0] for name in CHEAP], rtol=1e-12, atol=1e-300)


@settings(deadline=None)
@given(J=matrices(min_rows=2, max_rows=4, min_columns=2))
def test_zonogons_of_any_matrix(J: np.ndarray) -> None:
    _, found = torch_formulas.all_pair_sums(torch.from_numpy(J)[None], frozenset(CHEAP), 2**24)
    want = kag.minor_moments(J, 2, moments=CHEAP)
    whole = want.sums["s2"][0] ** 0.5
    assert abs(found[0, 0] - want.sums["s1"][0]) <= 1e-9 * max(want.sums["s1"][0], whole * 1e-3)


@pytest.mark.parametrize("angle", [1e-2, 1e-4, 1e-7, 1e-10, 1e-13])
def test_slender_zonogons_keep_their_digits(angle: float, device: str) -> None:
    x = rng.normal(size=40)
    J = np.stack([x, x + angle * rng.normal(size=40)])
    wanted = pytest.approx(kag.minor_moments(J, 2, moments="s1").s1, rel=1e-9, abs=0)
    for side in (J, J.T.copy()):
        assert kag.minor_moments(torch.from_numpy(side).to(device), 2, moments="s1").s1 == wanted


def test_both_products_with_their_errors_beat_rounded_ones() -> None:
    a, b = 1 + 2.0**-30, 1 + 2.0**-29
    F, S = torch.tensor([[[a], [1.0]]]), torch.tensor([[[b], [(b / a)]]], dtype=torch.float64)
    F = F.to(torch.float64)
    exact = abs(_fraction_minor(F[0, :, 0].tolist(), S[0, :, 0].tolist()))
    (tile,) = list(torch_enumeration.two_minors(torch.cat([F, F], 1), torch.cat([S, S], 1), compensated=True))
    assert tile.item() == pytest.approx(exact, rel=1e-12, abs=0)


def _fraction_minor(x: list[float], y: list[float]) -> float:
    from fractions import Fraction

    return float(Fraction(x[0]) * Fraction(y[1]) - Fraction(x[1]) * Fraction(y[0]))


# -- tiles -----------------------------------------------------------------------------------------------------------------------


class Largest(TorchDispatchMode):
    """Bytes of the largest tensor that any operation returns."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for value in result if isinstance(result, tuple | list) else (result,):
            if isinstance(value, torch.Tensor):
                self.bytes = max(self.bytes, value.numel() * value.element_size())
        return result


def _moments(J: torch.Tensor, chosen: Any, wanted: Any, budget: int) -> kag.Moments:
    return kag.minor_moments(J, 2, chosen, moments=wanted, memory_budget=budget, **IMAGE)


def test_other_tiles_same_bits(device: str) -> None:
    J = torch.from_numpy(rng.normal(size=(5, 12, 30))).to(device)
    J[2, 3] = 0
    small, large = (_moments(J, kag.Ball(3), (*SUMS, "histogram"), budget) for budget in (150_000, 2**30))
    assert torch_enumeration.tile_sizes(5, 12, 600, 256, 150_000)[1] < 600
    for name in ("s1", "s2", "s4", "top"):
        assert (small.sums[name] == large.sums[name]).all()
    assert small.sums["entropy"] == pytest.approx(large.sums["entropy"], rel=1e-13)
    assert small.bins is not None
    assert large.bins is not None
    assert all((one == two).all() for one, two in zip(small.bins[:3], large.bins[:3], strict=True))
    for row in range(5):  # and a matrix by itself
        alone = _moments(J[row], kag.Ball(3), "all", 2**30)
        assert alone.s1 == large.s1[row].item()


def test_same_call_same_bits(device: str) -> None:
    J = torch.from_numpy(rng.normal(size=(3, 12, 30))).to(device)
    for wanted in ("all", CHEAP):
        one, two = (_moments(J, kag.All(), wanted, 2**28) for _ in range(2))
        assert all((one.sums[name] == two.sums[name]).all() for name in one.sums)


@pytest.mark.parametrize("wanted", ["all", CHEAP], ids=["everything", "sums"])
def test_memory_budget(wanted: Any, device: str) -> None:
    J = torch.from_numpy(rng.normal(size=(40, 16, 30))).to(device)
    budget = 2**20
    with Largest() as seen:
        _moments(J, kag.All(), wanted, budget)
    whole = 40 * 16 * 435 * 8
    given = J.numel() * 8
    assert seen.bytes <= max(budget // 4, given, 5 * given if wanted == "all" else 0) < whole


if torch.cuda.is_available():

    def test_memory_budget_on_cuda() -> None:
        J = torch.randn(2, 64, 784, dtype=torch.float64, device="cuda")
        for wanted in ("all", CHEAP):
            kag.minor_moments(J[:, :4], 2, moments=wanted)  # libraries' workspaces
            torch.cuda.synchronize()
            before = torch.cuda.memory_allocated()
            torch.cuda.reset_peak_memory_stats()
            kag.minor_moments(J, 2, moments=wanted, memory_budget=2**28)
            assert torch.cuda.max_memory_allocated() - before <= 1.25 * 2**28


@settings(deadline=None)
@given(J=matrices())
def test_tree_adds_all(J: np.ndarray) -> None:
    exact = [math.fsum(column) for column in J.T]
    got = torch_enumeration.tree(torch.from_numpy(J.copy()), 0).tolist()
    assert got == pytest.approx(exact, rel=1e-12, abs=1e-12 * np.abs(J).max(initial=0.0))
    assert torch_enumeration.tree(torch.from_numpy(J.copy()), 1, torch.maximum).tolist() == J.max(axis=1).tolist()


def test_blocks_hold_each_subset_once_in_its_cell() -> None:
    layout = make_layout(30, (5, 6))
    subsets = kag.minors.subsets.cached_subsets((kag.Ball(2), kag.Apart(3), kag.Shell(1, 4)), layout, 2)
    blocks = torch_enumeration.blocks_of(subsets, 30, torch.device("cpu"))
    pairs = torch.stack(blocks.columns, dim=1).numpy()
    cells = np.repeat(blocks.cells, blocks.size)
    real = pairs[:, 0] < 30
    want = list(zip(np.repeat(subsets.prefixes[:, 0], np.diff(subsets.starts)), subsets.last, subsets.cells, strict=True))
    assert sorted(zip(*pairs[real].T, cells[real], strict=True)) == sorted(want)
    assert (pairs[~real] == 30).all()
    assert len(pairs) <= 1.25 * len(want)


def test_row_pairs_are_visited_once() -> None:
    for m in range(1, 9):
        F = torch.arange(1.0, m + 1, dtype=torch.float64)[None, :, None]
        S = F**2
        tiles = torch_enumeration.two_minors(torch.cat([F, F], 1), torch.cat([S, S], 1))
        got = sorted(value for tile in tiles for value in tile.flatten().tolist())
        assert got == sorted(abs(i * j * j - j * i * i) for i in range(1, m + 1) for j in range(1, i))


def test_edges_of_bins(device: str) -> None:
    J = torch.tensor([[1.0, 2.0, 2.0**0.125, 2.0**-1000, 0.0, np.nextafter(2.0, 0)]], dtype=torch.float64, device=device)
    first, counts, zeros = kag.minor_moments(J, 1).histogram
    want = kag.minor_moments(J.cpu().numpy(), 1).histogram
    assert (first, zeros, counts.tolist()) == (want.first, want.zeros, want.counts.tolist())


# -- where results are -----------------------------------------------------------------------------------------------------------

BATCH = rng.normal(size=(3, 5, 30))
FUNCTIONS: dict[str, Callable[[Any], Any]] = {
    "axis_alignment": kag.axis_alignment,
    "effective_rank": kag.effective_rank,
    "stable_rank": kag.stable_rank,
    "sv_participation": kag.sv_participation,
    "zero_rows": lambda J: kag.zero_rows(J, 2, [0.0, 1.0, 2.0]),
    "column_divergence": kag.column_divergence,
    "row_means": lambda J: kag.row_means(J, 2),
    "haar_mean_s1": lambda J: kag.haar_mean_s1(J, 2, [kag.All(), kag.Ball(2)], **IMAGE),
    "rotation_ratio": kag.rotation_ratio,
    "rotation_ratio max": lambda J: kag.rotation_ratio(J, 2, "max", rotations=3),
    "window_moments": lambda J: kag.window_moments(J, [(2, 2)], 2, (5, 6))[0].participation_ratio,
    "column_pair_map": lambda J: kag.column_pair_map(J[0]),
    "row_means of one": lambda J: kag.row_means(J[0], 1),
    "factored": lambda J: kag.factored_minor_moments(J[0], J[:, :, 0], 2).kl_uniform,
    "k = 3": lambda J: kag.minor_moments(J, 3).s1,
    "sampled": lambda J: [kag.minor_moments(J, 2, method="sampled", rel_error=0.2, moments="s1").stderr["s1"]],
    "near_zero": lambda J: kag.minor_moments(J, 2).near_zero,
    "kl_init": lambda J: kag.kl_init(kag.minor_moments(J, 2), kag.minor_moments(J, 2)),
    "sum": lambda J: (kag.minor_moments(J, 2, kag.Ball(2), **IMAGE) + kag.minor_moments(J, 2, kag.Shell(2.1, 9), **IMAGE)).s2,
    "histogram": lambda J: list(kag.minor_moments(J, 2).histogram),
}


def _arrays(value: Any) -> Iterator[Any]:
    yield from value.values() if isinstance(value, dict) else value if isinstance(value, list) else [value]


@pytest.mark.parametrize("name", list(FUNCTIONS))
def test_results_on_the_device_of_the_input(name: str, device: str) -> None:
    function = FUNCTIONS[name]
    for got, want in zip(_arrays(function(torch.from_numpy(BATCH).to(device))), _arrays(function(BATCH)), strict=True):
        assert isinstance(want, np.ndarray)
        assert isinstance(got, torch.Tensor)
        assert got.device.type == device
        assert got.shape == want.shape
        assert got.cpu().numpy() == pytest.approx(want, rel=1e-9)


@pytest.mark.parametrize("name", list(FUNCTIONS))
def test_numpy_out_for_cpu_tensors(name: str) -> None:
    for got in _arrays(FUNCTIONS[name](torch.from_numpy(BATCH))):
        assert isinstance(got, np.ndarray)


def test_floats_for_one_matrix(device: str) -> None:
    m = kag.minor_moments(torch.from_numpy(BATCH[0]).to(device).requires_grad_(), 2)
    assert all(type(getattr(m, name)) is float for name in (*SUMS, *SCORES, "near_zero"))
    assert type(kag.effective_rank(torch.from_numpy(BATCH[0]).to(device))) is float
    batch = kag.minor_moments(torch.from_numpy(BATCH).to(device), 2)
    assert batch[1].s1 == batch.s1[1].item()
    assert replace(batch, device=None).s1.tolist() == batch.s1.tolist()


def test_plans_say_where(device: str) -> None:
    J = torch.from_numpy(BATCH).to(device)
    copied = f"copied from {J.device}, found on the CPU, results back on {J.device}"
    assert f"enumerated on {J.device}" in kag.minor_moments(J, 2).plan.explain()
    assert f"zonogon areas on {J.device}" in kag.minor_moments(J, 2, moments="s1").plan.explain()
    for m in (kag.minor_moments(J, 3), kag.minor_moments(J, 4), kag.minor_moments(J, 2, method="sampled")):
        assert copied in m.plan.explain()
    for k in (1, 2):
        text = kag.factored_minor_moments(J[0], J[:, :, 0], k).plan.explain()
        assert f"quadratic form in d on {J.device}" in text
        assert "copied" not in text
    assert copied in kag.factored_minor_moments(J[0], J[:, :, 0], 3).plan.explain()
    assert copied in kag.factored_minor_moments(J[0], BATCH[:, :, 0]).plan.explain()
    assert "copied" not in kag.minor_moments(BATCH, 3).plan.explain()


@pytest.mark.parametrize("wanted", ["all", CHEAP, ("entropy",), ("top",)], ids=str)
@pytest.mark.parametrize("k", [1, 2, 3])
@pytest.mark.parametrize("scale", [1.0, 1e-150, 1e150])
def test_factored_family(k: int, wanted: Any, scale: float, device: str) -> None:
    W = rng.normal(size=(7, 30))
    d = rng.normal(size=(40, 7)) * (rng.random((40, 7)) < 0.7) * np.exp(2 * rng.normal(size=(40, 1))) * scale
    d[3] = 0
    chosen = [kag.All(), kag.Ball(2), kag.Window((0, 0), 0.5)]
    want = kag.factored_minor_moments(W, d, k, chosen, moments=wanted, **IMAGE)
    where = torch.from_numpy(d).to(device)
    for matrix in (W, torch.from_numpy(W).to(device)):
        for one, two in zip(kag.factored_minor_moments(matrix, where, k, chosen, moments=wanted, **IMAGE), want, strict=True):
            agree(one, two, 1e-12)
            for name in one.sums:
                assert getattr(one, name).device.type == device
    single = kag.factored_minor_moments(W, where[0], k, moments=wanted)
    assert all(type(getattr(single, name)) is float for name in single.sums)


def test_bad_factors(device: str) -> None:
    W = rng.normal(size=(4, 6))
    once = kag.FactoredMoments(torch.from_numpy(W).to(device))
    for d, message in (
        (torch.ones(3), r"d has shape \(3,\), expected \(4,\)"),
        (torch.ones(0, 4), r"d has shape \(0, 4\)"),
        (torch.ones(1, 1, 4), "d has shape"),
        (torch.ones(4, dtype=torch.int64), "torch.int64"),
        (torch.tensor([1.0, float("nan"), 1.0, float("inf")]), r"d holds 1 NaN and 1 infinite entries, first at \(1,\)"),
    ):
        with pytest.raises(InputError, match=message):
            once.at(d.to(device))


def test_bad_matrices(device: str) -> None:
    for value, message in (
        (torch.ones(3, 3, dtype=torch.int64), "torch.int64"),
        (torch.eye(3).to_sparse(), "to_dense"),
        (torch.tensor([[float("nan"), 1.0], [1.0, 1.0]]), "1 NaN"),
        (torch.ones(3), r"\(3,\)"),
        (torch.ones(0, 3), r"\(0, 3\)"),
    ):
        with pytest.raises(InputError, match=message):
            kag.minor_moments(value.to(device))


def test_by_hand() -> None:
    """Against determinants of LAPACK, apart from any kernel."""
    M = minor_matrix(BATCH[0], 2)
    layout = make_layout(30)
    subsets = kag.minors.subsets.cached_subsets((kag.All(),), layout, 2)
    exponent, [(sums, _)] = torch_enumeration.selection_sums(torch.from_numpy(BATCH[:1]), 2, subsets, frozenset(SUMS), 2**24)
    M = np.ldexp(M, -2 * exponent[0])
    assert sums[0] == pytest.approx([M.sum(), (M**2).sum(), (M**4).sum(), (M * np.log(M)).sum(), M.max()], rel=1e-10)


def test_batches_share_subsets_and_their_blocks(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    blocks, listed = Mock(wraps=torch_enumeration._blocks), Mock(wraps=subsets.list_subsets)
    monkeypatch.setattr(torch_enumeration, "_blocks", blocks)
    monkeypatch.setattr(subsets, "list_subsets", listed)
    monkeypatch.setattr(subsets, "_remembered", type(subsets._remembered)())
    J = torch.from_numpy(rng.normal(size=(2, 5, 30))).to(device)
    chosen: list[Any] = [["all", "ball(1.5)"], "all"]
    for _ in range(3):
        for k in (1, 2):
            for some in chosen:
                kag.minor_moments(J, k, some, **IMAGE)
    assert (blocks.call_count, listed.call_count) == (4, 4)
