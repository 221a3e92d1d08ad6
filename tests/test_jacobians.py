"""Jacobians of hidden layers of feed-forward stacks against their closed form, ``diag(d_l) W_l … diag(d_1) W_1``."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import kagscope as kag
from kagscope.jacobians import DenseJacobian, FactoredJacobian
from kagscope.jacobians.compute import LayerJacobians
from kagscope.jacobians.inputs import as_inputs
from kagscope.jacobians.layers import find_calls, find_layers
from kagscope.jacobians.maps import LayerMap
from kagscope.jacobians.runner import Runner
from kagscope.jacobians.untouched import untouched

POINTWISE = (nn.GELU, nn.ReLU, nn.Tanh, nn.SiLU, nn.Sigmoid, nn.Identity)
WIDTHS = (6, 5, 7, 4)
Form = FactoredJacobian | DenseJacobian


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


def points(count: int = 9, n: int = 8) -> torch.Tensor:
    return torch.randn(count, n, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def closed_forms(model: nn.Sequential, x: torch.Tensor) -> list[np.ndarray]:
    """(B, m, n) of every hidden layer after its activation, in float64."""
    found: list[np.ndarray] = []
    hidden, modules = x.double(), list(model)
    for linear, activation in zip(modules[:-1:2], modules[1::2], strict=True):
        assert isinstance(linear, nn.Linear)
        W = linear.weight.detach().double()
        bias = 0.0 if linear.bias is None else linear.bias.detach().double()
        z = (hidden @ W.T + bias).requires_grad_()
        value = activation(z)
        (d,) = torch.autograd.grad(value.sum(), z)
        step = d.numpy()[:, :, None] * W.numpy()
        found.append(step @ found[-1] if found else step)
        hidden = value.detach()
    return found


def measured(model: nn.Module, x: torch.Tensor, layer: str) -> tuple[np.ndarray, list[Form]]:
    """(B, m, n), and the batches that it came in."""
    fed = as_inputs(x).cast(torch.float64)
    with untouched(model, "eval"):
        runner = Runner(model, torch.float64, 0)
        (call,) = find_calls(runner, fed, *find_layers(model, layer))
        forms = [batch.jacobian for batch in LayerJacobians(LayerMap(runner, call, "input"), fed)]
    return np.concatenate([form.dense() for form in forms]), forms


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("kind", POINTWISE, ids=lambda kind: kind.__name__)
def test_jacobians_are_the_closed_form(kind: type[nn.Module], bias: bool, dtype: torch.dtype) -> None:
    model, x = network(kind, 4, bias=bias, dtype=dtype), points()
    for index, expected in enumerate(closed_forms(model, x)):
        J, forms = measured(model, x, str(2 * index + 1))
        assert J.dtype == np.float64
        scale = np.abs(expected).max()
        np.testing.assert_allclose(J, expected, rtol=1e-11, atol=1e-14 * scale)
        assert all(isinstance(form, FactoredJacobian) for form in forms) or index > 0
        for form, part in zip(forms, np.split(J, np.cumsum([len(form) for form in forms])[:-1]), strict=True):
            assert form.shape == part.shape[1:] == (WIDTHS[index], 8)
            np.testing.assert_array_equal(form.dense(slice(2, 7, 2)), part[2:7:2])
            np.testing.assert_allclose(form.row_norms(), np.abs(part).mean(axis=2), rtol=1e-13)


def test_relu_gives_exact_zero_rows_where_units_are_off() -> None:
    model, x = network(nn.ReLU, 3), points(40)
    for layer in (1, 3, 5):
        J, _ = measured(model, x, str(layer))
        off = (model[: layer + 1](x) == 0).numpy()
        assert off.any()
        assert not J[off].any()


def test_activations_that_work_in_place() -> None:
    model = network(nn.ReLU, 2)
    for module in model:
        if isinstance(module, nn.ReLU):
            module.inplace = True
    for layer, expected in zip(("1", "3"), closed_forms(network(nn.ReLU, 2), points()), strict=True):
        np.testing.assert_allclose(measured(model, points(), layer)[0], expected, rtol=1e-11, atol=1e-13)


def test_by_default_a_map_through_a_block_is_of_what_holds_an_activation() -> None:
    """An activation's own Jacobian is diagonal in every network."""
    mlp = nn.Sequential(nn.Linear(4, 8), nn.GELU(), nn.Dropout(), nn.Linear(8, 4))
    held = nn.ModuleDict({"act": nn.ReLU(), "out": nn.Linear(4, 2)})
    model = nn.ModuleDict({"mlp": mlp, "block": nn.Sequential(nn.Linear(4, 4), nn.Tanh()), "held": held})
    assert list(find_layers(model, None)[0]) == ["mlp.1", "block", "held.act"]
    assert list(find_layers(model, None, "block")[0]) == ["mlp", "block"]
    assert list(find_layers(mlp, None, "block")[0]) == ["0", "3"]
    report = kag.measure(mlp, torch.randn(3, 4), layers=["1", "3"], layer_map="block", k=1, progress=False)
    assert [bool(one["notes"]) for one in report.layers] == [True, False]
