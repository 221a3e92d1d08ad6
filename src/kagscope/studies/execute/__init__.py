"""Executors of studies: in this process, in a pool of processes, on Ray."""
