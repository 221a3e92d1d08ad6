"""Whether a folder may be written to: new, empty, or ours, known by a file that says what it holds."""

from __future__ import annotations

import os
from pathlib import Path

from kagscope.base.errors import OutputError


def is_ours(folder: str | os.PathLike[str], mark: str, *, otherwise: str, instead: str) -> bool:
    """Whether ``folder`` holds the file ``mark``; False where it is new or empty. Nothing is written.

    An interrupted start leaves at most an unfinished temporary file of ``mark``: such a folder counts as empty.

    Args:
        folder: where something is to be written.
        mark: name of the file by which our folders are known.
        otherwise: what to say of a folder with other files alone, such as "holds no kagscope study".
        instead: what to do about a folder that cannot be used.

    Raises:
        OutputError: a file, not readable, or somebody else's folder.
    """
    path = Path(folder)
    try:
        if path.exists() and not path.is_dir():
            raise OutputError(f"{path} is a file, but the output must be a folder; {instead}")
        names = {entry.name for entry in path.iterdir()} if path.exists() else set()
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise OutputError(f"cannot read {path}: {getattr(error, 'strerror', error)}; {instead}") from error
    foreign = sorted(name for name in names if not name.startswith(f".{mark}."))
    if foreign and mark not in names:
        raise OutputError(f"{path} is not empty and {otherwise} (found {', '.join(foreign[:3])}); {instead}")
    return mark in names
