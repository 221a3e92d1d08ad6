"""Finding J(x) = diag(d(x)) W in the graph of a forward pass (MATH.md section 4.7).

Going back from a layer's output through elementwise operations, one meets a single tensor z: then dh/du = diag(dh/dz) dz/du.
Where dz/du is the same matrix W at every point (affine, or inside one piece of a piecewise affine map), all points share it.
Sameness is tested and not guessed from names: v^T dz/du must agree over all points and tokens for a random v.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge

SAME = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 1e-2, torch.float16: 1e-2}

# Names of autograd nodes that act entry by entry. One that is missing here costs speed, never correctness.
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
    """dh/du = diag(``d``) dz/du with z at ``edge`` of the graph; ``d`` has the shape of h."""

    edge: GradientEdge
    d: Tensor


def outer_diagonal(h: Tensor, create_graph: bool = False) -> Outer | None:
    """The elementwise part at the end of the graph of ``h``; None where it does not start from one tensor of h's shape.

    With ``create_graph`` the diagonal can itself be differentiated.
    """
    if h.grad_fn is None:
        return None
    start = GradientEdge(h.grad_fn, h.output_nr)
    node, number, d = start.node, start.output_nr, torch.ones_like(h, requires_grad=False)
    with torch.set_grad_enabled(create_graph):
        while _is_elementwise(node) and len(node.next_functions) == 1 and node.next_functions[0][0] is not None:
            d = node(d)  # type: ignore[operator]  # as the engine would, in a chain without the engine's own work
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
    found: tuple[Tensor | None, ...] = torch.autograd.grad(
        h, [edge], torch.ones_like(h), retain_graph=True, create_graph=create_graph, allow_unused=True
    )
    return _outer(edge, found[0], h)


def _outer(edge: GradientEdge, d: Tensor | None, h: Tensor) -> Outer | None:
    """With d where that is a diagonal of h's shape."""
    if d is None or d.shape != h.shape or d.is_complex():  # whose real part is no diagonal times a matrix
        return None
    return Outer(edge, d)


def weight_at(edge: GradientEdge, u: Tensor) -> Tensor | None:
    """The weight W (m, n) of the affine map z = W u + b that made the tensor at ``edge`` of ``u`` (B, …), flattened or not.

    It is the tensor that autograd kept for z's own derivative, and so leads to the parameters; None where z was made otherwise.
    """
    place = {"AddmmBackward0": 1, "MmBackward0": 0}.get(edge.node.name())
    if place is None or getattr(edge.node, "_saved_alpha", 1) != 1:
        return None
    source: Any = edge.node.next_functions[place][0]
    while source is not None and source.name() in ("ViewBackward0", "UnsafeViewBackward0", "CloneBackward0"):
        source = source.next_functions[0][0]
    weight: Tensor = edge.node._saved_mat2  # type: ignore[attr-defined]
    if getattr(source, "variable", None) is not u or len(weight) != u[0].numel():
        return None
    return weight.mT


def shared_signature(outer: Outer, u: Tensor, tokens: bool) -> Tensor | None:
    """v^T dz/du for one random v, the same at every point, and with ``tokens`` at every token (which must not mix).

    None where it differs: dz/du is then not one matrix W. Equal signatures of two batches mean the same W.
    """
    generator = torch.Generator().manual_seed(1)
    one = torch.randn(outer.d.shape[2:] if tokens else outer.d.shape[1:], generator=generator).to(outer.d)
    v = one.expand(outer.d.shape).contiguous()
    found: tuple[Tensor | None, ...] = torch.autograd.grad([outer.edge], [u], v, retain_graph=True, allow_unused=True)
    if found[0] is None:
        return None
    g = found[0].reshape(-1, *u.shape[2:]) if tokens else found[0]
    return g[0] if all(same(g[0], other) for other in g[1:]) else None


def same(first: Tensor, second: Tensor) -> bool:
    """Equal up to the rounding of their dtype."""
    return bool((first - second).abs().max() <= SAME[first.dtype] * first.abs().max())


def _is_elementwise(node: Any) -> bool:
    if isinstance(node, torch.autograd.function.BackwardCFunction):
        return False  # a function of the user's, whatever its name
    name = node.name().rsplit("::", 1)[-1]
    return name.rstrip("0123456789").removesuffix("Backward").replace("_", "").lower() in _ELEMENTWISE
