"""Removing units that are constant: the function stays, for every stack, mask and dtype."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from kagscope.base.errors import InputError
from kagscope.pruning.prune import remove_units
from kagscope.training.models import ACTIVATIONS, mlp


def points(count: int, n: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(count, n, generator=torch.Generator().manual_seed(seed))


def freeze_units(model: nn.Sequential, name: str, units: list[int], level: float) -> np.ndarray:
    """Make units of a layer constant, whatever the input, and return their mask."""
    linear = model.get_submodule(f"{name}.0")
    assert isinstance(linear, nn.Linear)
    with torch.no_grad():
        linear.weight[units] = 0
        linear.bias[units] = level
    mask = np.zeros(linear.out_features, bool)
    mask[units] = True
    return mask


@settings(deadline=None)
@given(
    widths=st.lists(st.integers(1, 7), min_size=1, max_size=4),
    activation=st.sampled_from(list(ACTIVATIONS)),
    seed=st.integers(0, 10_000),
    level=st.floats(-3, 3),
    data=st.data(),
)
def test_constant_units_leave_no_trace(widths: list[int], activation: str, seed: int, level: float, data: st.DataObject) -> None:
    model = mlp(5, widths, 3, activation, seed=seed).double()
    masks = {}
    for index, width in enumerate(widths):
        units = data.draw(st.sets(st.integers(0, width - 1)), label=f"layer {index}")
        masks[f"hidden{index + 1}"] = freeze_units(model, f"hidden{index + 1}", sorted(units), level)
    smaller, pruning = remove_units(model, points(20, 5).double(), masks)
    elsewhere = points(50, 5, seed=1).double() * 10 - 5  # the units are constant everywhere, not only where they were seen
    torch.testing.assert_close(smaller(elsewhere), model(elsewhere), rtol=1e-9, atol=1e-12)
    assert pruning.largest_change < 1e-12
    for index, width in enumerate(widths):
        name = f"hidden{index + 1}.0"
        mask = masks[f"hidden{index + 1}"]
        gone = min(int(mask.sum()), width - 1)
        assert len(pruning.removed[name]) == gone
        kept = smaller.get_submodule(name)
        assert isinstance(kept, nn.Linear)
        assert kept.out_features == width - gone
        assert set(pruning.removed[name]) <= set(np.flatnonzero(mask))


def test_dead_relu_units_are_removed_where_they_are_dead() -> None:
    """Units that are off at every given point but not everywhere: the function stays at these points."""
    model = mlp(6, [8, 8], 4, "relu", seed=3)
    first = model.get_submodule("hidden1.0")
    assert isinstance(first, nn.Linear)
    with torch.no_grad():
        first.bias[[1, 4, 6]] = -10.0
    inputs = points(100, 6)
    assert not model.get_submodule("hidden1")(inputs)[:, [1, 4, 6]].any()
    smaller, pruning = remove_units(model, inputs, {"hidden1": np.isin(np.arange(8), [1, 4, 6])})
    assert pruning.removed == {"hidden1.0": (1, 4, 6), "hidden2.0": ()}
    torch.testing.assert_close(smaller(inputs), model(inputs), rtol=1e-5, atol=1e-6)
    assert pruning.largest_change < 1e-6
    far = torch.full((1, 6), 1e3) * torch.sign(first.weight[1].detach())
    assert not torch.allclose(smaller(far), model(far))


def test_units_that_are_not_constant_show_as_change() -> None:
    model = mlp(6, [8], 4, "tanh", seed=0)
    _, pruning = remove_units(model, points(50, 6), {"hidden1": np.arange(8) < 4})
    assert pruning.largest_change > 1e-3


def test_a_layer_masked_whole_keeps_one_unit() -> None:
    model = mlp(4, [5, 3], 2, "relu", seed=1)
    mask = freeze_units(model, "hidden2", [0, 1, 2], 0.7)
    smaller, pruning = remove_units(model, points(10, 4), {"hidden2": mask})
    assert pruning.removed == {"hidden1.0": (), "hidden2.0": (1, 2)}
    assert [tuple(p.shape) for p in smaller.parameters()] == [(5, 4), (5,), (1, 5), (1,), (2, 1), (2,)]
    torch.testing.assert_close(smaller(points(10, 4)), model(points(10, 4)))
    assert mask.all()  # the caller's mask is as it was


def test_no_mask_changes_nothing_but_the_object() -> None:
    model = mlp(4, [5], 2, seed=1)
    smaller, pruning = remove_units(model, points(10, 4), {})
    assert pruning.removed == {"hidden1.0": ()}
    assert pruning.largest_change == 0
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), smaller.state_dict().values(), strict=True))
    with torch.no_grad():
        next(smaller.parameters()).zero_()
    assert next(model.parameters()).any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_model_and_generators_are_untouched(dtype: torch.dtype) -> None:
    model = mlp(4, [6, 5], 2, "relu", seed=2).to(dtype)
    mask = freeze_units(model, "hidden1", [0, 3], 1.0)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    state = torch.get_rng_state()
    smaller, _ = remove_units(model, points(10, 4), {"hidden1": mask})  # float32 points suit a model of either dtype
    assert {p.dtype for p in smaller.parameters()} == {dtype}
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())


def test_layers_without_bias_get_one_where_something_is_folded() -> None:
    first = nn.Linear(3, 4, bias=False)
    model = nn.Sequential(first, nn.Sigmoid(), nn.Linear(4, 2, bias=False))
    with torch.no_grad():
        first.weight[1] = 0  # sigmoid(0) = 1/2 goes into the next bias
    smaller, _ = remove_units(model, points(10, 3), {"1": np.arange(4) == 1})
    torch.testing.assert_close(smaller(points(10, 3)), model(points(10, 3)))


def test_names_of_layers_survive() -> None:
    model = nn.Sequential()
    model.add_module("lift", nn.Linear(3, 4))
    model.add_module("bend", nn.ReLU())
    model.add_module("read", nn.Linear(4, 2))
    smaller, pruning = remove_units(model, points(5, 3), {"bend": np.arange(4) == 2})
    assert pruning.removed == {"lift": (2,)}
    assert list(smaller.state_dict()) == list(model.state_dict())


@pytest.mark.parametrize(
    ("inputs", "units", "message"),
    [
        (points(5, 4), {"5": np.zeros(6, bool)}, r"no layer '5' whose units .* the model has \['hidden1.0', 'hidden2.0'\]"),
        (points(5, 4), {"output": np.zeros(2, bool)}, "units of 'output' cannot be removed: it is an output of the model"),
        (points(5, 4), {"hidden1": np.zeros(5, bool)}, r"'hidden1' has shape \(5,\), expected \(6,\)"),
        (points(5, 4), {"hidden2": np.zeros((5, 1), bool)}, r"'hidden2' has shape \(5, 1\), expected \(5,\)"),
        (points(5, 4), {"hidden2": np.array(True)}, r"'hidden2' has shape \(\), expected \(5,\)"),
        (points(5, 4), {"hidden2": np.arange(5)}, "'hidden2' holds int64, expected bool"),
        (points(0, 4), {}, "at least one point"),
        (points(5, 3), {}, r"cannot take these inputs, of shape \(5, 3\): .*2x3 and 4x6"),
        (points(5, 4)[0], {}, r"cannot take these inputs, of shape \(4,\)"),
    ],
)
def test_bad_arguments(inputs: torch.Tensor, units: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        remove_units(mlp(4, [6, 5], 2, seed=0), inputs, units)
    assert "\n" not in str(caught.value)
