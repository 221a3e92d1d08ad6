"""Draw docs/pictures/architecture.svg: what each part hands to the next. Usage: python docs/make_architecture_picture.py"""

from __future__ import annotations

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.patches import FancyBboxPatch

from kagscope.figures.style import BLUE, GREEN, GREY, ORANGE, VERMILLION, new_figure, save, style

TARGET = Path(__file__).parent / "pictures" / "architecture.svg"
WIDTH, HEIGHT = 2.2, 0.95

# name, what it is made by, column, row, colour
BOXES = {
    "data": ("images, labels", "data/", 0, 3, GREY),
    "net": ("network", "models, weights, training/\nyours: loading/", 1, 3, GREY),
    "jacobian": ("layer map, Jacobian", "jacobians/", 2, 3, BLUE),
    "moments": ("minors, moments", "minors/\nselections, layout", 3, 3, BLUE),
    "scores": ("scores", "scores\nrepresentations", 4, 3, BLUE),
    "beside": ("beside its baseline", "geometry, comparison", 4, 2, BLUE),
    "report": ("one model: Report", "measuring/", 3, 1.1, GREEN),
    "tracker": ("as it trains: Tracker", "tracking/, integrations/", 2, 1.1, GREEN),
    "study": ("many nets: study", "studies/", 1, 1.1, GREEN),
    "prune": ("prune, robustness", "pruning/", 0, 1.1, GREEN),
    "claims": ("claims, statistics", "studies/claims/", 1, 0.1, ORANGE),
    "figures": ("figures", "figures/", 2, 0.1, VERMILLION),
    "page": ("the page", "report/", 3, 0.1, VERMILLION),
}
ARROWS = (
    ("data", "net"),
    ("net", "jacobian"),
    ("jacobian", "moments"),
    ("moments", "scores"),
    ("scores", "beside"),
    ("study", "claims"),
    ("claims", "figures"),
    ("tracker", "figures"),
    ("figures", "page"),
    ("report", "page"),
)


def centre(box: tuple[str, str, float, float, str]) -> tuple[float, float]:
    return box[2] * 2.5 + WIDTH / 2, box[3] * 1.45 + HEIGHT / 2


def edge(start: tuple[float, float], end: tuple[float, float]) -> tuple[tuple[float, float], tuple[float, float]]:
    """Where an arrow leaves one box and meets another."""
    (x, y), (u, v) = start, end
    if abs(v - y) < 0.1:
        side = 1 if u > x else -1
        return (x + side * WIDTH / 2, y), (u - side * WIDTH / 2, v)
    side = 1 if v > y else -1
    return (x, y + side * HEIGHT / 2), (u, v - side * HEIGHT / 2)


def _arrow(ax: Axes, tail: tuple[float, float], head: tuple[float, float]) -> None:
    ax.annotate("", head, tail, arrowprops={"arrowstyle": "-|>", "color": GREY, "lw": 1, "shrinkA": 0, "shrinkB": 1})


def draw(ax: Axes) -> None:
    for start, end in ARROWS:
        _arrow(ax, *edge(centre(BOXES[start]), centre(BOXES[end])))
    x, y = centre(BOXES["beside"])  # to three ways of measuring
    for name in ("report", "tracker", "study"):
        u, v = centre(BOXES[name])
        _arrow(ax, (u, y), (u, v + HEIGHT / 2))
    ax.plot([x - WIDTH / 2, centre(BOXES["study"])[0]], [y, y], color=GREY, linewidth=1)
    x, y = centre(BOXES["net"])
    u, v = centre(BOXES["prune"])
    bend = centre(BOXES["beside"])[1] + 0.3
    ax.plot([x - 0.6, x - 0.6, u], [y - HEIGHT / 2, bend, bend], color=GREY, linewidth=1)
    _arrow(ax, (u, bend), (u, v + HEIGHT / 2))
    for box in BOXES.values():
        name, made_by, _, _, colour = box
        x, y = centre(box)
        corner = (x - WIDTH / 2, y - HEIGHT / 2)
        look = {"boxstyle": "round,pad=0,rounding_size=0.12", "facecolor": "white", "edgecolor": colour, "linewidth": 1.4}
        ax.add_patch(FancyBboxPatch(corner, WIDTH, HEIGHT, **look))  # type: ignore[arg-type]
        ax.text(x, y + 0.17, name, ha="center", va="center", fontsize=8, fontweight="bold")
        ax.text(x, y - 0.2, made_by, ha="center", va="center", fontsize=6.5, family="monospace", color="#444444")
    ax.set(xlim=(-0.1, 12.4), ylim=(0.1, 5.4))
    ax.set_axis_off()


def main() -> None:
    with style():
        figure = new_figure(9.0, 4.2)
        draw(figure.subplots())
        save(figure, TARGET)


if __name__ == "__main__":
    main()
