"""Units of a model: the layers that make them, the layers that read them, and the steps in between.

A *unit* is an output of a Linear layer or an output channel of a convolution.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor, nn


@dataclass(frozen=True)
class Weight:
    """A parameter or buffer: its module and its name there."""

    owner: nn.Module
    path: str
    attribute: str
    tensor: Tensor


@dataclass(frozen=True)
class Layer:
    """A call of a Linear layer or convolution.

    Attributes:
        name: name of the module that owns the weight.
        kind: "linear" (weight (m, n)), "convolution" (m, n, …) or "addmm" (n, m).
        call: index of the call.
        weight, bias: parameters; ``bias`` may be None.
        takes_bias: whether a bias can be created: the owner is a Linear or convolution module.
        zero_padded: the convolution pads with zeros.
    """

    name: str
    kind: str
    call: int
    weight: Weight
    bias: Weight | None
    takes_bias: bool
    zero_padded: bool = False

    @property
    def units(self) -> int:
        return self.weight.tensor.shape[1 if self.kind == "addmm" else 0]


@dataclass(frozen=True)
class Reader:
    """A layer that reads a group's units along ``axis`` of its input, ``width`` columns for each (several after a flatten)."""

    layer: Layer
    axis: int
    width: int


@dataclass(eq=False)
class UnitGroup:
    """Units that can only be removed together.

    Attributes:
        makers: layers whose outputs they are: one, or several whose outputs are multiplied.
        readers: layers that read them.
        per_unit: parameters and buffers in between with one number per unit, such as a BatchNorm's.
        names: names of modules that return a value of these units: the layer, the activation, ….
        reason: why they cannot be removed; empty if they can.
    """

    makers: list[Layer]
    readers: list[Reader] = field(default_factory=list)
    per_unit: list[Weight] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    reason: str = ""

    @property
    def size(self) -> int:
        return self.makers[0].units

    def block(self, reason: str) -> None:
        self.reason = self.reason or reason
