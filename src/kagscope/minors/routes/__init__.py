"""Routes: one algorithm a file, behind one protocol; :mod:`kagscope.minors.routes.auto` chooses among those registered here.

A new route is a new module here, with :func:`register` above its class: nothing else needs changing. Modules whose names
begin with ``torch_`` are imported only when matrices lie on a device.
"""

from __future__ import annotations

import importlib
import pkgutil
from functools import lru_cache
from typing import Literal, Protocol, TypeVar

from kagscope.minors.task import RouteResult, Task

Kind = Literal["formula", "expansion", "visit", "draw"]


class Route(Protocol):
    """One algorithm: which moments of a task it can compute, at what cost, and the computation."""

    @property
    def name(self) -> str:
        """Its name in plans."""
        ...

    @property
    def kind(self) -> Kind:
        """How it computes moments.

        "formula": exact, without visiting every minor; "expansion": likewise, but too slow to replace draws;
        "visit": exact, minor by minor; "draw": samples, S2 exact.
        """
        ...

    def provides(self, task: Task) -> frozenset[str]:
        """Names of the moments that it can compute for this task."""
        ...

    def steps(self, task: Task) -> dict[str, float]:
        """Steps for the wanted moments of one matrix, by the name of the kernel in :data:`kagscope.minors.plan.RATES`."""
        ...

    def run(self, tasks: list[Task]) -> list[RouteResult | None]:
        """The wanted moments of tasks that differ only in selection; None where they cannot be distinguished from rounding."""
        ...


_ROUTES: dict[str, Route] = {}  # by class name
RouteClass = TypeVar("RouteClass", bound=type[Route])


def register(route: RouteClass) -> RouteClass:
    """Class decorator that registers a route for the chooser. Raises ValueError where its name is taken."""
    existing = _ROUTES.get(route.__name__)
    if existing is not None and type(existing).__module__ != route.__module__:
        raise ValueError(f"route {route.__name__!r} is registered twice: {type(existing).__module__} and {route.__module__}")
    _ROUTES[route.__name__] = route()
    return route


def routes_of_kind(kind: Kind, on_device: bool = False) -> tuple[Route, ...]:
    """The routes of a kind, sorted by class name; routes for devices, which come first, only if ``on_device``."""
    _import_routes(on_device)
    routes = [_ROUTES[name] for name in sorted(_ROUTES) if _ROUTES[name].kind == kind]
    on_host = [route for route in routes if not _is_of_device(type(route).__module__)]
    return (*(route for route in routes if on_device and route not in on_host), *on_host)


@lru_cache(maxsize=2)
def _import_routes(on_device: bool) -> None:
    for module in pkgutil.iter_modules(__path__):
        if on_device or not _is_of_device(module.name):
            importlib.import_module(f"{__name__}.{module.name}")


def _is_of_device(module: str) -> bool:
    return module.rpartition(".")[2].startswith("torch_")
