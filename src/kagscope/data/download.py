"""Download data sets at the user's request: verified, cached, from several mirrors in turn."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kagscope.base.errors import DataError, OutputError
from kagscope.base.messages import only_errors, reason_of
from kagscope.data.dataset import Dataset
from kagscope.data.folder import load_folder


@dataclass(frozen=True)
class Source:
    """Published files of a data set.

    Attributes:
        mirrors: URLs of folders, each ending in ``/``, tried in this order.
        md5: checksum of the published (compressed) file by file name.
        read: reads the data set from the folder of these files and its name.
        folder: folder within the cache; by default the data set's name.
    """

    mirrors: tuple[str, ...]
    md5: dict[str, str]
    read: Callable[[Path, str], Dataset] = load_folder
    folder: str | None = None

    def cache_folder(self, name: str, cache_dir: Path | None) -> Path:
        """Folder of the files; by default within the user's cache folder of the operating system."""
        import pooch

        return Path(cache_dir or pooch.os_cache("kagscope")) / (self.folder or name)


def load_download(name: str, source: Source, cache_dir: Path | None, progress: bool) -> Dataset:
    """Download missing files, verify checksums, and read the data set.

    Args:
        name: the data set's name.
        source: mirrors, checksums and reader.
        cache_dir: cache folder; by default the user's cache folder of the operating system.
        progress: show a progress bar on standard error.

    Raises:
        DataError: no mirror has the right file; the message says where to put a local copy.
        OutputError: the cache folder cannot be written.
    """
    import pooch

    folder = source.cache_folder(name, cache_dir)
    with only_errors(pooch.get_logger()):
        for file, md5 in source.md5.items():
            _fetch(name, file, md5, source.mirrors, folder, progress)
    return source.read(folder, name)


def _fetch(name: str, file: str, md5: str, mirrors: tuple[str, ...], folder: Path, progress: bool) -> None:
    """Download one verified file into ``folder``, unless pooch finds the right one there."""
    import pooch
    import requests

    failures = []
    for mirror in mirrors:
        bar = _Bar(f"{name}: {file}") if progress else False
        try:
            pooch.retrieve(
                mirror + file,
                f"md5:{md5}",
                fname=file,
                path=folder,
                downloader=pooch.HTTPDownloader(progressbar=bar, timeout=(10, 60)),
            )
        except requests.RequestException as error:
            failures.append(f"{mirror} ({type(error).__name__})")
        except ValueError:  # wrong checksum; pooch has deleted the file
            failures.append(f"{mirror} (wrong checksum)")
        except OSError as error:
            raise OutputError(
                f"cannot write the data cache {folder}: {reason_of(error)}; free or choose another folder"
            ) from error
        else:
            return
    raise DataError(
        f"could not download {file} of {name} from {', '.join(failures)}; check the network, or put {file} into {folder}, "
        "or pass a folder of your own: --data DIR"
    )


class _Bar:
    """Progress bar on standard error by rich, with the interface of tqdm that pooch expects."""

    def __init__(self, title: str) -> None:
        self.title, self.total = title, 0
        self._progress: Any = None

    def update(self, amount: int) -> None:
        """Advance by ``amount`` bytes; the first call draws the bar."""
        if self._progress is None:
            from rich.console import Console
            from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

            columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
            self._progress = Progress(*columns, console=Console(file=sys.stderr))
            self._task = self._progress.add_task(self.title, total=self.total or None)
            self._progress.start()
        self._progress.update(self._task, advance=amount)

    def reset(self) -> None:
        """Restart from zero, as pooch does before it fills the bar."""
        if self._progress is not None:
            self._progress.reset(self._task, total=self.total or None)

    def close(self) -> None:
        """Leave the bar as it is."""
        if self._progress is not None:
            self._progress.stop()
