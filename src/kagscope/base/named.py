"""Load an object from a user's code by name: ``"package.module:name"`` or ``"path/to/file.py:name"``. The code is run."""

from __future__ import annotations

import ast
import contextlib
import hashlib
import importlib
import importlib.metadata
import importlib.util
import inspect
import pkgutil
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from kagscope.base.errors import InputError
from kagscope.base.messages import close_names, listing, reason_of

_FORMS = "expected package.module:factory or path/to/file.py:factory"


@contextlib.contextmanager
def resolve_name(spec: str, what: str, fits: Callable[[Any], bool] = callable) -> Iterator[Any]:
    """Load what ``spec`` names; the file's folder (for a module the working one) is on ``sys.path`` meanwhile.

    Args:
        spec: a module or a Python file, a colon, and a name in it, possibly dotted (``"nets.py:Zoo.small"``).
        what: noun for messages: "model", "data set".
        fits: selects candidates to suggest, besides callables, if nothing has this name.

    Raises:
        InputError: no colon, no such module, file or name (with close ones), or code that raises (what and where).
    """
    if not isinstance(spec, str):
        raise InputError(f"the {what} is named by a {type(spec).__name__}; {_FORMS}")
    source, colon, path = spec.rpartition(":")
    if not colon or not source or not path:
        raise InputError(f"{what} {spec!r} names no module or nothing in it{_suggestion(spec)}; {_FORMS}")
    is_file = source.endswith(".py") or "/" in source or "\\" in source
    file = _find_file(source) if is_file else None
    with _on_path(file.parent.resolve() if file else Path.cwd()):
        yield _walk(_run_file(file) if file else _import_module(source), path, spec, fits)


def call_factory(factory: Callable[..., Any], arguments: Mapping[str, Any], spec: str) -> Any:
    """Return ``factory(**arguments)``. Raises :class:`InputError` if the arguments do not fit or the code raises."""
    _check_signature(factory, arguments, spec)
    try:
        return factory(**arguments)
    except (Exception, SystemExit) as error:
        raise InputError(f"calling {spec} raised {_describe(error)}") from error


def _suggestion(spec: str) -> str:
    """List what a file named without a colon defines, without running it."""
    file = Path(spec.rstrip(":")).expanduser()
    with contextlib.suppress(OSError, ValueError, SyntaxError):
        if file.suffix == ".py" and file.is_file():
            kinds = (ast.FunctionDef, ast.ClassDef)
            names = [node.name for node in ast.parse(file.read_text()).body if isinstance(node, kinds)]
            public = [name for name in names if not name.startswith("_")]
            return f"; {file} defines {listing(public)}" if public else ""
    return ""


@contextlib.contextmanager
def _on_path(folder: Path) -> Iterator[None]:
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):  # the code removed it itself
            sys.path.remove(str(folder))


def _find_file(source: str) -> Path:
    try:
        file = Path(source).expanduser()
        exists, folder = file.is_file(), file.is_dir()
        beside = [] if exists else [str(entry) for entry in file.parent.glob("*.py")]
    except (OSError, ValueError, RuntimeError) as error:  # too long a name, a NUL in it, no home
        raise InputError(f"{source!r} cannot be a file ({reason_of(error)}); {_FORMS}") from None
    if folder:
        raise InputError(f"{source} is a folder; {_FORMS}")
    if not exists:
        raise InputError(f"{source}: no such file{close_names(str(file), beside)}; {_FORMS}")
    return file


def _run_file(file: Path) -> ModuleType:
    digest = hashlib.sha256(str(file.resolve()).encode()).hexdigest()[:8]
    name = f"_kagscope_{file.stem}_{digest}"  # a name that no import statement can mean
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise InputError(f"{file} is no Python file; {_FORMS}")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pickle look their module up there
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise InputError(f"running {file} raised {_describe(error)}") from error
    return module


def _import_module(source: str) -> ModuleType:
    if not all(word.isidentifier() for word in source.split(".")):
        raise InputError(f"{source!r} is not the name of a module (parts with dots between them); {_FORMS}")
    try:
        return importlib.import_module(source)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{source}.".startswith(f"{error.name}."):
            raise InputError(f"importing {source} raised {_describe(error)}; install what it needs") from error
        raise InputError(f"no module {error.name!r}{_close_module(error.name)}; {_FORMS}") from None
    except (Exception, SystemExit) as error:
        raise InputError(f"importing {source} raised {_describe(error)}") from error


def _close_module(name: str) -> str:
    parent, _, last = name.rpartition(".")
    if parent:
        inside = getattr(sys.modules.get(parent), "__path__", [])
        return close_names(last, [info.name for info in pkgutil.iter_modules(inside)])
    here = [entry.stem for entry in Path.cwd().iterdir() if entry.suffix == ".py" or entry.is_dir()]
    return close_names(name, {*here, *importlib.metadata.packages_distributions()})


def _walk(module: ModuleType, path: str, spec: str, fits: Callable[[Any], bool]) -> Any:
    value: Any = module
    reached = spec.rpartition(":")[0]
    for name in path.split("."):
        try:
            value = getattr(value, name)
        except AttributeError:
            names = [name for name in dir(value) if not name.startswith("_")]
            hint = close_names(name, names) or _list_candidates(value, fits)
            raise InputError(f"{reached} has no {name!r}{hint}") from None
        reached = f"{reached}.{name}"
    return value


def _list_candidates(holder: Any, fits: Callable[[Any], bool]) -> str:
    """List what the user's module defines that is callable or fits, for when no name is close."""
    module_name = getattr(holder, "__name__", None)
    names = [
        name
        for name, value in vars(holder).items()
        if not name.startswith("_") and (fits(value) or (callable(value) and getattr(value, "__module__", None) == module_name))
    ]
    return f"; it has {listing(names)}" if names else ""


def _check_signature(factory: Any, arguments: Mapping[str, Any], spec: str) -> None:
    try:
        signature = inspect.signature(factory)
    except (TypeError, ValueError):  # some built-in callables tell nothing
        return
    try:
        signature.bind(**arguments)
    except TypeError as error:
        names = list(signature.parameters)
        unknown = [name for name in arguments if name not in names]
        hint = close_names(unknown[0], names) if unknown else ""
        raise InputError(
            f"{spec} cannot be called with {listing(arguments) or 'no arguments'} ({error}){hint}; its parameters are "
            f"({listing(map(str, signature.parameters.values()), 12)}): give what it needs as arguments, or name a function that "
            "needs none"
        ) from None


def _describe(error: BaseException) -> str:
    """The error's type and message, and the last line of the user's code in its traceback."""
    message = " ".join(str(error).split()) or "no message"
    if isinstance(error, SyntaxError):
        return f"SyntaxError: {message}"
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not _is_importer(frame.filename)]
    location = f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {message}{location}"


def _is_importer(file: str) -> bool:
    return file == __file__ or "importlib" in file
