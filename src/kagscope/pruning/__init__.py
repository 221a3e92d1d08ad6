"""Pruning: remove units whose Jacobian row is zero at every point."""
