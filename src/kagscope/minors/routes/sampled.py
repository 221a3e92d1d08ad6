"""Moments from sampled minors, with what has an exact formula in their place where ``method`` is "auto" (MATH.md 4.8)."""

from __future__ import annotations

from math import log2

import numpy as np
from numpy.typing import NDArray

from kagscope.minors import moment_scores
from kagscope.minors.moments import SUMS as ALL_SUMS
from kagscope.minors.moments import Histogram
from kagscope.minors.plan import AUTO_SECONDS, RATES
from kagscope.minors.routes.sampling import SUMS, SampledMoments, sampled_moments
from kagscope.minors.routes.spectral import spectral_s2
from kagscope.minors.routes.zonotope_sampled import s1_sampled
from kagscope.minors.scaling import nonzero_rows
from kagscope.minors.subsets import as_masks
from kagscope.minors.task import EVERY_MOMENT, NEED_S1, Found, Task

FloatArray = NDArray[np.float64]


class Sampled:
    """Every moment of any order and selection, with standard errors."""

    name = "sampled minors"

    def provides(self, task: Task) -> frozenset[str]:
        return EVERY_MOMENT

    def steps(self, task: Task) -> dict[str, float]:
        return {}

    def run(self, tasks: list[Task]) -> list[Found | None]:
        return [self._one(task) for task in tasks]

    def _one(self, task: Task) -> Found:
        exponent = task.matrices.exponent
        blend, wanted = task.method == "auto", task.wanted
        masks = as_masks(task.chosen, task.layout, task.k)
        found = [_one(matrix, task, masks, blend) for matrix in task.matrices.normalised]
        samples = [sample for sample, *_ in found]
        whole = task.minors if task.count is not None else round(samples[0].count)
        sums = {name: np.array([values[index] for _, values, _ in found]) for index, name in enumerate(SUMS)}
        covariance = np.stack([covariance for *_, covariance in found])
        sums["top"] = np.array([sample.top for sample in samples])
        errors = _errors(sums, covariance, whole)
        kept = {name: sums[name] for name in ALL_SUMS if name in wanted or (name == "s1" and wanted & NEED_S1)}
        needs = moment_scores.needs()
        errors = {name: error for name, error in errors.items() if needs.get(name, {name}) <= set(kept) and error.any()}
        missed = int((np.sqrt(covariance[:, 0, 0]) > task.rel_error * sums["s1"]).sum())
        return Found(
            exponent,
            kept,
            _routes(wanted, blend, covariance),
            _histogram(samples, task.k, whole, exponent) if "histogram" in wanted else None,
            count=whole,
            errors=errors,
            covariance=covariance[:, 0, 3],
            notes=_notes(samples, missed, task.count, task.rel_error),
        )


def draws_within_reach(columns: int, k: int) -> int:
    """Row sets that :func:`s1_sampled` may draw: half of :data:`AUTO_SECONDS` of a reference core."""
    return max(1 << 10, min(1 << 20, int(AUTO_SECONDS / 2 * RATES["zonogons"] / (columns * (log2(columns) + k * k)))))


def _one(
    matrix: FloatArray, task: Task, masks: tuple[object, object, object], blend: bool
) -> tuple[SampledMoments, FloatArray, FloatArray]:
    """The sample, (4,) sums and their (4, 4) covariance for one normalised matrix."""
    columns, pairs, subsets = masks
    k, rel_error, seed = task.k, task.rel_error, task.seed
    sample = sampled_moments(
        matrix,
        k,
        columns,  # type: ignore[arg-type]
        pairs,  # type: ignore[arg-type]
        subsets,  # type: ignore[arg-type]
        rel_error=rel_error,
        seed=seed,
        s4="s4" in task.wanted,
    )
    scale = np.ldexp(np.ones(4), np.array([1, 2, 4, 1]) * k * sample.exponent)
    sums = np.array([sample.sums[name] for name in SUMS]) * scale
    sums[3] += sums[0] * k * sample.exponent * np.log(2.0)
    covariance = sample.covariance * np.outer(scale, scale)
    if blend and task.chosen.clique:
        inside = matrix if columns is None else matrix[:, columns]  # type: ignore[index]
        sums, covariance = _blended(np.ascontiguousarray(nonzero_rows(inside)), k, sums, covariance, rel_error, seed)
    return sample, sums, covariance


def _blended(
    matrix: FloatArray, k: int, sums: FloatArray, covariance: FloatArray, rel_error: float, seed: int
) -> tuple[FloatArray, FloatArray]:
    """With S2 from the spectrum and S1 from sampled row sets with exact inner sums; the entropy follows S1 as its control
    variate."""
    sums, covariance = sums.copy(), covariance.copy()
    if min(matrix.shape) < k:
        return np.zeros(4), np.zeros((4, 4))
    s2 = spectral_s2(matrix, k)
    if s2 is not None:
        sums[1] = s2
        covariance[1, :] = covariance[:, 1] = 0.0
    if k >= 3 and covariance[0, 0] > 0:
        better = s1_sampled(matrix, k, rel_error, seed, max_draws=draws_within_reach(matrix.shape[1], k))
        if better.stderr**2 < covariance[0, 0]:
            slope = covariance[0, 3] / covariance[0, 0]
            sums[3] += slope * (better.value - sums[0])
            covariance[3, 3] += slope**2 * (better.stderr**2 - covariance[0, 0])
            sums[0] = better.value
            covariance[0, :] = covariance[:, 0] = 0.0
            covariance[0, 0] = better.stderr**2
            covariance[0, 3] = covariance[3, 0] = slope * better.stderr**2
            covariance[2, 3] = covariance[3, 2] = 0.0
    return sums, covariance


def _errors(sums: dict[str, FloatArray], covariance: FloatArray, count: int) -> dict[str, FloatArray]:
    """Standard errors of sums, and of scores by the delta method. That of ``top`` is NaN: the largest sampled minor is a lower
    bound."""
    names = list(SUMS)
    errors = {name: np.sqrt(covariance[:, i, i]) for i, name in enumerate(names)}
    errors["top"] = np.full(len(covariance), np.nan)
    s1, s2, s4, entropy = (np.where(sums[name] != 0, sums[name], np.nan) for name in names)
    zero = np.zeros_like(s1)
    relative = {
        "participation_ratio": (np.sqrt(s2) / s1, [-1 / s1, 0.5 / s2, zero, zero]),
        "effective_minors": (s1**2 / s2, [2 / s1, -1 / s2, zero, zero]),
        "pr_normalized": (s1**2 / s2 / max(count, 1), [2 / s1, -1 / s2, zero, zero]),
        "ipr": (s2**2 / s4, [zero, 2 / s2, -1 / s4, zero]),
        "kl_uniform": (zero + 1, [-(entropy / s1 + 1) / s1, zero, zero, 1 / s1]),
    }
    for name, (value, gradient) in relative.items():
        slopes = np.stack(gradient, axis=1)
        errors[name] = np.abs(value) * np.sqrt(np.maximum(np.einsum("bi,bij,bj->b", slopes, covariance, slopes), 0.0))
    return errors


def _routes(wanted: frozenset[str], blend: bool, covariance: FloatArray) -> dict[str, str]:
    routes = dict.fromkeys(sorted(wanted), "sampled minors")
    if blend and "s2" in routes and not covariance[:, 1, 1].any():
        routes["s2"] = "exact: e_k of the squared singular values"
    if "top" in routes:
        routes["top"] = "largest sampled minor, a lower bound"
    return routes


def _notes(samples: list[SampledMoments], missed: int, count: int | None, rel_error: float) -> tuple[str, ...]:
    notes = [f"{samples[0].draws} minors drawn a matrix, {samples[0].proposal}"]
    if missed:
        notes.append(f"rel_error={rel_error} was not reached for S1 of {missed} of {len(samples)} matrices; see stderr")
    if count is None:
        notes.append("the number of minors is itself an estimate: counting cliques of this size is out of reach")
    return tuple(notes)


def _histogram(samples: list[SampledMoments], k: int, count: int, exponent: NDArray[np.int64]) -> Histogram:
    """Estimated counts, scaled (a ratio estimate) so that they and the zeros add up to the known number of minors."""
    width = max(len(sample.counts) for sample in samples)
    counts = np.zeros((len(samples), width))
    for row, sample in enumerate(samples):
        counts[row, : len(sample.counts)] = sample.counts
    zeros = np.array([sample.zeros for sample in samples])
    total = counts.sum(axis=1) + zeros
    scale = np.where(total > 0, count / np.where(total > 0, total, 1.0), 1.0)
    first = np.array([sample.first for sample in samples], dtype=np.int64) + 8 * k * exponent
    return Histogram(first, counts * scale[:, None], zeros * scale)
