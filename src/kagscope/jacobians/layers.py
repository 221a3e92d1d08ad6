"""Find layers by exact name, pattern or class, and every call that a forward pass makes to them."""

from __future__ import annotations

import contextlib
import difflib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch._C._functorch import is_functorch_wrapped_tensor
from torch.jit._script import RecursiveScriptModule

from kagscope.base.errors import InputError
from kagscope.jacobians.forward import plain_name
from kagscope.jacobians.inputs import Inputs
from kagscope.jacobians.runner import Runner, hook_calls, tensor_of

ACTIVATIONS: tuple[type[nn.Module], ...] = (
    *(nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.PReLU, nn.RReLU, nn.ELU, nn.SELU, nn.CELU, nn.GELU, nn.SiLU, nn.Mish),
    *(nn.Tanh, nn.Sigmoid, nn.Softplus, nn.Softsign, nn.Hardtanh, nn.Hardswish, nn.Hardsigmoid, nn.LogSigmoid),
)
CHANNEL_LAST_BUT_ONE = (
    *(nn.Conv1d, nn.ConvTranspose1d, nn.BatchNorm1d, nn.InstanceNorm1d, nn.GroupNorm, nn.Upsample, nn.Unfold),
    *(nn.MaxPool1d, nn.AvgPool1d, nn.LPPool1d, nn.AdaptiveAvgPool1d, nn.AdaptiveMaxPool1d),
    *(nn.ConstantPad1d, nn.ReflectionPad1d, nn.ReplicationPad1d, nn.CircularPad1d),
)
ELEMENTWISE = (*ACTIVATIONS, nn.Dropout, nn.Dropout1d, nn.Identity)
SCRIPTED = "TorchScript takes no hooks; measure a module around it, or give the Python module that it was made from"
Numbers = frozenset[int] | None
Layers = str | type[nn.Module] | Sequence[str | type[nn.Module]] | None


@dataclass(frozen=True)
class Call:
    """One call of one module in a forward pass.

    Attributes:
        name: "encoder.0", or "encoder.0#1" for the second of several calls; the same where parts are compiled.
        path: of the module, as ``named_modules()`` gives it.
        index: its number among the module's calls, in the order in which they begin, from 0.
        kind: name of the module's class.
        shape: of the output tensor, batch first.
        reason: why it cannot be measured, or "".
        note: what a reader should know, such as which part of a tuple is meant.
    """

    name: str
    path: str
    index: int
    kind: str
    shape: tuple[int, ...] = ()
    reason: str = ""
    note: str = ""
    tokens: bool = False


def find_layers(model: nn.Module, layers: Layers, layer_map: str = "input") -> tuple[dict[str, Numbers], set[str]]:
    """Paths of the requested modules in the model's order, each with the call numbers requested, or None for all calls.

    Args:
        model: whose ``named_modules()`` is searched.
        layers: names; patterns, where ``*`` stands for one part of a name and ``**`` for any; module classes; None means every
            activation module (a block of a Linear and its activation goes by the block's name: "hidden1", not "hidden1.1"), or
            where there is none every module without children that has parameters. A module that has
            several names is taken once, by the first, unless it is named.
        layer_map: of "block" None means the modules that hold activations: what an activation does to its own input is a
            diagonal Jacobian in every network.

    Returns:
        The paths, and the subset that was requested by exact name.

    Raises:
        InputError: nothing matches; close names are suggested.
    """
    modules = dict(model.named_modules(remove_duplicate=False))
    if layers is None:
        unique = dict(model.named_modules())
        names = [_block_name(unique, name) for name, module in unique.items() if isinstance(module, ACTIVATIONS)]
        if layer_map == "block":
            names = [block for block in (_enclosing_module(unique, name) for name in names) if block]
        names = names or [n for n, m in unique.items() if not list(m.children()) and list(m.parameters()) and n]
        if not names:
            raise InputError("the model has no layers with parameters; name those to measure, from named_modules()")
        return dict.fromkeys(names), set()
    if not isinstance(layers, str | type | Iterable):
        raise InputError(f"layers is {layers!r}; expected names, patterns or module classes, or None for all activations")
    wanted: Iterable[Any] = [layers] if isinstance(layers, str | type) else list(layers)
    chosen: dict[str, Numbers] = {}
    exact: set[str] = set()
    for pattern in wanted:
        paths, call, named = _match(modules, pattern)
        for path in paths:
            before = chosen.get(path, frozenset())
            chosen[path] = None if before is None or call is None else before | {call}
        if named:
            exact |= set(paths)
    if not chosen:
        raise InputError("layers is empty; name at least one, or give None for all activations")
    taken = exact | dict(model.named_modules()).keys()
    return {path: chosen[path] for path in modules if path in chosen and path in taken}, exact


def _block_name(modules: dict[str, nn.Module], name: str) -> str:
    block = name.rpartition(".")[0]
    parts = list(modules[block].children()) if block and isinstance(modules[block], nn.Sequential) else []
    return block if len(parts) == 2 and isinstance(parts[0], nn.Linear) and parts[1] is modules[name] else name


def _enclosing_module(modules: dict[str, nn.Module], name: str) -> str:
    """Path of the innermost callable module that contains the activation; "" if that is the model itself."""
    while name and isinstance(modules[name], (*ELEMENTWISE, nn.ModuleList, nn.ModuleDict)):
        name = name.rpartition(".")[0]
    return name


def _match(modules: dict[str, nn.Module], wanted: Any) -> tuple[list[str], int | None, bool]:
    if isinstance(wanted, type) and issubclass(wanted, nn.Module):
        names = [name for name, module in modules.items() if isinstance(module, wanted)]
        if not names:
            kinds = sorted({type(module).__name__ for module in modules.values()})
            raise InputError(f"the model has no layer of kind {wanted.__name__}; it has {', '.join(kinds[:20])}")
        return names, None, False
    if not isinstance(wanted, str):
        raise InputError(f"layer {wanted!r} is neither a name nor a module class; names are those of model.named_modules()")
    paths = {plain_name(path): path for path in modules}  # a compiled part stands for the module inside it
    name = plain_name(wanted)
    if name not in paths and name.removeprefix("module.") in paths:  # the prefix that DataParallel adds
        name = name.removeprefix("module.")
    if name in paths:
        return [paths[name]], None, True
    plain, _, call = name.partition("#")
    if call.isdigit() and plain in paths:
        return [paths[plain]], int(call), True
    if "*" in name or "?" in name:
        pattern = re.escape(name).replace(r"\*\*", ".*").replace(r"\*", "[^.]*").replace(r"\?", "[^.]")
        names = [path for plain, path in paths.items() if re.fullmatch(pattern, plain)]
        if names:
            return names, None, False
    names = [path for path in paths if path]
    same_end = [path for path in names if path.split(".")[-1] == name.split(".")[-1]]
    close = difflib.get_close_matches(name, names, n=3, cutoff=0.5) or same_end
    hint = f"did you mean {' or '.join(map(repr, close[:3]))}?" if close else f"it has {', '.join(map(repr, names[:12]))}"
    more = ", …" if not close and len(names) > 12 else ""
    raise InputError(f"the model has no layer {wanted!r}; {hint}{more}")


def find_calls(runner: Runner, inputs: Inputs, paths: dict[str, Numbers], exact: set[str]) -> list[Call]:
    """Every call that one forward pass makes to the modules at ``paths``, in the order of ``paths``.

    Raises:
        InputError: A module requested by name is never called, or returns no batch-first tensor.
    """
    modules = dict(runner.model.named_modules(remove_duplicate=False))
    seen, fewer = _outputs(runner, inputs, paths), _fewer_points(runner, inputs)
    repeated = seen if fewer is None else _outputs(runner, fewer, paths)
    calls: list[Call] = []
    for path, wanted in paths.items():
        module, outputs = modules[path], seen[path]
        kind = type(module).__name__
        if not outputs:
            reason = SCRIPTED if isinstance(module, RecursiveScriptModule) else "never called in the forward pass"
            calls.append(Call(plain_name(path), path, 0, kind, reason=reason))
        if wanted is not None and outputs and max(wanted) >= len(outputs):
            times = f"{len(outputs)} time{'s' * (len(outputs) > 1)}"
            raise InputError(f"layer {path!r} is called {times} in the forward pass; there is no call #{max(wanted)}")
        for number, (index, (output, channels_first)) in enumerate(sorted(outputs.items())):
            if wanted is None or number in wanted:
                name = f"{plain_name(path)}#{number}" if len(outputs) > 1 else plain_name(path)
                call = _make_call(name, path, index, module, output, inputs.count)
                call = replace(call, tokens=call.tokens and not channels_first)
                if fewer is not None and not call.reason and index in repeated[path]:
                    other = _make_call(name, path, index, module, repeated[path][index][0], fewer.count)
                    call = replace(call, reason=other.reason)  # its first dimension equalled the number of points by chance
                calls.append(call)
    for call in calls:
        if call.reason and call.path in exact:
            raise InputError(f"layer {call.name!r} ({call.kind}) cannot be measured: {call.reason}")
    return calls


def outputs_of(runner: Runner, inputs: Inputs, paths: Iterable[str], *, reseed: bool = True) -> list[Any]:
    """Outputs of all calls to the modules at ``paths`` in one forward pass, module by module."""
    seen = _outputs(runner, inputs, paths, reseed=reseed)
    return [output for outputs in seen.values() for _, (output, _) in sorted(outputs.items())]


def _outputs(
    runner: Runner, inputs: Inputs, paths: Iterable[str], *, reseed: bool = True
) -> dict[str, dict[int, tuple[Any, bool]]]:
    """Output of each call to the modules at ``paths`` in one forward pass, and whether its channels precede its positions.

    They do in the output of Conv1d and similar layers, and of elementwise modules applied to it. Keys are call numbers.
    """
    modules = dict(runner.model.named_modules(remove_duplicate=False))
    seen: dict[str, dict[int, tuple[Any, bool]]] = {path: {} for path in paths}
    channels: dict[tuple[Any, ...], Tensor] = {}  # by address and layout; kept, so that no other tensor gets the address

    def mark(module: nn.Module, args: Any, output: Any) -> None:
        known = any(isinstance(value, Tensor) and _layout(value) in channels for value in args)
        if isinstance(output, Tensor) and (isinstance(module, CHANNEL_LAST_BUT_ONE) or known):
            channels[_layout(output)] = output

    with contextlib.ExitStack() as stack:
        for module in runner.model.modules():
            if isinstance(module, CHANNEL_LAST_BUT_ONE + ELEMENTWISE):
                stack.callback(module.register_forward_hook(mark).remove)
        for path in paths:
            if isinstance(modules[path], RecursiveScriptModule):
                continue

            def record(index: int, output: Any, path: str = path) -> None:
                inside = isinstance(output, Tensor) and is_functorch_wrapped_tensor(output)
                first = isinstance(output, Tensor) and _layout(output) in channels
                seen[path][index] = (_TransformTensor() if inside else output, first)

            stack.enter_context(hook_calls(modules[path], after=record))
        runner(inputs, reseed=reseed)
    return seen


def _layout(tensor: Tensor) -> tuple[Any, ...]:
    if is_functorch_wrapped_tensor(tensor) or tensor.layout != torch.strided:  # has no address
        return (id(tensor),)
    return tensor.data_ptr(), tensor.shape, tensor.stride()


def _fewer_points(runner: Runner, inputs: Inputs) -> Inputs | None:
    """A single point, or in train mode (batch statistics) all points but one; None if there are too few."""
    if not runner.model.training:
        return inputs.take([0]) if inputs.count > 1 else None
    return inputs.take(slice(0, inputs.count - 1)) if inputs.count > 2 else None


def _make_call(name: str, path: str, index: int, module: nn.Module, output: Any, count: int) -> Call:
    kind = type(module).__name__
    tensor = tensor_of(output)
    if tensor is None:
        reason = f"its output is {_describe(output)}, not a floating tensor with the batch first"
        return Call(name, path, index, kind, reason=reason)
    shape = tuple(tensor.shape)
    if shape[0] != count:
        reason = f"its output has shape {shape}, whose first dimension is not the {count} points"
        return Call(name, path, index, kind, shape, reason)
    note = "" if isinstance(output, Tensor) else f"the first tensor of its output ({type(output).__name__})"
    return Call(name, path, index, kind, shape, note=note, tokens=len(shape) == 3)


class _TransformTensor:
    """Stands for a tensor inside a transform such as ``torch.func.vmap``, which holds no numbers outside it."""


def _describe(output: Any) -> str:
    if isinstance(output, _TransformTensor):
        return "inside a torch.func transform"
    if not isinstance(output, Tensor):
        return type(output).__name__
    return f"a tensor of {str(output.dtype).removeprefix('torch.')}" if output.ndim else "a scalar"
