"""Something in a user's code by name: ``"package.module:name"`` or ``"path/to/file.py:name"``. The code that is named is run."""

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
from kagscope.base.messages import close_names, listing

_FORMS = "expected package.module:factory or path/to/file.py:factory"


@contextlib.contextmanager
def named(spec: str, what: str, wanted: Callable[[Any], bool] = callable) -> Iterator[Any]:
    """What ``spec`` names, ``what`` in messages. Meanwhile the file's folder (of a module the working one) is on ``sys.path``.

    Args:
        spec: a module or a Python file, a colon, and what is in it; dots reach further (``"nets.py:Zoo.small"``).
        what: "model", "data set".
        wanted: tells what could have been meant, beside what can be called, where nothing has this name.

    Raises:
        InputError: no colon, no such module, file or name (with close ones), or code that raises (what and where).
    """
    if not isinstance(spec, str):
        raise InputError(f"the {what} is named by a {type(spec).__name__}; {_FORMS}")
    source, colon, path = spec.rpartition(":")
    if not colon or not source or not path:
        raise InputError(f"{what} {spec!r} names no module or nothing in it{_suggestion(spec)}; {_FORMS}")
    is_file = source.endswith(".py") or "/" in source or "\\" in source
    file = _existing(source) if is_file else None
    with _on_path(file.parent.resolve() if file else Path.cwd()):
        yield _attribute(_run(file) if file else _module(source), path, spec, wanted)


def call(factory: Callable[..., Any], arguments: Mapping[str, Any], spec: str) -> Any:
    """``factory(**arguments)``. Raises :class:`InputError` where they do not fit, or for what the code raises."""
    _check_signature(factory, arguments, spec)
    try:
        return factory(**arguments)
    except (Exception, SystemExit) as error:
        raise InputError(f"calling {spec} raised {_describe(error)}") from error


def _suggestion(spec: str) -> str:
    """What the file or module that was named alone defines, without running it."""
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


def _existing(source: str) -> Path:
    try:
        file = Path(source).expanduser()
        found, folder = file.is_file(), file.is_dir()
        beside = [] if found else [str(entry) for entry in file.parent.glob("*.py")]
    except (OSError, ValueError, RuntimeError) as error:  # too long a name, a NUL in it, no home
        raise InputError(f"{source!r} cannot be a file ({getattr(error, 'strerror', None) or error}); {_FORMS}") from None
    if folder:
        raise InputError(f"{source} is a folder; {_FORMS}")
    if not found:
        raise InputError(f"{source}: no such file{close_names(str(file), beside)}; {_FORMS}")
    return file


def _run(file: Path) -> ModuleType:
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


def _module(source: str) -> ModuleType:
    if not all(part.isidentifier() for part in source.split(".")):
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
    if Path(f"{name}.py").is_file():  # cannot be: it would have been imported
        return ""
    here = [entry.stem for entry in Path.cwd().iterdir() if entry.suffix == ".py" or entry.is_dir()]
    return close_names(name, {*here, *importlib.metadata.packages_distributions()})


def _attribute(module: ModuleType, path: str, spec: str, wanted: Callable[[Any], bool]) -> Any:
    found: Any = module
    walked = spec.rpartition(":")[0]
    for part in path.split("."):
        try:
            found = getattr(found, part)
        except AttributeError:
            names = [name for name in dir(found) if not name.startswith("_")]
            hint = close_names(part, names) or _offers(found, wanted)
            raise InputError(f"{walked} has no {part!r}{hint}") from None
        walked = f"{walked}.{part}"
    return found


def _offers(holder: Any, wanted: Callable[[Any], bool]) -> str:
    """What could have been meant, where no name is close: what the user's own module defines that can be called or is wanted."""
    own = getattr(holder, "__name__", None)
    names = [
        name
        for name, value in vars(holder).items()
        if not name.startswith("_") and (wanted(value) or (callable(value) and getattr(value, "__module__", None) == own))
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
    """The error's kind and message, and the last line of the user's code in it."""
    message = " ".join(str(error).split()) or "no message"
    if isinstance(error, SyntaxError):
        return f"SyntaxError: {message}"
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not _ours(frame.filename)]
    where = f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {message}{where}"


def _ours(file: str) -> bool:
    return file == __file__ or "importlib" in file
