"""How does kagscope compare with what one would use instead? The same numbers by both ways, with processor time of one thread.

Run: ``python benchmarks/other_tools.py`` (a minute; needs torch-pruning besides the dependencies).
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import skdim
import torch
import torch_pruning
from torch import nn

import kagscope as kag
from kagscope.data import load
from kagscope.scores.of_representations import effective_dimension


def timed(work: Callable[[], Any], repeats: int = 3) -> tuple[Any, float]:
    """Its result, and the least processor time of a few runs after one to warm up."""
    work()
    times = []
    for _ in range(repeats):
        start = time.process_time()
        result = work()
        times.append(time.process_time() - start)
    return result, min(times)


def line(name: str, seconds: float, said: str) -> None:
    print(f"  {name:<58} {1e3 * seconds:10.2f} ms  {said}")


def every_minor(J: torch.Tensor) -> tuple[float, float]:
    """S1 and S2 of the 2-minors in plain PyTorch, a pair of rows at a time."""
    s1 = s2 = 0.0
    upper = torch.triu_indices(J.shape[1], J.shape[1], 1)
    for i in range(len(J)):
        for j in range(i + 1, len(J)):
            cross = torch.outer(J[i], J[j])
            minors = (cross - cross.T)[upper[0], upper[1]].abs()
            s1 += float(minors.sum())
            s2 += float((minors**2).sum())
    return s1, s2


def minors() -> None:
    print("Participation ratio of all 2-minors of a 16 x 784 Jacobian (3.7e7 minors)")
    J = torch.randn(16, 784, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    (s1, s2), plain = timed(lambda: every_minor(J), 1)
    found, ours = timed(lambda: kag.minor_moments(J, 2, moments=("s1", "s2")).participation_ratio)
    line("plain PyTorch", plain, f"{s2**0.5 / s1:.12g}")
    line("kagscope", ours, f"{found:.12g}")


def authors() -> None:
    print("PR of a 64 x 784 Jacobian: 500 drawn minors and five rotations, as the authors' code does, and ours")
    J = np.random.default_rng(0).normal(size=(64, 784))
    for k, rel_error in ((2, 0.0), (3, 0.01)):
        several = [float(kag.published_scores(J, k, seed=seed)["pr"]) for seed in range(20)]
        _, theirs = timed(partial(kag.published_scores, J, k))
        spread = np.std(several, ddof=1) / np.mean(several)
        line(f"k = {k}, the authors' way", theirs, f"with a standard deviation of {spread:.1%} over 20 seeds")
        options: dict[str, Any] = {"rel_error": rel_error} if rel_error else {}
        found, ours = timed(partial(kag.minor_moments, J, k, moments=("s1", "s2"), **options))
        error = 0.0 if found.exact else float(found.stderr["participation_ratio"] / found.participation_ratio)
        line(f"k = {k}, kagscope", ours, f"with a standard error of {error:.2%}" if error else "exact")


def dimension() -> None:
    print("Effective dimension (participation ratio of the covariance) of 2000 activations of 64 units")
    rng = np.random.default_rng(0)
    A = rng.normal(size=(2000, 64)) * 0.9 ** np.arange(64)
    theirs, plain = timed(lambda: skdim.id.lPCA(ver="participation_ratio").fit(A).dimension_)
    found, ours = timed(lambda: effective_dimension(A))
    line("scikit-dimension, lPCA(ver='participation_ratio')", plain, f"{theirs:.12g}")
    line("kagscope", ours, f"{found:.12g}")


def trained() -> tuple[nn.Sequential, torch.Tensor, torch.Tensor]:
    digits = load("digits")
    images, labels = torch.from_numpy(digits.train_images).flatten(1), torch.from_numpy(digits.train_labels)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 10))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(200):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images), labels).backward()
        optimizer.step()
    return model, images, torch.from_numpy(digits.test_images).flatten(1)


def pruning() -> None:
    print("Pruning a ReLU net 64-128-128-10 on the digits; the change is that of test outputs over the largest output")
    model, images, test_images = trained()
    before = model(test_images)

    def change(smaller: nn.Module) -> float:
        return float((smaller(test_images) - before).abs().max() / before.abs().max())

    (smaller, _), ours = timed(lambda: kag.prune(model, images), 1)
    left = [module.out_features for module in smaller if isinstance(module, nn.Linear)]
    line("kagscope, tolerance 0", ours, f"{256 - sum(left[:2])} of 256 units, largest change {change(smaller):.1e}")
    share = 1 - sum(left[:2]) / 256

    def magnitude() -> nn.Module:
        other = copy.deepcopy(model)
        importance = torch_pruning.importance.GroupMagnitudeImportance(p=2)
        pruner = torch_pruning.pruner.MetaPruner(
            other, images[:1], importance, pruning_ratio=share, global_pruning=True, ignored_layers=[other[4]]
        )
        pruner.step()
        return other

    other, theirs = timed(magnitude, 1)
    kept = [module.out_features for module in other if isinstance(module, nn.Linear)]
    said = f"{256 - sum(kept[:2])} of 256 units, largest change {change(other):.1e}"
    line("Torch-Pruning, as many by magnitude, not trained after", theirs, said)


def main() -> None:
    torch.set_num_threads(1)
    with kag.limit_threads(1):
        minors()
        authors()
        dimension()
        pruning()


if __name__ == "__main__":
    main()
