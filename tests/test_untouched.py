"""Measuring leaves the user's model, its gradients and all random states as they were, also where it fails midway."""

from __future__ import annotations

import array
import contextlib
import copy
import dataclasses
import random
import types
import warnings
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import HealthCheck, Phase, assume, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import kagscope as kag
import layer_models as zoo
from kagscope.base.errors import InputError
from test_layer_maps import ClassToken, Places


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


def contents(value: Any, depth: int = 4) -> Any:
    """What a value holds, as something comparable: containers in their order, arrays, tensors and generators by their bits."""
    if isinstance(value, Tensor):
        return id(value), bits(value)
    if isinstance(value, np.ndarray):
        return id(value), value.tobytes()
    if isinstance(value, torch.Generator):
        return id(value), value.get_state().numpy().tobytes()
    if isinstance(value, np.random.Generator):
        return id(value), repr(value.bit_generator.state)
    if isinstance(value, random.Random):
        return id(value), value.getstate()
    if isinstance(value, nn.Module):
        return id(value), [(name, bits(one)) for name, one in value.state_dict().items()]
    if isinstance(value, types.SimpleNamespace | Record | Meter) and depth:
        return id(value), contents(vars(value), depth - 1)
    if isinstance(value, Slots):
        return id(value), contents(value.calls), contents(value.rows)
    if isinstance(value, dict) and depth:
        return id(value), [(key, contents(one, depth - 1)) for key, one in value.items()]
    if isinstance(value, list | tuple | deque) and depth:
        return id(value), [contents(one, depth - 1) for one in value]
    return (id(value), sorted(map(repr, value))) if isinstance(value, set) else id(value)


def everything(model: nn.Module) -> dict[str, Any]:
    """What must not change, as comparable values."""
    found: dict[str, Any] = {}
    for name, module in model.named_modules():
        inside = ("_modules", "_parameters", "_buffers")
        held = {key: contents(value, 1 if key in inside else 4) for key, value in vars(module).items() if key != "_c"}
        found[name] = [list(held.items()), module.training]
    for name, parameter in model.named_parameters():
        found[f"parameter {name}"] = (bits(parameter), bits(parameter.grad), id(parameter.grad), parameter.requires_grad)
        found[f"version {name}"] = parameter._version
    found["classes"] = [contents(Fills.passes), contents(Fills.shared)]
    found["names"] = [name for name, _ in model.named_modules()]
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
            parameter.grad = torch.randn(parameter.shape, dtype=parameter.dtype)


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


# -- every model, through every door ---------------------------------------------------------------------------------------------


@dataclasses.dataclass
class Record:
    calls: int = 0


@dataclasses.dataclass(slots=True)
class Slots:
    calls: int = 0
    rows: list[int] = dataclasses.field(default_factory=list)


class Meter:
    """As training loops have them."""

    def __init__(self) -> None:
        self.count, self.sum, self.rows, self.inner = 0, torch.zeros(2), [0], Record()

    def update(self, value: float) -> None:
        self.count += 1
        self.sum += value
        self.rows.append(self.count)
        self.inner.calls += 1


class Fills(nn.Module):
    """Its forward pass fills containers of every kind, writes into arrays and tensors that are no buffers, and draws numbers."""

    passes, shared = 0, [torch.zeros(1)]  # of the class

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.act, self.head = nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 3)
        self.seen, self.last, self.queue = {0}, deque([1.0], maxlen=2), deque([1, 2])
        self.by_name: OrderedDict[str, Any] = OrderedDict(a=1)
        self.many: defaultdict[str, list[Any]] = defaultdict(list, a=[1])
        self.count = Counter("ab")
        self.nested: Any = {"rows": [[1], {2}], "deep": {"deeper": {"deepest": [0]}}}
        self.array, self.tensor, self.pair = np.zeros(3), torch.zeros(2), ([0], {0})
        self.record, self.space = Record(), types.SimpleNamespace(steps=[0])
        self.slots, self.meters = Slots(), {"loss": Meter()}
        self.plain = [nn.BatchNorm1d(4)]  # no submodule, since it stands in a plain list
        self.rng, self.generator = np.random.default_rng(0), torch.Generator().manual_seed(0)
        self.own = random.Random(0)

    def forward(self, x: Tensor) -> Any:
        self.seen.add(len(self.seen))
        self.last.append(float(x.sum()))
        self.queue.popleft() if self.queue else self.queue.extend((3, 4))
        self.by_name.move_to_end("a")
        self.by_name["x"] = x
        self.many["b"].append(x)
        self.many["a"].append(2)
        self.count.update("abc")
        self.nested["rows"][0].append(3)
        self.nested["rows"][1].clear()
        self.nested["deep"]["deeper"]["deepest"].insert(0, x)
        self.array += 1
        self.tensor.add_(1)
        self.pair[0].append(1)
        self.pair[1].add(1)
        self.record.calls += 1
        self.space.steps.append(self.space)
        self.slots.calls += 1
        self.slots.rows.append(1)
        self.meters["loss"].update(1.0)
        Fills.passes += 1
        Fills.shared.append(x)
        self.plain[0](torch.ones(2, 4) * len(self.seen))
        self.rng.random(), torch.rand(1, generator=self.generator), self.own.random()
        return self.head(self.act(self.layer(x)))


class Writes(nn.Module):
    """Its forward pass writes into its weights (max_norm, clamp_, a running sum), and leaves a new attribute and a new module."""

    total: Tensor  # a Parameter, which += writes into
    calls: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.layer, self.act = nn.Embedding(11, 5, max_norm=0.5), nn.Linear(5, 4), nn.ReLU()
        self.head, self.total = nn.Linear(4, 3), nn.Parameter(torch.zeros(1))
        self.register_buffer("calls", torch.zeros(1))

    def forward(self, x: Tensor) -> Any:
        with torch.no_grad():
            self.layer.weight.clamp_(-0.1, 0.1)
            self.layer.bias.data.mul_(0.5)
            self.total += 1
        self.calls += 1
        self.left = x
        self.layer.extra = nn.Identity()
        return self.head(self.act(self.layer(x + self.embed(torch.arange(5)).mean(0))))


class Scripted(nn.Module):
    """A scripted part with dropout, running statistics and a counter."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.act, self.head = nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 3)
        self.part = torch.jit.script(nn.Sequential(nn.BatchNorm1d(4), nn.Dropout(0.5)))
        self.counter = torch.jit.script(Counts())

    def forward(self, x: Tensor) -> Any:
        return self.head(self.act(self.counter(self.part(self.layer(x)))))


class Counts(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.calls: Any = torch.jit.Attribute(0, int)

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return x


class Hooked(nn.Module):
    """Hooks on gradients of every kind, on modules and on tensors; they would double what they see, and note that they ran."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.act, self.head = nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 3)
        self.heard: list[str] = []
        self.act.register_full_backward_hook(self._full)
        self.act.register_full_backward_pre_hook(self._pre)
        self.layer.weight.register_hook(self._tensor)

    def _full(self, module: Any, into: Any, out: Any) -> Any:
        self.heard.append("full")
        return tuple(None if grad is None else 2 * grad for grad in into)

    def _pre(self, module: Any, out: Any) -> Any:
        self.heard.append("pre")
        return tuple(2 * grad for grad in out)

    def _tensor(self, grad: Tensor) -> Tensor:
        self.heard.append("tensor")
        return 2 * grad

    def forward(self, x: Tensor) -> Any:
        h = self.act(self.layer(x))
        if h.requires_grad:
            h.retain_grad()
            h.register_hook(self._tensor).remove()
            h.register_hook(self._tensor)
        return self.head(h)


MODELS: dict[str, Kind] = {
    **KINDS,
    "fills": (Fills, lambda: zoo.numbers(3, 5), ["act"]),
    "writes": (Writes, lambda: zoo.numbers(3, 5), ["act"]),
    "scripted": (Scripted, lambda: zoo.numbers(3, 5), ["act"]),
    "hooked": (Hooked, lambda: zoo.numbers(3, 5), ["head"]),
    "custom": (zoo.Custom, lambda: zoo.numbers(3, 5), ["cube"]),
    "vit": (zoo.vit, lambda: {"pixel_values": zoo.numbers(2, 1, 8, 8)}, ["vit.layernorm"]),
    "llama": (zoo.llama, lambda: {"inputs_embeds": zoo.numbers(2, 3, 8)}, ["model.layers.0.mlp"]),
    "places": (Places, lambda: zoo.numbers(3, 3, 4), ["act"]),
    "class token": (ClassToken, lambda: zoo.numbers(3, 4, 4), ["act"]),
}


REFUSED = {("scripted", "prune")}


def through(door: str, model: nn.Module, fed: Any, layers: list[str]) -> Any:
    if door == "prune":
        return kag.prune(model, fed)
    if door == "tracker":
        tracker = kag.Tracker(model, fed, layers, every=1, k=1)
        tracker.step(1)
        tracker.finish()
        return tracker
    mode, precision = ("train", "model") if door == "measure, train" else ("eval", "float64")
    return kag.measure(model, fed, layers=layers, k=1, mode=mode, precision=precision)


DOORS = ["measure", "measure, train", "tracker", "prune"]


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("kind", MODELS)
def test_every_model_is_as_it_was_bit_for_bit(kind: str, door: str) -> None:
    """Each kind and each door in both precisions, though not each pair."""
    dtype = (torch.float32, torch.float64)[(list(MODELS).index(kind) + DOORS.index(door)) % 2]
    if kind == "leaves" and door == "prune":
        pytest.skip("PyTorch cannot copy the old weight_norm")
    make, inputs, layers = MODELS[kind]
    model = zoo.seeded(make).to(dtype)
    fed = {name: value.to(dtype) for name, value in inputs().items()} if isinstance(inputs(), dict) else inputs().to(dtype)
    prepare(model, 3)
    if door != "measure, train":  # where running statistics of one point would be taken
        model.train()
    before, states = everything(model), random_states()
    refused = pytest.raises(InputError) if (kind, door) in REFUSED else contextlib.nullcontext()
    with refused:  # what cannot be measured is left as it was, too
        assert through(door, model, fed, layers)
    assert everything(model) == before
    assert random_states() == states
    if kind == "hooked":
        assert model.heard == []


def test_weights_cached_by_the_user_are_neither_used_nor_replaced() -> None:
    def make(seed: int) -> nn.Module:
        torch.manual_seed(seed)
        return nn.Sequential(torch.nn.utils.parametrizations.weight_norm(nn.Linear(5, 4)), nn.Tanh())

    model, x = make(0), zoo.numbers(3, 5)
    states = {0: make(1).state_dict(), 1: make(2).state_dict()}
    expected = kag.measure_series(model, states, x, k=1).table
    with torch.nn.utils.parametrize.cached():
        before = model(x)
        pd.testing.assert_frame_equal(kag.measure_series(model, states, x, k=1).table, expected)
        assert torch.equal(model(x), before)


def test_a_counter_in_a_scripted_part_is_put_back() -> None:
    model = zoo.seeded(Scripted).train()
    for door in ("measure", "measure, train", "tracker"):
        through(door, model, zoo.numbers(3, 5), ["act"])
        assert model.counter.calls == 0
        assert model.part[1].training


@pytest.mark.parametrize("wide", [3, 20])
def test_hooks_on_gradients_change_no_number(wide: int) -> None:
    class Silent(Hooked):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(4, wide)

        def forward(self, x: Tensor) -> Any:
            return self.head(self.act(self.layer(x)))

    class Loud(Silent):
        forward = Hooked.forward

    x, plain = zoo.numbers(3, 5), zoo.seeded(Silent)
    for module in plain.modules():
        module._backward_hooks.clear()
        module._backward_pre_hooks.clear()
    loud = zoo.seeded(Loud)
    ours = torch.nn.modules.module.register_module_full_backward_hook(lambda m, i, o: loud.heard.append("all"))
    try:
        for layer_map, layer in (("input", "head"), ("block", "act"), ("output", "layer")):
            tables = [kag.measure(model, x, layers=layer, layer_map=layer_map, k=1).table for model in (plain, loud)]
            pd.testing.assert_frame_equal(*tables)
        assert kag.prune(plain, x, 0.3)[1].removed == kag.prune(loud, x, 0.3)[1].removed
    finally:
        ours.remove()
    assert loud.heard == []
    loud(x).sum().backward()  # afterwards they are heard again
    assert {"full", "pre", "tensor"} <= set(loud.heard)


class Packs(nn.Module):
    """Keeps what it needs on the way back in eight bits, as libraries that save memory do."""

    def __init__(self, inside: bool) -> None:
        super().__init__()
        self.inside, self.layer, self.act, self.head = inside, nn.Linear(5, 4), nn.GELU(), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Any:
        with packed() if self.inside else contextlib.nullcontext():
            return self.head(self.act(self.layer(x)))


def packed() -> contextlib.AbstractContextManager[None]:
    return torch.autograd.graph.saved_tensors_hooks(lambda t: (t.dtype, (t * 8).to(torch.int8)), lambda p: p[1].to(p[0]) / 8)


@pytest.mark.parametrize("layer_map", ["input", "block", "output"])
def test_hooks_on_saved_tensors_change_no_number(layer_map: str) -> None:
    x, model = zoo.numbers(3, 5), zoo.seeded(lambda: Packs(False))
    plain = kag.measure(model, x, layers=["act", "head"], layer_map=layer_map)
    inside = kag.measure(zoo.seeded(lambda: Packs(True)), x, layers=["act", "head"], layer_map=layer_map)
    grad = torch.autograd.functional.jacobian(zoo.seeded(lambda: Packs(True)), x)
    with packed():
        outside = kag.measure(model, x, layers=["act", "head"], layer_map=layer_map)
        again = torch.autograd.functional.jacobian(model, x)
    for report in (inside, outside):
        pd.testing.assert_frame_equal(report.table, plain.table)
        assert report.findings == plain.findings
    assert torch.equal(grad, again), "the hooks are there again"
    with torch.autograd.graph.disable_saved_tensors_hooks("no"):
        pd.testing.assert_frame_equal(kag.measure(model, x, layers=["act", "head"], layer_map=layer_map).table, plain.table)


def test_a_pass_begins_with_the_same_weights_whatever_the_pass_before_wrote() -> None:
    class Decays(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.act = nn.Linear(5, 4), nn.Tanh()

        def forward(self, x: Tensor) -> Any:
            with torch.no_grad():
                self.layer.weight.mul_(0.5)
            return self.act(self.layer(x))

    model, x = zoo.seeded(Decays), zoo.numbers(3, 5)
    report = kag.measure(model, x, layers="act", k=1)
    W = model.layer.weight.detach().double() / 2
    J = (1 - torch.tanh(x.double() @ W.T + model.layer.bias.double()) ** 2)[:, :, None] * W
    top = report.table.query("score == 'top' and k == 1").sort_values("point")["value"]
    np.testing.assert_allclose(top, J.detach().abs().amax((1, 2)), rtol=1e-12)


class Stores(nn.Module):
    """An array of Python's and a sparse buffer, which a pass fills."""

    sparse: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.act, self.rows = nn.Linear(5, 5), nn.ReLU(), array.array("i", [1, 2])
        self.register_buffer("sparse", torch.eye(5).to_sparse())

    def forward(self, x: Tensor) -> Any:
        self.rows.append(3)
        return self.act(torch.sparse.mm(self.sparse, self.layer(x).T).T)


def test_arrays_and_sparse_buffers() -> None:
    model, x = zoo.seeded(Stores).train(), zoo.numbers(3, 5)
    plain = kag.measure(nn.Sequential(copy.deepcopy(model.layer), nn.ReLU()), x, layers="1", k=1).table
    for one in (model, copy.deepcopy(model).double()):
        found = kag.measure(one, x, layers="act", k=1).table
        np.testing.assert_allclose(found["value"].to_numpy(), plain["value"].to_numpy(), rtol=1e-12)
        assert list(one.rows) == [1, 2]
        assert all(module.training for module in one.modules())


class Stubborn(list[int]):
    """Cannot be filled again."""

    def extend(self, values: Any) -> None:
        raise RuntimeError("never")


def test_one_thing_that_cannot_be_put_back_does_not_keep_the_others() -> None:
    model, x = zoo.seeded(Stores).train(), zoo.numbers(3, 5)
    model.act.stubborn = Stubborn()
    model.act.register_forward_hook(lambda module, args, output: module.stubborn.append(1))
    with pytest.raises(RuntimeError, match="never"):
        kag.measure(model, x, layers="act", k=1)
    assert list(model.rows) == [1, 2]
    assert all(module.training for module in model.modules())


class Sets(nn.Module):
    """Changes what holds for all of a process, in its forward pass, and fails after ``passes`` of them."""

    def __init__(self, passes: int = 10**9) -> None:
        super().__init__()
        self.layer, self.act, self.left = nn.Linear(5, 4), nn.ReLU(), passes

    def forward(self, x: Tensor) -> Any:
        self.left -= 1
        warnings.simplefilter("ignore")
        y = self.act(self.layer(x)) + torch.zeros(4).to(x)
        torch.set_num_threads(torch.get_num_threads() + 1)
        torch.set_default_dtype(torch.float16)
        torch.set_default_device("meta")
        torch.use_deterministic_algorithms(True, warn_only=True)
        torch.autograd.set_detect_anomaly(True)
        torch.set_autocast_enabled("cpu", True)
        torch.set_float32_matmul_precision("medium")
        torch.backends.mha.set_fastpath_enabled(False)
        torch.backends.cuda.enable_math_sdp(False)
        torch.backends.mkldnn.set_flags(False)
        np.seterr(all="raise")
        torch.set_grad_enabled(False)
        if self.left < 0:
            raise ValueError("broken on purpose")
        return y


def process_settings() -> list[Any]:
    return [
        (torch.get_num_threads(), torch.get_default_dtype(), torch.get_default_device(), torch.is_grad_enabled()),
        (torch.are_deterministic_algorithms_enabled(), torch.is_anomaly_enabled(), torch.is_autocast_enabled("cpu")),
        (torch.get_float32_matmul_precision(), torch.backends.mha.get_fastpath_enabled(), torch.backends.cuda.math_sdp_enabled()),
        (torch.backends.mkldnn.enabled, np.geterr(), list(warnings.filters)),
    ]


@pytest.mark.parametrize("door", [*DOORS, "penalty", "reinit"])
def test_settings_of_the_process_are_as_before(door: str) -> None:
    x = zoo.numbers(3, 5)

    def once(model: nn.Module) -> None:
        if door == "penalty":
            kag.GeometryPenalty(model, ["act"])(x)
        elif door == "reinit":
            kag.measure(model, x, layers="act", k=1, baseline="reinit", baseline_seeds=1)
        else:
            through(door, model, x, ["act"])

    once(zoo.seeded(zoo.mlp) if door == "prune" else zoo.seeded(Sets))  # libraries that are imported now may set filters
    for passes in (10**9, 0, 5):
        before = process_settings()
        with contextlib.suppress(InputError):
            once(zoo.seeded(partial(Sets, passes)))
        assert process_settings() == before


def test_a_pass_that_changes_settings_computes_what_it_would_alone() -> None:
    x, plain = zoo.numbers(3, 5), zoo.seeded(lambda: nn.Sequential(nn.Linear(5, 4), nn.ReLU()))
    values = [kag.measure(model, x, layers=name, k=1).table["value"] for model, name in ((zoo.seeded(Sets), "act"), (plain, "1"))]
    assert values[0].equals(values[1])


def test_several_threads_leave_random_states_and_settings() -> None:
    models, x = [zoo.seeded(Draws) for _ in range(6)], zoo.numbers(3, 5)

    def work(model: nn.Module) -> Any:
        return kag.measure(model, x, layers="act", k=1).table["value"]

    states, before = random_states(), process_settings()
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(work, models))
    assert random_states() == states
    assert process_settings() == before
    assert all(one.equals(found[0]) for one in found)


def test_autocast_and_anomaly_detection_change_no_number(recwarn: pytest.WarningsRecorder) -> None:
    model, x = zoo.seeded(zoo.mlp), zoo.numbers(3, 5)
    plain = kag.measure(model, x, k=1, precision="model").table["value"]
    with torch.autocast("cpu", dtype=torch.bfloat16), torch.autograd.detect_anomaly():
        recwarn.clear()
        assert kag.measure(model, x, k=1, precision="model").table["value"].equals(plain)
        assert torch.is_anomaly_enabled()
        assert torch.is_autocast_enabled("cpu")
    assert not recwarn.list
