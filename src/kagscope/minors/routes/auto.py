"""The chooser among routes, itself called like a route."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from kagscope.minors.moments import SUMS, Moments
from kagscope.minors.plan import AUTO_SECONDS, BYTES_A_SUBSET, CHEAP_SECONDS, Plan, reference_seconds
from kagscope.minors.routes import Route, routes_of_kind
from kagscope.minors.routes.sampled import Sampled
from kagscope.minors.task import FloatArray, RouteResult, Task
from kagscope.minors.underflow import recompute_lost

SAMPLED: Route = Sampled()  # samples what no other route does

Choice = dict[Route, frozenset[str]]  # which route computes which moments


class Auto:
    """Use the cheapest exact routes for each selection, or samples; decided by counts of steps at fixed rates, never by a clock.

    | k | over every subset of some columns | over other selections |
    |---|---|---|
    | 1 | entries | entries |
    | 2 | S1 zonogon, S2 and S4 power Grams, top hull, entropy multipoles if cheaper; histogram: enumeration | enumeration |
    | 3 | S1 zonotope, S2 spectral, where cheaper than visiting; else enumeration | enumeration |
    | 4 and more | S2 spectral; else determinants | determinants |

    Formulas are used when they give all that is wanted and no other selection needs an enumeration anyway; always where the list
    of column subsets exceeds the memory budget. ``method="auto"`` samples where the exact way takes longer than
    :data:`kagscope.minors.plan.AUTO_SECONDS` a matrix, "sampled" always (for k = 1 neither does). Moments with a formula that
    costs no more than that ("sampled": :data:`kagscope.minors.plan.CHEAP_SECONDS`) remain exact (for k = 2 over every subset of
    some columns, those that cost no more than AUTO_SECONDS):

    | k | over every subset of some columns | over other selections |
    |---|---|---|
    | 2 | S1 zonogon, S2 and S4 power Grams, top hull | S2, S4 and draws in one pass; "auto": S1 zonogons of column pairs |
    | 3 | S1 zonotope, S2 spectral, S4 quartic | S2, with the draws; of more columns masked Grams |
    | 4 and more | S2 spectral | nothing |

    Matrices on a device: k = 1 and 2 there, the rest on the CPU.

    The routes are those registered in this package; where several compute a moment, the cheapest is used.
    """

    name = "auto"

    def choose(self, tasks: list[Task]) -> list[Choice]:
        """For tasks that differ only in selection, the routes of each and the moments that they compute."""
        alone = len(tasks) == 1 or all(str(task.selection) == "all" for task in tasks)
        return [self._choose_one(task, alone) for task in tasks]

    def run(self, tasks: list[Task]) -> list[Moments]:
        """The moments of each task."""
        results: dict[int, list[RouteResult]] = {}
        drawn: dict[Route, dict[int, frozenset[str]]] = {route: {} for route in (*routes_of_kind("draw"), SAMPLED)}
        pending = dict(enumerate(self.choose(tasks)))
        while pending:
            for choice, indices in _group_by_choice(pending):
                sampler = next((route for route in choice if route.kind == "draw"), None)
                parts, lost = self._run_exact(choice, {i: tasks[i] for i in indices})
                for i in indices:
                    if sampler is not None:  # moments that formulas cannot distinguish from rounding are sampled with the rest
                        drawn[sampler][i] = choice[sampler] | lost[i]
                    if sampler is not None or not lost[i]:
                        results[i] = parts[i]
            left = [i for i in pending if i not in results]  # where formulas could not distinguish a sum from rounding
            pending = {i: self._choose_visit(tasks[i]) or {_sampler(tasks[i]): tasks[i].wanted} for i in left}
        for route, by_index in drawn.items():
            subtasks = [replace(tasks[i], wanted=wanted, known=_merge_sums(results[i])) for i, wanted in by_index.items()]
            for i, result in zip(by_index, route.run(subtasks) if subtasks else [], strict=True):
                if result is None:
                    drawn[SAMPLED][i] = by_index[i]
                else:
                    results[i].append(replace(result, work=route.steps(tasks[i])))
        return [recompute_lost(task, self._moments(task, results[i])) for i, task in enumerate(tasks)]

    def _run_exact(
        self, choice: Choice, tasks: dict[int, Task]
    ) -> tuple[dict[int, list[RouteResult]], dict[int, frozenset[str]]]:
        """Results of the exact routes of a choice for each task, and the moments they cannot distinguish from rounding."""
        results: dict[int, list[RouteResult]] = {index: _known_results(task) for index, task in tasks.items()}
        failed: dict[int, frozenset[str]] = dict.fromkeys(tasks, frozenset())
        for route, moments in choice.items():
            indices = [index for index in tasks if route.kind != "draw"]
            subtasks = [replace(tasks[index], wanted=moments) for index in indices]
            for index, task, result in zip(indices, subtasks, route.run(subtasks) if subtasks else [], strict=True):
                if result is None:
                    failed[index] |= moments
                else:
                    results[index].append(replace(result, work=route.steps(task)))
        return results, failed

    def _choose_one(self, task: Task, alone: bool) -> Choice:
        formulas = self._choose_formulas(task)
        if formulas is None:
            return self._choose_visit(task) or self._choose_sampling(task)
        work = _work(task, formulas)
        visiting = _work(task, self._choose_enumeration(task))
        cheaper = (task.k == 2 and "entropy" not in task.wanted) or reference_seconds(work) < reference_seconds(visiting)
        if _fits(task) and not ((alone or task.k > 3) and cheaper):
            return self._choose_visit(task) or self._choose_sampling(task)
        return formulas if _is_affordable(task, work) else self._choose_sampling(task)

    def _choose_visit(self, task: Task) -> Choice | None:
        """A visit to every minor, if it fits the memory budget and is affordable."""
        visit = self._choose_enumeration(task)
        return visit if _can_list(task) and _is_affordable(task, _work(task, visit)) else None

    def _choose_sampling(self, task: Task) -> Choice:
        """Formulas where they cost little, and draws for the rest."""
        limit = AUTO_SECONDS if task.method == "auto" or (task.k == 2 and task.clique) else CHEAP_SECONDS
        choice: Choice = {}
        missing = task.wanted_with_s1 - set(task.known)
        sampler = _sampler(task)
        in_one_pass = sampler is not SAMPLED and not (task.k == 2 and task.method == "auto")
        has_s2 = in_one_pass and not task.clique
        formulas = () if task.count is None or has_s2 else routes_of_kind("formula")
        for route in _cheapest_first(formulas, task, missing):
            provided = route.provides(task) & missing
            if provided and _seconds(route, task, provided) <= limit:
                choice[route] = provided
                missing -= provided
        return {**choice, sampler: missing} if missing else choice

    def _choose_enumeration(self, task: Task) -> Choice:
        able = [route for route in routes_of_kind("visit", task.matrices.on_device) if task.wanted <= route.provides(task)]
        return {min(able, key=lambda route: _seconds(route, task, task.wanted)): task.wanted}

    def _choose_formulas(self, task: Task) -> Choice | None:
        """Formulas that give all that is wanted; None if there are none, or a device visits every minor sooner."""
        on_device, with_top = task.matrices.on_device, "top" in task.wanted
        if on_device and task.k == 2 and with_top and (task.count or 0) * BYTES_A_SUBSET <= task.memory_budget:
            return None  # rather than copying the matrices and pruning on the CPU
        routes = routes_of_kind("formula", on_device and not with_top)
        if not on_device:
            routes = (*routes, *routes_of_kind("expansion"))
        choice: Choice = {}
        missing = task.wanted_with_s1
        for route in _cheapest_first(routes, task, missing) if task.clique and task.count is not None else ():
            if provided := route.provides(task) & missing:
                choice[route] = provided
                missing -= provided
        return None if missing else choice

    def _moments(self, task: Task, results: list[RouteResult]) -> Moments:
        by_name = {name: route for result in results for name, route in result.routes.items()}
        routes = {name: by_name[name] for name in sorted(task.wanted)}
        batch, rows, columns = task.matrices.shape
        count = next((result.count for result in results if result.count is not None), task.minors)
        sums = _merge_sums(results)
        work = _add_work(result.work for result in results)
        notes = tuple(note for result in results for note in result.notes)
        plan = Plan((batch, rows, columns), task.k, str(task.selection), count, routes, work, notes)
        bins = next((result.bins for result in results if result.bins is not None), None)
        ordered = {name: sums[name] for name in SUMS if name in sums}
        replicates = {name: values for result in results for name, values in result.replicates.items()}
        unknown = {name: values for result in results for name, values in result.unknown.items()}
        error = max(result.count_error for result in results)
        return Moments(task.k, count, results[0].exponent, ordered, bins, replicates, unknown, False, plan, None, error)


def _known_results(task: Task) -> list[RouteResult]:
    """Moments that the caller already knew."""
    if not task.known:
        return []
    return [RouteResult(task.inside.exponent, dict(task.known), dict.fromkeys(task.known, "known before"))]


def _sampler(task: Task) -> Route:
    return next((route for route in routes_of_kind("draw") if route.provides(task)), SAMPLED)


def _cheapest_first(routes: Iterable[Route], task: Task, wanted: frozenset[str]) -> list[Route]:
    """The routes that compute any of the wanted moments, cheapest first."""
    candidates = [(provided, route) for route in routes if (provided := route.provides(task) & wanted)]
    return [route for _, route in sorted(candidates, key=lambda pair: _seconds(pair[1], task, pair[0]))]


def _seconds(route: Route, task: Task, wanted: frozenset[str]) -> float:
    return reference_seconds(route.steps(replace(task, wanted=wanted)))


def _merge_sums(results: list[RouteResult]) -> dict[str, FloatArray]:
    return {name: values for result in results for name, values in result.sums.items()}


def _group_by_choice(choices: dict[int, Choice]) -> list[tuple[Choice, list[int]]]:
    """Groups of tasks with the same routes."""
    groups: list[tuple[Choice, list[int]]] = []
    for index, choice in choices.items():
        same = next((indices for other, indices in groups if other == choice), None)
        if same is None:
            groups.append((choice, [index]))
        else:
            same.append(index)
    return groups


def _work(task: Task, choice: Choice) -> dict[str, float]:
    """Steps of all routes of a choice, by kernel."""
    return _add_work(route.steps(replace(task, wanted=moments)) for route, moments in choice.items())


def _add_work(works: Iterable[Mapping[str, float]]) -> dict[str, float]:
    work: dict[str, float] = {}
    for steps_of_route in works:
        for kernel, steps in steps_of_route.items():
            work[kernel] = work.get(kernel, 0.0) + steps
    return work


def _fits(task: Task) -> bool:
    """Whether a list of the column subsets fits the memory budget."""
    return (task.count or 0) * BYTES_A_SUBSET <= task.memory_budget


def _can_list(task: Task) -> bool:
    """Whether column subsets may be listed: k = 1 lists none, and an exact request that does not fit is refused."""
    return task.k == 1 or task.method == "exact" or _fits(task)


def _is_affordable(task: Task, work: dict[str, float]) -> bool:
    """Whether an exact way with these steps is affordable; always, for no minors at all and for k = 1."""
    if task.count == 0 or task.k == 1:
        return True
    if task.method == "exact" or (task.method == "sampled" and not task.inside.far):  # draws by size would leave the range
        return task.method == "exact"
    return task.count is not None and reference_seconds(work) <= AUTO_SECONDS
