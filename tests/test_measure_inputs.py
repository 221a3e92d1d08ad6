"""What ``kagscope.measure`` takes: inputs, labels and layers of every kind, and models that need care."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import kagscope as kag
import layer_models as zoo
from kagscope.base.errors import InputError
from kagscope.jacobians.inputs import as_inputs
from kagscope.loading import load_inputs
from kagscope.measuring.observe import choose_points
from kagscope.scores.of_representations import kernel_alignment
from layer_models import Odd, values


def by_point(report: kag.Report, layer: str, k: int, score: str) -> np.ndarray:
    """A score in the order of the inputs."""
    return values(report, layer, k, score)[np.argsort(values(report, layer, k, score, column="point"))]


def kl(J: Tensor) -> np.ndarray:
    return np.asarray(kag.minor_moments(J.detach().double(), 1).kl_uniform)


# -- inputs ----------------------------------------------------------------------------------------------------------------------


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
    some = kag.measure(model, loaders[0], points=3)
    assert some.provenance["points"] == 3
    assert values(some, "1", 2, "pr", column="point").tolist() == [0, 1, 2]  # of a loader the first ones
    sample = kag.measure(model, x, points=3).table  # of a tensor a fixed sample, whose numbers are those of all
    assert set(sample["point"]) - {-1} == set(choose_points(6)[:3])
    both = sample[sample["point"] >= 0].merge(tables[0], on=["layer", "k", "selection", "point", "score"])
    np.testing.assert_allclose(both["value_x"], both["value_y"], rtol=1e-12)
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
    by_place = kag.measure(model, (x, scale), layers="act", wrt=0)
    by_name = kag.measure(model, {"x": x, "scale": scale}, layers="act", wrt="x")
    pd.testing.assert_frame_equal(by_place.table, by_name.table)
    z = (model.layer(x) * scale).detach().double()
    J = ((1 - torch.tanh(z) ** 2) * scale.double())[:, :, None] * model.layer.weight.detach().double()
    expected = kag.minor_moments(J.numpy(), 2).participation_ratio
    np.testing.assert_allclose(by_point(by_place, "act", 2, "pr"), expected, rtol=1e-6)
    one = kag.measure(model, (x, scale[:1]), layers="act")  # a first dimension of 1 is shared by all points
    assert one.provenance["points"] == 4
    given = {"x": x, "scale": scale, "shift": torch.ones(4)[None]}
    shifted = kag.measure(model, given, layers="act", points=2, wrt="x")
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
    fewer = kag.measure(model, x, labels=labels, points=12)  # at all inputs, whatever the points of the Jacobians
    assert values(fewer, "1", 0, "kernel_alignment") == pytest.approx(expected, rel=1e-9)
    some = choose_points(20)[:11]
    half = kernel_alignment(model[:2].double()(x[some].double()).detach().numpy(), labels[some])
    model.float()
    sampled = kag.measure(model, x, labels=labels, samples=11)
    assert values(sampled, "1", 0, "kernel_alignment") == pytest.approx(half, rel=1e-9)
    assert len(values(kag.measure(model, x), "1", 0, "kernel_alignment")) == 0


def test_integers_have_block_and_output_maps() -> None:
    model, ids = zoo.seeded(zoo.gpt2), {"input_ids": zoo.words(2, 3)}
    for layer_map in ("block", "output"):
        report = kag.measure(model, ids, layers="transformer.h.1.mlp", layer_map=layer_map, tokens=2)
        assert sorted(set(report.table["token"])) in ([-1, 0, 2], [0, 2])
    with pytest.raises(InputError, match="inputs_embeds"):
        kag.measure(model, ids, layers="transformer.h.1.mlp")


# -- which input, and what of a loader -------------------------------------------------------------------------------------------


class Masked(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer, self.act = nn.Linear(5, 4), nn.Tanh()

    def forward(self, mask: Tensor, x: Tensor, shift: float = 0.0) -> Any:
        return self.act(self.layer(x * mask) + shift)


@pytest.mark.parametrize(
    ("inputs", "wrt", "said", "by_mask"),
    [
        ("mapping", "x", "x", False),
        ("mapping", "mask", "mask", True),
        ("mapping", 1, 1, False),
        ("tuple", 1, 1, False),
        ("tuple", "x", "x", False),
        ("tuple", 0, 0, True),
        ("list", "mask", "mask", True),
        ("integers", None, "x", False),
    ],
)
def test_wrt_chooses_the_input_and_the_report_says_it(inputs: str, wrt: Any, said: Any, by_mask: bool) -> None:
    model, mask, x = zoo.seeded(Masked), zoo.numbers(4, 5, seed=2).abs(), zoo.numbers(4, 5)
    mask = mask.mul(10).long() + 1 if inputs == "integers" else mask
    given: Any = {"mapping": {"mask": mask, "x": x}, "list": [mask, x]}.get(inputs, (mask, x))
    report = kag.measure(model, given, layers="act", k=1, wrt=wrt)
    slope = 1 - torch.tanh(model.layer(x * mask)) ** 2
    J = slope[:, :, None] * model.layer.weight * (x if by_mask else mask)[:, None, :]
    np.testing.assert_allclose(by_point(report, "act", 1, "kl_uniform"), kl(J), rtol=1e-5)
    assert report.layers[0]["wrt"] == said


def test_the_report_always_says_which_input() -> None:
    model, x = zoo.seeded(zoo.mlp), zoo.numbers(4, 5)
    for layer_map, said in (("input", "input"), ("block", "input of 3"), ("output", "3")):
        assert kag.measure(model, x, layers="3", layer_map=layer_map, k=1).layers[0]["wrt"] == said
    pixels = {"pixel_values": zoo.numbers(2, 1, 8, 8)}
    layer = next(name for name, _ in zoo.vit().named_modules() if name.endswith("layers.0.mlp.activation_fn"))
    assert kag.measure(zoo.seeded(zoo.vit), pixels, layers=layer, k=1, tokens=1).layers[0]["wrt"] == "pixel_values"


class OptionalScale(nn.Module):
    """Would take targets for a scale."""

    def __init__(self, required: bool = False) -> None:
        super().__init__()
        self.layer, self.act = nn.Linear(5, 4), nn.Tanh()

    def forward(self, x: Tensor, scale: Tensor | None = None) -> Any:
        h = self.layer(x)
        return self.act(h if scale is None else h * scale.reshape(-1, 1))


TARGETS: dict[str, tuple[Tensor, ...]] = {
    "floats": (torch.rand(6),),
    "a column of floats": (torch.rand(6, 1),),
    "a column of integers": (torch.arange(6)[:, None] % 2,),
    "one-hot": (torch.eye(6),),
    "label and index": (torch.arange(6) % 2, torch.arange(6)),
    "label": (torch.arange(6) % 2,),
}


@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.parametrize("wrap", [lambda model: model, nn.DataParallel, lambda model: torch.compile(model, backend="eager")])
def test_targets_of_a_loader_are_not_fed(name: str, wrap: Any) -> None:
    model, x = zoo.seeded(OptionalScale), zoo.numbers(6, 5)
    loader = DataLoader(TensorDataset(x, *TARGETS[name]), batch_size=4)
    report = kag.measure(wrap(model), loader, layers="act", k=1)
    pd.testing.assert_frame_equal(
        report.table.query("score != 'kernel_alignment'").reset_index(drop=True),
        kag.measure(model, x, layers="act", k=1).table.reset_index(drop=True),
        check_categorical=False,
    )
    left_out = [note for note in report.notes if "left out" in note]
    assert len(left_out) == (name not in ("label", "a column of integers"))
    assert all("the first 1 were fed" in note for note in left_out)


def test_a_loader_feeds_as_many_elements_as_forward_requires() -> None:
    model, mask, x = zoo.seeded(Masked), zoo.numbers(6, 5, seed=2).abs(), zoo.numbers(6, 5)
    whole = kag.measure(model, (mask, x), layers="act", k=1, wrt="x").table
    for targets in ((), (torch.arange(6),), (torch.rand(6), torch.arange(6))):
        loader = DataLoader(TensorDataset(mask, x, *targets), batch_size=4)
        found = kag.measure(model, loader, layers="act", k=1, wrt="x").table.query("score != 'kernel_alignment'")
        pd.testing.assert_frame_equal(found.reset_index(drop=True), whole, check_categorical=False)
    pairs = iter([((mask[:4], x[:4]), torch.rand(4)), ((mask[4:], x[4:]), torch.rand(2))])
    pd.testing.assert_frame_equal(kag.measure(model, pairs, layers="act", k=1, wrt="x").table, whole)
    with pytest.raises(InputError, match="'mask' or wrt='x'"):  # given directly it is fed whole
        kag.measure(model, (mask, x), layers="act", k=1)


def test_what_a_loader_gives_for_all_points_of_a_batch() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.act = nn.Linear(5, 4), nn.Tanh()

        def forward(self, x: Tensor, scale: Any) -> Any:
            return self.act(self.layer(x) * scale)

    model, x = zoo.seeded(Scaled), zoo.numbers(6, 5)
    expected = values(kag.measure(model, {"x": x, "scale": 2.0}, layers="act", k=1), "act", 1, "kl_uniform")

    def batches(*scales: Any) -> Any:
        return ({"x": part, "scale": scale} for part, scale in zip(x.split(2), scales, strict=True))

    for scale in (2.0, torch.tensor(2.0), torch.full((1, 4), 2.0)):
        report = kag.measure(model, batches(scale, scale, scale), layers="act", k=1, wrt="x")
        np.testing.assert_allclose(values(report, "act", 1, "kl_uniform"), expected, rtol=1e-12)
    for others in ((2.0, 2.0, 3.0), tuple(map(torch.tensor, (2.0, 2.0, 3.0)))):
        with pytest.raises(InputError, match="batches differ in input 'scale'"):
            kag.measure(model, batches(*others), layers="act", k=1, wrt="x")


class Recurrent(nn.Module):
    """Takes its state as a tuple or a dictionary."""

    def __init__(self) -> None:
        super().__init__()
        self.cell, self.act = nn.LSTMCell(5, 4), nn.Tanh()

    def forward(self, x: Tensor, state: Any) -> Any:
        return self.act(self.cell(x, tuple(state.values()) if isinstance(state, dict) else state)[0])


def test_tensors_within_arguments_go_with_their_points() -> None:
    model, x = zoo.seeded(Recurrent), zoo.numbers(6, 5)
    h, c = zoo.numbers(6, 4, seed=1), zoo.numbers(6, 4, seed=2)
    double = copy.deepcopy(model).double()
    states = zip(h.double()[:, None], c.double()[:, None], strict=True)
    expected = [
        kl(torch.autograd.functional.jacobian(lambda z, s=state: double(z, s), one[None].double()).reshape(4, 5))
        for one, state in zip(x, states, strict=True)
    ]
    for state in ((h, c), {"h": h, "c": c}, [h.numpy(), c.numpy()]):
        report = kag.measure(model, {"x": x, "state": state}, layers="act", k=1)
        np.testing.assert_allclose(by_point(report, "act", 1, "kl_uniform"), expected, rtol=1e-9)
        assert report.layers[0]["wrt"] == "x"


class Attends(nn.Module):
    """Takes a mask (tokens, tokens) that all points share, or one for each of them."""

    def __init__(self, own: bool) -> None:
        super().__init__()
        self.own, self.act = own, nn.Tanh()
        self.query, self.attention = nn.Linear(6, 6), nn.MultiheadAttention(6, 2, batch_first=True)

    def forward(self, x: Tensor, mask: Tensor) -> Any:
        h = self.query(x)
        if self.own:
            return self.act((h @ x.mT + mask).softmax(-1) @ x)
        return self.act(self.attention(h, h, h, attn_mask=mask)[0])


@pytest.mark.parametrize("own", [True, False])
def test_a_mask_of_all_points_is_not_taken_apart(own: bool) -> None:
    model, mask = zoo.seeded(lambda: Attends(own)), torch.triu(torch.full((4, 4), -1e4), 1)
    for points, said in ((4, "'mask' \\(4, 4\\) is the same for all points"), (3, "number of points")):
        with pytest.raises(InputError, match=said):
            kag.measure(model, {"x": zoo.numbers(points, 4, 6), "mask": mask}, layers="act", k=1, wrt="x")
    if own:
        x = zoo.numbers(4, 4, 6)
        report = kag.measure(model, {"x": x, "mask": mask[None]}, layers="act", k=1, wrt="x")
        assert not any("alone" in sentence for sentence in report.findings)


def test_inputs_are_made_once() -> None:
    made = as_inputs((zoo.numbers(4, 5), zoo.numbers(4, 5, seed=2)))
    assert as_inputs(made) is made
    model = zoo.seeded(Masked)
    first = kag.measure(model, made, layers="act", k=1, wrt="x").table
    pd.testing.assert_frame_equal(first, kag.measure(model, made.args, layers="act", k=1, wrt="x").table)


@pytest.mark.parametrize(("scale", "noted"), [(255.0, True), (180.0, True), (1.0, False), (300.0, False), (50.0, False)])
def test_images_that_were_not_divided_by_255_are_noted(scale: float, noted: bool) -> None:
    model = zoo.seeded(lambda: nn.Sequential(nn.Flatten(), nn.Linear(36, 4), nn.ReLU()))
    x = torch.rand(4, 1, 6, 6, generator=torch.Generator().manual_seed(0))
    x = x / x.max() * scale
    notes = kag.measure(model, x, layers="2", k=1).notes
    assert any("divided by 255" in note for note in notes) == noted
    assert not any("divided by 255" in note for note in kag.measure(model, x - x.mean(), layers="2", k=1).notes)


def test_infinite_inputs_that_leave_jacobians_finite_are_noted() -> None:
    model, x = zoo.seeded(lambda: nn.Sequential(nn.Hardtanh(), nn.Linear(5, 4), nn.Tanh())), zoo.numbers(4, 5)
    x[2, 1] = torch.inf
    assert any("infinite at 1 of 4 points, such as 2" in sentence for sentence in kag.measure(model, x, k=1).findings)
    x[2, 1] = torch.nan
    with pytest.raises(InputError, match=r"input 2 .*NaN or infinite"):
        kag.measure(model, x, k=1)


# -- layers ----------------------------------------------------------------------------------------------------------------------


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


def test_a_module_with_two_names_is_measured_once() -> None:
    layer, act = nn.Linear(5, 5), nn.Tanh()
    model, x = nn.Sequential(layer, act, layer, act), zoo.numbers(3, 5)
    for layers in (None, nn.Tanh, "*"):
        names = kag.measure(model, x, layers=layers, k=1).table["layer"].unique().tolist()
        assert [name for name in names if name in ("1#0", "1#1", "3#0", "3#1")] == ["1#0", "1#1"]
    assert kag.measure(model, x, layers="3#1", k=1).table["layer"].unique().tolist() == ["3#1"]


def test_layers_of_which_rows_are_drawn_and_it_is_said() -> None:
    model, x = zoo.seeded(lambda: zoo.mlp(40)), zoo.numbers(3, 5)
    report = kag.measure(model, x, layers="1", max_rows=10, baseline=model)
    assert 4 <= report.layers[0]["rows"] <= 10
    assert any("of its 40 rows" in sentence for sentence in report.findings)
    assert (report.table["ratio"].dropna() == 1).all()
    told = report.table[~report.table["score"].isin(["column_subsets"])]
    assert not told["exact"].any()  # a part is not the whole
    assert told["stderr"].isna().all()  # and of fewer than 16 groups nobody knows how far from it


def test_routes_are_said() -> None:
    model = zoo.seeded(lambda: nn.Sequential(nn.Linear(5, 40), nn.Tanh(), nn.Linear(40, 3), nn.Linear(3, 60)))
    report = kag.measure(model, zoo.numbers(3, 5), layers=["1", "2", "3"], k=1)
    assert [one["route"] for one in report.layers] == ["factored", "reverse mode", "forward mode"]


def less_the_mean(z: Tensor) -> Tensor:
    return z - z.mean(0) * (len(z) > 1)


def by_the_sum(z: Tensor) -> Tensor:
    """The whole batch takes the branch that most of its points would take alone."""
    return z.sin() if z.sum() > 0 else 3 * z


@pytest.mark.parametrize("mix", [less_the_mean, by_the_sum])
def test_points_that_mix_within_a_batch_are_measured_alone(mix: Callable[[Tensor], Tensor]) -> None:
    class Mixes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.act = nn.Linear(5, 4), nn.Tanh()

        def forward(self, x: Tensor) -> Any:
            return self.act(mix(self.layer(x)))

    model, x = zoo.seeded(Mixes), zoo.numbers(4, 5)
    assert len({bool(model.layer(one).sum() > 0) for one in x}) == 2
    report = kag.measure(model, x, layers="act")
    alone = pd.concat([kag.measure(model, x[i : i + 1], layers="act").table.assign(point=i) for i in range(4)])
    for score in ("pr", "kl_uniform"):
        expected = alone[(alone["score"] == score) & (alone["k"] == 2)]["value"]
        np.testing.assert_allclose(by_point(report, "act", 2, score), expected, rtol=1e-11)
    assert any("measured alone" in sentence for sentence in report.findings)


@dataclasses.dataclass
class Answer:
    """What a model may return that is no tensor."""

    logits: Tensor


RETURNED: dict[str, Callable[[Tensor, Tensor], Any]] = {
    "no mixing": lambda logits, mixed: logits,
    "a data class": lambda logits, mixed: Answer(mixed),
    "nested": lambda logits, mixed: ((logits, mixed),),
    "a loss": lambda logits, mixed: mixed.sum(),
    "nothing": lambda logits, mixed: None,
    "one number of all": lambda logits, mixed: mixed.sum()[None],
}


@pytest.mark.parametrize("returned", RETURNED)
def test_points_that_mix_at_a_layer_alone_are_measured_alone(returned: str) -> None:
    """Whatever the model returns: another output, or nothing that shows it."""

    class Side(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.side, self.head = nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Any:
            h = self.layer(x)
            return RETURNED[returned](self.head(h), self.side(less_the_mean(h)))

    model, x = zoo.seeded(Side), zoo.numbers(4, 5)
    report = kag.measure(model, x, layers="side", k=1)
    expected = [kl(torch.autograd.functional.jacobian(lambda z: torch.tanh(model.layer(z)), one)) for one in x]
    np.testing.assert_allclose(by_point(report, "side", 1, "kl_uniform"), expected, rtol=1e-6)
    assert any("measured alone" in sentence for sentence in report.findings)


def test_points_that_mix_in_a_large_batch_alone_are_measured_alone() -> None:
    """An expert that takes half of a batch at most: among the first eight points, none is left out."""

    class Capacity(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.act = nn.Linear(5, 4), nn.Tanh()

        def forward(self, x: Tensor) -> Any:
            taken = (x[:, 0] > 0).nonzero()[: max(1, len(x) // 2), 0]
            return self.act(self.layer(x).index_add(0, taken, x[taken, :4].sin()))

    model, x = zoo.seeded(Capacity), zoo.numbers(20, 5)
    x[:, 0] = 1.0
    x[choose_points(20)[:8:2], 0] = -1.0
    report = kag.measure(model, x, layers="act", k=1)
    expected = [kl(torch.autograd.functional.jacobian(lambda z: model(z[None])[0], one)) for one in x]
    np.testing.assert_allclose(by_point(report, "act", 1, "kl_uniform"), expected, rtol=1e-6)
    assert sum("measured alone" in note for note in report.notes) == 1


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


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_inputs_of_another_precision_than_the_model_are_cast_with_a_note(dtype: torch.dtype) -> None:
    """With precision="model" too, where arrays are float64 as NumPy makes them; and refused if that is not why it fails."""
    model, x = zoo.seeded(zoo.mlp).to(dtype), zoo.numbers(3, 5).to(dtype)
    wide = x.double().numpy()
    report, plain = (kag.measure(model, one, layers="1", k=1, precision="model") for one in (wide, x))
    assert report.table.equals(plain.table)
    name = str(dtype).removeprefix("torch.")
    assert [note for note in report.notes if "float64" in note and name in note]
    assert not plain.notes
    penalties = [kag.GeometryPenalty(model, ["1"])(one) for one in (wide, x)]
    assert torch.equal(*penalties)
    with pytest.raises(InputError, match=r"\(3, 4\)"):
        kag.measure(model, wide[:, :4], layers="1", precision="model")


def test_inputs_of_eight_bits(tmp_path: Path) -> None:
    """Which PyTorch can neither compare nor test for being finite."""
    model, x = zoo.seeded(zoo.mlp), zoo.numbers(20, 5).to(torch.float8_e4m3fn)
    tables = [kag.measure(model, one, layers="1", k=1, points=3).table for one in (x, x.float())]
    assert tables[0].equals(tables[1])
    save_file({"inputs": x}, tmp_path / "x.safetensors")
    assert len(load_inputs(str(tmp_path / "x.safetensors"))) == 20


def test_compiled_parts_run_as_they_are_written() -> None:
    def refuse(graph: Any, inputs: Any) -> Any:
        raise AssertionError("was compiled")

    model, x = zoo.seeded(zoo.mlp), zoo.numbers(3, 5)
    plain = kag.measure(model, x, layers="1").table
    model[1] = torch.compile(model[1], backend=refuse)
    assert kag.measure(model, x, layers="1").table.equals(plain)
    kag.GeometryPenalty(model, ["1"])(x)
    kag.prune(model, x)


def test_layers_beside_a_scripted_part_are_measured() -> None:
    """The whole model was refused, as one that cannot be called, where a pattern or the default met the part's modules."""
    part = torch.jit.script(nn.Sequential(nn.Linear(5, 5), nn.GELU()))
    model = nn.Sequential(nn.Linear(5, 5), part, nn.Linear(5, 3))
    for layers in ("**", None):
        report = kag.measure(model, zoo.numbers(3, 5), layers=layers, k=1)
        measured = {layer["name"]: layer["reason"] for layer in report.layers}
        assert (measured["0"], measured["2"]) == ("", "")
        assert "TorchScript takes no hooks" in measured["1.0"]
    with pytest.raises(kag.InputError, match=r"layer '1' .*TorchScript takes no hooks"):
        kag.measure(model, zoo.numbers(3, 5), layers="1")


def test_names_in_compiled_parts_are_those_without() -> None:
    net, x = zoo.seeded(lambda: nn.Sequential(zoo.mlp(), nn.Linear(3, 2))), zoo.numbers(3, 5)
    before = nn.Sequential(zoo.seeded(zoo.mlp, 1), net[1])
    expected = kag.measure(net, x, layers="0.*", baseline=before, progress=False).table
    part: Any = torch.compile(net[0], backend="eager")
    whole = nn.Sequential(part, net[1])
    compiled: Any = torch.compile(before[0], backend="eager")
    for baseline in (before, before.state_dict(), nn.Sequential(compiled, net[1])):
        for layers in ("0.*", "0._orig_mod.*"):
            found = kag.measure(whole, x, layers=layers, baseline=baseline, progress=False)
            pd.testing.assert_frame_equal(found.table, expected)
            assert not [note for note in found.notes if "architecture" in note]
    assert kag.GeometryPenalty(whole, "0.1", points=3)(x) == kag.GeometryPenalty(net, "0.1", points=3)(x)
    series = kag.measure_series(whole, {0: before.state_dict(), 1: net.state_dict()}, x, layers="0.1", progress=False)
    assert not series.left_out


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
        np.testing.assert_allclose(by_point(report, layer, 1, "pr"), kag.minor_moments(J, 1).participation_ratio, rtol=1e-4)
