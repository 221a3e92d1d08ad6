"""Rows of Jacobians with the graph to the parameters, pulled back all at once."""

from __future__ import annotations

import math
import warnings
from typing import Any

import torch
from torch import Tensor

from kagscope.base.errors import InputError
from kagscope.jacobians import structure


def shared_weight(outer: structure.Outer, u: Tensor, tokens: Tensor | None, sources: Tensor | None) -> Tensor | None:
    """W (m, n) of diag(d) W where all points have the same; each pulls back rows of its own, since they share them."""
    if tokens is None and (W := structure.weight_at(outer.edge, u)) is not None:
        return W
    like = outer.d
    points, units = len(like), math.prod(like.shape[1:] if tokens is None else like.shape[2:])
    cotangents = one_hots(like, tokens, same=True)
    random = torch.randn(units, generator=torch.Generator().manual_seed(1)).to(like)
    probe = random.expand(1, points, units) if tokens is None else _at_tokens(random.expand(1, points, units), like.shape, tokens)
    g = pulled_back(outer.edge, u, torch.cat([cotangents, probe.reshape(1, *like.shape)]), sources)
    probed = g[-1].detach()
    if not structure.same(probed, probed[:1]):
        return None
    return g[:-1].reshape(-1, g.shape[-1])[:units]


def one_hots(like: Tensor, tokens: Tensor | None, same: bool) -> Tensor:
    """Cotangents that pull back every row of every point, (m, P, …); with ``same``, each row at one point only, (m / P, P, …)."""
    points, units = len(like), math.prod(like.shape[1:] if tokens is None else like.shape[2:])
    if same:
        v = torch.eye(-(-units // points) * points, units, dtype=like.dtype, device=like.device).reshape(-1, points, units)
    else:
        v = torch.eye(units, dtype=like.dtype, device=like.device)[:, None].expand(units, points, units)
    return (v if tokens is None else _at_tokens(v, like.shape, tokens)).reshape(-1, *like.shape)


def _at_tokens(v: Tensor, shape: torch.Size, tokens: Tensor) -> Tensor:
    """(…, P, m) put at each point's token, (…, P, T, m)."""
    whole = v.new_zeros((len(v), *shape))
    whole[:, torch.arange(shape[0]), tokens] = v
    return whole


def pulled_back(h: Any, u: Tensor, cotangents: Tensor, sources: Tensor | None) -> Tensor:
    """(passes, P, n) cotangents pulled back to each point's variable (or one token of it), differentiable again."""

    def pull(cotangent: Tensor) -> Tensor:
        (found,) = torch.autograd.grad([h], [u], cotangent, create_graph=True, allow_unused=True)
        if found is None:
            raise InputError("its output does not depend differentiably on the variable, so that it has no Jacobian")
        return found

    try:  # not is_grads_batched, which knows fewer operations, and takes the others (gelu, tanh) one cotangent after the other
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*batching rule.*")  # slower, not wrong
            g = torch.func.vmap(pull)(cotangents)
    except (RuntimeError, NotImplementedError):  # an operation that vmap cannot take
        g = torch.stack([pull(one) for one in cotangents])
    g = g if sources is None else g[:, torch.arange(len(sources)), sources]
    return g.flatten(2)
