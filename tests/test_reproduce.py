"""The main job end to end: what it writes, that it resumes, and that its numbers are those of the saved weights."""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from judging import CLAIM_FIELDS
from kagscope.base.errors import InputError, OutputError
from kagscope.data import load
from kagscope.loading.weights import load_state
from kagscope.measuring.observe import choose_points
from kagscope.studies.collect import Outcome
from kagscope.studies.execute.base import Failure, OnEvent, Work
from kagscope.studies.study import RunsFailed, run_study
from kagscope.tables.schema import CURVE_COLUMNS, RESULT_COLUMNS, VERDICTS
from kagscope.training.models import layer_names, mlp
from studies import MEASURE, Here, small_study

FEW = {"k": [1, 2], "checkpoints": 2, "points": 4}

# -- what is written -------------------------------------------------------------------------------------------------------------


def test_outputs(study: Outcome) -> None:
    folder = study.folder
    names = {entry.name for entry in folder.iterdir()}
    tables = {"runs.parquet", "results.parquet", "curves.parquet", "claims.json"}
    statistics = {
        f"{name}.csv" for name in ("summary", "relations", "phase_diagram", "trained_vs_initial", "comparisons", "trends")
    }
    assert names == {"study.json", "runs", "data", "figures", "report.html", *tables, *statistics}
    figures = {path.name for path in (folder / "figures").iterdir()}
    for family in ("pr_ratio_by_radius", "pr_ratio_by_distance"):
        assert {f"{family}.png", f"{family}.pdf"} <= figures
    assert len(list((folder / "runs").iterdir())) == 8
    assert study.report is not None
    assert study.report.read_text().lower().startswith("<!doctype html>")


def test_claims_file(study: Outcome) -> None:
    claims = json.loads((study.folder / "claims.json").read_text())
    assert [claim["id"][0] for claim in claims] == list("123456")
    for claim in claims:
        assert set(CLAIM_FIELDS) <= set(claim)
        assert claim["verdict"] in VERDICTS


def test_tables_have_their_columns_and_one_row_per_number(study: Outcome) -> None:
    results = pd.read_parquet(study.folder / "results.parquet")
    curves = pd.read_parquet(study.folder / "curves.parquet")
    assert list(results.columns) == list(RESULT_COLUMNS)
    assert list(curves.columns) == list(CURVE_COLUMNS)
    assert not results.duplicated(["run", "step", "layer", "k", "selection", "point", "score"]).any()
    undefined = results["value"].isna()
    assert (results.loc[undefined, "reason"] != "").all()
    assert (results.loc[~undefined, "reason"] == "").all()
    assert (results.loc[results["exact"] & ~results["score"].isin(["near_zero"]), "stderr"] == 0).all()


def test_every_score_and_selection_is_there(study: Outcome) -> None:
    results = pd.read_parquet(study.folder / "results.parquet")
    final = results[results["step"] == results["step"].max()]
    of_minors = "pr pr_normalized effective_minors ipr kl_uniform kl_init near_zero rr_max rr_pr zero_rows column_divergence top"
    of_jacobians = "axis_alignment effective_rank stable_rank sv_participation unfelt_units constant_units prune_change"
    of_layers = "kernel_alignment cka_init effective_dimension intrinsic_dimension"
    scores = {str(score) for score in final["score"].unique()}
    assert scores >= {*of_minors.split(), *of_jacobians.split(), *of_layers.split()}
    pr = final[final["score"] == "pr"]
    assert set(pr["k"]) == {1, 2, 3}
    selections = {str(name) for name in pr.loc[pr["k"] == 2, "selection"].unique()}
    assert selections >= {"all", "ball(2)", "ball(4)", "ball(6)", "ball(8)", "apart(2)", "apart(4)", "apart(6)", "apart(8)"}
    windows = Counter(name.rstrip(")").split(",")[2] for name in selections if name.startswith("window("))
    assert windows == {"2": 9, "1": 4, "3": 4, "4": 4}  # one radius at every centre, the others at every second


def test_ratios_are_one_at_initialisation(study: Outcome) -> None:
    results = pd.read_parquet(study.folder / "results.parquet")
    ratios = results.loc[results["step"] == 0, "ratio"].dropna()
    assert len(ratios) > 100
    assert (ratios == 1).all()


def test_untrained_nets_reproduce_nothing(tmp_path: Path) -> None:
    outcome = run_study(small_study(epochs=0, widths=(6,), measure=FEW), tmp_path / "out", executor=Here(), pictures=False)
    results = pd.read_parquet(tmp_path / "out" / "results.parquet")
    assert (results["ratio"].dropna() == 1).all()
    assert all(claim.verdict != "reproduced" for claim in outcome.claims)
    assert outcome.claims[0].verdict == "not reproduced"


def test_a_control_is_a_net_of_its_own_that_claims_do_not_see(tmp_path: Path) -> None:
    few = {"k": [2], "checkpoints": 2, "selections": ["all"], "scores": ["pr", "kl_uniform", "rr_pr"], "points": 3}
    plain = small_study(widths=(4,), trainings=["standard"], epochs=1, measure=few)
    axes = {"width": [4], "seed": [0, 1], "labels": ["true", "shuffled"]}
    both = plain.model_copy(update={"grid": axes})
    claims = {}
    for name, study in (("plain", plain), ("both", both)):
        claims[name] = run_study(study, tmp_path / name, executor=Here(), pictures=False).claims
    results = pd.read_parquet(tmp_path / "both" / "results.parquet")
    initial = (
        results[(results["step"] == 0) & (results["score"] == "pr")].groupby(["labels", "seed"], observed=True)["value"].sum()
    )
    assert (initial["true"] == initial["shuffled"]).all()
    assert [replace(claim, control=None).as_json() for claim in claims["both"]] == [claim.as_json() for claim in claims["plain"]]
    assert {claim.control for claim in claims["both"]} == {"inconclusive"}
    trained = results[results["step"] > 0]
    assert trained.loc[trained["labels"] == "shuffled", "run"].astype(str).str.contains("shuffled").all()


# -- the numbers, again from the saved weights, by brute force -------------------------------------------------------------------


class Recomputed:
    """Jacobians of one stored net by automatic differentiation, and its rows of the table."""

    def __init__(self, study: Outcome, run: str) -> None:
        folder = study.folder / "runs" / run
        config = json.loads((folder / "config.json").read_text())
        weights = load_state(folder / "weights.safetensors")
        steps = sorted({int(name.split("/")[0]) for name in weights})
        self.data = load("digits")
        self.nets = {}
        for step in (0, steps[-1]):
            state = {name.split("/")[1]: tensor for name, tensor in weights.items() if name.startswith(f"{step}/")}
            net = mlp(64, config["widths"], 10, config["activation"], seed=0)
            net.load_state_dict(state)
            self.nets[step] = net.double()
        self.last = steps[-1]
        table = pd.concat(pd.read_parquet(file) for file in (folder / "tables").iterdir())
        self.table = table[table["step"] == self.last].astype({"layer": str, "selection": str, "score": str})
        self.points = choose_points(len(self.data.test_labels), MEASURE["points"])

    def inputs(self, points: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(self.data.test_images[points].reshape(len(points), -1)).double()

    def jacobian(self, step: int, layer: str, point: int) -> np.ndarray:
        upto = self.nets[step][: layer_names(len(self.nets[step]) - 1).index(layer) + 1]
        return np.asarray(torch.func.jacrev(upto)(self.inputs(np.array([point]))[0]).detach())

    def row(self, layer: str, k: int, selection: str, score: str, point: int) -> pd.Series:
        wanted = self.table.query(
            "layer == @layer and k == @k and selection == @selection and score == @score and point == @point"
        )
        assert len(wanted) == 1
        return wanted.iloc[0]


@cache
def column_pairs(columns: int, near: Any) -> np.ndarray:
    """(2, pairs) pixels of an image 8 wide whose distance satisfies ``near``."""
    return np.transpose([p for p in itertools.combinations(range(columns), 2) if near(math.dist(*(divmod(c, 8) for c in p)))])


def minors_2(J: np.ndarray, near: Any = lambda distance: True) -> np.ndarray:
    """Absolute 2 x 2 minors over column pairs whose pixels' distance satisfies ``near``, by their definition."""
    a, b = column_pairs(J.shape[1], near)
    i, j = np.triu_indices(len(J), 1)
    minors: np.ndarray = np.abs(J[i][:, a] * J[j][:, b] - J[i][:, b] * J[j][:, a])
    return minors.ravel()


@pytest.fixture(scope="module", params=["standard", "augmented"])
def recomputed(study: Outcome, request: pytest.FixtureRequest) -> Recomputed:
    return Recomputed(study, next(run for run in study.runs if run.startswith(f"{request.param}-8x8-seed1")))


@pytest.mark.parametrize("layer", ["hidden1", "hidden2"])
def test_moment_scores_of_2_minors(recomputed: Recomputed, layer: str) -> None:
    point = int(recomputed.points[1])
    for selection, near in {"all": lambda d: True, "ball(4)": lambda d: d <= 4, "apart(6)": lambda d: d >= 6}.items():
        M, before = (minors_2(recomputed.jacobian(step, layer, point), near) for step in (recomputed.last, 0))
        pr, pr_before = (np.sqrt((values**2).sum()) / values.sum() for values in (M, before))
        row = recomputed.row(layer, 2, selection, "pr", point)
        assert row["value"] == pytest.approx(pr, rel=1e-10)
        assert row["baseline"] == pytest.approx(pr_before, rel=1e-10)
        assert row["ratio"] == pytest.approx(pr / pr_before, rel=1e-10)
        p = M / M.sum()
        kl = (p[p > 0] * np.log(p[p > 0] * len(M))).sum()
        assert recomputed.row(layer, 2, selection, "kl_uniform", point)["value"] == pytest.approx(kl, rel=1e-9)
        assert recomputed.row(layer, 2, selection, "top", point)["value"] == pytest.approx(M.max(), rel=1e-10)
        assert recomputed.row(layer, 2, selection, "ipr", point)["value"] == pytest.approx(
            (M**2).sum() ** 2 / (M**4).sum(), rel=1e-9
        )
        near_zero = recomputed.row(layer, 2, selection, "near_zero", point)
        assert abs(near_zero["value"] - (M.mean() / 1024 >= M).mean()) <= near_zero["stderr"] + 1e-12


@pytest.mark.parametrize("layer", ["hidden1", "hidden2"])
def test_row_scores(recomputed: Recomputed, layer: str) -> None:
    after, before = (
        np.array([np.abs(recomputed.jacobian(step, layer, int(point))).mean(axis=1) for point in recomputed.points])
        for step in (recomputed.last, 0)
    )
    threshold = np.quantile(before, 0.01)
    for place, point in enumerate(recomputed.points):
        row = recomputed.row(layer, 1, "all", "zero_rows", int(point))
        assert row["value"] == pytest.approx((after[place] <= threshold).mean())
        assert row["baseline"] == pytest.approx((before[place] <= threshold).mean())
    J = recomputed.jacobian(recomputed.last, layer, int(recomputed.points[0]))
    alignment = (np.abs(J).max(axis=1) / np.linalg.norm(J, axis=1)).mean()
    assert recomputed.row(layer, 0, "all", "axis_alignment", int(recomputed.points[0]))["value"] == pytest.approx(
        alignment, rel=1e-12
    )


@pytest.mark.parametrize("layer", ["hidden1", "hidden2"])
def test_rotation_ratio_within_its_sampling_error(recomputed: Recomputed, layer: str) -> None:
    point = int(recomputed.points[0])
    J = recomputed.jacobian(recomputed.last, layer, point)
    rng = np.random.default_rng(1)
    rotated = []
    for _ in range(60):
        q, r = np.linalg.qr(rng.normal(size=(len(J), len(J))))
        rotated.append(minors_2((q * np.sign(np.diag(r))) @ J).sum())
    mean, error = np.mean(rotated), np.std(rotated, ddof=1) / np.sqrt(len(rotated))
    exact = recomputed.row(layer, 2, "all", "rr_pr", point)["value"] * minors_2(J).sum()
    assert abs(mean - exact) < 5 * error


def test_layer_scores(recomputed: Recomputed) -> None:
    some = choose_points(len(recomputed.data.test_labels), MEASURE["samples"])
    with torch.no_grad():
        A = recomputed.nets[recomputed.last].get_submodule("hidden1")(recomputed.inputs(some)).numpy()
    Y = np.eye(10)[recomputed.data.test_labels[some]]
    H = np.eye(len(some)) - 1 / len(some)
    K, L = H @ A @ A.T @ H, H @ Y @ Y.T @ H
    alignment = (K * L).sum() / (np.linalg.norm(K) * np.linalg.norm(L))
    assert recomputed.row("hidden1", 0, "all", "kernel_alignment", -1)["value"] == pytest.approx(alignment, rel=1e-9)


def test_accuracy_is_that_of_the_stored_weights(recomputed: Recomputed) -> None:
    everything = np.arange(len(recomputed.data.test_labels))
    with torch.no_grad():
        guesses = recomputed.nets[recomputed.last](recomputed.inputs(everything)).argmax(dim=1).numpy()
    assert recomputed.table["accuracy"].iloc[0] == pytest.approx((guesses == recomputed.data.test_labels).mean(), abs=1e-12)


# -- again, elsewhere, interrupted -----------------------------------------------------------------------------------------------


def digests(folder: Path) -> dict[str, str]:
    files = [path for path in folder.rglob("*") if path.suffix in (".safetensors", ".parquet")]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_a_second_time_uses_finished_runs_and_mends_damage(study: Outcome, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    shutil.copytree(study.folder, folder)
    lost, damaged = study.runs[0], study.runs[5]
    shutil.rmtree(folder / "runs" / lost)
    weights = folder / "runs" / damaged / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    kept = {run: (folder / "runs" / run / "manifest.json").stat().st_mtime_ns for run in study.runs if run not in (lost, damaged)}
    events: list[dict[str, Any]] = []
    again = run_study(small_study(), folder, executor=Here(), on_event=events.append, pictures=False)
    assert {event["run"] for event in events if event["kind"] == "run"} == {lost, damaged}
    assert kept == {run: (folder / "runs" / run / "manifest.json").stat().st_mtime_ns for run in kept}
    # One worker trains these seeds without the others: not a bit may differ.
    assert digests(folder / "runs") == digests(study.folder / "runs")
    assert [claim.as_json() for claim in again.claims] == [claim.as_json() for claim in study.claims]


def test_another_study_is_refused_and_left_alone(study: Outcome) -> None:
    before = digests(study.folder / "runs")
    with pytest.raises(OutputError, match="holds another study"):
        run_study(small_study(seeds=3), study.folder, executor=Here())
    assert digests(study.folder / "runs") == before


def test_settings_that_do_not_fit_the_data(tmp_path: Path) -> None:
    for changes, message in (
        ({"batch_size": 5000}, "1442 training images"),
        ({"measure": {"points": 999}}, "355 test images"),
    ):
        with pytest.raises(InputError, match=message):
            run_study(small_study(**changes), tmp_path / "out")
    assert not (tmp_path / "out").exists()


class Stumbling(Here):
    """Runs all tasks but the first, which ends as if its worker had died."""

    def run(self, tasks: Sequence[Any], work: Work, on_event: OnEvent) -> list[Failure]:
        return [Failure(tasks[0], "a worker process died", "where it died"), *super().run(tasks[1:], work, on_event)]


def test_a_failing_run_is_named_and_the_others_are_kept(tmp_path: Path) -> None:
    settings = small_study(widths=(4, 5), trainings=["standard"], seeds=1, epochs=1, measure={"k": [2], "points": 3})
    named = r"width 5, standard, seed 0 \(standard-5x5-seed0-\w+\)"
    message = rf"1 run failed, the first {named}: a worker process died; finished runs are kept"
    with pytest.raises(RunsFailed, match=message):
        run_study(settings, tmp_path / "out", executor=Stumbling())
    (kept,) = (tmp_path / "out" / "runs").iterdir()
    assert kept.name.startswith("standard-4x4-seed0")
    assert not (tmp_path / "out" / "report.html").exists()


def test_images_need_not_be_square(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    images = rng.random((120, 5, 9)).astype(np.float32)
    labels = (images.mean(axis=(1, 2)) > 0.5).astype(np.int64)
    (tmp_path / "data").mkdir()
    np.savez(tmp_path / "data" / "train.npz", images=images[:80], labels=labels[:80])
    np.savez(tmp_path / "data" / "test.npz", images=images[80:], labels=labels[80:])
    settings = small_study(
        data=str(tmp_path / "data"),
        widths=(4,),
        seeds=1,
        epochs=1,
        batch_size=16,
        trainings=["augmented"],
        measure=FEW | {"samples": 40, "unit_points": 40},
    )
    outcome = run_study(settings, tmp_path / "out", executor=Here(), pictures=False)
    results = pd.read_parquet(outcome.folder / "results.parquet")
    selections = {str(name) for name in results["selection"].unique()}
    assert {"ball(2.25)", "ball(9)", "apart(4.5)"} <= selections
