"""What the rows and columns of a layer's Jacobians are, and which tokens of sequences they belong to."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np


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

    def together(self, points: int) -> Iterator[tuple[list[int], list[int]]]:
        """(points, tokens) whose cotangents one pass takes: all points unless they are coupled, all tokens unless they mix."""
        tokens = list(self.tokens) if self.out_tokens else [0]
        for some in [[point] for point in range(points)] if self.coupled else [list(range(points))]:
            for at in [[token] for token in tokens] if self.mixing else [tokens]:
                yield some, at

    @property
    def reverse_passes(self) -> int:
        """Cotangents per batch of points."""
        return len(self.rows) * (len(self.tokens) if self.out_tokens and self.mixing else 1)

    @property
    def forward_passes(self) -> int:
        """Tangents per batch of points."""
        return self.columns * (len(self.tokens) if self.in_tokens and self.mixing else 1)
