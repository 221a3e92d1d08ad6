"""Models whose passes change nothing: which they are, that they stay as they were, and that their numbers are those of others."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.modules import module as torch_module
from torch.nn.utils import parametrizations

import kagscope as kag
import layer_models as zoo
from kagscope.jacobians.plain import plain_modules
from kagscope.jacobians.structure import outer_diagonal
from kagscope.minors.routes.zonogon_gradient import pair_areas_and_slopes
from test_untouched import everything, random_states


def net() -> nn.Sequential:
    torch.manual_seed(0)
    inner = nn.Sequential(nn.Linear(16, 8), nn.GELU(), nn.Dropout(0.5))
    return nn.Sequential(inner, nn.Linear(8, 6), nn.Tanh(), nn.Linear(6, 4))


class Wrapped(nn.Module):
    """Somebody's own class, of whose forward nothing is known."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Any:
        return self.inner(x)


class Linear(nn.Linear):
    """Somebody's own kind of layer."""


class Weight(nn.Parameter):
    """Somebody's own kind of parameter."""


def _counted(self: nn.Module, x: Tensor) -> Tensor:
    self.calls = x.sum()
    return x


def _with(change: Callable[[Any], Any]) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        model = net()
        change(model)
        return model

    return make


OTHERS: dict[str, Callable[[], nn.Module]] = {
    "a class of one's own": lambda: Wrapped(net()),
    "a kind of layer of one's own": lambda: nn.Sequential(Linear(16, 4)),
    "buffers": lambda: nn.Sequential(nn.Linear(16, 4), nn.BatchNorm1d(4)),
    "a buffer on a plain layer": _with(lambda model: model[1].register_buffer("seen", torch.zeros(1))),
    "a hook": _with(lambda model: model[2].register_forward_hook(lambda *_: None)),
    "a hook before": _with(lambda model: model[0].register_forward_pre_hook(lambda *_: None)),
    "a hook on gradients": _with(lambda model: model[0][1].register_full_backward_hook(lambda *_: None)),
    "another forward": _with(lambda model: setattr(model[2], "forward", _counted.__get__(model[2]))),
    "a parametrised weight": lambda: nn.Sequential(parametrizations.weight_norm(nn.Linear(16, 4))),
    "a parameter of one's own": _with(lambda model: setattr(model[1], "weight", Weight(model[1].weight.detach()))),
    "compiled in place": _with(lambda model: setattr(model[1], "_compiled_call_impl", model[1].forward)),
}


@pytest.mark.parametrize("name", OTHERS)
def test_what_may_keep_something_is_not_plain(name: str) -> None:
    assert plain_modules(OTHERS[name]()) is None


def test_surroundings_in_which_no_model_is_plain(monkeypatch: pytest.MonkeyPatch) -> None:
    model = net()
    found = plain_modules(model)
    assert found is not None
    assert set(found) == set(model.modules())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert plain_modules(model) is None
    with torch.autograd.set_detect_anomaly(True):
        assert plain_modules(model) is None
    hook = torch_module.register_module_forward_hook(lambda *_: None)
    assert plain_modules(model) is None
    hook.remove()
    assert plain_modules(model) is not None
    monkeypatch.setattr(nn.Tanh, "forward", _counted)
    assert plain_modules(model) is None
    monkeypatch.undo()
    monkeypatch.setattr(nn.Module, "__call__", lambda self, x: x)
    assert plain_modules(model) is None


@contextlib.contextmanager
def _same_afterwards(model: nn.Module) -> Iterator[None]:
    before, states = everything(model), random_states()[:3]  # not Python's: what checks shapes in these tests draws from it
    yield
    assert everything(model) == before
    assert random_states()[:3] == states


@pytest.mark.parametrize("layer", ["0.1", "0.2", "2"])  # the second a dropout, which eval mode leaves out
def test_a_plain_model_has_the_term_of_any_other_and_stays_as_it_was(layer: str) -> None:
    model, x = net(), zoo.numbers(8, 16)
    model[1].eval()
    wrapped = Wrapped(net())
    terms = []
    for one, name in ((model, layer), (wrapped, f"inner.{layer}")):
        penalty = kag.GeometryPenalty(one, [name], weight=1.0, points=4, rows=6)
        with _same_afterwards(one):
            terms += [penalty(x), penalty(x)]
    assert torch.equal(terms[0], terms[2])
    assert torch.equal(terms[1], terms[3])
    gradients = [torch.autograd.grad(term, list(one.parameters()), allow_unused=True)
                 for term, one in ((terms[1], model), (terms[3], wrapped))]  # fmt: skip
    for first, second in zip(*gradients, strict=True):
        assert (first is None) == (second is None)
        assert first is None or second is None or torch.equal(first, second)


def test_a_plain_model_stays_as_it_was_when_a_pass_fails() -> None:
    model, x = net(), zoo.numbers(8, 16)
    penalty = kag.GeometryPenalty(model, ["2"], points=4)
    penalty(x)
    with _same_afterwards(model), pytest.raises(kag.InputError, match="cannot be called"):
        penalty(x[:, :5])


@pytest.mark.parametrize("create_graph", [False, True])
def test_a_chain_of_elementwise_operations_has_the_derivative_that_autograd_finds(create_graph: bool) -> None:
    z = torch.randn(4, 5, dtype=torch.float64, requires_grad=True)
    h = torch.tanh(nn.functional.gelu(z).square())
    outer = outer_diagonal(h, create_graph=create_graph)
    assert outer is not None
    (expected,) = torch.autograd.grad(h, z, torch.ones_like(h), create_graph=True)
    assert torch.equal(outer.d, expected)
    assert outer.d.requires_grad == create_graph
    if create_graph:
        found = [torch.autograd.grad(d.sum(), z, retain_graph=True)[0] for d in (outer.d, expected)]
        assert torch.equal(*found)


@pytest.mark.parametrize("size", [2.0**-500, 2.0**-30, 2.0**30, 2.0**500])
def test_derivatives_of_areas_scale_with_the_rows(size: float) -> None:
    rows = zoo.numbers(6, 40).double().numpy()
    first, second = np.array([[0, 1, 2], [3, 4, 5]])
    areas, slopes = pair_areas_and_slopes(rows, first, second)
    of_scaled, scaled_slopes = pair_areas_and_slopes(rows * size, first, second)
    assert (of_scaled == areas * size * size).all()
    assert (scaled_slopes == slopes * size).all()
