"""Columns of a Jacobian: where they lie, which subsets a selection takes, how many there are."""
