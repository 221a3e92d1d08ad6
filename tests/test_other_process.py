"""What shows in another process only: one process for all of it, since its imports take seconds."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from kagscope.data import load
from kagscope.studies.file import list_jobs
from kagscope.studies.reproduce import reproduction

SCRIPT = """
import json, sys

import kagscope.figures
loaded = ["matplotlib" in sys.modules]
kagscope.figures.plot_zipf
loaded += ["matplotlib" in sys.modules, "matplotlib.pyplot" in sys.modules]

from kagscope.data import load
from kagscope.studies.file import list_jobs
from kagscope.studies.reproduce import reproduction
run, what = list_jobs(reproduction(data="digits"), {"digits": load("digits")})[0]

import torch
import kagscope as kag
threads = [torch.get_num_threads()]
kag.measure(torch.nn.Sequential(torch.nn.Linear(9, 5), torch.nn.GELU(), torch.nn.Linear(5, 2)), torch.rand(3, 9), progress=False)
threads.append(torch.get_num_threads())
print(json.dumps({"loaded": loaded, "names": [run.run_id, what.specs["main"].id], "threads": threads}))
"""


@pytest.fixture(scope="module")
def said() -> dict[str, Any]:
    environment = {name: value for name, value in os.environ.items() if name != "KAGSCOPE_THREADS"}
    environment |= {"PYTHONPATH": str(Path(__file__).resolve().parents[1] / "src"), "PYTHONHASHSEED": "7"}
    environment |= {"OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "2"}
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_drawing_waits_until_it_is_asked_for(said: dict[str, Any]) -> None:
    assert said["loaded"] == [False, True, False]


def test_names_are_the_same_there(said: dict[str, Any]) -> None:
    run, what = list_jobs(reproduction(data="digits"), {"digits": load("digits")})[0]
    assert said["names"] == [run.run_id, what.specs["main"].id]


def test_measuring_leaves_the_threads_of_torch_alone(said: dict[str, Any]) -> None:
    """Where Numba has a pool of its own, which starts only once in a process."""
    assert said["threads"] == [1, 1]
