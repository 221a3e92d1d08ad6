"""Matrices by name: the same numbers as the engine's, the formats of published lenses, and what bad ones get."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import save_file
from typer.testing import CliRunner

import kagscope as kag
from kagscope.cli import app
from kagscope.loading import load_matrices

GENERATOR = torch.Generator().manual_seed(0)
MATRICES = {f"layer {i}": torch.randn(6, 6, generator=GENERATOR) * torch.linspace(0.1, 1, 6) for i in (2, 3, 10)}
LENS = {
    "J": {i: matrix.half() for i, matrix in zip((2, 3, 10), MATRICES.values(), strict=True)},
    "n_prompts": 8,
    "source_layers": [2, 3, 10],
    "d_model": 6,
}


def _value(table: pd.DataFrame, layer: str, k: int, score: str, column: str = "value") -> float:
    rows = table[(table["layer"] == layer) & (table["k"] == k) & (table["score"] == score) & (table["selection"] == "all")]
    assert len(rows) == 1
    return float(rows[column].iloc[0])


def test_minors_beyond_the_range_have_scores_and_curves() -> None:
    """Of order 2 and 3 of 3e200 times the identity, without a warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scores = ["pr", "rr_pr", "kl_uniform", "near_zero"]
        both = [kag.measure_matrices({"J": scale * np.eye(5)}, k=(1, 2, 3), scores=scores) for scale in (3e200, 1.0)]
        for report in both:
            assert np.isfinite(report.curves["y"]).all()
    values = [one.table[one.table["score"].isin(scores)]["value"] for one in both]
    np.testing.assert_allclose(values[0], values[1], rtol=1e-12)
    shapes = [one.curves[(one.curves["curve"] == "histogram") & (one.curves["k"] == 3)]["y"] for one in both]
    np.testing.assert_allclose(shapes[0], shapes[1])
    assert kag.minor_moments(3e200 * np.eye(3, 4), 3, kag.Subsets([(0, 1, 3)])).s1 == 0


def test_histogram_of_sizes_over_their_mean_by_hand() -> None:
    report = kag.measure_matrices({"J": np.array([[1.0, 2.0, 4.0, 1.0, 2.0, 2.0]])}, k=1, scores=["pr", "near_zero"])
    curves = report.curves
    own = curves[(curves["curve"] == "histogram") & (curves["network"] == "model") & (curves["selection"] == "all")]
    assert own[["x", "y"]].to_numpy().tolist() == [[-np.inf, 0], [-1, 2 / 6], [0, 3 / 6], [1, 1 / 6]]


def test_numbers_are_those_of_the_engine_and_the_baseline_is_the_haar_mean() -> None:
    given = MATRICES | {"wide": torch.randn(3, 9, generator=GENERATOR, dtype=torch.float64)}
    report = kag.measure_matrices(given, k=(1, 2))
    assert [one["name"] for one in report.layers] == list(given)
    assert list(report.table["layer"].unique()) == list(given)
    for name, matrix in given.items():
        for k in (1, 2):
            m = kag.minor_moments(matrix, k)
            rotated = kag.rotation_ratio(matrix, k)
            assert _value(report.table, name, k, "pr") == pytest.approx(float(m.participation_ratio), rel=1e-12)
            assert _value(report.table, name, k, "ipr") == pytest.approx(float(m.ipr), rel=1e-12)
            assert _value(report.table, name, k, "rr_pr") == pytest.approx(float(rotated), rel=1e-12)
            assert _value(report.table, name, k, "pr", "ratio") == pytest.approx(float(rotated), rel=1e-12)
            there = float(m.effective_minors * rotated**2)
            assert _value(report.table, name, k, "effective_minors", "baseline") == pytest.approx(there, rel=1e-12)
    assert report.table["exact"].all()
    for score, lines in (("pr", 2), ("axis_alignment", 1)):  # the baseline's where it is known
        ax = report.plot_depth(score)
        assert [len(container[0].get_xdata()) for container in ax.containers] == [len(given)] * lines
        assert [text.get_text() for text in ax.get_xticklabels()] == list(given)
    codes = {finding.code for finding in report.findings}
    assert "all_exact" in codes
    assert codes.isdisjoint({"few_points", "one_network", "looks_untrained", "layers_above_baseline"})


def test_sums_with_formulas_are_exact_at_any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """What takes longer than one matrix may by itself, such as 4096 x 4096, was sampled."""
    monkeypatch.setattr("kagscope.minors.routes.auto.AUTO_SECONDS", 0.0)
    report = kag.measure_matrices({"wide": np.random.default_rng(0).normal(size=(40, 300))}, progress=False)
    assert report.table["exact"].all()


def test_progress_and_an_estimate_of_what_takes_long(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    kag.measure_matrices(MATRICES, progress=told.append)
    assert told == [f"{name} (6 x 6)" for name in MATRICES]
    monkeypatch.setattr("kagscope.measuring.matrices.layer_seconds", lambda m, n, items, spec: 10.0 * m * n * items)
    monkeypatch.setattr("kagscope.measuring.matrices.threads", lambda: 2)
    told.clear()
    kag.measure_matrices(MATRICES, progress=told.append)
    assert told[0] == "3 matrices, about 9 min"
    assert len(told) == 4


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_entries_of_low_precision_are_taken_as_given(dtype: torch.dtype) -> None:
    low = {name: matrix.to(dtype) for name, matrix in MATRICES.items()}
    found = kag.measure_matrices(low, progress=False).table
    expected = kag.measure_matrices({name: matrix.double() for name, matrix in low.items()}, progress=False).table
    pd.testing.assert_frame_equal(found, expected)


def test_triples_selections_and_pages(tmp_path: Path) -> None:
    J = np.random.default_rng(0).normal(size=(36, 36))
    report = kag.measure_matrices({"J": J}, k=(2, 3), selections=["all", "ball(2)"], image_shape=(6, 6), rel_error=0.05)
    table = report.table
    ball = table[(table["selection"] == "ball(2)") & (table["score"] == "pr") & (table["k"] == 2)]
    expected = kag.minor_moments(J, 2, "ball(2)", image_shape=(6, 6)).participation_ratio
    assert float(ball["value"].iloc[0]) == pytest.approx(float(expected), rel=1e-12)
    triples = table[(table["k"] == 3) & (table["score"] == "pr") & (table["selection"] == "all")].iloc[0]
    direct = kag.minor_moments(J, 3, method="sampled", rel_error=0.02, moments=("s1", "s2")).participation_ratio
    assert float(triples["value"]) == pytest.approx(float(direct), rel=0.1)
    assert report.to_html(tmp_path / "page.html").stat().st_size > 10_000
    again = kag.Report.load(report.save(tmp_path / "saved"))
    pd.testing.assert_frame_equal(again.table, report.table)


def test_findings_are_of_matrices() -> None:
    """Of nearly rank one only where there are minors of order 2."""
    column = np.random.default_rng(0).normal(size=(6, 1))
    near = column @ column.T[:, :5] + 1e-4 * np.random.default_rng(1).normal(size=(6, 5))
    found = kag.measure_matrices({"near": near, "row": column.T}, k=(1, 2), progress=False).findings
    assert [one.numbers["layer"] for one in found if one.code == "almost_rank_one"] == ["near"]
    assert not [one for one in found if "layer" in one.lower() or "jacobian" in one.lower()]


@pytest.mark.parametrize("kind", ["lens.pt", "lens.safetensors", "lens.npz", "flat.pt"])
def test_a_file_from_the_command_line(tmp_path: Path, kind: str) -> None:
    path, out = tmp_path / kind, tmp_path / "out"
    if kind == "lens.pt":
        torch.save(LENS, path)
    elif kind == "flat.pt":
        torch.save({name: matrix.half() for name, matrix in reversed(MATRICES.items())} | {"bias": torch.ones(3)}, path)
    elif kind == "lens.safetensors":
        save_file({name: matrix.half() for name, matrix in MATRICES.items()}, str(path))
    else:
        np.savez(path, **{name: matrix.half().numpy() for name, matrix in MATRICES.items()})  # type: ignore[arg-type]
    result = CliRunner().invoke(app, ["measure-matrices", str(path), "--k", "1,2", "--out", str(out), "--json"])
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert [one["name"] for one in found["layers"]] == ["layer 2", "layer 3", "layer 10"]
    assert found["provenance"].get("n_prompts") == (8 if kind == "lens.pt" else None)
    table = pd.read_parquet(out / "table.parquet")
    for name, matrix in MATRICES.items():
        expected = float(kag.minor_moments(matrix.half(), 2).participation_ratio)
        assert _value(table, name, 2, "pr") == pytest.approx(expected, rel=1e-12)
    assert (out / "report.html").exists()
    shown = CliRunner().invoke(app, ["measure-matrices", str(path), "--k", "2"])
    assert shown.exit_code == 0
    assert "layer 10" in shown.output


def test_what_is_no_matrix_of_numbers_is_left_out_of_an_archive(tmp_path: Path) -> None:
    others = {"names": np.array(["a"]), "spectrum": np.ones((2, 2), complex), "objects": np.array([[None]], object)}
    np.savez(tmp_path / "some.npz", w=np.eye(3), allow_pickle=True, **others)
    found = load_matrices(tmp_path / "some.npz")
    assert list(found.matrices) == ["w"]
    assert set(others) <= set(found.left)
    np.savez(tmp_path / "none.npz", allow_pickle=True, **others)
    with pytest.raises(kag.DataError, match=r"no floating-point matrix .*names"):
        load_matrices(tmp_path / "none.npz")


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ({"J": {}}, "no layer"),
        ({"J": {1: torch.ones(4)}}, "layer|1"),
        ({"J": {1: torch.ones(4, 4)}, "d_model": 5}, "d_model is 5"),
        ({"J": {1: torch.ones(4, 4)}, "d_model": torch.tensor(5)}, "d_model is 5"),
        ({"J": {1: torch.ones(4, 4)}, "d_model": 5.0}, "d_model is 5.0"),
        ({"J": {1: torch.ones(4, 4), 2: torch.ones(4, 4)}, "source_layers": [1, 3]}, "layer 2, 3 in only one of"),
        ({"J": {1: torch.ones(4, 4)}, "source_layers": torch.tensor([2])}, "source_layers"),
        ({"weights": torch.ones(3)}, "no floating-point matrix"),
        ([torch.ones(2, 2)], "list"),
        ({"J": {1: torch.full((4, 4), torch.nan)}}, "NaN"),
        ({"J": {1: torch.eye(4), "layer 1": 2 * torch.eye(4)}}, "several matrices are named layer 1"),
        ({1: torch.eye(4), "1": 2 * torch.eye(4)}, "several matrices are named 1"),
        ({"a": torch.zeros(1).expand(10**6, 10**6)}, "a announces .*holds 1 numbers"),
    ],
)
def test_files_of_other_contents(tmp_path: Path, content: Any, named: str) -> None:
    torch.save(content, tmp_path / "lens.pt")
    with pytest.raises(kag.KagscopeError, match=named):
        kag.measure_matrices(load_matrices(tmp_path / "lens.pt").matrices)
    result = CliRunner().invoke(app, ["measure-matrices", str(tmp_path / "lens.pt")])
    assert result.exit_code in (1, 2)
    assert len(result.output.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("matrices", "options", "named"),
    [
        ({}, {}, "matrices is empty"),
        ({"a": torch.ones(3)}, {}, "matrix 'a' has shape"),
        ({"a": torch.ones(2, 3, 3)}, {}, "matrix 'a' has shape"),
        ({"a": torch.eye(3), "b": torch.eye(3).int()}, {}, "matrix 'b'"),
        ({1: torch.eye(3), "1": 2 * torch.eye(3)}, {}, "1, '1' are not all different"),
        ({"a": torch.full((3, 3), torch.inf)}, {}, "matrix 'a'.*infinite"),
        ({"a": torch.eye(3)}, {"layers": ["1"]}, "layers"),
        ({"a": torch.eye(3)}, {"scores": ["kernel_alignment"]}, "kernel_alignment"),
        ({"a": torch.eye(3)}, {"scores": ["prr"]}, "^(?!.*(prune_change|kl_init)).*did you mean .*pr"),
        ({"a": torch.eye(3)}, {"selections": ["ball(1)"]}, "matrix 'a'.*image_shape"),
    ],
)
def test_bad_input_is_told_before_the_work(matrices: Any, options: dict[str, Any], named: str) -> None:
    with pytest.raises(kag.InputError, match=named):
        kag.measure_matrices(matrices, **options)


@pytest.mark.parametrize("scale", [5e-324, 1e-160, 1e160])
def test_ratios_of_sums_beyond_the_range_are_those_of_sums_within(scale: float) -> None:
    """S1 of 2-minors below 1e-308 keeps few digits or none: rr_pr was 1.49 instead of 1.50, or a warning of NumPy, or NaN."""
    whole = np.random.default_rng(0).integers(-3, 4, size=(4, 5)) * 1.0
    J = whole * scale
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        table = kag.measure_matrices({"J": J}, k=2, progress=False).table.set_index("score")
    for value in (table.loc["rr_pr", "value"], table.loc["pr", "ratio"]):
        assert value == pytest.approx(kag.rotation_ratio(whole, 2), rel=1e-12)
    assert table.loc["pr", "value"] == pytest.approx(kag.minor_moments(J, 2).participation_ratio, rel=1e-12)
