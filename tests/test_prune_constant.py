"""Which units are found constant: against Jacobians computed by brute force, and where looking at rows alone would fail."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

import kagscope as kag
from kagscope.base.errors import InputError

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": functional.relu,
    "gelu": functional.gelu,
    "silu": functional.silu,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
}


class Net(nn.Module):
    """Linear, function, Linear, function, Linear."""

    def __init__(self, activation: str, sizes: tuple[int, int, int, int], seed: int) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.first, self.second, self.third = (nn.Linear(sizes[i], (*sizes[1:], 2)[i]) for i in range(3))
        self.activation = ACTIVATIONS[activation]

    def hidden(self, x: Tensor) -> tuple[Tensor, Tensor]:
        first = self.activation(self.first(x))
        return first, self.activation(self.second(first))

    def forward(self, x: Tensor) -> Tensor:
        return torch.as_tensor(self.third(self.hidden(x)[1]))


def points(count: int, n: int, seed: int = 0) -> Tensor:
    return torch.randn(count, n, generator=torch.Generator().manual_seed(seed))


def brute_force(net: Net, inputs: Tensor, tolerance: float) -> dict[str, tuple[set[int], set[int]]]:
    """Units of each layer whose row norms and spreads are within the tolerance, from whole Jacobians; and units in doubt.

    In doubt are rows within the rounding of float32 (in the tail of GELU, PyTorch's vectorised derivative is 0 where its scalar
    one is 1e-12), and rows and spreads within it of the tolerance.
    """
    found = {}
    hidden = net.hidden(inputs)
    layers = {"first": (net.first, inputs, hidden[0]), "second": (net.second, hidden[0], hidden[1])}
    for name, (linear, given_to_it, values) in layers.items():
        rows = torch.stack([torch.func.jacrev(lambda x, f=linear: net.activation(f(x)))(x) for x in given_to_it]).norm(dim=2)
        largest, spread = rows.amax(0), values.amax(0) - values.amin(0)
        same = spread <= tolerance * spread.max() + 1e-6 * values.abs().amax(0)
        doubt = (largest < 1e-6 * rows.max()) & (tolerance == 0 and net.activation is not functional.relu)
        doubt |= (spread - tolerance * spread.max()).abs() <= 1e-5 * values.abs().amax(0) * (tolerance > 0)
        doubt |= (largest - tolerance * rows.max()).abs() <= 1e-4 * tolerance * rows.max()
        doubt |= rows.max() < 1e-6 * linear.weight.norm(dim=1).max()  # nothing but tails
        found[name] = _indices((largest <= tolerance * rows.max()) & same), _indices(doubt)
    return found


def _indices(mask: Tensor) -> set[int]:
    return set(torch.nonzero(mask).flatten().tolist())


@settings(max_examples=40, deadline=None)
@example(activation="gelu", hidden=(7, 7), shift=-1.0, scale=1.0, count=1, tolerance=0.0, seed=0)  # slopes below 0
@example(activation="silu", hidden=(7, 7), shift=-1.0, scale=5.0, count=2, tolerance=0.1, seed=1)
@example(activation="gelu", hidden=(7, 2), shift=-1.0, scale=5.0, count=2, tolerance=0.001, seed=2715)  # a layer all in its tail
@example(
    activation="sigmoid", hidden=(8, 2), shift=5.0, scale=1.0, count=2, tolerance=0.1, seed=5632
)  # a spread at the tolerance
@given(
    activation=st.sampled_from(list(ACTIVATIONS)),
    hidden=st.tuples(st.integers(2, 7), st.integers(2, 7)),
    shift=st.floats(-6, 6),
    scale=st.sampled_from([1.0, 5.0, 40.0]),
    count=st.integers(1, 12),
    tolerance=st.sampled_from([0.0, 1e-3, 0.1, 0.5]),
    seed=st.integers(0, 10_000),
)
def test_found_units_are_those_with_zero_rows(
    activation: str, hidden: tuple[int, int], shift: float, scale: float, count: int, tolerance: float, seed: int
) -> None:
    net = Net(activation, (4, *hidden, 2), seed)
    with torch.no_grad():  # pushes half of the units into a tail of the activation
        for linear in (net.first, net.second):
            linear.weight *= scale
            linear.bias[::2] += shift * scale
    inputs = points(count, 4, seed)
    expected = brute_force(net, inputs, tolerance)
    _, pruning = kag.prune(net, inputs, tolerance)
    for layer, (units, doubt) in expected.items():
        last = {
            unit for kept in pruning.kept if kept.layer == layer and "last of its layer" in kept.reason for unit in kept.units
        }
        assert (set(pruning.removed[layer]) | last) - doubt == units - doubt
        assert doubt or bool(last) == (len(units) == pruning.units[layer])


@settings(max_examples=40, deadline=None)
@given(
    activation=st.sampled_from(list(ACTIVATIONS)),
    dead=st.sets(st.integers(0, 8)),
    frozen=st.sets(st.integers(0, 8)),
    level=st.floats(-3, 3),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    seed=st.integers(0, 10_000),
)
def test_nothing_changes_at_tolerance_0(
    activation: str, dead: set[int], frozen: set[int], level: float, dtype: torch.dtype, seed: int
) -> None:
    net = Net(activation, (4, 9, 9, 2), seed).to(dtype)
    with torch.no_grad():
        net.first.bias[list(dead)] = -50.0
        net.second.weight[list(frozen)] = 0.0
        net.second.bias[list(frozen)] = level
    inputs = points(30, 4, seed).to(dtype)
    smaller, pruning = kag.prune(net, inputs)
    if activation == "relu":
        assert dead - {0} <= set(pruning.removed["first"])
    assert frozen - {0} <= set(pruning.removed["second"])
    rounding = 50 * torch.finfo(dtype).eps
    torch.testing.assert_close(smaller(inputs), net(inputs), rtol=rounding, atol=rounding)
    assert pruning.largest_change <= rounding
    assert pruning.parameters_after == sum(parameter.numel() for parameter in smaller.parameters())


def test_a_saturated_unit_that_stands_at_both_ends_stays() -> None:
    """Slope 0 everywhere, in float32 exactly, but -1 here and 1 there."""
    net = Net("tanh", (2, 4, 3, 2), seed=0)
    with torch.no_grad():
        net.first.weight[1] = torch.tensor([1e4, 0.0])
        net.first.weight[2] = torch.tensor([1e4, 0.0])
        net.first.bias[2] = 1e6
    inputs = torch.tensor([[1.0, 0.3], [-1.0, 0.1], [2.0, -0.5]])
    smaller, pruning = kag.prune(net, inputs)
    assert pruning.removed["first"] == (2,)
    (kept,) = [kept for kept in pruning.kept if kept.layer == "first"]
    assert kept.units == (1,)
    assert "not the same from point to point" in kept.reason
    torch.testing.assert_close(smaller(inputs), net(inputs), rtol=1e-5, atol=1e-6)
    _, alike = kag.prune(net, inputs[[0, 2]])  # where it stands at one end
    assert alike.removed["first"] == (1, 2)


def test_the_tolerance_bounds_rows_and_values() -> None:
    net = Net("gelu", (4, 30, 30, 2), seed=1)
    with torch.no_grad():
        net.first.bias[:15] -= torch.linspace(0, 8, 15)
    inputs = points(40, 4)
    _, pruning = kag.prune(net, inputs, labels=torch.zeros(40, dtype=torch.long))
    curve = pruning.curve([0, 1e-3, 0.01, 0.1, 0.5, 1])
    assert list(curve["tolerance"]) == [0, 1e-3, 0.01, 0.1, 0.5, 1]
    assert curve["units"].is_monotonic_increasing
    assert curve["parameters"].is_monotonic_decreasing
    assert curve["units"].iloc[-1] == 58  # one stays in each layer
    assert curve["accuracy"].between(0, 1).all()
    for tolerance in (0.01, 0.1):
        smaller, alone = kag.prune(net, inputs, tolerance, labels=torch.zeros(40, dtype=torch.long))
        row = curve.set_index("tolerance").loc[tolerance]
        assert (row["units"], row["parameters"]) == (sum(map(len, alone.removed.values())), alone.parameters_after)
        assert row["accuracy"] == alone.accuracy_after == (smaller(inputs).argmax(1) == 0).double().mean()
        change = (smaller(inputs) - net(inputs)).detach().abs().max()
        assert row["largest_absolute_change"] == pytest.approx(float(change), rel=1e-3)
        assert alone.largest_change == pytest.approx(float(change / net(inputs).detach().abs().max()), rel=1e-3)
    assert 0 < curve.set_index("tolerance")["units"][0.01] < 58
    least = pruning.least_tolerances()
    assert set(least) == {"first", "second"}
    for row in curve.itertuples():
        assert row.units == sum(min(int((values <= row.tolerance).sum()), 29) for values in least.values())


class Gated(nn.Module):
    """A gated MLP: relu(gate) * up."""

    def __init__(self) -> None:
        super().__init__()
        self.gate, self.up, self.down = nn.Linear(4, 6, bias=False), nn.Linear(4, 6), nn.Linear(6, 3, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return x[:, :3] + torch.as_tensor(self.down(functional.relu(self.gate(x)) * self.up(x)))


def test_multiplied_layers_lose_the_same_units() -> None:
    net = Gated()
    with torch.no_grad():
        net.gate.weight[[0, 3]] = -torch.rand(2, 4)  # off for positive inputs
        net.up.weight[5] = 0
        net.up.bias[5] = 0  # multiplies by 0
        net.up.weight[1] = 0  # not constant: the gate still moves it
    inputs = torch.rand(20, 4)
    smaller, pruning = kag.prune(net, inputs)
    assert pruning.removed["gate"] == pruning.removed["up"]
    assert {0, 3, 5} <= set(pruning.removed["gate"])
    assert (1 in pruning.removed["gate"]) == (not functional.relu(net.gate(inputs))[:, 1].any())
    torch.testing.assert_close(smaller(inputs), net(inputs))


class GatedByItself(nn.Module):
    """Units whose gates are made of them, as in squeeze-and-excitation networks."""

    def __init__(self) -> None:
        super().__init__()
        self.made, self.few, self.gate, self.last = nn.Linear(4, 6), nn.Linear(6, 3), nn.Linear(3, 6), nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        h = functional.relu(self.made(x))
        return torch.as_tensor(self.last(h * torch.sigmoid(self.gate(functional.relu(self.few(h))))))


def test_gates_that_are_made_of_what_they_gate() -> None:
    net = GatedByItself().double()
    with torch.no_grad():
        net.made.weight[[0, 3]] = 0
        net.made.bias[:4] = torch.tensor([-1.0, 1.0, 1.0, 2.0])  # 3 is constant before its gate, which moves, alone
        net.few.weight[1] = 0
    inputs = torch.rand(20, 4, dtype=torch.float64)
    smaller, pruning = kag.prune(net, inputs)
    assert 0 in pruning.removed["made"]
    assert 3 not in pruning.removed["made"]
    assert pruning.removed["made"] == pruning.removed["gate"]
    assert 1 in pruning.removed["few"]
    torch.testing.assert_close(smaller(inputs), net(inputs))


@pytest.mark.parametrize("tolerance", [-0.1, float("nan"), float("inf"), "0.1", True])
def test_bad_tolerances(tolerance: float) -> None:
    net = Net("relu", (4, 5, 5, 2), 0)
    with pytest.raises(InputError, match=r"tolerance is .*; expected a finite number from 0"):
        kag.prune(net, points(3, 4), tolerance)
    _, pruning = kag.prune(net, points(3, 4))
    with pytest.raises(InputError, match="tolerance is"):
        pruning.curve([0.1, tolerance])


def test_named_units_have_no_curve() -> None:
    from kagscope.pruning.prune import remove_units

    _, pruning = remove_units(Net("relu", (4, 5, 5, 2), 0), points(3, 4), {"first": np.arange(5) == 1})
    with pytest.raises(InputError, match="units were named here"):
        pruning.curve([0.1])
    assert "units that were named): 1 of 10" in repr(pruning)


def test_nan_in_a_layer_is_said() -> None:
    net = Net("relu", (4, 5, 5, 2), 0)
    with torch.no_grad():
        net.second.bias[1] = float("nan")
    with pytest.raises(InputError, match="layer 'second' are NaN or infinite"):
        kag.prune(net, points(3, 4))
