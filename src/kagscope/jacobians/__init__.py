"""Layer maps and their Jacobians, by automatic differentiation of any module."""

from __future__ import annotations

from kagscope.jacobians.forms import DenseJacobian, FactoredJacobian, LayerJacobian

__all__ = ["DenseJacobian", "FactoredJacobian", "LayerJacobian"]
