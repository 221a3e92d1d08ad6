"""Block Jacobians of layers on sequences, each token at each point, against a Jacobian taken one token at a time."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import kagscope as kag


class Blocks(nn.Module):
    """A block that is not pointwise after affine, so that its Jacobians go through reverse or forward mode."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.block = nn.Sequential(nn.Linear(4, width), nn.GELU(), nn.Linear(width, 3))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.block(x)
        return out


@pytest.mark.parametrize("points", [1, 2, 3, 5])
@pytest.mark.parametrize("tokens", [1, 3, None])
def test_every_point_at_every_token(points: int, tokens: int | None) -> None:
    torch.manual_seed(0)
    model, x = Blocks(6).double(), torch.randn(points, 5, 4, dtype=torch.float64)
    table = kag.measure(model, x, layers="block", layer_map="block", tokens=tokens, k=2).table
    pr = table[(table["score"] == "pr") & (table["selection"] == "all")]
    assert len(pr) == points * (tokens or 5)
    for row in pr.to_dict("records"):
        J = torch.func.jacrev(model.block)(x[row["point"], row["token"]]).detach().numpy()
        minors = np.abs(
            [
                np.linalg.det(J[np.ix_(r, c)])
                for r in ((0, 1), (0, 2), (1, 2))
                for c in ((0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3))
            ]
        )
        assert row["value"] == pytest.approx(np.sqrt((minors**2).sum()) / minors.sum(), rel=1e-9)
