"""Draw the pictures of docs/engine.md into docs/pictures/. Usage: python docs/make_engine_pictures.py"""

from __future__ import annotations

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Ellipse, Polygon
from mpl_toolkits.mplot3d.art3d import Poly3DCollection

from kagscope.minors.routes.volume_draws import Sets
from kagscope.minors.routes.zonotope import zonotope_s1
from kagscope.minors.routes.zonotope_sampled import s1_draws

FOLDER = Path(__file__).parent / "pictures"
INK, WARM, COOL, PALE = "#22313f", "#d1495b", "#2e86ab", "#c9d6df"
plt.rcParams.update({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "figure.dpi": 100, "savefig.dpi": 100})


def save(figure: Figure, name: str) -> None:
    FOLDER.mkdir(exist_ok=True)
    figure.tight_layout()
    figure.savefig(FOLDER / name, metadata={"Software": None})
    plt.close(figure)


def arrows(axes: Axes, starts: np.ndarray, steps: np.ndarray, color: str, **style: float) -> None:
    for (x, y), (dx, dy) in zip(starts, steps, strict=True):
        axes.annotate("", (x + dx, y + dy), (x, y), arrowprops={"arrowstyle": "->", "color": color, "lw": 1.6, **style})


def zonogon() -> None:
    v = np.array([[1.2, -0.9], [-1.0, -0.25], [0.9, 0.8], [-0.25, -1.1]])
    flipped = np.where(v[:, :1] < 0, -v, v)
    flipped = flipped[np.argsort(np.arctan2(flipped[:, 1], flipped[:, 0]))]
    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(9, 3))
    arrows(left, np.zeros_like(v), v, PALE)
    arrows(left, np.zeros_like(v), flipped, INK)
    for index, (x, y) in enumerate(flipped, 1):
        left.text(1.12 * x, 1.12 * y, str(index), color=INK, ha="center", va="center")
    left.set(xlim=(-1.5, 1.6), ylim=(-1.6, 1.8), title="1. flip right, sort by slope")
    corners = np.concatenate([[[0, 0]], np.cumsum(flipped, axis=0)])
    for axes in (middle, right):
        axes.add_patch(Polygon(np.concatenate([corners, corners[-1] - corners[1:-1]]), facecolor="#eef3f7", edgecolor=INK))
    arrows(middle, corners[:-1], flipped, WARM)
    arrows(middle, corners[:1], corners[2:3], COOL)
    middle.add_patch(Polygon([corners[0], corners[2], corners[3], corners[3] - corners[2]], facecolor=COOL, alpha=0.3))
    middle.text(*(corners[2] / 2 + [-0.05, -0.3]), "running sum", color=COOL, ha="center")
    middle.set_title("2. add cross(running sum, next)")
    shades = plt.get_cmap("Blues")(np.linspace(0.15, 0.75, 6))
    shade = 0
    for b in range(4):
        for a in range(b):
            # adding vector b pushes out the upper chain b-1, …, 0 of the polygon so far: one strip of tiles
            corner, s, t = flipped[a + 1 : b].sum(axis=0), flipped[a], flipped[b]
            right.add_patch(Polygon([corner, corner + s, corner + s + t, corner + t], facecolor=shades[shade], edgecolor="white"))
            shade += 1
    right.set_title("3. = one tile |det| for each pair")
    for axes in (middle, right):
        axes.set(xlim=(-1.0, 4.0), ylim=(-1.7, 2.4))
    for axes in (left, middle, right):
        axes.set_aspect("equal")
        axes.set_axis_off()
    save(figure, "zonogon.png")


def hull() -> None:
    rng = np.random.default_rng(3)
    v = rng.normal(size=(300, 2)) @ np.array([[1.0, 0.5], [0.0, 0.7]])
    gram = v.T @ v
    q = np.einsum("ai,ij,aj->a", v, np.linalg.inv(gram), v)
    dets = np.abs(np.outer(v[:, 0], v[:, 1]) - np.outer(v[:, 1], v[:, 0]))
    a, b = np.unravel_index(dets.argmax(), dets.shape)
    least = dets.max() ** 2 / np.linalg.det(gram) / q.max()
    figure, axes = plt.subplots(figsize=(4.6, 3.2))
    kept = q >= least
    axes.scatter(v[~kept, 0], v[~kept, 1], s=6, color=PALE)
    axes.scatter(v[kept, 0], v[kept, 1], s=16, color=WARM, zorder=3)
    values, vectors = np.linalg.eigh(gram)
    tilt = float(np.degrees(np.arctan2(vectors[1, 1], vectors[0, 1])))
    for level, style in ((q.max(), ":"), (least, "-")):
        axes.add_patch(Ellipse((0, 0), *(2 * np.sqrt(level * values[::-1])), angle=tilt, fill=False, color=INK, ls=style))
    axes.add_patch(Polygon([[0, 0], v[a], v[a] + v[b], v[b]], facecolor=COOL, alpha=0.25))
    arrows(axes, np.zeros((2, 2)), v[[a, b]], COOL)
    axes.set_title(f"{kept.sum()} of {len(v)} vectors can be part of the largest minor")
    axes.set_aspect("equal")
    axes.set_axis_off()
    save(figure, "hull.png")


def zonotope() -> None:
    v = np.array([[1.0, 0.1, 0.3], [0.2, 1.0, 0.2], [-0.5, 0.5, 0.6], [0.1, 0.2, 1.1]])
    figure = plt.figure(figsize=(7.6, 3.2))
    left, right = figure.add_subplot(121, projection="3d"), figure.add_subplot(122)
    signs = np.array(np.meshgrid(*[[0, 1]] * 4)).reshape(4, -1).T
    faces = []
    for i in range(4):
        for j in range(i):
            normal = np.cross(v[i], v[j])
            side = v @ normal
            for outer in (side > 1e-9, side < -1e-9):
                base = v[outer & (np.arange(4) != i) & (np.arange(4) != j)].sum(axis=0)
                faces.append([base, base + v[i], base + v[i] + v[j], base + v[j]])
    left.add_collection3d(Poly3DCollection(faces, facecolor=COOL, edgecolor="white", alpha=0.45, zorder=1))
    corners = signs @ v
    left.auto_scale_xyz(*corners.T)
    left.computed_zorder = False
    left.quiver(0, 0, 0, *v[0], color=WARM, lw=2.5, arrow_length_ratio=0.15, zorder=10)
    left.text(*(1.2 * v[0] + [0, 0, -0.1]), "$v_a$", color=WARM)
    left.set_axis_off()
    left.view_init(18, -60)
    left.set_title("a zonotope: one box |det| for each triple")
    axis = v[0] / np.linalg.norm(v[0])
    first = np.cross(axis, [0, 0, 1])
    first /= np.linalg.norm(first)
    flat = v[1:] @ np.stack([first, np.cross(axis, first)]).T
    flat = np.where(flat[:, :1] < 0, -flat, flat)
    flat = flat[np.argsort(flat[:, 1] / flat[:, 0])]
    outline = np.concatenate([[[0, 0]], np.cumsum(flat, axis=0)])
    right.add_patch(Polygon(np.concatenate([outline, outline[-1] - outline[1:-1]]), facecolor="#eef3f7", edgecolor=INK))
    arrows(right, outline[:-1], flat, INK)
    right.plot(0, 0, "o", color=WARM)
    right.text(0.05, -0.12, "$v_a$ end on", color=WARM)
    right.set(
        title="seen along $v_a$: the zonogon of the others",
        xlim=(-0.3, outline[-1, 0] + 0.3),
        ylim=(outline[:, 1].min() - 0.3, 2.0),
    )
    right.set_aspect("equal")
    right.set_axis_off()
    save(figure, "zonotope.png")


def enumeration() -> None:
    m, width = 8, 16
    i, j = np.indices((m, m))
    figure, (left, right) = plt.subplots(1, 2, figsize=(7.2, 3.1), width_ratios=(1, 1.5))
    left.imshow(np.where(j > i, i + 1.0, np.nan), cmap="Blues", vmin=-2, vmax=m)
    left.set(
        title="along row pairs:\nloops of length 7, 6, 5, …", xlabel="row j", ylabel="row i", xticks=range(m), yticks=range(m)
    )
    pairs = np.array([(a, b) for a in range(m) for b in range(a + 1, m)][:10])
    right.imshow(np.repeat(pairs[:, :1] + 1.0, width, axis=1), cmap="Blues", vmin=-2, vmax=m, aspect="auto")
    right.set(
        title="along column pairs (a, b) with the same a:\nevery loop as long as the chunk",
        xlabel="column b",
        ylabel="row pair",
        xticks=range(0, width, 5),
        yticks=range(len(pairs)),
        yticklabels=[f"({a}, {b})" for a, b in pairs],
    )
    save(figure, "enumeration.png")


def sampling() -> None:
    """Errors after equal numbers of draws."""
    rng = np.random.default_rng(5)
    J = rng.normal(size=(12, 60)) * np.exp(rng.normal(size=(12, 1))) * np.exp(rng.normal(size=60))
    wanted = zonotope_s1(J)
    figure, axes = plt.subplots(figsize=(4.8, 3.2))
    units = 2 ** np.arange(1, 7)
    found = [Sets(J, 3).estimates(0, 0, int(size))[0][0] for size in units]
    errors = [values.mean(axis=1).std(ddof=1) / 8 / wanted for values in found]
    axes.loglog(64 * units, errors, "o-", color=COOL, label="two columns by volume,\n32 last ones, exact over rows")
    draws = 512 * 2 ** np.arange(8)
    found = [s1_draws(J, 3, 1e-9, max_draws=int(size)) for size in draws]
    errors = [values.std(ddof=1) / values.size**0.5 / wanted for values in found]
    axes.loglog(draws, errors, "o-", color=WARM, label="rows and one column,\nexact over the other two")
    axes.set(xlabel="draws", ylabel="standard error of S1 / S1")
    axes.legend(frameon=False)
    save(figure, "sampling.png")


if __name__ == "__main__":
    for picture in (zonogon, hull, zonotope, enumeration, sampling):
        picture()
