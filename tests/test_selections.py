"""Selections: names, counts without listing, layouts."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import kagscope as kag
from kagscope.base.errors import InputError
from kagscope.columns.layout import make_layout
from kagscope.columns.selections import column_subset_count, parse_selection
from kagscope.minors.subsets import list_subsets, remember

CHOSEN = [
    kag.All(),
    kag.Ball(1),
    kag.Ball(1.5),
    kag.Ball(2),
    kag.Apart(2),
    kag.Apart(1.5),
    kag.Shell(1, 2),
    kag.Window((1, 1), 1),
]


def brute(selection: kag.Selection, positions: np.ndarray, k: int) -> list[tuple[int, ...]]:
    def distance2(a: int, b: int) -> float:
        return float(((positions[a] - positions[b]) ** 2).sum())

    def ok(subset: tuple[int, ...]) -> bool:
        pairs = list(combinations(subset, 2))
        if isinstance(selection, kag.Ball):
            return all(distance2(*pair) <= selection.radius**2 for pair in pairs)
        if isinstance(selection, kag.Apart):
            return all(distance2(*pair) >= selection.distance**2 for pair in pairs)
        if isinstance(selection, kag.Shell):
            return all(selection.low**2 <= distance2(*pair) < selection.high**2 for pair in pairs)
        if isinstance(selection, kag.Window):
            return all(((positions[a] - selection.center) ** 2).sum() <= selection.radius**2 for a in subset)
        return True

    return [subset for subset in combinations(range(len(positions)), k) if ok(subset)]


@pytest.mark.parametrize("k", [1, 2, 3, 4])
@pytest.mark.parametrize("selection", CHOSEN, ids=str)
def test_counts_and_lists(selection: kag.Selection, k: int) -> None:
    layout = make_layout(12, (3, 4))
    assert layout.positions is not None
    expected = brute(selection, layout.positions, k)
    assert column_subset_count(selection, layout, k) == len(expected)
    if k <= 3:
        subsets = list_subsets([selection], layout, k)
        found = np.concatenate([np.repeat(subsets.prefixes, np.diff(subsets.starts), axis=0), subsets.last[:, None]], axis=1)
        assert sorted(map(tuple, found.tolist())) == expected


@pytest.mark.parametrize("k", [1, 2, 3])
def test_one_list_for_many_selections(k: int) -> None:
    layout = make_layout(12, (3, 4))
    subsets = list_subsets(CHOSEN, layout, k)
    assert subsets.counts == [column_subset_count(selection, layout, k) for selection in CHOSEN]


@pytest.mark.parametrize(
    ("selection", "name"),
    [
        (kag.All(), "all"),
        (kag.Ball(7), "ball(7)"),
        (kag.Ball(7.0), "ball(7)"),
        (kag.Ball(1.5), "ball(1.5)"),
        (kag.Apart(np.int64(7)), "apart(7)"),
        (kag.Shell(7, 14), "shell(7,14)"),
        (kag.Window((13, 13), 7), "window(13,13,7)"),
        (kag.SameChannel(), "same_channel"),
        (kag.SameChannel(1.5), "same_channel(1.5)"),
    ],
)
def test_names_read_back(selection: kag.Selection, name: str) -> None:
    assert str(selection) == name
    assert parse_selection(name) == selection


@settings(deadline=None)
@given(seed=st.integers(0, 2**32 - 1), dimension=st.integers(1, 3))
def test_any_positions(seed: int, dimension: int) -> None:
    rng = np.random.default_rng(seed)
    positions = rng.integers(0, 4, size=(9, dimension)).astype(float)
    layout = make_layout(9, positions=positions)
    for selection in (kag.Ball(2), kag.Apart(1.5), kag.Window(tuple(positions[0]), 2)):
        assert column_subset_count(selection, layout, 3) == len(brute(selection, positions, 3))


@pytest.mark.parametrize(
    ("positions", "radius", "near"),
    [
        (1e200 * np.arange(6), 1.5e200, 5),  # whose squares leave the range
        (1e-200 * np.arange(6), 1e-200, 5),
        (1e15 + np.arange(6), 1, 5),  # whole numbers have no rounding
        (1e9 + 0.1 * np.arange(6), 0.1, 5),
        (1e308 * np.array([-1.5, -1, 0, 1, 1.5, 1.6]), 0.6e308, 4),
    ],
)
def test_positions_at_the_ends_of_the_range(positions: np.ndarray, radius: float, near: int) -> None:
    for places in (positions, np.stack([positions, 0 * positions], axis=1)):
        layout = make_layout(6, positions=places)
        assert column_subset_count(kag.Ball(radius), layout, 2) == near
        assert column_subset_count(kag.Apart(1.01 * radius), layout, 2) == 15 - near
    window = kag.Window((float(positions[0]),), radius)
    assert column_subset_count(window, make_layout(6, positions=positions), 1) == 2


def test_whole_positions_that_floats_do_not_tell_apart() -> None:
    with pytest.raises(InputError, match=r"beyond 2\^53"):
        make_layout(6, positions=1_700_000_000_000_000_000 + np.arange(6))


def test_groups_are_a_discrete_metric() -> None:
    J = np.random.default_rng(0).normal(size=(3, 6))
    groups = ["a", "a", "b", "b", "b", "a"]
    within, across = kag.minor_moments(J, 2, [kag.Ball(0), kag.Apart(1)], groups=groups)
    same = [pair for pair in combinations(range(6), 2) if groups[pair[0]] == groups[pair[1]]]
    assert within.count == 3 * len(same)
    assert within.s1 == pytest.approx(kag.minor_moments(J, 2, kag.Subsets(same)).s1, rel=1e-14)
    assert (within + across).count == kag.minor_moments(J, 2).count


def test_same_channel_against_a_list() -> None:
    J = np.random.default_rng(2).normal(size=(3, 12))
    places = make_layout(12, (3, 2, 2)).positions
    assert places is not None
    for selection in (kag.SameChannel(), kag.SameChannel(1)):
        near = [
            pair
            for pair in combinations(range(12), 2)
            if pair[0] // 4 == pair[1] // 4 and ((places[pair[0]] - places[pair[1]]) ** 2).sum() <= selection.radius**2
        ]
        found, listed = (kag.minor_moments(J, 2, one, image_shape=(3, 2, 2)) for one in (selection, kag.Subsets(near)))
        assert found.count == listed.count
        assert (found.s1, found.s2, found.s4) == pytest.approx((listed.s1, listed.s2, listed.s4), rel=1e-12)
    for shape in (None, (3, 4)):
        with pytest.raises(InputError, match="image_shape=\\(channels, height, width\\)"):
            kag.minor_moments(J, 2, kag.SameChannel(), image_shape=shape)


def test_channels_share_their_pixel() -> None:
    layout = make_layout(12, (3, 2, 2))
    assert (layout.distances("test")[0, [4, 8]] == 0).all()


def test_order_and_names_of_subsets() -> None:
    assert kag.Subsets([(3, 1), (0, 2)]) == kag.Subsets([(0, 2), (1, 3)])
    assert str(kag.Subsets([(0, 1)])) == "subsets(1)"
    assert str(kag.Subsets([(0, 1)], name="edges")) == "edges"


def test_more_selections_than_bits() -> None:
    J = np.random.default_rng(0).normal(size=(3, 9))
    chosen = [kag.Ball(0.01 * step) for step in range(200)]
    results = kag.minor_moments(J, 2, chosen, image_shape=(3, 3))
    for selection, found in zip(chosen, results, strict=True):
        assert found.s1 == pytest.approx(kag.minor_moments(J, 2, selection, image_shape=(3, 3)).s1, rel=1e-13)


# -- torch tensors where arrays are expected -------------------------------------------------------------------------------------


class OnDevice:
    """What of a CUDA tensor a layout may touch: NumPy cannot read it before ``detach().cpu()``."""

    def __init__(self, tensor: torch.Tensor) -> None:
        self.tensor, self.detached = tensor, False

    def detach(self) -> OnDevice:
        self.detached = True
        return self

    def cpu(self) -> torch.Tensor:
        assert self.detached
        return self.tensor.detach()

    def __array__(self, *_: object) -> np.ndarray:
        raise TypeError("can't convert cuda:0 device type tensor to numpy")


@pytest.mark.parametrize("wrap", [lambda tensor: tensor, OnDevice], ids=["cpu", "device"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.int64])
def test_positions_as_tensors(dtype: torch.dtype, wrap: Callable[[torch.Tensor], object]) -> None:
    positions = torch.tensor([[0.0, 0], [0, 1], [2, 0], [3, 4], [5, 5], [0, 2]]).to(dtype)
    if dtype.is_floating_point:
        positions.requires_grad_()
    want = make_layout(6, positions=positions.detach().double().numpy())
    assert make_layout(6, positions=wrap(positions)).key == want.key


@pytest.mark.parametrize("wrap", [lambda tensor: tensor, OnDevice], ids=["cpu", "device"])
@pytest.mark.parametrize("dtype", [torch.int64, torch.uint8, torch.bool, torch.bfloat16])
def test_groups_as_tensors(dtype: torch.dtype, wrap: Callable[[torch.Tensor], object]) -> None:
    groups = torch.tensor([0, 1, 1, 0, 0, 1]).to(dtype)
    assert make_layout(6, groups=wrap(groups)).key == make_layout(6, groups=[0, 1, 1, 0, 0, 1]).key


def test_the_last_eight_lists_are_remembered() -> None:
    made: list[int] = []
    for one in (*range(8), *range(8)):
        remember(("a test's", one), lambda one=one: made.append(one))  # type: ignore[misc]
    assert made == list(range(8))


def test_selections_from_tensors() -> None:
    assert kag.Window(torch.tensor([1, 2]), 3) == kag.Window((1, 2), 3)
    assert kag.Window(np.array([1.0, 2.0]), 3) == kag.Window((1, 2), 3)
    assert kag.Subsets(torch.tensor([[3, 1], [0, 2]])) == kag.Subsets([(0, 2), (1, 3)])
    assert kag.Subsets(np.array([[3, 1], [0, 2]])) == kag.Subsets([(0, 2), (1, 3)])
