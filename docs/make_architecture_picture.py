"""Draw docs/pictures/architecture.svg: the one road and its four doors. Usage: python docs/make_architecture_picture.py"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.patches import FancyBboxPatch

from kagscope.figures.style import BLUE, GREEN, GREY, ORANGE, VERMILLION, new_figure, save, style

TARGET = Path(__file__).parent / "pictures" / "architecture.svg"
WIDTH, HEIGHT = 2.4, 0.95
STEP = 3.6  # from column to column


class Box(NamedTuple):
    """A thing that is handed on, and the rooms that make it."""

    name: str
    rooms: str
    x: float
    y: float
    colour: str
    width: float = WIDTH

    @property
    def left(self) -> tuple[float, float]:
        return self.x, self.y + HEIGHT / 2

    @property
    def right(self) -> tuple[float, float]:
        return self.x + self.width, self.y + HEIGHT / 2

    @property
    def top(self) -> tuple[float, float]:
        return self.x + self.width / 2, self.y + HEIGHT

    @property
    def bottom(self) -> tuple[float, float]:
        return self.x + self.width / 2, self.y


BOXES = {
    "measure": Box("measure: one network", "measuring/", 0, 5.4, GREEN),
    "series": Box("series: checkpoints", "measuring/", STEP, 5.4, GREEN),
    "tracker": Box("Tracker: as it trains", "tracking/ integrations/", 2 * STEP, 5.4, GREEN),
    "study": Box("study: many networks", "training/ studies/", 3 * STEP, 5.4, GREEN),
    "network": Box("network, inputs", "data/ loading/\ntraining/", 0, 3.5, GREY),
    "state": Box("State", "measuring/", STEP, 3.5, BLUE),
    "table": Box("table", "measuring/ tables/", 2 * STEP, 3.5, BLUE),
    "means": Box("means, intervals", "tables/", 3 * STEP, 3.5, BLUE),
    "jacobians": Box("Jacobians", "jacobians/", 0.15, 1.7, BLUE, 1.7),
    "minors": Box("moments of minors", "columns/ minors/\nminors/routes/", 2.3, 1.7, BLUE, 1.9),
    "scores": Box("scores", "scores/", 4.65, 1.7, BLUE, 1.2),
    "claims": Box("statistics, claims", "studies/", 2 * STEP, 1.7, ORANGE),
    "report": Box("Report, findings", "measuring/", 3 * STEP, 1.7, GREEN),
    "prune": Box("prune, robustness", "pruning/ robustness.py", 0, 0, GREEN),
    "below": Box("list of scores, errors", "registry.py base/", STEP, 0, GREY),
    "figures": Box("figures", "figures/", 2 * STEP, 0, VERMILLION),
    "page": Box("the page", "report/", 3 * STEP, 0, VERMILLION),
}
ROAD = (("network", "state", "observe(spec)"), ("state", "table", "compare"), ("table", "means", "summarise"))


def _arrow(ax: Axes, *points: tuple[float, float]) -> None:
    """A line through the points that ends in a head."""
    xs, ys = zip(*points, strict=True)
    ax.plot(xs[:-1], ys[:-1], color=GREY, linewidth=1)
    ax.annotate("", points[-1], points[-2], arrowprops={"arrowstyle": "-|>", "color": GREY, "lw": 1, "shrinkA": 0, "shrinkB": 1})


def _note(ax: Axes, x: float, y: float, text: str, **look: str) -> None:
    ax.text(x, y, text, va="center", fontsize=6.5, color="#444444", **({"ha": "center"} | look))  # type: ignore[arg-type]


def _patch(ax: Axes, x: float, y: float, width: float, height: float, **look: object) -> None:
    patch = FancyBboxPatch((x, y), width, height, boxstyle="round,pad=0,rounding_size=0.12", **look)  # type: ignore[arg-type]
    ax.add_patch(patch)


def draw(ax: Axes) -> None:
    """All boxes, then what is handed from one to another."""
    _patch(ax, 0, 1.55, WIDTH + STEP, 1.45, facecolor="#eef3f8", edgecolor="none", zorder=0)
    for box in BOXES.values():
        _patch(ax, box.x, box.y, box.width, HEIGHT, facecolor="white", edgecolor=box.colour, linewidth=1.4)
        middle, several = box.x + box.width / 2, "\n" in box.rooms
        ax.text(middle, box.y + (0.69 if several else 0.64), box.name, ha="center", va="center", fontsize=7.5, fontweight="bold")
        ax.text(middle, box.y + 0.29, box.rooms, ha="center", va="center", fontsize=6, family="monospace", color="#444444")
    for start, end, step in ROAD:
        tail, head = BOXES[start].right, BOXES[end].left
        _arrow(ax, tail, head)
        ax.text((tail[0] + head[0]) / 2, tail[1] + 0.16, step, ha="center", fontsize=6.2, family="monospace")
    _doors(ax)
    _inside(ax)
    _ends(ax)
    ax.set(xlim=(-0.45, 13.35), ylim=(-0.1, 7.2))
    ax.set_axis_off()


def _doors(ax: Axes) -> None:
    """The command line, the doors, and the line from all of them to where the road begins."""
    _patch(ax, 0, 6.65, 3 * STEP + WIDTH, 0.42, facecolor="white", edgecolor=GREY, linewidth=1)
    ax.text(
        STEP * 1.5 + WIDTH / 2, 6.86, "the command line, kagscope …: commands/ cli.py", ha="center", va="center", fontsize=6.5
    )
    rail = 4.95
    for name in ("measure", "series", "tracker", "study"):
        x, y = BOXES[name].bottom
        ax.plot([x, x], [y, rail], color=GREY, linewidth=1)
        if name != "tracker":  # which stands in a loop of the user's own
            _arrow(ax, (x, 6.65), BOXES[name].top)
    x, y = BOXES["network"].top
    ax.plot([x, BOXES["study"].bottom[0]], [rail, rail], color=GREY, linewidth=1)
    _arrow(ax, (x, rail), (x, y))
    _note(ax, x + 0.15, 4.7, "all doors take the same road: the same spec gives the same numbers", ha="left")


def _inside(ax: Axes) -> None:
    """What observe does."""
    x = (BOXES["network"].right[0] + BOXES["state"].left[0]) / 2
    ax.plot([x, x], [3.0, BOXES["network"].right[1]], color=GREY, linewidth=1, linestyle=":")
    _note(ax, 0.15, 2.83, "inside observe, layer by layer", ha="left")
    _arrow(ax, BOXES["jacobians"].right, BOXES["minors"].left)
    _arrow(ax, BOXES["minors"].right, BOXES["scores"].left)


def _ends(ax: Axes) -> None:
    """From means to what a reader sees, and what else is done with a network."""
    x, y = BOXES["means"].bottom
    bend = (y + BOXES["report"].top[1]) / 2
    _arrow(ax, (x, y), BOXES["report"].top)
    _arrow(ax, (x, y), (x, bend), (BOXES["claims"].top[0], bend), BOXES["claims"].top)
    _note(ax, x + 0.12, bend - 0.2, "over points", ha="left")
    _note(ax, BOXES["claims"].top[0] + 0.12, bend - 0.2, "over runs", ha="left")
    _arrow(ax, BOXES["claims"].bottom, BOXES["figures"].top)
    _arrow(ax, BOXES["report"].bottom, BOXES["page"].top)
    _arrow(ax, (BOXES["report"].x, BOXES["report"].y + 0.15), (BOXES["figures"].right[0] - 0.4, HEIGHT))
    _arrow(ax, BOXES["figures"].right, BOXES["page"].left)
    left, below = BOXES["network"].left, BOXES["prune"].left
    _arrow(ax, left, (-0.3, left[1]), (-0.3, below[1]), below)


def main() -> None:
    """Draw and save."""
    with style():
        figure = new_figure(9.2, 4.9)
        draw(figure.subplots())
        save(figure, TARGET)


if __name__ == "__main__":
    main()
