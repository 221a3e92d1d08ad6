"""Scores of Jacobians and of representations."""
