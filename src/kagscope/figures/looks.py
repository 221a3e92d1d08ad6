"""What tells lines apart: colour and marker for a width or layer, line and filling for a training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.lines import Line2D

from kagscope.figures.style import GREY, MANY, MARKERS, OKABE_ITO
from kagscope.tables.means import trainings_of, widths_of

LINES: tuple[Any, ...] = ("-", (0, (4, 1.6)), (0, (4, 1.5, 1, 1.5)), (0, (1, 1.2)))
CROWDED = 6  # lines; more settings than that get a panel for each training


def line_colours(count: int) -> list[str]:
    """Colours for ``count`` lines: Okabe–Ito for up to six, else shades of even lightness from dark to light, in order."""
    if count <= MANY:
        return list(OKABE_ITO[:count])
    return [mpl.colors.to_hex(shade) for shade in mpl.colormaps["cividis"](np.linspace(0, 0.9, count))]


def line_looks(names: Sequence[Any]) -> dict[Any, dict[str, Any]]:
    """Colour and marker for each of ``names`` (widths, layers), in their order."""
    colours = line_colours(len(names))
    return {
        name: {"color": colour, "marker": MARKERS[place % len(MARKERS)]}
        for place, (name, colour) in enumerate(zip(names, colours, strict=True))
    }


@dataclass(frozen=True)
class Settings:
    """The widths and trainings of a study, and what their lines look like in all of its figures."""

    widths: tuple[int, ...]
    trainings: tuple[str, ...]

    @classmethod
    def of(cls, table: pd.DataFrame) -> Settings:
        return cls(tuple(widths_of(table)), tuple(trainings_of(table)))

    @property
    def crowded(self) -> bool:
        """Whether one panel cannot hold a line for each setting."""
        count = len(self.trainings)
        return count > len(LINES) or (count > 2 and count * len(self.widths) > CROWDED)

    def pairs(self, training: str | None = None) -> list[tuple[int, str]]:
        """(width, training) of each line; those of one training where it is named."""
        return [(width, name) for width in self.widths for name in self.trainings if training in (None, name)]

    def look(self, width: int, training: str, *, alone: bool = False) -> dict[str, Any]:
        """Of the line of a setting. ``alone``: no other training is beside it."""
        look = line_looks(self.widths)[width]
        return look | ({"linestyle": "-"} if alone else self._line(training))

    def handles(self, training: str | None = None) -> list[Line2D]:
        """Legend entries: one for each width, and one for each training where there are several in the panel."""
        looks = line_looks(self.widths)
        handles = [Line2D([], [], linewidth=1.8, label=f"width {width}", **looks[width]) for width in self.widths]
        if training is None and list(self.trainings) != ["standard"]:
            handles += [Line2D([], [], color=GREY, marker="o", label=name, **self._line(name)) for name in self.trainings]
        return handles

    def _line(self, training: str) -> dict[str, Any]:
        place = self.trainings.index(training)
        return {"linestyle": LINES[place % len(LINES)]} | ({"markerfacecolor": "white"} if place else {})
