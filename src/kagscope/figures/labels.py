"""Labels of scores, layers and axes in figures and on pages."""

from __future__ import annotations

import kagscope.scores  # noqa: F401  registers every score
from kagscope import registry
from kagscope.registry import label as score_label
from kagscope.registry import symbol as short_label

__all__ = ["axis_label", "is_fraction", "layer_label", "outcome_label", "score_label", "short_label"]

UNITS = {"rotation": "degrees", "translation": "share of the side"}
NORM_LABELS = {"linf": "ℓ∞", "l2": "ℓ2"}
OUTCOMES = {
    "accuracy": "test accuracy",
    "train_accuracy": "training accuracy",
    "generalization_gap": "generalisation gap",
}


def is_fraction(score: str) -> bool:
    """Whether a score is a share between 0 and 1."""
    return score in registry.names() and registry.score(score).fraction


def layer_label(name: str, k: int = 0) -> str:
    """Label of a layer, ``"layer hidden1"``, with the order of the minors if given; "" is the whole network."""
    return (f"layer {name}" if name else "whole net") + (f", k = {k}" if k else "")


def setting_label(width: int, training: str, several: bool) -> str:
    """Label of a setting of a study: its width, if there are ``several``, and what else distinguishes it."""
    return f"width {width}, {training}" if several else training


def axis_label(name: str, *, unit: bool = False) -> str:
    """Label of an axis of a study, with its unit if not obvious: ``weight_decay`` is "weight decay"."""
    return name.replace("_", " ") + (f" ({UNITS[name]})" if unit and name in UNITS else "")


def outcome_label(outcome: str) -> str:
    """Label of an outcome of a study: ``pgd_linf_0.1`` is the accuracy under PGD with this norm and radius."""
    attack, _, suffix = outcome.partition("_")
    norm, _, radius = suffix.partition("_")
    if attack in ("pgd", "fgsm") and radius:
        return f"accuracy under {attack.upper()} ({NORM_LABELS.get(norm, norm)}, ε = {radius})"
    return OUTCOMES.get(outcome, outcome.replace("_", " "))
