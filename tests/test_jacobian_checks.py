"""Jacobians that autograd gets wrong: operators and functions with part of the rules only, and what stands under no_grad."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import kagscope as kag
import layer_models as zoo
from kagscope.base.errors import InputError
from kagscope.jacobians import check
from test_layer_maps import assert_close, jacobians

LIBRARY = torch.library.Library("kagscope_tests", "DEF")
LIBRARY.define("sine(Tensor x) -> Tensor")
LIBRARY.impl("sine", lambda x: torch.from_numpy(np.sin(x.detach().numpy())), "CPU")


@torch.library.custom_op("kagscope_tests::wave", mutates_args=())
def wave(x: Tensor) -> Tensor:
    """Has a registered backward, and no rule for forward mode."""
    return torch.sin(x)


def _save(ctx: Any, inputs: Any, output: Any) -> None:
    ctx.save_for_backward(inputs[0])


wave.register_autograd(lambda ctx, grad: grad * torch.cos(ctx.saved_tensors[0]), setup_context=_save)


@torch.library.custom_op("kagscope_tests::plain", mutates_args=())
def plain(x: Tensor) -> Tensor:
    """Has no backward at all."""
    return torch.sin(x)


class WrongBackward(torch.autograd.Function):
    """x^3, whose gradient is written as 2 x^2."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        return grads[0] * 2 * ctx.saved_tensors[0] ** 2


class WrongForwardMode(torch.autograd.Function):
    """x^3 with the right backward; its forward-mode rule is zero."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return x**3

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.save_for_backward(inputs[0])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        return grads[0] * 3 * ctx.saved_tensors[0] ** 2

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor) -> Any:
        return torch.zeros_like(tangents[0])


class WrongBatchRule(torch.autograd.Function):
    """The identity, whose rule for a batch doubles it."""

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None: ...

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        return grads[0]

    @staticmethod
    def vmap(info: Any, in_dims: Any, x: Tensor) -> tuple[Tensor, int]:
        return 2 * x, in_dims[0]


class WrongInBatches(WrongBackward):
    """x^3 whose backward is right for one cotangent and doubled for several at once."""

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        return WrongBatchRule.apply(grads[0] * 3 * ctx.saved_tensors[0] ** 2)  # type: ignore[no-untyped-call]


class Middle(nn.Module):
    """A function between two Linear layers."""

    def __init__(self, function: Callable[[Tensor], Tensor], columns: int, rows: int) -> None:
        super().__init__()
        self.first, self.function, self.second = nn.Linear(columns, 6), function, nn.Linear(6, rows)

    def forward(self, x: Tensor) -> Any:
        return self.second(self.function(self.first(x)))


def gate(h: Tensor) -> Tensor:
    with torch.no_grad():
        factor = torch.sigmoid(3 * h)
    return torch.tanh(h) * factor


@torch.no_grad()
def decorated(h: Tensor) -> Tensor:
    return torch.sigmoid(h)


def several(h: Tensor) -> Tensor:
    with torch.no_grad():
        top = h.max(1, keepdim=True)
        low, high = h.chunk(2, 1)
    return h * top.values + torch.cat([high, low], 1) * h


SHAPES = pytest.mark.parametrize(("columns", "rows"), [(6, 4), (6, 9), (6, 10), (2, 9), (5, 40)])
CONSTANTS: dict[str, Callable[[Tensor], Tensor]] = {
    "no_grad": gate,
    "decorator": lambda h: h * decorated(h),
    "several outputs": several,
    "detach": lambda h: h * h.detach(),
    "data": lambda h: h * h.data,
}


@SHAPES
@pytest.mark.parametrize("name", CONSTANTS)
def test_what_stands_under_no_grad_or_detach_is_a_constant_on_every_route(name: str, columns: int, rows: int) -> None:
    model, x = zoo.seeded(lambda: nn.Sequential(Middle(CONSTANTS[name], columns, rows))), zoo.numbers(3, columns)
    J, found = jacobians(model, x, "0")
    assert_close(J, zoo.by_autograd(model, x, "0", "input")[:, None], 1e-12)
    assert check.CONSTANT in found.notes


@SHAPES
def test_inference_mode_inside_a_model_is_no_grad(columns: int, rows: int) -> None:
    def inferred(h: Tensor) -> Tensor:
        with torch.inference_mode():
            factor = torch.sigmoid(3 * h)
        return torch.tanh(h) * factor

    model, x = zoo.seeded(lambda: nn.Sequential(Middle(inferred, columns, rows))), zoo.numbers(3, columns)
    J, found = jacobians(model, x, "0")
    same = zoo.seeded(lambda: nn.Sequential(Middle(gate, columns, rows)))
    assert_close(J, zoo.by_autograd(same, x, "0", "input")[:, None], 1e-12)
    assert check.CONSTANT in found.notes
    with torch.inference_mode():
        assert torch.zeros(1).is_inference()  # PyTorch's own way is back


@SHAPES
@pytest.mark.parametrize("function", [lambda h: wave(h), WrongForwardMode.apply, lambda h: h + wave(h)])
def test_operators_without_a_right_rule_for_forward_mode(function: Callable[[Tensor], Tensor], columns: int, rows: int) -> None:
    model, x = zoo.seeded(lambda: nn.Sequential(Middle(function, columns, rows))), zoo.numbers(3, columns)
    J, found = jacobians(model, x, "0")
    assert_close(J, zoo.by_autograd(model, x, "0", "input")[:, None], 1e-12)
    assert found.notes == []
    assert found.route == "reverse mode"


@pytest.mark.parametrize(("columns", "rows"), [(6, 4), (40, 9)])
def test_a_wrong_rule_for_several_cotangents_at_once_is_seen(columns: int, rows: int) -> None:
    model, x = zoo.seeded(lambda: nn.Sequential(Middle(WrongInBatches.apply, columns, rows))), zoo.numbers(3, columns)
    J, found = jacobians(model, x, "0")
    assert_close(J, zoo.by_autograd(model, x, "0", "input")[:, None], 1e-12)
    assert found.route == "reverse mode, row by row"


class OneToken(nn.Module):
    """Its first token alone goes through an operator without a rule for forward mode."""

    def __init__(self, columns: int, rows: int, mixing: bool) -> None:
        super().__init__()
        self.first, self.second, self.mixing = nn.Linear(columns, rows), nn.Tanh(), mixing

    def forward(self, x: Tensor) -> Any:
        h = self.first(x)
        h = h + h.mean(1, keepdim=True) if self.mixing else h
        return self.second(torch.cat([wave(h[:, :1]), h[:, 1:]], 1))


@SHAPES
@pytest.mark.parametrize("mixing", [False, True])
def test_every_token_is_checked(columns: int, rows: int, mixing: bool) -> None:
    model, x = zoo.seeded(lambda: nn.Sequential(OneToken(columns, rows, mixing))), zoo.numbers(2, 5, columns)
    J, _ = jacobians(model, x, "0")
    whole = zoo.by_autograd(model, x, "0", "input").reshape(2, 5, rows, 5, columns)
    assert_close(J, np.stack([whole[:, token, :, token] for token in range(5)], 1), 1e-12)


@SHAPES
@pytest.mark.parametrize(
    ("function", "named"),
    [
        (torch.ops.kagscope_tests.sine, "kagscope_tests::sine"),
        (lambda h: h + torch.ops.kagscope_tests.sine(h), "kagscope_tests::sine"),
        (lambda h: plain(h), "kagscope_tests.plain"),
        (WrongBackward.apply, "WrongBackward"),
        (lambda h: h + WrongBackward.apply(h), "WrongBackward"),  # type: ignore[no-untyped-call]
    ],
)
@pytest.mark.parametrize("kind", ["input", "output"])
def test_operators_that_autograd_does_not_know_are_named(
    function: Callable[[Tensor], Tensor], named: str, columns: int, rows: int, kind: str
) -> None:
    model, x = zoo.seeded(lambda: Middle(function, columns, rows)), zoo.numbers(3, columns)
    with pytest.raises(InputError, match=named) as caught:
        jacobians(model, x, "second" if kind == "input" else "first", kind)
    assert "\n" not in str(caught.value)
    J, _ = jacobians(model, x, "second", "block")  # not on the way
    assert_close(J, np.broadcast_to(model.second.weight.detach().numpy(), (3, 1, rows, 6)), 1e-6)


def test_dynamically_quantised_layers_are_refused_by_name() -> None:
    model = nn.Sequential(nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 3), nn.Tanh())
    quantised = torch.ao.quantization.quantize_dynamic(model, {nn.Linear}, dtype=torch.qint8)
    for layer in ("1", "3"):
        with pytest.raises(InputError, match="quantized::linear_dynamic has no autograd kernel"):
            kag.measure(quantised, zoo.numbers(3, 5), layers=layer, k=1)
    assert len(kag.measure(quantised, zoo.numbers(3, 5), layers="3", layer_map="block", k=1).table)


QUIET: dict[str, Callable[[Tensor], Tensor]] = {
    "softmax that subtracts a detached maximum": lambda h: torch.softmax(h - h.max(1, keepdim=True).values.detach(), -1),
    "rounding": lambda h: h + h.round(),
    "a branch": lambda h: torch.tanh(h) if float(h.detach().abs().sum()) > 0 else h,
    "an operator that is not used": lambda h: (torch.ops.kagscope_tests.sine(h.detach()), h * h)[1],
    "a kink where the point lies": lambda h: torch.relu(h - h.detach()) + h,
}


@pytest.mark.parametrize("name", QUIET)
def test_what_changes_nothing_is_not_noted(name: str) -> None:
    model, x = zoo.seeded(lambda: nn.Sequential(Middle(QUIET[name], 5, 4))), zoo.numbers(3, 5)
    J, found = jacobians(model, x, "0")
    assert_close(J, zoo.by_autograd(model, x, "0", "input")[:, None], 1e-12)
    assert found.notes == []


class Bounded(WrongBackward):
    """x^3, whose gradient is cut off where x is large."""

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        return grads[0] * 3 * ctx.saved_tensors[0].clamp(-1, 1) ** 2


@SHAPES
@pytest.mark.parametrize("place", [2, 30, 69])
def test_a_backward_that_is_wrong_at_a_later_point_is_refused(place: int, columns: int, rows: int) -> None:
    model, x = zoo.seeded(lambda: Middle(Bounded.apply, columns, rows)), 0.1 * zoo.numbers(70, columns)
    assert kag.measure(model, x, layers="second", k=1, points=20).layers[0]["notes"] == []
    x[place] *= 50
    with pytest.raises(InputError, match="Bounded is not its derivative"):
        jacobians(model, x, "second")


def test_a_derivative_that_is_right_along_one_direction_by_chance_is_refused() -> None:
    class Half(torch.autograd.Function):
        """x^2 + sin y, of which the derivative by y is forgotten."""

        @staticmethod
        def forward(ctx: Any, x: Tensor, y: Tensor) -> Tensor:
            ctx.save_for_backward(x)
            return x * x + torch.sin(y)

        @staticmethod
        def backward(ctx: Any, *grads: Tensor) -> Any:
            return 2 * ctx.saved_tensors[0] * grads[0], None

    for size in (41, 42, 43):  # one direction misses the one in the middle
        torch.manual_seed(size)
        leaf = torch.randn(1, size, dtype=torch.float64, requires_grad=True)
        with pytest.raises(InputError, match="Half is not its derivative"):
            check.omission_note(lambda x: Half.apply(x, 0.3 * x), leaf, Half.apply(leaf, 0.3 * leaf))  # type: ignore[no-untyped-call]


def test_complex_numbers_on_the_way() -> None:
    class Modulus(nn.Module):
        def forward(self, h: Tensor) -> Tensor:
            return torch.complex(h, h.sin()).abs()

    model, x = zoo.seeded(lambda: nn.Sequential(nn.Linear(6, 4), Modulus())), zoo.numbers(3, 6)
    J, _ = jacobians(model, x, "1")
    assert_close(J, zoo.by_autograd(model, x, "1", "input")[:, None], 1e-12)


def test_complex_weights_are_doubled_too() -> None:
    class Complex(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.complex(torch.randn(6, 4), torch.randn(6, 4)))

        def forward(self, x: Tensor) -> Tensor:
            return (torch.complex(x, x.sin()) @ self.weight).abs()

    model, x = zoo.seeded(lambda: nn.Sequential(Complex())), zoo.numbers(3, 6)
    report = kag.measure(model, x, layers="0", k=1, scores=["top"])
    W = model[0].weight.detach().to(torch.complex128)
    expected = torch.autograd.functional.jacobian(lambda z: (torch.complex(z, z.sin()) @ W).abs(), x[0].double()).abs().max()
    assert report.table["value"][0] == pytest.approx(float(expected), rel=1e-12)
    assert report.notes == []


class Equilibrium(nn.Module):
    """z = tanh(W z + U x), solved under no_grad; a hook on the gradient solves the adjoint equation."""

    def __init__(self, rows: int) -> None:
        super().__init__()
        self.W, self.U, self.head = nn.Linear(5, 5), nn.Linear(4, 5), nn.Linear(5, rows)
        nn.init.normal_(self.W.weight, std=0.1)

    def step(self, z: Tensor, x: Tensor) -> Tensor:
        return torch.tanh(self.W(z) + self.U(x))

    def forward(self, x: Tensor) -> Any:
        z = x.new_zeros(len(x), 5)
        with torch.no_grad():
            for _ in range(60):
                z = self.step(z, x)
        z = self.step(z, x)
        if z.requires_grad:
            at = z.detach().requires_grad_()
            value = self.step(at, x)

            def solve(grad: Tensor) -> Tensor:
                g = grad
                for _ in range(60):
                    g = torch.autograd.grad(value, at, g, retain_graph=True)[0] + grad
                return g

            z.register_hook(solve)
        return self.head(z)


@pytest.mark.parametrize("rows", [3, 30])
def test_hooks_that_give_the_derivative_of_an_implicit_layer_are_kept(rows: int) -> None:
    model, x = zoo.seeded(lambda: Equilibrium(rows)), zoo.numbers(3, 4)
    J, layer = jacobians(model, x, "head")
    double = copy.deepcopy(model).double()
    expected = [torch.autograd.functional.jacobian(lambda z: double(z[None])[0], one) for one in x.double()]
    assert_close(J[:, 0], torch.stack(expected).numpy(), 1e-10)
    assert check.HOOKED in layer.notes


def test_inputs_at_a_kink_are_not_taken_for_constants() -> None:
    model = nn.Sequential(nn.ReLU(), nn.Linear(16, 4))
    x = torch.zeros(3, 16)
    x[:, :5] = zoo.numbers(3, 5)
    assert jacobians(model, x, "1")[1].notes == []


def test_values_that_leave_pytorch_are_noted() -> None:
    def outside(h: Tensor) -> Tensor:
        return h * torch.from_numpy(np.tanh(np.asarray(h.tolist()))).to(h)

    model, x = zoo.seeded(lambda: nn.Sequential(Middle(outside, 5, 4))), zoo.numbers(3, 5)
    assert check.UNSEEN in jacobians(model, x, "0")[1].notes


def test_the_note_is_in_the_report() -> None:
    model = zoo.seeded(lambda: nn.Sequential(Middle(gate, 5, 4)))
    report = kag.measure(model, zoo.numbers(3, 5), layers="0", k=1)
    assert check.CONSTANT in report.layers[0]["notes"]
    assert any(check.CONSTANT in sentence for sentence in report.findings)


def test_forward_mode_that_fills_in_for_reverse_mode_is_confirmed_by_differences() -> None:
    """Reverse mode fails, since a value was overwritten; forward mode is wrong, since the function's rule is."""

    def overwritten(h: Tensor) -> Tensor:
        h = torch.tanh(WrongForwardMode.apply(h) + h)  # type: ignore[no-untyped-call]
        h *= 2
        return h

    model, x = zoo.seeded(lambda: nn.Sequential(Middle(overwritten, 5, 4))), zoo.numbers(3, 5)
    with pytest.raises(InputError, match="inplace"):
        jacobians(model, x, "0")


# -- what used to be refused -----------------------------------------------------------------------------------------------------


class Physics(nn.Module):
    """A network whose derivative is part of the forward pass."""

    def __init__(self, transform: Callable[..., Any]) -> None:
        super().__init__()
        self.net, self.transform = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 1)), transform
        self.layer, self.act = nn.Linear(3, 4), nn.Tanh()

    def forward(self, x: Tensor) -> Any:
        found = torch.func.vmap(self.transform(lambda z: self.net(z).sum()))(x)
        return self.act(self.layer(found if found.ndim == 2 else found.diagonal(dim1=1, dim2=2)))


@pytest.mark.parametrize("transform", [torch.func.grad, torch.func.jacrev, torch.func.hessian])
def test_models_that_use_transforms_inside(transform: Callable[..., Any]) -> None:
    model, x = zoo.seeded(lambda: Physics(transform)), zoo.numbers(4, 3)
    J, found = jacobians(model, x, "act")
    assert_close(J, zoo.by_autograd(model, x, "act", "input")[:, None], 1e-10)
    assert found.notes == []
    report = kag.measure(model, x, k=1)
    assert list(report.skipped) == ["net.1"]
    assert "torch.func transform" in report.skipped["net.1"]


class Checkpointed(nn.Module):
    """Computes its block again on the way back, in train mode."""

    def __init__(self, reentrant: bool) -> None:
        super().__init__()
        self.first, self.norm, self.act, self.last = nn.Linear(5, 6), nn.BatchNorm1d(6), nn.GELU(), nn.Linear(6, 4)
        self.reentrant = reentrant

    def block(self, x: Tensor) -> Any:
        return self.last(self.act(self.norm(self.first(x))))

    def forward(self, x: Tensor) -> Any:
        return checkpoint(self.block, x, use_reentrant=self.reentrant) if self.training else self.block(x)


class Kept(Checkpointed):
    def forward(self, x: Tensor) -> Any:
        return self.block(x)


@pytest.mark.parametrize("reentrant", [True, False])
@pytest.mark.parametrize("kind", ["input", "block", "output"])
def test_activation_checkpointing_in_train_mode(reentrant: bool, kind: str) -> None:
    model, x = zoo.seeded(lambda: Checkpointed(reentrant)), zoo.numbers(5, 5)
    kept = zoo.seeded(lambda: Kept(reentrant))
    J, _ = jacobians(model, x, "act", kind, coupled=True)
    np.testing.assert_allclose(J, jacobians(kept, x, "act", kind, coupled=True)[0], rtol=1e-12, atol=1e-14)
    own = torch.utils.checkpoint.CheckpointFunction.apply
    kag.measure(model, x, layers="act", mode="train", k=1)
    assert torch.utils.checkpoint.CheckpointFunction.apply == own


def test_a_padding_mask_in_eval_mode() -> None:
    layer = nn.TransformerEncoderLayer(6, 2, 8, batch_first=True)
    encoder = zoo.seeded(lambda: nn.TransformerEncoder(copy.deepcopy(layer), 1)).eval()
    pad = torch.zeros(3, 4, dtype=torch.bool)
    pad[0, 3] = True
    x = zoo.numbers(3, 4, 6)
    J, _ = jacobians(encoder, {"src": x, "src_key_padding_mask": pad}, "layers.0.linear1")
    encoder = copy.deepcopy(encoder).double()
    seen: list[Tensor] = []
    encoder.layers[0].linear1.register_forward_hook(lambda module, args, output: seen.append(output))

    def value(u: Tensor) -> Tensor:
        encoder.train()  # the fused path has no derivative; without dropout the modes agree
        encoder.layers[0].apply(lambda m: setattr(m, "p", 0.0) if isinstance(m, nn.Dropout) else None)
        encoder.layers[0].self_attn.dropout = 0.0
        encoder(u, src_key_padding_mask=pad)
        return seen[-1]

    full = torch.autograd.functional.jacobian(value, x.double())
    expected = torch.stack([torch.stack([full[b, t, :, b, t] for t in range(4)]) for b in range(3)]).numpy()
    assert_close(J, expected, 1e-10)
