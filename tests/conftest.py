"""Fixtures shared by several test files."""

from __future__ import annotations

import functools
import gc
import math
import os
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import numpy as np
import pytest
import typer.main
from filelock import FileLock
from hypothesis import settings
from jaxtyping import install_import_hook

SHAPED = (
    "kagscope.scores",
    "kagscope.jacobians.forms",
    "kagscope.jacobians.autodiff",
    "kagscope.columns.scales",
)
install_import_hook(SHAPED, "beartype.beartype")  # shapes and dtypes in annotations are checked, in tests alone

from kagscope.figures.write import FAMILIES
from kagscope.studies.collect import Outcome
from kagscope.studies.execute.kernels import compile_kernels
from kagscope.tracking.overhead import ALLOWANCE
from studies import make_small_study, make_two_studies, shown_figures

T = TypeVar("T")

# The same examples in every run, so that a stranger's first run is not the one that finds a rare case; `make test-slow` tries
# more of them, and `pytest --hypothesis-profile=explore` looks for new ones. Tests whose examples are dear say their own number.
settings.register_profile("same", derandomize=True, max_examples=25, deadline=None)
settings.register_profile("thorough", derandomize=True, max_examples=300, deadline=None)
settings.register_profile("explore", derandomize=False, max_examples=300, deadline=None, print_blob=True)
settings.load_profile("same")

if "PYTEST_XDIST_WORKER" in os.environ:  # one for each core: more threads than that would wait for each other
    os.environ.setdefault("KAGSCOPE_THREADS", "1")
os.environ.setdefault("RAY_worker_niceness", "0")  # Ray's 15 lets whatever else runs here stretch seconds into minutes


gc.disable()  # until everything is imported and collected, which leaves little to free


# The files that take longest, longest first, a study's users apart: what is dear at the end would keep one worker alone.
DEAR = (
    *("reproduce", "battery", "docs", "study_asked", "study_runs", "bad_input_report", "golden", "report_browser", "measure"),
    *("functional_battery", "tracking_history", "report", "one_road", "claims", "measure_cli", "measure_inputs", "figures"),
    *("sampling", "layer_maps", "haar", "figure_images", "side_by_side", "measure_report", "torch_backend", "untouched", "cli"),
    *("other_process", "executors", "series", "functional", "score_errors", "measure_matrices", "moments", "vit"),
)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put dear files first; the tests of a file stay together and in their order."""
    order = {f"test_{name}.py": place for place, name in enumerate(DEAR)}
    items.sort(key=lambda item: order.get(item.path.name, len(DEAR)))


def pytest_collection_finish() -> None:
    """Keep the garbage collector from walking over a million objects, which stay, in every full round."""
    gc.freeze()
    gc.enable()


def pytest_configure(config: pytest.Config) -> None:
    """Compile the kernels once, before workers start that would each do it."""
    if getattr(config.option, "numprocesses", None) and not hasattr(config, "workerinput"):
        compile_kernels(lambda text: None)
        config.option.loadscopereorder = False  # files are handed out in the order of the collection, not by numbers of tests


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], T]) -> T:
    """What ``make`` makes of a new folder: by the first worker that asks, for all of them."""
    base = factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    kept = shared / f"{name}.pickle"
    with FileLock(shared / f"{name}.lock"):
        if not kept.exists():
            kept.write_bytes(pickle.dumps(make(shared / name)))
        made: T = pickle.loads(kept.read_bytes())
    return made


@pytest.fixture(scope="session")
def study(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """A finished small study on the digits; tests must not change its folder."""
    return made_once(tmp_path_factory, "study", make_small_study)


@pytest.fixture(scope="session")
def two_studies(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Folders of two finished small studies that share one setting; tests must not change them."""
    return made_once(tmp_path_factory, "two", make_two_studies)


@pytest.fixture(autouse=True, scope="session")
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Whatever a test keeps in the user's cache folder goes elsewhere."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(autouse=True, scope="session")
def one_command_line() -> Iterator[None]:
    """The command line is made once, not in each of hundreds of calls."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("typer.testing._get_command", functools.cache(typer.main.get_command))
        yield


@pytest.fixture(autouse=True, scope="session")
def few_figures() -> Iterator[None]:
    """The first two figures of a study on every page, in place of all, which take seconds."""
    with shown_figures(2):
        yield


@pytest.fixture(scope="module")
def every_figure() -> Iterator[None]:
    """All of them: for modules of tests that are about figures."""
    with shown_figures(len(FAMILIES)):
        yield


@pytest.fixture(autouse=True)
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trackers measure whenever that is due, however slow the machine is, unless a test is about what that costs."""
    monkeypatch.setattr("kagscope.tracking.tracker.ALLOWANCE", math.inf)


@pytest.fixture
def allowance(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a tracker may take whatever its limit, as users have it."""
    monkeypatch.setattr("kagscope.tracking.tracker.ALLOWANCE", ALLOWANCE)


@pytest.fixture(autouse=True)
def own_numbers(request: pytest.FixtureRequest) -> None:
    """A generator that a module's tests share begins anew in each: numbers do not depend on which tests a worker ran before."""
    for name in ("rng", "RNG"):
        if isinstance(getattr(request.module, name, None), np.random.Generator):
            setattr(request.module, name, np.random.default_rng(0))
