"""Attacks against the closed form on linear models, calibration against counting, and what both refuse."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from kagscope.base.errors import InputError
from kagscope.robustness import NORMS, Norm, adversarial_accuracy, expected_calibration_error


def linear(seed: int, classes: int = 2, n: int = 5) -> tuple[nn.Linear, torch.Tensor, torch.Tensor]:
    torch.manual_seed(seed)
    model = nn.Linear(n, classes).double()
    inputs = torch.randn(40, n, dtype=torch.float64)
    labels = torch.randint(classes, (40,))
    return model, inputs, labels


def margins(model: nn.Linear, inputs: torch.Tensor, labels: torch.Tensor, norm: Norm) -> torch.Tensor:
    """Distance of each point to the nearest wrong class by the norm's dual, negative where it is wrong already."""
    logits = model(inputs)
    found = []
    for x, label, z in zip(inputs, labels, logits, strict=True):
        gaps = []
        for other in range(len(z)):
            if other == label:
                continue
            w = model.weight[label] - model.weight[other]
            length = w.abs().sum() if norm == "linf" else w.norm()
            gaps.append((z[label] - z[other]) / length)
        found.append(torch.stack(gaps).min())
        assert x.shape == inputs.shape[1:]
    return torch.stack(found).detach()


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("method", ["fgsm", "pgd"])
@given(seed=st.integers(0, 10_000), eps=st.floats(0.01, 2.0))
@settings(max_examples=40, deadline=None)
def test_two_linear_classes_are_attacked_optimally(norm: Norm, method: str, seed: int, eps: float) -> None:
    model, inputs, labels = linear(seed)
    distance = margins(model, inputs, labels, norm)
    found = adversarial_accuracy(model, inputs, labels, eps, norm=norm, method=method, bounds=None, steps=40)
    nearly = 0.97 * eps if (norm, method) == ("l2", "pgd") else eps - 1e-9  # from a random start on it turns and arrives nearly
    assert float((distance > eps + 1e-9).double().mean()) <= found <= float((distance > nearly).double().mean())


@pytest.mark.parametrize("norm", NORMS)
@given(seed=st.integers(0, 10_000), eps=st.floats(0.01, 2.0))
@settings(max_examples=30, deadline=None)
def test_no_attack_beats_the_closed_form(norm: Norm, seed: int, eps: float) -> None:
    model, inputs, labels = linear(seed, classes=4)
    robust = float((margins(model, inputs, labels, norm) > eps + 1e-9).double().mean())
    clean = adversarial_accuracy(model, inputs, labels, 0.0, norm=norm, bounds=None)
    found = adversarial_accuracy(model, inputs, labels, eps, norm=norm, bounds=None)
    assert robust <= found <= clean


class Square(nn.Module):
    """Class 0 where |x| > 0.1."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([x**2, torch.full_like(x, 0.01)], dim=1)


def test_what_was_fooled_stays_so_though_a_later_step_mends_it() -> None:
    inputs, labels = torch.tensor([[0.05], [0.6]], dtype=torch.float64), torch.tensor([0, 0])
    assert Square()(inputs - 0.5).argmax(1).tolist() == [0, 1], "the step from the first point goes past the wrong region"
    assert adversarial_accuracy(Square(), inputs[:1], labels[:1], 0.5, method="fgsm", bounds=None) == 0.0
    assert adversarial_accuracy(Square(), inputs, labels, 0.5, method="fgsm", bounds=None) == 0.0


def test_bounds_protect_points_at_the_edge() -> None:
    model = nn.Linear(1, 2, bias=False).double()
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[1.0], [-1.0]]))
    inputs, labels = torch.tensor([[0.05]], dtype=torch.float64), torch.tensor([0])
    assert adversarial_accuracy(model, inputs, labels, 0.1, bounds=(0.01, 1.0)) == 1.0
    assert adversarial_accuracy(model, inputs, labels, 0.1, bounds=(-1.0, 1.0)) == 0.0


def test_the_same_seed_gives_the_same_and_gradients_are_left_alone() -> None:
    model, inputs, labels = linear(3, classes=4)
    found = {adversarial_accuracy(model, inputs, labels, 0.3, bounds=None, seed=1, steps=3) for _ in range(3)}
    assert len(found) == 1
    assert model.weight.grad is None


def test_calibration_counts() -> None:
    probabilities = np.array([[0.9, 0.1], [0.9, 0.1], [0.6, 0.4], [0.2, 0.8]])
    labels = np.array([0, 1, 0, 1])
    expected = (abs(1.8 - 1) + abs(0.6 - 1) + abs(0.8 - 1)) / 4
    assert expected_calibration_error(probabilities, labels, bins=10) == pytest.approx(expected)
    assert expected_calibration_error(np.eye(3), np.arange(3)) == 0.0


def small_net(seed: int) -> tuple[nn.Module, torch.Tensor, torch.Tensor]:
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 3)).double()
    inputs = torch.rand(60, 6, dtype=torch.float64)
    return model, inputs, model(inputs).argmax(1)


@pytest.mark.parametrize("norm", NORMS)
@given(seed=st.integers(0, 10_000), eps=st.floats(0.01, 0.5))
@settings(max_examples=25, deadline=None)
def test_more_attack_leaves_less_standing(norm: Norm, seed: int, eps: float) -> None:
    model, inputs, labels = small_net(seed)

    def left(method: str = "pgd", eps: float = eps, restarts: int = 1) -> float:
        return adversarial_accuracy(model, inputs, labels, eps, norm=norm, method=method, restarts=restarts)

    assert left(eps=0.0) == left("fgsm", eps=0.0) == 1.0
    one, three = left(), left(restarts=3)
    assert three <= one, "the restarts begin with the same random point"
    assert one <= left("fgsm") + 2 / 60, "PGD, from a random point, hardly ever misses what one step finds"


@pytest.mark.parametrize("norm", NORMS)
@given(seed=st.integers(0, 10_000), eps=st.floats(0.01, 2.0))
@settings(max_examples=8, deadline=None)
def test_restarts_approach_the_closed_form_and_never_pass_it(norm: Norm, seed: int, eps: float) -> None:
    model, inputs, labels = linear(seed, classes=4)
    robust = float((margins(model, inputs, labels, norm) > eps + 1e-9).double().mean())
    found = [adversarial_accuracy(model, inputs, labels, eps, norm=norm, bounds=None, steps=40, restarts=r) for r in (1, 8)]
    assert robust <= found[1] <= found[0]
    assert found[1] <= robust + 0.1


@pytest.mark.parametrize(("norm", "method"), [("linf", "fgsm"), ("l2", "fgsm"), ("linf", "pgd"), ("l2", "pgd")])
def test_a_point_does_not_feel_the_others(norm: Norm, method: str) -> None:
    model, inputs, labels = small_net(1)
    eps = 0.15 if norm == "linf" else 0.3
    whole = adversarial_accuracy(model, inputs, labels, eps, norm=norm, method=method)
    parts = [
        adversarial_accuracy(model, x, y, eps, norm=norm, method=method) * len(x)
        for x, y in zip(inputs.split(7), labels.split(7), strict=True)
    ]
    assert 0.05 < whole < 0.95
    if method == "fgsm":
        assert sum(parts) / len(inputs) == pytest.approx(whole)
    else:  # other batches draw other random points to start from, which matters little
        assert sum(parts) / len(inputs) == pytest.approx(whole, abs=2 / 60)
    order = torch.randperm(len(inputs), generator=torch.Generator().manual_seed(0))
    shuffled = adversarial_accuracy(model, inputs[order], labels[order], eps, norm=norm, method=method, restarts=2)
    assert shuffled == pytest.approx(whole, abs=2 / 60)


def test_every_attack_stays_in_the_ball_and_the_bounds() -> None:
    seen: list[torch.Tensor] = []

    class Watched(nn.Module):
        def __init__(self, inner: nn.Module) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            seen.append(x.detach())
            logits: torch.Tensor = self.inner(x)
            return logits

    model, inputs, labels = small_net(2)
    for norm in NORMS:
        for method in ("fgsm", "pgd"):
            seen.clear()
            adversarial_accuracy(Watched(model), inputs, labels, 0.3, norm=norm, method=method, steps=5, restarts=2)
            assert len(seen) == 1 + (2 if method == "fgsm" else 2 * 2 * 5)
            for x in seen:
                change = (x - inputs).flatten(1)
                size = change.abs().amax(1) if norm == "linf" else change.norm(dim=1)
                assert float(size.max()) <= 0.3 + 1e-12
                assert 0 <= float(x.min()) <= float(x.max()) <= 1


@pytest.mark.parametrize(
    "bad",
    [
        {"norm": "l1"},
        {"method": "cw"},
        {"eps": -1.0},
        {"eps": float("nan")},
        {"steps": 0},
        {"restarts": 0},
        {"bounds": (0.0, 0.1)},
    ],
    ids=str,
)
def test_bad_input(bad: dict[str, object]) -> None:
    model, inputs, labels = linear(0)
    arguments: dict[str, object] = {"eps": 0.1, "bounds": None} | bad
    with pytest.raises(InputError, match=r"expected|scale"):
        adversarial_accuracy(model, inputs, labels, **arguments)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="as many"):
        expected_calibration_error(np.eye(2), np.zeros(3, dtype=int))
