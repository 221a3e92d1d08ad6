"""Looks of lines: colour and marker for a width or layer, dashes and fill for a training."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.lines import Line2D

from kagscope.figures.labels import layer_label
from kagscope.figures.style import GREY, MANY, MARKERS, OKABE_ITO, RC
from kagscope.tables.means import layers_of, trainings_of, widths_of

LINES: tuple[Any, ...] = ("-", (0, (4, 1.6)), (0, (4, 1.5, 1, 1.5)), (0, (1, 1.2)))
CROWDED = 6  # lines; with more settings each training gets its own panel


def line_colours(count: int) -> list[str]:
    """Colours for ``count`` lines: Okabe–Ito for up to six, else evenly spaced shades from dark to light."""
    if count <= MANY:
        return list(OKABE_ITO[:count])
    return [mpl.colors.to_hex(shade) for shade in mpl.colormaps["cividis"](np.linspace(0, 0.9, count))]


def line_looks(names: Sequence[Any]) -> dict[Any, dict[str, Any]]:
    """Colour and marker for each of ``names`` (widths, layers), in their order."""
    colours = line_colours(len(names))
    return {
        name: {"color": colour, "marker": MARKERS[i % len(MARKERS)]}
        for i, (name, colour) in enumerate(zip(names, colours, strict=True))
    }


def legend_line(**look: Any) -> Line2D:
    """Legend entry in the figures' style."""
    return Line2D([], [], **({"linewidth": RC["lines.linewidth"], "markersize": RC["lines.markersize"]} | look))


def value_label(value: object) -> str:
    """Label of a value of a study's axis."""
    return f"{value:g}" if isinstance(value, float) else str(value)


def layer_looks(names: Iterable[object]) -> dict[str, dict[str, Any]]:
    """Looks and labels of lines for layers, in the order of the network."""
    layers = layers_of(pd.DataFrame({"layer": list(names)}))
    return {layer: look | {"label": layer_label(layer)} for layer, look in line_looks(layers).items()}


@dataclass(frozen=True)
class Settings:
    """The widths and trainings of a study, and the looks of their lines in all of its figures."""

    widths: tuple[int, ...]
    trainings: tuple[str, ...]

    @classmethod
    def of(cls, table: pd.DataFrame) -> Settings:
        return cls(tuple(widths_of(table)), tuple(trainings_of(table)))

    @property
    def by_training(self) -> bool:
        """Whether colours and markers stand for trainings, as there is only one width."""
        return len(self.widths) == 1 < len(self.trainings) <= MANY

    @property
    def is_crowded(self) -> bool:
        """Whether there are too many settings for one panel."""
        if self.by_training:
            return False
        count = len(self.trainings)
        return count > len(LINES) or (count > 2 and count * len(self.widths) > CROWDED)

    def looks(self, training: str | None = None, *, plain: bool = False) -> dict[tuple[int, str], dict[str, Any]]:
        """Look of the line of each (width, training); for a single training, or if ``plain``, all lines are solid."""
        if self.by_training:
            looks = line_looks(self.trainings)
            return {(self.widths[0], name): look | {"linestyle": "-"} for name, look in looks.items() if training in (None, name)}
        colours = line_looks(self.widths)
        return {
            (width, name): colours[width] | ({"linestyle": "-"} if training is not None or plain else self._line(name))
            for width in self.widths
            for name in self.trainings
            if training in (None, name)
        }

    def handles(self, training: str | None = None) -> list[Line2D]:
        """Legend entries: one for each width, and one for each training if the panel has several."""
        if self.by_training:
            return [legend_line(linewidth=1.8, label=name, **look) for (_, name), look in self.looks(training).items()]
        looks = line_looks(self.widths)
        handles = [legend_line(linewidth=1.8, label=f"width {width}", **looks[width]) for width in self.widths]
        if training is None and list(self.trainings) != ["standard"]:
            handles += [legend_line(color=GREY, marker="o", label=name, **self._line(name)) for name in self.trainings]
        return handles

    def _line(self, training: str) -> dict[str, Any]:
        index = self.trainings.index(training)
        return {"linestyle": LINES[index % len(LINES)]} | ({"markerfacecolor": "white"} if index else {})
