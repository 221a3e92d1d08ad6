"""Jacobians of hidden layers against automatic differentiation of the whole network."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from kagscope.base.errors import InputError
from kagscope.jacobians import (
    DeepJacobian,
    FactoredJacobian,
    hidden_activations,
    hidden_layer_jacobians,
    output_slopes,
)
from kagscope.jacobians.stack import POINTWISE

WIDTHS = (6, 5, 7, 4)


def network(kind: type[nn.Module], depth: int, *, bias: bool = True, dtype: torch.dtype = torch.float64) -> nn.Sequential:
    """Linear, activation, …, Linear with ``depth`` hidden layers; slopes of every size, negative ones too."""
    generator = torch.Generator().manual_seed(depth)
    modules: list[nn.Module] = []
    for fan_in, fan_out in zip((8, *WIDTHS[:depth]), (*WIDTHS[:depth], 3), strict=True):
        linear = nn.Linear(fan_in, fan_out, bias=bias, dtype=dtype)
        with torch.no_grad():
            for parameter in linear.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
        modules += [linear, kind()]
    return nn.Sequential(*modules[:-1])


def points(count: int = 9, n: int = 8, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(count, n, generator=torch.Generator().manual_seed(0), dtype=dtype)


def by_autograd(part: nn.Module, inputs: torch.Tensor) -> np.ndarray:
    return np.asarray(torch.func.vmap(torch.func.jacrev(part))(inputs).detach())


depths = pytest.mark.parametrize("depth", [1, 2, 3, 4])
kinds = pytest.mark.parametrize("kind", POINTWISE, ids=lambda kind: kind.__name__)


@depths
@kinds
@pytest.mark.parametrize("bias", [True, False])
def test_jacobians_are_those_of_jacrev(kind: type[nn.Module], depth: int, bias: bool) -> None:
    model, inputs = network(kind, depth, bias=bias), points()
    found = hidden_layer_jacobians(model, inputs)
    assert list(found) == [str(2 * layer + 1) for layer in range(depth)]
    for layer, (name, jacobian) in enumerate(found.items()):
        expected = by_autograd(model[: 2 * layer + 2], inputs)
        assert isinstance(jacobian, FactoredJacobian if layer == 0 else DeepJacobian)
        assert len(jacobian) == 9
        assert jacobian.shape == expected.shape[1:] == (WIDTHS[layer], (8, *WIDTHS)[0])
        dense = jacobian.dense()
        assert dense.dtype == np.float64
        np.testing.assert_allclose(dense, expected, rtol=1e-11, atol=1e-12, err_msg=name)
        for chosen in (slice(2, 7, 2), np.array([5, 0, 5])):
            np.testing.assert_array_equal(jacobian.dense(chosen), dense[chosen])
        np.testing.assert_allclose(jacobian.row_norms(), np.abs(expected).mean(axis=2), rtol=1e-11, atol=1e-13)
        np.testing.assert_allclose(jacobian.row_norms(slice(3, 8)), np.abs(dense[3:8]).mean(axis=2), rtol=1e-13)


@depths
@kinds
def test_activations_are_those_of_forward(kind: type[nn.Module], depth: int) -> None:
    model, inputs = network(kind, depth), points()
    for layer, (name, activation) in enumerate(hidden_activations(model, inputs).items()):
        assert name == str(2 * layer + 1)
        np.testing.assert_allclose(activation, model[: 2 * layer + 2](inputs).detach().numpy(), rtol=1e-12, atol=1e-14)


@depths
@kinds
def test_slopes_are_those_of_autograd(kind: type[nn.Module], depth: int) -> None:
    model, inputs = network(kind, depth), points()
    found = output_slopes(model, inputs)
    assert list(found) == [str(2 * layer + 1) for layer in range(depth)]
    for layer, slopes in enumerate(found.values()):
        rest = model[2 * layer + 2 :]
        expected = np.abs(by_autograd(rest, model[: 2 * layer + 2](inputs).detach())).max(axis=1)
        np.testing.assert_allclose(slopes, expected, rtol=1e-11, atol=1e-13)


@settings(max_examples=40, deadline=None)
@given(chunk=st.integers(1, 12), depth=st.integers(2, 4))
def test_row_norms_do_not_depend_on_chunks(chunk: int, depth: int) -> None:
    jacobian = hidden_layer_jacobians(network(nn.GELU, depth), points())[str(2 * depth - 1)]
    assert isinstance(jacobian, DeepJacobian)
    np.testing.assert_allclose(jacobian.row_norms(chunk=chunk), jacobian.row_norms(), rtol=1e-13)


def test_relu_gives_exact_zero_rows_where_units_are_off() -> None:
    model, inputs = network(nn.ReLU, 3), points(40)
    for name, jacobian in hidden_layer_jacobians(model, inputs).items():
        off = hidden_activations(model, inputs)[name] == 0
        assert off.any()
        assert not jacobian.dense()[off].any()


def test_single_precision_networks_are_differentiated_in_double() -> None:
    model = network(nn.GELU, 3, dtype=torch.float32)
    inputs = points(dtype=torch.float32)
    jacobians = hidden_layer_jacobians(model, inputs)
    double = copy.deepcopy(model).double()
    for layer, jacobian in enumerate(jacobians.values()):
        np.testing.assert_allclose(
            jacobian.dense(), by_autograd(double[: 2 * layer + 2], inputs.double()), rtol=1e-11, atol=1e-12
        )


@pytest.mark.parametrize("mode", [True, False])
def test_model_inputs_and_generators_are_untouched(mode: bool) -> None:
    model = network(nn.ReLU, 3, dtype=torch.float32).train(mode)
    model[0].requires_grad_(False)
    inputs = points(dtype=torch.float32).requires_grad_()
    before, state = copy.deepcopy(model), torch.get_rng_state()
    for measure in (hidden_layer_jacobians, hidden_activations, output_slopes):
        measure(model, inputs)
    assert torch.equal(torch.get_rng_state(), state)
    assert inputs.grad is None
    assert torch.equal(inputs, points(dtype=torch.float32))
    assert [module.training for module in model.modules()] == [mode] * 8
    for parameter, old in zip(model.parameters(), before.parameters(), strict=True):
        assert torch.equal(parameter, old)
        assert parameter.dtype == old.dtype == torch.float32
        assert parameter.requires_grad == old.requires_grad
        assert parameter.grad is None
    with torch.no_grad():  # a caller that switched gradients off gets the same
        again = hidden_layer_jacobians(model, inputs)
    np.testing.assert_array_equal(again["5"].dense(), hidden_layer_jacobians(model, inputs)["5"].dense())


def test_activations_that_work_in_place() -> None:
    plain, inplace = network(nn.ReLU, 2), network(nn.ReLU, 2)
    for module in inplace:
        if isinstance(module, nn.ReLU):
            module.inplace = True
    for name, jacobian in hidden_layer_jacobians(inplace, points()).items():
        np.testing.assert_array_equal(jacobian.dense(), hidden_layer_jacobians(plain, points())[name].dense())


def test_one_activation_for_all_layers() -> None:
    plain, act = network(nn.Tanh, 3), nn.Tanh()
    shared = nn.Sequential(*[act if isinstance(module, nn.Tanh) else module for module in plain])
    for name, jacobian in hidden_layer_jacobians(plain, points()).items():
        np.testing.assert_array_equal(hidden_layer_jacobians(shared, points())[name].dense(), jacobian.dense())
    assert list(output_slopes(shared, points())) == list(hidden_activations(shared, points())) == ["1", "3", "5"]


LINEAR = nn.Linear(3, 3)


@pytest.mark.parametrize("measure", [hidden_layer_jacobians, hidden_activations, output_slopes])
@pytest.mark.parametrize(
    ("model", "message"),
    [
        (nn.Sequential(), "Sequential"),
        (nn.Sequential(LINEAR), "got Linear$"),
        (nn.Sequential(LINEAR, nn.ReLU()), "got Linear, ReLU$"),
        (nn.Sequential(LINEAR, nn.Linear(3, 3), nn.Linear(3, 3)), "got Linear, Linear, Linear"),
        (nn.Sequential(LINEAR, nn.Softmax(-1), LINEAR), "Softmax"),
        (nn.Sequential(nn.ReLU(), LINEAR, nn.ReLU()), "got ReLU, Linear, ReLU"),
        (nn.Sequential(nn.Flatten(), LINEAR, nn.ReLU(), LINEAR), "Flatten"),
        (nn.Sequential(LINEAR, nn.ReLU(), nn.Conv1d(3, 3, 1)), "Conv1d"),
        (LINEAR, "got Linear$"),
        (nn.Bilinear(3, 3, 3), "got Bilinear$"),
    ],
    ids=lambda value: "" if isinstance(value, str) else None,
)
def test_other_models_are_refused(measure: object, model: nn.Sequential, message: str) -> None:
    assert callable(measure)
    with pytest.raises(InputError, match=message) as caught:
        measure(model, torch.zeros(2, 3))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("measure", [hidden_layer_jacobians, hidden_activations, output_slopes])
@pytest.mark.parametrize("shape", [(8,), (2, 7), (2, 2, 8), (0,), ()])
def test_inputs_that_do_not_fit_are_refused(measure: object, shape: tuple[int, ...]) -> None:
    assert callable(measure)
    with pytest.raises(InputError, match=r"expected \(points, 8\)"):
        measure(network(nn.ReLU, 2), torch.zeros(shape))
