"""Jacobians of any layer map by automatic differentiation, in the cheaper mode, in chunks that fit a memory budget.

Reverse mode pulls one-hot cotangents back, several at once under ``vmap``; forward mode pushes one-hot tangents forward
(``torch.func.jvp``). A model that ``vmap`` cannot take is differentiated row by row, which always works.
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge, saved_tensors_hooks

from kagscope.jacobians.runner import Unmeasurable

Function = Callable[[Tensor], Tensor]
FORWARD_COST = 1.5  # of a tangent beside a cotangent: the forward pass is done again, under a transform


@dataclass(frozen=True)
class Frame:
    """What a Jacobian's rows and columns are.

    Attributes:
        rows: units of the output that are kept, indices into ``units``.
        units: of the output, per token where it has tokens.
        columns: of the variable, per token where it has tokens.
        out_tokens: tokens of the output; None where a point has one Jacobian.
        in_tokens: the same of the variable; with ``out_tokens`` too, each token is taken with respect to itself.
        tokens: which of them are measured.
        mixing: whether tokens need passes of their own: a token's output depends on other tokens, or one side alone has tokens.
        coupled: whether a point's output depends on other points of its batch.
    """

    rows: np.ndarray
    units: int
    columns: int
    out_tokens: int | None
    in_tokens: int | None
    tokens: tuple[int, ...]
    mixing: bool
    coupled: bool

    @property
    def reverse_passes(self) -> int:
        """Cotangents per batch of points."""
        return len(self.rows) * (len(self.tokens) if self.out_tokens and self.mixing else 1)

    @property
    def forward_passes(self) -> int:
        """Tangents per batch of points."""
        return self.columns * (len(self.tokens) if self.in_tokens and self.mixing else 1)


def saved_bytes(function: Function, u: Tensor) -> int:
    """Bytes that the graph of ``function`` at ``u`` keeps alive, parameters aside: what a pass back moves through."""
    sizes: dict[int, int] = {u.untyped_storage().data_ptr(): 0}

    def pack(tensor: Tensor) -> Tensor:
        if tensor.requires_grad or tensor.grad_fn is not None or not tensor.is_leaf:
            storage = tensor.untyped_storage()
            sizes[storage.data_ptr()] = storage.nbytes()
        return tensor

    with saved_tensors_hooks(pack, lambda tensor: tensor), torch.enable_grad():
        out = function(u.detach().clone().requires_grad_(True))
    return sum(sizes.values()) + out.element_size() * out.numel() + u.element_size() * u.numel()


def jacobian(function: Function, u: Tensor, frame: Frame, at_once: int) -> tuple[np.ndarray, str]:
    """Jacobians at every point of a batch.

    Args:
        function: from (B, …) to (B, …).
        u: (B, …), where.
        frame: what rows and columns are.
        at_once: cotangents or tangents taken together.

    Returns:
        (B, tokens, rows, columns) float64, and the route: "forward mode", "reverse mode", or "reverse mode, row by row".

    Raises:
        Unmeasurable: the output does not depend differentiably on the variable.
    """
    if frame.out_tokens and frame.in_tokens and not frame.mixing:  # not at the first points; here?
        leaf, h = graph(function, u)
        frame = replace(frame, mixing=mixes_tokens(h, leaf))
    cheaper = not frame.coupled and FORWARD_COST * frame.forward_passes < frame.reverse_passes
    found = _forward(function, u, frame, at_once) if cheaper else None
    if found is not None:
        return found, "forward mode"
    leaf, h = graph(function, u)
    try:
        return pull_back(h, leaf, tuple(h.shape), frame, at_once)
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, NotImplementedError):  # such as a value needed for the way back that was overwritten in place
        found = None if cheaper or frame.coupled else _forward(function, u, frame, at_once)
        if found is None:
            raise
        return found, "forward mode"


def graph(function: Function, u: Tensor) -> tuple[Tensor, Tensor]:
    """(u, h): a leaf and the function's value on it, with the graph between them. Raises :class:`Unmeasurable`."""
    with torch.enable_grad():
        u = u.detach().clone().requires_grad_(True)
        h = function(u.view_as(u))  # a node of its own, so that no operation of the model touches the leaf itself
    if not h.requires_grad:
        raise Unmeasurable("its output does not depend differentiably on the variable (integers, detached, or under no_grad)")
    return u, h


def pull_back(h: Tensor | GradientEdge, u: Tensor, shape: tuple[int, ...], frame: Frame, at_once: int) -> tuple[np.ndarray, str]:
    """The Jacobians by reverse mode, ``at_once`` cotangents at a time; ``h`` has ``shape`` and may be an edge of the graph."""
    B, T = len(u), frame.out_tokens or 1
    J = np.zeros((B, len(frame.tokens), len(frame.rows), frame.columns))
    batched, route = True, "reverse mode"
    for chunk in _chunks(list(_cotangents(B, frame)), at_once):
        v = torch.zeros((len(chunk), B, T, frame.units), dtype=u.dtype, device=u.device)
        for place, (points, tokens, row) in enumerate(chunk):
            v[place, np.array(points)[:, None], tokens, row] = 1.0
        v = v.reshape(len(chunk), *shape)
        if batched:
            try:
                g = _grad(h, u, v, True)
            except torch.OutOfMemoryError:
                raise
            except (RuntimeError, NotImplementedError):
                batched, route = False, "reverse mode, row by row"
        if not batched:
            g = torch.stack([_grad(h, u, one, False) for one in v])
        _store(J, g.reshape(len(chunk), B, -1, frame.columns), chunk, frame)
    return J, route


def mixes_tokens(h: Tensor, u: Tensor) -> bool:
    """Whether any token of the output (B, T, m) depends on another token of the variable (B, T, n).

    Two tokens differ in some binary digit of their indices: for each digit, tokens with 0 are tested against those with 1.
    """
    T = h.shape[1]
    generator = torch.Generator().manual_seed(0)
    random = torch.randn(h.shape, generator=generator).to(h)
    for digit in range((T - 1).bit_length()):
        ones = (torch.arange(T, device=h.device) >> digit) % 2 == 1
        for some in (ones, ~ones):
            g = _grad(h, u, random * some[:, None], False)
            if bool((g[:, ~some] != 0).any()):
                return True
    return False


def _cotangents(B: int, frame: Frame) -> Iterator[tuple[list[int], list[int], int]]:
    """(points, tokens, unit) of every pass: all points at once unless they are coupled, all tokens unless they mix."""
    points = [[b] for b in range(B)] if frame.coupled else [list(range(B))]
    every = list(frame.tokens) if frame.out_tokens else [0]
    tokens = [[t] for t in every] if frame.mixing and frame.out_tokens else [every]
    for some in points:
        for at in tokens:
            for row in frame.rows:
                yield some, at, int(row)


def _store(J: np.ndarray, g: Tensor, chunk: list[tuple[list[int], list[int], int]], frame: Frame) -> None:
    """Rows of Jacobians from gradients (passes, B, tokens of the variable or 1, columns)."""
    values = g.detach().double().cpu().numpy()  # NumPy knows no bfloat16
    place_of = {token: place for place, token in enumerate(frame.tokens)}
    start = 0
    for (points, tokens), group in itertools.groupby(chunk, key=lambda one: (one[0], one[1])):
        units = [unit for _, _, unit in group]  # neighbours: those of one batch of points and tokens follow each other
        stop, row = start + len(units), int(np.searchsorted(frame.rows, units[0]))
        some = slice(points[0], points[-1] + 1)
        for token in tokens if frame.out_tokens else frame.tokens:
            source = token if frame.in_tokens else 0
            J[some, place_of[token], row : row + len(units)] = values[start:stop, some, source].swapaxes(0, 1)
        start = stop


def _forward(function: Function, u: Tensor, frame: Frame, at_once: int) -> np.ndarray | None:
    """The Jacobians by forward mode; None where the model has an operation without a rule for it."""
    B, T = len(u), frame.in_tokens or 1
    J = np.zeros((B, len(frame.tokens), len(frame.rows), frame.columns))
    every = list(frame.tokens) if frame.in_tokens else [0]
    tokens = [[t] for t in every] if frame.mixing and frame.in_tokens else [every]
    passes = [(at, column) for at in tokens for column in range(frame.columns)]
    rows = torch.from_numpy(np.asarray(frame.rows))
    for chunk in _chunks(passes, at_once):
        v = torch.zeros((len(chunk), B, T, frame.columns), dtype=u.dtype, device=u.device)
        for place, (at, column) in enumerate(chunk):
            v[place, :, at, column] = 1.0
        v = v.reshape(len(chunk), *u.shape)
        try:
            out = torch.func.vmap(lambda t: torch.func.jvp(function, (u,), (t,))[1], randomness="same")(v)
        except torch.OutOfMemoryError:
            raise
        except (RuntimeError, NotImplementedError, ValueError):
            return None
        out = out.reshape(len(chunk), B, -1, frame.units)
        values = out[..., rows.to(out.device)].double().cpu().numpy()
        for place, (at, column) in enumerate(chunk):
            for token in at if frame.in_tokens else frame.tokens:
                source = token if frame.out_tokens else 0
                J[:, frame.tokens.index(token), :, column] = values[place, :, source]
    return J


def _grad(h: Tensor | GradientEdge, u: Tensor, v: Tensor, batched: bool) -> Tensor:
    """v^T dh/du; zeros where the output does not depend on the variable."""
    g: Tensor | None
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*batching rule.*")  # slower, not wrong
        (g,) = torch.autograd.grad(h, [u], v, retain_graph=True, allow_unused=True, is_grads_batched=batched)
    return torch.zeros((len(v), *u.shape) if batched else u.shape, dtype=u.dtype, device=u.device) if g is None else g


def _chunks(items: list[Any], size: int) -> Iterator[list[Any]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
