"""Jacobians of layer maps of every kind of model against central differences in float64, and how they were found."""

from __future__ import annotations

import contextlib
import copy
import itertools
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import layer_models as zoo
from kagscope.jacobians.compute import LayerJacobians
from kagscope.jacobians.inputs import as_inputs
from kagscope.jacobians.layers import find_calls, find_layers
from kagscope.jacobians.maps import LayerMap
from kagscope.jacobians.runner import Runner
from kagscope.jacobians.structure import outer_diagonal, same, shared_signature
from kagscope.jacobians.untouched import untouched

TOLERANCE = 2e-7  # of central differences with a step of 1e-6, relative to the largest entry or 1


def jacobians(
    model: nn.Module, inputs: Any, layer: str, kind: str = "input", **options: Any
) -> tuple[np.ndarray, LayerJacobians]:
    """(points, tokens, rows, columns) of the one call that ``layer`` names, and what found them."""
    fed = as_inputs(inputs).cast(torch.float64)
    with untouched(model, "train" if options.get("coupled") else "eval"):
        runner = Runner(model, torch.float64, 0)
        (call,) = find_calls(runner, fed, *find_layers(model, layer))
        found = LayerJacobians(LayerMap(runner, call, kind), fed, **options)  # type: ignore[arg-type]
        batches = list(found)
    J = np.concatenate([batch.jacobian.dense() for batch in batches])
    points = np.concatenate([batch.points for batch in batches])
    assert points.tolist() == sorted(points.tolist())
    return J.reshape(fed.count, -1, *J.shape[1:]), found


def own_tokens(J: np.ndarray) -> np.ndarray:
    """(B, T, m, T, n) to (B, T, m, n): each token by itself."""
    return np.stack([J[:, t, :, t] for t in range(J.shape[1])], axis=1)


def assert_close(J: np.ndarray, expected: np.ndarray, tolerance: float = TOLERANCE) -> None:
    assert J.shape == expected.shape
    assert np.abs(J - expected).max() <= tolerance * max(1.0, np.abs(expected).max())


PLAIN: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], list[str]]] = {
    "mlp": (zoo.mlp, (5,), ["0", "1", "2", "3", "4"]),
    "mlp tanh": (lambda: zoo.mlp(activation=nn.Tanh), (5,), ["1", "3"]),
    "cnn": (zoo.cnn, (1, 6, 6), ["conv1", "bn", "conv2", "relu#0", "relu#1", "pool", "head"]),
    "residual": (zoo.Residual, (5,), ["blocks.0", "blocks.1.2", "blocks.1", "head"]),
    "gru cell": (lambda: zoo.Cells(nn.GRUCell), (4, 3), ["cell#0", "cell#1", "cell#3"]),
    "lstm cell": (lambda: zoo.Cells(nn.LSTMCell), (4, 3), ["cell#0", "cell#2", "head"]),
    "functional": (zoo.Functional, (5,), ["first", "second"]),
    "custom function": (zoo.Custom, (5,), ["first", "cube", "second"]),
}
CASES = [
    (name, layer, kind) for name, (_, _, layers) in PLAIN.items() for layer in layers for kind in ("input", "block", "output")
]


@pytest.mark.parametrize(("name", "layer", "kind"), CASES)
def test_layer_map_is_its_central_difference(name: str, layer: str, kind: str) -> None:
    make, shape, _ = PLAIN[name]
    model, x = zoo.seeded(make), zoo.numbers(3, *shape)
    J, _ = jacobians(model, x, layer, kind)
    columns = zoo.layer_function(model, x, layer, kind)[1][0].numel()
    assert_close(J, zoo.central_differences(model, x, layer, kind).reshape(3, 1, -1, columns))


@pytest.mark.parametrize("layer", ["1", "3"])
def test_layer_map_is_jacrev(layer: str) -> None:
    model, x = zoo.seeded(zoo.mlp), zoo.numbers(4, 5)
    part = nn.Sequential(*list(model.double())[: int(layer) + 1])
    expected = torch.func.vmap(torch.func.jacrev(lambda u: part(u)))(x.double()).detach().numpy()
    J, _ = jacobians(model, x, layer)
    np.testing.assert_allclose(J[:, 0], expected, atol=1e-14, rtol=1e-12)


# -- sequences -------------------------------------------------------------------------------------------------------------------

SEQUENCES: dict[str, tuple[Callable[[], nn.Module], Callable[[], Any], list[str]]] = {
    "encoder": (zoo.encoder, lambda: zoo.numbers(3, 5, 4), ["layers.0", "layers.1.linear1", "layers.1.self_attn", "layers.1"]),
    "lstm": (zoo.Recurrent, lambda: zoo.numbers(3, 5, 3), ["lstm"]),
    "bert": (
        zoo.bert,
        lambda: {"inputs_embeds": zoo.numbers(2, 4, 8), "attention_mask": torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0]])},
        ["encoder.layer.0.intermediate", "encoder.layer.1"],
    ),
    "gpt2": (zoo.gpt2, lambda: {"inputs_embeds": zoo.numbers(2, 4, 8)}, ["transformer.h.0.mlp", "transformer.h.1.mlp.act"]),
    "llama": (zoo.llama, lambda: {"inputs_embeds": zoo.numbers(2, 4, 8)}, ["model.layers.0.mlp", "model.layers.1"]),
}
TOKEN_CASES = [(name, layer) for name, (_, _, layers) in SEQUENCES.items() for layer in layers]


MIXES_NOTHING: tuple[str, ...] = ("layers.1.linear1", "encoder.layer.0.intermediate", "transformer.h.0.mlp")
MIXES_NOTHING += ("transformer.h.1.mlp.act", "model.layers.0.mlp")  # as blocks


@pytest.mark.parametrize(("name", "layer"), TOKEN_CASES)
@pytest.mark.parametrize("kind", ["input", "block"])
def test_token_maps_are_brute_force(name: str, layer: str, kind: str) -> None:
    make, inputs, _ = SEQUENCES[name]
    model, given = zoo.seeded(make), inputs()
    inside32 = name == "llama"  # its norms round to float32
    brute = zoo.by_autograd if inside32 else zoo.central_differences
    tolerance = 1e-6 if inside32 else TOLERANCE
    expected = brute(model, given, layer, kind)
    J, found = jacobians(model, given, layer, kind)
    assert_close(J, own_tokens(expected), tolerance)
    some, _ = jacobians(model, given, layer, kind, tokens=[-1, 1])
    assert_close(some, own_tokens(expected)[:, [1, expected.shape[1] - 1]], tolerance)
    two, _ = jacobians(model, given, layer, kind, tokens=2)
    assert_close(two, own_tokens(expected)[:, [0, expected.shape[1] - 1]], tolerance)
    flat, _ = jacobians(model, given, layer, kind, tokens="flat")
    B, T, m, _, n = expected.shape
    assert_close(flat, expected.reshape(B, 1, T * m, T * n), tolerance)
    assert found.frame.mixing == (kind == "input" or layer not in MIXES_NOTHING)


@pytest.mark.parametrize("name", ["encoder", "lstm"])
def test_output_map_of_a_sequence(name: str) -> None:
    make, inputs, layers = SEQUENCES[name]
    model, x = zoo.seeded(make), inputs()
    expected = zoo.central_differences(model, x, layers[0], "output")
    J, _ = jacobians(model, x, layers[0], "output")
    if expected.ndim == 5:  # the model's output has tokens too: each by itself
        assert_close(J, own_tokens(expected))
    else:  # (B, classes, T, m)
        assert_close(J, expected.swapaxes(1, 2))


def test_words_have_block_and_output_maps() -> None:
    model, ids = zoo.seeded(zoo.gpt2), {"input_ids": zoo.words(2, 4)}
    for kind in ("block", "output"):
        expected = zoo.central_differences(model, ids, "transformer.h.0.mlp", kind)
        J, _ = jacobians(model, ids, "transformer.h.0.mlp", kind)
        assert_close(J, own_tokens(expected))


def test_patches_by_pixels() -> None:
    model, x = zoo.seeded(zoo.vit), zoo.numbers(2, 1, 8, 8)
    layer = next(name for name, _ in model.named_modules() if name.endswith("layers.0.mlp.activation_fn"))
    expected = zoo.central_differences(model, {"pixel_values": x}, layer, "input")  # (B, patches, m, 1, 8, 8)
    J, found = jacobians(model, x, layer, tokens=[0, 3])
    assert found.frame.out_tokens == 5
    assert_close(J, expected.reshape(2, 5, -1, 64)[:, [0, 3]])
    expected = zoo.central_differences(model, {"pixel_values": x}, layer, "output")  # (B, classes, patches, m)
    J, _ = jacobians(model, x, layer, "output")
    assert_close(J, expected.swapaxes(1, 2))


class Places(nn.Module):
    """Channels before places, as many channels as those of the input; then places before channels."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Sequential(nn.Conv1d(3, 3, 3, padding=1), nn.BatchNorm1d(3), nn.ReLU())
        self.drop, self.act, self.head = nn.Dropout(), nn.Tanh(), nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Any:
        return self.head(self.act(self.drop(self.conv(x)).transpose(1, 2)))


@pytest.mark.parametrize("length", [3, 4])
def test_channels_of_one_dimensional_convolutions_are_no_tokens(length: int) -> None:
    model, x = zoo.seeded(Places), zoo.numbers(2, 3, length)
    for layer in ("conv.0", "conv.1", "conv.2", "conv", "drop"):
        for kind in ("input", "block"):
            J, _ = jacobians(model, x, layer, kind)
            assert_close(J, zoo.central_differences(model, x, layer, kind).reshape(2, 1, 3 * length, 3 * length))
    J, _ = jacobians(model, x, "act", "block")
    assert_close(J, own_tokens(zoo.central_differences(model, x, "act", "block")))
    assert J.shape == (2, length, 3, 3)


AFTER_CONV1D: dict[str, nn.Module] = {
    "group norm": nn.GroupNorm(1, 3),
    "adaptive pooling": nn.AdaptiveAvgPool1d(2),
    "padding": nn.ZeroPad1d(1),
    "upsampling": nn.Upsample(scale_factor=2),
}


@pytest.mark.parametrize("name", AFTER_CONV1D)
def test_channels_before_places_in_whatever_follows_a_convolution(name: str) -> None:
    model = zoo.seeded(lambda: nn.Sequential(nn.Conv1d(3, 3, 3, padding=1), AFTER_CONV1D[name]))
    x = zoo.numbers(2, 3, 4)
    J, found = jacobians(model, x, "1")
    assert found.frame.out_tokens is None
    assert_close(J, zoo.central_differences(model, x, "1", "input").reshape(2, 1, found.frame.units, 12))


# -- how they are found ----------------------------------------------------------------------------------------------------------


class Tail(nn.Module):
    """A function of two affine maps of x, as a layer."""

    def __init__(self, function: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.first, self.second, self.function = nn.Linear(5, 6), nn.Linear(5, 6), function

    def forward(self, x: Tensor) -> Any:
        return self.function(self.first(x), self.second(x))


class Relu(torch.autograd.Function):
    """Named like an elementwise function, but each entry depends on its neighbour."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Any:
        ctx.save_for_backward(x)
        return (x * x.roll(1, -1)).clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        (x,) = ctx.saved_tensors
        return grads[0] * x.roll(1, -1) + (grads[0] * x).roll(-1, -1)


def neighbours(x: Tensor) -> Any:
    return Relu.apply(x)  # type: ignore[no-untyped-call]


def tanh_gelu(z: Tensor) -> Any:
    return 0.5 * z * (1 + torch.tanh(0.8 * (z + 0.044715 * z**3)))


POINTWISE: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "relu": lambda a, b: torch.relu(a),
    "gelu tanh composite": lambda a, b: tanh_gelu(a),
    "x (x > 0)": lambda a, b: a * (a > 0),
    "where": lambda a, b: torch.where(a > 0, a, 0.1 * a),
    "in place": lambda a, b: a.mul_(2).relu_(),
    "swish": lambda a, b: a * torch.sigmoid(a),
    "scaled": lambda a, b: torch.tanh(a * torch.arange(6.0).to(a) - 1),
    "sum": lambda a, b: torch.tanh(a + b),
    "affine": lambda a, b: a,
    "zero": lambda a, b: torch.relu(a - 1e6),
}
NOT_POINTWISE: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "gate": lambda a, b: a * torch.sigmoid(b),
    "softmax": lambda a, b: torch.softmax(a, -1),
    "norm": lambda a, b: a / a.norm(dim=-1, keepdim=True),
    "mean": lambda a, b: torch.relu(a - a.mean(-1, keepdim=True)) * a,
    "layer norm": lambda a, b: torch.relu(nn.functional.layer_norm(a, (6,))),
    "row by row": lambda a, b: torch.relu(a) * a[:, :1],
    "roll": lambda a, b: torch.tanh(a) * a.roll(1, -1),
    "own function": lambda a, b: neighbours(a),
    "affine of a nonlinear": lambda a, b: torch.tanh(torch.tanh(a) @ torch.ones(6, 6).to(a)),
    "residual": lambda a, b: torch.relu(a) + b,
}


@pytest.mark.parametrize("name", [*POINTWISE, *NOT_POINTWISE])
def test_factored_form_is_found_where_it_is_true(name: str) -> None:
    model = zoo.seeded(lambda: nn.Sequential(Tail((POINTWISE | NOT_POINTWISE)[name]), nn.Linear(6, 2)))
    x = zoo.numbers(4, 5)
    J, found = jacobians(model, x, "0")
    assert_close(J, zoo.by_autograd(model, x, "0", "input")[:, None])
    if name != "sum":  # W differs from unit to unit only: shared, but it starts from two tensors
        assert (found.route == "factored") == (name in POINTWISE)


@pytest.mark.parametrize(
    ("name", "layer"), [("mlp", "1"), ("mlp tanh", "1"), ("cnn", "conv1"), ("cnn", "bn"), ("cnn", "relu#0"), ("mlp", "0")]
)
def test_pointwise_after_affine_is_factored(name: str, layer: str) -> None:
    make, shape, _ = PLAIN[name]
    assert jacobians(zoo.seeded(make), zoo.numbers(3, *shape), layer)[1].route == "factored"


@pytest.mark.parametrize(("name", "layer"), [("mlp", "3"), ("cnn", "conv2"), ("residual", "blocks.0.2"), ("gru cell", "cell#0")])
def test_what_is_not_pointwise_after_affine_is_not_factored(name: str, layer: str) -> None:
    make, shape, _ = PLAIN[name]
    assert "mode" in jacobians(zoo.seeded(make), zoo.numbers(3, *shape), layer)[1].route


def test_token_mlp_is_factored_over_points_and_tokens() -> None:
    _, found = jacobians(zoo.seeded(zoo.gpt2), {"inputs_embeds": zoo.numbers(2, 4, 8)}, "transformer.h.1.mlp.c_fc", "block")
    assert found.route == "factored"


@pytest.mark.parametrize("tokens", [False, True])
def test_signature_is_a_random_row_times_the_matrix_that_all_share(tokens: bool) -> None:
    W = zoo.numbers(5, 2)
    u = zoo.numbers(*((3, 4, 2) if tokens else (3, 2))).requires_grad_()
    h = torch.tanh(u @ W.T)
    outer = outer_diagonal(h)
    assert outer is not None
    torch.testing.assert_close(outer.d, 1 - h.detach() ** 2)
    v = torch.randn(5, generator=torch.Generator().manual_seed(1)).to(W)
    torch.testing.assert_close(shared_signature(outer, u, tokens), v @ W)


def test_one_point_in_another_piece_shares_no_signature() -> None:
    u = torch.tensor([[1.0, 2.0], [-1.0, 1.0], [2.0, 1.0]], requires_grad=True)
    outer = outer_diagonal(torch.tanh(torch.relu(u) @ zoo.numbers(5, 2).T))
    assert outer is not None
    assert shared_signature(outer, u, False) is None


def test_sameness_is_relative_and_zeros_are_the_same() -> None:
    one = torch.tensor([3e-6, 1e-6])
    assert same(0 * one, 0 * one)
    assert same(one, one * (1 + 1e-6))
    assert not same(one, one * (1 + 1e-4))


def test_points_in_other_pieces_of_a_piecewise_affine_map_do_not_share_the_matrix() -> None:
    """The first two points lie in one piece, where all points have the same W; the last one does not."""
    model: Any = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 3), nn.Tanh())
    with torch.no_grad():
        model[0].weight.copy_(torch.eye(2))
        model[0].bias.zero_()
    x = torch.tensor([[1.0, 2.0], [2.0, 1.0], [3.0, 1.0], [-1.0, 1.0], [1.0, -1.0]])
    expected = zoo.by_autograd(model, x, "3", "input")[:, None]
    J, _ = jacobians(model, x, "3")
    assert_close(J, expected)
    for budget in (1, 10**4):  # batches of one: some of them factored, some not
        J, _ = jacobians(model, x, "3", budget=budget)
        assert_close(J, expected)


def test_mode_is_the_cheaper_one() -> None:
    x = zoo.numbers(2, 5)
    few_columns = zoo.seeded(lambda: nn.Sequential(nn.Linear(5, 40), nn.Tanh(), nn.Linear(40, 40)))
    many_columns = zoo.seeded(lambda: nn.Sequential(nn.Linear(5, 40), nn.Tanh(), nn.Linear(40, 2)))
    for model, route in ((few_columns, "forward mode"), (many_columns, "reverse mode")):
        J, found = jacobians(model, x, "2")
        assert found.route == route
        assert_close(J, zoo.central_differences(model, x, "2", "input")[:, None])


def test_forward_mode_of_tokens() -> None:
    """Wide outputs and few columns, mixing tokens."""

    class Mix(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(2, 3), nn.Linear(3, 30)

        def forward(self, x: Tensor) -> Any:
            return self.second(torch.tanh(self.first(x)).cumsum(1))

    model, x = zoo.seeded(lambda: nn.Sequential(Mix())), zoo.numbers(3, 4, 2)
    expected = zoo.central_differences(model, x, "0", "input")
    for tokens, kept in ((None, [0, 1, 2, 3]), ([2], [2]), ([0, 3], [0, 3])):
        J, found = jacobians(model, x, "0", tokens=tokens)
        assert found.route == "forward mode"
        assert found.frame.mixing
        assert_close(J, own_tokens(expected)[:, kept])


def test_token_mixing_that_starts_at_a_later_point_is_seen() -> None:
    class Gated(nn.Module):
        def forward(self, x: Tensor) -> Any:
            return torch.tanh(x) + torch.relu(x[:, :1, :1]) * x.roll(1, 1)

    model, x = nn.Sequential(Gated()), zoo.numbers(4, 3, 2)
    x[:3, 0, 0], x[3, 0, 0] = -1.0, 1.0
    J, _ = jacobians(model, x, "0")
    assert_close(J, own_tokens(zoo.central_differences(model, x, "0", "input")))


def test_row_by_row_where_a_function_cannot_be_batched() -> None:
    model, x = zoo.seeded(zoo.Custom), zoo.numbers(3, 5)
    assert jacobians(model, x, "second")[1].route == "reverse mode, row by row"


@pytest.mark.parametrize("name", ["mlp", "cnn", "residual", "functional", "custom function"])
@pytest.mark.parametrize("kind", ["input", "output"])
def test_a_small_budget_gives_the_same(name: str, kind: str) -> None:
    make, shape, layers = PLAIN[name]
    model, x = zoo.seeded(make), zoo.numbers(7, *shape)
    many, _ = jacobians(model, x, layers[-1], kind)
    few, found = jacobians(model, x, layers[-1], kind, budget=1)
    np.testing.assert_allclose(few, many, atol=1e-14, rtol=1e-12)
    with untouched(model):
        assert all(len(batch.points) == 1 for batch in found)


def test_what_reverse_mode_cannot_do_forward_mode_does() -> None:
    """A value that the way back needs is overwritten in place, so that PyTorch's backward raises."""

    class Overwritten(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(5, 6), nn.Linear(6, 2)

        def forward(self, x: Tensor) -> Any:
            h = torch.tanh(self.first(x))
            h *= 2
            return self.second(h)

    model, x = zoo.seeded(lambda: nn.Sequential(Overwritten())), zoo.numbers(3, 5)
    J, found = jacobians(model, x, "0")
    assert found.route == "forward mode"
    assert_close(J, zoo.central_differences(model, x, "0", "input")[:, None])


def test_rows_are_drawn_reproducibly() -> None:
    x = zoo.numbers(3, 5)
    models = [zoo.seeded(lambda: nn.Sequential(nn.Linear(5, 40), nn.Tanh(), nn.Linear(40, 30)), seed=s) for s in (0, 1)]
    for layer in ("1", "2"):
        full, _ = jacobians(models[0], x, layer)
        some, found = jacobians(models[0], x, layer, max_rows=7)
        rows = found.frame.rows
        assert 1 <= len(rows) == len(set(rows.tolist())) <= 7
        assert np.abs(full[:, :, rows] - some).max() < 1e-14
        assert np.array_equal(jacobians(models[1], x, layer, max_rows=7)[1].frame.rows, rows)
        assert not np.array_equal(jacobians(models[0], x, layer, max_rows=7, seed=1)[1].frame.rows, rows)
        assert any(f"{len(rows)} of its" in note for note in found.notes)
        with untouched(models[0]):
            values = np.concatenate([batch.values for batch in found])
        expected = models[0].double()[: int(layer) + 1](x.double()).detach().numpy()
        np.testing.assert_allclose(values, expected[:, rows], atol=1e-14)


def test_values_are_as_the_layer_returned_them() -> None:
    """An in-place ReLU follows conv1's BatchNorm and changes its output (captum #156)."""
    model, x = zoo.seeded(zoo.cnn).eval(), zoo.numbers(3, 1, 6, 6)
    double = model.double()
    expected = double.bn(double.conv1(x.double())).detach().flatten(1).numpy()
    assert (expected < 0).any()
    _, found = jacobians(model, x, "bn")
    with untouched(model):
        values = np.concatenate([batch.values for batch in found])
    np.testing.assert_allclose(values, expected, atol=1e-13)


@pytest.mark.parametrize("layer", ["bn", "relu#0", "head"])
@pytest.mark.parametrize("kind", ["input", "block"])
def test_train_mode_is_each_point_by_itself_within_its_batch(layer: str, kind: str) -> None:
    model, x = zoo.seeded(zoo.cnn), zoo.numbers(4, 1, 6, 6)
    columns = zoo.layer_function(model, x, layer, kind, train=True)[1][0].numel()
    expected = zoo.central_differences(model, x, layer, kind, train=True).reshape(4, 1, -1, columns)
    assert_close(jacobians(model, x, layer, kind, coupled=True)[0], expected)
    if layer == "bn":
        assert np.abs(jacobians(model, x, layer, kind)[0] - expected).max() > 1e-3


@pytest.mark.parametrize(("reader", "read"), [(2, 3), (5, 1), (1, 0)])
def test_a_single_pair_of_tokens_that_mix_is_seen(reader: int, read: int) -> None:
    class Pair(nn.Module):
        def forward(self, x: Tensor) -> Any:
            return torch.stack([torch.sin(x[:, t]) + (x[:, read] ** 2 if t == reader else 0) for t in range(7)], 1)

    model, x = nn.Sequential(Pair()), zoo.numbers(2, 7, 3)
    J, found = jacobians(model, x, "0")
    assert found.frame.mixing
    assert_close(J, own_tokens(zoo.central_differences(model, x, "0", "input")))


# -- calls within calls, and calls that fail -------------------------------------------------------------------------------------


class Calls(nn.Module):
    """Calls itself; and first a way that fails."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)

    def forward(self, x: Tensor, depth: int = 2) -> Any:
        if depth < 0:
            raise ValueError
        return torch.tanh((depth + 1) * self.linear(self(x, depth - 1) if depth else x))


@pytest.mark.parametrize("kind", ["input", "block"])
def test_calls_are_numbered_as_they_begin(kind: Any) -> None:
    class Outer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = Calls()

        def forward(self, x: Tensor) -> Any:
            with contextlib.suppress(ValueError):
                return self.inner(x, -1)
            return self.inner(x)

    model, x = zoo.seeded(Outer), zoo.numbers(3, 4)
    inner = copy.deepcopy(model.inner).double()

    def after(z: Tensor, depth: int) -> Tensor:
        for scale in range(depth + 1):
            z = torch.tanh((scale + 1) * inner.linear(z))
        return z

    for call, depth in enumerate((2, 1, 0)):
        J, _ = jacobians(model, x, f"inner#{call}", kind)
        expected = torch.stack([torch.autograd.functional.jacobian(lambda z, d=depth: after(z, d), one) for one in x.double()])
        assert_close(J, expected[:, None].numpy(), 1e-9)


# -- tokens of layers whose input has others -------------------------------------------------------------------------------------


class ClassToken(nn.Module):
    """Rows of an image as tokens, and one more for the class."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.mix, self.act, self.head = nn.Linear(4, 6), nn.Linear(5, 5), nn.GELU(), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Any:
        h = self.embed(x)
        h = torch.cat([h.mean(1, keepdim=True), h], 1)
        return self.head(self.act(h + self.mix(h.transpose(1, 2)).transpose(1, 2)))


@pytest.mark.parametrize(("tokens", "kept"), [(None, [0, 1, 2, 3, 4]), ([0], [0]), ([-1, 0], [0, 4]), (2, [0, 4])])
def test_tokens_of_a_layer_whose_input_has_others(tokens: Any, kept: list[int]) -> None:
    model, x = zoo.seeded(ClassToken), zoo.numbers(3, 4, 4)
    expected = zoo.central_differences(model, x, "act", "input")  # (B, tokens, m, 4, 4)
    J, found = jacobians(model, x, "act", tokens=tokens)
    assert_close(J, expected.reshape(3, 5, 6, 16)[:, kept])
    assert found.frame.tokens == tuple(kept)
    flat, _ = jacobians(model, x, "act", tokens="flat")
    assert_close(flat, expected.reshape(3, 1, 30, 16))


def test_output_map_of_a_layer_with_other_tokens_than_the_output() -> None:
    class Shorter(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.act, self.mix = nn.Tanh(), nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Any:
            return self.mix(self.act(x).transpose(1, 2)).transpose(1, 2)

    model, x = zoo.seeded(Shorter), zoo.numbers(2, 4, 5)
    expected = zoo.central_differences(model, x, "act", "output")  # (B, 3, 5, 4, 5)
    J, _ = jacobians(model, x, "act", "output", tokens=[1])
    assert_close(J, expected.reshape(2, 15, 4, 5)[:, None, :, 1])


# -- values, and the road of our own nets ----------------------------------------------------------------------------------------


def blocks(depth: int = 3) -> nn.Sequential:
    """Layers as kagscope's own nets name them."""
    widths = [8, 6, 7, 5][: depth + 1]
    pairs = itertools.pairwise(widths)
    parts: dict[str, nn.Module] = {f"hidden{i}": nn.Sequential(nn.Linear(*pair), nn.GELU()) for i, pair in enumerate(pairs, 1)}
    return nn.Sequential(OrderedDict([*parts.items(), ("output", nn.Linear(widths[-1], 3))]))


def test_blocks_are_factored_first_and_by_reverse_mode_deeper() -> None:
    model, x = zoo.seeded(blocks), zoo.numbers(6, 8)
    double = model.double()
    for depth, route in ((1, "factored"), (2, "reverse mode"), (3, "reverse mode")):
        J, found = jacobians(model, x, f"hidden{depth}")
        expected = torch.func.vmap(torch.func.jacrev(double[:depth]))(x.double()).detach().numpy()
        np.testing.assert_allclose(J[:, 0], expected, rtol=1e-12, atol=1e-14)
        assert found.route == route
    for depth in (1, 2, 3):
        J, _ = jacobians(model, x, f"hidden{depth}", "output")
        rest = torch.func.vmap(torch.func.jacrev(double[depth:]))(double[:depth](x.double())).detach().numpy()
        np.testing.assert_allclose(J[:, 0], rest, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("name", ["mlp", "cnn", "gpt2", "ids"])
@pytest.mark.parametrize("budget", [1, 2**30])
def test_values_at_further_inputs(name: str, budget: int) -> None:
    cases: dict[str, tuple[Callable[[], nn.Module], Any, Any, str, str]] = {
        "mlp": (zoo.mlp, zoo.numbers(2, 5), zoo.numbers(7, 5, seed=2), "3", "input"),
        "cnn": (zoo.cnn, zoo.numbers(2, 1, 6, 6), zoo.numbers(5, 1, 6, 6, seed=2), "relu#1", "input"),
        "gpt2": (
            zoo.gpt2,
            {"inputs_embeds": zoo.numbers(2, 4, 8)},
            {"inputs_embeds": zoo.numbers(3, 4, 8, seed=2)},
            "transformer.h.1.mlp.act",
            "block",
        ),
        "ids": (zoo.gpt2, {"input_ids": zoo.words(2, 4)}, {"input_ids": zoo.words(3, 4, seed=2)}, "transformer.h.1.mlp", "block"),
    }
    make, few, more, layer, kind = cases[name]
    model = zoo.seeded(make)
    options: dict[str, Any] = {"tokens": [0, 2]} if kind == "block" else {}
    _, found = jacobians(model, few, layer, kind, budget=budget, **options)
    _, there = jacobians(model, more, layer, kind, **options)
    with untouched(model):
        expected = np.concatenate([batch.values for batch in there])
        values = found.values(as_inputs(more).cast(torch.float64))
    assert values.shape == (len(there.map.start(there.inputs)) * len(found.frame.tokens), len(found.frame.rows))
    np.testing.assert_allclose(values, expected, rtol=1e-13, atol=1e-15)
