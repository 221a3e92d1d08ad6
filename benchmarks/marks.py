"""Are the marks reached? One table: what each took when the mark was set, the mark, and what it takes here and now.

    python benchmarks/marks.py [--only PART] [--quick] [--mnist FOLDER] [--write docs/benchmarks.md]

Medians of runs of one process, wall-clock seconds unless the unit says otherwise; ``--quick`` leaves out what takes minutes.
Every sampled figure stands beside its actual error against the exact one. A miss is followed by the functions that take most
of its time. ``--write`` puts the table into a page between the lines ``<!-- marks -->`` and ``<!-- end of marks -->``.
"""

from __future__ import annotations

import argparse
import cProfile
import pstats
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import llvmlite.binding as llvm  # type: ignore[import-untyped]
import numpy as np
import torch
from torch import nn

import kagscope as kag
import measure as cases
from engine import IMAGE, SCALES, peak
from kagscope.data import load
from kagscope.minors.subsets import complete_pairs
from kagscope.minors.sweeps import enumerate_all, enumerate_sums
from kagscope.minors.threads import threads
from kagscope.studies.file import list_jobs
from kagscope.studies.networks import Measuring
from kagscope.studies.reproduce import reproduction
from kagscope.training import TrainedNetwork
from kagscope.training.models import mlp

ROOT = Path(__file__).resolve().parents[1]
BEGIN, END = "<!-- marks -->", "<!-- end of marks -->"
Work = Callable[[], Any]


@dataclass(frozen=True)
class Mark:
    """One row: ``find`` gives what is reached and a note; ``work`` is what a profile of a miss runs."""

    name: str
    then: str
    mark: float
    unit: str
    find: Callable[[], tuple[float, str]]
    work: Work | None = None
    minutes: bool = False

    @property
    def at_least(self) -> bool:
        return self.unit.endswith("a second")

    def reached(self, value: float) -> bool:
        return value >= self.mark if self.at_least else value <= self.mark


def seconds(work: Work, repeats: int = 3, clock: Callable[[], float] = time.perf_counter, warm: bool = True) -> float:
    """Median of some runs."""
    if warm:
        work()
    times = []
    for _ in range(repeats):
        began = clock()
        work()
        times.append(clock() - began)
    return median(times)


def timed(work: Work, **options: Any) -> tuple[float, str]:
    return seconds(work, **options), ""


def one_thread(work: Work) -> Any:
    with kag.limit_threads(1):
        return work()


def gaussian(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=shape)


# -- kernels and moments --------------------------------------------------------------------------------------------------------


def minors_a_second(work: Callable[[np.ndarray, Any], object]) -> tuple[float, str]:
    """1e9 minors a second and core, processor time."""
    J, pairs = gaussian(64, 784), complete_pairs(784)
    took = seconds(partial(one_thread, lambda: work(J, pairs)), clock=time.process_time)
    return 64 * 63 / 2 * len(pairs.last) / took / 1e9, ""


def nine_scales(**options: Any) -> list[kag.Moments]:
    found: list[kag.Moments] = kag.minor_moments(gaussian(64, 784), 2, SCALES, moments="all", **options, **IMAGE)
    return found


def sampled_scales() -> tuple[float, str]:
    draw = partial(nine_scales, method="sampled", rel_error=0.001)
    pairs = list(zip(draw(), nine_scales(method="exact"), strict=True))
    pr = max(abs(a.participation_ratio / b.participation_ratio - 1) for a, b in pairs)
    kl = max(abs(a.kl_uniform - b.kl_uniform) for a, b in pairs)
    return seconds(draw), f"actual errors: PR {pr:.2%}, KL {kl:.4f}"


def one_entropy() -> kag.Moments:
    found: kag.Moments = kag.minor_moments(gaussian(32, 3072), 2, moments=("entropy",), method="exact")
    return found


def entropy() -> tuple[float, str]:
    J = gaussian(32, 3072)
    exact = one_thread(lambda: enumerate_all(J, complete_pairs(3072), 2, False).sums[3].sum())
    error = abs(one_entropy().entropy / exact - 1)
    return seconds(partial(one_thread, one_entropy), clock=time.process_time), f"beside enumeration: {error:.0e}"


def fourth_powers() -> kag.Moments:
    found: kag.Moments = kag.minor_moments(gaussian(64, 784), 3, moments=("s4",))
    return found


def triples() -> tuple[float, str]:
    found = fourth_powers()
    return seconds(fourth_powers), f"standard error {found.stderr['s4'] / found.s4:.1%}"


# -- models ---------------------------------------------------------------------------------------------------------------------


def layers_of_net() -> kag.Report:
    x = torch.rand(24, 784, generator=torch.Generator().manual_seed(0))
    net, before = mlp(784, (128, 128), 10, seed=0), mlp(784, (128, 128), 10, seed=1)
    return kag.measure(net, x, baseline=before, k=(1, 2, 3), selections=SCALES, triple_points=2, progress=False, **IMAGE)


def study_net(width: int) -> tuple[float, str]:
    """Processor seconds of the geometry of one net of `reproduce` on mnist10k; nets with drawn weights stand for trained ones."""
    data = load("mnist10k", progress=False)
    jobs = list_jobs(reproduction(widths=(width,), seeds=1), {"mnist10k": data})
    measuring, began = Measuring(data), time.process_time()
    with kag.limit_threads(1):
        for run, what in jobs:
            shape = (run.n_inputs, run.widths, data.n_classes)
            states = {step: dict(mlp(*shape, seed=step).state_dict()) for step in run.steps}
            known = dict.fromkeys(run.steps, 0.0)
            net = TrainedNetwork(run.seed, run.training_settings(), states, known, known, 0.0, 94)
            for name, spec in what.specs.items():
                measuring.measure(run, net, name, spec)
    return (time.process_time() - began) / len(jobs), f"of {len(jobs)} that start from one"


def convolutions() -> kag.Report:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 8, 7, 3), nn.GELU(), nn.Conv2d(8, 16, 4, 1), nn.GELU(), nn.Flatten(), nn.Linear(400, 10))
    x = torch.rand(6, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    return kag.measure(net, x, k=(1, 2), progress=False)


def jacobians(which: str) -> tuple[float, str]:
    """Processor time of ours over the best of the others."""
    found = cases.table([f"{which} {way}" for way in ("ours", "rows", "jacrev")], 3)
    best = min(found[f"{which} {way}"]["cpu"] for way in ("rows", "jacrev"))
    memory = found[f"{which} ours"]["memory"] / cases.MB
    return found[f"{which} ours"]["cpu"] / best, f"{memory:.0f} MB of a budget of {cases.BUDGET / cases.MB:.0f}"


def tracker() -> tuple[float, str]:
    """Share of the training time that a tracker takes between its first and its last measurement, which it makes in any case."""
    torch.manual_seed(0)
    net = cases.ViT(blocks=2, width=48, patch=8, side=32)
    x, y = torch.rand(64, 3, 32, 32), torch.randint(10, (64,))
    optimiser = torch.optim.Adam(net.parameters())
    began, measuring = time.perf_counter(), 0.0
    tracking = kag.Tracker(net, x[:4], every=20)
    first = time.perf_counter() - began
    began = time.perf_counter()
    for step in range(1, 1001):
        optimiser.zero_grad()
        nn.functional.cross_entropy(net(x), y).backward()
        optimiser.step()
        before = time.perf_counter()
        tracking.step(step)
        measuring += time.perf_counter() - before
    training = time.perf_counter() - began - measuring
    before = time.perf_counter()
    tracking.finish()
    last = time.perf_counter() - before
    return measuring / training, f"{training:.0f} s of training; first and last {first:.0f} and {last:.0f} s"


def memory() -> tuple[float, str]:
    """MB beyond the budget of a measurement of wide layers, in a process of its own."""
    code = f"import sys; sys.path.insert(0, {str(ROOT / 'benchmarks')!r}); import marks; print(marks.beyond_budget())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return float(done.stdout.split()[-1]), "peak over that before, less memory_budget = 256 MB"


def beyond_budget() -> float:
    """MB; in a fresh process."""
    budget, x = 2**28, torch.rand(4, 784, generator=torch.Generator().manual_seed(0))
    kag.warm_up()
    measure = partial(kag.measure, mlp(784, (512, 512), 10, seed=0), k=(1, 2), memory_budget=budget, progress=False)
    measure(x[:1])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    measure(x)
    return (1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) - budget) / cases.MB


def command(*arguments: str) -> tuple[float, str]:
    """Minutes that a command takes."""
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        start = "import sys; from kagscope.cli import main; sys.exit(main())"
        subprocess.run([sys.executable, "-c", start, *arguments, "--out", folder], capture_output=True, check=True)
        return (time.perf_counter() - began) / 60, ""


def reproduced(data: str) -> tuple[float, str]:
    widths = ("--widths", "32,64,128", "--seeds", "5", "--epochs", "10", "--control", "none")
    return command("reproduce", "--data", data, *widths)


# -- the table ------------------------------------------------------------------------------------------------------------------


def marks(mnist: str) -> list[Mark]:
    """Every row, with what its mark was set against: two quiet cores with AVX-512."""
    wide = "avx512f" in features()
    both, geometry, conv = (lambda J, p: enumerate_all(J, p, 2)), partial(one_thread, layers_of_net), convolutions
    exact, sampled = partial(nine_scales, method="exact"), partial(nine_scales, method="sampled", rel_error=0.001)
    return [
        Mark("sums of 2-minors, 64 x 784", "4.3", 4.0, "1e9 a second", lambda: minors_a_second(enumerate_sums)),
        Mark("the same and entropy", "0.76", 1.5 if wide else 0.8, "1e9 a second",
             lambda: minors_a_second(lambda J, p: enumerate_all(J, p, 2, False))),
        Mark("the same, entropy and histogram", "0.40", 1.5 if wide else 0.8, "1e9 a second", lambda: minors_a_second(both)),
        Mark("all moments of 64 x 784, nine scales, exact", "0.622", 0.25, "s", lambda: timed(exact), exact),
        Mark("the same to 0.1% of PR and 0.01 of KL", "0.622", 0.06, "s", sampled_scales, sampled),
        Mark("entropy of 32 x 3072, one core", "3.8", 0.6, "s", entropy, one_entropy),
        Mark("sums of 4th powers of 3-minors, 64 x 784", "1 (to 2 to 7%)", 0.3, "s", triples, fourth_powers),
        Mark("geometry of a 784-128-128-10 net, 24 points (k = 3 at 2), one core", "153", 15, "s",
             lambda: timed(geometry, repeats=1, warm=False), geometry),
        *(
            Mark(f"geometry of a net of reproduce, {width} wide, one core", "15 on average", 8 if wide else 12, "s of processor",
                 partial(study_net, width))
            for width in (32, 64, 128)
        ),
        Mark("convolution layers, 512 and 400 x 784, 6 points", "23", 5, "s", lambda: timed(conv, repeats=1, warm=False), conv),
        Mark("Jacobians of a CNN over the best other way", "1.6 to 2.3", 1.1, "x", lambda: jacobians("cnn"), minutes=True),
        Mark("Jacobians of a ViT over the best other way", "1.6", 1.1, "x", lambda: jacobians("vit"), minutes=True),
        Mark("tracker on a small ViT, of training time", "no cap", 0.1, "x", tracker, minutes=True),
        Mark("memory beyond the budget, 512 rows", "", 100, "MB", memory, minutes=True),
        Mark("reproduce on mnist10k, 30 nets", "3.0 (digits)", 1.25, "minutes", lambda: reproduced("mnist10k"), minutes=True),
        Mark("reproduce on MNIST, 30 nets", "18", 5 if wide else 8, "minutes", lambda: reproduced(mnist), minutes=True),
    ]  # fmt: skip


def features() -> set[str]:
    return {name for name, there in llvm.get_host_cpu_features().items() if there}


def profile(work: Work) -> list[str]:
    """The five functions that take the most time themselves, and their shares."""
    profiler = cProfile.Profile()
    with kag.limit_threads(1):
        profiler.runcall(work)
    stats: dict[tuple[str, int, str], tuple[int, int, float, float, Any]] = pstats.Stats(profiler).stats  # type: ignore[attr-defined]
    total = sum(entry[2] for entry in stats.values())
    slowest = sorted(stats.items(), key=lambda item: -item[1][2])[:5]
    return [f"    {entry[2] / total:4.0%} {Path(place[0]).name}:{place[2]}" for place, entry in slowest]


def table(chosen: list[Mark]) -> Iterator[str]:
    """Lines of Markdown, as they are found."""
    vectors = "AVX-512" if "avx512f" in features() else "AVX2" if "avx2" in features() else "no AVX2"
    yield f"{threads()} threads, {vectors} ({llvm.get_host_cpu_name()}); a matrix product reaches"
    yield f"{peak() / 1e9:.0f}e9 float64 multiply-adds a second and core. NumPy {np.__version__}, torch {torch.__version__}."
    yield ""
    yield "| | then | mark | reached | | |"
    yield "|---|---|---|---|---|---|"
    misses: list[str] = []
    for one in chosen:
        value, note = one.find()
        met = one.reached(value)
        yield f"| {one.name} | {one.then} | {one.mark:g} {one.unit} | {value:.3g} | {'yes' if met else 'no'} | {note} |"
        if not met and one.work is not None:
            misses += ["", f"{one.name}, where the time goes:", "", *profile(one.work)]
    yield from misses


def write(page: Path, lines: list[str]) -> None:
    """Replaces what stands between the two marks in the page."""
    text = page.read_text()
    found = re.subn(rf"(?s){BEGIN}.*{END}", lambda _: "\n".join([BEGIN, "", *lines, "", END]), text)
    if not found[1]:
        raise SystemExit(f"{page} has no lines {BEGIN} and {END}")
    page.write_text(found[0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="rows whose name has this in it")
    parser.add_argument("--quick", action="store_true", help="without what takes minutes")
    parser.add_argument("--mnist", default="mnist10k", help="where all of MNIST lies")
    parser.add_argument("--write", type=Path, help="page to write the table into")
    options = parser.parse_args()
    kag.warm_up(print)
    chosen = [one for one in marks(options.mnist) if options.only in one.name and not (options.quick and one.minutes)]
    lines = []
    for text in table(chosen):
        print(text, flush=True)
        lines.append(text)
    if options.write:
        write(options.write, lines)


if __name__ == "__main__":
    main()
