"""How long does ``kagscope.measure`` take, in how much memory, and what do its Jacobians cost beside the usual ways?

    python benchmarks/measure.py [--rounds 3] [--only NAME]

Every case runs in a process of its own: its peak memory is the largest resident size over that after imports, model, inputs and a
small measurement to warm up. Wall-clock and CPU seconds are medians over rounds; ratios compare cases of one round after another.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

import kagscope as kag
from kagscope.jacobians.compute import LayerJacobians
from kagscope.jacobians.inputs import as_inputs
from kagscope.jacobians.layers import find_calls
from kagscope.jacobians.maps import LayerMap
from kagscope.jacobians.runner import Runner
from kagscope.jacobians.untouched import untouched
from kagscope.training.models import mlp

MB = 2.0**20
BUDGET = 2**30
Work = tuple[Callable[[], object], Callable[[], object]]  # a small one to warm up, and the one that is timed


class Block(nn.Module):
    """A transformer block before normalisation moved inside: attention, then an MLP on each token."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.before, self.after = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.before(x)
        x = x + self.attention(y, y, y, need_weights=False)[0]
        y = self.mlp(self.after(x))
        return x + y


class ViT(nn.Module):
    """A vision transformer: patches, a class token, blocks, a linear head."""

    def __init__(self, blocks: int, width: int, patch: int, side: int, heads: int = 3) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, width, patch, stride=patch)
        self.token = nn.Parameter(torch.randn(1, 1, width) * 0.02)
        self.places = nn.Parameter(torch.randn(1, (side // patch) ** 2 + 1, width) * 0.02)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(blocks))
        self.head = nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(len(x), -1, -1), x], dim=1) + self.places
        for block in self.blocks:
            x = block(x)
        logits: Tensor = self.head(x[:, 0])
        return logits


def _random(*shape: int) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0))


def measure_mlp(baseline: bool) -> Work:
    """Two hidden layers at 100 points, all pairs of 784 pixels."""
    net, before = mlp(784, (64, 64), 10, seed=0), mlp(784, (64, 64), 10, seed=1)
    work = partial(kag.measure, net, k=(1, 2), baseline=before if baseline else None, progress=False)
    return partial(work, _random(2, 784)), partial(work, _random(100, 784))


def measure_vit(images: int) -> Work:
    """Block Jacobians of all MLPs of 12 blocks, width 192, 49 patches and a class token."""
    torch.manual_seed(0)
    net = ViT(blocks=12, width=192, patch=8, side=56)
    work = partial(kag.measure, net, layer_map="block", k=(1, 2), progress=False)
    few, many = _random(1, 3, 56, 56), _random(images, 3, 56, 56)
    return partial(work, few, layers="blocks.0.mlp", tokens=2), partial(work, many, layers="blocks.*.mlp")


# -- the Jacobian itself: a function from (B, …) to (B, …) where points do not mix ----------------------------------------------


def cnn_map() -> tuple[nn.Module, str, str, Tensor]:
    """Model input to the output of the last convolution: 1024 x 3072, 16 points."""
    torch.manual_seed(0)
    convolutions = [nn.Conv2d(3, 16, 3, 2, 1), nn.ReLU(), nn.Conv2d(16, 32, 3, 2, 1), nn.ReLU(), nn.Conv2d(32, 64, 3, 2, 1)]
    return nn.Sequential(*convolutions, nn.ReLU(), nn.Flatten(), nn.Linear(1024, 10)), "4", "input", _random(16, 3, 32, 32)


def vit_map() -> tuple[nn.Module, str, str, Tensor]:
    """Model input to a block of a vision transformer, its 50 tokens of width 96 taken whole: 4800 x 9408, 4 points."""
    torch.manual_seed(0)
    return ViT(blocks=4, width=96, patch=8, side=56), "blocks.3", "input", _random(4, 3, 56, 56)


MAPS: dict[str, Callable[[], tuple[nn.Module, str, str, Tensor]]] = {"cnn": cnn_map, "vit": vit_map}
ROWS = 512  # of each; ours are drawn at random


def ours(which: str) -> Work:
    """:class:`LayerJacobians`, as ``measure`` uses it."""
    model, layer, kind, x = MAPS[which]()

    def work(x: Tensor) -> None:
        inputs = as_inputs(x)
        with untouched(model):
            runner = Runner(model, None, 0)
            (call,) = find_calls(runner, inputs, {layer: None}, {layer})
            for batch in LayerJacobians(LayerMap(runner, call, kind), inputs, "flat", ROWS, BUDGET):  # type: ignore[arg-type]
                batch.jacobian.dense().sum()

    return partial(work, x[:1]), partial(work, x)


def _function(model: nn.Module, layer: str) -> Callable[[Tensor], Tensor]:
    """The same map by hand: (B, …) to the first ``ROWS`` of the layer's outputs, flat."""
    seen: list[Tensor] = []
    model.get_submodule(layer).register_forward_hook(lambda _, __, output: seen.append(output))

    def apply(x: Tensor) -> Tensor:
        seen.clear()
        model(x)
        return seen[0].flatten(1)[:, :ROWS]

    return apply


def rows(which: str) -> Work:
    """One backward pass for each row, all points at once."""
    model, layer, _, x = MAPS[which]()
    function = _function(model.eval(), layer)

    def work(x: Tensor) -> None:
        x = x.clone().requires_grad_(True)
        h = function(x)
        J = [torch.autograd.grad(h[:, row].sum(), x, retain_graph=True)[0].flatten(1) for row in range(h.shape[1])]
        torch.stack(J, dim=1).double().numpy().sum()

    return partial(work, x[:1]), partial(work, x)


def jacrev(which: str) -> Work:
    """``torch.func.jacrev`` under ``vmap`` over points, all rows at once."""
    model, layer, _, x = MAPS[which]()
    function = _function(model.eval(), layer)

    def work(x: Tensor) -> None:
        J = torch.func.vmap(torch.func.jacrev(lambda one: function(one[None])[0]))(x)
        J.detach().flatten(2).double().numpy().sum()

    return partial(work, x[:1]), partial(work, x)


CASES: dict[str, Callable[[], Work]] = {
    "mlp": partial(measure_mlp, False),
    "mlp with baseline": partial(measure_mlp, True),
    "vit": partial(measure_vit, 4),
    **{f"{which} {way.__name__}": partial(way, which) for which in MAPS for way in (ours, rows, jacrev)},
}


def run(name: str) -> dict[str, float]:
    """Seconds and bytes of one case, in this process."""
    kag.warm_up()
    small, work = CASES[name]()
    small()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return {"wall": wall, "cpu": cpu, "memory": (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024.0}


def in_process(name: str) -> dict[str, float]:
    """The same in a fresh process."""
    done = subprocess.run([sys.executable, __file__, "--case", name], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{name}: {done.stderr[-2000:]}")
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def table(names: list[str], rounds: int) -> dict[str, dict[str, float]]:
    """Medians over rounds; within a round the cases follow each other."""
    every: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    for _ in range(rounds):
        for name in names:
            every[name].append(in_process(name))
    return {name: {key: statistics.median(one[key] for one in found) for key in found[0]} for name, found in every.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default="", help="cases whose name begins with this")
    parser.add_argument("--case", choices=list(CASES), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.case:
        print(json.dumps(run(options.case)))
        return
    names = [name for name in CASES if name.startswith(options.only)]
    found = table(names, options.rounds)
    print(f"{'':<20} {'wall s':>8} {'CPU s':>8} {'memory MB':>10}   beside ours: CPU, memory")
    for name, one in found.items():
        ratio: Any = ""
        reference = found.get(f"{name.split()[0]} ours")
        if reference is not None and not name.endswith("ours"):
            ratio = f"{one['cpu'] / reference['cpu']:6.2f} x, {one['memory'] / reference['memory']:6.2f} x"
        print(f"{name:<20} {one['wall']:8.2f} {one['cpu']:8.2f} {one['memory'] / MB:10.0f}   {ratio}")


if __name__ == "__main__":
    main()
