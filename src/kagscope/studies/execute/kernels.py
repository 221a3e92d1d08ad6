"""Compile kernels before several processes would each compile them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from kagscope.minors import ORDERS, is_warm, warm_up
from kagscope.studies.execute.second_process import second_process
from kagscope.studies.resources import usable_cores


def compile_kernels(tell: Callable[[str], None]) -> None:
    """Compile uncached kernels; those of k = 3, half of the time, in a second process if there is a core for it."""
    if is_warm():
        return
    with second_process(usable_cores() > 1, "kagscope.minors.engine") as second:
        triples = second.begin({"k = 3": partial(warm_up, orders=(3,))})
        warm_up(tell, [k for k in ORDERS if k != 3])
        second.finish(triples, lambda name: None)
