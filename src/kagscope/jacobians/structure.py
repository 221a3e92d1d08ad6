"""Detect J(x) = diag(d(x)) W in the graph of a forward pass (MATH.md section 4.7).

If elementwise operations lead from a layer's output h back to a single tensor z, then dh/du = diag(dh/dz) dz/du.
If dz/du is the same matrix W at every point (an affine map, or one piece of a piecewise affine map), all points share it.
This is tested, not guessed from names: v^T dz/du must agree over all points and tokens for a random v.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge

SAME = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 1e-2, torch.float16: 1e-2}

# Names of elementwise autograd nodes. A missing name costs speed, never correctness.
_ELEMENTWISE = frozenset(
    {
        *("relu", "gelu", "tanh", "sigmoid", "silu", "mish", "leakyrelu", "elu", "celu", "softplus", "hardtanh", "hardswish"),
        *("hardsigmoid", "logsigmoid", "threshold", "preluk", "exp", "log", "log1p", "expm1", "sin", "cos", "erf", "pow", "sqrt"),
        *("rsqrt", "abs", "neg", "mul", "add", "sub", "div", "reciprocal", "clamp", "clampmin", "clampmax", "clone", "alias"),
        *("square", "specialndtr", "where"),
    }
)


@dataclass(frozen=True)
class Outer:
    """Factors of dh/du = diag(``d``) dz/du, with z at ``edge`` of the graph; ``d`` has the shape of h."""

    edge: GradientEdge
    d: Tensor


def outer_diagonal(h: Tensor, create_graph: bool = False) -> Outer | None:
    """The elementwise end of the graph of ``h``; None if it does not start from one tensor of h's shape.

    With ``create_graph`` the diagonal is differentiable itself.
    """
    if h.grad_fn is None:
        return None
    start = GradientEdge(h.grad_fn, h.output_nr)
    node, number, d = start.node, start.output_nr, torch.ones_like(h, requires_grad=False)
    with torch.set_grad_enabled(create_graph):
        while _is_elementwise(node) and len(node.next_functions) == 1 and node.next_functions[0][0] is not None:
            d = node(d)  # type: ignore[operator]  # what the engine would do, without its overhead for a chain
            node, number = node.next_functions[0]  # type: ignore[assignment]
    if not _is_elementwise(node):
        return _outer(GradientEdge(node, number), d, h)
    frontier: dict[tuple[Any, int], GradientEdge] = {}
    open_edges, seen = [start], set()
    while open_edges:
        edge = open_edges.pop()
        key = (edge.node, edge.output_nr)
        if key in seen:
            continue
        seen.add(key)
        parents = [GradientEdge(node, number) for node, number in edge.node.next_functions if node is not None]
        if _is_elementwise(edge.node) and parents:
            open_edges += parents
        else:
            frontier[key] = edge
    if len(frontier) != 1:
        return None
    (edge,) = frontier.values()
    if edge.node is h.grad_fn:
        return Outer(edge, torch.ones_like(h, requires_grad=False))
    gradients: tuple[Tensor | None, ...] = torch.autograd.grad(
        h, [edge], torch.ones_like(h), retain_graph=True, create_graph=create_graph, allow_unused=True
    )
    return _outer(edge, gradients[0], h)


def _outer(edge: GradientEdge, d: Tensor | None, h: Tensor) -> Outer | None:
    """Pair an edge with d, if d is a real diagonal of h's shape."""
    if d is None or d.shape != h.shape or d.is_complex():  # the real part of a complex one does not factor
        return None
    return Outer(edge, d)


def weight_at(edge: GradientEdge, u: Tensor) -> Tensor | None:
    """Weight W (m, n) of the affine map z = W u + b that made the tensor at ``edge`` from ``u`` (B, …), flattened or not.

    It is the tensor that autograd saved, and so leads to the parameters; None if z was made otherwise.
    """
    position = {"AddmmBackward0": 1, "MmBackward0": 0}.get(edge.node.name())
    if position is None or getattr(edge.node, "_saved_alpha", 1) != 1:
        return None
    source: Any = edge.node.next_functions[position][0]
    while source is not None and source.name() in ("ViewBackward0", "UnsafeViewBackward0", "CloneBackward0"):
        source = source.next_functions[0][0]
    weight: Tensor = edge.node._saved_mat2  # type: ignore[attr-defined]
    if getattr(source, "variable", None) is not u or len(weight) != u[0].numel():
        return None
    return weight.mT


def shared_signature(outer: Outer, u: Tensor, tokens: bool) -> Tensor | None:
    """v^T dz/du for one random v, shared by all points, and with ``tokens`` by all tokens (which must not mix).

    None if it differs, so that dz/du is not one matrix W. Equal signatures of two batches mean the same W.
    """
    generator = torch.Generator().manual_seed(1)
    vector = torch.randn(outer.d.shape[2:] if tokens else outer.d.shape[1:], generator=generator).to(outer.d)
    v = vector.expand(outer.d.shape).contiguous()
    gradients: tuple[Tensor | None, ...] = torch.autograd.grad([outer.edge], [u], v, retain_graph=True, allow_unused=True)
    if gradients[0] is None:
        return None
    g = gradients[0].reshape(-1, *u.shape[2:]) if tokens else gradients[0]
    return g[0] if all(same(g[0], other) for other in g[1:]) else None


def same(first: Tensor, second: Tensor) -> bool:
    """Whether two tensors are equal up to the rounding of their dtype."""
    return bool((first - second).abs().max() <= SAME[first.dtype] * first.abs().max())


def _is_elementwise(node: Any) -> bool:
    if isinstance(node, torch.autograd.function.BackwardCFunction):
        return False  # a custom function, whatever its name
    name = node.name().rsplit("::", 1)[-1]
    return name.rstrip("0123456789").removesuffix("Backward").replace("_", "").lower() in _ELEMENTWISE
