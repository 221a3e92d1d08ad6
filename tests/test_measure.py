"""``kagscope.measure``: its table against brute force, baselines, inputs, files, sentences."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import kagscope as kag
import layer_models as zoo
from kagscope.base.errors import DataError
from kagscope.loading.weights import save_weights
from kagscope.measuring.compare import compare
from kagscope.measuring.layer_minors import LayerMinors
from kagscope.measuring.observe import choose_points, observe
from kagscope.measuring.spec import MeasureSpec
from kagscope.tables.schema import SCORE_COLUMNS
from layer_models import trained, values

COLUMNS = list(SCORE_COLUMNS)
ATTRIBUTES = {"pr": "participation_ratio", "ipr": "ipr", "kl_uniform": "kl_uniform", "effective_minors": "effective_minors"}


# -- against brute force ---------------------------------------------------------------------------------------------------------

MODELS: dict[str, tuple[Callable[[], nn.Module], Callable[[], Any], str, str, dict[str, Any]]] = {
    "mlp": (zoo.mlp, lambda: zoo.numbers(4, 5), "3", "input", {}),
    "mlp factored": (zoo.mlp, lambda: zoo.numbers(4, 5), "1", "input", {"image_shape": (1, 5)}),
    "cnn": (zoo.cnn, lambda: zoo.numbers(3, 1, 6, 6), "head", "input", {"image_shape": (6, 6)}),
    "block": (zoo.Residual, lambda: zoo.numbers(3, 5), "blocks.1", "block", {}),
    "output": (zoo.mlp, lambda: zoo.numbers(4, 5), "1", "output", {}),
    "cell": (lambda: zoo.Cells(nn.GRUCell), lambda: zoo.numbers(3, 4, 3), "cell#2", "input", {}),
    "tokens": (zoo.encoder, lambda: zoo.numbers(2, 3, 4), "layers.1", "block", {}),
}


@pytest.mark.parametrize("name", MODELS)
def test_table_is_the_minors_of_brute_force_jacobians(name: str) -> None:
    make, inputs, layer, kind, layout = MODELS[name]
    model, x = zoo.seeded(make), inputs()
    selections = ["all", "ball(1)"] if layout else ["all"]
    report = kag.measure(model, x, layers=layer, layer_map=kind, selections=selections, **layout)
    J = zoo.by_autograd(model, x, layer, kind)
    if name == "tokens":
        J = np.stack([J[:, t, :, t] for t in range(J.shape[1])], axis=1).reshape(-1, J.shape[2], J.shape[4])
        assert report.table.columns.tolist() == [*COLUMNS[:4], "token", *COLUMNS[4:]]
        assert values(report, layer, 1, "pr", column="token").tolist() == [0, 1, 2] * 2
        assert values(report, layer, 1, "pr", column="point").tolist() == [0, 0, 0, 1, 1, 1]
    else:
        columns = zoo.layer_function(model, x, layer, kind)[1][0].numel()
        J = J.reshape(len(J), -1, columns)
        assert report.table.columns.tolist() == COLUMNS
        assert values(report, layer, 1, "pr", column="point").tolist() == list(range(len(J)))
    assert not len(values(report, layer, 1, "pr", "ball(1)"))  # single columns are the same in every ball
    for k in (1, 2):
        for selection in selections if k > 1 else ["all"]:
            found = kag.minor_moments(J, k, selection, **layout)
            for score, attribute in ATTRIBUTES.items():
                np.testing.assert_allclose(values(report, layer, k, score, selection), getattr(found, attribute), rtol=1e-8)
            np.testing.assert_allclose(values(report, layer, k, "top", selection), found.top, rtol=1e-8)
            haar = kag.haar_mean_s1(J, k, selection, **layout)
            np.testing.assert_allclose(values(report, layer, k, "rr_pr", selection), haar / found.s1, rtol=1e-8)
    for score in ("axis_alignment", "effective_rank", "stable_rank", "sv_participation"):
        np.testing.assert_allclose(values(report, layer, 0, score), getattr(kag, score)(J), rtol=1e-8)
    np.testing.assert_allclose(values(report, layer, 1, "column_divergence"), kag.column_divergence(J, 1), rtol=1e-8)
    np.testing.assert_allclose(values(report, layer, 1, "zero_rows_exact"), kag.zero_rows(J), atol=1e-12)
    assert (report.table["layer"] == layer).all()
    assert set(report.table["selection"]) <= set(selections)


def test_what_costs_much_is_measured_at_the_first_points_of_the_fixed_order() -> None:
    model, x = zoo.seeded(zoo.mlp), zoo.numbers(9, 5)
    some = {"rotation_points": 3, "divergence_points": 4, "row_points": 5, "triple_points": 6}
    report = kag.measure(model, x, layers="3", k=(1, 2, 3), **some)
    order = choose_points(9)
    for count, (k, score) in {3: (2, "rr_max"), 4: (1, "column_divergence"), 5: (2, "zero_rows_exact"), 6: (3, "pr")}.items():
        assert values(report, "3", k, score, column="point").tolist() == sorted(order[:count]), score
    J = zoo.by_autograd(model, x, "3", "input")
    np.testing.assert_allclose(
        values(report, "3", 1, "column_divergence"), kag.column_divergence(J, 1)[sorted(order[:4])], rtol=1e-8
    )
    assert len(values(report, "3", 1, "zero_rows_exact")) == len(values(report, "3", 2, "pr")) == 9


@pytest.mark.parametrize("layer", ["1", "3"])
def test_rows_count_as_zero_against_the_baseline(layer: str) -> None:
    model, before, x = zoo.seeded(zoo.mlp), zoo.seeded(zoo.mlp, 1), zoo.numbers(4, 5)
    report = kag.measure(model, x, layers=layer, baseline=before)
    J, J0 = zoo.by_autograd(model, x, layer, "input"), zoo.by_autograd(before, x, layer, "input")
    for k in (1, 2):
        limit = float(np.quantile(kag.row_means(J0, k), 0.01))
        np.testing.assert_allclose(values(report, layer, k, "zero_rows"), (kag.row_means(J, k) <= limit).mean(axis=1))
    for column, of in (("baseline", J0), ("value", J)):
        np.testing.assert_allclose(
            values(report, layer, 2, "pr", column=column), kag.minor_moments(of, 2).participation_ratio, rtol=1e-8
        )


@pytest.mark.parametrize(("layer", "share"), [("1", 1.0), ("3", 0.01)], ids=["factored", "sampled"])
def test_where_not_every_minor_is_looked_at(layer: str, share: float) -> None:
    """More minors than may be visited: entropy comes from one pass over W, or is sampled with an honest error."""
    model, x = nn.Sequential(nn.Linear(60, 9), nn.GELU(), nn.Linear(9, 8), nn.GELU(), nn.Linear(8, 2)), zoo.numbers(6, 60)
    J = zoo.by_autograd(model, x, layer, "input")
    found = kag.minor_moments(J, 2)
    table = compare(observe(model, x, MeasureSpec(layers=layer, k=(2,), exact_minors=share * found.count)))
    kl = table[(table["score"] == "kl_uniform") & (table["k"] == 2)]
    if share > 0.5:
        assert kl["exact"].all()
        np.testing.assert_allclose(kl["value"], found.kl_uniform, rtol=1e-8)
    else:
        assert not kl["exact"].any()
        assert (np.abs(kl["value"] - found.kl_uniform) <= 5 * kl["stderr"] + 1e-12).all()
        assert (kl["stderr"] > 0).any()
    pr = table[(table["score"] == "pr") & (table["k"] == 2)]
    np.testing.assert_allclose(pr["value"], found.participation_ratio, rtol=1e-8)


def test_sums_of_a_layer_whose_points_share_one_matrix_are_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    """One pass over W, row pair by row pair, where that costs less than the pairs of columns of every point."""
    net = zoo.seeded(lambda: nn.Sequential(nn.Linear(6, 12), nn.Tanh(), nn.Linear(12, 3)))
    passes: list[frozenset[str]] = []
    factored = LayerMinors._factored_moments

    def counted(self: LayerMinors, form: Any, moments: frozenset[str], group: int) -> Any:
        passes.append(moments)
        return factored(self, form, moments, group)

    monkeypatch.setattr(LayerMinors, "_factored_moments", counted)
    options: dict[str, Any] = {"layers": "1", "k": 2, "scores": ["pr", "ipr", "rr_pr", "kl_uniform"], "progress": False}
    tables = [kag.measure(net, zoo.numbers(5, 6), exact_minors=minors, **options).table for minors in (0, 1e9)]
    few, every = (table[table["score"] != "kl_uniform"].sort_values(["score", "point"]) for table in tables)
    assert passes == [{"s1", "s2", "s4"}]
    assert few["exact"].all()
    assert few["value"].to_numpy() == pytest.approx(every["value"].to_numpy(), rel=1e-10)
    kag.measure(net, zoo.numbers(1, 6), exact_minors=0, **options)  # of one point it would cost more
    assert len(passes) == 1


def test_selections_have_their_canonical_strings() -> None:
    given = [kag.All(), kag.Ball(2.0), "Apart(3)", kag.Shell(1, 2.5), kag.Window((1, 2), 1)]
    report = kag.measure(zoo.seeded(zoo.cnn), zoo.numbers(2, 1, 6, 6), layers="bn", selections=given, image_shape=(6, 6), k=2)
    assert set(report.table["selection"]) == {"all", "ball(2)", "apart(3)", "shell(1,2.5)", "window(1,2,1)"}


def test_every_call_of_a_layer_has_its_own_rows() -> None:
    report = kag.measure(zoo.seeded(lambda: zoo.Cells(nn.LSTMCell)), zoo.numbers(2, 4, 3), layers="cell", k=1)
    assert report.table["layer"].unique().tolist() == [f"cell#{i}" for i in range(4)]
    two = kag.measure(zoo.seeded(lambda: zoo.Cells(nn.LSTMCell)), zoo.numbers(2, 4, 3), layers=["cell#1", "cell#3"], k=1)
    assert two.table["layer"].unique().tolist() == ["cell#1", "cell#3"]
    pd.testing.assert_frame_equal(
        two.table[two.table["layer"] == "cell#3"].astype({"layer": str}).reset_index(drop=True),
        report.table[report.table["layer"] == "cell#3"].astype({"layer": str}).reset_index(drop=True),
        check_categorical=False,
    )


@pytest.mark.parametrize(("kind", "layer"), [("input", "relu"), ("block", "bn")])
def test_train_mode_is_brute_force_within_the_batch(kind: str, layer: str) -> None:
    model, x = zoo.seeded(zoo.cnn), zoo.numbers(4, 1, 6, 6)
    name = "relu#1" if layer == "relu" else layer
    report = kag.measure(model, x, layers=layer, layer_map=kind, mode="train", k=1)
    columns = zoo.layer_function(model, x, name, kind, train=True)[1][0].numel()
    J = zoo.central_differences(model, x, name, kind, train=True).reshape(4, -1, columns)
    J[np.abs(J) < 1e-9] = 0.0  # of rounding in the differences
    np.testing.assert_allclose(values(report, name, 1, "pr"), kag.minor_moments(J, 1).participation_ratio, rtol=1e-5)
    assert any("the other points of the batch held fixed" in sentence for sentence in report.findings)


def test_dropout_is_off_unless_asked_and_then_one_draw() -> None:
    model = zoo.seeded(lambda: nn.Sequential(nn.Linear(5, 30), nn.Tanh(), nn.Dropout(0.5), nn.Linear(30, 4)))
    x = zoo.numbers(3, 5)
    off, on, again, other = (
        kag.measure(model, x, layers="2", k=1, mode=mode, seed=seed)
        for mode, seed in (("eval", 0), ("train", 0), ("train", 0), ("train", 1))
    )
    assert (values(off, "2", 1, "zero_rows_exact") == 0).all()
    share = values(on, "2", 1, "zero_rows_exact")
    assert ((share > 0.1) & (share < 0.9)).all()
    assert np.array_equal(share, values(again, "2", 1, "zero_rows_exact"))
    assert not np.array_equal(values(on, "2", 1, "pr"), values(other, "2", 1, "pr"))
    assert any("one draw" in sentence for sentence in on.findings)


# -- baselines -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layer_map", ["input", "block", "output"])
def test_a_model_against_itself_has_ratio_one(layer_map: str) -> None:
    model, x = trained(), zoo.numbers(12, 5)
    for baseline in (model, model.state_dict()):
        table = kag.measure(model, x, layer_map=layer_map, baseline=baseline, labels=np.arange(12) % 3, k=(1, 2, 3)).table
        defined = table[table["baseline"].notna() & (table["baseline"] != 0)]
        assert len(defined) > 100
        assert (defined["ratio"] == 1).all()
        assert (table["value"].isna() == table["baseline"].isna()).all()


def test_tokens_against_themselves_have_ratio_one() -> None:
    model, x = zoo.seeded(zoo.gpt2), {"input_ids": zoo.words(3, 4)}
    for baseline in (model, model.state_dict()):
        table = kag.measure(model, x, layers="transformer.h.*.mlp.act", layer_map="block", baseline=baseline).table
        defined = table[table["baseline"].notna() & (table["baseline"] != 0)]
        assert (defined["ratio"] == 1).all()


def test_a_baseline_of_a_model_that_holds_a_sparse_matrix() -> None:
    """As graph convolutions do: a sparse tensor has no address by which tied weights could be found."""

    class Convolution(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.act = nn.Linear(4, 5), nn.ReLU()
            self.register_buffer("graph", (torch.eye(4) + torch.eye(4).roll(1, 0)).to_sparse())

        def forward(self, x: Tensor) -> Any:
            return self.act(self.layer(torch.sparse.mm(self.graph, x.mT).mT))

    model, x = zoo.seeded(Convolution), zoo.numbers(3, 4)
    table = kag.measure(model, x, layers="act", k=1, baseline=model.state_dict()).table
    assert (table["ratio"].dropna() == 1).all()
    assert table["ratio"].notna().any()


def test_kinds_of_baselines_agree(tmp_path: Path) -> None:
    model, initial, x = trained(), zoo.seeded(zoo.mlp, 7), zoo.numbers(4, 5)
    save_weights(tmp_path / "weights.safetensors", initial.state_dict())
    kinds = [initial, initial.state_dict(), tmp_path / "weights.safetensors", str(tmp_path / "weights.safetensors")]
    tables = [kag.measure(model, x, baseline=baseline).table for baseline in kinds]
    alone = kag.measure(initial, x).table
    for table in tables:
        pd.testing.assert_frame_equal(table, tables[0])
        pr = table[(table["score"] == "pr") & (table["k"] == 2)]
        expected = alone[(alone["score"] == "pr") & (alone["k"] == 2)]["value"].to_numpy()
        assert np.array_equal(pr["baseline"], expected)
        assert np.array_equal(pr["ratio"], pr["value"] / pr["baseline"])


def test_a_pickle_of_more_than_weights_is_refused(tmp_path: Path) -> None:
    model, x = trained(), zoo.numbers(4, 5)
    torch.save(model.state_dict(), tmp_path / "weights.pt")
    assert (kag.measure(model, x, baseline=tmp_path / "weights.pt").table["ratio"].dropna() == 1).all()
    torch.save(model, tmp_path / "model.pt")
    with pytest.raises(DataError, match=r"refused.*any code"):
        kag.measure(model, x, baseline=tmp_path / "model.pt")


def test_compiled_models_are_measured_as_they_are() -> None:
    model, x = trained(), zoo.numbers(4, 5)
    compiled: Any = torch.compile(model)
    expected = kag.measure(model, x, baseline=model).table
    for baseline in (compiled, compiled.state_dict(), model, model.state_dict()):
        pd.testing.assert_frame_equal(kag.measure(compiled, x, baseline=baseline).table, expected)


class Recomputes(nn.Module):
    """Forgets its activations and computes them again on the way back."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.act, self.second = nn.Linear(30, 6), nn.Tanh(), nn.Linear(6, 6)

    def forward(self, x: Tensor) -> Any:
        return self.second(checkpoint(lambda y: self.act(self.first(y)) ** 2, x, use_reentrant=False))


@pytest.mark.parametrize("frozen", [False, True])
def test_activation_checkpointing_takes_the_weights_of_the_baseline(frozen: bool) -> None:
    model, other = (zoo.seeded(Recomputes, seed).double().requires_grad_(not frozen) for seed in (0, 1))
    x = zoo.numbers(4, 30).double()
    expected = kag.minor_moments(zoo.by_autograd(other, x, "second", "input"), 2).participation_ratio
    for baseline in (other, other.state_dict()):
        report = kag.measure(model, x, layers="second", baseline=baseline)
        np.testing.assert_allclose(values(report, "second", 2, "pr", column="baseline"), expected, rtol=1e-9)


class OwnParameter(nn.Module):
    """A scale that nothing initialises."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.norm, self.scale = nn.Linear(5, 6), nn.LayerNorm(6), nn.Parameter(torch.ones(6))

    def forward(self, x: Tensor) -> Any:
        return torch.tanh(self.norm(self.layer(x)) * self.scale)


def test_reinit_is_the_mean_over_networks_and_says_what_it_kept() -> None:
    model, x = zoo.seeded(OwnParameter), zoo.numbers(4, 5)
    three = kag.measure(model, x, layers="layer", baseline="reinit", baseline_seeds=3)
    single = [kag.measure(model, x, layers="layer", baseline="reinit", baseline_seeds=[seed]) for seed in range(3)]
    each = [values(one, "layer", 2, "pr", column="baseline") for one in single]
    assert len({float(one[0]) for one in each}) == 3
    np.testing.assert_allclose(values(three, "layer", 2, "pr", column="baseline"), np.mean(each, axis=0), rtol=1e-14)
    kept = [sentence for sentence in three.findings if "kept the trained values" in sentence]
    assert len(kept) == 1
    assert "scale" in kept[0]
    assert "layer" not in kept[0].split("kept")[0]
    assert "norm" not in kept[0]
    again = kag.measure(model, x, layers="layer", baseline="reinit", baseline_seeds=3)
    pd.testing.assert_frame_equal(three.table, again.table)
    own = ["layer", "k", "selection", "point", "score", "value"]
    first, every = (one.table[one.table["score"].isin(["pr", "kl_uniform", "effective_rank"])][own] for one in (single[0], three))
    pd.testing.assert_frame_equal(first, every, check_exact=True)


def test_a_baseline_that_is_dead_at_a_point_is_left_out_there() -> None:
    """Of narrow ReLU networks some are zero around a point: their scores are undefined there."""
    model, x = zoo.seeded(lambda: zoo.mlp(2, nn.ReLU)), zoo.numbers(12, 5)
    reports = [kag.measure(model, x, layers="3", k=1, baseline="reinit", baseline_seeds=seeds) for seeds in ([0], [1], [2], 3)]
    each = np.array([values(one, "3", 1, "pr", column="baseline") for one in reports[:3]])
    assert np.isnan(each).any()
    assert not np.isnan(each).all()
    with np.errstate(invalid="ignore"):
        expected = np.nansum(each, axis=0) / (~np.isnan(each)).sum(axis=0)
    np.testing.assert_allclose(values(reports[3], "3", 1, "pr", column="baseline"), expected, rtol=1e-14)
    undefined = reports[3].table["value"].isna()
    assert (undefined == (reports[3].table["reason"].astype(str) != "")).all()


def test_reinit_has_the_distribution_of_the_constructors() -> None:
    from kagscope.measuring.baseline import reinitialise

    model = zoo.seeded(zoo.encoder)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(9.0)
    notes: list[str] = []
    fresh: Any = reinitialise(model, 3, notes)
    assert notes == []
    assert all((parameter == 9).all() for parameter in model.parameters())
    layer = fresh.layers[0]
    assert (layer.self_attn.in_proj_bias == 0).all()
    assert (layer.self_attn.out_proj.bias == 0).all()  # the attention zeroes it after its own child set it
    assert (layer.norm1.weight == 1).all()
    assert layer.linear1.weight.abs().max() <= 0.5  # 1 / sqrt(4)
    assert len(layer.linear1.weight.unique()) == layer.linear1.weight.numel()


@pytest.mark.parametrize("name", ["gpt2", "llama", "bert", "vit"])
def test_reinit_of_hugging_face_models(name: str) -> None:
    from kagscope.measuring.baseline import reinitialise

    model = zoo.seeded({"gpt2": zoo.gpt2, "llama": zoo.llama, "bert": zoo.bert, "vit": zoo.vit}[name])
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(9.0)
    notes: list[str] = []
    fresh = reinitialise(model, 0, notes)
    assert notes == []
    assert all((parameter == 9).all() for parameter in model.parameters())
    for parameter_name, parameter in fresh.named_parameters():
        weight = parameter.detach()
        assert not (weight == 9).any(), parameter_name
        if weight.ndim == 2 and "embed" not in parameter_name:
            assert 0.003 < float(weight.std()) < 0.05, parameter_name  # initializer_range is 0.02


# -- invariances -----------------------------------------------------------------------------------------------------------------

OVER_POINTS = (
    "pr",
    "kl_uniform",
    "ipr",
    "effective_minors",
    "top",
    "near_zero",
    "rr_pr",
    "effective_rank",
    "kl_init",
    "axis_alignment",
)


def test_points_given_twice_change_no_mean() -> None:
    model, x = trained(), zoo.numbers(5, 5)
    once, twice = (
        kag.measure(model, fed, baseline="reinit", baseline_seeds=2).summary() for fed in (x, x.repeat_interleave(2, 0))
    )
    both = once.merge(twice, on=["layer", "k", "selection", "score"], suffixes=("", "_twice"))
    both = both[both["score"].isin(OVER_POINTS)]
    assert set(both["score"]) == set(OVER_POINTS)
    for column in ("value", "baseline", "ratio"):
        np.testing.assert_allclose(both[column], both[f"{column}_twice"], rtol=1e-12)
    assert (both["points_twice"] == 2 * both["points"]).all()


def test_order_of_points_and_size_of_chunks_change_no_row() -> None:
    model, x = trained(), zoo.numbers(9, 5)
    order = np.random.default_rng(0).permutation(9)
    plain = kag.measure(model, x, layers=["1", "3"])
    mixed = kag.measure(model, x[order], layers=["1", "3"], memory_budget=2**20)
    for layer in ("1", "3"):
        for k, score in ((1, "pr"), (2, "pr"), (2, "kl_uniform"), (0, "effective_rank")):
            np.testing.assert_allclose(values(mixed, layer, k, score), values(plain, layer, k, score)[order], rtol=1e-11)


def test_same_seed_same_bits() -> None:
    model, x = zoo.seeded(zoo.mlp), zoo.numbers(4, 5)
    options: dict[str, Any] = {"k": (1, 2, 3), "baseline": "reinit", "max_rows": 3, "seed": 5, "rel_error": 0.1}
    first, second = (kag.measure(model, x, **options) for _ in range(2))
    pd.testing.assert_frame_equal(first.table, second.table, check_exact=True)
    pd.testing.assert_frame_equal(first.curves, second.curves, check_exact=True)
    assert first.findings == second.findings


def test_precision_of_the_model_is_near() -> None:
    model, x = trained(), zoo.numbers(4, 5)
    exact, near = (values(kag.measure(model, x, precision=precision), "3", 2, "pr") for precision in ("float64", "model"))
    np.testing.assert_allclose(near, exact, rtol=1e-4)
    assert not np.array_equal(near, exact)


class Functions(nn.Module):
    """Activations that are functions in the forward pass, no modules."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(5, 4), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.second(torch.relu(self.first(x)))
        return found


def test_a_model_whose_activations_are_functions_is_told_what_was_measured() -> None:
    said = "no activation is a module"
    report = kag.measure(Functions(), zoo.numbers(4, 5))
    assert [one["name"] for one in report.layers] == ["first", "second"]
    assert sum(said in note for note in report.notes) == 1
    assert not any(said in note for note in kag.measure(Functions(), zoo.numbers(4, 5), layers="first").notes)
    assert not any(said in note for note in kag.measure(zoo.mlp(), zoo.numbers(4, 5)).notes)
