"""Measuring leaves the number of torch's threads as it was: in a process of its own, since Numba's pool starts only once."""

from __future__ import annotations

import os
import subprocess
import sys

SCRIPT = """
import torch
import kagscope as kag

before = torch.get_num_threads()
kag.measure(torch.nn.Sequential(torch.nn.Linear(9, 5), torch.nn.GELU(), torch.nn.Linear(5, 2)), torch.rand(3, 9), progress=False)
print(before, torch.get_num_threads())
"""


def test_measuring_leaves_the_threads_of_torch_alone() -> None:
    environment = {name: value for name, value in os.environ.items() if name != "KAGSCOPE_THREADS"}
    environment |= {"OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "2"}
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, env=environment, check=True)
    before, after = done.stdout.split()
    assert before == after == "1"
