"""Draw the pictures of docs/geometry.md into docs/pictures/. Usage: python docs/make_geometry_pictures.py

A net with one hidden layer learns xor3, a function of three variables (arXiv 2509.12326), so that its Jacobians, and even all
their minors, are small enough to be looked at. About twenty seconds on one core.
"""

from __future__ import annotations

import copy
from pathlib import Path

import matplotlib as mpl
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from torch import nn

import kagscope as kag
from kagscope.columns.layout import make_layout
from kagscope.data import load
from kagscope.figures.style import BLUE, GREY, ORANGE, VERMILLION, new_figure, save, style
from kagscope.minors.routes.determinants import minor_matrix

FOLDER = Path(__file__).parent / "pictures"
HIDDEN, POINT = 32, 7


def trained() -> tuple[nn.Sequential, nn.Sequential, torch.Tensor]:
    """A net before and after it learned xor3, and the points that it is looked at."""
    data = load("xor3")
    x, y = torch.from_numpy(data.train_images).flatten(1), torch.from_numpy(data.train_targets)
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, HIDDEN), nn.GELU(), nn.Linear(HIDDEN, 1))
    before = copy.deepcopy(net)
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
    for _ in range(4000):
        chosen = torch.randint(len(x), (128,))
        loss = nn.functional.mse_loss(net(x[chosen]), y[chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    print(f"last loss {loss.item():.3f} of a variance of 1")
    return before, net, torch.from_numpy(data.test_images).flatten(1)


def jacobian(net: nn.Sequential, point: torch.Tensor) -> np.ndarray:
    """(HIDDEN, 3): the hidden layer after its activation with respect to the input."""
    found = torch.func.jacrev(net[:2])(point)
    return np.asarray(found.detach().double())


def jacobians(before: nn.Sequential, after: nn.Sequential, point: torch.Tensor) -> None:
    """Both Jacobians as images, with the four entries of one minor."""
    figure = new_figure(7.0, 2.5)
    left, right = figure.subplots(2, 1, sharex=True)
    for ax, net, name in ((left, before, "before training"), (right, after, "after training")):
        J = jacobian(net, point)
        order = np.argsort(-np.abs(J).max(axis=1))
        limit = np.abs(J).max()
        shown = ax.imshow(J[order].T, cmap="RdBu_r", vmin=-limit, vmax=limit, aspect="auto")
        ax.set(yticks=range(3), yticklabels=["$x_1$", "$x_2$", "$x_3$"], title=name)
        ax.grid(False)
        figure.colorbar(shown, ax=ax, pad=0.01)
        for row, column in ((2, 0), (2, 1), (5, 0), (5, 1)):
            ax.add_patch(Rectangle((row - 0.5, column - 0.5), 1, 1, fill=False, edgecolor="black", linewidth=1.2))
    right.set_xlabel("hidden unit, by its largest entry")
    save(figure, FOLDER / "jacobian.png", dpi=120)


def minors(before: nn.Sequential, after: nn.Sequential, point: torch.Tensor) -> None:
    """All 2 x 2 minors of both, largest first, as bars of equal total."""
    figure = new_figure(7.0, 2.6)
    left, right = figure.subplots(1, 2)
    for net, name, colour in ((before, "before training", GREY), (after, "after training", VERMILLION)):
        J = jacobian(net, point)
        sizes = np.sort(minor_matrix(J, 2).ravel())[::-1]
        pr = kag.minor_moments(J, 2).participation_ratio
        left.plot(np.arange(1, len(sizes) + 1) / len(sizes), sizes / sizes.mean(), color=colour, label=f"{name}: PR {pr:.3f}")
        right.plot(np.arange(1, len(sizes) + 1) / len(sizes), np.cumsum(sizes) / sizes.sum(), color=colour)
    left.axhline(1, color=BLUE, linewidth=0.8, label="all equal")
    right.plot([0, 1], [0, 1], color=BLUE, linewidth=0.8)
    left.set(yscale="log", ylim=(1e-3, 60), xlabel="minors, largest first", ylabel="|minor| / mean")
    right.set(xlabel="minors, largest first", ylabel="share of the sum")
    for ax in (left, right):
        ax.xaxis.set_major_formatter(mpl.ticker.PercentFormatter(1.0))
    left.legend()
    save(figure, FOLDER / "minors.png", dpi=120)


def zero_rows(before: nn.Sequential, after: nn.Sequential, points: torch.Tensor) -> None:
    """Row norms of units over points: which units do nothing where."""
    figure = new_figure(7.0, 2.6)
    axes = figure.subplots(1, 2)
    for ax, net, name in zip(axes, (before, after), ("before training", "after training"), strict=True):
        norms = np.array([np.abs(jacobian(net, point)).mean(axis=1) for point in points[:60]])
        order = np.argsort(-norms.mean(axis=0))
        shown = ax.imshow(np.log10(np.maximum(norms[:, order], 1e-4)), cmap="cividis", vmin=-4, vmax=0.5, aspect="auto")
        ax.set(xlabel="hidden unit", ylabel="input", title=name)
        ax.grid(False)
    bar = figure.colorbar(shown, ax=axes, ticks=[-4, -2, 0], pad=0.01)
    bar.ax.set_yticklabels(["0.0001", "0.01", "1"])
    bar.set_label("mean |entry| of the unit's row")
    save(figure, FOLDER / "zero_rows.png", dpi=120)


def ideal() -> None:
    """What the inner functions of Kolmogorov's theorem look like to a Jacobian, beside random numbers."""
    rng = np.random.default_rng(0)
    ka = np.zeros((12, 6))
    ka[np.arange(6) * 2, rng.permutation(6)] = rng.uniform(0.6, 1.0, size=6)
    gauss = rng.normal(size=(12, 6))
    figure = new_figure(7.0, 2.3)
    for ax, J, name in zip(figure.subplots(1, 2), (ka, gauss), ("ideal", "random"), strict=True):
        minors_ = minor_matrix(J, 2)
        limit = np.quantile(minors_[minors_ > 0], 0.8)
        ax.imshow(minors_.T, cmap="cividis", vmin=0, vmax=limit, aspect="auto", interpolation="nearest")
        m = kag.minor_moments(J, 2)
        ax.set(title=f"{name}: {np.count_nonzero(minors_)} minors, PR {m.participation_ratio:.2f}")
        ax.set(xlabel="pairs of rows", ylabel="pairs of columns", xticks=[], yticks=[])
        ax.grid(False)
    save(figure, FOLDER / "ideal.png", dpi=120)


def scales() -> None:
    """Which pixels may stand in a 2 x 2 minor together with the marked one."""
    figure = new_figure(7.0, 2.0)
    layout = make_layout(15 * 15, (15, 15))
    here = (6, 5)
    chosen: list[kag.Selection] = [kag.All(), kag.Ball(4), kag.Apart(7), kag.Shell(4, 7), kag.Window((7, 7), 4)]
    for ax, selection in zip(figure.subplots(1, 5), chosen, strict=True):
        allowed = selection.pairs(layout)[here[0] * 15 + here[1]].copy()
        allowed[here[0] * 15 + here[1]] = False
        _pixels(ax, allowed.reshape(15, 15), here)
        ax.set_title(str(selection))
    save(figure, FOLDER / "selections.png", dpi=120)


def _pixels(ax: Axes, allowed: np.ndarray, here: tuple[int, int]) -> None:
    colours = mpl.colors.ListedColormap(["#ececec", BLUE])
    ax.imshow(allowed, cmap=colours, vmin=0, vmax=1)
    ax.add_patch(Rectangle((here[1] - 0.5, here[0] - 0.5), 1, 1, color=ORANGE))
    ax.set(xticks=[], yticks=[])
    ax.grid(False)


def main() -> None:
    before, after, points = trained()
    with style():
        jacobians(before, after, points[POINT])
        minors(before, after, points[POINT])
        zero_rows(before, after, points)
        ideal()
        scales()
    ratios = [
        kag.minor_moments(jacobian(after, x), 2).participation_ratio
        / kag.minor_moments(jacobian(before, x), 2).participation_ratio
        for x in points[:60]
    ]
    print(f"PR ratio over 60 points: mean {np.mean(ratios):.2f}, from {np.min(ratios):.2f} to {np.max(ratios):.2f}")


if __name__ == "__main__":
    main()
