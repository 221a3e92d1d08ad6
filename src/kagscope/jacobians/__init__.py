"""Layer maps and their Jacobians: closed forms for feed-forward stacks, automatic differentiation for any module."""

from __future__ import annotations

from kagscope.jacobians.forms import DeepJacobian, DenseJacobian, FactoredJacobian, LayerJacobian
from kagscope.jacobians.stack import hidden_activations, hidden_layer_jacobians, output_slopes

__all__ = [
    "DeepJacobian",
    "DenseJacobian",
    "FactoredJacobian",
    "LayerJacobian",
    "hidden_activations",
    "hidden_layer_jacobians",
    "output_slopes",
]
