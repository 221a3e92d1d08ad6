"""The units of one net of each setting: rows as images of 57 steps of colour, numbers beside them."""

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
STEPS = 28  # of colour to either side of 0
ZERO = 63  # code of the character that stands for 0: all from -28 to 28 are plain in JSON
MAX_UNITS = 256  # of a layer
STRIP = 32  # weights without places are drawn as one strip up to here, in lines beyond


def pack_units(
    units: Mapping[str, pd.DataFrame],
    nets: pd.DataFrame,
    image_shape: Sequence[int] | None,
) -> list[dict[str, Any]]:
    """One entry per net and layer, as many nets as the budget of pixels allows, the first ones.

    Each row is stored in steps from -28 to 28 of its own largest absolute entry, ``peak``, a character a pixel, which compresses
    better than bytes in base64; numbers beside it come from the rows as they were.

    Args:
        units: run id to its units, a row each: ``layer``, ``what`` ("weights" or "mean Jacobian row"), ``row_norm``,
            ``zero_share``, ``alignment``, ``row`` (list of float), in the order of their numbers.
        nets: table of means, for the settings of the runs.
        image_shape: height and width of the images, of colour images after the channels, which are drawn beside each other.
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
        "shape": shape,  # height and width in which a row is drawn, its channels beside each other
        "channels": channels,
        "peak": [clean(value) for value in peak],
        "images": (steps + ZERO).astype(np.uint8).tobytes().decode("ascii"),
        **{name: [clean(value) for value in shown[name]] for name in NUMBERS},
    }
