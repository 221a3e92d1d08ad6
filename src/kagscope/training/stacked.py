"""Several networks of one shape as one flat block of parameters; for MLPs with hand-written gradients.

The speed of small networks on a CPU is limited by the overhead of each operation and by passes over memory.
Elementwise operations and Adam therefore run once over all networks, matrix products once per network, and nothing is allocated
in a step. ``benchmarks/training.py`` compares this with one network after another, batched products under autograd, and vmap.

A network's result must not depend on its neighbours. Matrix products see one network at a time. Elementwise operations treat the
last few numbers of a block in scalar code, which may round differently, so every network's part of every block is padded to a
multiple of 64 numbers, more than the width of any vector unit.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

_PAD = 64
_aten: Any = torch.ops.aten

# name: (activation(z, out), gradient(dh, z, h, out)), each in one pass over memory
_ELEMENTWISE: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "gelu": (lambda z, h: _aten.gelu.out(z, out=h), lambda dh, z, h, dz: _aten.gelu_backward.grad_input(dh, z, grad_input=dz)),
    "relu": (
        lambda z, h: torch.clamp_min(z, 0, out=h),
        lambda dh, z, h, dz: _aten.threshold_backward.grad_input(dh, h, 0, grad_input=dz),
    ),
    "tanh": (lambda z, h: torch.tanh(z, out=h), lambda dh, z, h, dz: _aten.tanh_backward.grad_input(dh, h, grad_input=dz)),
    "silu": (lambda z, h: _aten.silu.out(z, out=h), lambda dh, z, h, dz: _aten.silu_backward.grad_input(dh, z, grad_input=dz)),
}


class Batch:
    """Data of one step: inputs (batch, n) and targets (batch, outputs) of each network."""

    def __init__(self, batch: int, inputs: list[Tensor], targets: list[Tensor]) -> None:
        self.batch, self.inputs, self.targets = batch, inputs, targets


Work = TypeVar("Work", bound=Batch)


class Stacked(ABC, Generic[Work]):
    """Parameters and gradients of ``n`` networks, each a row of a padded matrix.

    Attributes:
        parameters: float32 ``(n, P)``; row s holds the weights and biases of network s, each padded to a multiple of 64.
        gradients: gradients of the mean loss, in the same layout.
    """

    def __init__(self, states: Sequence[Mapping[str, Tensor]], device: str = "cpu") -> None:
        """Copy ``states`` (state dicts of networks without buffers, all of one shape) to ``device``."""
        self.device = device
        self.names = list(states[0])
        shapes = [tuple(states[0][name].shape) for name in self.names]
        offsets = [0]
        for shape in shapes:
            offsets.append(offsets[-1] + _padded_length(math.prod(shape)))
        self._slices = list(zip(offsets[:-1], shapes, strict=True))
        self.n = len(states)
        self.parameters = torch.zeros(self.n, offsets[-1], device=device)
        self.gradients = torch.zeros_like(self.parameters)
        for s, state in enumerate(states):
            for view, name in zip(self._parts(self.parameters[s]), self.names, strict=True):
                view.copy_(state[name])

    def _parts(self, row: Tensor) -> list[Tensor]:
        return [row[start : start + math.prod(shape)].view(shape) for start, shape in self._slices]

    def parts(self, s: int) -> list[Tensor]:
        """Views of the parameters of network ``s``, in the order of :attr:`names`."""
        return self._parts(self.parameters[s])

    def gradient_parts(self, s: int) -> list[Tensor]:
        """Views of the gradients of network ``s``, in the order of :attr:`names`."""
        return self._parts(self.gradients[s])

    def state(self, s: int) -> dict[str, Tensor]:
        """A copy of the state dict of network ``s``, on the CPU."""
        return {name: view.clone().cpu() for name, view in zip(self.names, self._parts(self.parameters[s]), strict=True)}

    def module(self, s: int, model: nn.Module) -> nn.Module:
        """``model`` with its parameters replaced by views of network ``s`` in the block."""
        for name, view in zip(self.names, self.parts(s), strict=True):
            model.get_parameter(name).data = view
        return model

    @abstractmethod
    def workspace(self, batch: int) -> Work:
        """Buffers for steps with ``batch`` images per network."""

    @abstractmethod
    def backward(self, work: Work, squared_error: bool = False) -> None:
        """Write the gradients of every network's mean cross-entropy, or squared error, over inputs and targets of ``work``."""


class StackedModules(Stacked[Batch]):
    """Networks of any architecture, with gradients by autograd, one network at a time."""

    def __init__(
        self, models: Sequence[nn.Module], states: Sequence[Mapping[str, Tensor]], sizes: tuple[int, int], device: str = "cpu"
    ) -> None:
        """Copy ``states`` to ``device`` and load them into ``models``; ``sizes``: dimensions of input and output."""
        super().__init__(states, device)
        self.sizes = sizes
        self._models = [self.module(s, model) for s, model in enumerate(models)]

    def workspace(self, batch: int) -> Batch:
        inputs, targets = ([torch.zeros(batch, size, device=self.device) for _ in self._models] for size in self.sizes)
        return Batch(batch, inputs, targets)

    def backward(self, work: Batch, squared_error: bool = False) -> None:
        loss_of = nn.functional.mse_loss if squared_error else nn.functional.cross_entropy
        for s, model in enumerate(self._models):
            with torch.enable_grad():
                loss = loss_of(model(work.inputs[s]), work.targets[s])
                gradients = torch.autograd.grad(loss, list(model.parameters()))
            for view, gradient in zip(self.gradient_parts(s), gradients, strict=True):
                view.copy_(gradient)


class StackedMLP(Stacked["Workspace"]):
    """MLPs whose elementwise operations run over all networks at once."""

    def __init__(self, states: Sequence[Mapping[str, Tensor]], activation: str, device: str = "cpu") -> None:
        """Copy ``states`` (state dicts of :func:`kagscope.training.models.mlp`, all of one shape) to ``device``."""
        super().__init__(states, device)
        self.weights, self.biases = self._views(self.parameters)
        self.weight_gradients, self.bias_gradients = self._views(self.gradients)
        self.sizes = [self.weights[0][0].shape[1], *(weight.shape[0] for weight in self.weights[0])]
        self._activation, self._activation_gradient = _ELEMENTWISE[activation]

    def _views(self, block: Tensor) -> tuple[list[list[Tensor]], list[list[Tensor]]]:
        """Weights and biases of each network, from first to last layer."""
        parts = [self._parts(row) for row in block]
        return [row[0::2] for row in parts], [row[1::2] for row in parts]

    def workspace(self, batch: int) -> Workspace:
        return Workspace(self, batch)

    def backward(self, work: Workspace, squared_error: bool = False) -> None:
        """Write the gradients of every network's mean cross-entropy over ``work.inputs`` and ``work.targets``.

        With ``squared_error`` the loss is the mean of (z_L - target)^2 over batch and outputs, and dz_L is 2 (z_L - target) over
        their number.

        With z_l = h_{l-1} W_l^T + b_l and h_l = act(z_l): dz_L = (softmax(z_L) - target) / batch, dW_l = dz_l^T h_{l-1},
        db_l = sum of dz_l over the batch, dh_{l-1} = dz_l W_l, dz_l = dh_l act'(z_l).
        """
        last = len(self.sizes) - 2
        for layer in range(last + 1):
            for s in range(self.n):
                torch.addmm(self.biases[s][layer], work.h[layer][s], self.weights[s][layer].t(), out=work.z[layer][s])
            if layer < last:
                self._activation(work.z_block[layer], work.h_block[layer + 1])
        if squared_error:
            torch.sub(work.z_block[last], work.target_block, out=work.dz_block[last])
            work.dz_block[last].mul_(2 / (work.batch * self.sizes[-1]))
        else:
            for s in range(self.n):
                torch.softmax(work.z[last][s], 1, out=work.dz[last][s])
            work.dz_block[last].sub_(work.target_block).mul_(1 / work.batch)
        for layer in range(last, -1, -1):
            if layer < last:
                self._activation_gradient(
                    work.dh_block[layer + 1], work.z_block[layer], work.h_block[layer + 1], work.dz_block[layer]
                )
            for s in range(self.n):
                dz = work.dz[layer][s]
                torch.mm(dz.t(), work.h[layer][s], out=self.weight_gradients[s][layer])
                torch.mv(dz.t(), work.ones, out=self.bias_gradients[s][layer])
                if layer:
                    torch.mm(dz, self.weights[s][layer], out=work.dh[layer][s])


class Workspace(Batch):
    """Activations and their gradients for one batch size: a padded block per layer, and its view for each network."""

    def __init__(self, nets: StackedMLP, batch: int) -> None:
        self.ones = torch.ones(batch, device=nets.device)
        inputs, outputs = nets.sizes[:-1], nets.sizes[1:]
        self.h_block, self.h = _blocks(nets, batch, inputs)
        self.dh_block, self.dh = _blocks(nets, batch, inputs)
        self.z_block, self.z = _blocks(nets, batch, outputs)
        self.dz_block, self.dz = _blocks(nets, batch, outputs)
        [self.target_block], [targets] = _blocks(nets, batch, outputs[-1:])
        super().__init__(batch, self.h[0], targets)


def _blocks(nets: StackedMLP, batch: int, widths: Sequence[int]) -> tuple[list[Tensor], list[list[Tensor]]]:
    blocks = [torch.zeros(nets.n, _padded_length(batch * width), device=nets.device) for width in widths]
    return blocks, [
        [row[: batch * width].view(batch, width) for row in block] for block, width in zip(blocks, widths, strict=True)
    ]


def _padded_length(count: int) -> int:
    return -(-count // _PAD) * _PAD
