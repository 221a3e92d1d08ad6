"""What cannot be measured is refused in one clear line, before the work starts, and the model is left as it was."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

import kagscope as kag
import layer_models as zoo
from kagscope.base.errors import KagscopeError
from test_layer_maps import ClassToken


class Shapes(nn.Module):
    """Layers that give what has no Jacobian."""

    def __init__(self, wrapped: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.odd, self.spare, self.relu, self.head = Wrapped(wrapped), nn.Linear(5, 5), nn.ReLU(), nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Any:
        self.odd(x)
        return self.head(self.relu(x))


class Wrapped(nn.Module):
    def __init__(self, function: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Any:
        return self.function(x)


def failing(x: Tensor) -> Tensor:
    raise KeyError("the user's own message")


class Noisy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer, self.calls = nn.Linear(5, 4), iter(range(10**6))

    def forward(self, x: Tensor) -> Any:
        return self.layer(x) + next(self.calls)


class NoBackward(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()


class InPlace(nn.Module):
    """Overwrites what a backward pass needs: PyTorch itself cannot differentiate it in reverse mode."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.head = nn.Linear(5, 5), nn.Linear(5, 40)

    def forward(self, x: Tensor) -> Any:
        h = torch.tanh(self.layer(x))
        h *= 2
        return self.head(h)


def mlp() -> Any:
    return zoo.seeded(zoo.mlp)


def nan_mlp() -> Any:
    model = mlp()
    with torch.no_grad():
        model[2].weight[1, 2] = float("nan")
    return model


def images() -> Tensor:
    return zoo.numbers(3, 1, 6, 6)


def batch_second() -> Any:
    return zoo.seeded(lambda: zoo.Recurrent(batch_first=False))


def not_copied() -> Any:
    model = mlp()
    model.left = model(zoo.numbers(1, 5))  # part of a graph
    return model


def changed(**tensors: Any) -> dict[str, Any]:
    """State dict of the MLP with some entries replaced; None removes one."""
    state: dict[str, Any] = dict(mlp().state_dict())
    for name, tensor in tensors.items():
        key = name.replace("_", ".")
        if tensor is None:
            del state[key]
        else:
            state[key] = tensor
    return state


def nested(layout: torch.layout) -> Tensor:
    return torch.nested.nested_tensor([torch.zeros(2, 5), torch.zeros(3, 5)], layout=layout)


def exported() -> Any:
    return torch.export.export(mlp().eval(), (zoo.numbers(3, 5),))


class Grows(nn.Module):
    """Makes its last layer where it first meets an input."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.act = nn.Linear(5, 4), nn.GELU()

    def forward(self, x: Tensor) -> Any:
        h = self.act(self.layer(x))
        if not hasattr(self, "head"):
            self.head = nn.Linear(h.shape[1], 3)
        return self.head(h)


class Gated(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer, self.act = nn.Linear(5, 4), nn.Tanh()

    def forward(self, mask: Tensor, x: Tensor) -> Any:
        return self.act(self.layer(x * mask))


def two() -> tuple[Tensor, Tensor]:
    return zoo.numbers(3, 5), zoo.numbers(3, 5, seed=2)


class Stream(IterableDataset[Tensor]):
    """Gives one point at a time."""

    def __iter__(self) -> Iterator[Tensor]:
        return iter(torch.zeros(3, 5))


@dataclass
class Case:
    """A call that is refused: the model, inputs and options, and words that its message must hold."""

    words: tuple[str, ...]
    options: dict[str, Any] = field(default_factory=dict)
    model: Callable[[], Any] = mlp
    inputs: Callable[[], Any] = lambda: zoo.numbers(3, 5)


CASES: dict[str, Case] = {
    # layers
    "no such layer": Case(("'encodr'", "'0'"), {"layers": "encodr"}),
    "close names": Case(("did you mean", "'conv1'"), {"layers": "conv"}, zoo.cnn, images),
    "end of a name": Case(("did you mean", "'blocks.0'"), {"layers": "block.0"}, zoo.Residual),
    "pattern": Case(("'layers.*'", "it has"), {"layers": "layers.*"}),
    "class": Case(("Conv2d", "GELU", "Linear"), {"layers": nn.Conv2d}),
    "neither name nor class": Case(("layer 3",), {"layers": [3]}),
    "layers a number": Case(("layers is 3",), {"layers": 3}),
    "empty list": Case(("layers is empty",), {"layers": []}),
    "call number": Case(
        ("'cell'", "4 times", "#9"), {"layers": "cell#9"}, lambda: zoo.Cells(nn.GRUCell), lambda: zoo.numbers(2, 4, 3)
    ),
    "never called": Case(("'spare'", "never called"), {"layers": "spare"}, lambda: Shapes(torch.sin)),
    "output a string": Case(("'odd'", "str"), {"layers": "odd"}, lambda: Shapes(lambda x: "word")),
    "output integers": Case(("'odd'", "int64"), {"layers": "odd"}, lambda: Shapes(lambda x: x.argmax(1))),
    "output a scalar": Case(("'odd'", "scalar"), {"layers": "odd"}, lambda: Shapes(lambda x: x.sum())),
    "output without the batch": Case(("'odd'", "(5, 3)", "3 points"), {"layers": "odd"}, lambda: Shapes(lambda x: x.T)),
    "detached": Case(("'odd'", "differentiably"), {"layers": "odd"}, lambda: Shapes(lambda x: x.detach() * 2)),
    "no backward": Case(("'odd'", "must implement either the backward"), {"layers": "odd"}, lambda: Shapes(NoBackward.apply)),
    "overwritten in place": Case(("'head'", "inplace"), {"layers": "head", "mode": "train"}, InPlace),
    "nothing to measure": Case(("no layer could be measured", "odd"), {"layers": "odd*"}, lambda: Shapes(lambda x: x.detach())),
    "integer block": Case(
        ("'transformer.wte'", "integer"),
        {"layers": "transformer.wte", "layer_map": "block"},
        zoo.gpt2,
        lambda: {"input_ids": zoo.words(2, 4)},
    ),
    "batch second": Case(("'lstm'", "first dimension"), {"layers": "lstm"}, batch_second, lambda: zoo.numbers(3, 5, 3)),
    "batch second, as long": Case(("'lstm'", "first dimension"), {"layers": "lstm"}, batch_second, lambda: zoo.numbers(5, 5, 3)),
    "batch second, two": Case(("'lstm'", "first dimension"), {"layers": "lstm"}, batch_second, lambda: zoo.numbers(2, 2, 3)),
    # models
    "no module": Case(("model is builtin", "torch.nn.Module"), model=lambda: torch.sin),
    "TorchScript": Case(("TorchScript",), model=lambda: torch.jit.trace(mlp(), zoo.numbers(3, 5))),
    "meta device": Case(("'0.weight'", "meta"), model=lambda: mlp().to("meta")),
    "exported program": Case(("ExportedProgram", "Python module"), model=exported),
    "module of an exported program": Case(("eval mode", "Python module"), model=lambda: exported().module()),
    "lazy": Case(("'weight'", "not initialised"), model=lambda: nn.LazyLinear(3)),
    "no layers": Case(("no layers with parameters",), model=lambda: nn.Sequential(nn.Flatten())),
    "own error": Case(("KeyError", "the user's own message"), model=lambda: Shapes(failing)),
    "randomness of its own": Case(("randomness",), model=lambda: nn.Sequential(Noisy(), nn.ReLU())),
    "NaN weights": Case(("'3'", "at input ", "NaN"), {"layers": ["1", "3"]}, nan_mlp),
    "NaN input": Case(("'1'", "input 2", "NaN"), inputs=lambda: zoo.numbers(4, 5).index_fill(0, torch.tensor(2), float("nan"))),
    "NaN output": Case(("output of layer 'odd'", "NaN"), {"layers": "odd"}, lambda: Shapes(lambda x: x + float("nan"))),
    "batch statistics": Case(
        ('mode="train"',), model=lambda: nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4, track_running_stats=False), nn.ReLU())
    ),
    "as many points as channels": Case(
        ('mode="train"',),
        model=lambda: nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4, track_running_stats=False), nn.ReLU()),
        inputs=lambda: zoo.numbers(4, 5),
    ),
    "built by its first pass": Case(("makes head.weight, head.bias", "call it once"), {"layers": "act"}, Grows),
    "built by its first pass, output": Case(("makes head.weight",), {"layers": "act", "layer_map": "output"}, Grows),
    # inputs
    "integers": Case(("int64", "inputs_embeds", "block"), model=zoo.gpt2, inputs=lambda: {"input_ids": zoo.words(2, 4)}),
    "no points": Case(("(0, 5)", "at least one point"), inputs=lambda: torch.zeros(0, 5)),
    "a scalar": Case(("shape ()",), inputs=lambda: torch.tensor(1.0)),
    "no tensor": Case(("str",), inputs=lambda: "digits"),
    "nothing": Case(("NoneType",), inputs=lambda: None),
    "mismatched": Case(("(3, 5)", "(4, 5)", "number of points"), inputs=lambda: (torch.zeros(3, 5), torch.zeros(4, 5))),
    "wrong shape": Case(("cannot be called", "(3, 7)", "shapes"), inputs=lambda: torch.zeros(3, 7)),
    "wrong name": Case(("cannot be called", "pixels"), inputs=lambda: {"pixels": torch.zeros(3, 5)}),
    "empty loader": Case(
        ("no batch",), inputs=lambda: DataLoader(TensorDataset(torch.zeros(3, 5)), batch_size=5, drop_last=True)
    ),
    "data set": Case(("TensorDataset", "DataLoader"), inputs=lambda: TensorDataset(torch.zeros(3, 5))),
    "stream of points": Case(("Stream", "DataLoader"), inputs=Stream),
    "ragged loader": Case(("batch", "(2, 4)", "(2, 5)"), inputs=lambda: iter([torch.zeros(2, 5), torch.zeros(2, 4)])),
    "points": Case(("points is 0",), {"points": 0}),
    "points a word": Case(("points is 'all'",), {"points": "all"}),
    # labels
    "labels": Case(("(4,)", "3 points"), {"labels": np.arange(4)}),
    "labels of fewer points": Case(("(1,)", "3 points"), {"labels": np.arange(1), "points": 2}),
    "labels of two dimensions": Case(("(3, 1)",), {"labels": np.zeros((3, 1), int)}),
    # inputs that are no tensors, or lack a dimension
    "big-endian": Case(("'>f4'", "astype('float32')"), inputs=lambda: zoo.numbers(3, 5).numpy().astype(">f4")),
    "big-endian integers": Case(("'>i8'", "int64"), inputs=lambda: {"input": np.arange(15, dtype=">i8").reshape(3, 5)}),
    "words in an array": Case(("<U1", "numbers"), inputs=lambda: np.array([["a", "b"]])),
    "complex array": Case(("complex64", "numbers"), inputs=lambda: np.zeros((3, 5), np.complex64)),
    "complex tensor": Case(("complex",), inputs=lambda: torch.zeros(3, 5, dtype=torch.complex64)),
    "nested tensor": Case(("nested", "to_padded_tensor"), inputs=lambda: nested(torch.strided)),
    "jagged tensor": Case(("nested", "to_padded_tensor"), inputs=lambda: (nested(torch.jagged),)),
    "sparse tensor": Case(("sparse", "to_dense"), inputs=lambda: zoo.numbers(3, 5).to_sparse()),
    "masked array": Case(("masked array", "filled"), inputs=lambda: np.ma.masked_array(np.zeros((3, 5)))),
    "sparse array of SciPy": Case(("coo_array",), inputs=lambda: scipy.sparse.coo_array(np.eye(3, 5))),
    "memory": Case(("memoryview",), inputs=lambda: memoryview(np.zeros((3, 5)).data)),
    "tensor without data": Case(("fake",), inputs=lambda: FakeTensorMode().from_tensor(zoo.numbers(3, 5))),
    "data frame": Case(("DataFrame", "to_numpy"), inputs=lambda: pd.DataFrame(np.zeros((3, 5)))),
    "data frame by name": Case(("DataFrame", "to_numpy"), inputs=lambda: {"input": pd.DataFrame(np.zeros((3, 5)))}),
    "series": Case(("Series", "to_numpy"), inputs=lambda: pd.Series(np.zeros(5))),
    "one point of numbers": Case(("x[None]", "batch dimension"), inputs=lambda: torch.zeros(5)),
    "one grey image": Case(("x[None]", "batch dimension"), model=zoo.cnn, inputs=lambda: torch.zeros(1, 6, 6)),
    "one image": Case(
        ("x[None]", "batch dimension"),
        model=lambda: nn.Sequential(nn.Conv2d(3, 2, 3), nn.ReLU()),
        inputs=lambda: torch.zeros(3, 6, 6),
    ),
    # which input
    "several inputs": Case(("mask: float32 (3, 5)", "x: float32 (3, 5)", "wrt='mask' or wrt='x'"), {}, Gated, two),
    "several by name": Case(
        ("mask: float32 (3, 5)", "wrt='mask' or wrt='x'"), {}, Gated, lambda: dict(zip(("mask", "x"), two(), strict=True))
    ),
    "no such input": Case(("wrt is 'y'", "'mask' or 'x'"), {"wrt": "y"}, Gated, two),
    "no such position": Case(("wrt is 2", "'mask' or 'x'"), {"wrt": 2}, Gated, two),
    "an input of integers": Case(("wrt is 'mask'", "int64", "'x'"), {"wrt": "mask"}, Gated, lambda: (two()[0].long(), two()[1])),
    "wrt a list": Case(("wrt",), {"wrt": [0]}, Gated, two),
    "token beside other inputs": Case(
        ("[0, 99]", "5 tokens"), {"layers": "act", "tokens": [0, 99]}, ClassToken, lambda: zoo.numbers(3, 4, 4)
    ),
    # options
    "k zero": Case(("k is 0",), {"k": 0}),
    "k large": Case(("k is (1, 9)",), {"k": (1, 9)}),
    "k a fraction": Case(("k is 1.5",), {"k": 1.5}),
    "k none": Case(("k is ()",), {"k": ()}),
    "layer_map": Case(("layer_map is 'jacobian'", "'block'"), {"layer_map": "jacobian"}),
    "mode": Case(("mode is 'test'", "'train'"), {"mode": "test"}),
    "precision": Case(("precision is 'float16'", "'float64'"), {"precision": "float16"}),
    "memory_budget": Case(("memory_budget: ", "1048576", "got 10"), {"memory_budget": 10}),
    "memory_budget a word": Case(("memory_budget: ", "integer", "'1 GB'"), {"memory_budget": "1 GB"}),
    "max_rows": Case(("max_rows: ", "2", "got 1"), {"max_rows": 1}),
    "rel_error": Case(("rel_error: ", "less than 1", "got 2"), {"rel_error": 2}),
    "rel_error within a budget": Case(("budget.rel_error: ", "got 2"), {"budget": {"rel_error": 2}}),
    "seed": Case(("seed: ", "0", "got -1"), {"seed": -1}),
    "no such option": Case(("colour: unknown option", "layer_map", "rel_error"), {"colour": "red"}),
    "close to an option": Case(("layermap: unknown option", "did you mean layer_map"), {"layermap": "input"}),
    "close to one of the budget": Case(("rel_eror: unknown option", "did you mean rel_error"), {"rel_eror": 0.1}),
    "unknown in a budget": Case(("budget.rel_eror: unknown", "did you mean rel_error"), {"budget": {"rel_eror": 0.1}}),
    "scores": Case(("no score 'kl_unform'", "did you mean kl_uniform"), {"scores": ["kl_unform"]}),
    "scores a word": Case(("scores is 'pr'", "list of names"), {"scores": "pr"}),
    "spec and options": Case(("spec and k, layers", "both given"), {"spec": kag.MeasureSpec(), "k": 1, "layers": ["1"]}),
    "no spec": Case(("spec is {", "MeasureSpec"), {"spec": {"k": 2}}),
    "selection": Case(("'sphere(7)'", "ball(7)"), {"selections": "sphere(7)"}),
    "selection a number": Case(("selection", "7"), {"selections": 7}),
    "selection without positions": Case(("ball(1)", "image_shape"), {"selections": "ball(1)"}),
    "image_shape": Case(("image_shape=(2, 2)", "4 pixels", "5 columns"), {"selections": "ball(1)", "image_shape": (2, 2)}),
    "image_shape unused": Case(("image_shape=(2, 2)", "5 columns"), {"image_shape": (2, 2)}),
    "positions": Case(("positions", "(3", "5 columns"), {"selections": "ball(1)", "positions": np.arange(3)}),
    "groups": Case(("groups", "(2,)", "5 columns"), {"groups": [0, 1]}),
    "two layouts": Case(("image_shape", "groups", "together"), {"image_shape": (1, 5), "groups": [0] * 5}),
    "token": Case(
        ("[0, 7]", "'layers.0'", "5 tokens"), {"layers": "layers.0", "tokens": [0, 7]}, zoo.encoder, lambda: zoo.numbers(2, 5, 4)
    ),
    "no token": Case(("tokens", "0"), {"layers": "layers.0", "tokens": 0}, zoo.encoder, lambda: zoo.numbers(2, 5, 4)),
    "tokens a word": Case(("tokens is 'all'", "'flat'"), {"tokens": "all"}),
    "no tokens": Case(("tokens is []", "positive number"), {"tokens": []}),
    "tokens below one": Case(("tokens is -1", "positive number"), {"tokens": -1}),
    "a map of windows without an image": Case(("window_map is 3", "image_shape=(height, width)"), {"window_map": 3}),
    "tokens a fraction": Case(("tokens is 1.5",), {"tokens": 1.5}),
    # baselines
    "a baseline that lacks": Case(("another architecture", "no '2.bias'"), {"baseline": changed(**{"2_bias": None})}),
    "a baseline of another shape": Case(
        ("'2.weight'", "(4, 7)", "(4, 6)"), {"baseline": changed(**{"2_weight": torch.zeros(4, 7)})}
    ),
    "a baseline with more": Case(("'5.bias'", "in addition"), {"baseline": changed(**{"5_bias": torch.zeros(2)})}),
    "a baseline of numbers": Case(("'2.bias'", "list"), {"baseline": changed(**{"2_bias": [0.0] * 4})}),
    "a baseline that is not finite": Case(
        ("baseline", "NaN or infinite"), {"baseline": changed(**{"0_weight": torch.full((6, 5), torch.nan)})}
    ),
    "another model": Case(("another architecture", "'0.weight'"), {"baseline": zoo.mlp(7)}),
    "a baseline of a kind": Case(("baseline is int", "'reinit'"), {"baseline": 3}),
    "no seeds": Case(("baseline_seeds is 0",), {"baseline": "reinit", "baseline_seeds": 0}),
    "seeds a word": Case(("baseline_seeds is 'ten'",), {"baseline": "reinit", "baseline_seeds": "ten"}),
    "a model that cannot be copied": Case(("cannot be copied", "baseline"), {"baseline": "reinit"}, not_copied),
    "a missing checkpoint": Case(("nowhere.safetensors",), {"baseline": "nowhere.safetensors"}),
}


@pytest.mark.parametrize("name", CASES)
def test_is_refused_in_one_line(name: str, capfd: pytest.CaptureFixture[str]) -> None:
    case = CASES[name]
    model, inputs = case.model(), case.inputs()
    before = _state(model)
    with pytest.raises(KagscopeError) as caught:
        kag.measure(model, inputs, **case.options)
    message = str(caught.value)
    assert "\n" not in message
    assert [word for word in case.words if word not in message] == [], message
    assert len(message) < 500
    assert capfd.readouterr() == ("", "")
    assert _state(model) == before


@pytest.mark.parametrize(
    ("name", "inside"),
    {
        "torch.func": lambda call, x: torch.func.grad(lambda z: (call(), z.sum())[1])(x),
        "torch.func ": lambda call, x: torch.vmap(lambda z: (call(), z)[1])(x),
        "jit.trace": lambda call, x: torch.jit.trace(lambda z: (call(), z * 2)[1], x),
        "make_fx": lambda call, x: make_fx(lambda z: (call(), z * 2)[1])(x),
        "FakeTensorMode": lambda call, x: under(FakeTensorMode(), call),
        "torch.compile": lambda call, x: torch.compile(lambda z: (call(), z)[1], backend="eager")(x),
    }.items(),
)
@pytest.mark.parametrize("door", [kag.measure, kag.prune])
def test_where_tensors_hold_no_numbers_it_says_so(name: str, inside: Any, door: Any) -> None:
    model, x = mlp(), zoo.numbers(3, 5)
    with pytest.raises(Exception, match=f"cannot be measured inside .*{name.strip()}") as caught:
        inside(lambda: door(model, x), x)
    assert "\n" not in str(caught.value).partition("outside")[0]
    assert len(kag.measure(model, x).table)


def under(mode: Any, call: Callable[[], Any]) -> None:
    with mode:
        call()


def _state(model: Any) -> Any:
    if not isinstance(model, nn.Module) or isinstance(model, torch.jit.ScriptModule):
        return None
    modules = [(m.training, len(m._forward_hooks), len(m._forward_pre_hooks), len(m._backward_hooks)) for m in model.modules()]
    lazy = any(isinstance(m, nn.modules.lazy.LazyModuleMixin) for m in model.modules())
    known = (
        {}
        if lazy
        else {name: tensor.detach().cpu().numpy().tobytes() for name, tensor in model.state_dict().items() if not tensor.is_meta}
    )
    return modules, known, torch.get_rng_state().numpy().tobytes()


PRUNED = [
    name for name in CASES if CASES[name].model is mlp and not CASES[name].options and name not in ("NaN input", "empty loader")
]


@pytest.mark.parametrize("name", [*PRUNED, "one image", "module of an exported program"])
def test_prune_refuses_the_same_in_one_line(name: str) -> None:
    case = CASES[name]
    with pytest.raises(KagscopeError) as caught:
        kag.prune(case.model(), case.inputs())
    assert "\n" not in str(caught.value)
