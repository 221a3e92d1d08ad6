"""Whether a Jacobian is right: random vectors pulled back through the graph, and difference quotients beside them.

Forward mode and batched reverse mode can be silently wrong for operators that have only part of the rules. So a Jacobian J is
held against one plain pull-back of a random w: w^T J must be what autograd gives. What autograd itself leaves out (operators
without a rule, gradients of the user's own, constants) shows beside a difference quotient along a random v.
"""

from __future__ import annotations

import contextlib
import itertools
import re
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from kagscope.jacobians.frame import Frame
from kagscope.jacobians.runner import Unmeasurable

Function = Callable[[Tensor], Tensor]
AGREE = {torch.float64: 3e-5, torch.float32: 1e-3}  # of two ways to one vector; models in float64 may round to float32 inside
BLOCK = 1 << 17  # entries of Jacobians held against a pull-back at a time
QUOTIENT = 1e-3  # of a difference quotient beside a derivative
DRAWS = 2  # random directions of such quotients: a wrong derivative is within QUOTIENT along one of them by chance
STEPS = {torch.float64: (1e-6, 1e-5, 1e-4, 1e-3, 1e-2), torch.float32: (1e-3, 3e-3, 1e-2, 3e-2)}  # others round too much
NO_KERNEL = "WarnNotImplemented"  # the node that PyTorch puts where an operator has no autograd kernel
CONSTANT = "part of it stands under no_grad or detach: a constant, which the Jacobian leaves out"
UNSEEN = "part of it does not go through autograd (such as a number taken out of a tensor): the Jacobian leaves it out"


def agrees(J: np.ndarray, h: Tensor, u: Tensor, frame: Frame) -> bool:
    """Whether w^T J is what pulling a random w back gives, at every point of a batch and every token.

    Args:
        J: (B, tokens, rows, columns).
        h: the output, with the graph to ``u``.
        u: the variable, a leaf.
        frame: what rows and columns are.
    """
    return close(h, u, frame, *_weighted(weights(frame), J))


def _weighted(w: np.ndarray, J: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """w^T J and |w|^T |J| of J (B, tokens, rows, columns), some rows at a time, which stay in the cache."""
    found, scale = (np.zeros((*J.shape[:2], J.shape[3])) for _ in range(2))
    step = max(1, BLOCK // max(1, J.shape[0] * J.shape[1] * J.shape[3]))
    for start in range(0, J.shape[2], step):
        rows, own = J[:, :, start : start + step], w[start : start + step]
        found += own @ rows
        scale += np.abs(own) @ np.abs(rows)
    return found, scale


def agrees_factored(d: np.ndarray, W: np.ndarray, h: Tensor, u: Tensor, frame: Frame) -> bool:
    """Like :func:`agrees`, of diag(d) W in factors, ``d`` (B, tokens, rows) and ``W`` (rows, columns)."""
    w = weights(frame) * d
    return close(h, u, frame, w @ W, np.abs(w) @ np.abs(W))


def weights(frame: Frame, draw: int = 0) -> np.ndarray:
    """A random w over the rows."""
    return np.random.default_rng([len(frame.rows), draw]).standard_normal(len(frame.rows))


def close(h: Tensor, u: Tensor, frame: Frame, found: np.ndarray, scale: np.ndarray) -> bool:
    """Whether ``found`` (B, tokens, columns) is w^T dh/du, up to rounding of sums of the size of ``scale``; NaN is not judged.

    Raises:
        RuntimeError: no way back through the graph.
    """
    plain = np.empty_like(found)
    for points, tokens in frame.together(len(u)):
        v = _at(h, weights(frame), points, tokens, frame)
        g = pull(h, u, v).reshape(len(u), frame.in_tokens or 1, frame.columns)[points].double().cpu().numpy()
        for token in tokens if frame.out_tokens else frame.tokens:
            plain[points, frame.tokens.index(token)] = g[:, token if frame.in_tokens else 0]
    least = min((h.dtype, u.dtype), key=lambda dtype: -torch.finfo(dtype).eps)
    with np.errstate(invalid="ignore"):
        wrong = np.abs(found - plain) > AGREE.get(least, 0.1) * scale.max(axis=-1, keepdims=True)
    return not wrong.any()


def _at(h: Tensor, w: np.ndarray, points: list[int], tokens: list[int], frame: Frame) -> Tensor:
    """The cotangent of ``h`` that is w at these points and tokens."""
    v = torch.zeros((len(h), frame.out_tokens or 1, frame.units), dtype=h.dtype, device=h.device)
    v[np.array(points)[:, None, None], np.array(tokens)[:, None], frame.rows] = torch.from_numpy(w).to(v)
    return v.reshape(h.shape)


def pull(h: Any, u: Tensor, v: Tensor, *, batched: bool = False) -> Tensor:
    """v^T dh/du; zeros where the output does not depend on the variable. With ``batched``, of several v at once."""

    def one(cotangent: Tensor) -> Tensor:
        (g,) = torch.autograd.grad(h, [u], cotangent, retain_graph=True, allow_unused=True)
        return torch.zeros_like(u) if g is None else g

    if not batched:
        return one(v)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*batching rule.*")  # slower, not wrong
        pulled: Tensor = torch.func.vmap(one)(v)  # is_grads_batched knows fewer operations, and goes through others one by one
    return pulled


def confirm(J: np.ndarray, function: Function, u: Tensor, frame: Frame) -> bool:
    """Whether difference quotients confirm a Jacobian that cannot be compared with a graph, at every token."""
    every = np.arange(len(frame.tokens))
    for draw, places in itertools.product(range(DRAWS), every[:, None] if frame.mixing else every[None]):
        tokens = [frame.tokens[place] for place in places]
        w, direction = weights(frame, draw), np.random.default_rng([frame.columns, draw]).standard_normal(frame.columns)
        moved = torch.zeros((len(u), frame.in_tokens or 1, frame.columns), dtype=u.dtype, device=u.device)
        moved[:, tokens if frame.in_tokens else 0] = torch.from_numpy(direction).to(moved)
        weight = torch.zeros((len(u), frame.out_tokens or 1, frame.units), dtype=u.dtype, device=u.device)
        weight[:, np.array(tokens if frame.out_tokens else [0])[:, None], frame.rows] = torch.from_numpy(w).to(weight)
        expected = float((w @ J[:, places] @ direction).sum())
        size = float((np.abs(w) @ np.abs(J[:, places])).max())
        if _verdict(function, u, moved.reshape(u.shape), weight.flatten(), expected, size) is not True:
            return False
    return True


def what_is_left_out(function: Function, leaf: Tensor, h: Tensor) -> str:
    """A note on the part of a layer map that autograd takes for constant; "" where it has none.

    Raises:
        Unmeasurable: an operator without an autograd kernel, or a backward of the user's own that is no derivative.
    """
    nodes = list(_nodes(h))
    if any(node.name().endswith(NO_KERNEL) for node in nodes):
        raise Unmeasurable(f"{_without_kernel(h, leaf)} has no autograd kernel: PyTorch would leave its derivative out")
    try:
        if _differences_agree(function, leaf, h) is not False:
            return ""
        leaf = _aside(leaf)  # at a kink, such as relu at exactly 0, a quotient tells nothing
        if _differences_agree(function, leaf, function(leaf.view_as(leaf))) is not False:
            return ""
    except (RuntimeError, NotImplementedError):  # no way back, for which there is forward mode
        return ""
    try:
        with _Freed(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of numbers taken out of tensors that are no longer detached
            explained = _differences_agree(function, leaf, function(leaf.view_as(leaf)))
    except Exception:  # what stood under no_grad cannot be differentiated
        explained = None
    own = sorted({_name(node) for node in nodes if _is_own(node)})
    if explained is not True and own:
        raise Unmeasurable(f"the backward of {', '.join(own)} is not its derivative: a difference quotient differs from it")
    return CONSTANT if explained else UNSEEN


def _aside(leaf: Tensor) -> Tensor:
    """A point beside the variable's, in no special position."""
    generator = torch.Generator().manual_seed(3)
    step = torch.randn(leaf.shape, generator=generator, dtype=torch.float64).to(leaf)
    scale = leaf.detach().square().mean().sqrt() or 1.0
    return (leaf.detach() + 0.01 * scale * step).requires_grad_(True)


def _differences_agree(function: Function, leaf: Tensor, h: Tensor) -> bool | None:
    """Whether difference quotients are what autograd says, along random directions; None where they do not tell."""
    told: bool | None = True
    for draw in range(DRAWS):
        generator = torch.Generator().manual_seed(2 + draw)
        w = torch.randn(h.shape, generator=generator, dtype=torch.float64).to(h)
        v = torch.randn(leaf.shape, generator=generator, dtype=torch.float64).to(leaf)
        v = v * (leaf.detach().square().mean().sqrt() or 1.0)
        g = pull(h, leaf, w)
        size = float(g.norm() * v.norm()) / g.numel() ** 0.5
        verdict = _verdict(function, leaf.detach(), v, w.flatten(), float((g * v).sum()), size)
        if verdict is False:
            return False
        told = told and verdict
    return told


def _verdict(function: Function, u: Tensor, v: Tensor, w: Tensor, expected: float, size: float) -> bool | None:
    """Whether w · (f(u + s v) - f(u - s v)) / 2s is ``expected`` for some step s; None: it settles nowhere."""
    before = None
    for step in STEPS.get(u.dtype, ()):
        try:
            with torch.no_grad():  # which some models switch off
                ends = [function(u + sign * step * v).detach().flatten().double() for sign in (1, -1)]
        except Exception:  # the model does not take such inputs
            return None
        weight = w.double()
        quotient = float((weight * (ends[0] - ends[1])).sum()) / (2 * step)
        if not np.isfinite(quotient) or not np.isfinite(expected):
            return None
        noise = 4 * torch.finfo(u.dtype).eps * float((weight * ends[0]).abs().sum()) / step
        off = abs(quotient - expected)
        if off <= QUOTIENT * (size + abs(quotient)) + noise:
            return True
        if before is not None and abs(quotient - before) <= 0.1 * off:
            return False
        before = quotient
    return None


class _Freed(TorchFunctionMode):
    """A pass in which ``no_grad`` and ``detach`` do nothing."""

    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None) -> Any:
        if func is torch._C._set_grad_enabled:
            return None
        if func in (Tensor.detach, Tensor.data.__get__):  # type: ignore[attr-defined]
            return args[0].view_as(args[0])
        return func(*args, **(kwargs or {}))


def has_own(h: Any) -> bool:
    """Whether a backward of the user's own is on the way to ``h``."""
    return any(_is_own(node) for node in _nodes(h))


def _nodes(h: Tensor) -> Iterator[Any]:
    """Every node of the graph behind ``h``."""
    open_nodes, seen = [h.grad_fn], set()
    while open_nodes:
        node = open_nodes.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        yield node
        open_nodes += [parent for parent, _ in node.next_functions]


def _is_own(node: Any) -> bool:
    return isinstance(node, torch.autograd.function.BackwardCFunction)


def _name(node: Any) -> str:
    """What a node of the user's own is called: "Cube", "library::operator"."""
    found = re.fullmatch(r"GeneratedBackwardFor_(\w+?)_(\w+)_\w+Backward", node.name())
    return f"{found[1]}::{found[2]}" if found else str(node.name()).removesuffix("Backward")


def _without_kernel(h: Tensor, leaf: Tensor) -> str:
    """The names of operators without an autograd kernel, from what PyTorch warns of on the way back."""
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        with contextlib.suppress(RuntimeError, NotImplementedError):
            torch.autograd.grad(h, [leaf], torch.ones_like(h), retain_graph=True, allow_unused=True)
    names = [found[1] for one in heard if (found := re.match(r"(\S+): an autograd kernel was not", str(one.message)))]
    return f"the operator {', '.join(dict.fromkeys(names))}" if names else "an operator"
