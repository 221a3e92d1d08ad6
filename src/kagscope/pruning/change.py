"""How much the outputs of a network change where its constant units are taken out: scores of a whole network."""

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
    """Largest change of an output over the largest output, without the units that are constant at every one of the inputs.

    Args:
        model: not changed; its outputs are computed in float64.
        inputs: (N, ...).
        row_norms: layer to (N, m) means of |J| over the columns, at these inputs.
        thresholds: layer to the number at or below which a row counts as zero.
    """
    masks = {layer: np.asarray((norms <= thresholds[layer]).all(axis=0)) for layer, norms in row_norms.items()}
    return _change(model, inputs, masks)


@register("prune_change_exact", "change on exact pruning", (), source="MATH.md 3")
def prune_change_exact(model: nn.Module, inputs: Tensor, row_norms: Mapping[str, np.ndarray]) -> float:
    """Like :func:`prune_change`, without the units whose slope is lost in rounding at every input.

    Lost in the rounding of float32 beside the layer's largest slope.
    """
    return _change(model, inputs, {layer: lost_in_rounding(norms) for layer, norms in row_norms.items()})


def _change(model: nn.Module, inputs: Tensor, masks: Mapping[str, np.ndarray]) -> float:
    _, pruning = remove_units(copy.deepcopy(model).double(), inputs.double(), masks)
    return pruning.largest_change
