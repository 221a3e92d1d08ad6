"""Grids of runs: configuration, store, executors, statistics, claims."""
