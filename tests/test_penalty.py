"""The penalty: its value against the engine, its gradient against finite differences, and the training loops it is used in."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import kagscope as kag
import layer_models as zoo
from kagscope.jacobians.structure import outer_diagonal, weight_at
from kagscope.scores import torch_sums
from kagscope.steering.gradients import InputGradientPenalty
from test_jacobian_checks import Equilibrium, WrongBackward
from test_untouched import everything, random_states
from tracked import DATA, LABELS, small_net

BATCH = DATA[:32]


def _log_pr(model: nn.Module, layer: str, points: int, **options: Any) -> float:
    report = kag.measure(model, BATCH[:points], layers=[layer], k=(2,), scores=["pr"], progress=False, **options)
    return float(np.log(report.table["value"][report.table["score"] == "pr"]).mean())


@pytest.mark.parametrize("layer", ["1", "3", "2"])  # diag(d) W; a matrix of its own at every point; affine
def test_value_is_the_mean_log_of_what_measure_says(layer: str) -> None:
    model = small_net()
    penalty = kag.GeometryPenalty(model, [layer], weight=-0.5, points=6)
    term = penalty(BATCH)
    assert term.shape == ()
    assert term.item() == pytest.approx(-0.5 * _log_pr(model, layer, 6), rel=1e-5)
    assert penalty.values[layer] == pytest.approx(-2 * term.item(), rel=1e-6)
    assert penalty.costs[layer].shared == (layer == "1")


@pytest.mark.parametrize("bias", [True, False])
def test_the_weight_of_an_affine_map_is_read_from_its_graph(bias: bool) -> None:
    linear = nn.Linear(12, 5, bias=bias)
    u = torch.rand(4, 3, 4, requires_grad=True)
    for x, found in ((u.flatten(1), True), (2 * u.flatten(1), False), (u.mT.reshape(4, 12), False)):
        h = torch.tanh(linear(x))
        outer = outer_diagonal(h)
        assert outer is not None
        W = weight_at(outer.edge, u)
        assert (W is not None) == found
        if W is not None:
            assert torch.equal(W, linear.weight)
            (gradient,) = torch.autograd.grad(W.square().sum(), [linear.weight])
            assert torch.equal(gradient, 2 * linear.weight)


@pytest.mark.parametrize("score", ["pr", "effective_minors", "rr_pr", "alignment", "jacobian_l1", "jacobian_l2"])
@pytest.mark.parametrize("layer", ["1", "3"])
def test_gradient_agrees_with_finite_differences(score: str, layer: str) -> None:
    model = small_net().double()
    penalty = kag.GeometryPenalty(model, [layer], score, 1.0, 3)
    batch = BATCH.double()
    penalty(batch).backward()
    generator = torch.Generator().manual_seed(0)
    for name, parameter in model.named_parameters():
        if parameter.grad is None:
            assert name.split(".")[0] > layer or (score, name) == ("alignment", "0.bias")
            continue
        step = torch.randn(parameter.shape, generator=generator, dtype=torch.float64) * 1e-6
        with torch.no_grad():
            parameter.add_(step)
            above = penalty(batch).item()
            parameter.sub_(2 * step)
            below = penalty(batch).item()
            parameter.add_(step)
        assert (parameter.grad * step).sum().item() == pytest.approx((above - below) / 2, rel=1e-5, abs=1e-12)


@pytest.mark.parametrize("layer", ["1", "3"])  # diag(d) W; a matrix of its own at every point
@pytest.mark.parametrize(("score", "power"), [("jacobian_l1", 1), ("jacobian_l2", 2)])
def test_norms_are_those_of_the_jacobian_itself(layer: str, score: str, power: int) -> None:
    model = small_net().double()
    part = nn.Sequential(*list(model)[: int(layer) + 1]).eval()
    batch = 1000 * BATCH[:3].double()  # other than scores of minors, norms have units
    linear = model[0]
    assert isinstance(linear, nn.Linear)
    with torch.no_grad():
        linear.weight.mul_(1e-3)
    J = torch.stack([torch.autograd.functional.jacobian(lambda x: part(x[None])[0], x) for x in batch])
    expected = torch.linalg.vector_norm(J.flatten(1), power, dim=1).log().mean().item()
    assert kag.GeometryPenalty(model, [layer], score, 1.0, 3)(batch).item() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("power", [1, 2])
def test_the_gradient_of_the_loss_is_that_of_single_points(power: int) -> None:
    model = small_net().double().eval()
    x = BATCH[:8].double().requires_grad_()
    targets = torch.eye(model(x).shape[1], dtype=torch.float64)[LABELS[:8]]
    found = []
    for i in range(3):
        loss = nn.functional.cross_entropy(model(x)[i], targets[i])
        found.append(torch.autograd.grad(loss, x)[0][i].norm(power).item())
    penalty = InputGradientPenalty(model, f"loss_gradient_l{power}", 0.3, 3)
    assert penalty((x, targets)).item() == pytest.approx(0.3 * np.mean(found), rel=1e-10)
    squared = InputGradientPenalty(model, f"loss_gradient_l{power}", 1.0, 1, squared_error=True)
    (slope,) = torch.autograd.grad((model(x[:1]) - targets[:1]).square().mean(), x)
    assert squared((x, targets)).item() == pytest.approx(slope[0].norm(power).item(), rel=1e-10)


def test_a_negative_weight_is_towards_geometry() -> None:
    reached = {}
    for weight in (-0.3, 0.3):
        model = small_net()
        penalty = kag.GeometryPenalty(model, ["1"], weight=weight)
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        for _ in range(20):
            optimizer.zero_grad()
            (nn.functional.cross_entropy(model(DATA), LABELS) + penalty((DATA, LABELS))).backward()
            optimizer.step()
        reached[weight] = _log_pr(model, "1", 8)
    assert reached[-0.3] > _log_pr(small_net(), "1", 8) > reached[0.3]


def test_drawn_rows_are_unbiased_and_close() -> None:
    W = torch.randn(12, 30, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    d = torch.rand(4, 12, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    task = torch_sums.make_task(W, d=d)
    generator = torch.Generator().manual_seed(2)
    found = torch.stack([_drawn(task, generator) for _ in range(400)])
    exact = task.sums[0]
    error = found.std(0) / math.sqrt(len(found))
    assert bool(((found.mean(0) - exact).abs() < 4 * error).all())
    assert float((found.std(0) / exact).max()) < 0.2


def _drawn(task: torch_sums.Task, generator: torch.Generator) -> Tensor:
    return task.with_row_sample(task.row_pairs[0].draw(16, generator)).sums[0]


@pytest.mark.parametrize("layer", ["1", "3"])
def test_drawn_rows_in_training_and_their_cost(layer: str) -> None:
    model = small_net()
    exact, drawn = (kag.GeometryPenalty(model, [layer], weight=1.0, points=4, rows=rows, seed=1) for rows in (None, 8))
    values = [drawn(BATCH).item() for _ in range(30)]
    assert np.mean(values) == pytest.approx(exact(BATCH).item(), abs=0.1)
    assert len(set(values)) > 1
    assert drawn.costs[layer].steps < exact.costs[layer].steps
    drawn(BATCH).backward()
    again = kag.GeometryPenalty(model, [layer], weight=1.0, points=4, rows=8, seed=1)
    assert [again(BATCH).item() for _ in range(30)] == values


def test_one_call_of_several_pushes_as_hard_on_average() -> None:
    model = small_net()
    every = kag.GeometryPenalty(model, ["1"], weight=0.5, every=3)
    terms = [every(BATCH).item() for _ in range(6)]
    term = kag.GeometryPenalty(model, ["1"], weight=0.5)(BATCH).item()
    assert terms == pytest.approx([3 * term, 0, 0, 3 * term, 0, 0])


def test_the_model_is_left_as_it_was() -> None:
    torch.manual_seed(0)
    dropout = nn.Dropout(0.5).eval()
    model = nn.Sequential(nn.Linear(16, 8), nn.BatchNorm1d(8), nn.GELU(), dropout, nn.Linear(8, 4))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()
    penalty = kag.GeometryPenalty(model, ["2"], points=4)
    assert penalty(BATCH).item() == penalty(BATCH).item()
    assert torch.equal(torch.get_rng_state(), state)
    assert [module.training for module in model] == [True, True, True, False, True]
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name
    with torch.no_grad():
        assert not penalty(BATCH).requires_grad


def mean_log_pr(model: nn.Module, x: Tensor, layer: str, **options: Any) -> float:
    """Of the penalty's value what :func:`kagscope.measure` gives."""
    table = kag.measure(model, x, layers=layer, k=2, scores=["pr"], progress=False, **options).table
    return float(np.log(table["value"][table["score"] == "pr"]).mean())


class Body(nn.Module):
    """Two layers with something between them."""

    def __init__(self, between: Callable[[nn.Module, Tensor], Tensor] = lambda model, h: h) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.act, self.second = nn.Linear(16, 6), nn.Tanh(), nn.Linear(6, 6)
        self.between, self.seen, self.calls = between, [0], 0
        self.register_buffer("mean", torch.ones(6))

    def forward(self, x: Tensor) -> Any:
        return self.act(self.second(self.between(self, self.act(self.first(x)))))


def hooked(model: Any, h: Tensor) -> Tensor:
    if h.requires_grad:
        h.register_hook(lambda grad: grad * torch.arange(1.0, 7.0))
    return h


def writing(model: Any, h: Tensor) -> Tensor:
    model.mean.mul_(0.9).add_(h.detach().mean(0))
    model.seen.append(1)
    model.calls += 1
    torch.rand(1)
    return h


def recomputed(model: Any, h: Tensor) -> Tensor:
    return torch.as_tensor(checkpoint(torch.sin, h, use_reentrant=True))


def _shrink(module: nn.Module, into: Any, out: Any) -> Any:
    return tuple(3 * grad.clamp(-0.1, 0.1) for grad in into)


BETWEEN: dict[str, Callable[[Any, Tensor], Tensor]] = {
    "a hook on a tensor": hooked,
    "writes and draws": writing,
    "checkpointing": recomputed,
}


@pytest.mark.parametrize("name", BETWEEN)
@pytest.mark.parametrize("call", [0, 1])
def test_values_of_models_that_do_more_and_the_models_afterwards(name: str, call: int) -> None:
    model = Body(BETWEEN[name])
    model.act.register_full_backward_hook(_shrink)
    expected = mean_log_pr(model, BATCH[:4], f"act#{call}")
    penalty = kag.GeometryPenalty(model, [f"act#{call}"], weight=1.0, points=4)
    before, states = everything(model), random_states()
    assert penalty(BATCH).item() == pytest.approx(expected, rel=1e-5)
    assert list(penalty.costs) == [f"act#{call}"]
    assert everything(model) == before
    assert random_states() == states
    with torch.inference_mode():
        assert penalty(BATCH.clone()).item() == pytest.approx(expected, rel=1e-5)


def test_every_call_of_a_layer_is_meant() -> None:
    model = Body()
    penalty = kag.GeometryPenalty(model, ["act"], weight=1.0, points=4)
    both = [mean_log_pr(model, BATCH[:4], f"act#{call}") for call in (0, 1)]
    assert penalty(BATCH).item() == pytest.approx(float(np.mean(both)), rel=1e-5)


@pytest.mark.parametrize("kind", ["input", "block"])
def test_a_layer_that_works_in_place(kind: str) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.ELU(inplace=True), nn.Linear(16, 6), nn.ELU(inplace=True))
    expected = mean_log_pr(model, BATCH[:4], "2", layer_map=kind)
    given = BATCH[:4].clone()
    assert kag.GeometryPenalty(model, ["2"], weight=1.0, layer_map=kind)(given).item() == pytest.approx(expected, rel=1e-5)
    assert torch.equal(given, BATCH[:4])


class Patches(nn.Module):
    """One token of an image."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.act = nn.Linear(8, 5), nn.Tanh()

    def forward(self, x: Tensor) -> Any:
        return self.act(self.embed(x.reshape(len(x), 2, 8).sum(1, keepdim=True)))


def test_tokens_are_those_of_measure() -> None:
    torch.manual_seed(0)
    convolution, x = nn.Sequential(nn.Conv1d(4, 4, 3, padding=1), nn.Tanh()), BATCH.reshape(-1, 4, 4)
    for model, layer, fed in ((convolution, "1", x), (Patches(), "act", x)):
        penalty = kag.GeometryPenalty(model, [layer], weight=1.0, points=4)
        assert penalty(fed).item() == pytest.approx(mean_log_pr(model, fed[:4], layer), rel=1e-5)


def test_points_that_are_not_independent_are_refused() -> None:
    for model in (
        Body(lambda model, h: h - h.mean(0)),
        nn.Sequential(nn.Linear(16, 6), nn.BatchNorm1d(6, track_running_stats=False), nn.Tanh()),
    ):
        with pytest.raises(kag.InputError, match="point"):
            kag.GeometryPenalty(model, nn.Tanh)(BATCH)


def test_a_backward_that_is_no_derivative_is_refused() -> None:
    with pytest.raises(kag.InputError, match=r"'act#1'.*WrongBackward is not its derivative"):
        kag.GeometryPenalty(Body(lambda model, h: WrongBackward.apply(h)), "act#1")(BATCH)  # type: ignore[no-untyped-call]


def test_a_layer_that_autograd_finds_no_way_back_from_is_told() -> None:
    with pytest.raises(kag.InputError, match=r"'act#1'.*cannot be differentiated.*inplace"):
        kag.GeometryPenalty(Body(lambda model, h: h.mul_(2)), "act#1")(BATCH)


def test_batches_as_loaders_give_them() -> None:
    model = small_net()
    expected = kag.GeometryPenalty(model, "1")(BATCH)
    classes = torch.arange(len(BATCH))
    for batch in (
        (BATCH, classes), [BATCH, classes.float()], ((BATCH,), classes), ({"input": BATCH}, classes),
        {"input": BATCH, "labels": classes}, (BATCH, torch.arange(99)), BATCH.numpy(),
    ):  # fmt: skip
        assert torch.equal(kag.GeometryPenalty(model, "1")(batch), expected)
    with pytest.raises(kag.InputError, match="cannot be called with these inputs"):
        kag.GeometryPenalty(model, "1")({"pixels": BATCH})


def test_dead_layers_and_single_points_add_nothing() -> None:
    first = nn.Linear(16, 8)
    model = nn.Sequential(first, nn.ReLU(), nn.Linear(8, 4))
    nn.init.constant_(first.bias, -100.0)
    penalty = kag.GeometryPenalty(model, ["1"])
    term = penalty(BATCH[:1])
    term.backward()
    assert term.item() == 0.0
    assert math.isnan(penalty.values["1"])
    assert not any(p.grad is not None and p.grad.abs().max() > 0 for p in model.parameters())


class Integers(nn.Module):
    """A layer that no derivative passes."""

    def forward(self, x: Tensor) -> Tensor:
        return x.round().detach()


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"layers": ["11"]}, "no layer"),
        ({"score": "rr_prr"}, "did you mean rr_pr"),
        ({"weight": math.nan}, "weight"),
        ({"points": 0}, "points"),
        ({"rows": 0}, "rows"),
        ({"every": 0}, "every"),
        ({"rows": 4, "k": 1}, "rows"),
        ({"k": 3}, "k is 3"),
        ({"k": True}, "k is True"),
        ({"seed": "a"}, "seed is 'a'"),
        ({"selection": ["all", "all"]}, "expected one"),
        ({"layer_map": "output"}, "layer_map"),
        ({"selection": "bal(3)"}, "selection"),
    ],
)
def test_bad_arguments_are_told_at_once(options: dict[str, Any], named: str) -> None:
    with pytest.raises(kag.InputError, match=named):
        kag.GeometryPenalty(small_net(), **{"layers": ["1"], "weight": 0.1} | options)


def test_a_layer_that_is_gone_is_told() -> None:
    model = small_net()
    penalty = kag.GeometryPenalty(model, ["3"])
    penalty(BATCH)
    del model[3:]
    with pytest.raises(kag.InputError, match="layer '3': the model does not have it any more"):
        penalty(BATCH)


def test_a_layer_without_a_jacobian_is_told() -> None:
    model = nn.Sequential(nn.Linear(16, 8), Integers(), nn.Linear(8, 4))
    with pytest.raises(kag.InputError, match=r"layer '1'.*no Jacobian"):
        kag.GeometryPenalty(model, ["1"])(BATCH)
    embedding = nn.Sequential(nn.Embedding(20, 8), nn.Flatten(), nn.Linear(16, 4))
    with pytest.raises(kag.InputError, match="float"):
        kag.GeometryPenalty(embedding, ["2"])(torch.ones(4, 2, dtype=torch.long))
    model = small_net()
    nn.init.constant_(next(model.parameters()), math.inf)
    with pytest.raises(kag.InputError, match=r"layer '1'.*NaN or infinite"):
        kag.GeometryPenalty(model, ["1"])(BATCH)


def test_in_lightning(tmp_path: Path) -> None:
    pl = pytest.importorskip("lightning.pytorch")
    from torch.utils.data import DataLoader, TensorDataset

    from lightning_runs import Classifier

    class Steered(Classifier):
        def training_step(self, batch: Any, index: int) -> Tensor:
            self.penalty = getattr(self, "penalty", None) or kag.GeometryPenalty(self, ["net.1"], weight=-0.1, rows=8)
            term = self.penalty(batch)
            self.terms = [*getattr(self, "terms", []), term.item()]
            loss: Tensor = super().training_step(batch, index) + term
            return loss

    model = Steered()
    trainer = pl.Trainer(
        max_epochs=1, accelerator="cpu", logger=False, default_root_dir=str(tmp_path), enable_checkpointing=False,
        enable_model_summary=False, enable_progress_bar=False,
    )  # fmt: skip
    trainer.fit(model, DataLoader(TensorDataset(DATA, LABELS), batch_size=64))
    assert len(model.terms) == 4
    assert all(math.isfinite(term) for term in model.terms)
    assert "penalty" not in "".join(model.state_dict())


def test_in_the_trainer_of_hugging_face(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("accelerate")
    from test_huggingface import MLP, Sentences, tiny_bert

    model = tiny_bert()
    penalty = kag.GeometryPenalty(model, [MLP], weight=-0.1, points=4, layer_map="block")
    terms = []

    class Steered(transformers.Trainer):  # type: ignore[misc, name-defined]
        def compute_loss(self, model: Any, inputs: Any, *args: Any, **options: Any) -> Any:
            term = penalty(inputs)
            terms.append(term.item())
            return super().compute_loss(model, inputs, *args, **options) + term

    args = transformers.TrainingArguments(
        output_dir=str(tmp_path), max_steps=3, per_device_train_batch_size=8, use_cpu=True, report_to=[], disable_tqdm=True,
        save_strategy="no",
    )  # fmt: skip
    Steered(model=model, args=args, train_dataset=Sentences()).train()
    assert len(terms) == 3
    assert len(set(terms)) == 3
    assert penalty.costs[MLP].shared
    assert (penalty.costs[MLP].rows, penalty.costs[MLP].columns) == (12, 8)
    attention = kag.GeometryPenalty(model, ["bert.encoder.layer.0"], points=2, layer_map="block")  # mixes tokens
    attention(Sentences()[0] | {"input_ids": Sentences()[0]["input_ids"][None].repeat(2, 1), "labels": torch.zeros(2).long()})
    assert not attention.costs["bert.encoder.layer.0"].shared


@pytest.mark.parametrize("layer", ["3", "5"])
def test_minors_that_are_rounding_noise_push_nothing(layer: str) -> None:
    """Behind a single live unit Jacobians have rank 1."""
    model = zoo.seeded(
        lambda: nn.Sequential(nn.Linear(6, 2), nn.ReLU(), nn.Linear(2, 5), nn.Tanh(), nn.Linear(5, 5), nn.Tanh())
    ).double()
    model[0].bias.data = torch.tensor([9.0, 0.0], dtype=torch.float64)  # the first is always live
    x = zoo.numbers(24, 6).double()
    live = (model[1](model[0](x)) > 0).sum(1)
    some = x[live == 1][:3]
    penalty = kag.GeometryPenalty(model, [layer], weight=1.0)
    assert not penalty(some).requires_grad or torch.autograd.grad(penalty(some), model[2].weight)[0].abs().max() == 0
    assert np.isnan(penalty.values[layer])
    both = x[live == 2][:1]
    assert float(penalty(torch.cat([some, both])).detach()) == pytest.approx(float(penalty(both).detach()), rel=1e-4)
    assert float(kag.GeometryPenalty(model, [layer], "alignment", weight=1.0)(some).detach()) != 0


@pytest.mark.parametrize(("selection", "score"), [(kag.Ball(0.5), "pr"), (kag.Window((0,), 0.1), "pr"), (kag.Ball(0.5), "rr_pr")])
def test_a_selection_without_columns_for_a_minor_is_refused(selection: kag.Selection, score: str) -> None:
    model = torch.nn.Sequential(torch.nn.Linear(6, 4), torch.nn.Tanh())
    penalty = kag.GeometryPenalty(model, ["1"], score, selection=selection, positions=np.arange(6.0))
    with pytest.raises(kag.InputError, match="wider"):
        penalty(torch.rand(3, 6))


@pytest.mark.slow
def test_a_training_step_that_is_compiled_whole() -> None:
    """Before its first call the penalty was refused inside torch.compile, and traced afterwards."""
    losses = []
    for compiled in (False, True):
        model = small_net()
        penalty = kag.GeometryPenalty(model, layers=["1"], points=4)

        def step(model: nn.Module = model, penalty: kag.GeometryPenalty = penalty) -> Tensor:
            loss: Tensor = nn.functional.cross_entropy(model(DATA[:8]), LABELS[:8]) + penalty(DATA[:8])
            return loss

        run: Callable[[], Tensor] = torch.compile(step, backend="eager") if compiled else step
        gradients = torch.autograd.grad(run(), list(model.parameters()), allow_unused=True)
        losses.append((float(run()), [None if one is None else one.tolist() for one in gradients]))
    assert losses[0] == losses[1]


def test_an_implicit_layer_is_refused() -> None:
    """Its penalty was that of one step of the solver: the hook with the rest of the derivative is not heard here."""
    penalty = kag.GeometryPenalty(zoo.seeded(lambda: Equilibrium(3)), layers=["head"], points=4)
    with pytest.raises(kag.InputError, match="stands in a hook on a gradient"):
        penalty(zoo.numbers(4, 4))
