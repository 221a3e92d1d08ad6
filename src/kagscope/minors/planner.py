"""Which way finds which moment, what it costs, and saying so (MATH.md 4.8).

The cost model: every way visits a known number of steps of one kernel (a minor of an enumeration, a vector of a zonogon times
log2 of their number, …), and a kernel takes so many steps a second. What is *chosen* follows from the numbers of steps at the
fixed :data:`RATES` of a reference core, never from a measurement: ways differ in their last bits, and the same call must give the
same bits on every day and machine. What is *told* as seconds uses the rates of this machine
(:mod:`kagscope.minors.calibration`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import comb, log2

from kagscope.columns.selections import Selection, Subsets

CHEAP = frozenset({"s1", "s2", "s4"})
NEED_S1 = frozenset({"entropy", "histogram"})  # their scores are relative to the mean
FORMULAS = {2: CHEAP | {"top"}, 3: frozenset({"s1", "s2"})}  # beyond k = 3, S2 alone
FEW_ROWS = 48  # up to here enumerating S2 and S4 with S1 beats Gram matrices
AUTO_SECONDS = 20.0  # one matrix, one reference core: beyond, ``auto`` samples
BYTES_A_SUBSET = 88  # its columns, cell and five sums

# Steps a second of each kernel on one reference core (float64; the order of magnitude of server cores of the last years).
RATES: Mapping[str, float] = {
    "entries": 1e8,  # an entry, every moment of k = 1
    "s1 of pairs": 8e9,  # a 2-minor, S1
    "sums of pairs": 5e9,  # a 2-minor, S1, S2, S4, top
    "pairs": 6e8,  # a 2-minor, every moment
    "triples": 5e8,  # a 3-minor, every moment
    "determinants": 2e6,  # a minor of order 4 and more
    "zonogons": 1.6e9,  # a vector of a zonogon, times log2 of their number
    "hulls": 6e8,  # a vector of a row pair
    "Grams": 1e10,  # a multiply-add of a matrix product
    "spectra": 5e8,  # rows times columns times the smaller of them
}


@dataclass(frozen=True)
class Plan:
    """How moments are found.

    Attributes:
        shape: (matrices, rows, columns).
        k: order of the minors.
        selection: canonical name.
        count: minors of one matrix.
        routes: route by moment name, such as ``"s1": "zonogon areas"``.
        work: steps of one matrix by the name of the kernel in :data:`RATES`; empty where no estimate is made (on a GPU, sampled).
        notes: what else was done or could not be.
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
        """Estimated time for one matrix on one core of this machine, whose kernels are timed at the first use; 0: no estimate."""
        from kagscope.minors.calibration import rate

        return sum(steps / rate(kernel) for kernel, steps in self.work.items())

    def explain(self) -> str:
        """The plan in a few lines."""
        batch, rows, columns = self.shape
        lines = [
            f"{self.count:.4g} minors of order {self.k} over {self.selection}, each of {batch} matrices with {rows} rows, "
            f"{columns} columns"
        ]
        lines += [f"  {name}: {route}" for name, route in self.routes.items()]
        if self.work:
            steps = ", ".join(f"{steps:.2g} steps of {kernel}" for kernel, steps in self.work.items())
            lines.append(f"  estimated {self.seconds:.2g} s a matrix on one core of this machine ({steps})")
        return "\n".join([*lines, *(f"  {note}" for note in self.notes)])


def has_formulas(k: int, chosen: Selection, wanted: frozenset[str]) -> bool:
    """Whether all that is wanted has a formula: over every subset of some columns; S1, S2, S4, top; for k = 3 S1, S2; then S2."""
    return k >= 2 and chosen.clique and not isinstance(chosen, Subsets) and wanted <= FORMULAS.get(k, frozenset({"s2"}))


def formula_work(k: int, rows: int, columns: int, wanted: frozenset[str]) -> dict[str, float]:
    """Steps of the formulas, on the side with fewer row or column subsets."""
    few, many = sorted((rows, columns))
    work = {}
    if "s1" in wanted:
        vectors = comb(few, k) * many ** (k - 1)
        work["zonogons"] = vectors * log2(max(many, 2))
    if k >= 3 and "s2" in wanted:
        work["spectra"] = float(few * few * many)
    if k == 2 and wanted & {"s2", "s4"}:
        work["Grams"] = 3.0 * few * few * many
    if "top" in wanted:
        work["hulls"] = float(comb(few, 2) * many)
    return work


def enumeration_work(k: int, rows: int, columns: int, column_subsets: int, wanted: frozenset[str]) -> dict[str, float]:
    """Steps of visiting every minor."""
    minors = float(comb(rows, k) * column_subsets)
    if k == 2 and wanted <= CHEAP and rows > FEW_ROWS:
        return {"s1 of pairs": minors, "Grams": 3.0 * rows * columns * columns}
    if k == 2 and wanted <= CHEAP | {"top"}:
        return {"sums of pairs": minors}
    return {{1: "entries", 2: "pairs", 3: "triples"}.get(k, "determinants"): minors}


def reference_seconds(work: Mapping[str, float]) -> float:
    """Seconds on one reference core: what choices go by."""
    return sum(steps / RATES[kernel] for kernel, steps in work.items())


def exact_work(
    k: int,
    chosen: Selection,
    rows: int,
    columns: int,
    column_subsets: int | None,
    wanted: frozenset[str],
    *,
    alone: bool,
    memory_budget: int,
) -> tuple[dict[str, float], bool]:
    """Steps of the exact way, and whether that is by formulas.

    Args:
        k, wanted: order of the minors and names of moments.
        chosen: the selection.
        rows: of the matrix.
        columns: that the selection lets take part.
        column_subsets: in the selection; None where they are too many to count.
        alone: no other selection shares an enumeration with this one, which would have it for nothing.
        memory_budget: bytes that the list of column subsets may take.
    """
    if column_subsets is None:
        return {"determinants": float("inf")}, False
    visiting = enumeration_work(k, rows, columns, column_subsets, wanted)
    if columns < k or not has_formulas(k, chosen, wanted):
        return visiting, False
    formulas = formula_work(k, rows, columns, wanted)
    cheaper = k == 2 or reference_seconds(formulas) < reference_seconds(visiting)
    too_many = column_subsets * BYTES_A_SUBSET > memory_budget
    return (formulas, True) if too_many or ((alone or k > 3) and cheaper) else (visiting, False)


def draws_within_reach(columns: int, k: int) -> int:
    """Row sets that :func:`kagscope.minors.zonotope.s1_sampled` may draw: half of :data:`AUTO_SECONDS` of a reference core."""
    return max(1 << 10, min(1 << 20, int(AUTO_SECONDS / 2 * RATES["zonogons"] / (columns * (log2(columns) + k * k)))))
