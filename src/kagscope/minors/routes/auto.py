"""The chooser among routes, itself asked like one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from kagscope.minors.moments import SUMS, Moments
from kagscope.minors.own_scale import mended
from kagscope.minors.plan import AUTO_SECONDS, BYTES_A_SUBSET, CHEAP_SECONDS, Plan, reference_seconds
from kagscope.minors.routes import Route, registered
from kagscope.minors.routes.sampled import Sampled
from kagscope.minors.task import NEED_S1, FloatArray, Found, Task

SAMPLED: Route = Sampled()  # draws of what no other route draws

Choice = dict[Route, frozenset[str]]  # which route finds which moments


class Auto:
    """Takes for each selection the cheapest exact routes, or samples, by counts of steps at fixed rates, never by a clock.

    | k | over every subset of some columns | over other selections |
    |---|---|---|
    | 1 | entries | entries |
    | 2 | S1 zonogon, S2 and S4 power Grams, top hull, entropy multipoles if cheaper; histogram: enumeration | enumeration |
    | 3 | S1 zonotope, S2 spectral, where cheaper than visiting; else enumeration | enumeration |
    | 4 and more | S2 spectral; else determinants | determinants |

    Formulas are taken when they give all that is wanted, and no other selection pays for an enumeration already; where the list
    of column subsets exceeds the memory budget in any case. ``method="auto"`` draws where the exact way takes longer than
    :data:`kagscope.minors.plan.AUTO_SECONDS` a matrix, "sampled" always (for k = 1 neither does); what then has a formula that
    costs no more than that ("sampled": :data:`kagscope.minors.plan.CHEAP_SECONDS`) is exact all the same (of
    k = 2 over every subset of some columns what costs no more than AUTO_SECONDS):

    | k | over every subset of some columns | over other selections |
    |---|---|---|
    | 2 | S1 zonogon, S2 and S4 power Grams, top hull | S2, S4 and draws in one pass; "auto": S1 zonogons of column pairs |
    | 3 | S1 zonotope, S2 spectral, S4 quartic | S2, with the draws; of more columns masked Grams |
    | 4 and more | S2 spectral | nothing |

    Matrices on a device: k = 1 and 2 there, the rest here.

    These are the routes registered in this package; where several find a moment, the cheapest does.
    """

    name = "auto"

    def choose(self, tasks: list[Task]) -> list[Choice]:
        """For tasks that differ in their selections alone, the routes of each and the moments that they find."""
        alone = len(tasks) == 1 or all(str(task.chosen) == "all" for task in tasks)
        return [self._choice(task, alone) for task in tasks]

    def run(self, tasks: list[Task]) -> list[Moments]:
        """The moments of each task."""
        found: dict[int, list[Found]] = {}
        drawn: dict[Route, dict[int, frozenset[str]]] = {route: {} for route in (*registered("draw"), SAMPLED)}
        left = dict(enumerate(self.choose(tasks)))
        while left:
            for choice, indices in _grouped(left):
                sampler = next((route for route in choice if route.kind == "draw"), None)
                parts, lost = self._parts(choice, {index: tasks[index] for index in indices})
                for index in indices:
                    if sampler is not None:  # what formulas cannot tell from rounding is sampled with the rest
                        drawn[sampler][index] = choice[sampler] | lost[index]
                    if sampler is not None or not lost[index]:
                        found[index] = parts[index]
            left = {index: self._after_formulas(tasks[index]) for index in left if index not in found}
        for route, by_index in drawn.items():
            asked = [replace(tasks[index], wanted=wanted, known=_sums(found[index])) for index, wanted in by_index.items()]
            for index, part in zip(by_index, route.run(asked) if asked else [], strict=True):
                if part is None:
                    drawn[SAMPLED][index] = by_index[index]
                else:
                    found[index].append(replace(part, work=route.steps(tasks[index])))
        return [mended(task, self._moments(task, found[index])) for index, task in enumerate(tasks)]

    def _parts(self, choice: Choice, tasks: dict[int, Task]) -> tuple[dict[int, list[Found]], dict[int, frozenset[str]]]:
        """What the exact routes of a choice find of each task, and which moments they cannot tell from rounding."""
        parts: dict[int, list[Found]] = {index: _given(task) for index, task in tasks.items()}
        lost: dict[int, frozenset[str]] = dict.fromkeys(tasks, frozenset())
        for route, moments in choice.items():
            some = [index for index in tasks if route.kind != "draw"]
            asked = [replace(tasks[index], wanted=moments) for index in some]
            for index, task, part in zip(some, asked, route.run(asked) if asked else [], strict=True):
                if part is None:
                    lost[index] |= moments
                else:
                    parts[index].append(replace(part, work=route.steps(task)))
        return parts, lost

    def _choice(self, task: Task, alone: bool) -> Choice:
        formulas = self._formulas(task)
        if formulas is None:
            return self._without_formulas(task)
        work = _work(task, formulas)
        visiting = _work(task, self._visit(task))
        cheaper = (task.k == 2 and "entropy" not in task.wanted) or reference_seconds(work) < reference_seconds(visiting)
        if _fits(task) and not ((alone or task.k > 3) and cheaper):
            return self._without_formulas(task)
        return formulas if _affordable(task, work) else self._sampled(task)

    def _without_formulas(self, task: Task) -> Choice:
        visit = self._visit(task)
        return visit if _listable(task) and _affordable(task, _work(task, visit)) else self._sampled(task)

    def _after_formulas(self, task: Task) -> Choice:
        """Where formulas could not tell a sum from rounding."""
        visit = self._visit(task)
        return visit if _listable(task) and _affordable(task, _work(task, visit)) else {_sampler(task): task.wanted}

    def _sampled(self, task: Task) -> Choice:
        """Formulas where they cost little, and draws for the rest."""
        limit = AUTO_SECONDS if task.method == "auto" or (task.k == 2 and task.clique) else CHEAP_SECONDS
        choice: Choice = {}
        left = _with_s1(task.wanted) - set(task.known)
        sampler = _sampler(task)
        in_one_pass = sampler is not SAMPLED and not (task.k == 2 and task.method == "auto")
        formulas = () if task.count is None or (in_one_pass and not task.clique) else registered("formula")  # it has S2 anyway
        for route in _cheapest_first(formulas, task, left):
            given = route.provides(task) & left
            if given and _seconds(route, task, given) <= limit:
                choice[route] = given
                left -= given
        return {**choice, sampler: left} if left else choice

    def _visit(self, task: Task) -> Choice:
        able = [route for route in registered("visit", task.matrices.on_device) if task.wanted <= route.provides(task)]
        return {min(able, key=lambda route: _seconds(route, task, task.wanted)): task.wanted}

    def _formulas(self, task: Task) -> Choice | None:
        """Formulas that give all that is wanted; None where there are none, or a device visits every minor sooner."""
        on_device, with_top = task.matrices.on_device, "top" in task.wanted
        if on_device and task.k == 2 and with_top and (task.count or 0) * BYTES_A_SUBSET <= task.memory_budget:
            return None  # rather than copying the matrices and pruning on the CPU
        routes = registered("formula", on_device and not with_top)
        if not on_device:
            routes = (*routes, *registered("expansion"))
        choice: Choice = {}
        left = _with_s1(task.wanted)
        for route in _cheapest_first(routes, task, left) if task.clique and task.count is not None else ():
            if given := route.provides(task) & left:
                choice[route] = given
                left -= given
        return None if left else choice

    def _moments(self, task: Task, parts: list[Found]) -> Moments:
        by_name = {name: route for part in parts for name, route in part.routes.items()}
        routes = {name: by_name[name] for name in sorted(task.wanted)}
        batch, rows, columns = task.matrices.shape
        count = next((part.count for part in parts if part.count is not None), task.minors)
        sums = _sums(parts)
        work = _added(part.work for part in parts)
        notes = tuple(note for part in parts for note in part.notes)
        plan = Plan((batch, rows, columns), task.k, str(task.chosen), count, routes, work, notes)
        bins = next((part.bins for part in parts if part.bins is not None), None)
        ordered = {name: sums[name] for name in SUMS if name in sums}
        replicates = {name: values for part in parts for name, values in part.replicates.items()}
        unknown = {name: values for part in parts for name, values in part.unknown.items()}
        return Moments(task.k, count, parts[0].exponent, ordered, bins, replicates, unknown, False, plan)


def _given(task: Task) -> list[Found]:
    """What the caller knew already."""
    if not task.known:
        return []
    return [Found(task.inside.exponent, dict(task.known), dict.fromkeys(task.known, "known before"))]


def _sampler(task: Task) -> Route:
    return next((route for route in registered("draw") if route.provides(task)), SAMPLED)


def _cheapest_first(routes: Iterable[Route], task: Task, wanted: frozenset[str]) -> list[Route]:
    """Those of the routes that find any of the moments wanted."""
    able = [(given, route) for route in routes if (given := route.provides(task) & wanted)]
    return [route for _, route in sorted(able, key=lambda pair: _seconds(pair[1], task, pair[0]))]


def _seconds(route: Route, task: Task, wanted: frozenset[str]) -> float:
    return reference_seconds(route.steps(replace(task, wanted=wanted)))


def _sums(parts: list[Found]) -> dict[str, FloatArray]:
    return {name: values for part in parts for name, values in part.sums.items()}


def _grouped(choices: dict[int, Choice]) -> list[tuple[Choice, list[int]]]:
    """Tasks that go by the same routes, together."""
    groups: list[tuple[Choice, list[int]]] = []
    for index, choice in choices.items():
        same = next((indices for other, indices in groups if other == choice), None)
        if same is None:
            groups.append((choice, [index]))
        else:
            same.append(index)
    return groups


def _with_s1(wanted: frozenset[str]) -> frozenset[str]:
    """And S1, where scores of what is wanted are relative to the mean."""
    return wanted | {"s1"} if wanted & NEED_S1 else wanted


def _work(task: Task, choice: Choice) -> dict[str, float]:
    """Steps of all routes of a choice, by kernel."""
    return _added(route.steps(replace(task, wanted=moments)) for route, moments in choice.items())


def _added(parts: Iterable[Mapping[str, float]]) -> dict[str, float]:
    work: dict[str, float] = {}
    for part in parts:
        for kernel, steps in part.items():
            work[kernel] = work.get(kernel, 0.0) + steps
    return work


def _fits(task: Task) -> bool:
    """Whether a list of the column subsets fits the memory budget."""
    return (task.count or 0) * BYTES_A_SUBSET <= task.memory_budget


def _listable(task: Task) -> bool:
    """Whether column subsets may be listed: of single columns none are, and an exact request that does not fit is refused."""
    return task.k == 1 or task.method == "exact" or _fits(task)


def _affordable(task: Task, work: dict[str, float]) -> bool:
    """Whether to take an exact way with these steps; of no minor at all and of single entries, always."""
    if task.count == 0 or task.k == 1:
        return True
    if task.method == "exact" or (task.method == "sampled" and not task.inside.far):  # draws by size would leave the range
        return task.method == "exact"
    return task.count is not None and reference_seconds(work) <= AUTO_SECONDS
