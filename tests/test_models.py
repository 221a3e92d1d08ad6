"""The MLPs: names, weights, refusals."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from kagscope.base.errors import InputError
from kagscope.training.models import INITS, mlp


def test_layout_and_names() -> None:
    model = mlp(12, (7, 5), 3, "silu", seed=1)
    kinds = {name: type(module).__name__ for name, module in model.named_modules() if name}
    assert kinds == {
        "hidden1": "Sequential",
        "hidden1.0": "Linear",
        "hidden1.1": "SiLU",
        "hidden2": "Sequential",
        "hidden2.0": "Linear",
        "hidden2.1": "SiLU",
        "output": "Linear",
    }
    assert [tuple(p.shape) for p in model.parameters()] == [(7, 12), (7,), (5, 7), (5,), (3, 5), (3,)]


def test_seed_decides_and_global_state_is_untouched() -> None:
    before = torch.get_rng_state()
    a, b, c = (mlp(6, [4], 2, seed=seed).state_dict()["hidden1.0.weight"] for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(a, b)
    assert not torch.equal(a, c)


def test_initialisation_has_pytorchs_distribution() -> None:
    ours, theirs = mlp(400, [500], 10, seed=0).get_submodule("hidden1.0"), torch.nn.Linear(400, 500)
    for name in ("weight", "bias"):
        x, y = getattr(ours, name).detach(), getattr(theirs, name).detach()
        assert x.abs().max() <= 1 / 20
        assert x.abs().max() > 0.98 / 20
        assert abs(x.std() - y.std()) < 0.1 * y.std()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((4, [0], 2), "hidden width is 0"),
        ((4, [8, -1], 2), "hidden width is -1"),
        ((4, [2.5], 2), "2.5"),
        ((4, [True], 2), "True"),
        ((4, [], 2), "at least one"),
        ((4, 8, 2), r"such as \[64, 64\]"),
        ((0, [8], 2), "n_inputs is 0"),
        ((4, [8], 0), "n_classes is 0"),
        ((4, [10**9], 2), "1000000000"),
        ((4, [8], 2, "gellu"), "did you mean gelu"),
    ],
)
def test_bad_arguments(arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(InputError, match=message):
        mlp(*arguments, seed=0)


@pytest.mark.parametrize("seed", [-1, 2**31, 1.0, "0", True])
def test_bad_seeds(seed: object) -> None:
    with pytest.raises(InputError, match="seed is"):
        mlp(2, [2], 2, seed=seed)  # type: ignore[arg-type]


VARIANCES: dict[str, Callable[[int, int], float]] = {
    "default": lambda m, n: 1 / (3 * n),
    "kaiming_normal": lambda m, n: 2 / n,
    "kaiming_uniform": lambda m, n: 2 / n,
    "xavier_normal": lambda m, n: 2 / (m + n),
    "xavier_uniform": lambda m, n: 2 / (m + n),
    "lecun_normal": lambda m, n: 1 / n,
    "lecun_uniform": lambda m, n: 1 / n,
    "mean_field": lambda m, n: 1 / n if m > 50 else 1 / n**2,
}


@pytest.mark.parametrize("init", INITS)
def test_every_init_has_the_variance_that_is_said(init: str) -> None:
    net = mlp(400, [300, 200], 50, init=init, seed=1)
    for linear in (module for module in net if isinstance(module, nn.Linear)):
        m, n = linear.weight.shape
        if init == "orthogonal":
            gram = linear.weight @ linear.weight.T
            assert torch.allclose(gram, torch.eye(m), atol=1e-5)
        else:
            assert float(linear.weight.detach().var()) == pytest.approx(VARIANCES[init](m, n), rel=0.05)
            bounded = float(linear.weight.detach().abs().max()) <= math.sqrt(3 * VARIANCES[init](m, n)) * (1 + 1e-6)
            assert bounded == (init == "default" or init.endswith("uniform"))
        assert bool((linear.bias == 0).all()) == (init != "default")


def test_the_scale_multiplies_the_weights_and_not_the_biases() -> None:
    one, two = (mlp(5, [4], 3, init_scale=scale, seed=1).state_dict() for scale in (1.0, 2.0))
    assert torch.equal(two["hidden1.0.weight"], 2 * one["hidden1.0.weight"])
    assert torch.equal(two["hidden1.0.bias"], one["hidden1.0.bias"])
