"""Our scores and the authors' on the same Jacobians; ``python benchmarks/conventions.py`` prints a table of docs/claims.md.

Two layers of each net (784-32-32-10, GELU; trained: 10 epochs of Adam on the embedded digits scaled up to 28 x 28), one Jacobian
each. "theirs" is the mean over 20 seeds of :func:`kagscope.published_scores`, with its standard deviation; PR is multiplied by
sqrt(500 / N), so that both columns are about all minors.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

import kagscope as kag
from kagscope.data import load

SEEDS = 20


def trained(images: torch.Tensor, labels: torch.Tensor, epochs: int) -> nn.Sequential:
    """A net after so many epochs of Adam."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(784, 32), nn.GELU(), nn.Linear(32, 32), nn.GELU(), nn.Linear(32, 10))
    optimiser = torch.optim.Adam(net.parameters(), 1e-3)
    for _ in range(epochs):
        for batch in torch.randperm(len(images)).split(128):
            optimiser.zero_grad()
            nn.functional.cross_entropy(net(images[batch]), labels[batch]).backward()
            optimiser.step()
    return net


def main() -> None:
    """Print the table."""
    digits = load("digits")
    images = torch.as_tensor(np.asarray(digits.train_images), dtype=torch.float32).reshape(-1, 1, 8, 8)
    images = nn.functional.interpolate(images / images.max(), size=(28, 28), mode="bilinear").flatten(1)
    labels = torch.as_tensor(np.asarray(digits.train_labels), dtype=torch.int64)
    print("| net | layer | k | PR ours | PR theirs | KL ours | KL theirs | RR of the maximum, ours | RR theirs | `rr_pr` |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    for name, epochs in (("untrained", 0), ("trained", 10)):
        net = trained(images, labels, epochs)
        for layer, stop in (("hidden1", 2), ("hidden2", 4)):
            J = torch.func.jacrev(net[:stop])(images[0]).detach().double().numpy()
            for k in (1, 2):
                print(row(name, layer, J, k))


def row(name: str, layer: str, J: np.ndarray, k: int) -> str:
    """One row of the table."""
    ours = kag.minor_moments(J, k)
    drawn = [kag.published_scores(J, k, seed=seed) for seed in range(SEEDS)]
    theirs = {score: np.array([one[score] for one in drawn]) for score in ("pr", "kl", "rr")}
    theirs["pr"] = theirs["pr"] * np.sqrt(500 / ours.count)
    said = {score: f"{values.mean():.3g} ± {values.std():.2g}" for score, values in theirs.items()}
    top, of_pr = (kag.rotation_ratio(J, k, kind=kind) for kind in ("max", "pr"))
    own = f"{ours.participation_ratio:.3g}", f"{ours.kl_uniform:.3f}", f"{top:.3f}"
    cells = (own[0], said["pr"], own[1], said["kl"], own[2], said["rr"], f"{of_pr:.3f}")
    return f"| {name} | {layer} | {k} | " + " | ".join(cells) + " |"


if __name__ == "__main__":
    main()
