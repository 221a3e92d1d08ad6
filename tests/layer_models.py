"""Small models of many kinds, and the Jacobian of any layer map by central differences, written without kagscope's own code."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import kagscope as kag

os.environ["HF_HUB_OFFLINE"] = "1"

STEP = 1e-6


def mlp(width: int = 6, activation: type[nn.Module] = nn.GELU) -> nn.Sequential:
    return nn.Sequential(nn.Linear(5, width), activation(), nn.Linear(width, 4), activation(), nn.Linear(4, 3))


class SharedReLU(nn.Module):
    """A CNN whose one in-place ReLU follows several layers and changes what they returned."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn = nn.Conv2d(1, 3, 3, padding=1), nn.BatchNorm2d(3)
        self.conv2, self.pool = nn.Conv2d(3, 2, 3), nn.AvgPool2d(2)
        self.relu, self.head = nn.ReLU(inplace=True), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Any:
        x = self.relu(self.bn(self.conv1(x)))
        x = self.pool(self.relu(self.conv2(x)))
        return self.head(x.flatten(1))


def cnn() -> SharedReLU:
    """With running statistics and an affine part that are not trivial."""
    model = SharedReLU()
    with torch.no_grad():
        model.bn.running_mean.normal_()  # type: ignore[union-attr]
        model.bn.running_var.uniform_(0.5, 2)  # type: ignore[union-attr]
        model.bn.weight.normal_()
        model.bn.bias.normal_()
    return model


class Residual(nn.Module):
    """f(x) + x, twice, added in place as ResNets do."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(nn.Sequential(nn.LayerNorm(5), nn.Linear(5, 7), nn.ReLU(), nn.Linear(7, 5)) for _ in range(2))
        self.head = nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Any:
        for block in self.blocks:
            out = block(x)
            out += x
            x = out
        return self.head(x)


class Cells(nn.Module):
    """A recurrent cell called once for each of four steps."""

    def __init__(self, kind: type[nn.GRUCell | nn.LSTMCell]) -> None:
        super().__init__()
        self.cell, self.head = kind(3, 4), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Any:
        state: Any = None
        for step in x.unbind(1):
            state = self.cell(step, state)
        return self.head(state[0] if isinstance(state, tuple) else state)


class Recurrent(nn.Module):
    """An LSTM, which returns a tuple."""

    def __init__(self, batch_first: bool = True) -> None:
        super().__init__()
        self.batch_first = batch_first
        self.lstm, self.head = nn.LSTM(3, 4, batch_first=batch_first), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Any:
        out, _ = self.lstm(x if self.batch_first else x.transpose(0, 1))
        return self.head(out[:, -1] if self.batch_first else out[-1])


class Functional(nn.Module):
    """Activations that are no modules, an update in place of a slice, and control flow that depends on the data."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(5, 6), nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Any:
        z = self.first(x)
        z[:, 2:4] *= 2
        h = torch.tanh(z)
        factors = [2.0 if float(row.detach().sum()) > 0 else 0.5 for row in h]
        return nn.functional.silu(self.second(h)) * torch.tensor(factors).to(h)[:, None]


class Cube(torch.autograd.Function):
    """x^3 in the old style, which functorch cannot batch."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return torch.from_numpy(grads[0].numpy() * 3 * x.detach().numpy() ** 2)  # numpy: no batching


class Custom(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.cube, self.second = nn.Linear(5, 5), Cubed(), nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Any:
        return self.second(self.cube(self.first(x)))


class Cubed(nn.Module):
    def forward(self, x: Tensor) -> Any:
        return Cube.apply(x)  # type: ignore[no-untyped-call]


def encoder() -> nn.TransformerEncoder:
    layer = nn.TransformerEncoderLayer(4, 2, dim_feedforward=6, batch_first=True, dropout=0.1)
    return nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)


class Odd(nn.Module):
    """Layers of all sorts, of which some cannot be measured."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.act, self.spare = nn.Linear(5, 4), nn.ReLU(), nn.Linear(2, 2)
        self.words, self.cut = nn.Embedding(10, 5), Cut()

    def forward(self, x: Tensor) -> Any:
        self.words(torch.arange(3))
        self.cut(x)
        return self.act(self.layer(x))


class Cut(nn.Module):
    def forward(self, x: Tensor) -> Any:
        return x.detach() + 1


def bert() -> nn.Module:
    from transformers import BertConfig, BertModel

    sizes: dict[str, Any] = {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 10}
    return BertModel(BertConfig(vocab_size=20, max_position_embeddings=16, **sizes))


def vit() -> nn.Module:
    from transformers import ViTConfig, ViTForImageClassification

    sizes: dict[str, Any] = {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 10}
    sizes["num_labels"] = 3
    return ViTForImageClassification(ViTConfig(image_size=8, patch_size=4, num_channels=1, **sizes))


def gpt2() -> nn.Module:
    from transformers import GPT2Config, GPT2LMHeadModel

    return GPT2LMHeadModel(
        GPT2Config(vocab_size=20, n_positions=16, n_embd=8, n_layer=2, n_head=2, bos_token_id=0, eos_token_id=0)
    )


def llama() -> nn.Module:
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes: dict[str, Any] = {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 10}
    return LlamaForCausalLM(LlamaConfig(vocab_size=20, max_position_embeddings=16, **sizes))


def seeded(make: Callable[[], nn.Module], seed: int = 0) -> Any:
    """A model whose weights depend on the seed alone."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return make()


def numbers(*shape: int, seed: int = 1, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def words(*shape: int, seed: int = 1) -> Tensor:
    return torch.randint(0, 20, shape, generator=torch.Generator().manual_seed(seed))


def layer_function(
    model: nn.Module, inputs: Any, layer: str, kind: str, *, train: bool = False
) -> tuple[Callable[[Tensor], Tensor], Tensor]:
    """A layer map of a float64 copy of a model as a function, and the value of its variable, with hooks of its own.

    Args:
        model: copied.
        inputs: a tensor, or a mapping of keyword arguments.
        layer: a module's name, with "#1" for its second call.
        kind: "input", "block" or "output".
        train: the mode.
    """
    model = copy.deepcopy(model).double().train(train).requires_grad_(False)
    path, _, number = layer.partition("#")
    module, wanted = model.get_submodule(path), int(number or 0)
    given = {name: _double(value) for name, value in inputs.items()} if isinstance(inputs, dict) else _double(inputs)
    seen: dict[str, Tensor] = {}
    calls = 0
    replace_by: Tensor | None = None

    def before(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        nonlocal calls
        calls += 1
        if calls != wanted + 1:
            return None
        name = None if args else next(iter(kwargs))
        seen["block"] = (args[0] if name is None else kwargs[name]).clone()
        if kind != "block" or replace_by is None:
            return None
        new = replace_by.clone()  # for query, key and value of self-attention alike
        return (tuple(new if a is args[0] else a for a in args), kwargs) if name is None else (args, kwargs | {name: new})

    def after(_: nn.Module, __: Any, output: Any) -> Any:
        if calls != wanted + 1:
            return None
        seen["layer"] = _first(output).clone()
        if kind != "output" or replace_by is None:
            return None
        return (replace_by.clone(), *output[1:]) if isinstance(output, tuple) else replace_by.clone()

    module.register_forward_pre_hook(before, with_kwargs=True)
    module.register_forward_hook(after)

    def run(u: Tensor | None) -> Tensor:
        nonlocal calls, replace_by
        calls, replace_by = 0, u
        fed = given
        if kind == "input" and u is not None:
            fed = {k: u if v.is_floating_point() else v for k, v in given.items()} if isinstance(given, dict) else u.clone()
        out = model(**fed) if isinstance(fed, dict) else model(fed)
        return _first(out) if kind == "output" else seen["layer"]

    with torch.no_grad():
        run(None)
    floating = next((v for v in given.values() if v.is_floating_point()), None) if isinstance(given, dict) else given
    start = {"input": floating, "block": seen["block"], "output": seen["layer"]}[kind]
    assert start is not None
    return run, start


def central_differences(model: nn.Module, inputs: Any, layer: str, kind: str, *, train: bool = False) -> np.ndarray:
    """The Jacobian of a layer map (see :func:`layer_function`) in float64, (B, *shape of the output, *shape of the variable).

    In train mode each point is moved alone, since the points of a batch share its statistics.
    """
    run, start = layer_function(model, inputs, layer, kind, train=train)
    B, n = len(start), start[0].numel()
    with torch.no_grad():
        shape = run(start).shape[1:]
        J = np.zeros((B, n, shape.numel()))
        for points in [[b] for b in range(B)] if train else [list(range(B))]:
            for j in range(n):
                move = torch.zeros(B, n, dtype=torch.float64)
                move[points, j] = STEP
                difference = run(start + move.view_as(start)) - run(start - move.view_as(start))
                J[points, j] = difference.reshape(B, -1)[points].numpy() / (2 * STEP)
    return J.swapaxes(1, 2).reshape(B, *shape, *start.shape[1:])


def by_autograd(model: nn.Module, inputs: Any, layer: str, kind: str) -> np.ndarray:
    """The same by PyTorch's own one-row-at-a-time Jacobian, for models that round to float32 inside."""
    run, start = layer_function(model, inputs, layer, kind)
    J = torch.autograd.functional.jacobian(run, start)  # (B, *out, B, *in)
    middle = J.ndim - start.ndim
    return torch.stack([J[b].select(middle - 1, b) for b in range(len(start))]).numpy()


def _double(value: Tensor) -> Tensor:
    return value.double() if value.is_floating_point() else value


def _first(output: Any) -> Tensor:
    return output if isinstance(output, Tensor) else output[0]


def trained(seed: int = 0) -> Any:
    """A model that is not at its initialisation."""
    model = seeded(mlp, seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.5).add_(0.1)
    return model


def values(report: kag.Report, layer: str, k: int, score: str, selection: str = "all", column: str = "value") -> np.ndarray:
    """A score by point (and token)."""
    t = report.table
    chosen = t[(t["layer"] == layer) & (t["k"] == k) & (t["score"] == score) & (t["selection"] == selection)]
    return np.asarray(chosen[column])
