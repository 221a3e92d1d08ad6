"""Units of one network per setting: rows as images with 57 colour levels, with numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from kagscope.columns.layout import join_channels
from kagscope.report.numbers import clean, groups

NUMBERS = ("row_norm", "zero_share", "alignment")
BUDGET = 1_200_000  # pixels of images in a page, 0.7 bytes each when compressed
STEPS = 28  # colour levels on either side of 0
ZERO = 63  # code of the character for 0: all from -28 to 28 need no escape in JSON
MAX_UNITS = 256  # of a layer
STRIP = 32  # up to this many weights without positions are drawn as one strip, more in several lines


def pack_units(
    units: Mapping[str, pd.DataFrame],
    nets: pd.DataFrame,
    image_shape: Sequence[int] | None,
) -> list[dict[str, Any]]:
    """One entry per network and layer, for as many networks as the pixel budget allows.

    Each row is quantised to levels -28 … 28 of its largest absolute entry, ``peak``, one character per pixel, which compresses
    better than bytes in base64; its numbers come from the exact row.

    Args:
        units: run id to the table of its units: ``layer``, ``what`` ("weights" or "mean Jacobian row"), ``row_norm``,
            ``zero_share``, ``alignment``, ``row`` (list of float), in order of units.
        nets: table of means, for the settings of the runs.
        image_shape: (H, W) or (C, H, W); channels are drawn side by side.
    """
    known = nets.drop_duplicates("run").assign(run=lambda table: table["run"].astype(str)).set_index("run")
    entries: list[dict[str, Any]] = []
    spent = 0
    for run, table in units.items():
        facts: Any = known.loc[run]
        net = [_layer(str(layer), rows, image_shape) for (layer,), rows in groups(table, ["layer"])]
        size = sum(len(entry["images"]) for entry in net)
        if entries and spent + size > BUDGET:
            break
        spent += size
        setting = {"run": run, "width": int(facts["width"]), "training": str(facts["training"]), "seed": int(facts["seed"])}
        entries += [setting | entry for entry in net]
    return entries


def _layer(layer: str, units: pd.DataFrame, image_shape: Sequence[int] | None) -> dict[str, Any]:
    kept = np.unique(np.linspace(0, len(units) - 1, min(len(units), MAX_UNITS)).round().astype(int))
    shown = units.iloc[kept]
    rows = np.stack(shown["row"].to_list()).astype(np.float64)
    peak = np.abs(rows).max(axis=1)
    steps = np.round(STEPS * rows / np.where(peak > 0, peak, 1.0)[:, None]).astype(np.int8)
    if image_shape is not None and math.prod(int(side) for side in image_shape) == rows.shape[1]:
        steps = join_channels(steps, [int(side) for side in image_shape])
        shape, channels = list(steps.shape[1:]), steps.shape[2] // int(image_shape[-1])
    else:
        wide = rows.shape[1] if rows.shape[1] <= STRIP else math.ceil(math.sqrt(rows.shape[1]))
        shape, channels = [math.ceil(rows.shape[1] / wide), wide], 1
    return {
        "layer": layer,
        "what": str(units["what"].iloc[0]),
        "total": len(units),
        "unit": kept.tolist(),
        "shape": shape,  # height and width of a drawn row, its channels side by side
        "channels": channels,
        "peak": [clean(value) for value in peak],
        "images": (steps + ZERO).astype(np.uint8).tobytes().decode("ascii"),
        **{name: [clean(value) for value in shown[name]] for name in NUMBERS},
    }
