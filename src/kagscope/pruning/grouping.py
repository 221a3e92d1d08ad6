"""Find removable units: trace each from the layer that makes it, through steps on each unit alone, to the layers that read it.

Between the layer that makes a unit and the layers that read it there may be steps that act on each unit alone: pointwise
functions, dropout and BatchNorm in eval mode, pooling, reshapes. Products of two layers' units (gated MLPs) join them:
such units are removed together. Anything else, above all a sum with another layer's output (the residual stream), is a reason
to keep the units.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from kagscope.pruning.recorder import FunctionCall, Recording, tensors_in
from kagscope.pruning.units import Layer, Reader, UnitGroup, Weight

POINTWISE = {
    "relu", "relu_", "gelu", "silu", "silu_", "sigmoid", "sigmoid_", "tanh", "tanh_", "leaky_relu", "leaky_relu_", "elu",
    "elu_", "selu", "selu_", "celu", "celu_", "hardtanh", "hardtanh_", "relu6", "hardswish", "hardsigmoid", "mish",
    "softplus", "softsign", "tanhshrink", "softshrink", "hardshrink", "logsigmoid", "log_sigmoid", "threshold", "_threshold",
    "threshold_", "exp", "log", "log1p", "erf", "sin", "cos", "sqrt", "rsqrt", "square", "abs", "neg", "negative", "sign",
    "reciprocal", "clamp", "clamp_", "clip", "clamp_min", "clamp_max", "nan_to_num", "to", "type", "type_as", "float",
    "double", "half", "bfloat16", "clone", "contiguous", "as_tensor", "cpu", "cuda", "positive", "__neg__", "__abs__",
    "__pos__",
}  # fmt: skip
PRODUCTS = {"mul", "mul_", "multiply", "__mul__", "__rmul__", "__imul__"}
COMBINING = PRODUCTS | {
    "add", "add_", "sub", "sub_", "rsub", "subtract", "div", "div_", "divide", "true_divide", "pow", "pow_", "maximum",
    "minimum", "lerp", "__add__", "__radd__", "__iadd__", "__sub__", "__rsub__", "__isub__", "__div__", "__rdiv__",
    "__truediv__", "__rtruediv__", "__itruediv__", "__pow__", "__rpow__", "__ipow__", "masked_fill", "masked_fill_", "where",
    "addcmul", "addcdiv", "gt", "lt", "ge", "le", "greater", "less", "__gt__", "__lt__", "__ge__", "__le__",
}  # fmt: skip
DROPOUT = {"dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout", "feature_alpha_dropout"}
POOLING = {
    f"{kind}_pool{axes}d": axes for axes in (1, 2, 3) for kind in ("max", "avg", "lp", "adaptive_max", "adaptive_avg")
}  # fmt: skip
MOVING = {
    "view", "reshape", "flatten", "unflatten", "unsqueeze", "squeeze", "permute", "transpose", "swapaxes", "swapdims",
    "movedim", "moveaxis", "t", "T", "mT", "__getitem__", "select", "narrow", "expand", "expand_as", "repeat", "view_as",
    "reshape_as", "broadcast_to", "index_select", "mean", "amax", "amin", "interpolate", "upsample", "flip", "roll",
}  # fmt: skip
CONVOLUTIONS = {"conv1d": 1, "conv2d": 2, "conv3d": 3}


@dataclass(frozen=True)
class _Tag:
    """Location of a group's units in a tensor: along ``axis``, with ``width`` consecutive entries for each."""

    group: UnitGroup
    axis: int
    width: int


def unit_groups(model: nn.Module, recording: Recording) -> list[UnitGroup]:
    """All groups of units in the order of their layers, with a reason for those that cannot be removed."""
    return _Analysis(model, recording).groups


class _Analysis:
    """One pass over the recorded calls."""

    def __init__(self, model: nn.Module, recording: Recording) -> None:
        self.weights: dict[int, list[Weight]] = {}
        for path, module in model.named_modules():
            for attribute, tensor in (*module._parameters.items(), *module._buffers.items()):
                if tensor is not None:
                    self.weights.setdefault(id(tensor), []).append(Weight(module, path, attribute, tensor))
        self.uses: dict[int, int] = {}
        for call in recording.calls:
            for tensor in tensors_in(call.args, call.kwargs):
                if id(tensor) in self.weights:
                    self.uses[id(tensor)] = self.uses.get(id(tensor), 0) + 1
        self.returned = {value: name for name, value in reversed(recording.modules.items())}
        self.tags: dict[int, _Tag] = {}
        self.groups: list[UnitGroup] = []
        self.merged: dict[int, UnitGroup] = {}
        for call in recording.calls:
            self._visit(call)
        for value in recording.outputs:
            if tag := self._tag(value):
                tag.group.block("it is an output of the model")
        for group in self.groups:
            if not group.readers:
                group.block("no Linear layer or convolution was seen to read it")
        for name, value in recording.modules.items():
            if tag := self._tag(value):
                tag.group.names.append(name)

    def _tag(self, value: int) -> _Tag | None:
        tag = self.tags.get(value)
        if tag is None:
            return None
        group = tag.group
        while id(group) in self.merged:
            group = self.merged[id(group)]
        return _Tag(group, tag.axis, tag.width)

    def _visit(self, call: FunctionCall) -> None:
        tagged = [(index, tag) for index, value in enumerate(call.reads) if (tag := self._tag(value))]
        if call.name in CONVOLUTIONS or call.name in ("linear", "addmm"):
            self._layer(call, tagged)
        elif tagged:
            result = self._step(call, tagged)
            if isinstance(result, str):
                for _, tag in tagged:
                    tag.group.block(result)
            else:
                self.tags |= dict.fromkeys(call.writes[:1], result)

    # -- steps that act on each unit alone ---------------------------------------------------------------------------------

    def _step(self, call: FunctionCall, tagged: list[tuple[int, _Tag]]) -> _Tag | str:
        """Location of the units in the result, or the reason why it is unknown."""
        index, tag = tagged[0]
        shape = call.shapes[index]
        if len(call.writes) != 1:
            return f"{call.name} reads it"
        if call.name in COMBINING:
            return self._combine(call, tagged)
        if len({id(other.group) for _, other in tagged}) > 1:
            return f"{call.name} brings it together with another layer's output"
        if call.name in POINTWISE or call.name == "prelu":
            if call.name == "prelu" and not self._prelu(call, tag, shape):
                return "prelu has a weight per unit that is shared"
            return tag
        if call.name in DROPOUT:
            return "dropout is on" if call.argument(2, "training", True) and call.argument(1, "p", 0.5) else tag
        if call.name == "rrelu":
            return "rrelu draws its slopes" if call.argument(3, "training", False) else tag
        if call.name == "batch_norm":
            return self._batch_norm(call, tag)
        if call.name in POOLING:
            fits = tag.axis < len(shape) - POOLING[call.name] and not call.kwargs.get("return_indices", False)
            return tag if fits else f"{call.name} pools over the units"
        if call.name == "pad":  # two lengths per axis, from the last axis on
            return tag if 2 * (len(shape) - tag.axis - 1) >= len(call.argument(1, "pad")) else "pad adds units"
        if call.name in MOVING:
            moved = _track(call, tag, index, shape)
            return moved or f"{call.name} splits its units into parts, or mixes them"
        return f"{call.name} is not known to act on each unit alone"

    def _combine(self, call: FunctionCall, tagged: list[tuple[int, _Tag]]) -> _Tag | str:
        """A pointwise function of several tensors."""
        first, tag = tagged[0]
        if len(call.reads) == 1 and call.name not in ("where",):
            return tag
        ndim = len(call.out_shapes[0])
        axis = ndim - len(call.shapes[first]) + tag.axis
        for index, shape in enumerate(call.shapes):
            other = self._tag(call.reads[index])
            own_axis = axis - (ndim - len(shape))  # this axis in the other tensor, after broadcasting
            if other is None:
                if own_axis >= 0 and shape[own_axis] != 1:
                    return _meeting_reason(call)
            elif own_axis != other.axis or other.width != tag.width or other.group.size != tag.group.size:
                return f"{call.name} combines its units with others"
            elif other.group is not tag.group:
                if call.name not in PRODUCTS:
                    return _meeting_reason(call)
                self._merge(tag.group, other.group)
        return _Tag(tag.group, axis, tag.width)

    def _merge(self, first: UnitGroup, second: UnitGroup) -> None:
        first.makers += second.makers
        first.readers += second.readers
        first.per_unit += second.per_unit
        first.block(second.reason)
        self.merged[id(second)] = first
        self.groups.remove(second)

    def _prelu(self, call: FunctionCall, tag: _Tag, shape: tuple[int, ...]) -> bool:
        weight = call.argument(1, "weight")
        return weight.numel() == 1 or (tag.axis == 1 and tag.width == 1 and self._claim_parameters(tag.group, [weight]))

    def _batch_norm(self, call: FunctionCall, tag: _Tag) -> _Tag | str:
        mean = call.argument(1, "running_mean")
        if mean is None or call.argument(5, "training", False):
            return "a BatchNorm takes its mean over the batch"
        places = ((1, "running_mean"), (2, "running_var"), (3, "weight"), (4, "bias"))
        vectors = [vector for position, name in places if (vector := call.argument(position, name)) is not None]
        if tag.axis != 1 or tag.width != 1 or not self._claim_parameters(tag.group, vectors):
            return "a BatchNorm with shared or computed parameters reads it"
        return tag

    def _claim_parameters(self, group: UnitGroup, tensors: list[Tensor]) -> bool:
        """Record parameters with one entry per unit; return False if one is also used elsewhere."""
        weights = [self._weight(tensor) for tensor in tensors]
        group.per_unit += [weight for weight in weights if weight]
        return all(weights)

    def _weight(self, tensor: Any) -> Weight | None:
        """The parameter or buffer behind a tensor, if it belongs to one module and is used once."""
        owners = self.weights.get(id(tensor), [])
        return owners[0] if len(owners) == 1 and self.uses.get(id(tensor)) == 1 else None

    # -- layers -------------------------------------------------------------------------------------------------------------

    def _layer(self, call: FunctionCall, tagged: list[tuple[int, _Tag]]) -> None:
        if call.name == "addmm":  # bias + x @ weight
            source, weight, bias = call.argument(1, "mat1"), call.argument(2, "mat2"), call.argument(0, "input")
        else:
            source, weight, bias = call.argument(0, "input"), call.argument(1, "weight"), call.argument(2, "bias")
        layer, reason = self._describe(call, weight, bias)
        position = next(position for position, tensor in enumerate(tensors_in(call.args, call.kwargs)) if tensor is source)
        ndim = len(call.shapes[position])
        for at, tag in tagged:
            last = ndim - 1
            fits = tag.axis == 1 and tag.width == 1 if call.name in CONVOLUTIONS else tag.axis == last
            if at != position:
                tag.group.block("it is a weight of another layer")
            elif reason:
                tag.group.block(reason)
            elif not fits or ndim < 2:
                tag.group.block(f"{layer.name} reads it along another axis")
            else:
                tag.group.readers.append(Reader(layer, tag.axis, tag.width))
        group = UnitGroup([layer], reason=reason)
        self.groups.append(group)
        axis = 1 if call.name in CONVOLUTIONS else len(call.out_shapes[0]) - 1
        self.tags[call.writes[0]] = _Tag(group, axis, 1)

    def _describe(self, call: FunctionCall, weight: Any, bias: Any) -> tuple[Layer, str]:
        """The layer of a call, and the reason if its units and inputs cannot be removed."""
        kind = "convolution" if call.name in CONVOLUTIONS else call.name
        owners = self.weights.get(id(weight), [])
        if not owners:
            name = self.returned.get(call.writes[0], f"{call.name} {call.index}")
            computed = Weight(nn.Module(), name, "weight", weight)
            return Layer(name, kind, call.index, computed, None, False), f"the weight of {name} is computed, not a parameter"
        caller = self.returned.get(call.writes[0])
        owner_here = next((owner for owner in owners if owner.path == caller), owners[0])  # if several share it
        name = owner_here.path if owner_here.attribute == "weight" else f"{owner_here.path}.{owner_here.attribute}".lstrip(".")
        own_bias = self._weight(bias) if bias is not None else None
        module = isinstance(owner_here.owner, (nn.Linear, nn.modules.conv._ConvNd)) and owner_here.attribute == "weight"
        layer = Layer(name, kind, call.index, owner_here, own_bias, module and bias is None, _padding_reason(call))
        if self._weight(weight) is None:
            return layer, f"the weights of {name} are used more than once"
        if bias is not None and own_bias is None:
            return layer, f"the bias of {name} is computed, or used more than once"
        if kind == "convolution" and call.argument(6, "groups", 1) != 1:
            return layer, f"{name} is a grouped convolution"
        if call.name == "addmm" and (call.kwargs.get("beta", 1) != 1 or call.kwargs.get("alpha", 1) != 1 or bias.ndim != 1):
            return layer, f"{name} is an addmm with factors"
        return layer, ""


def _meeting_reason(call: FunctionCall) -> str:
    """Reason for keeping units that are combined elementwise with others."""
    if "add" in call.name:
        return "it is added to something else, such as a residual stream"
    return f"{call.name} combines it with something else that has an entry for each unit"


def _padding_reason(call: FunctionCall) -> bool:
    if call.name not in CONVOLUTIONS:
        return False
    padding = call.argument(4, "padding", 0)
    if isinstance(padding, str):
        return padding != "valid"
    return any(padding) if isinstance(padding, (tuple, list)) else bool(padding)


def _track(call: FunctionCall, tag: _Tag, index: int, shape: tuple[int, ...]) -> _Tag | None:
    """Location of the units after a reshape, found by reshaping a tensor of unit numbers."""
    size, width = tag.group.size, tag.width
    device = tensors_in(call.args, call.kwargs)[index].device
    numbers = torch.arange(float(size), device=device)
    entries = numbers.repeat_interleave(width)
    ahead = [1] * tag.axis + [size * width] + [1] * (len(shape) - tag.axis - 1)
    probe = entries.reshape(ahead).expand(shape).contiguous()
    places = itertools.count()
    args, kwargs = tree_map_only(Tensor, lambda tensor: probe if next(places) == index else tensor, (call.args, call.kwargs))
    try:
        result = call.function(*args, **kwargs)
    except (RuntimeError, TypeError):
        return None
    if not isinstance(result, Tensor) or tuple(result.shape) != call.out_shapes[0]:
        return None
    for axis, length in enumerate(result.shape):
        if length % size or size == 1:
            continue
        expected = numbers.repeat_interleave(length // size)
        expected = expected.reshape([length if other == axis else 1 for other in range(result.ndim)]).expand(result.shape)
        if torch.allclose(result, expected, rtol=1e-5, atol=0.01):
            return _Tag(tag.group, axis, length // size)
    return None
