"""``kagscope.measure_matrices``: matrices by name, such as Jacobian lenses, measured as the Jacobians of a network are."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from kagscope import registry
from kagscope.base.errors import InputError
from kagscope.base.messages import close_names, listing
from kagscope.base.progress import Say, report_progress
from kagscope.base.provenance import hardware, versions
from kagscope.columns.layout import make_layout
from kagscope.columns.selections import check_layout
from kagscope.jacobians.compute import Batch
from kagscope.jacobians.forms import DenseJacobian
from kagscope.measuring.compare import compare, curves
from kagscope.measuring.cost import WORTH_SAYING, duration_text, layer_seconds
from kagscope.measuring.report import Report
from kagscope.measuring.scoring import LayerScores
from kagscope.measuring.spec import Budget, MeasureSpec, spec_from
from kagscope.measuring.state import LayerRecord, LayerState, State
from kagscope.minors._input import MatrixLike, as_numpy, require_finite
from kagscope.minors.threads import threads

SCORES = ("pr", "pr_normalized", "effective_minors", "ipr", "rr_pr")  # known by formulas at any size
OF_MATRICES = (*SCORES, "axis_alignment", "effective_rank", "stable_rank", "sv_participation")
OPTIONS = ("k", "selections", "image_shape", "positions", "groups", "scores", "seed", "budget", *Budget.model_fields)
HAAR = "random rotations of the rows, in closed form"
ROUNDOFF = 2.0**-53  # entries that are given are exact; those of a network were computed
FROM_S1 = {"pr": -1, "pr_normalized": 2, "effective_minors": 2}  # scores that change as a power of S1 alone


def measure_matrices(
    matrices: Mapping[str, MatrixLike],
    k: Any = (1, 2),
    *,
    spec: MeasureSpec | None = None,
    progress: bool | Say | None = None,
    **options: Any,
) -> Report:
    """Measure named matrices: Jacobian lenses, weights, anything 2-D (MATH.md sections 2 to 4).

    Args:
        matrices: floating (m, n) arrays or tensors by name, each of its own shape. Entries are taken as given, in whatever
            precision: those of a lens in float16 or bfloat16 are its rounded ones, and scores are exact of them.
        k: orders of the minors. Of orders 1 and 2 all sums over all columns are exact at any size; k = 3 is sampled where
            its minors are too many.
        spec: what to measure, whole, instead of ``k`` and options.
        progress: gets each matrix's name, and before all an estimate of the time where that is more than a minute; True or
            None show it on standard error.
        **options: fields of :class:`kagscope.MeasureSpec` that mean something here: ``selections``, ``image_shape``,
            ``positions``, ``groups``, ``scores`` (by default those with closed forms), ``seed``, and its budget's.

    Returns:
        A :class:`kagscope.Report` whose ``layer`` is the matrix's name and whose baseline is the mean over random rotations of
        the rows, in closed form (MATH.md 4.5): the ratio of ``pr`` is ``rr_pr``.

    Raises:
        InputError: no matrices, one that is not 2-D, floating and finite, or an option that cannot be used.
    """
    chosen = _spec(k, spec, options)
    if not isinstance(matrices, Mapping) or not matrices:
        given = "empty" if isinstance(matrices, Mapping) else f"of type {type(matrices).__name__}"
        raise InputError(f"matrices is {given}; expected a mapping from names to matrices, such as {{'layer 3': J}}")
    if len({str(name) for name in matrices}) < len(matrices):
        raise InputError(f"matrices: {listing([repr(name) for name in matrices])} are not all different as texts; rename some")
    checked = {str(name): _check(matrix, str(name), chosen) for name, matrix in matrices.items()}
    since = time.perf_counter()
    state, haar = State(chosen), State(chosen)
    with report_progress(progress) as tell:
        whole = chosen.with_(max_rows=None)  # no rows are drawn here
        seconds = [layer_seconds(matrix.shape[0], matrix.shape[1], 1, whole) / threads() for matrix in checked.values()]
        if sum(seconds) > WORTH_SAYING:
            tell(f"{_count(checked)}, about {duration_text(sum(seconds))}")
        for index, (name, matrix) in enumerate(checked.items()):
            tell(f"{name} ({matrix.shape[0]} x {matrix.shape[1]})", sum(seconds[:index]) / sum(seconds))
            _measure(state, haar, name, matrix)
    return Report(
        compare(state, [haar]),
        curves(state),
        layers=[asdict(record) for record in state.layers],
        settings=chosen.as_json(),
        provenance={
            "model": _count(checked),
            "matrices": True,
            "points": 1,
            "baseline": HAAR,
            "seconds": round(time.perf_counter() - since, 3),
            "spec": chosen.id,
            "versions": versions(),
            "hardware": hardware(),
        },
    )


def _count(matrices: Mapping[str, Any]) -> str:
    return f"{len(matrices)} matri{'x' if len(matrices) == 1 else 'ces'}"


def _spec(k: Any, spec: MeasureSpec | None, options: Mapping[str, Any]) -> MeasureSpec:
    if wrong := [name for name in options if name in MeasureSpec.model_fields and name not in OPTIONS]:
        raise InputError(f"{listing(wrong)}: of networks, not of matrices; expected some of {', '.join(OPTIONS)}")
    asked = options.get("scores")
    if isinstance(asked, list | tuple):
        _check_scores([str(name) for name in asked])  # before those of networks are offered
    chosen = MeasureSpec(**({"scores": OF_MATRICES, "k": k} | dict(options))) if spec is None else spec_from(spec, options)
    _check_scores([score.name for score in chosen.score_records])
    return chosen


def _check_scores(names: Sequence[str]) -> None:
    if wrong := [name for name in names if name not in _KNOWN]:
        close = "" if wrong[0] in registry.names() else close_names(wrong[0], _KNOWN)
        raise InputError(f"scores: matrices have no {listing(wrong)}{close}; expected some of {', '.join(_KNOWN)}")


_KNOWN = tuple(
    s.name
    for s in registry.all_scores()
    if s.takes and not s.of_layer and not s.against_baseline and not s.is_of("row_means")  # without takes: of a study
)


def _check(matrix: MatrixLike, name: str, spec: MeasureSpec) -> np.ndarray:
    label = f"matrix {name!r}"
    array = as_numpy(matrix, label)
    if array.ndim != 2 or array.size == 0:
        raise InputError(f"{label} has shape {array.shape}; expected two dimensions, neither of them 0")
    require_finite(array, label)
    try:
        layout = make_layout(array.shape[1], spec.image_shape, spec.positions, spec.groups)
        check_layout(spec.selections, layout)
    except InputError as error:
        raise InputError(f"{label}: {error}") from None
    return array


def _measure(state: State, haar: State, name: str, matrix: np.ndarray) -> None:
    """The scores of one matrix into ``state``, what they would be at the Haar mean of S1 into ``haar``."""
    since = time.perf_counter()
    items = np.array([[0, -1]])
    scores = LayerScores(name, items, state.spec, ROUNDOFF)
    jacobian = DenseJacobian(matrix[None])
    scores.update(Batch(jacobian, items[:, 0], items[:, 1], np.zeros((1, len(matrix)))))
    layer = scores.compute(None, None)
    layer.units = None
    state.measured[name], haar.measured[name] = layer, LayerState(items)
    for (order, selection, score), values in layer.scores.items():
        ratio = layer.scores.get((order, selection, "rr_pr"))
        if ratio is not None and score in FROM_S1:
            with np.errstate(divide="ignore", invalid="ignore"):
                at_haar = values.values * ratio.values ** float(FROM_S1[score])
            errors = np.zeros_like(at_haar) if ratio.exact and values.exact else np.full_like(at_haar, np.nan)
            haar.measured[name].scores[order, selection, score] = values._replace(values=at_haar, stderr=errors)
    m, n = matrix.shape
    state.layers.append(LayerRecord(name, "matrix", m, n, jacobians=1, seconds=time.perf_counter() - since))
