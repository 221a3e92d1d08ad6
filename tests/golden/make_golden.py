"""Compute the golden numbers and write them: ``python tests/golden/make_golden.py`` with the version that is to be kept.

Only names of the public interface and the command line are used, since the modules behind them move.
The tables beside this script are of the commits named in ``tables/made.json``; they are not written again after an
intended change, that goes into ``intended.toml``.
"""

from __future__ import annotations

import functools
import hashlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from nets import (
    classes,
    cnn,
    images,
    matrices,
    mlp,
    normed,
    relu_with_constant_units,
    tokens,
    transformer,
)
from torch import nn

import kagscope as kag
from kagscope.data import load
from kagscope.training import TrainingSettings, train

Tables = dict[str, pd.DataFrame]
Numbers = dict[str, float]

TABLES = Path(__file__).parent / "tables"
KEYS = ["layer", "k", "selection", "point", "token", "score", "step", "width", "training", "seed", "id", "part", "name"]
SCALES = ["all", "ball(1.5)", "ball(3)", "apart(3)", "shell(1,2.5)", "window(3,3,2)"]
STUDY = "--data digits --widths 8,12 --training standard --seeds 2 --epochs 2 --points 10 --checkpoints 4 --workers 2"


# -- measurements of one network -------------------------------------------------------------------------------------------------


def _report(model: nn.Module, inputs: Any, **options: Any) -> Tables:
    report = kag.measure(model, inputs, progress=False, **options)
    return {"table": report.table, "summary": report.summary()}


def gelu() -> Tables:
    """A GELU MLP, k = 1, 2, 3 at every kind of selection, against the network at another seed."""
    selections = [kag.All(), kag.Ball(1.5), kag.Ball(3), kag.Apart(3), kag.Shell(1, 2.5), kag.Window((3, 3), 2)]
    options = {"layers": ["1", "3"], "k": (1, 2, 3), "selections": selections, "image_shape": (8, 8)}
    return _report(mlp(), images(4), baseline=mlp(seed=101, gain=1.0), **options)


def labelled() -> Tables:
    """A GELU MLP with labels, at enough points for the scores of representations."""
    baseline = mlp(seed=102, gain=1.0)
    return _report(mlp(seed=12), images(40), labels=classes(40), baseline=baseline, layers=["1", "3"], k=(1, 2))


def relu() -> Tables:
    """A ReLU MLP with constant units, in single precision, against its state at another seed."""
    model, baseline = relu_with_constant_units().float(), mlp(activation=nn.ReLU, seed=103, gain=1.0).float()
    options = {"selections": ["all", "ball(2)"], "image_shape": (8, 8)}
    return _report(model, images(12).float(), baseline=baseline.state_dict(), labels=classes(12), **options)


def tanh() -> Tables:
    """A tanh MLP of three hidden layers, every activation and affine map."""
    model = mlp((64, 14, 12, 10, 10), nn.Tanh, seed=13)
    return _report(model, images(6), baseline=mlp((64, 14, 12, 10, 10), nn.Tanh, seed=104), layers=[str(i) for i in range(7)])


def reinit() -> Tables:
    """A baseline of two networks initialised anew."""
    return _report(mlp(seed=14), images(5), baseline="reinit", baseline_seeds=2, layers="1", k=2)


def convolutions() -> Tables:
    """A CNN, input to layer."""
    pixels = images(3).reshape(3, 1, 8, 8)
    options = {"selections": ["all", "ball(2)", "apart(4)"], "image_shape": (8, 8), "baseline": cnn(105)}
    return _report(cnn(), pixels, layers=["0", "1", "3", "5"], k=(1, 2), **options)


def convolution_blocks() -> Tables:
    """A CNN, each layer's own input to its output, rows thinned."""
    return _report(cnn(), images(2).reshape(2, 1, 8, 8), layers=["2", "3"], layer_map="block", max_rows=24)


def tokenwise() -> Tables:
    """A transformer, block by block, at three tokens."""
    options = {"layers": ["blocks.0", "blocks.1", "blocks.*.mlp"], "layer_map": "block", "tokens": 3, "k": (1, 2)}
    return _report(transformer(), tokens(), baseline=transformer(106), **options)


def token_list() -> Tables:
    """A transformer, input to layer at the tokens 0 and 4, three orders."""
    return _report(transformer(), tokens(3), layers=["blocks.1.mlp.1", "head"], tokens=[0, 4], k=(1, 2, 3))


def to_output() -> Tables:
    """An MLP, layer to output."""
    return _report(mlp(seed=15), images(6), layers=["1", "3"], layer_map="output", k=(1, 2, 3), baseline=mlp(seed=107))


def pruned() -> Tables:
    """A ReLU MLP without its constant units: its geometry, outputs and widths."""
    model, pixels = relu_with_constant_units(22), images(30)
    smaller, _ = kag.prune(model, pixels)
    numbers = {f"output {place}": value for place, value in enumerate(smaller(pixels).flatten().tolist())}
    numbers |= {f"width {name}": part.out_features for name, part in smaller.named_modules() if isinstance(part, nn.Linear)}
    return _report(smaller, pixels[:5], layers=["1", "3"]) | {"model": _table(numbers)}


def grouped() -> Tables:
    """Columns in groups, at selections within and between them."""
    groups = [place // 16 for place in range(64)]
    return _report(mlp(seed=16), images(4), layers="3", selections=["all", "ball(0)", "apart(1)"], groups=groups, k=(1, 2, 3))


def positioned() -> Tables:
    """Columns at positions in three dimensions."""
    positions = np.random.default_rng(8).normal(size=(64, 3))
    selections = ["all", "ball(0.8)", "shell(0.8,1.6)", "apart(3)", "window(0,0,0,1)"]
    return _report(mlp(seed=17), images(4), layers=["1", "3"], selections=selections, positions=positions, baseline=mlp(seed=108))


def sampled() -> Tables:
    """Minors too many to visit, k = 4 of 16 x 64, to 5%; and k = 3 of 64 x 64, large but still exact."""
    one = _report(mlp(seed=18), images(2), layers="1", k=4, rel_error=0.05, seed=3, baseline=mlp(seed=109))
    two = _report(mlp((64, 64, 10), seed=19), images(2), layers="1", k=3, rel_error=0.05)
    return one | {f"{name} of 64": table for name, table in two.items()}


def loaded() -> Tables:
    """The first points of a loader, which brings its labels; the model's own precision."""
    data = torch.utils.data.TensorDataset(images(20), classes(20))
    loader = torch.utils.data.DataLoader(data, batch_size=4)
    return _report(mlp(seed=20), loader, points=10, layers="3", precision="model", baseline=mlp(seed=110))


def own_scores() -> Tables:
    """Scores of the user's own."""
    scores = {"spread": lambda moments: moments.s4 / moments.s2**2}
    ofjacobian = {"largest": lambda jacobians: np.abs(jacobians).max(axis=(1, 2))}
    return _report(mlp(seed=21), images(4), layers="1", scores=scores, jacobian_scores=ofjacobian, baseline=mlp(seed=111))


def batch_norm() -> Tables:
    """Batch norm in training mode: each point with respect to itself within its batch."""
    return _report(normed(), images(6), layers=["norm", "act"], mode="train", baseline=normed(112))


# -- along a training ------------------------------------------------------------------------------------------------------------


def series() -> Tables:
    """Three checkpoints, the first of which is the baseline."""
    states = {0: mlp(seed=30, gain=1.0).state_dict(), 10: mlp(seed=31).state_dict(), 40: mlp(seed=32, gain=3.0).state_dict()}
    options = {"selections": ["all", "ball(2)"], "image_shape": (8, 8), "labels": classes(12)}
    found = kag.measure_series(mlp(), states, images(12), layers=["1", "3"], k=(1, 2), **options)
    return {"table": found.table, "summary": found.summary()}


def _train(model: nn.Module, first: int, last: int, tracker: Any) -> None:
    """Steps of plain gradient descent."""
    for step in range(first, last + 1):
        pixels, truth = images(32, 40 * step), classes(32, 40 * step)
        model.zero_grad()
        nn.functional.cross_entropy(model(pixels), truth).backward()
        with torch.no_grad():
            for parameter in model.parameters():
                assert parameter.grad is not None
                parameter.sub_(2.0 * parameter.grad)
        tracker.step(step)


def tracked() -> Tables:
    """A tracker with a history in a plain loop, measured four times; then another one that continues it."""
    model = mlp(seed=33, gain=1.0)
    options: dict[str, Any] = {"layers": ["1", "3"], "k": (1, 2), "selections": ["all", "ball(2)"], "image_shape": (8, 8)}
    with tempfile.TemporaryDirectory() as folder:
        options |= {"history": Path(folder) / "history", "labels": classes(12), "every": 3}
        tracker = kag.Tracker(model, images(12), **options)
        _train(model, 1, 8, tracker)
        tracker.finish()
        onset = tracker.onset(score=None).rename(columns={"step": "onset", "epoch": "onset_epoch"})
        onset = onset.astype(dict.fromkeys(("onset", "confirmed"), "float64"))
        found = {"table": tracker.table, "summary": tracker.summary(), "onset": onset}
        again = kag.Tracker(model, images(12), **options)
        _train(model, 9, 9, again)
        return found | {"continued": again.finish().table}


# -- the engine ------------------------------------------------------------------------------------------------------------------


def _sums(name: str, moments: Any, histogram: bool = True) -> Iterator[tuple[str, Any]]:
    for what in ("s1", "s2", "s4", "entropy", "top", "count", "exact", "pr_normalized", "effective_minors", "ipr", "kl_uniform"):
        yield f"{name}: {what}", getattr(moments, what)
    yield f"{name}: pr", moments.participation_ratio
    for what, error in moments.stderr.items():
        yield f"{name}: stderr of {what}", error
    if histogram:
        first, counts, zeros = moments.histogram
        places = np.asarray(first)[..., None] + np.arange(np.asarray(counts).shape[-1])
        yield f"{name}: histogram total", np.sum(counts, axis=-1)
        yield f"{name}: histogram sum of bins", np.sum(places * counts, axis=-1)
        yield f"{name}: histogram sum of squares", np.sum(places**2 * counts, axis=-1)
        yield f"{name}: histogram fullest", np.max(counts, axis=-1, initial=0)
        yield f"{name}: histogram zeros", zeros


def _of_matrix(name: str, J: Any) -> Iterator[tuple[str, Any]]:
    shape = {"image": (4, 4), "large": (8, 8)}.get(name)
    orders = [k for k in (1, 2, 3, 4) if k <= min(J.shape[-2:]) and not (name == "large" and k == 4)]
    for k in orders:
        for method in ("auto", "exact", "sampled"):
            options = {"method": method, "seed": 5, "rel_error": 0.05}
            yield from _sums(f"{name} k={k} {method}", kag.minor_moments(J, k=k, **options))
            if shape:
                chosen = SCALES if k > 1 else ["all", "window(1,1,1)"]
                found = kag.minor_moments(J, k=k, selection=chosen, image_shape=shape, **options)
                for selection, moments in zip(chosen, found, strict=True):
                    yield from _sums(f"{name} k={k} {selection} {method}", moments)
        yield f"{name} k={k}: haar_mean_s1", kag.haar_mean_s1(J, k=k, rel_error=0.05)
        yield f"{name} k={k}: rotation_ratio", kag.rotation_ratio(J, k=k)
        if shape and k > 1:
            values = kag.haar_mean_s1(J, k=k, selection=SCALES, image_shape=shape, rel_error=0.05)
            yield from ((f"{name} k={k} {one}: haar_mean_s1", value) for one, value in zip(SCALES, values, strict=True))
        if k <= 2:
            yield f"{name} k={k}: rotation_ratio max", kag.rotation_ratio(J, k=k, kind="max", rotations=8, seed=2)
            yield f"{name} k={k}: column_divergence", kag.column_divergence(J, k=k)
        if k <= 3:
            yield f"{name} k={k}: zero_rows", kag.zero_rows(J, k=k)
            yield f"{name} k={k}: zero_rows to 0.3", kag.zero_rows(J, k=k, threshold=0.3)
    for score in ("axis_alignment", "effective_rank", "stable_rank", "sv_participation"):
        yield f"{name}: {score}", getattr(kag, score)(J)


def _engine() -> Iterator[tuple[str, Any]]:
    given = matrices()
    for name, J in given.items():
        yield from _of_matrix(name, J)
    generator = np.random.default_rng(9)
    W, d = given["large"], generator.lognormal(size=(3, 20)) * (generator.random((3, 20)) > 0.2)
    for k in (1, 2, 3):
        chosen = SCALES if k > 1 else ["all", "window(3,3,2)"]
        for selection, moments in zip(
            chosen, kag.factored_minor_moments(W, d, k=k, selection=chosen, image_shape=(8, 8)), strict=True
        ):
            yield from _sums(f"factored k={k} {selection}", moments, histogram=False)
        one, other = (kag.minor_moments(d[place][:, None] * W, k=k) for place in (0, 1))
        yield f"kl_init k={k}", kag.kl_init(one, other)
    left, right = kag.minor_moments(W, k=2, selection=["ball(2)", "shell(2,20)"], image_shape=(8, 8))
    yield from _sums("sum of disjoint moments", left + right)


def engine() -> Tables:
    """Numbers of the engine and of the scores of matrices, without a network."""
    return {"numbers": _table(dict(_flat(_engine())))}


def _flat(pairs: Iterator[tuple[str, Any]]) -> Iterator[tuple[str, float]]:
    for name, value in pairs:
        values = np.asarray(value, dtype=np.float64)
        if values.ndim == 0:
            yield name, float(values)
        else:
            yield from ((f"{name} [{place}]", float(one)) for place, one in enumerate(values))


def _table(numbers: Numbers) -> pd.DataFrame:
    return pd.DataFrame({"name": list(numbers), "value": np.array(list(numbers.values()), dtype=np.float64)})


# -- a study ---------------------------------------------------------------------------------------------------------------------


def study() -> Tables:
    """``kagscope reproduce`` with four runs on the digits: its table, and the numbers of its claims."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "study"
        command = [sys.executable, "-m", "kagscope", "reproduce", *STUDY.split(), "--quiet", "--out", str(out)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        results = pd.read_parquet(out / "results.parquet")
        claims = json.loads((out / "claims.json").read_text())
    if "labels" in results:  # networks trained on shuffled labels are another matter
        results = results[results["labels"].astype(str) == "true"]
    numbers = ("effect", "ci_low", "ci_high", "p_value", "n")
    verdicts = {"reproduced": 1.0, "inconclusive": 0.0, "not reproduced": -1.0}
    whole = [{"id": one["id"], "verdict": verdicts[one["verdict"]], **{name: one[name] for name in numbers}} for one in claims]
    keys = ("part", "layer", "k", "selection", "training", "width")
    parts = [
        {"id": claim["id"], **{key: part.get(key) for key in keys}, **{name: part.get(name) for name in numbers}}
        for claim in claims
        for part in claim["parts"]
    ]
    found = {
        name: pd.DataFrame(rows).astype(dict.fromkeys(numbers, "float64")) for name, rows in (("claims", whole), ("parts", parts))
    }
    return found | {"table": results.drop(columns="run")}


# -- all -------------------------------------------------------------------------------------------------------------------------


CASES: dict[str, Callable[[], Tables]] = {
    case.__name__: case
    for case in (
        *(gelu, labelled, relu, tanh, reinit, convolutions, convolution_blocks, tokenwise, token_list, to_output, pruned),
        *(grouped, positioned, sampled, loaded, own_scores, batch_norm, series, tracked, engine, study),
    )
}


@functools.cache
def computed(case: str) -> Tables:
    """Tables of a case by name: keys as text, numbers as float64; sentences are left out."""
    return {name: _plain(table) for name, table in CASES[case]().items()}


def _plain(table: pd.DataFrame) -> pd.DataFrame:
    keys = [name for name in KEYS if name in table.columns]
    numbers = [name for name in table.columns if name not in keys and pd.api.types.is_numeric_dtype(table[name])]
    return table[keys].astype(str).join(table[numbers].astype("float64"))


def made() -> dict[str, str]:
    """Versions, and a digest of a trained network's last bits, which depend on the processor and on the libraries' kernels."""
    (net,) = train(load("digits"), TrainingSettings(hidden=(8, 8), epochs=2), seeds=[0])
    weights = b"".join(tensor.numpy().tobytes() for tensor in net.final.values())
    return {"torch": torch.__version__, "numpy": np.__version__, "training": hashlib.sha256(weights).hexdigest()[:16]}


def main() -> None:
    """Write the cases named on the command line, or all."""
    TABLES.mkdir(exist_ok=True)
    cases = sys.argv[1:] or list(CASES)
    for case in cases:
        since = time.perf_counter()
        for name, table in computed(case).items():
            keys = [key for key in KEYS if key in table.columns]
            assert not table.duplicated(keys).any(), f"{case}, {name}: rows with the same {', '.join(keys)}"
            packed = table.astype(dict.fromkeys(keys, "category"))
            path = TABLES / f"{case}.{name.replace(' ', '_')}.parquet"
            packed.to_parquet(path, index=False, compression="zstd", compression_level=19)
        print(f"{case}: {time.perf_counter() - since:.1f} s", flush=True)
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, cwd=TABLES, check=False)
    told = TABLES / "made.json"
    before = json.loads(told.read_text())["commits"] if told.exists() else {}
    told.write_text(json.dumps({"commits": before | dict.fromkeys(cases, commit.stdout.strip()), **made()}, indent=1) + "\n")


if __name__ == "__main__":
    main()
