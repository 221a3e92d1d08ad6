"""From a layer map and inputs to its Jacobians, batch after batch: which rows, tokens and form, and what a reader should know."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from math import prod

import numpy as np
import torch
from torch import Tensor

from kagscope.base.errors import InputError
from kagscope.jacobians import autodiff, check, structure
from kagscope.jacobians.forms import DenseJacobian, FactoredJacobian
from kagscope.jacobians.frame import Frame
from kagscope.jacobians.inputs import Inputs
from kagscope.jacobians.looks import short
from kagscope.jacobians.maps import LayerMap
from kagscope.jacobians.runner import Unmeasurable
from kagscope.minors.row_draws import RowDraws

Tokens = int | Sequence[int] | str | None
FLAT = "flat"
CPU_WORKING_SET = 2**26  # bytes of passes taken at once; more of them are slower, by a third at 2**29 (benchmarks/measure.py)
CHECKED_AT_ONCE = 32  # points whose derivatives are held against one difference quotient: one that is wrong must show
MAX_TOKENS = 256  # of a sequence, where all are asked for


@dataclass(frozen=True)
class Batch:
    """Jacobians of some items: item i belongs to data point ``points[i]`` and token ``tokens[i]`` (-1 where there are none)."""

    jacobian: FactoredJacobian | DenseJacobian
    points: np.ndarray
    tokens: np.ndarray
    values: np.ndarray  # (items, rows): the layer's output at the same units


@dataclass
class LayerJacobians:
    """The Jacobians of one layer map at all inputs; iterate to get them.

    Args:
        map: which function.
        inputs: in the dtype to compute in.
        tokens: which tokens of sequences: None all (of more than 256 as many evenly spaced), an int that many evenly spaced, a
            list those, "flat" takes sequences whole.
        max_rows: of a layer with more rows than this, so many are drawn at random, the same for every network; None: never.
        budget: bytes of working memory, about.
        separate: each point alone, since the model mixes the points of a batch.
        coupled: all points in one batch, each differentiated with respect to itself only (train mode).
        seed: of the sample of rows.
        least: rows of each group that is drawn, see :class:`kagscope.minors.row_draws.RowDraws`.

    Raises:
        Unmeasurable: the map has no Jacobian here.
        InputError: a token that is not there.
    """

    map: LayerMap
    inputs: Inputs
    tokens: Tokens = None
    max_rows: int | None = None
    budget: int = 2**30
    separate: bool = False
    coupled: bool = False
    seed: int = 0
    least: int = 1
    route: str = ""
    frame: Frame = field(init=False)
    drawn: RowDraws | None = field(init=False, default=None)
    notes: list[str] = field(init=False)
    _single: int = field(init=False)
    _accelerator: bool = field(init=False)
    _signature: Tensor | None = field(init=False, default=None)
    _W: np.ndarray | None = field(init=False, default=None)
    _forward: bool = field(init=False, default=True)

    def __post_init__(self) -> None:
        with _reasons():
            self._prepare()

    def _prepare(self) -> None:
        """One or two points through the map: the frame, and what a pass takes."""
        few = self.inputs.take(slice(0, 1 if self.separate else self.inputs.count if self.coupled else 2))
        function, start = self.map.function(few), self.map.start(few)
        self._accelerator = start.device.type != "cpu"
        self._single = autodiff.saved_bytes(function, start) // few.count
        u, h = autodiff.graph(function, start)
        if len(h) != few.count:
            raise Unmeasurable(f"its output has shape {tuple(h.shape)}, whose first dimension is not the {few.count} points")
        left_out = check.what_is_left_out(function, u, h) or self._left_out_after(few.count, h)
        self.notes = [note for note in (self.map.call.note, left_out) if note]
        self.frame = self._frame(h, u)
        if self.drawn is not None:
            drawn = f"{len(self.frame.rows)} of its {self.frame.units} rows, drawn at random (seed {self.seed})"
            self.notes.append(f"estimated from {drawn}")
        length, chosen = self.frame.out_tokens or self.frame.in_tokens or 1, self.frame.tokens
        if len(chosen) < length:
            which = ", ".join(map(str, chosen)) if len(chosen) <= 8 else "evenly spaced"
            self.notes.append(f"{len(chosen)} of {length} tokens ({which})")
        if self.separate:
            self.notes.append("each point alone: the model mixes the points of a batch")
        if self.coupled:
            self.notes.append("train mode: each point with respect to itself, the other points of the batch held fixed")

    def _left_out_after(self, seen: int, h: Tensor) -> str:
        """The same at the points after those ``seen``, where a backward of the user's own may be wrong at some points alone."""
        size = 1 if self.separate else CHECKED_AT_ONCE
        for first in range(seen, self.inputs.count if check.has_own(h) else 0, size):
            part = self.inputs.take(slice(first, first + size))
            function = self.map.function(part)
            if note := check.what_is_left_out(function, *autodiff.graph(function, self.map.start(part))):
                return note
        return ""

    def values(self, inputs: Inputs) -> np.ndarray:
        """The values of all units at other inputs, (items, units) float64, items as in :class:`Batch`; forward passes only.

        Args:
            inputs: in the dtype to compute in, as those of the Jacobians.
        """
        size = max(1, int(self.budget // 4 // self._single))
        size = 1 if self.separate else inputs.count if self.coupled else size
        found = []
        for first in range(0, inputs.count, size):
            with _reasons(), torch.no_grad():
                values = self.map.value(inputs.take(slice(first, first + size)))
                found.append(self._output_rows(values, np.arange(self.frame.units)))
        return np.concatenate(found)

    def __iter__(self) -> Iterator[Batch]:
        if self._W is None and not self._needs_own_matrix():
            with _reasons():
                self._find_shared()
        per_item = len(self.frame.tokens) * len(self.frame.rows) * self.frame.columns * 8
        size = max(1, int(self.budget // 4 // (self._single + 2 * per_item)))
        size = 1 if self.separate else self.inputs.count if self.coupled else size
        for first in range(0, self.inputs.count, size):
            with _reasons():
                batch = self._batch(np.arange(first, min(first + size, self.inputs.count)))
            yield batch

    def _batch(self, points: np.ndarray) -> Batch:
        part = self.inputs.take(points)
        function, u = self.map.function(part), self.map.start(part)
        jacobian, h = self._factored_form(function, u) or self._dense(function, u)
        items = np.repeat(points, len(self.frame.tokens))
        tokens = np.tile(self.frame.tokens if self.has_tokens else (-1,), len(points))
        return Batch(jacobian, items, tokens, self._output_rows(h))

    def _factored_form(self, function: check.Function, u: Tensor) -> tuple[FactoredJacobian, Tensor] | None:
        if self._W is None or self._signature is None:
            return None
        found = self._shared_signature(function, u)
        if found is None or not structure.same(self._signature, found[3]):
            return None
        leaf, h, outer, _ = found
        d = self._output_rows(outer.d)
        if not check.agrees_factored(d.reshape(len(u), -1, d.shape[1]), self._W, h, leaf, self.frame):
            return None
        self.route = "factored"
        return FactoredJacobian(d, self._W), h.detach()

    def _dense(self, function: check.Function, u: Tensor) -> tuple[DenseJacobian, Tensor]:
        J, self.route = autodiff.jacobian(function, u, self.frame, self._at_once(len(u)), forward=self._forward)
        self._forward = self._forward and self.route != autodiff.BATCHED  # once it was wrong or dearer, it is not tried again
        with torch.no_grad():
            h = function(u)
        return DenseJacobian(J.reshape(-1, *J.shape[2:])), h

    def _find_shared(self) -> None:
        """W of J = diag(d) W, from one point, where all points have the same."""
        few = self.inputs.take(slice(0, 1 if self.separate else 2))
        found = self._shared_signature(self.map.function(few), self.map.start(few))
        one = few.take(slice(0, 1))
        alone = found and self._shared_signature(self.map.function(one), self.map.start(one))
        if found is None or alone is None:
            return
        u, h, outer, _ = alone
        frame = replace(self.frame, tokens=self.frame.tokens[:1])
        W, _ = autodiff.pull_back(outer.edge, u, tuple(h.shape), frame, self._at_once(1))
        self._W, self._signature = W[0, 0], found[3]

    def _shared_signature(self, function: check.Function, u: Tensor) -> tuple[Tensor, Tensor, structure.Outer, Tensor] | None:
        """The variable, the output, its outer diagonal, and the signature of W at these points; None where they share no W."""
        u, h = autodiff.graph(function, u)
        try:
            outer = structure.outer_diagonal(h)
            signature = None if outer is None else structure.shared_signature(outer, u, self.frame.out_tokens is not None)
        except (RuntimeError, NotImplementedError):  # no way back through this graph
            return None
        return None if outer is None or signature is None else (u, h, outer, signature)

    def _at_once(self, points: int) -> int:
        """Passes over a batch of ``points`` that half of the budget takes, on a CPU no more than its caches like."""
        room = self.budget // 2 if self._accelerator else min(self.budget // 2, CPU_WORKING_SET)
        return max(1, int(room // max(points * self._single, 1)))

    def _needs_own_matrix(self) -> bool:
        """Points or tokens that cannot share one W."""
        frame = self.frame
        return self.coupled or frame.mixing or (frame.out_tokens is None) != (frame.in_tokens is None)

    @property
    def bytes_moved(self) -> float:
        """Bytes that the passes of one point move through, about."""
        return self._single * min(self.frame.reverse_passes, autodiff.FORWARD_COST * self.frame.forward_passes)

    @property
    def roundoff(self) -> float:
        """Unit roundoff of the precision in which the Jacobians are computed."""
        floats = [tensor.dtype for tensor in self.inputs.tensors().values() if tensor.is_floating_point()]
        floats += [dtype for dtype in self.map.runner.dtypes.values() if dtype.is_floating_point]
        return max((torch.finfo(dtype).eps / 2 for dtype in floats), default=2.0**-53)

    @property
    def has_tokens(self) -> bool:
        """Whether the layer works on sequences, token by token."""
        return self.frame.out_tokens is not None or self.frame.in_tokens is not None

    def _output_rows(self, values: Tensor, units: np.ndarray | None = None) -> np.ndarray:
        """(items, rows) of a tensor shaped as the output; or other units of it."""
        wanted = self.frame.rows if units is None else units
        kept = values.detach().reshape(len(values), self.frame.out_tokens or 1, self.frame.units)
        kept = kept[:, list(self.frame.tokens)] if self.frame.out_tokens else kept.expand(-1, len(self.frame.tokens), -1)
        rows = torch.from_numpy(wanted).to(kept.device)
        return kept[..., rows].double().cpu().numpy().reshape(-1, len(wanted))

    def _frame(self, h: Tensor, u: Tensor) -> Frame:
        out_tokens, in_tokens = self._token_axes(h, u)
        units = prod(h.shape[1:]) // (out_tokens or 1)
        columns = prod(u.shape[1:]) // (in_tokens or 1)
        if self.max_rows is not None and units > self.max_rows:
            self.drawn = RowDraws.of(units, self.max_rows, self.least, self.seed)
        rows = np.arange(units) if self.drawn is None else self.drawn.rows
        both, neither = (out_tokens and in_tokens) is not None, (out_tokens or in_tokens) is None
        mixing = autodiff.mixes_tokens(h, u) if both else not neither
        tokens = _token_indices(self.tokens, out_tokens or in_tokens, self.map.call.name)
        return Frame(rows, units, columns, out_tokens, in_tokens, tokens, mixing, self.coupled)

    def _token_axes(self, h: Tensor, u: Tensor) -> tuple[int | None, int | None]:
        """Tokens of the output and of the variable; a side whose length is not that of the layer's sequence is taken whole."""
        if self.tokens == FLAT:
            return None, None
        layer_side, other = (u, h) if self.map.kind == "output" else (h, u)
        if layer_side.ndim != 3 or not self.map.call.tokens:
            return None, None
        length = layer_side.shape[1]
        own = length if other.ndim == 3 and other.shape[1] == length else None
        return (own, length) if self.map.kind == "output" else (length, own)


@contextmanager
def _reasons() -> Iterator[None]:
    """Turn whatever a model or autograd raises into the reason why a layer cannot be measured."""
    try:
        yield
    except (InputError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        raise Unmeasurable(short(error)) from error


def _token_indices(tokens: Tokens, length: int | None, layer: str) -> tuple[int, ...]:
    """Indices of the tokens to measure; (0,) where there are none."""
    if length is None:
        return (0,)
    if tokens is None:
        tokens = MAX_TOKENS
    if isinstance(tokens, int):
        if tokens < 1:
            raise InputError(f"tokens is {tokens}; expected a positive number, a list of token indices, None for all, or 'flat'")
        return tuple(int(t) for t in np.unique(np.linspace(0, length - 1, min(tokens, length)).round().astype(int)))
    if not len(tokens) or not all(isinstance(t, int | np.integer) and -length <= t < length for t in tokens):
        raise InputError(
            f"tokens {list(tokens)!r} do not fit layer {layer!r}; its sequences have {length} tokens, 0 to {length - 1}"
        )
    return tuple(sorted({int(t) % length for t in tokens}))
