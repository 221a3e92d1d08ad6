"""Rows and columns of a layer's Jacobians, and the tokens of sequences they belong to."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Frame:
    """Rows, columns and tokens of a layer's Jacobians.

    Attributes:
        rows: indices of the output units that are kept.
        units: number of output units, per token if the output has tokens.
        columns: number of input columns, per token if the variable has tokens.
        out_tokens: number of tokens of the output; None if it has none.
        in_tokens: number of tokens of the variable; if both have tokens, each token is differentiated with respect to itself.
        tokens: indices of the tokens measured.
        mixing: whether each token needs its own pass: its output depends on other tokens, or only one side has tokens.
        coupled: whether a point's output depends on the other points of its batch.
    """

    rows: np.ndarray
    units: int
    columns: int
    out_tokens: int | None
    in_tokens: int | None
    tokens: tuple[int, ...]
    mixing: bool
    coupled: bool

    def pass_groups(self, points: int) -> Iterator[tuple[list[int], list[int]]]:
        """(points, tokens) that share one pass: all points unless they are coupled, all tokens unless they mix."""
        tokens = list(self.tokens) if self.out_tokens else [0]
        for point_group in [[point] for point in range(points)] if self.coupled else [list(range(points))]:
            for token_group in [[token] for token in tokens] if self.mixing else [tokens]:
                yield point_group, token_group

    @property
    def reverse_passes(self) -> int:
        """Cotangents per batch of points."""
        return len(self.rows) * (len(self.tokens) if self.out_tokens and self.mixing else 1)

    @property
    def forward_passes(self) -> int:
        """Tangents per batch of points."""
        return self.columns * (len(self.tokens) if self.in_tokens and self.mixing else 1)
