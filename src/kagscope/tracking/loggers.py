"""Send measurements to the user's loggers, which are recognised by their methods (nothing is imported); summarise the last."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from kagscope.base.errors import InputError
from kagscope.measuring.report import main_order
from kagscope.measuring.spec import MeasureSpec
from kagscope.registry import select_scores
from kagscope.tables.onset import find_onsets

Send = Callable[[Mapping[str, float], int], None]
PREFIX = "kag"
LOGGED = ("pr", "kl_uniform", "rr_pr", "zero_rows")


def metric_name(layer: str, k: int, selection: str, score: str) -> str:
    """``kag/<layer>/k<k>/<selection>/<score>`` in letters, digits, "_", "-", "." and "/", which every logger accepts.

    "ball(7)" is written ``ball_7``, call 1 of a module "block#1" ``block-1``, the whole model ``model``.
    """
    parts = [layer.replace("#", "-") or "model", f"k{k}", selection.replace("(", "_").replace(",", "_").replace(")", ""), score]
    clean = [re.sub(r"[^A-Za-z0-9_.-]", "_", word) for word in parts]
    return "/".join([PREFIX, *("_" if set(word) <= {"."} else word for word in clean)])


def metrics(summary: pd.DataFrame, scores: Sequence[str] | None = LOGGED) -> dict[str, float]:
    """Means over points by :func:`metric_name`, and their ratios to the baseline as ``…/<score>_ratio``.

    Undefined values are left out, as loggers draw NaN as zero or not at all; so are ratios that are missing at some points.

    Args:
        summary: summary of one step, from :func:`~kagscope.tables.means.summarise`.
        scores: names of the scores to send; None for all.
    """
    summary = summary if scores is None else summary[summary["score"].isin(scores)]
    means: dict[str, float] = {}
    columns = ("layer", "k", "selection", "score", "value", "ratio", "no_ratio")
    for layer, k, selection, score, value, ratio, missing in zip(*(summary[name].to_numpy() for name in columns), strict=True):
        name = metric_name(str(layer), int(k), str(selection), str(score))
        if np.isfinite(value):
            means[name] = float(value)
        if np.isfinite(ratio) and not missing:
            means[f"{name}_ratio"] = float(ratio)
    return means


def check_logged(scores: Sequence[str] | None, spec: MeasureSpec) -> Sequence[str] | None:
    """Return ``scores``. Raises :class:`InputError` unless None or names of scores, including those defined in ``spec``."""
    if scores is None:
        return None
    if isinstance(scores, str) or not isinstance(scores, Sequence) or not all(isinstance(score, str) for score in scores):
        raise InputError(f"log_scores is {scores!r:.80}; expected a list of names, or None for all")
    select_scores([score for score in scores if score not in spec.own_scores and score not in spec.jacobian_scores])
    return scores


def senders(log: Any) -> list[Send]:
    """Return a function of (metrics, step) for each logger in ``log``.

    Args:
        log: None, a logger or a list of them. A logger has ``add_scalar(name, value, step)`` (TensorBoard's ``SummaryWriter``),
            ``log_metrics(metrics, step)`` (Lightning's loggers), ``log(metrics, step=)`` (a Weights & Biases run), or is a
            function of a dictionary; if it has no parameter ``step``, the dictionary holds the step.

    Raises:
        InputError: something that is none of these.
    """
    if log is None:
        return []
    if isinstance(log, Sequence) and not isinstance(log, (str, bytes)):
        return [send for logger in log for send in senders(logger)]
    if callable(getattr(log, "add_scalar", None)):
        return [lambda values, step: _add_scalars(log, values, step)]
    if callable(getattr(log, "log_metrics", None)):
        return [lambda values, step: log.log_metrics(dict(values), step=step)]
    if callable(getattr(log, "log", None)):
        return [_dictionary(log.log)]
    if callable(log):
        return [_dictionary(log)]
    raise InputError(
        f"log={log!r} cannot log; give a TensorBoard SummaryWriter, an object with log(dict, step=), "
        "a function of a dict, or a list of such"
    )


def _add_scalars(writer: Any, values: Mapping[str, float], step: int) -> None:
    for name, value in values.items():
        writer.add_scalar(name, value, step)


def _dictionary(function: Callable[..., Any]) -> Send:
    if _takes_step(function):
        return lambda values, step: function(dict(values), step=step)
    return lambda values, step: function({"step": step, **values})


def _takes_step(function: Callable[..., Any]) -> bool:
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # some built-in functions have no signature
        return False
    return any(parameter.name == "step" or parameter.kind is parameter.VAR_KEYWORD for parameter in parameters)


LINE_SCORES = {"pr": "pr", "kl": "kl_uniform"}


def furthest_ratios(summary: pd.DataFrame) -> dict[str, tuple[str, float]]:
    """For PR ("pr") and KL ("kl"), if measured: the layer with the ratio furthest from 1 at the last step, and the ratio."""
    furthest: dict[str, tuple[str, float]] = {}
    if summary.empty:
        return furthest
    last = main_order(summary[(summary["step"] == summary["step"].max()) & (summary["ratio"] > 0)])
    for name, score in LINE_SCORES.items():
        rows = last[last["score"] == score]
        if len(rows):
            index = int(np.argmax(np.abs(np.log(rows["ratio"].to_numpy(float)))))
            furthest[name] = str(rows["layer"].iloc[index]), float(rows["ratio"].iloc[index])
    return furthest


def line(summary: pd.DataFrame) -> str:
    """The ratios furthest from 1 and the first onset."""
    shown = [f"{name.upper()} x{ratio:.2f} (layer {layer})" for name, (layer, ratio) in furthest_ratios(summary).items()]
    if shown:
        rows = main_order(summary)
        onsets = find_onsets(rows[rows["score"].isin(LINE_SCORES.values())])["step"].dropna()
        shown += [f"onset {min(onsets)}"] if len(onsets) else []
    return " | ".join(shown)
