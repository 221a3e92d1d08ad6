"""Measuring leaves the user's model, its gradients and all random states as they were, also where it fails midway."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, Phase, assume, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import kagscope as kag
import layer_models as zoo
from kagscope.base.errors import InputError


class Leaves(nn.Module):
    """Its forward pass leaves things behind, draws random numbers nowhere, and has weights from a hook."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.utils.weight_norm(nn.Linear(5, 4))
        self.spectral = torch.nn.utils.parametrizations.spectral_norm(nn.Linear(4, 4))
        self.act, self.last = nn.Tanh(), "nothing yet"
        self.all: list[Tensor] = []
        self.by_name: dict[str, Tensor] = {}

    def forward(self, x: Tensor) -> Any:
        self.last = self.act(self.spectral(self.layer(x)))
        self.all.append(x)
        self.by_name["x"] = x
        return self.last


class Draws(nn.Module):
    """Draws from every generator, without an effect on its output."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.act, self.drop = nn.Linear(5, 4), nn.ReLU(), nn.Dropout(0.5)

    def forward(self, x: Tensor) -> Any:
        torch.rand(1), np.random.rand(), random.random()  # noqa: NPY002
        return self.drop(self.act(self.layer(x)))


def telling_bert() -> Any:
    """Returns all it computed, for which transformers patches its modules while it runs."""
    model: Any = zoo.bert()
    model.config.output_hidden_states = True
    return model


Kind = tuple[Callable[[], nn.Module], Callable[[], Any], list[str]]
KINDS: dict[str, Kind] = {
    "mlp": (zoo.mlp, lambda: zoo.numbers(3, 5), ["1", "3"]),
    "cnn": (zoo.cnn, lambda: zoo.numbers(3, 1, 6, 6), ["bn", "relu"]),
    "residual": (zoo.Residual, lambda: zoo.numbers(3, 5), ["blocks.0", "blocks.1.2"]),
    "gru cell": (lambda: zoo.Cells(nn.GRUCell), lambda: zoo.numbers(3, 4, 3), ["cell"]),
    "lstm": (zoo.Recurrent, lambda: zoo.numbers(3, 4, 3), ["lstm"]),
    "encoder": (zoo.encoder, lambda: zoo.numbers(2, 3, 4), ["layers.0", "layers.1.linear1"]),
    "functional": (zoo.Functional, lambda: zoo.numbers(3, 5), ["first", "second"]),
    "leaves": (Leaves, lambda: zoo.numbers(3, 5), ["layer", "act"]),
    "draws": (Draws, lambda: zoo.numbers(3, 5), ["act"]),
    "bert": (telling_bert, lambda: {"inputs_embeds": zoo.numbers(2, 3, 8)}, ["encoder.layer.0.intermediate"]),
    "gpt2": (zoo.gpt2, lambda: {"inputs_embeds": zoo.numbers(2, 3, 8)}, ["transformer.h.0.mlp.act"]),
}


def bits(tensor: Tensor | None) -> Any:
    return None if tensor is None else (tensor.dtype, tensor.device, tensor.detach().numpy().tobytes())


def everything(model: nn.Module) -> dict[str, Any]:
    """What must not change, as comparable values."""
    found: dict[str, Any] = {}
    for name, module in model.named_modules():
        plain = {key: id(value) for key, value in vars(module).items()}
        entries = {key: [id(v) for v in value.values()] for key, value in vars(module).items() if isinstance(value, dict)}
        entries |= {key: [id(v) for v in value] for key, value in vars(module).items() if isinstance(value, list)}
        found[name] = (plain, entries, module.training, [len(h) for h in (module._forward_hooks, module._forward_pre_hooks)])
    for name, parameter in model.named_parameters():
        found[f"parameter {name}"] = (bits(parameter), bits(parameter.grad), id(parameter.grad), parameter.requires_grad)
        found[f"version {name}"] = parameter._version
    found["buffers"] = {name: (bits(buffer), buffer._version) for name, buffer in model.named_buffers()}
    return found


def random_states() -> tuple[Any, ...]:
    numpy: Any = np.random.get_state()  # noqa: NPY002
    waiting = len(torch.cuda._queued_calls)  # seeds for GPUs that are not in use yet
    return torch.get_rng_state().numpy().tobytes(), numpy[1].tobytes(), numpy[2:], random.getstate(), waiting


def prepare(model: nn.Module, seed: int) -> None:
    """Modes, gradients and requires_grad flags at random."""
    rng = np.random.default_rng(seed)
    for module in model.modules():
        module.training = bool(rng.integers(2))
    for parameter in model.parameters():
        parameter.requires_grad_(bool(rng.integers(2)))
        if rng.integers(2):
            parameter.grad = torch.randn(parameter.shape)


@settings(max_examples=16, deadline=None, derandomize=True, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
@given(
    kind=st.sampled_from(sorted(KINDS)),
    layer_map=st.sampled_from(["input", "block", "output"]),
    mode=st.sampled_from(["eval", "train"]),
    precision=st.sampled_from(["float64", "model"]),
    grad=st.sampled_from(["grad", "no_grad", "inference"]),
    baseline=st.sampled_from([None, "reinit", "state"]),
    seed=st.integers(0, 10**6),
)
def test_nothing_is_changed(
    kind: str, layer_map: str, mode: str, precision: str, grad: str, baseline: str | None, seed: int
) -> None:
    make, inputs, layers = KINDS[kind]
    model, fed = zoo.seeded(make), inputs()
    assume(kind != "leaves" or baseline != "reinit")  # PyTorch cannot copy the old weight_norm
    prepare(model, seed)
    options: dict[str, Any] = {"layers": layers, "layer_map": layer_map, "mode": mode, "precision": precision, "k": 1}
    other = {name: tensor.clone() for name, tensor in model.state_dict().items()} if baseline == "state" else baseline
    before, states = everything(model), random_states()
    given_before = [bits(one) for one in (fed.values() if isinstance(fed, dict) else [fed])]
    context = {"grad": torch.enable_grad, "no_grad": torch.no_grad, "inference": torch.inference_mode}[grad]
    with context():
        report = kag.measure(model, fed, baseline=other, baseline_seeds=1, **options)
    assert len(report.table)
    assert everything(model) == before
    assert random_states() == states
    assert [bits(one) for one in (fed.values() if isinstance(fed, dict) else [fed])] == given_before


class Breaks(nn.Module):
    """Works for the first ``passes`` calls."""

    def __init__(self, passes: int) -> None:
        super().__init__()
        self.left = iter(range(passes))

    def forward(self, x: Tensor) -> Any:
        if next(self.left, None) is None:
            raise ValueError("broken on purpose")
        return x * 2


@pytest.mark.parametrize("passes", [0, 1, 2, 3, 4, 6, 7])
@pytest.mark.parametrize("mode", ["eval", "train"])
def test_nothing_is_changed_by_a_failure(passes: int, mode: str) -> None:
    model = zoo.seeded(lambda: nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.Tanh(), Breaks(passes), nn.Linear(4, 3)))
    prepare(model, passes)
    before, states = everything(model), random_states()
    with pytest.raises(InputError, match="broken on purpose"):
        kag.measure(model, zoo.numbers(3, 5), layers=["2", "4"], mode=mode, k=1)
    assert everything(model) == before
    assert random_states() == states


def test_an_interrupt_passes_through_and_leaves_no_hooks() -> None:
    model = zoo.seeded(zoo.mlp)
    before, states = everything(model), random_states()

    def interrupt(layer: str) -> None:
        if layer == "3":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        kag.measure(model, zoo.numbers(3, 5), layers=["1", "3"], progress=interrupt)
    assert everything(model) == before
    assert random_states() == states


def test_hooks_of_the_user_stay_and_are_heard() -> None:
    model = zoo.seeded(zoo.mlp)
    heard: list[str] = []
    model[0].register_forward_hook(lambda module, args, output: output * 3)
    model[1].register_forward_hook(lambda module, args, output: heard.append("1"))
    before = everything(model)
    report = kag.measure(model, zoo.numbers(3, 5), layers="0", k=1)
    assert everything(model) == before
    assert heard
    plain = kag.measure(zoo.seeded(zoo.mlp), zoo.numbers(3, 5), layers="0", k=1)
    top = [r.table.loc[r.table["score"] == "top", "value"].iloc[0] for r in (report, plain)]
    assert top[0] == pytest.approx(3 * top[1])


@pytest.mark.parametrize("shuffle", [False, True])
def test_a_loader_leaves_the_random_state(shuffle: bool) -> None:
    model, data = zoo.seeded(zoo.mlp), TensorDataset(zoo.numbers(20, 5), torch.arange(20) % 2)
    loader = DataLoader(data, batch_size=4, shuffle=shuffle)
    states = random_states()
    kag.measure(model, loader, k=1, points=6)
    assert random_states() == states


def test_inputs_and_models_made_in_inference_mode() -> None:
    with torch.inference_mode():
        model, x = zoo.seeded(zoo.mlp), zoo.numbers(3, 5)
        ids = zoo.words(2, 3)
        inside = kag.measure(model, x, k=1, precision="model")
    outside = kag.measure(model, x, k=1, precision="model", baseline="reinit", baseline_seeds=1)
    scores = ["layer", "k", "selection", "point", "score", "value"]
    both = inside.table[scores].astype(str).merge(outside.table[scores].astype(str))
    assert len(both) == len(inside.table)  # all of them, and some that need a baseline
    kag.measure(zoo.seeded(zoo.gpt2), {"input_ids": ids}, layers="transformer.h.0.mlp.act", layer_map="block", k=1)


def test_bfloat16_stays_bfloat16() -> None:
    model = zoo.seeded(zoo.mlp).bfloat16()
    x = zoo.numbers(3, 5).bfloat16()
    before = everything_shallow(model)
    for precision in ("float64", "model"):
        kag.measure(model, x, k=1, precision=precision)
    assert everything_shallow(model) == before


def everything_shallow(model: nn.Module) -> Any:
    return [(name, p.dtype, id(p), p.detach().float().numpy().tobytes()) for name, p in model.named_parameters()]
