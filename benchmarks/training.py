"""How should the seeds of one setting be trained on a CPU, and what does augmentation cost?

    python benchmarks/training.py [--seeds 1 5 15]

Four ways to take the same Adam steps for several networks of one shape: one by one (nn.Sequential, autograd, fused Adam),
batched matrix products under autograd, torch.func.vmap, and the hand-written gradients that kagscope uses. Random data: only time
is measured. Microseconds of processor time per network and step on one thread, the least of several rounds; in brackets the speed
against one by one. 15 networks are all seeds of a width and all trainings at once.
"""

from __future__ import annotations

import argparse
import itertools
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, stack_module_state, vmap
from torch.nn import functional

from kagscope.training import Augmentation
from kagscope.training.augmentation import Warper, draw_maps
from kagscope.training.models import mlp
from kagscope.training.stacked import StackedMLP

PROBLEMS = [(64, 32, 64), (64, 64, 64), (64, 128, 64), (784, 32, 128), (784, 64, 128), (784, 128, 128)]  # inputs, width, batch
N_IMAGES = 20_000
Step = Callable[[], None]


def plain(models: list[nn.Sequential], x: Tensor, y: Tensor, batch: int) -> Step:
    adams = [torch.optim.Adam(model.parameters(), fused=True) for model in models]

    def step() -> None:
        for model, adam in zip(models, adams, strict=True):
            index = torch.randint(len(x), (batch,))
            adam.zero_grad()
            functional.cross_entropy(model(x[index]), y[index]).backward()
            adam.step()

    return step


def batched(models: list[nn.Sequential], x: Tensor, y: Tensor, batch: int) -> Step:
    linears = [[module for module in model.modules() if isinstance(module, nn.Linear)] for model in models]
    weights = [
        torch.stack([layer.weight.detach().t() for layer in layers]).requires_grad_() for layers in zip(*linears, strict=True)
    ]
    biases = [
        torch.stack([layer.bias.detach() for layer in layers])[:, None].requires_grad_() for layers in zip(*linears, strict=True)
    ]
    adam = torch.optim.Adam([*weights, *biases], fused=True)

    def step() -> None:
        index = torch.randint(len(x), (len(models), batch))
        h = x[index]
        adam.zero_grad()
        for layer, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
            h = torch.baddbmm(bias, functional.gelu(h) if layer else h, weight)
        (functional.cross_entropy(h.flatten(0, 1), y[index].flatten()) * len(models)).backward()
        adam.step()

    return step


def vmapped(models: list[nn.Sequential], x: Tensor, y: Tensor, batch: int) -> Step:
    parameters, _ = stack_module_state(models)
    adam = torch.optim.Adam(list(parameters.values()), fused=True)

    def loss(state: dict[str, Tensor], images: Tensor, labels: Tensor) -> Tensor:
        return functional.cross_entropy(functional_call(models[0], state, (images,)), labels)

    gradient = vmap(grad(loss))

    def step() -> None:
        index = torch.randint(len(x), (len(models), batch))
        for name, value in gradient(parameters, x[index], y[index]).items():
            parameters[name].grad = value
        adam.step()

    return step


def by_hand(models: list[nn.Sequential], x: Tensor, y: Tensor, batch: int) -> Step:
    nets = StackedMLP([model.state_dict() for model in models], "gelu")
    adam = torch.optim.Adam([nets.parameters], fused=True)
    nets.parameters.grad = nets.gradients
    work, one_hot = nets.workspace(batch), torch.eye(10)[y]

    @torch.no_grad()
    def step() -> None:
        for s in range(len(models)):
            index = torch.randint(len(x), (batch,))
            torch.index_select(x, 0, index, out=work.inputs[s])
            torch.index_select(one_hot, 0, index, out=work.targets[s])
        nets.backward(work)
        adam.step()

    return step


WAYS = {"one by one": plain, "batched": batched, "vmap": vmapped, "by hand": by_hand}


def microseconds(steps: dict[str, Step], seconds: float, rounds: int) -> dict[str, float]:
    """The least time per call of each, measured in turns so that all see the same machine."""
    least = dict.fromkeys(steps, float("inf"))
    for step in steps.values():
        step()
    for _, (name, step) in itertools.product(range(rounds), steps.items()):
        count, start = 0, time.process_time()
        while time.process_time() - start < seconds:
            step()
            count += 1
        least[name] = min(least[name], (time.process_time() - start) / count * 1e6)
    return least


def compare_ways(n_seeds: int) -> None:
    print(f"\nTraining, {n_seeds} network{'s' * (n_seeds > 1)} together: microseconds per network and step")
    print(f"{'network, batch':<26}" + "".join(f"{way:>17}" for way in WAYS))
    for inputs, width, batch in PROBLEMS:
        x, y = torch.rand(N_IMAGES, inputs), torch.randint(0, 10, (N_IMAGES,))
        models = [[mlp(inputs, (width, width), 10, seed=seed) for seed in range(n_seeds)] for _ in WAYS]
        steps = {name: way(models[i], x, y, batch) for i, (name, way) in enumerate(WAYS.items())}
        times = {name: value / n_seeds for name, value in microseconds(steps, 0.15, 4).items()}
        cells = "".join(f"{value:9.0f} ({times['one by one'] / value:4.1f}x)" for value in times.values())
        print(f"{f'{inputs}-{width}-{width}-10, {batch}':<26}{cells}", flush=True)


def compare_augmentation() -> None:
    shape, batch = (28, 28), 128
    # strokes rather than noise: ink in the middle 20 x 20, as in MNIST
    images = functional.pad((torch.rand(N_IMAGES, 20, 20) > 0.5).float(), (4,) * 4)
    warper, maps, out = (
        Warper(images),
        draw_maps(Augmentation(), N_IMAGES, shape, torch.Generator().manual_seed(0)),
        torch.empty(batch, 784),
    )
    flat = images.flatten(1)
    theta = maps[:batch].flip(1)
    theta[:, :, 2] = 0  # without the shifts, which cost nothing

    def ours() -> None:
        index = torch.randint(N_IMAGES, (batch,))
        warper.warp(index, maps[:batch], out)

    def grid_sample() -> None:
        chosen = images[torch.randint(N_IMAGES, (batch,))].unsqueeze(1)
        grid = functional.affine_grid(theta, list(chosen.shape), align_corners=False)
        functional.grid_sample(chosen, grid, "bilinear", "zeros", align_corners=False)

    def gather_only() -> None:
        torch.index_select(flat, 0, torch.randint(N_IMAGES, (batch,)), out=out)

    times = microseconds({"gather only": gather_only, "grid_sample": grid_sample, "kagscope": ours}, 0.15, 4)
    print("\nAugmentation, 1 thread: microseconds per batch of 128 images of 28 x 28, gathering included")
    print("   ".join(f"{name} {value:.0f}" for name, value in times.items()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 5, 15], help="how many networks together")
    options = parser.parse_args()
    torch.set_num_threads(1)
    for n_seeds in options.seeds:
        compare_ways(n_seeds)
    compare_augmentation()


if __name__ == "__main__":
    main()
