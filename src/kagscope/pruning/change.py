"""Change of a network's outputs when its constant units are removed: scores of a whole network."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import numpy as np
from torch import Tensor, nn

from kagscope.pruning.prune import remove_units
from kagscope.registry import register
from kagscope.scores.of_units import lost_in_rounding


@register("prune_change", "change on pruning", (), source="arXiv 2511.21626; MATH.md 3")
def prune_change(model: nn.Module, inputs: Tensor, row_norms: Mapping[str, np.ndarray], thresholds: Mapping[str, float]) -> float:
    """Largest change of an output relative to the largest output, when the units constant at all inputs are removed.

    Args:
        model: the network, unchanged; its outputs are computed in float64.
        inputs: (N, ...) inputs.
        row_norms: (N, m) means of |J| over the columns at these inputs, by layer.
        thresholds: mean at or below which a row counts as zero, by layer.
    """
    masks = {layer: np.asarray((norms <= thresholds[layer]).all(axis=0)) for layer, norms in row_norms.items()}
    return _change(model, inputs, masks)


@register("prune_change_exact", "change on exact pruning", (), source="MATH.md 3")
def prune_change_exact(model: nn.Module, inputs: Tensor, row_norms: Mapping[str, np.ndarray]) -> float:
    """Like :func:`prune_change`, for units whose slope is lost in rounding at every input:

    below the rounding of float32 relative to the layer's largest slope.
    """
    return _change(model, inputs, {layer: lost_in_rounding(norms) for layer, norms in row_norms.items()})


def _change(model: nn.Module, inputs: Tensor, masks: Mapping[str, np.ndarray]) -> float:
    _, pruning = remove_units(copy.deepcopy(model).double(), inputs.double(), masks)
    return pruning.largest_change
