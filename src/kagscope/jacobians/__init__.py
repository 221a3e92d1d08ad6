"""Layer maps of any module and their Jacobians, by automatic differentiation."""

from __future__ import annotations

from kagscope.jacobians.forms import DenseJacobian, FactoredJacobian, LayerJacobian

__all__ = ["DenseJacobian", "FactoredJacobian", "LayerJacobian"]
