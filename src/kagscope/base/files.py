"""Write files atomically, and only into folders of our own."""

from __future__ import annotations

import contextlib
import os
import re
import stat
import tempfile
import time
from collections.abc import Iterator
from io import BufferedReader
from pathlib import Path

from kagscope.base.errors import DataError, InputError, OutputError
from kagscope.base.messages import reason_of

UNFINISHED = 600.0  # seconds
_TEMPORARY = re.compile(r"\..+\.[a-z0-9_]{8}(\.\w+)?")
LFS_POINTER = b"version https://git-lfs.github.com/spec/"


@contextlib.contextmanager
def atomic_path(target: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path beside ``target``; on success it is flushed to disk and renamed over ``target``.

    Raises:
        OutputError: The folder cannot be written, the disk is full, or ``target`` is a folder, FIFO or device; it is unchanged.
    """
    target = Path(target)
    check_replaceable(target)
    try:
        handle, name = tempfile.mkstemp(prefix=f".{target.name}.", suffix=target.suffix, dir=target.parent)
        os.close(handle)
    except OSError as error:
        raise OutputError(f"cannot write {target}: {reason_of(error)}; choose a folder that can be written") from error
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(target)
    except OSError as error:
        raise OutputError(f"cannot write {target}: {reason_of(error)}; free some space or choose another folder") from error
    finally:
        temporary.unlink(missing_ok=True)


def clear_unfinished(folder: Path) -> None:
    """Remove temporary files of :func:`atomic_path` left by writers that died."""
    for entry in folder.glob(".*"):
        with contextlib.suppress(OSError):
            if _TEMPORARY.fullmatch(entry.name) and entry.is_file() and time.time() - entry.stat().st_mtime > UNFINISHED:
                entry.unlink()


def check_replaceable(target: Path) -> None:
    """Raise :class:`OutputError` if ``target`` is not a plain file, such as ``/dev/null``, which a file would replace."""
    try:
        str(target).encode()
        mode = target.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):  # left to the code that uses the folder
        return
    except (OSError, ValueError) as error:  # ValueError: a NUL, or bytes that are no text
        raise OutputError(f"cannot write {target}: {reason_of(error)}; choose another name") from error
    if not stat.S_ISREG(mode):
        raise OutputError(f"cannot write {target}: it is {_kind(mode)}; give a plain file, or a new one")


def _kind(mode: int) -> str:
    return "a folder" if stat.S_ISDIR(mode) else "a FIFO" if stat.S_ISFIFO(mode) else "a device"


def atomic_write(target: str | os.PathLike[str], content: str | bytes) -> None:
    """Write ``content`` (text as UTF-8) to ``target`` at once or not at all. Raises :class:`OutputError`."""
    data = content.encode() if isinstance(content, str) else content
    with atomic_path(target) as temporary:
        temporary.write_bytes(data)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def open_regular(path: str | os.PathLike[str]) -> BufferedReader:
    """Open a plain file to read bytes, without hanging on a FIFO or reading from a device.

    Raises:
        DataError: missing, a folder, FIFO or device, not readable, or a Git LFS pointer in place of the file.
    """
    path = Path(path)
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file; check the name") from error
    except (OSError, ValueError) as error:
        kind = "a folder" if path.is_dir() else reason_of(error)
        raise DataError(f"{path}: cannot be opened ({kind}); expected a file that can be read") from error
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        os.close(descriptor)
        raise DataError(f"{path}: is {_kind(mode)}; expected a plain file")
    stream = os.fdopen(descriptor, "rb")
    if stream.peek(len(LFS_POINTER)).startswith(LFS_POINTER):
        stream.close()
        raise DataError(f"{path}: is a Git LFS pointer and not the file itself; fetch the file, such as by git lfs pull")
    return stream


@contextlib.contextmanager
def writing_in(folder: Path, advice: str) -> Iterator[None]:
    """Turn what the system refuses within the block into :class:`OutputError`, with advice on what to do."""
    try:
        yield
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise OutputError(f"cannot write in {folder}: {reason_of(error)}; {advice}") from error


def make_folder(folder: str | os.PathLike[str]) -> Path:
    """Make a folder unless it exists. Raises :class:`OutputError`."""
    path = Path(folder)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise OutputError(f"cannot make the folder {path}: {reason_of(error)}; choose one that can be written") from error
    return path


def holds_mark(folder: str | os.PathLike[str], mark: str, *, otherwise: str, instead: str) -> bool:
    """Whether ``folder`` holds the file ``mark``; False if it is new or empty. Nothing is written.

    An interrupted start leaves at most an unfinished temporary file of ``mark``: such a folder counts as empty.

    Args:
        folder: where something is to be written.
        mark: name of the file that identifies our folders.
        otherwise: phrase for a folder that holds only other files, such as "holds no kagscope study".
        instead: advice for a folder that cannot be used.

    Raises:
        InputError: ``folder`` is not a path.
        OutputError: It is a file, unreadable, or holds something else.
    """
    if not isinstance(folder, str | os.PathLike):
        raise InputError(f"{folder!r:.80} is no path of a folder; {instead}")
    path = Path(folder)
    try:
        str(path).encode()
        if path.exists() and not path.is_dir():
            raise OutputError(f"{path} is a file, but the output must be a folder; {instead}")
        names = {entry.name for entry in path.iterdir()} if path.exists() else set()
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name, or bytes that are no text
        raise OutputError(f"cannot read {path}: {reason_of(error)}; {instead}") from error
    foreign = sorted(name for name in names if not name.startswith(f".{mark}."))
    if foreign and mark not in names:
        raise OutputError(f"{path} is not empty and {otherwise} (found {', '.join(foreign[:3])}); {instead}")
    return mark in names
