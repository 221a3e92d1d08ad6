"""Compute a layer map's Jacobians batch by batch: rows, tokens, form, and notes for the reader."""

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
from kagscope.jacobians.maps import LayerMap
from kagscope.jacobians.model_checks import short
from kagscope.jacobians.runner import Unmeasurable
from kagscope.minors.row_draws import RowDraws

Tokens = int | Sequence[int] | str | None
FLAT = "flat"
CPU_WORKING_SET = 2**26  # bytes of concurrent passes; a third slower at 2**29 (benchmarks/measure.py)
CHECKED_AT_ONCE = 32  # points that share one difference quotient: few enough for one wrong derivative to show
MAX_TOKENS = 256  # of a sequence, if all are requested


@dataclass(frozen=True)
class Batch:
    """Jacobians of a batch of items: item i is data point ``points[i]``, token ``tokens[i]`` (-1 if there are no tokens)."""

    jacobian: FactoredJacobian | DenseJacobian
    points: np.ndarray
    tokens: np.ndarray
    values: np.ndarray  # (items, rows): the layer's output at the same units


@dataclass
class LayerJacobians:
    """Jacobians of one layer map at all inputs; iterate to get them batch by batch.

    Args:
        map: the function to differentiate.
        inputs: where, in the dtype to compute in.
        tokens: tokens of sequences: None all (256 evenly spaced ones if there are more), an int that many evenly spaced, a
            list those, "flat" treats a sequence as one vector.
        max_rows: rows to draw at random, the same for every network, from layers that have more; None: never.
        budget: approximate working memory in bytes.
        separate: run each point alone, because the model mixes the points of a batch.
        coupled: run all points in one batch, each differentiated with respect to itself only (train mode).
        seed: seed of the sample of rows.
        least: minimal group of rows drawn, see :class:`kagscope.minors.row_draws.RowDraws`.

    Raises:
        Unmeasurable: The map has no Jacobian here.
        InputError: A requested token does not exist.
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
        with _errors_as_reasons():
            self._prepare()

    def _prepare(self) -> None:
        """Run one or two points through the map for its frame and the memory of a pass."""
        probe = self.inputs.take(slice(0, 1 if self.separate else self.inputs.count if self.coupled else 2))
        function, start = self.map.function(probe), self.map.start(probe)
        self._accelerator = start.device.type != "cpu"
        self._single = autodiff.saved_bytes(function, start) // probe.count
        u, h = autodiff.graph(function, start)
        if len(h) != probe.count:
            raise Unmeasurable(f"its output has shape {tuple(h.shape)}, whose first dimension is not the {probe.count} points")
        omission = check.omission_note(function, u, h)
        if omission and self.map.runner.ignored_hooks:
            hooked = replace(self.map, runner=self.map.runner.with_hooks())
            if not check.omission_note(hooked.function(probe), *autodiff.graph(hooked.function(probe), start)):
                self.map, omission = hooked, check.HOOKED
                u, h = autodiff.graph(hooked.function(probe), start)
        omission = omission or self._omission_note_after(probe.count, h)
        self.notes = [note for note in (self.map.call.note, omission) if note]
        self.frame = self._make_frame(h, u)
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

    def _omission_note_after(self, seen: int, h: Tensor) -> str:
        """:func:`check.omission_note` at the points after those ``seen``: a custom backward may be wrong at some points only."""
        size = 1 if self.separate else CHECKED_AT_ONCE
        for first in range(seen, self.inputs.count if check.has_custom_backward(h) else 0, size):
            inputs = self.inputs.take(slice(first, first + size))
            function = self.map.function(inputs)
            if note := check.omission_note(function, *autodiff.graph(function, self.map.start(inputs))):
                return note
        return ""

    def values(self, inputs: Inputs) -> np.ndarray:
        """Outputs of all units at other inputs, (items, units) float64, items as in :class:`Batch`, by forward passes only.

        Args:
            inputs: in the dtype to compute in, as those of the Jacobians.
        """
        size = max(1, int(self.budget // 4 // self._single))
        size = 1 if self.separate else inputs.count if self.coupled else size
        chunks = []
        for first in range(0, inputs.count, size):
            with _errors_as_reasons(), torch.no_grad():
                values = self.map.value(inputs.take(slice(first, first + size)))
                chunks.append(self._output_rows(values, np.arange(self.frame.units)))
        return np.concatenate(chunks)

    def __iter__(self) -> Iterator[Batch]:
        if self._W is None and not self._needs_own_matrix():
            with _errors_as_reasons():
                self._find_shared_weight()
        per_item = len(self.frame.tokens) * len(self.frame.rows) * self.frame.columns * 8
        size = max(1, int(self.budget // 4 // (self._single + 2 * per_item)))
        size = 1 if self.separate else self.inputs.count if self.coupled else size
        for first in range(0, self.inputs.count, size):
            with _errors_as_reasons():
                batch = self._batch(np.arange(first, min(first + size, self.inputs.count)))
            yield batch

    def _batch(self, points: np.ndarray) -> Batch:
        inputs = self.inputs.take(points)
        function, u = self.map.function(inputs), self.map.start(inputs)
        jacobian, h = self._factored_form(function, u) or self._dense(function, u)
        items = np.repeat(points, len(self.frame.tokens))
        tokens = np.tile(self.frame.tokens if self.has_tokens else (-1,), len(points))
        return Batch(jacobian, items, tokens, self._output_rows(h))

    def _factored_form(self, function: check.Function, u: Tensor) -> tuple[FactoredJacobian, Tensor] | None:
        if self._W is None or self._signature is None:
            return None
        shared = self._shared_signature(function, u)
        if shared is None or not structure.same(self._signature, shared[3]):
            return None
        leaf, h, outer, _ = shared
        d = self._output_rows(outer.d)
        if not check.agrees_factored(d.reshape(len(u), -1, d.shape[1]), self._W, h, leaf, self.frame):
            return None
        self.route = "factored"
        return FactoredJacobian(d, self._W), h.detach()

    def _dense(self, function: check.Function, u: Tensor) -> tuple[DenseJacobian, Tensor]:
        J, self.route = autodiff.jacobian(function, u, self.frame, self._passes_at_once(len(u)), forward=self._forward)
        self._forward = self._forward and self.route != autodiff.BATCHED  # not tried again once it was wrong or dearer
        with torch.no_grad():
            h = function(u)
        return DenseJacobian(J.reshape(-1, *J.shape[2:])), h

    def _find_shared_weight(self) -> None:
        """Compute W of J = diag(d) W at one point, if all points share it."""
        probe = self.inputs.take(slice(0, 1 if self.separate else 2))
        shared = self._shared_signature(self.map.function(probe), self.map.start(probe))
        single = probe.take(slice(0, 1))
        alone = shared and self._shared_signature(self.map.function(single), self.map.start(single))
        if shared is None or alone is None:
            return
        u, h, outer, _ = alone
        frame = replace(self.frame, tokens=self.frame.tokens[:1])
        W, _ = autodiff.pull_back(outer.edge, u, tuple(h.shape), frame, self._passes_at_once(1))
        self._W, self._signature = W[0, 0], shared[3]

    def _shared_signature(self, function: check.Function, u: Tensor) -> tuple[Tensor, Tensor, structure.Outer, Tensor] | None:
        """Variable, output, outer diagonal and signature of the W shared by these points; None if they share none."""
        u, h = autodiff.graph(function, u)
        try:
            outer = structure.outer_diagonal(h)
            signature = None if outer is None else structure.shared_signature(outer, u, self.frame.out_tokens is not None)
        except (RuntimeError, NotImplementedError):  # no way back through this graph
            return None
        return None if outer is None or signature is None else (u, h, outer, signature)

    def _passes_at_once(self, points: int) -> int:
        """Concurrent passes over ``points`` that fit into half of the budget, and on a CPU into its caches."""
        room = self.budget // 2 if self._accelerator else min(self.budget // 2, CPU_WORKING_SET)
        return max(1, int(room // max(points * self._single, 1)))

    def _needs_own_matrix(self) -> bool:
        """Whether points or tokens cannot share one W."""
        frame = self.frame
        return self.coupled or frame.mixing or (frame.out_tokens is None) != (frame.in_tokens is None)

    @property
    def bytes_moved(self) -> float:
        """Approximate memory traffic in bytes of all passes of one point."""
        return self._single * min(self.frame.reverse_passes, autodiff.FORWARD_COST * self.frame.forward_passes)

    @property
    def roundoff(self) -> float:
        """Unit roundoff of the precision in which the Jacobians are computed."""
        floats = [tensor.dtype for tensor in self.inputs.tensors().values() if tensor.is_floating_point()]
        floats += [dtype for dtype in self.map.runner.dtypes.values() if dtype.is_floating_point or dtype.is_complex]
        return max((torch.finfo(dtype).eps / 2 for dtype in floats), default=2.0**-53)

    @property
    def has_tokens(self) -> bool:
        """Whether the layer works on sequences, token by token."""
        return self.frame.out_tokens is not None or self.frame.in_tokens is not None

    def _output_rows(self, values: Tensor, units: np.ndarray | None = None) -> np.ndarray:
        """Select the frame's rows, or other units, from a tensor shaped like the output: (items, rows)."""
        units_kept = self.frame.rows if units is None else units
        rows = values.detach().reshape(len(values), self.frame.out_tokens or 1, self.frame.units)
        rows = rows[:, list(self.frame.tokens)] if self.frame.out_tokens else rows.expand(-1, len(self.frame.tokens), -1)
        index = torch.from_numpy(units_kept).to(rows.device)
        return rows[..., index].double().cpu().numpy().reshape(-1, len(units_kept))

    def _make_frame(self, h: Tensor, u: Tensor) -> Frame:
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
        """Token counts of output and variable; a side whose length differs from the layer's sequence has none."""
        if self.tokens == FLAT:
            return None, None
        layer_side, other = (u, h) if self.map.kind == "output" else (h, u)
        if layer_side.ndim != 3 or not self.map.call.tokens:
            return None, None
        length = layer_side.shape[1]
        other_length = length if other.ndim == 3 and other.shape[1] == length else None
        return (other_length, length) if self.map.kind == "output" else (length, other_length)


@contextmanager
def _errors_as_reasons() -> Iterator[None]:
    """Turn any exception of the model or autograd into the reason why a layer cannot be measured."""
    try:
        yield
    except (InputError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        raise Unmeasurable(short(error)) from error


def _token_indices(tokens: Tokens, length: int | None, layer: str) -> tuple[int, ...]:
    """Indices of the tokens to measure; (0,) if there are no tokens."""
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
