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
from torch.utils.data import DataLoader, TensorDataset

import kagscope as kag
import layer_models as zoo
from kagscope.errors import DataError, InputError, OutputError
from kagscope.models import save_weights
from kagscope.representations import kernel_alignment
from kagscope.schema import SCORE_COLUMNS

COLUMNS = list(SCORE_COLUMNS)
ATTRIBUTES = {"pr": "participation_ratio", "ipr": "ipr", "kl_uniform": "kl_uniform", "effective_minors": "effective_minors"}


def values(report: kag.Report, layer: str, k: int, score: str, selection: str = "all", column: str = "value") -> np.ndarray:
    """A score by point (and token)."""
    t = report.table
    chosen = t[(t["layer"] == layer) & (t["k"] == k) & (t["score"] == score) & (t["selection"] == selection)]
    return chosen[column].to_numpy()


# -- against brute force -----------------------------------------------------------------------------------------------------------

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
    for k in (1, 2):
        for selection in selections:
            found = kag.minor_moments(J, k, selection, **layout)
            for score, attribute in ATTRIBUTES.items():
                np.testing.assert_allclose(values(report, layer, k, score, selection), getattr(found, attribute), rtol=1e-8)
            np.testing.assert_allclose(values(report, layer, k, "top", selection), found.top, rtol=1e-8)
    np.testing.assert_allclose(values(report, layer, 0, "effective_rank"), kag.effective_rank(J), rtol=1e-8)
    np.testing.assert_allclose(values(report, layer, 1, "zero_rows_exact"), kag.zero_rows(J), atol=1e-12)
    assert (report.table["layer"] == layer).all()
    assert set(report.table["selection"]) <= set(selections)


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


# -- baselines ---------------------------------------------------------------------------------------------------------------------


def trained(seed: int = 0) -> Any:
    """A model that is not at its initialisation."""
    model = zoo.seeded(zoo.mlp, seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.5).add_(0.1)
    return model


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


def test_a_pickle_as_baseline_is_refused(tmp_path: Path) -> None:
    torch.save(zoo.mlp().state_dict(), tmp_path / "weights.pt")
    with pytest.raises(DataError, match=r"is a pickle.*safetensors"):
        kag.measure(trained(), zoo.numbers(4, 5), baseline=tmp_path / "weights.pt")


def test_compiled_models_are_measured_as_they_are() -> None:
    model, x = trained(), zoo.numbers(4, 5)
    compiled: Any = torch.compile(model)
    expected = kag.measure(model, x, baseline=model).table
    for baseline in (compiled, compiled.state_dict(), model, model.state_dict()):
        pd.testing.assert_frame_equal(kag.measure(compiled, x, baseline=baseline).table, expected)


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


def test_reinit_has_the_distribution_of_the_constructors() -> None:
    from kagscope.measuring.baseline import reinitialised

    model = zoo.seeded(zoo.encoder)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(9.0)
    notes: list[str] = []
    fresh: Any = reinitialised(model, 3, notes)
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
    from kagscope.measuring.baseline import reinitialised

    model = zoo.seeded({"gpt2": zoo.gpt2, "llama": zoo.llama, "bert": zoo.bert, "vit": zoo.vit}[name])
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(9.0)
    notes: list[str] = []
    fresh = reinitialised(model, 0, notes)
    assert notes == []
    assert all((parameter == 9).all() for parameter in model.parameters())
    for parameter_name, parameter in fresh.named_parameters():
        weight = parameter.detach()
        assert not (weight == 9).any(), parameter_name
        if weight.ndim == 2 and "embed" not in parameter_name:
            assert 0.003 < float(weight.std()) < 0.05, parameter_name  # initializer_range is 0.02


# -- invariances -------------------------------------------------------------------------------------------------------------------

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


# -- inputs ------------------------------------------------------------------------------------------------------------------------


def test_inputs_of_every_kind_give_the_same() -> None:
    model, x = zoo.seeded(zoo.mlp), zoo.numbers(6, 5)
    labels = torch.arange(6)
    loaders: list[Any] = [DataLoader(TensorDataset(x, labels), batch_size=4), DataLoader(TensorDataset(x), batch_size=2)]
    kinds: list[Any] = [
        x,
        x.numpy(),
        (x,),
        [x],
        {"input": x},
        *loaders,
        iter([x[:1], x[1:]]),
        iter([{"input": x, "labels": labels}]),
    ]
    tables = [kag.measure(model, given).table for given in kinds]
    for table in tables:
        pd.testing.assert_frame_equal(table, tables[0])
    assert kag.measure(model, loaders[0], points=3).provenance["points"] == 3
    long = DataLoader(TensorDataset(zoo.numbers(130, 5)), batch_size=32)
    assert kag.measure(model, long, layers="1", k=1).provenance["points"] == 100


class TwoInputs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer, self.act = nn.Linear(5, 4), nn.Tanh()

    def forward(self, x: Tensor, scale: Tensor, *, shift: Tensor | None = None) -> Any:
        return self.act(self.layer(x) * scale + (0 if shift is None else shift))


def test_several_arguments() -> None:
    model, x, scale = zoo.seeded(TwoInputs), zoo.numbers(4, 5), zoo.numbers(4, 4, seed=2)
    by_place = kag.measure(model, (x, scale), layers="act")
    by_name = kag.measure(model, {"x": x, "scale": scale}, layers="act")
    pd.testing.assert_frame_equal(by_place.table, by_name.table)
    z = (model.layer(x) * scale).detach().double()
    J = ((1 - torch.tanh(z) ** 2) * scale.double())[:, :, None] * model.layer.weight.detach().double()
    np.testing.assert_allclose(values(by_place, "act", 2, "pr"), kag.minor_moments(J.numpy(), 2).participation_ratio, rtol=1e-6)
    one = kag.measure(model, (x, scale[:1]), layers="act")  # a first dimension of 1 is shared by all points
    assert one.provenance["points"] == 4
    shifted = kag.measure(model, {"x": x, "scale": scale, "shift": torch.ones(4)[None]}, layers="act", points=2)
    assert shifted.provenance["points"] == 2


def test_labels_give_the_kernel_alignment() -> None:
    model, x = zoo.seeded(zoo.mlp), zoo.numbers(20, 5)
    labels = np.arange(20) % 3
    expected = kernel_alignment(model[:2].double()(x.double()).detach().numpy(), labels)
    model.float()
    loader = DataLoader(TensorDataset(x, torch.from_numpy(labels)), batch_size=8)
    reports = [
        kag.measure(model, x, labels=labels),
        kag.measure(model, x, labels=torch.from_numpy(labels)),
        kag.measure(model, x, labels=labels.tolist(), points=20),
        kag.measure(model, loader),
    ]
    for report in reports:
        assert values(report, "1", 0, "kernel_alignment") == pytest.approx(expected, rel=1e-9)
    fewer = kag.measure(model, x, labels=labels, points=12)
    half = kernel_alignment(model[:2].double()(x[:12].double()).detach().numpy(), labels[:12])
    model.float()
    assert values(fewer, "1", 0, "kernel_alignment") == pytest.approx(half, rel=1e-9)
    assert len(values(kag.measure(model, x), "1", 0, "kernel_alignment")) == 0


def test_integers_have_block_and_output_maps() -> None:
    model, ids = zoo.seeded(zoo.gpt2), {"input_ids": zoo.words(2, 3)}
    for layer_map in ("block", "output"):
        report = kag.measure(model, ids, layers="transformer.h.1.mlp", layer_map=layer_map, tokens=2)
        assert sorted(set(report.table["token"])) in ([-1, 0, 2], [0, 2])
    with pytest.raises(InputError, match="inputs_embeds"):
        kag.measure(model, ids, layers="transformer.h.1.mlp")


# -- layers ------------------------------------------------------------------------------------------------------------------------


class Odd(nn.Module):
    """Layers of all sorts, of which some cannot be measured."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.act, self.spare = nn.Linear(5, 4), nn.ReLU(), nn.Linear(2, 2)
        self.words, self.cut = nn.Embedding(10, 5), Cut()

    def forward(self, x: Tensor) -> Any:
        self.words(torch.arange(3))
        self.cut(x)
        return self.act(self.layer(x))


class Cut(nn.Module):
    def forward(self, x: Tensor) -> Any:
        return x.detach() + 1


@pytest.mark.parametrize("layer_map", ["input", "block", "output"])
def test_every_layer_asked_for_appears(layer_map: str) -> None:
    report = kag.measure(zoo.seeded(Odd), zoo.numbers(4, 5), layers="*", layer_map=layer_map)
    names = ["layer", "act", "spare", "words", "cut"]
    assert [one["name"] for one in report.layers if one["name"]] == names
    assert set(report.table["layer"]) >= set(names)
    assert set(report.skipped) >= {"spare", "words", "cut"}
    assert "never called" in report.skipped["spare"]
    skipped = report.table[report.table["score"] == "skipped"]
    assert set(skipped["layer"]) == set(report.skipped)
    assert all(str(reason).startswith("skipped: ") for reason in skipped["reason"])
    assert skipped["value"].isna().all()
    text = "\n".join(report.findings)
    for name, reason in report.skipped.items():
        assert f"Layer {name} was skipped: {reason}." in text
    assert "spare" in repr(report)


def test_words_on_the_way_are_skipped_where_patterns_meet_them() -> None:
    report = kag.measure(
        zoo.seeded(zoo.gpt2), {"input_ids": zoo.words(2, 3)}, layers="transformer.*", layer_map="block", k=1, tokens=1
    )
    assert {"transformer.wte", "transformer.wpe"} <= set(report.skipped)
    assert "integers" in report.skipped["transformer.wte"]
    assert "transformer.ln_f" not in report.skipped


def test_layers_by_pattern_kind_and_default() -> None:
    model, x = zoo.seeded(zoo.Residual), zoo.numbers(3, 5)
    by = {
        str(layers): kag.measure(model, x, layers=layers, k=1).table["layer"].unique().tolist()
        for layers in ("blocks.*", "blocks.*.2", "**.2", nn.ReLU, None, [nn.LayerNorm, "head"])
    }
    assert by["blocks.*"] == ["blocks.0", "blocks.1"]
    relus = ["blocks.0.2", "blocks.1.2"]
    assert by["blocks.*.2"] == by["**.2"] == by[str(nn.ReLU)] == by["None"] == relus
    assert by[str([nn.LayerNorm, "head"])] == ["blocks.0.0", "blocks.1.0", "head"]


def test_layers_too_large_are_thinned_and_it_is_said() -> None:
    model, x = zoo.seeded(lambda: zoo.mlp(40)), zoo.numbers(3, 5)
    report = kag.measure(model, x, layers="1", max_rows=10, baseline=model)
    assert report.layers[0]["rows"] == 10
    assert any("10 of its 40 rows" in sentence for sentence in report.findings)
    assert (report.table["ratio"].dropna() == 1).all()


def test_routes_are_said() -> None:
    model = zoo.seeded(lambda: nn.Sequential(nn.Linear(5, 40), nn.Tanh(), nn.Linear(40, 3), nn.Linear(3, 60)))
    report = kag.measure(model, zoo.numbers(3, 5), layers=["1", "2", "3"], k=1)
    assert [one["route"] for one in report.layers] == ["factored", "reverse mode", "forward mode"]


def test_points_that_mix_within_a_batch_are_measured_alone() -> None:
    class Mixes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.act = nn.Linear(5, 4), nn.Tanh()

        def forward(self, x: Tensor) -> Any:
            return self.act(self.layer(x) - self.layer(x).mean(0) * (len(x) > 1))

    model, x = zoo.seeded(Mixes), zoo.numbers(4, 5)
    report = kag.measure(model, x, layers="act")
    alone = pd.concat([kag.measure(model, x[i : i + 1], layers="act").table.assign(point=i) for i in range(4)])
    for score in ("pr", "kl_uniform"):
        expected = alone[(alone["score"] == score) & (alone["k"] == 2)]["value"]
        np.testing.assert_allclose(values(report, "act", 2, score), expected, rtol=1e-11)
    assert any("measured alone" in sentence for sentence in report.findings)


def test_models_that_round_inside_are_not_taken_for_mixing() -> None:
    report = kag.measure(
        zoo.seeded(zoo.llama), {"inputs_embeds": zoo.numbers(3, 4, 8)}, layers="model.layers.1.mlp", layer_map="block", k=1
    )
    assert not any("alone" in sentence for sentence in report.findings)
    assert report.layers[0]["route"] != "reverse mode, row by row"


def test_a_model_that_needs_its_own_precision_falls_back_and_says_so() -> None:
    class Single(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.act, self.table = nn.Linear(5, 4), nn.Tanh(), torch.ones(4, 3)

        def forward(self, x: Tensor) -> Any:
            return self.act(self.layer(x)) @ self.table

    report = kag.measure(zoo.seeded(Single), zoo.numbers(3, 5), layers="act")
    assert any("float64 failed" in sentence for sentence in report.findings)
    double = kag.measure(zoo.seeded(lambda: nn.Sequential(*Single().children())), zoo.numbers(3, 5), layers="1")
    np.testing.assert_allclose(values(report, "act", 2, "pr"), values(double, "1", 2, "pr"), rtol=1e-4)


def test_a_model_that_ends_in_single_precision() -> None:
    class Ends(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.act = nn.Linear(5, 4), Float()

        def forward(self, x: Tensor) -> Any:
            return self.act(self.layer(x))

    class Float(nn.Module):
        def forward(self, x: Tensor) -> Any:
            return torch.tanh(x.float() * x.float())

    model, x = zoo.seeded(Ends), zoo.numbers(3, 5)
    for layer_map in ("input", "block", "output"):
        report = kag.measure(model, x, layers="act" if layer_map != "output" else "layer", layer_map=layer_map)
        J = zoo.by_autograd(model, x, "act" if layer_map != "output" else "layer", layer_map)
        layer = report.layers[0]["name"]
        np.testing.assert_allclose(values(report, layer, 1, "pr"), kag.minor_moments(J, 1).participation_ratio, rtol=1e-4)


# -- reports -----------------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def report() -> kag.Report:
    return kag.measure(zoo.seeded(Odd), zoo.numbers(12, 5), layers="*", baseline="reinit", labels=np.arange(12) % 3)


@pytest.fixture(scope="module")
def token_report() -> kag.Report:
    return kag.measure(zoo.seeded(zoo.encoder), zoo.numbers(3, 4, 4), layers="layers.*.linear1", layer_map="block", tokens=(0, 2))


def test_columns_and_dtypes_are_those_of_the_design(report: kag.Report, token_report: kag.Report) -> None:
    assert report.table.columns.tolist() == COLUMNS
    assert token_report.table.columns.tolist() == [*COLUMNS[:4], "token", *COLUMNS[4:]]
    for one in (report, token_report):
        dtypes = {name: str(dtype) for name, dtype in one.table.dtypes.items() if name != "token"}
        assert dtypes == SCORE_COLUMNS
        undefined = one.table["value"].isna()
        assert (one.table.loc[undefined, "reason"].astype(str) != "").all()
        assert (one.table.loc[~undefined, "reason"].astype(str) == "").all()
        assert not one.table.duplicated(
            [c for c in one.table.columns if c not in ("value", "baseline", "ratio", "stderr", "exact")]
        ).any()


def test_save_and_load(tmp_path: Path, report: kag.Report, token_report: kag.Report) -> None:
    for name, one in (("plain", report), ("tokens", token_report)):
        loaded = kag.Report.load(one.save(tmp_path / name))
        pd.testing.assert_frame_equal(loaded.table, one.table)
        pd.testing.assert_frame_equal(loaded.curves, one.curves)
        assert (loaded.layers, loaded.settings, loaded.notes, loaded.provenance) == (
            one.layers,
            one.settings,
            one.notes,
            one.provenance,
        )
        assert loaded.findings == one.findings
        assert repr(loaded) == repr(one)
        one.save(tmp_path / name)  # again into the same folder
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").write_text("mine")
    with pytest.raises(OutputError, match="something else"):
        report.save(tmp_path / "other")
    with pytest.raises(DataError, match="no report"):
        kag.Report.load(tmp_path / "other")
    (tmp_path / "plain" / "table.parquet").write_bytes(b"PAR1")
    with pytest.raises(DataError, match="damaged"):
        kag.Report.load(tmp_path / "plain")


def test_compare(report: kag.Report, token_report: kag.Report) -> None:
    same = report.compare(report)
    assert (same["ratio"].dropna() == 1).all()
    assert len(same[same["ratio"].notna()]) > 10
    model, other, x = zoo.seeded(zoo.mlp), trained(), zoo.numbers(6, 5)
    first, second = (kag.measure(one, x, layers=layers) for one, layers in ((model, ["1", "3"]), (other, ["1"])))
    found = first.compare(second)
    assert set(found["layer"]) == {"1"}
    row = found[(found["score"] == "pr") & (found["k"] == 2)].iloc[0]
    ratios = values(first, "1", 2, "pr") / values(second, "1", 2, "pr")
    assert row["ratio"] == pytest.approx(ratios.mean(), rel=1e-12)
    assert row["ratio_low"] < row["ratio"] < row["ratio_high"]
    assert row["points"] == 6
    assert set(token_report.compare(token_report)["ratio"].dropna()) == {1.0}
    with pytest.raises(InputError, match="nothing in common"):
        first.compare(token_report)


def test_summary_is_the_mean_with_a_t_interval() -> None:
    from scipy import stats

    found = kag.measure(trained(), zoo.numbers(6, 5), layers="3", baseline="reinit", baseline_seeds=2)
    row = found.summary().query("score == 'pr' and k == 2").iloc[0]
    for column in ("value", "baseline", "ratio"):
        sample = values(found, "3", 2, "pr", column=column)
        low, high = stats.t.interval(0.95, 5, sample.mean(), sample.std(ddof=1) / np.sqrt(6))
        assert row[column] == pytest.approx(sample.mean(), rel=1e-12)
        assert (row[f"{column}_low"], row[f"{column}_high"]) == pytest.approx((low, high), rel=1e-9)


def test_findings_say_what_a_reader_must_know(report: kag.Report) -> None:
    text = "\n".join(report.findings)
    assert "was skipped" in text
    assert "Intervals are over data points of one network" in text
    few = kag.measure(zoo.seeded(zoo.mlp), zoo.numbers(1, 5))
    said = "\n".join(few.findings)
    assert "Only 1 data point:" in said
    assert "There is no baseline" in said
    dead = zoo.seeded(lambda: zoo.mlp(6, nn.ReLU))
    with torch.no_grad():
        dead[0].bias[:2] = -1e6
    said = "\n".join(kag.measure(dead, zoo.numbers(12, 5), layers="1", baseline="reinit").findings)
    assert "2 of 6 units of layer 1 are constant around every point." in said or "3 of 6 units" in said


def test_dead_units_are_not_felt_by_the_output() -> None:
    model = zoo.seeded(zoo.mlp)
    with torch.no_grad():
        model[2].weight[:, :3] = 0
    report = kag.measure(model, zoo.numbers(12, 5), layers="1", layer_map="output", baseline=trained())
    assert values(report, "1", 0, "unfelt_units") == [3.0]
    assert any("3 of 6 units of layer 1 are not felt" in sentence for sentence in report.findings)


def test_page_csv_and_notebook(tmp_path: Path, report: kag.Report, token_report: kag.Report) -> None:
    for one in (report, token_report):
        page = one.to_html(tmp_path / "page.html").read_text(encoding="utf-8")
        assert "http" not in page.replace("http://www.w3.org/", "")
        assert "<html" in page
        table = pd.read_csv(one.to_csv(tmp_path / "table.csv"), keep_default_na=False, na_values=["", "nan"])
        assert table.columns.tolist() == one.table.columns.tolist()
        np.testing.assert_allclose(table["value"], one.table["value"], rtol=1e-14)
    assert "spare" in report._repr_html_()


def test_names_are_escaped(tmp_path: Path) -> None:
    evil = "<img src=x onerror=alert(1)>"

    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.add_module(evil, nn.Sequential(nn.Linear(5, 4), nn.ReLU()))

        def forward(self, x: Tensor) -> Any:
            return self._modules[evil](x)  # type: ignore[misc]

    found = kag.measure(zoo.seeded(Named), zoo.numbers(3, 5), baseline="reinit", baseline_seeds=1)
    for text in (found._repr_html_(), found.to_html(tmp_path / "page.html").read_text(encoding="utf-8")):
        assert "<img src=x" not in text
    assert evil in repr(found)
