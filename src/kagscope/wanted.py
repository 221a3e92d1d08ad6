"""Names of the scores that a study can ask for, and what each takes; what nobody asked for is not computed.

Where a function takes ``asked``, None asks for every score.
"""

from __future__ import annotations

from collections.abc import Collection

NEEDS: dict[str, tuple[str, ...]] = {
    "pr": ("s1", "s2"),
    "pr_normalized": ("s1", "s2"),
    "effective_minors": ("s1", "s2"),
    "ipr": ("s2", "s4"),
    "kl_uniform": ("s1", "entropy"),
    "near_zero": ("s1", "histogram"),
    "top": ("top",),
    "rr_pr": ("s1",),
    "kl_init": ("s1", "histogram"),
}
"""Scores of the minors of a selection, and the moments that each is a function of (MATH.md section 3)."""

ROW_SCORES = ("zero_rows", "zero_rows_exact")
SPECTRAL_SCORES = ("axis_alignment", "effective_rank", "stable_rank", "sv_participation")
MATRIX_SCORES = ("rr_max", *ROW_SCORES, *SPECTRAL_SCORES, "column_divergence")
ACTIVATION_SCORES = ("kernel_alignment", "effective_dimension", "intrinsic_dimension", "cka_init")
CONSTANT_SCORES = ("constant_units", "constant_share", "constant_units_exact")
UNFELT_SCORES = ("unfelt_units", "unfelt_share")
PRUNE_SCORES = ("prune_change", "prune_change_exact")
SCORE_NAMES = (*NEEDS, *MATRIX_SCORES, *ACTIVATION_SCORES, *CONSTANT_SCORES, *UNFELT_SCORES, *PRUNE_SCORES)


def wants(asked: Collection[str] | None, *names: str) -> bool:
    """Whether any of ``names`` is asked for."""
    return asked is None or any(name in asked for name in names)


def moments_for(asked: Collection[str] | None, there: Collection[str]) -> tuple[str, ...]:
    """Those of the moments ``there`` that the scores asked for need, of scores that these moments suffice for."""
    if asked is None:
        return tuple(there)
    useful = {name for score in asked for name in NEEDS.get(score, ()) if set(NEEDS[score]) <= set(there)}
    return tuple(name for name in there if name in useful)
