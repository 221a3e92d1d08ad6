"""Verification of Jacobians against vector-Jacobian products of the graph and against difference quotients.

Forward mode and batched reverse mode can be silently wrong for operators with incomplete rules. A Jacobian J is therefore
compared with one plain pull-back of a random w: w^T J must equal it. What autograd itself leaves out (operators
without a rule, custom gradients, constants) shows in a difference quotient along a random v.
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
HOOKED = "hooks that it registers on gradients give what stands under no_grad, as in implicit layers, and were kept"
UNSEEN = "part of it does not go through autograd (such as a number taken out of a tensor): the Jacobian leaves it out"


def agrees(J: np.ndarray, h: Tensor, u: Tensor, frame: Frame) -> bool:
    """Whether w^T J equals the pull-back of a random w, at every point of a batch and every token.

    Args:
        J: (B, tokens, rows, columns).
        h: the output, with the graph to ``u``.
        u: the variable, a leaf.
        frame: what rows and columns are.
    """
    return close(h, u, frame, *_weighted_sums(weights(frame), J))


def _weighted_sums(w: np.ndarray, J: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """w^T J and |w|^T |J| for J (B, tokens, rows, columns), in blocks of rows that fit the cache."""
    total, scale = (np.zeros((*J.shape[:2], J.shape[3])) for _ in range(2))
    step = max(1, BLOCK // max(1, J.shape[0] * J.shape[1] * J.shape[3]))
    for start in range(0, J.shape[2], step):
        rows, w_rows = J[:, :, start : start + step], w[start : start + step]
        total += w_rows @ rows
        scale += np.abs(w_rows) @ np.abs(rows)
    return total, scale


def agrees_factored(d: np.ndarray, W: np.ndarray, h: Tensor, u: Tensor, frame: Frame) -> bool:
    """Like :func:`agrees`, for diag(d) W given as ``d`` (B, tokens, rows) and ``W`` (rows, columns)."""
    w = weights(frame) * d
    return close(h, u, frame, w @ W, np.abs(w) @ np.abs(W))


def weights(frame: Frame, draw: int = 0) -> np.ndarray:
    """Random weights w of the rows, (rows,)."""
    return np.random.default_rng([len(frame.rows), draw]).standard_normal(len(frame.rows))


def close(h: Tensor, u: Tensor, frame: Frame, product: np.ndarray, scale: np.ndarray) -> bool:
    """Whether ``product`` (B, tokens, columns) is w^T dh/du up to rounding relative to ``scale``; NaN entries are not judged.

    Raises:
        RuntimeError: The graph cannot be traversed backwards.
    """
    plain = np.empty_like(product)
    for points, tokens in frame.pass_groups(len(u)):
        v = _cotangent(h, weights(frame), points, tokens, frame)
        g = vjp(h, u, v).reshape(len(u), frame.in_tokens or 1, frame.columns)[points].double().cpu().numpy()
        for token in tokens if frame.out_tokens else frame.tokens:
            plain[points, frame.tokens.index(token)] = g[:, token if frame.in_tokens else 0]
    least = min((h.dtype, u.dtype), key=lambda dtype: -torch.finfo(dtype).eps)
    with np.errstate(invalid="ignore"):
        wrong = np.abs(product - plain) > AGREE.get(least, 0.1) * scale.max(axis=-1, keepdims=True)
    return not wrong.any()


def _cotangent(h: Tensor, w: np.ndarray, points: list[int], tokens: list[int], frame: Frame) -> Tensor:
    """Cotangent of ``h`` that equals w at the given points and tokens, and zero elsewhere."""
    v = torch.zeros((len(h), frame.out_tokens or 1, frame.units), dtype=h.dtype, device=h.device)
    v[np.array(points)[:, None, None], np.array(tokens)[:, None], frame.rows] = torch.from_numpy(w).to(v)
    return v.reshape(h.shape)


def vjp(h: Any, u: Tensor, v: Tensor, *, batched: bool = False) -> Tensor:
    """Vector-Jacobian product v^T dh/du, zero if h does not depend on u; with ``batched``, for several v at once."""

    def single(cotangent: Tensor) -> Tensor:
        (g,) = torch.autograd.grad(h, [u], cotangent, retain_graph=True, allow_unused=True)
        return torch.zeros_like(u) if g is None else g

    if not batched:
        return single(v)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*batching rule.*")  # slower, not wrong
        pulled: Tensor = torch.func.vmap(single)(v)  # is_grads_batched knows fewer operations, and goes through others one by one
    return pulled


def confirm(J: np.ndarray, function: Function, u: Tensor, frame: Frame) -> bool:
    """Whether difference quotients confirm, at every token, a Jacobian that cannot be compared with a graph."""
    token_indices = np.arange(len(frame.tokens))
    for draw, indices in itertools.product(range(DRAWS), token_indices[:, None] if frame.mixing else token_indices[None]):
        tokens = [frame.tokens[index] for index in indices]
        w, direction = weights(frame, draw), np.random.default_rng([frame.columns, draw]).standard_normal(frame.columns)
        tangent = torch.zeros((len(u), frame.in_tokens or 1, frame.columns), dtype=u.dtype, device=u.device)
        tangent[:, tokens if frame.in_tokens else 0] = torch.from_numpy(direction).to(tangent)
        cotangent = torch.zeros((len(u), frame.out_tokens or 1, frame.units), dtype=u.dtype, device=u.device)
        cotangent[:, np.array(tokens if frame.out_tokens else [0])[:, None], frame.rows] = torch.from_numpy(w).to(cotangent)
        expected = float((w @ J[:, indices] @ direction).sum())
        size = float((np.abs(w) @ np.abs(J[:, indices])).max())
        if _quotient_agrees(function, u, tangent.reshape(u.shape), cotangent.flatten(), expected, size) is not True:
            return False
    return True


def omission_note(function: Function, leaf: Tensor, h: Tensor) -> str:
    """Note on the part of a layer map that autograd treats as constant; "" if there is none.

    Raises:
        Unmeasurable: An operator has no autograd kernel, or a custom backward is not the derivative.
    """
    nodes = list(_nodes(h))
    if any(node.name().endswith(NO_KERNEL) for node in nodes):
        raise Unmeasurable(f"{_operators_without_kernel(h, leaf)} has no autograd kernel: PyTorch would leave its derivative out")
    try:
        if _differences_agree(function, leaf, h) is not False:
            return ""
        leaf = _nearby_point(leaf)  # at a kink, such as relu at exactly 0, a quotient is meaningless
        if _differences_agree(function, leaf, function(leaf.view_as(leaf))) is not False:
            return ""
    except (RuntimeError, NotImplementedError):  # no reverse mode here; forward mode may still work
        return ""
    try:
        with _NoDetaching(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of numbers taken out of tensors that are no longer detached
            explained = _differences_agree(function, leaf, function(leaf.view_as(leaf)))
    except Exception:  # what stood under no_grad cannot be differentiated
        explained = None
    custom = sorted({_custom_name(node) for node in nodes if _is_custom(node)})
    if explained is not True and custom:
        raise Unmeasurable(f"the backward of {', '.join(custom)} is not its derivative: a difference quotient differs from it")
    return CONSTANT if explained else UNSEEN


def _nearby_point(leaf: Tensor) -> Tensor:
    """A point in general position close to the variable's."""
    generator = torch.Generator().manual_seed(3)
    step = torch.randn(leaf.shape, generator=generator, dtype=torch.float64).to(leaf)
    scale = leaf.detach().square().mean().sqrt() or 1.0
    return (leaf.detach() + 0.01 * scale * step).requires_grad_(True)


def _differences_agree(function: Function, leaf: Tensor, h: Tensor) -> bool | None:
    """Whether difference quotients along random directions agree with autograd; None if inconclusive."""
    agreed: bool | None = True
    for draw in range(DRAWS):
        generator = torch.Generator().manual_seed(2 + draw)
        w = torch.randn(h.shape, generator=generator, dtype=torch.float64).to(h)
        v = torch.randn(leaf.shape, generator=generator, dtype=torch.float64).to(leaf)
        v = v * (leaf.detach().square().mean().sqrt() or 1.0)
        g = vjp(h, leaf, w)
        size = float(g.norm() * v.norm()) / g.numel() ** 0.5
        verdict = _quotient_agrees(function, leaf.detach(), v, w.flatten(), float((g * v).sum()), size)
        if verdict is False:
            return False
        agreed = agreed and verdict
    return agreed


def _quotient_agrees(function: Function, u: Tensor, v: Tensor, w: Tensor, expected: float, size: float) -> bool | None:
    """Whether w · (f(u + s v) - f(u - s v)) / 2s equals ``expected`` for some step s; None if it does not converge."""
    before = None
    for step in STEPS.get(u.dtype, ()):
        try:
            with torch.no_grad():  # which some models switch back on
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


class _NoDetaching(TorchFunctionMode):
    """Make ``no_grad`` and ``detach`` do nothing."""

    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None) -> Any:
        if func is torch._C._set_grad_enabled:
            return None
        if func in (Tensor.detach, Tensor.data.__get__):  # type: ignore[attr-defined]
            return args[0].view_as(args[0])
        return func(*args, **(kwargs or {}))


def has_custom_backward(h: Any) -> bool:
    """Whether the graph of ``h`` contains a custom backward."""
    return any(_is_custom(node) for node in _nodes(h))


def _nodes(h: Tensor) -> Iterator[Any]:
    """All nodes of the graph of ``h``."""
    open_nodes, seen = [h.grad_fn], set()
    while open_nodes:
        node = open_nodes.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        yield node
        open_nodes += [parent for parent, _ in node.next_functions]


def _is_custom(node: Any) -> bool:
    return isinstance(node, torch.autograd.function.BackwardCFunction)


def _custom_name(node: Any) -> str:
    """Name of a custom node: "Cube", "library::operator"."""
    match = re.fullmatch(r"GeneratedBackwardFor_(\w+?)_(\w+)_\w+Backward", node.name())
    return f"{match[1]}::{match[2]}" if match else str(node.name()).removesuffix("Backward")


def _operators_without_kernel(h: Tensor, leaf: Tensor) -> str:
    """Names of the operators without an autograd kernel, from PyTorch's warnings during a backward pass."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with contextlib.suppress(RuntimeError, NotImplementedError):
            torch.autograd.grad(h, [leaf], torch.ones_like(h), retain_graph=True, allow_unused=True)
    names = [match[1] for warning in caught if (match := re.match(r"(\S+): an autograd kernel was not", str(warning.message)))]
    return f"the operator {', '.join(dict.fromkeys(names))}" if names else "an operator"
