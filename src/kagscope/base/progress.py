"""Progress on standard error: a bar on a terminal, else an occasional line."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

LINE_EVERY = 10.0  # seconds between lines where there is no terminal
Say = Callable[[str], None]


class Tell(Protocol):
    """Receives what is being done and the fraction of the whole that is done; None for a separate line."""

    def __call__(self, text: str, share: float | None = None) -> None: ...


def silent(text: str, share: float | None = None) -> None:
    """Ignore progress."""


def partial_progress(tell: Tell, index: int, of: int) -> Tell:
    """Progress of part ``index`` of ``of`` equal parts, as fractions of the whole."""
    return lambda text, share=None: tell(text, None if share is None else (index + share) / of)


@contextmanager
def report_progress(progress: bool | Say | None) -> Iterator[Tell]:
    """Report progress to a given function, each text once; nowhere (False); else to standard error."""
    if callable(progress):
        yield _skip_repeats(progress)
    elif progress is False:
        yield silent
    else:
        with _progress_bar() as tell:
            yield tell


def _skip_repeats(say: Say) -> Tell:
    last = ""

    def tell(text: str, share: float | None = None) -> None:
        nonlocal last
        if text != last:
            last = text
            say(text)

    return tell


@contextmanager
def _progress_bar() -> Iterator[Tell]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn
    from rich.text import Text

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}", markup=False), BarColumn(28), TaskProgressColumn(), TimeElapsedColumn())
    bar = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
    task = bar.add_task("measuring", total=1.0)
    last = time.monotonic()

    def tell(text: str, share: float | None = None) -> None:
        nonlocal last
        now = time.monotonic()
        if share is not None:
            bar.update(task, description=f"measuring {text}", completed=share)
        if share is None or (now - last > LINE_EVERY and not console.is_terminal):
            last = now
            console.print(
                Text(text if share is None else f"[{100 * share:.0f}%] measuring {text}"), highlight=False, soft_wrap=True
            )

    with bar:
        yield tell
