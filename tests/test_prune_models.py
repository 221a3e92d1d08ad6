"""Pruning of many kinds of model: dead units are planted, and the smaller model has to compute the same without them."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

import kagscope as kag
from kagscope.base.errors import InputError


def kill(bias: Tensor, units: set[int]) -> None:
    """Push units far below 0, where a ReLU gives 0."""
    with torch.no_grad():
        bias[sorted(units)] = -1000.0


def check(model: nn.Module, inputs: Any, dead: dict[str, set[int]], call: Callable[[nn.Module], Tensor]) -> kag.Pruning:
    """Planted units of each layer are gone, nothing but that happened to the outputs, and the model is as it was."""
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    state = torch.get_rng_state()
    smaller, pruning = kag.prune(model, inputs)
    assert torch.equal(torch.get_rng_state(), state)
    assert [module.training for module in model.modules()] == modes == [module.training for module in smaller.modules()]
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert not any(module._forward_hooks for module in (*model.modules(), *smaller.modules()))
    assert all(parameter.grad is None and parameter.requires_grad for parameter in (*model.parameters(), *smaller.parameters()))
    for layer, units in dead.items():
        assert units <= set(pruning.removed[layer]), layer
    with torch.no_grad():
        torch.testing.assert_close(call(smaller.eval()), call(copy.deepcopy(model).eval()), rtol=1e-4, atol=1e-5)
    assert pruning.largest_change < 1e-5
    assert pruning.parameters_after < pruning.parameters_before
    assert pruning.flops_after is not None
    assert pruning.flops_before is not None
    assert 0 < pruning.flops_after < pruning.flops_before
    return pruning


class ConvNet(nn.Module):
    """Convolutions with BatchNorm, pooling, in-place functions and one or two axes of positions; flattened into Linear layers."""

    def __init__(self, axes: int, padding: int, norm: bool, flatten: str) -> None:
        super().__init__()
        conv, batch_norm = ((nn.Conv1d, nn.BatchNorm1d), (nn.Conv2d, nn.BatchNorm2d))[axes - 1]
        self.first = conv(2, 6, 3, padding=padding, bias=not norm)
        self.norm = batch_norm(6) if norm else nn.Identity()
        self.act = nn.ReLU(inplace=True)
        self.second = conv(6, 5, 3, padding=padding)
        self.axes, self.flatten = axes, flatten
        side = (8 if padding else 4) // 2
        self.third = nn.Linear(5 if flatten == "mean" else 5 * side**axes, 7)
        self.last = nn.Linear(7, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.norm(self.first(x)))
        x = self.second(x).relu_()
        x = (functional.max_pool1d if self.axes == 1 else functional.avg_pool2d)(x, 2)
        if self.flatten == "mean":
            x = x.mean(tuple(range(2, x.ndim)))
        elif self.flatten == "channels last":
            x = x.movedim(1, -1).reshape(len(x), -1)  # units are no longer in blocks: they have to be left alone
        else:
            x = x.view(x.size(0), -1) if self.flatten == "view" else x.flatten(1)
        return torch.as_tensor(self.last(functional.dropout(self.third(x).relu(), 0.5, self.training)))


@settings(max_examples=25, deadline=None)
@given(
    axes=st.integers(1, 2),
    padding=st.integers(0, 1),
    norm=st.booleans(),
    flatten=st.sampled_from(["mean", "flatten", "view"]),
    dead=st.tuples(st.sets(st.integers(1, 5), min_size=1), st.sets(st.integers(1, 4)), st.sets(st.integers(1, 6))),
    training=st.booleans(),
)
def test_convolutions(
    axes: int, padding: int, norm: bool, flatten: str, dead: tuple[set[int], set[int], set[int]], training: bool
) -> None:
    model = ConvNet(axes, padding, norm, flatten).train(training)
    if isinstance(model.norm, nn.BatchNorm1d | nn.BatchNorm2d):
        assert model.norm.running_mean is not None
        with torch.no_grad():
            model.norm.running_mean.uniform_(-1, 1)
            model.norm.weight.uniform_(0.5, 2)
    else:
        assert model.first.bias is not None
    kill(model.norm.bias if norm else model.first.bias, dead[0])  # type: ignore[arg-type]
    kill(model.second.bias, dead[1])  # type: ignore[arg-type]
    kill(model.third.bias, dead[2])
    inputs = torch.rand(7, 2, *(8,) * axes)
    planted = {"first": dead[0], "second": dead[1], "third": dead[2]}
    check(model, inputs, planted, lambda net: torch.as_tensor(net(inputs)))


def test_units_spread_by_a_change_of_shape_stay() -> None:
    model = ConvNet(2, 1, False, "channels last")
    kill(model.second.bias, {1, 2})  # type: ignore[arg-type]
    _, pruning = kag.prune(model, torch.rand(3, 2, 8, 8))
    assert "second" in pruning.skipped


@pytest.mark.parametrize("padding_mode", ["zeros", "reflect", "circular"])
@pytest.mark.parametrize("padding", [0, 1, "same"])
@pytest.mark.parametrize("level", [0.0, 0.7])
def test_a_constant_channel_before_padding(padding: int | str, padding_mode: Any, level: float) -> None:
    """A constant other than 0 is not constant where the next convolution pads with zeros."""
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.Sigmoid(), nn.Hardtanh(), nn.Conv2d(4, 2, 3, padding=padding, padding_mode=padding_mode)
    )
    first = model[0]
    assert isinstance(first, nn.Conv2d)
    assert first.bias is not None
    with torch.no_grad():
        first.weight[[1, 2]] = 0
        first.bias[[1, 2]] = torch.logit(torch.tensor(level))  # -inf gives exactly 0
        first.bias.clamp_(-200)
    inputs = torch.rand(5, 1, 9, 9)
    smaller, pruning = kag.prune(model, inputs)
    fits = level == 0 or padding == 0 or padding_mode != "zeros"
    assert pruning.removed["0"] == ((1, 2) if fits else ())
    if not fits:
        (kept,) = pruning.kept
        assert kept.units == (1, 2)
        assert "pads with zeros" in kept.reason
    torch.testing.assert_close(smaller(inputs), model(inputs))


def test_padding_as_a_step_of_its_own() -> None:
    """The units' value is looked at where the convolution reads it: zeros have been put around it."""
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Sigmoid(), nn.ZeroPad2d(1), nn.Conv2d(4, 2, 3))
    with torch.no_grad():
        next(model.parameters())[1] = 0
    _, pruning = kag.prune(model, torch.rand(3, 1, 6, 6))
    assert pruning.removed["0"] == ()
    assert [kept.units for kept in pruning.kept] == [(1,)]


class ResidualConv(nn.Module):
    """A stem, a bottleneck added to it, and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.inner, self.outer = nn.Conv2d(1, 4, 3), nn.Conv2d(4, 8, 1, bias=False), nn.Conv2d(8, 4, 3, padding=1)
        self.norm, self.pool, self.head = nn.BatchNorm2d(8), nn.AdaptiveAvgPool2d(1), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = x + self.outer(functional.relu(self.norm(self.inner(x)), inplace=True))
        return torch.as_tensor(self.head(self.pool(x).flatten(1)))


class ResidualMlp(nn.Module):
    """Blocks that add to a stream, with a learned scale, and one activation module used by all of them."""

    def __init__(self) -> None:
        super().__init__()
        self.lift, self.act, self.head = nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 2)
        self.inner = nn.ModuleList(nn.Linear(6, 9) for _ in range(2))
        self.outer = nn.ModuleList(nn.Linear(9, 6, bias=False) for _ in range(2))
        self.scale = nn.Parameter(torch.full((6,), 0.5))

    def forward(self, x: Tensor) -> Tensor:
        x = self.lift(x)
        for inner, outer in zip(self.inner, self.outer, strict=True):
            x += self.scale * outer(self.act(inner(x)))
        return torch.as_tensor(self.head(self.act(x)))


def test_residual_streams_stay() -> None:
    conv, mlp = ResidualConv(), ResidualMlp()
    kill(conv.norm.bias, {1, 7})
    images, rows = torch.rand(4, 1, 8, 8), torch.rand(9, 5)
    pruning = check(conv, images, {"inner": {1, 7}}, lambda net: torch.as_tensor(net(images)))
    assert set(pruning.skipped) == {"stem", "outer", "head"}
    for layer in mlp.inner:
        kill(layer.bias, {0, 2, 3})  # type: ignore[arg-type]
    with torch.no_grad():
        mlp.get_parameter("inner.1.weight")[5] = 0
        mlp.get_parameter("inner.1.bias")[5] = 0.8
    pruning = check(mlp, rows, {"inner.0": {0, 2, 3}, "inner.1": {0, 2, 3}}, lambda net: torch.as_tensor(net(rows)))
    assert set(pruning.skipped) == {"lift", "outer.0", "outer.1", "head"}
    assert "residual stream" in pruning.skipped["lift"]
    # unit 5 is not 0, and there is a bias to be created
    assert 5 in pruning.removed["inner.1"]


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("activation", ["relu", torch.relu])
def test_transformer_encoder(batch_first: bool, activation: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # no nested tensors without batch_first
        layer = nn.TransformerEncoderLayer(8, 2, 16, activation=activation, batch_first=batch_first)
        model = nn.TransformerEncoder(layer, 2)
    for block in model.layers:
        kill(block.linear1.bias, {1, 7, 9})
    inputs = torch.rand(6, 5, 8)
    dead = {f"layers.{place}.linear1": {1, 7, 9} for place in range(2)}
    check(model, inputs, dead, lambda net: torch.as_tensor(net(inputs)))


def test_hugging_face_models() -> None:
    transformers = pytest.importorskip("transformers")
    tokens = torch.randint(0, 40, (5, 6))
    size = {"num_hidden_layers": 2, "num_attention_heads": 2, "hidden_size": 8, "intermediate_size": 16}
    bert = transformers.BertModel(transformers.BertConfig(**size, vocab_size=40, hidden_act="relu"))
    for block in bert.encoder.layer:
        kill(block.intermediate.dense.bias, {2, 3})
    inputs = {"input_ids": tokens, "attention_mask": torch.ones_like(tokens)}
    dead = {f"encoder.layer.{place}.intermediate.dense": {2, 3} for place in range(2)}
    check(bert, inputs, dead, lambda net: torch.as_tensor(net(**inputs).last_hidden_state))

    small = {"n_layer": 2, "n_head": 2, "n_embd": 8, "n_positions": 10, "bos_token_id": 0, "eos_token_id": 0}
    gpt = transformers.GPT2LMHeadModel(transformers.GPT2Config(**small, vocab_size=40))  # gelu_new, written out in eight steps
    for block in gpt.transformer.h:
        with torch.no_grad():
            block.mlp.c_fc.weight[:, [4, 30]] = 0  # its Conv1D keeps weights as (in, out)
            block.mlp.c_fc.bias[[4, 30]] = 0.6
    dead = {f"transformer.h.{place}.mlp.c_fc": {4, 30} for place in range(2)}
    pruning = check(gpt, tokens, dead, lambda net: torch.as_tensor(net(tokens).logits))
    assert "more than once" in pruning.skipped["lm_head"]  # shared with the embedding

    llama = transformers.LlamaForCausalLM(transformers.LlamaConfig(**size, vocab_size=40, hidden_act="relu"))
    for block in llama.model.layers:
        with torch.no_grad():
            block.mlp.gate_proj.weight[[1, 6]] = 0
    dead = {f"model.layers.{place}.mlp.{part}": {1, 6} for place in range(2) for part in ("gate_proj", "up_proj")}
    check(llama, tokens, dead, lambda net: torch.as_tensor(net(tokens).logits))


ACTIVATIONS: list[nn.Module] = [
    *(
        nn.ReLU(),
        nn.ReLU(inplace=True),
        nn.ReLU6(),
        nn.LeakyReLU(),
        nn.PReLU(),
        nn.PReLU(6),
        nn.RReLU(),
        nn.ELU(),
        nn.SELU(),
        nn.CELU(),
    ),
    *(nn.GELU(), nn.GELU("tanh"), nn.SiLU(inplace=True), nn.Mish(), nn.Tanh(), nn.Sigmoid(), nn.LogSigmoid(), nn.Softplus()),
    *(nn.Softsign(), nn.Hardtanh(), nn.Hardswish(), nn.Hardsigmoid(), nn.Hardshrink(), nn.Softshrink(), nn.Tanhshrink()),
    *(nn.Threshold(0.1, 0.3), nn.Identity(), nn.Dropout(0.5), nn.AlphaDropout(0.5), nn.BatchNorm1d(6), nn.Sequential()),
]


class Written(nn.Module):
    """A ReLU and a swish written out."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.way = way

    def forward(self, x: Tensor) -> Tensor:
        if self.way == "mask":
            return x * (x > 0)
        if self.way == "where":
            return torch.where(x > 0, x, 0.1 * x)
        return x / (1 + torch.exp(-x)) if self.way == "swish" else x.clamp(min=0) ** 2


@pytest.mark.parametrize("activation", [*ACTIVATIONS, *map(Written, ("mask", "where", "swish", "square"))], ids=repr)
def test_every_activation_is_known(activation: nn.Module) -> None:
    model = nn.Sequential(nn.Linear(4, 6), activation, nn.Linear(6, 3)).train()
    with torch.no_grad():
        model.get_parameter("0.weight")[2] = 0
        model.get_parameter("0.bias")[2] = 0.9
    inputs = torch.randn(6, 4)
    check(model, inputs, {"0": {2}}, lambda net: torch.as_tensor(net(inputs)))


POOLS: list[nn.Module] = [
    *(nn.MaxPool2d(2), nn.AvgPool2d(2), nn.LPPool2d(2, 2), nn.AdaptiveMaxPool2d(3), nn.AdaptiveAvgPool2d((None, 2))),
    *(nn.Dropout2d(0.5), nn.Upsample(scale_factor=2), nn.ReflectionPad2d(1), nn.ZeroPad2d(0)),
]


@pytest.mark.parametrize("pool", POOLS, ids=repr)
def test_every_pooling_is_known(pool: nn.Module) -> None:
    model = nn.Sequential(nn.Conv2d(1, 5, 3), nn.ReLU(), pool, nn.Conv2d(5, 2, 1)).train()
    kill(model.get_parameter("0.bias"), {1, 3})
    inputs = torch.rand(4, 1, 10, 10)
    check(model, inputs, {"0": {1, 3}}, lambda net: torch.as_tensor(net(inputs)))


class Twice(nn.Module):
    """One Linear layer called twice, one read twice, one whose weight is computed, one read by two others."""

    def __init__(self) -> None:
        super().__init__()
        self.same, self.computed, self.plain = nn.Linear(5, 5), nn.Linear(5, 6), nn.Linear(6, 4)
        self.left, self.right = nn.Linear(4, 2), nn.Linear(4, 3, bias=False)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.same(self.same(x).relu()).relu()
        x = functional.linear(x, 2 * self.computed.weight, self.computed.bias).relu()
        x = self.plain(x).sigmoid()
        return self.left(x), self.right(x)


def test_shared_and_computed_weights_are_left_alone() -> None:
    model = Twice()
    kill(model.same.bias, {1, 2})
    kill(model.computed.bias, {1, 2})
    with torch.no_grad():
        model.plain.weight[3] = 0
    inputs = torch.rand(8, 5)
    pruning = check(model, inputs, {"plain": {3}}, lambda net: torch.cat(net(inputs), 1))
    assert set(pruning.units) == {"plain"}
    assert set(pruning.skipped) == {"same", "linear 5", "computed", "left", "right"}
    assert "more than once" in pruning.skipped["same"]
    assert "the weight of linear 5 is computed" in pruning.skipped["linear 5"]  # call number 5
    normed = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(4, 3)), nn.ReLU(), nn.Linear(3, 2))
    assert "the weight of 0 is computed" in kag.prune(normed, torch.rand(3, 4))[1].skipped["0"]


def test_layers_of_other_kinds_are_named() -> None:
    class Tagger(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words, self.memory, self.head = nn.Embedding(9, 4), nn.LSTM(4, 4, batch_first=True), nn.Linear(4, 2)
            self.inner = nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            return torch.as_tensor(self.head(self.inner(self.memory(self.words(x))[0]).relu()))

    _, pruning = kag.prune(Tagger(), torch.randint(0, 9, (3, 5)))
    assert set(pruning.units) == {"inner"}
    assert set(pruning.skipped) == {"words", "memory", "head"}
    assert "was not seen at work" in pruning.skipped["memory"]


class Escapes(nn.Module):
    """Hidden units that leave by another door."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.first, self.second, self.way = nn.Linear(4, 6), nn.Linear(6, 2), way

    def forward(self, x: Tensor) -> Any:
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.way != "no grad"):
            hidden = self.first(x).relu()
        if self.way == "softmax":
            return self.second(hidden.softmax(-1))
        if self.way == "width":
            return self.second(hidden.view(-1, 6))
        if self.way == "detached":
            return self.second(hidden.detach())
        if self.way == "written":
            hidden[:, 0] = 1.0
        if self.way == "overwritten":
            hidden.mul_(hidden.sigmoid())
        out = self.second(hidden)
        if self.way == "output":
            return {"out": out, "hidden": [hidden]}
        if self.way == "object":
            return SimpleNamespace(out=out, extra=[{"hidden": hidden}])
        if self.way == "sum":
            return out + hidden.sum(1, keepdim=True)
        return out * float(hidden.sum() > 0) if self.way == "value" else out


@pytest.mark.parametrize(
    ("way", "reason"),
    [
        ("output", "output of the model"),
        ("object", "output of the model"),
        ("sum", "sum"),
        ("value", "sum"),
        ("softmax", "softmax is not known"),
        ("written", "setitem"),
        ("detached", "detach"),
        ("no grad", "gradients are switched off"),
        ("overwritten", "overwritten"),
        ("width", "relies on the layer's width"),
    ],
)
def test_units_seen_elsewhere_stay(way: str, reason: str) -> None:
    torch.manual_seed(0)
    model = Escapes(way)
    kill(model.first.bias, {1, 2})
    smaller, pruning = kag.prune(model, torch.rand(5, 4))
    assert reason in (pruning.skipped["first"] if way != "width" else pruning.kept[0].reason)
    assert pruning.parameters_after == pruning.parameters_before
    assert pruning.largest_change == 0
    assert smaller is not model


class Remembers(nn.Module):
    """Keeps what it computed, and counts."""

    calls: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 6), nn.Linear(6, 2)
        self.register_buffer("calls", torch.zeros(1, dtype=torch.long))

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        self.hidden = self.first(x).relu()
        return torch.as_tensor(self.second(self.hidden)) + 0.1 * torch.randn(1)


def test_what_a_forward_pass_leaves_in_a_model_does_not_matter() -> None:
    model = Remembers()
    kill(model.first.bias, {1, 2})
    inputs = torch.rand(6, 4)
    model(inputs).sum().backward()  # model.hidden now has a history, which cannot be copied
    hidden, state = model.hidden, torch.get_rng_state()
    smaller, pruning = kag.prune(model, inputs)
    assert {1, 2} <= set(pruning.removed["first"])
    assert pruning.largest_change < 1e-6  # the same random numbers before and after
    assert torch.equal(torch.get_rng_state(), state)
    assert model.hidden is hidden
    assert model.calls == smaller.get_buffer("calls") == 1


class DependsOnData(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third = nn.Linear(4, 6), nn.Linear(6, 2), nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.first(x).relu()
        return torch.as_tensor(self.second(hidden) if x[0, 0] > 0 else self.third(hidden.tanh()))


def test_other_steps_for_other_inputs() -> None:
    from kagscope.pruning import traced

    model = DependsOnData()
    kill(model.first.bias, {1, 2})
    inputs = torch.rand(6, 4)
    assert kag.prune(model, inputs)[1].removed["first"]
    inputs[3:, 0] *= -1
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(traced, "MEMORY", 1)  # one point at a time
        _, pruning = kag.prune(model, inputs)
    assert pruning.skipped["first"] == "the forward pass takes other steps for other inputs"


def test_a_model_without_units_to_remove_comes_back_with_the_reason() -> None:
    for model, words in (
        (nn.Sequential(nn.Flatten()), "no Linear layer or convolution was seen"),
        (nn.Sequential(nn.Linear(4, 3)), "left alone 0: it is an output of the model"),
    ):
        same, pruning = kag.prune(model, torch.rand(3, 4))
        assert pruning.removed == {}
        assert pruning.parameters_after == pruning.parameters_before
        assert words in repr(pruning)
        torch.testing.assert_close(same(torch.ones(1, 4)), model(torch.ones(1, 4)))


def test_half_precision_and_single_points() -> None:
    first = nn.Linear(4, 6)
    kill(first.bias, {1, 2})
    model = nn.Sequential(first, nn.ReLU(), nn.Linear(6, 2)).to(torch.bfloat16)
    smaller, pruning = kag.prune(model, torch.rand(1, 4))
    assert {1, 2} <= set(pruning.removed["0"])
    assert {parameter.dtype for parameter in smaller.parameters()} == {torch.bfloat16}


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (torch.rand(0, 4), "at least one point"),
        (torch.rand(3, 5), r"cannot take these inputs, of shape \(3, 5\)"),
        (torch.tensor(1.0), r"shape \(\); expected at least one point"),
        (torch.tensor([[0.0, 1, 2, float("nan")]]), "inputs hold NaN"),
        ([1, 2], "inputs are list; expected a tensor"),
        ("digits", "inputs are str; expected a tensor"),
        ((torch.rand(3, 4), torch.rand(2, 4)), "differ in their number of points"),
        (torch.rand(3, 4, device="meta"), "inputs 0 are on meta, the model is on cpu"),
        ({"x": torch.rand(3, 4)}, "unexpected keyword argument 'x'"),
    ],
)
def test_bad_inputs(inputs: Any, message: str) -> None:
    model = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    with pytest.raises(InputError, match=message) as caught:
        kag.prune(model, inputs)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("labels", [torch.zeros(2, dtype=torch.long), torch.zeros(3), torch.zeros(3, 1, dtype=torch.long)])
def test_bad_labels(labels: Tensor) -> None:
    with pytest.raises(InputError, match="labels have shape"):
        kag.prune(nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)), torch.rand(3, 4), labels=labels)


def test_bad_models() -> None:
    with pytest.raises(InputError, match="model is list"):
        kag.prune([], torch.rand(3, 4))
    with pytest.raises(InputError, match="meta device"):
        kag.prune(nn.Linear(4, 3, device="meta"), torch.rand(3, 4))
    with pytest.raises(InputError, match="call the lazy model once"):
        kag.prune(nn.LazyLinear(3), torch.rand(3, 4))


def test_latency_is_measured_when_asked_for() -> None:
    model = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    assert kag.prune(model, torch.rand(3, 4))[1].latency_before is None
    _, pruning = kag.prune(model, torch.rand(3, 4), latency=True)
    assert pruning.latency_before is not None
    assert pruning.latency_after is not None
    assert pruning.latency_before > 0 < pruning.latency_after
    assert "seconds for 3 inputs" in repr(pruning)
