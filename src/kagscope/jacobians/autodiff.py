"""Jacobians of any layer map by automatic differentiation, in the cheaper mode, in chunks that fit a memory budget.

Reverse mode pulls one-hot cotangents back, several at once under ``vmap``; forward mode pushes one-hot tangents forward
(``torch.func.jvp``). A model that ``vmap`` cannot take is differentiated row by row, which always works.
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, TypeAlias

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor
from torch.autograd.graph import GradientEdge, saved_tensors_hooks

from kagscope.jacobians.check import Function, agrees, confirm, vjp
from kagscope.jacobians.frame import Frame
from kagscope.jacobians.runner import Unmeasurable

BATCHED, ROW_BY_ROW = "reverse mode", "reverse mode, row by row"
UNKNOWN_GRAPH = 64  # times input and output: a guess, if the memory of a graph cannot be counted
Jacobians: TypeAlias = Float64[np.ndarray, "B tokens rows columns"]
FORWARD_COST = 1.5  # of a tangent relative to a cotangent: the forward pass is repeated, under a transform


def saved_bytes(function: Function, u: Tensor) -> int:
    """Bytes that the graph of ``function`` at ``u`` keeps alive, parameters excluded: the memory traffic of a backward pass."""
    sizes: dict[int, int] = {u.untyped_storage().data_ptr(): 0}

    def pack(tensor: Tensor) -> Tensor:
        if tensor.requires_grad or tensor.grad_fn is not None or not tensor.is_leaf:
            storage = tensor.untyped_storage()
            sizes[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.enable_grad():
        leaf = u.detach().clone().requires_grad_(True)
        try:
            with saved_tensors_hooks(pack, lambda tensor: tensor):
                output = function(leaf)
        except RuntimeError:  # torch.func inside the model takes no such hooks
            output = function(leaf)
            return UNKNOWN_GRAPH * (output.element_size() * output.numel() + u.element_size() * u.numel())
    return sum(sizes.values()) + output.element_size() * output.numel() + u.element_size() * u.numel()


def jacobian(function: Function, u: Tensor, frame: Frame, at_once: int, *, forward: bool = True) -> tuple[Jacobians, str]:
    """Jacobians at every point of a batch, checked against one plain pull-back (:mod:`kagscope.jacobians.check`).

    Args:
        function: from (B, …) to (B, …).
        u: (B, …), where to differentiate.
        frame: rows, columns and tokens.
        at_once: cotangents or tangents per pass.
        forward: whether to try forward mode first where it is cheaper.

    Returns:
        The Jacobians, and the route: "forward mode", "reverse mode", or "reverse mode, row by row".

    Raises:
        Unmeasurable: The output does not depend differentiably on the variable.
    """
    leaf, h = graph(function, u)
    if frame.out_tokens and frame.in_tokens and not frame.mixing:  # did not mix at the first points, but may here
        frame = replace(frame, mixing=mixes_tokens(h, leaf))
    cheaper = forward and not frame.coupled and FORWARD_COST * frame.forward_passes < frame.reverse_passes
    pushed = _push_forward(function, u, frame, at_once) if cheaper else None
    try:
        if pushed is not None and agrees(pushed, h, leaf, frame):
            return pushed, "forward mode"
        J, route = pull_back(h, leaf, tuple(h.shape), frame, at_once)
        if route == BATCHED and not agrees(J, h, leaf, frame):
            return pull_back(h, leaf, tuple(h.shape), frame, at_once, batched=False)
        return J, route
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, NotImplementedError):  # such as a value needed for the backward pass that was overwritten in place
        pushed = None if frame.coupled else _push_forward(function, u, frame, at_once) if pushed is None else pushed
        if pushed is None or not confirm(pushed, function, u, frame):
            raise
        return pushed, "forward mode"


def graph(function: Function, u: Tensor) -> tuple[Tensor, Tensor]:
    """A leaf u and the function's value h on it, with the graph between them. Raises :class:`Unmeasurable`."""
    with torch.enable_grad():
        u = u.detach().clone().requires_grad_(True)
        h = function(u.view_as(u))  # a node of its own, so that no operation of the model touches the leaf itself
    if not h.requires_grad:
        raise Unmeasurable("its output does not depend differentiably on the variable (integers, detached, or under no_grad)")
    return u, h


def pull_back(
    h: Tensor | GradientEdge, u: Tensor, shape: tuple[int, ...], frame: Frame, at_once: int, *, batched: bool = True
) -> tuple[Jacobians, str]:
    """Jacobians by reverse mode, ``at_once`` cotangents at a time; ``h`` has ``shape`` and may be an edge of the graph."""
    B, T = len(u), frame.out_tokens or 1
    J = np.zeros((B, len(frame.tokens), len(frame.rows), frame.columns))
    route = BATCHED if batched else ROW_BY_ROW
    for chunk in _chunks(list(_cotangents(B, frame)), at_once):
        v = torch.zeros((len(chunk), B, T, frame.units), dtype=u.dtype, device=u.device)
        for index, (points, tokens, row) in enumerate(chunk):
            v[index, np.array(points)[:, None], tokens, row] = 1.0
        v = v.reshape(len(chunk), *shape)
        if batched:
            try:
                g = vjp(h, u, v, batched=True)
            except torch.OutOfMemoryError:
                raise
            except (RuntimeError, NotImplementedError):
                batched, route = False, ROW_BY_ROW
        if not batched:
            g = torch.stack([vjp(h, u, cotangent) for cotangent in v])
        _store(J, g.reshape(len(chunk), B, -1, frame.columns), chunk, frame)
    return J, route


def mixes_tokens(h: Float[Tensor, "B T m"], u: Float[Tensor, "B T *n"]) -> bool:
    """Whether any token of the output depends on another token of the variable.

    Two tokens differ in some binary digit of their indices: for each digit, tokens with 0 are tested against those with 1.
    """
    T = h.shape[1]
    generator = torch.Generator().manual_seed(0)
    random = torch.randn(h.shape, generator=generator).to(h)
    for digit in range((T - 1).bit_length()):
        ones = (torch.arange(T, device=h.device) >> digit) % 2 == 1
        for group in (ones, ~ones):
            g = vjp(h, u, random * group[:, None])
            if bool((g[:, ~group] != 0).any()):
                return True
    return False


def _cotangents(B: int, frame: Frame) -> Iterator[tuple[list[int], list[int], int]]:
    """Points, tokens and unit of every pass."""
    for points, tokens in frame.pass_groups(B):
        for row in frame.rows:
            yield points, tokens, int(row)


def _store(
    J: Jacobians, g: Float[Tensor, "passes B source columns"], chunk: list[tuple[list[int], list[int], int]], frame: Frame
) -> None:
    """Write gradients into the rows of the Jacobians, converting them on the way."""
    values, target = g.detach(), torch.from_numpy(J)
    index_of = {token: index for index, token in enumerate(frame.tokens)}
    start = 0
    for (points, tokens), group in itertools.groupby(chunk, key=lambda entry: (entry[0], entry[1])):
        units = [unit for _, _, unit in group]  # contiguous within one group of points and tokens
        stop, row = start + len(units), int(np.searchsorted(frame.rows, units[0]))
        block = slice(points[0], points[-1] + 1)
        for token in tokens if frame.out_tokens else frame.tokens:
            source = token if frame.in_tokens else 0
            target[block, index_of[token], row : row + len(units)] = values[start:stop, block, source].swapaxes(0, 1)
        start = stop


def _push_forward(function: Function, u: Tensor, frame: Frame, at_once: int) -> Jacobians | None:
    """Jacobians by forward mode; None if the model has an operation without a forward rule."""
    B, T = len(u), frame.in_tokens or 1
    J = np.zeros((B, len(frame.tokens), len(frame.rows), frame.columns))
    sources = list(frame.tokens) if frame.in_tokens else [0]
    tokens = [[t] for t in sources] if frame.mixing and frame.in_tokens else [sources]
    passes = [(group, column) for group in tokens for column in range(frame.columns)]
    rows = torch.from_numpy(np.asarray(frame.rows))
    for chunk in _chunks(passes, at_once):
        v = torch.zeros((len(chunk), B, T, frame.columns), dtype=u.dtype, device=u.device)
        for index, (group, column) in enumerate(chunk):
            v[index, :, group, column] = 1.0
        v = v.reshape(len(chunk), *u.shape)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of the transforms; the model's own warnings were already shown
                tangents = torch.func.vmap(lambda t: torch.func.jvp(function, (u,), (t,))[1], randomness="same")(v)
        except torch.OutOfMemoryError:
            raise
        except (RuntimeError, NotImplementedError, ValueError):
            return None
        tangents = tangents.reshape(len(chunk), B, -1, frame.units)
        values = tangents[..., rows.to(tangents.device)].double().cpu().numpy()  # NumPy knows no bfloat16
        for index, (group, column) in enumerate(chunk):
            for token in group if frame.in_tokens else frame.tokens:
                source = token if frame.out_tokens else 0
                J[:, frame.tokens.index(token), :, column] = values[index, :, source]
    return J


def _chunks(items: list[Any], size: int) -> Iterator[list[Any]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
