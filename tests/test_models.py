"""The MLPs, their activations' derivatives, and weights on disk."""

from __future__ import annotations

import contextlib
import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kagscope.errors import DataError, InputError, OutputError
from kagscope.models import ACTIVATIONS, activation_derivative, hidden_layers, load_into, load_weights, mlp, save_weights


def test_layout_and_names() -> None:
    model = mlp(12, (7, 5), 3, "silu", seed=1)
    assert [type(module).__name__ for module in model] == ["Linear", "SiLU", "Linear", "SiLU", "Linear"]
    assert [tuple(p.shape) for p in model.parameters()] == [(7, 12), (7,), (5, 7), (5,), (3, 5), (3,)]
    assert hidden_layers(model) == ["1", "3"]
    assert hidden_layers(mlp(2, [3, 3, 3], 2, seed=0)) == ["1", "3", "5"]


def test_seed_decides_and_global_state_is_untouched() -> None:
    before = torch.get_rng_state()
    a, b, c = (mlp(6, [4], 2, seed=seed).state_dict()["0.weight"] for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(a, b)
    assert not torch.equal(a, c)


def test_initialisation_has_pytorchs_distribution() -> None:
    ours, theirs = mlp(400, [500], 10, seed=0)[0], torch.nn.Linear(400, 500)
    for name in ("weight", "bias"):
        x, y = getattr(ours, name).detach(), getattr(theirs, name).detach()
        assert x.abs().max() <= 1 / 20
        assert x.abs().max() > 0.98 / 20
        assert abs(x.std() - y.std()) < 0.1 * y.std()


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_derivative_is_autograds(name: str) -> None:
    z = torch.linspace(-6, 6, 101, dtype=torch.float64).requires_grad_()
    ACTIVATIONS[name]()(z).sum().backward()
    torch.testing.assert_close(activation_derivative(name)(z.detach()), z.grad, rtol=1e-12, atol=1e-14)


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


def test_weights_survive_the_disk(tmp_path: Path) -> None:
    model, other = mlp(6, [5, 4], 3, seed=0), mlp(6, [5, 4], 3, seed=1)
    save_weights(tmp_path / "w.safetensors", model.state_dict())
    load_into(other, load_weights(tmp_path / "w.safetensors"))
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True))
    assert os.listdir(tmp_path) == ["w.safetensors"]
    with pytest.raises(OutputError, match="cannot write"):
        save_weights(tmp_path / "missing" / "w.safetensors", model.state_dict())


class Bomb:
    def __reduce__(self) -> tuple[Any, ...]:
        return (open, ("exploded", "w"))


def test_bad_weight_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    state = mlp(6, [5], 3, seed=0).state_dict()
    save_weights("good", state)
    good = Path("good").read_bytes()
    torch.save({**state, "bomb": Bomb()}, "zip.pt")
    Path("raw.pt").write_bytes(pickle.dumps(Bomb()))
    for pickled in ("zip.pt", "raw.pt"):
        with pytest.raises(DataError, match="is a pickle"):
            load_weights(pickled)
    assert not Path("exploded").exists()
    for content in (b"", b"short", good[:-1], good[:100], b"\xff" * 200, b"\xff" * 7 + b"\x7f" + good[8:], good + b"x"):
        Path("bad").write_bytes(content)
        with pytest.raises(DataError, match="bad: truncated, damaged or not safetensors") as caught:
            load_weights("bad")
        assert "\n" not in str(caught.value)
    with pytest.raises(DataError, match="no such file"):
        load_weights("missing")
    with pytest.raises(DataError, match="is a folder"):
        load_weights(tmp_path)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.one_of(st.binary(max_size=80), st.binary(max_size=80).map(lambda b: len(b).to_bytes(8, "little") + b)))
def test_any_bytes_are_weights_or_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "fuzz").write_bytes(content)
    with contextlib.suppress(DataError):
        assert all(isinstance(tensor, torch.Tensor) for tensor in load_weights(tmp_path / "fuzz").values())


def test_weights_that_do_not_fit_change_nothing() -> None:
    model = mlp(6, [5], 3, seed=0)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    lacking = dict(list(before.items())[:-1])
    for state, message in (
        (lacking, r"they lack 2\.bias; expected 0\.weight"),
        ({**before, "9.weight": torch.zeros(1)}, r"hold in addition 9\.weight"),
        (mlp(6, [5], 4, seed=1).state_dict(), r"2\.weight has shape \(4, 5\), expected \(3, 5\)"),
    ):
        with pytest.raises(DataError, match=message):
            load_into(model, state, "weights.safetensors")
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
