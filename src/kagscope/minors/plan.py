"""How moments are computed and at what cost, described in words (MATH.md 4.8).

The cost model: every route visits a known number of steps of one kernel (a minor of an enumeration, a vector of a zonogon times
log2 of their number, …), at a fixed rate of steps a second. Choices and estimates use the fixed :data:`RATES` of a
reference core, never by a clock: routes differ in their last bits, and the same call must give the same bits on every machine.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, NamedTuple

AUTO_SECONDS = 20.0  # for one matrix on one reference core: beyond, ``auto`` samples
CHEAP_SECONDS = 1.0  # up to here a formula always replaces draws
BYTES_A_SUBSET = 88  # of a listed column subset: its columns, cell and five sums

# Steps a second of each kernel on one reference core (float64; the order of magnitude of server cores of the last years).
RATES: Mapping[str, float] = {
    "entries": 1e8,  # an entry, every moment of k = 1
    "s1 of pairs": 8e9,  # a 2-minor, S1
    "sums of pairs": 5e9,  # a 2-minor, S1, S2, S4, top
    "pairs": 6e8,  # a 2-minor, every moment
    "triples": 5e8,  # a 3-minor, every moment
    "determinants": 2e6,  # a minor of order 4 and more
    "zonogons": 1.6e9,  # a vector of a zonogon, times log2 of their number
    "multipoles": 3e6,  # a vector of a row pair, entropy
    "hulls": 6e8,  # a vector of a row pair
    "Grams": 1e10,  # a multiply-add of a matrix product
    "spectra": 5e8,  # rows times columns times the smaller of them
}


class Estimate(NamedTuple):
    """A number and its standard error, 0 where it is exact; or (B,) of both for a batch."""

    value: Any
    stderr: Any


def reference_seconds(work: Mapping[str, float]) -> float:
    """Seconds on one reference core, on which choices are based."""
    return sum(steps / RATES[kernel] for kernel, steps in work.items())


@dataclass(frozen=True)
class Plan:
    """How moments are computed.

    Attributes:
        shape: (matrices, rows, columns).
        k: order of the minors.
        selection: canonical name.
        count: minors of one matrix.
        routes: route by moment name, such as ``"s1": "zonogon areas"``.
        work: steps of one matrix by kernel name in :data:`RATES`; empty where there is no estimate (on a GPU, sampled).
        notes: anything else that was done or could not be.
    """

    shape: tuple[int, int, int]
    k: int
    selection: str
    count: int
    routes: Mapping[str, str]
    work: Mapping[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = field(default=())

    @property
    def seconds(self) -> float:
        """Estimated seconds for one matrix on one recent server core; 0 where there is no estimate."""
        return reference_seconds(self.work)

    def explain(self) -> str:
        """The plan in a few lines."""
        batch, rows, columns = self.shape
        lines = [
            f"{Decimal(self.count):.4g} minors of order {self.k} over {self.selection}, "
            f"each of {batch} matrices with {rows} rows, {columns} columns"
        ]
        lines += [f"  {name}: {route}" for name, route in self.routes.items()]
        if self.work:
            steps = ", ".join(f"{steps:.2g} steps of {kernel}" for kernel, steps in self.work.items())
            lines.append(f"  estimated {self.seconds:.2g} s a matrix on one core of a server ({steps})")
        return "\n".join([*lines, *(f"  {note}" for note in self.notes)])
