"""What taking out a layer's constant units does to the outputs (MATH.md, claim 6)."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import numpy as np
from torch import Tensor, nn

from kagscope.pruning.prune import remove_units
from kagscope.scores.of_units import lost_in_rounding


def change_without_constant_units(
    model: nn.Module, inputs: Tensor, row_norms: Mapping[str, np.ndarray], thresholds: Mapping[str, float] | None = None
) -> float:
    """Largest change of an output over ``inputs``, over the largest output, when units with zero rows at all points are removed.

    Args:
        model: any model; computed with in float64, and not changed.
        inputs: (P, ...) points.
        row_norms: layer name to the size of its units' Jacobian rows at these points, (P, m).
        thresholds: layer name to the size up to which a row counts as zero; None counts the units whose row is lost in the
            rounding of float32 beside the layer's largest.
    """
    masks = {
        layer: lost_in_rounding(norms) if thresholds is None else np.asarray((norms <= thresholds[layer]).all(axis=0))
        for layer, norms in row_norms.items()
    }
    _, pruning = remove_units(copy.deepcopy(model).double(), inputs.double(), masks)
    return pruning.largest_change
