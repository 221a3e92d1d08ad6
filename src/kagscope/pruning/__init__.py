"""Pruning: units whose Jacobian row is zero at every point, taken out of the network."""
