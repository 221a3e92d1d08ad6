"""``kagscope.measure``: a model, inputs and a baseline in; a report out."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from kagscope.base.provenance import hardware, versions
from kagscope.jacobians.inputs import as_inputs
from kagscope.jacobians.layers import Layers
from kagscope.jacobians.randomness import random_state_kept
from kagscope.measuring.baseline import COMPILED, baselines
from kagscope.measuring.caveats import ONE_RANDOM
from kagscope.measuring.checks import check_model
from kagscope.measuring.observe import Observation, observe
from kagscope.measuring.report import Report
from kagscope.measuring.settings import MeasureSettings
from kagscope.measuring.tables import compare, curves, units


def measure(
    model: nn.Module,
    inputs: Any,
    *,
    layers: Layers = None,
    layer_map: str = "input",
    k: int | Sequence[int] = (1, 2),
    selections: Any = None,
    image_shape: tuple[int, int] | None = None,
    positions: Any = None,
    groups: Any = None,
    baseline: Any = None,
    baseline_seeds: int | Sequence[int] = 3,
    labels: Any = None,
    points: int | None = None,
    tokens: int | Sequence[int] | str | None = None,
    mode: str = "eval",
    precision: str = "float64",
    max_rows: int = 512,
    rel_error: float = 0.01,
    memory_budget: int = 2**30,
    seed: int = 0,
    scores: Mapping[str, Callable[[Any], Any]] | None = None,
    jacobian_scores: Mapping[str, Callable[[Any], Any]] | None = None,
    progress: bool | Callable[[str], None] | None = None,
) -> Report:
    """Measure the geometry of a network's layers: the minors of their Jacobians, against a baseline (MATH.md sections 1 to 3).

    Args:
        model: any ``torch.nn.Module``. It is left as it is: parameters, buffers, gradients, hooks, mode, random state.
        inputs: a tensor (points, …), a tuple of positional arguments, a mapping of keyword arguments, or a ``DataLoader``; the
            batch comes first. Integers are welcome wherever no derivative is taken with respect to them.
        layers: names from ``named_modules()`` ("encoder.0.mlp"), patterns (``*`` one part of a name, ``**`` any), module classes,
            or a list of them; None: every activation module. Of a module that is called several times in one forward pass every
            call is measured, as "name#0", "name#1", …; "name#1" alone can be asked for too.
        layer_map: "input": model input to layer output; "block": the layer's own first input to its output; "output": layer
            output to model output.
        k: orders of the minors.
        selections: column selections or their strings; default ``All()``.
        image_shape: (height, width) when the columns of the Jacobians are pixels.
        positions, groups: where the columns lie otherwise, as for :func:`kagscope.minor_moments`.
        baseline: a model, a state dict, the path of a checkpoint, "reinit" (every module's own ``reset_parameters``), or None.
        baseline_seeds: of "reinit": how many networks, or their seeds; scores are compared with the mean over them.
        labels: (points,) classes, for kernel alignment.
        points: how many points to take, the first ones; None: all, of a loader at most 100.
        tokens: of layers on sequences (points, tokens, n): None all (of more than 256 as many evenly spaced), a number that many
            evenly spaced, a list those, "flat" takes a sequence whole. Each token's output is taken with respect to the same
            token's input.
        mode: "eval" (no dropout, fixed batch statistics) or "train": each point with respect to itself within its batch.
        precision: "float64" computes the Jacobians in float64 whatever the model's dtype, "model" in its own.
        max_rows: layers with more rows are thinned to so many at random, the same ones in the baseline.
        rel_error: relative standard error aimed at where something is sampled.
        memory_budget: bytes of working memory, about; sizes of chunks follow from it.
        seed: of whatever is sampled.
        scores: your own functions of the :class:`kagscope.Moments` of a batch of B Jacobians, by name; each returns (B,) numbers,
            NaN where undefined. They are measured for every k and selection, of network and baseline.
        jacobian_scores: the same of the Jacobians themselves, a (B, m, n) float64 array.
        progress: a callable told each layer's name; True or None show it on a terminal, False shows nothing.

    Returns:
        A :class:`Report`.

    Raises:
        InputError: a model, layer, input or option that cannot be used; said before the work starts where that can be known.
    """
    chosen = MeasureSettings(
        layers=layers,
        layer_map=layer_map,
        k=k,  # type: ignore[arg-type]
        **({} if selections is None else {"selections": selections}),
        image_shape=image_shape,
        positions=positions,
        groups=groups,
        tokens=tokens,
        mode=mode,
        precision=precision,
        max_rows=max_rows,
        rel_error=rel_error,
        memory_budget=memory_budget,
        seed=seed,
        scores=scores or {},
        jacobian_scores=jacobian_scores or {},
    )
    check_model(model)
    since, model = time.perf_counter(), getattr(model, COMPILED, model)
    found = as_inputs(inputs, points)
    labels = found.labels if labels is None else labels if points is None else labels[:points]
    notes: list[str] = []
    with random_state_kept(_tensors(model)), torch.inference_mode(False), _telling(progress) as tell:
        others = list(baselines(model, baseline, baseline_seeds, notes))
        given: Any = found.kwargs or found.args
        seen = observe(model, given, chosen, labels=labels, progress=tell)
        before = [
            observe(module, given, chosen, weights=weights, labels=labels, progress=lambda name: tell(f"{name} of the baseline"))
            for module, weights in others
        ]
    about = {
        "model": type(model).__name__,
        "points": found.count,
        "baseline": said(baseline, len(others)),
        "seconds": round(time.perf_counter() - since, 3),
    }
    return reported(seen, before, chosen, notes, about)


def reported(
    seen: Observation, before: Sequence[Observation], settings: MeasureSettings, notes: Sequence[str], about: Mapping[str, Any]
) -> Report:
    """The report of one observation beside those of its baselines; ``about`` is its provenance, versions are added."""
    return Report(
        compare(seen, before, settings.zero_row_quantile),
        curves(seen),
        [curves(one) for one in before],
        layers=[record.as_json() for record in seen.layers],
        settings=settings.as_json(),
        notes=[*seen.notes, *notes],
        provenance={**about, "versions": versions(), "hardware": hardware()},
        units=units(seen, before, settings.zero_row_quantile),
    )


def _tensors(model: nn.Module) -> Iterator[Tensor]:
    yield from model.parameters()
    yield from model.buffers()


def said(baseline: Any, count: int) -> str:
    """A baseline in words; ``count`` networks stood for it."""
    if baseline is None:
        return "none"
    if isinstance(baseline, str):
        many = f"{count} networks initialised anew" if count != 1 else ONE_RANDOM
        return many if baseline == "reinit" else baseline
    return (
        "a model" if isinstance(baseline, nn.Module) else "a state dict" if count and hasattr(baseline, "keys") else str(baseline)
    )


@contextmanager
def _telling(progress: bool | Callable[[str], None] | None) -> Iterator[Callable[[str], None]]:
    if callable(progress):
        yield progress
        return
    from rich.console import Console

    console = Console(stderr=True)
    if progress is False or not console.is_terminal:
        yield lambda text: None
        return
    with console.status("measuring") as status:
        yield lambda text: status.update(f"measuring {text}")
