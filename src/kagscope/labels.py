"""What scores and layers are called, in figures, on pages and in sentences."""

from __future__ import annotations

import re
from collections.abc import Sequence

SCORE_LABELS = {
    "pr": "participation ratio (PR)",
    "pr_normalized": "normalised PR",
    "effective_minors": "effective number of minors",
    "ipr": "inverse participation ratio",
    "kl_uniform": "KL from uniform",
    "kl_init": "KL from initial shape",
    "near_zero": "near-zero minors",
    "rr_pr": "rotation ratio of PR",
    "rr_max": "rotation ratio of maximum",
    "zero_rows": "zero rows",
    "zero_rows_exact": "rows exactly zero",
    "column_divergence": "column divergence",
    "axis_alignment": "axis alignment",
    "effective_rank": "effective rank",
    "stable_rank": "stable rank",
    "sv_participation": "singular-value participation",
    "kernel_alignment": "kernel alignment",
    "cka_init": "CKA with initial",
    "effective_dimension": "effective dimension",
    "intrinsic_dimension": "intrinsic dimension (TwoNN)",
    "unfelt_units": "unfelt units",
    "constant_units": "constant units",
    "prune_change": "change on pruning",
    "top": "largest minor",
    "constant_share": "share of constant rows",
    "unfelt_share": "share of unfelt units",
}
FRACTIONS = frozenset({"near_zero", "zero_rows", "zero_rows_exact", "constant_share", "unfelt_share", "pr_normalized"})


def score_label(score: str) -> str:
    """The name of a score in words; an unknown one is shown as it is."""
    return SCORE_LABELS.get(score, score.replace("_", " "))


def short_label(score: str) -> str:
    """A score's name where there is little room."""
    return "PR" if score == "pr" else score_label(score)


def layer_label(name: str, layers: Sequence[str]) -> str:
    """``"hidden1"`` -> ``"hidden layer 1"``, ``"encoder.0"`` -> ``"layer encoder.0"``.

    Where all names are the odd numbers of a plain stack's activations, these are numbered as well: ``"3"`` is hidden layer 2.
    """
    if own := re.fullmatch(r"hidden(\d+)", name):
        return f"hidden layer {own[1]}"
    numbers = [layer for layer in layers if layer.isdigit()]
    if name in numbers and numbers == [str(2 * place + 1) for place in range(len(numbers))]:
        return f"hidden layer {numbers.index(name) + 1}"
    return f"layer {name}" if name else "whole net"


def layer_sign(name: str, layers: Sequence[str]) -> str:
    """``"hidden1"`` -> $h_1$, as the papers write hidden layers, where :func:`layer_label` numbers them; else the name."""
    found = layer_label(name, layers)
    return f"$h_{{{found.removeprefix('hidden layer ')}}}$" if found.startswith("hidden layer ") else name or "whole net"
