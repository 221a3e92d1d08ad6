"""The one list of scores: what each is called, what it is a function of, and where it comes from. Nothing is computed here.

A score stands where its function stands, with :func:`register` above it; every list of scores elsewhere (what a study may ask
for, labels of figures, moments that have to be found, the table of the documentation) is a query of this registry. The functions
of :mod:`kagscope.minors.moment_scores` and of the modules of :mod:`kagscope.scores` are registered by ``import kagscope.scores``.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

from kagscope.base.errors import InputError
from kagscope.base.messages import close_names

ARGUMENTS: dict[str, str] = {
    "moments": "Moments of a batch of B Jacobians over one selection",
    "haar_s1": "Haar means of S1 over the same selection, (B,) values and (B,) standard errors",
    "jacobian": "(B, m, n) float64 Jacobians",
    "spectrum": "(B, min(m, n)) squared singular values over the largest, rising; NaN where J = 0",
    "rotations": "how many random rotations",
    "drawn_minors": "how many minors are drawn",
    "seed": "of whatever is drawn",
    "row_means": "(P, rows) means over the columns of the rows of the k-minor matrix",
    "row_norms": "(P, m) means of |J| over the columns, at every point",
    "output_slopes": "(P, n) largest |d output / d unit|, at every point; of the map from a layer to the output",
    "threshold": "at or below which a row (or slope) counts as zero: a quantile of the same of the initial network",
    "activations": "(N, m) outputs of the layer at N inputs",
    "labels": "(N,) classes of these inputs",
    "initial_moments": "Moments of the same Jacobians of the initial network",
    "initial_activations": "(N, m) outputs of the same layer of the initial network at the same inputs",
}
"""What the function of a score may take, by name; shapes are those of one layer of one network."""

AGAINST_BASELINE = frozenset({"threshold", "initial_moments", "initial_activations"})
OF_LAYER = frozenset({"row_norms", "output_slopes", "activations"})

Function = TypeVar("Function", bound=Callable[..., Any])


@dataclass(frozen=True)
class Score:
    """One score.

    Attributes:
        name: as in tables and MATH.md section 3.
        label: in words, for figures and pages.
        function: of ``takes``, in that order; gives a value, (B,) values, or a pair of values and their standard errors.
        takes: names among :data:`ARGUMENTS`.
        moments: which moments must have been found, of "s1", "s2", "s4", "entropy", "top", "histogram".
        orders: orders of minors that it is defined for; (0,) where it is not about minors, None for any order.
        undefined: why it may be NaN.
        source: paper, and section of MATH.md.
        symbol: in formulas and narrow places; "" for the label.
        error: function of the same arguments that gives a bound or standard error of the value.
        limit: name of the budget's number of points that it is measured at, at most; "" for every point.
        fraction: whether it is a share between 0 and 1.
    """

    name: str
    label: str
    function: Callable[..., Any]
    takes: tuple[str, ...]
    moments: tuple[str, ...] = ()
    orders: tuple[int, ...] | None = (0,)
    undefined: str = ""
    source: str = ""
    symbol: str = ""
    error: Callable[..., Any] | None = None
    limit: str = ""
    fraction: bool = False

    @property
    def of_layer(self) -> bool:
        """Whether it has one value for a layer, over many points, rather than one for each Jacobian."""
        return not OF_LAYER.isdisjoint(self.takes)

    @property
    def against_baseline(self) -> bool:
        """Whether it needs the initial network."""
        return not AGAINST_BASELINE.isdisjoint(self.takes)

    def is_of(self, *arguments: str) -> bool:
        """Whether the function takes any of these arguments."""
        return any(argument in self.takes for argument in arguments)


_SCORES: dict[str, Score] = {}


def register(name: str, label: str, takes: tuple[str, ...], **facts: Any) -> Callable[[Function], Function]:
    """A decorator that makes a function a score; the arguments are the attributes of :class:`Score`.

    Raises:
        ValueError: the name is taken, or an argument is not among :data:`ARGUMENTS`.
    """
    unknown = [argument for argument in takes if argument not in ARGUMENTS]
    if unknown:
        raise ValueError(f"score {name!r} takes {', '.join(unknown)}; expected some of {', '.join(ARGUMENTS)}")

    def registered(function: Function) -> Function:
        known = _SCORES.get(name)
        if known is not None and (known.function.__module__, known.function.__qualname__) != (
            function.__module__,
            function.__qualname__,
        ):
            raise ValueError(f"score {name!r} is registered twice: {known.function.__module__} and {function.__module__}")
        _SCORES[name] = Score(name, label, function, takes, **facts)
        return function

    return registered


def all_scores() -> tuple[Score, ...]:
    """Every registered score, in the order of registration."""
    return tuple(_SCORES.values())


def names() -> tuple[str, ...]:
    """Names of all scores."""
    return tuple(_SCORES)


def score(name: str) -> Score:
    """The score of that name. Raises :class:`InputError` that names close ones."""
    if name not in _SCORES:
        raise InputError(f"there is no score {name!r}{close_names(name, _SCORES)}; expected some of {', '.join(_SCORES)}")
    return _SCORES[name]


def select_scores(requested: Collection[str] | None) -> tuple[Score, ...]:
    """The scores asked for by name, in the registry's order; None asks for all."""
    if requested is None:
        return all_scores()
    for name in requested:
        score(name)
    return tuple(score_record for score_record in _SCORES.values() if score_record.name in requested)


def moments_for(scores: Iterable[Score]) -> frozenset[str]:
    """The moments that these scores are functions of."""
    return frozenset(moment for score_record in scores for moment in score_record.moments)


def label(name: str) -> str:
    """A score in words; an unknown one is shown as it is."""
    return _SCORES[name].label if name in _SCORES else name.replace("_", " ")


def symbol(name: str) -> str:
    """A score where there is little room."""
    return (_SCORES[name].symbol if name in _SCORES else "") or label(name)
