"""What is sent to loggers: names that all of them take, and errors of theirs that end no training."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import kagscope as kag
from kagscope.tracking.loggers import metric_name

MLFLOW = re.compile(r"[A-Za-z0-9_\-./]+")  # what MLflow accepts on every platform


@given(st.text(max_size=12), st.integers(1, 4), st.sampled_from(["all", "ball(7)", "shell(7,14)", "window(13,13,3.5)"]))
def test_names_are_of_letters_that_every_logger_takes(layer: str, k: int, selection: str) -> None:
    name = metric_name(layer, k, selection, "pr")
    assert MLFLOW.fullmatch(name)
    parts = name.split("/")
    assert len(parts) == 5
    assert all(part.strip(".") for part in parts)


def test_names_of_usual_layers() -> None:
    assert metric_name("encoder.0.mlp", 2, "all", "pr") == "kag/encoder.0.mlp/k2/all/pr"
    assert metric_name("block#1", 2, "ball(7)", "pr") == "kag/block-1/k2/ball_7/pr"
    assert metric_name("", 1, "shell(7,14)", "kl_uniform") == "kag/model/k1/shell_7_14/kl_uniform"


def test_a_logger_that_raises_ends_no_training(caplog: pytest.LogCaptureFixture) -> None:
    seen: list[Mapping[str, float]] = []

    def broken(values: Any) -> None:
        raise RuntimeError("no route to the server")

    model = nn.Sequential(nn.Linear(4, 3), nn.GELU(), nn.Linear(3, 2))
    with caplog.at_level(logging.WARNING, "kagscope"):
        tracker = kag.Tracker(model, torch.rand(3, 4), every=1, log=[broken, seen.append], k=(2,))
        tracker.step(1)
        tracker.finish()
    assert tracker.steps == [0, 1]
    assert len(seen) == 2
    assert sum("no route to the server" in record.getMessage() for record in caplog.records) == 1
