"""A term for any loss that steers a network's layers towards Kolmogorov-Arnold geometry or away from it (MATH.md section 6)."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from kagscope.base.checks import is_real, is_whole
from kagscope.base.errors import InputError
from kagscope.base.messages import close_names
from kagscope.columns.selections import All, Selection, as_selections
from kagscope.jacobians import structure
from kagscope.jacobians.check import HOOKED
from kagscope.jacobians.compute import LayerJacobians
from kagscope.jacobians.forward import count_required, positional_parameters, unwrap
from kagscope.jacobians.inputs import Inputs, from_batch
from kagscope.jacobians.layers import Call, Layers, find_calls, find_layers
from kagscope.jacobians.maps import LayerMap
from kagscope.jacobians.model_checks import LOOK_AT, check_model, model_errors, short, verify
from kagscope.jacobians.patches import run_as_written
from kagscope.jacobians.runner import NoHooks, Runner, Stop, Unmeasurable, intercept
from kagscope.jacobians.untouched import untouched
from kagscope.scores import functional, torch_sums
from kagscope.scores.of_jacobians import numerical_ranks
from kagscope.steering.cost import Cost, cost_of
from kagscope.steering.rows import one_hots, pull_back, shared_weight

Score = Callable[[torch_sums.Task], Tensor]
SCORES: Mapping[str, Score] = {
    "pr": functional.log_pr_of,
    "effective_minors": lambda task: -functional.effective_minors_of(task).log(),
    "rr_pr": lambda task: functional.rr_pr_of(task).log(),
    "alignment": lambda task: functional.alignment_of(task).log(),
    "jacobian_l1": lambda task: functional.log_norm_of(task, 1),
    "jacobian_l2": lambda task: functional.log_norm_of(task, 2),
}
OF_ENTRIES = ("alignment", "jacobian_l1", "jacobian_l2")  # scores that use no minors of order 2
DRAWN = ("pr", "effective_minors")  # scores whose S1 may be estimated from drawn pairs of rows
MAPS = ("input", "block")


class GeometryPenalty:
    """``loss = loss + penalty(batch)``: ``weight`` times the mean log of a score over points and layers.

    A negative weight is towards geometry, a positive one away from it. Derivatives are exact, or with ``rows`` those of an
    estimate of S1 without bias. Jacobians are those of the model in eval mode (no dropout, batch norm with its running
    statistics), in a pass of its own over a few points, which leaves modes, buffers, attributes and random numbers as they were
    and in which no hook on gradients runs. The first call also looks at the model as :func:`kagscope.measure` does.

    Args:
        model: the network that is trained; of a wrapped one (compiled, data parallel) the module inside.
        layers: as for :func:`kagscope.measure`.
        score: "pr", "effective_minors", "rr_pr" or "alignment"; of "effective_minors" the log is taken with a minus, since it
            falls with geometry. As controls "jacobian_l1" and "jacobian_l2", the norms of all entries of the Jacobian, which a
            positive weight makes smaller.
        weight: factor of the term.
        points: how many inputs of each batch, its first ones.
        k: order of the minors, 1 or 2; not of "alignment" and the norms.
        selection, image_shape, positions, groups: which minors, as for :func:`kagscope.minor_moments`.
        layer_map: "input" for the map from the model's input, "block" for that from the layer's own input. Of layers on
            sequences one token of each point is taken, drawn at random, with respect to the same token, or where the variable
            has other tokens or none, to all of it.
        rows: how many pairs of rows to draw in each call, in proportion to the root of their S2, for S1 of k = 2; None, or
            no fewer than there are, for all of them.
        every: the term is taken in one of so many calls, that many times as heavy, and is 0 in the others: the same push on
            average, at a fraction of the cost: with ``rows=32`` on its first layer a step of 784-64-64-10 takes 3.1 times as
            long, with ``every=4`` 1.7 times.
        wrt: which input to differentiate, where several could be.
        seed: of the draws.

    Attributes:
        costs: by layer, what a call computes (:class:`Cost`); known after the first call.
        values: by layer, the mean of the log score in the last call over the points where it is defined, without the weight; NaN
            where it is at none. Where a Jacobian is of numerical rank below k, its k-minors are rounding noise, and undefined.

    Raises:
        InputError: an argument that cannot be used; at the first call a layer without a Jacobian, or points that are not
            independent of each other.

    Examples:
        >>> import torch, kagscope as kag
        >>> model = torch.nn.Sequential(torch.nn.Linear(6, 4), torch.nn.Tanh(), torch.nn.Linear(4, 2))
        >>> penalty = kag.GeometryPenalty(model, ["1"], weight=-0.1, points=2)
        >>> loss = model(torch.ones(8, 6)).square().mean() + penalty(torch.ones(8, 6))
        >>> loss.backward()
        >>> penalty.costs["1"].pairs, penalty.costs["1"].shared
        (6, True)
    """

    def __init__(
        self,
        model: nn.Module,
        layers: Layers,
        score: str = "pr",
        weight: float = -0.1,
        points: int = 8,
        *,
        k: int = 2,
        selection: Selection | str | None = None,
        image_shape: Sequence[int] | None = None,
        positions: Any = None,
        groups: Any = None,
        layer_map: str = "input",
        rows: int | None = None,
        every: int = 1,
        wrt: int | str | None = None,
        seed: int = 0,
    ) -> None:
        if not isinstance(model, nn.Module):
            raise InputError(f"model is {type(model).__name__}; expected the torch.nn.Module that is trained")
        if score not in SCORES:
            raise InputError(f"there is no differentiable score {score!r}{close_names(str(score), SCORES)}; expected one of "
                             f"{', '.join(SCORES)}")  # fmt: skip
        if not is_real(weight):
            raise InputError(f"weight is {weight!r}; expected a finite number, negative towards geometry")
        counts = {"points": (points, 1), "rows": (1 if rows is None else rows, 1), "every": (every, 1), "seed": (seed, 0)}
        for name, (value, least) in counts.items():
            if not is_whole(value, least, 2**63 - 1):
                raise InputError(f"{name} is {value!r}; expected a whole number of at least {least}")
        if layer_map not in MAPS:
            raise InputError(f"layer_map is {layer_map!r}; expected {' or '.join(map(repr, MAPS))}")
        if not is_whole(k) or k not in torch_sums.ORDERS:
            raise InputError(f"k is {k!r}; expected 1 or 2, the orders whose derivatives are known")
        selections = as_selections(All() if selection is None else selection)[0]
        if len(selections) > 1:
            raise InputError(f"selection has {len(selections)} selections; expected one (several penalties can be added)")
        self.selection = selections[0]
        if rows is not None and (k == 1 or score in OF_ENTRIES or not self.selection.clique):
            raise InputError(
                "rows draws pairs of rows for k = 2 over all columns or a window; leave it out here, and use fewer points"
            )
        self.model, self.score, self.weight, self.points, self.k = unwrap(model), score, float(weight), points, k
        self.where = {"image_shape": image_shape, "positions": positions, "groups": groups}
        self.layer_map, self.rows, self.wrt = layer_map, rows, wrt
        self._fed, self._fed_to = max(1, count_required(self.model)), positional_parameters(self.model)
        self.paths, self._exact = find_layers(self.model, layers)
        self._layers: list[Call] = []  # known after the first call
        self.costs: dict[str, Cost] = {}
        self.values: dict[str, float] = {}
        self.every, self._calls = every, 0
        self._generator = torch.Generator().manual_seed(int(seed))

    @run_as_written
    def __call__(self, batch: Any) -> Tensor:
        """The term for one batch, a 0-d tensor.

        Args:
            batch: what the model is fed: a tensor, a mapping of keyword arguments, or a tuple, of which as many elements are fed
                as ``forward`` has required parameters (so that a loader's (x, y) will do).

        Raises:
            InputError: a layer without a Jacobian, or one that is NaN or infinite.
        """
        keep = torch.is_grad_enabled()
        with torch.inference_mode(False), torch.enable_grad():
            inputs = from_batch(batch, self._fed)
            self._calls += 1
            if (self._calls - 1) % self.every:
                return torch.zeros((), device=next(iter(inputs.tensors().values())).device)
            inputs = inputs.take(slice(0, self.points)).for_model(self.model).with_respect_to(self.wrt, self._fed_to)
            self._layers = self._layers or self._find_calls(inputs)
            with untouched(self.model, passes_only=True) as plain:
                if not plain:
                    _copy_buffers(self.model)
                terms = [self._layer_term(call, inputs, plain) for call in self._layers]
            term = self.weight * self.every * (terms[0] if len(terms) == 1 else torch.stack(terms).mean())
        return term if keep else term.detach()

    def __repr__(self) -> str:
        rows = "" if self.rows is None else f", rows={self.rows}"
        layers = ", ".join(map(repr, self.paths))
        return f"GeometryPenalty([{layers}], score={self.score!r}, weight={self.weight:g}, points={self.points}{rows})"

    def _find_calls(self, inputs: Inputs) -> list[Call]:
        """Find the calls of the layers. Raises :class:`InputError` for a layer without a Jacobian."""
        check_model(self.model)
        few = inputs.take(slice(0, LOOK_AT))
        with untouched(self.model):
            runner = Runner(self.model, None, 0)
            with model_errors(few, runner):
                if verify(runner, few, self.paths, "eval", [], inputs):
                    raise InputError(
                        "what the model gives for a point depends on the other points of its batch, so that a penalty cannot "
                        "take the Jacobian of each; use a model without statistics over the batch"
                    )
                calls = find_calls(runner, few, self.paths, self._exact)
            reasons = {call.name: call.reason or self._reason(runner, call, few) for call in calls}
        if not all(reasons.values()):
            return [call for call in calls if not reasons[call.name]]
        raise InputError(f"no layer has a Jacobian ({'; '.join(f'{name}: {reason}' for name, reason in reasons.items())})")

    def _reason(self, runner: Runner, call: Call, inputs: Inputs) -> str:
        """Why a layer that was not named is left out; "" where it has a Jacobian."""
        with _name_layer_in_errors(call.name):
            try:
                jacobians = LayerJacobians(LayerMap(runner, call, self.layer_map), inputs, tokens=1)  # type: ignore[arg-type]
                if HOOKED in jacobians.notes:
                    raise Unmeasurable("its derivative stands in a hook on a gradient, through which a penalty has none")
            except Unmeasurable as error:
                if call.path in self._exact:
                    raise InputError(f"it has no Jacobian: {error}") from None
                return str(error)
        return ""

    def _layer_term(self, call: Call, inputs: Inputs, plain: bool) -> Tensor:
        """Mean log score of a layer over the points where it is defined, 0 if there are none."""
        with _name_layer_in_errors(call.name):
            u, h = self._pass(call, inputs, plain)
            tokens = torch.randint(h.shape[1], (len(h),), generator=self._generator).to(h.device) if call.tokens else None
            sources = tokens if h.ndim == u.ndim == 3 and h.shape[1] == u.shape[1] else None
            outer = structure.outer_diagonal(h, create_graph=True)
            W = None if outer is None else shared_weight(outer, u, tokens, sources)
            full_rank = None
            if outer is not None and W is not None:
                d = outer.d if tokens is None else outer.d[torch.arange(len(h)), tokens]
                tasks = [torch_sums.make_task(W, self.k, self.selection, d=d.flatten(1), **self.where)]
            else:
                J = pull_back(h, u, one_hots(h, tokens, same=False), sources).swapaxes(0, 1)
                if self.k > 1 and self.score not in OF_ENTRIES:
                    full_rank = _full_rank(J.detach(), self.k)
                matrices = [J] if self._pair_draws(J.shape[1]) is None else J
                tasks = [torch_sums.make_task(matrix, self.k, self.selection, **self.where) for matrix in matrices]
            if (rows := self._pair_draws(tasks[0].kept.shape[1])) is not None:
                tasks = [task.with_row_sample(task.row_pairs[0].draw(rows, self._generator)) for task in tasks]
            if call.name not in self.costs:
                self._check_columns(tasks[0])
                self.costs[call.name] = cost_of(tasks[0], len(h), sorts=self.k == 2 and self.score not in OF_ENTRIES)
            scores = [SCORES[self.score](task) for task in tasks]
            values = scores[0] if len(scores) == 1 else torch.cat([torch.atleast_1d(score) for score in scores])
        mean, count = values.mean(), len(values)
        if full_rank is not None or not math.isfinite(mean.detach()):
            defined = values.isfinite() if full_rank is None else values.isfinite() & full_rank
            count = int(defined.sum())
            mean = torch.where(defined, values, 0.0).sum() / max(count, 1)
        self.values[call.name] = float(mean.detach()) if count else math.nan
        return mean

    def _check_columns(self, task: torch_sums.Task) -> None:
        needed, columns = 1 if self.score in OF_ENTRIES else self.k, task.kept.shape[2]
        if columns < needed or (task.pairs is not None and not len(task.pairs.first)):
            raise InputError(
                f"{self.selection} holds no {'two columns' if needed == 2 else 'column'} of its Jacobian, so that there is "
                "nothing to steer; choose a wider selection"
            )

    def _pass(self, call: Call, inputs: Inputs, plain: bool) -> tuple[Tensor, Tensor]:
        """The variable and the layer's output, with the graph between them and to the parameters.

        A ``plain`` model hooks no gradients.
        """
        seen: dict[str, Tensor] = {}
        if self.layer_map == "input":
            key = inputs.variable_key()
            seen["u"] = inputs.tensors()[key].requires_grad_()
            inputs = inputs.with_tensor(key, seen["u"].clone())  # the model may work on it in place

        def on_input(value: Tensor) -> Tensor:
            seen["u"] = value if value.requires_grad else value.detach().requires_grad_()
            return seen["u"].clone()

        def on_output(value: Tensor) -> Tensor:
            seen["h"] = value
            raise Stop

        try:
            module = self.model.get_submodule(call.path)
        except AttributeError:
            raise InputError("the model does not have it any more; make a penalty for the model as it is now") from None
        with (
            model_errors(inputs),
            intercept(module, call.index, on_input=on_input if self.layer_map == "block" else None, on_output=on_output),
            contextlib.nullcontext() if plain else NoHooks(),
            contextlib.suppress(Stop),
        ):
            self.model(*inputs.args, **inputs.kwargs)
        if "h" not in seen:
            raise InputError("it was not called this time; the forward pass depends on the data")
        u, h = seen["u"], seen["h"]
        if not h.requires_grad or len(h) != len(u):
            raise InputError(
                "its output does not depend differentiably on the variable, point by point, so that it has no Jacobian"
            )
        if not math.isfinite(h.detach().abs().amax()):
            raise InputError("its output is NaN or infinite at these points; look at the inputs and at the weights so far")
        return u, h

    def _pair_draws(self, units: int) -> int | None:
        """Number of row pairs to draw; None if there are no more pairs than draws."""
        return self.rows if self.rows is not None and self.rows < math.comb(units, 2) else None


def _full_rank(J: Tensor, k: int) -> Tensor:
    """(B,) whether k-minors of computed Jacobians (B, m, n) are more than rounding noise (MATH.md section 3)."""
    if not math.isfinite(J.abs().amax()):
        return torch.ones(len(J), dtype=torch.bool, device=J.device)
    ranks = numerical_ranks(J.double().cpu().numpy(), torch.finfo(J.dtype).eps / 2, k)
    return torch.from_numpy(ranks >= k).to(J.device)


@contextlib.contextmanager
def _name_layer_in_errors(path: str) -> Iterator[None]:
    """Prefix errors with the layer's name, including those of autograd."""
    try:
        yield
    except InputError as error:
        raise InputError(f"penalty on layer {path!r}: {error}") from None
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, NotImplementedError) as error:  # such as a value overwritten in place that the way back needs
        raise InputError(f"penalty on layer {path!r}: its Jacobian cannot be differentiated: {short(error)}") from error


def _copy_buffers(model: nn.Module) -> None:
    """Replace all buffers by copies, which a pass may write into; leaving ``untouched`` restores them."""
    for module in model.modules():
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = buffer.clone()
