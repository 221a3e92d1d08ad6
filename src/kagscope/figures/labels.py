"""What scores and layers are called in figures and on pages."""

from __future__ import annotations

import re

import kagscope.scores  # noqa: F401  registers every score
from kagscope import registry
from kagscope.registry import label as score_label
from kagscope.registry import symbol as short_label

__all__ = ["is_fraction", "known_scores", "layer_label", "layer_sign", "score_label", "short_label"]


def known_scores() -> tuple[str, ...]:
    """Names of all scores, in the order in which figures show them."""
    return registry.names()


def is_fraction(score: str) -> bool:
    """Whether a score is a share between 0 and 1."""
    return score in registry.names() and registry.score(score).fraction


def layer_label(name: str) -> str:
    """``"hidden1"``, as kagscope's own MLPs name it, -> ``"hidden layer 1"``; another name as it is, ``"layer encoder.0"``."""
    own = re.fullmatch(r"hidden(\d+)", name)
    return f"hidden layer {own[1]}" if own else f"layer {name}" if name else "whole net"


def layer_sign(name: str) -> str:
    """``"hidden1"`` -> $h_1$, as the papers write hidden layers; another name as it is."""
    own = re.fullmatch(r"hidden(\d+)", name)
    return f"$h_{{{own[1]}}}$" if own else name or "whole net"
