"""Jacobian rows by batched pull-backs that keep the graph to the parameters."""

from __future__ import annotations

import math
import warnings
from typing import Any

import torch
from torch import Tensor

from kagscope.base.errors import InputError
from kagscope.jacobians import structure


def shared_weight(outer: structure.Outer, u: Tensor, tokens: Tensor | None, sources: Tensor | None) -> Tensor | None:
    """W (m, n) of diag(d) W if all points share it; the rows to pull back are divided among the points."""
    if tokens is None and (W := structure.weight_at(outer.edge, u)) is not None:
        return W
    like = outer.d
    points, units = len(like), math.prod(like.shape[1:] if tokens is None else like.shape[2:])
    cotangents = one_hots(like, tokens, same=True)
    random = torch.randn(units, generator=torch.Generator().manual_seed(1)).to(like)
    probe = random.expand(1, points, units)
    probe = probe if tokens is None else _expand_tokens(probe, like.shape, tokens)
    g = pull_back(outer.edge, u, torch.cat([cotangents, probe.reshape(1, *like.shape)]), sources)
    probed = g[-1].detach()
    if not structure.same(probed, probed[:1]):
        return None
    return g[:-1].reshape(-1, g.shape[-1])[:units]


def one_hots(like: Tensor, tokens: Tensor | None, same: bool) -> Tensor:
    """Cotangents for every row of every point, (m, P, …); with ``same``, for each row at one point only, (m / P, P, …)."""
    points, units = len(like), math.prod(like.shape[1:] if tokens is None else like.shape[2:])
    if same:
        v = torch.eye(-(-units // points) * points, units, dtype=like.dtype, device=like.device).reshape(-1, points, units)
    else:
        v = torch.eye(units, dtype=like.dtype, device=like.device)[:, None].expand(units, points, units)
    return (v if tokens is None else _expand_tokens(v, like.shape, tokens)).reshape(-1, *like.shape)


def _expand_tokens(v: Tensor, shape: torch.Size, tokens: Tensor) -> Tensor:
    """Place (…, P, m) at each point's token: (…, P, T, m), zero elsewhere."""
    padded = v.new_zeros((len(v), *shape))
    padded[:, torch.arange(shape[0]), tokens] = v
    return padded


def pull_back(h: Any, u: Tensor, cotangents: Tensor, sources: Tensor | None) -> Tensor:
    """Pull cotangents back to each point's variable (or one token of it): (passes, P, n), differentiable."""

    def vjp(cotangent: Tensor) -> Tensor:
        (gradient,) = torch.autograd.grad([h], [u], cotangent, create_graph=True, allow_unused=True)
        if gradient is None:
            raise InputError("its output does not depend differentiably on the variable, so that it has no Jacobian")
        return gradient

    try:  # is_grads_batched knows fewer operations, and loops over cotangents for the others (gelu, tanh)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*batching rule.*")  # slower, not wrong
            g = torch.func.vmap(vjp)(cotangents)
    except (RuntimeError, NotImplementedError):  # an operation that vmap cannot take
        g = torch.stack([vjp(cotangent) for cotangent in cotangents])
    g = g if sources is None else g[:, torch.arange(len(sources)), sources]
    return g.flatten(2)
