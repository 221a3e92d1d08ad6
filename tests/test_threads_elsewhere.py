"""Measuring leaves the number of threads of other libraries alone: in a fresh process, where nothing has set it yet."""

from __future__ import annotations

import os
import subprocess
import sys

CODE = """
import numpy as np, torch
torch.set_num_threads({threads})
import kagscope as kag
kag.minor_moments(np.random.default_rng(0).normal(size=(12, 20)), 2)
kag.measure(torch.nn.Sequential(torch.nn.Linear(6, 5), torch.nn.ReLU()), torch.randn(3, 6), progress=False)
print(torch.get_num_threads())
"""


def test_torch_keeps_its_number_of_threads() -> None:
    environment = {name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")}
    environment |= {"PYTHONPATH": os.pathsep.join(sys.path)}
    for threads in (1, 3):
        code = CODE.format(threads=threads)
        done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=300)
        assert done.stdout.strip() == str(threads), done.stderr
