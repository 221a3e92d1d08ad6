"""Published models by name: ``hf:NAME`` (transformers) or ``timm:NAME``. Only safetensors are read; no remote code is run."""

from __future__ import annotations

import hashlib
import importlib
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from kagscope.base.errors import InputError
from kagscope.base.messages import close_names, listing, only_errors
from kagscope.loading.fitting import load_into
from kagscope.loading.weights import load_state

LIBRARIES = {"hf": "transformers", "timm": "timm"}
ABSENT = frozenset({"RepositoryNotFoundError", "GatedRepoError", "HFValidationError", "RevisionNotFoundError"})
UNREACHABLE = frozenset(
    {"LocalEntryNotFoundError", "OfflineModeIsEnabled", "ConnectError", "ConnectionError", "TimeoutException", "Timeout"}
)
ANSWER_SECONDS = 10.0


@dataclass(frozen=True)
class PublishedModel:
    """A model in eval mode and the ``revision`` of its weights: a commit of the hub, or a hash of a folder's files."""

    model: nn.Module
    revision: str


def is_published(spec: str) -> bool:
    """Whether a model's name begins with ``hf:`` or ``timm:``."""
    return spec.partition(":")[0] in LIBRARIES and ":" in spec


def load_published(spec: str, arguments: Mapping[str, Any] | None = None) -> PublishedModel:
    """Load ``hf:NAME``, ``hf:FOLDER`` or ``timm:NAME`` from the local cache or by the library's own download.

    Args:
        spec: the name, after ``hf:`` as ``AutoModel.from_pretrained`` takes it (a folder is one of ``save_pretrained``), after
            ``timm:`` as ``timm.create_model`` does.
        arguments: only ``revision``: a commit, branch or tag.

    Raises:
        InputError: the library is missing, the name is unknown, there are no safetensors, or there is no network.
    """
    kind, _, name = spec.partition(":")
    options = dict(arguments or {})
    if other := sorted(options.keys() - {"revision"}):
        raise InputError(f"{spec} takes no argument {listing(other)}; expected revision alone")
    if not name:
        raise InputError(f"{spec} names no model; expected a name after the colon, such as hf:prajjwal1/bert-tiny")
    try:
        library = importlib.import_module(LIBRARIES[kind])
    except ImportError:
        raise InputError(f"{spec} needs {LIBRARIES[kind]}, which is not installed; pip install {LIBRARIES[kind]}") from None
    revision = None if options.get("revision") is None else str(options["revision"])
    with only_errors(logging.getLogger("huggingface_hub")):  # without a network it warns at each retry
        return _load_timm(library, spec, name, revision) if kind == "timm" else _load_transformers(library, spec, name, revision)


def _load_transformers(library: Any, spec: str, name: str, revision: str | None) -> PublishedModel:
    folder = Path(name).expanduser()
    is_folder = folder.is_dir()
    options: dict[str, Any] = {} if revision is None else {"revision": revision}
    if not is_folder and not _hub_answers(name, revision):
        options["local_files_only"] = True
    try:
        model = library.AutoModel.from_pretrained(
            str(folder) if is_folder else name, use_safetensors=True, trust_remote_code=False, **options
        )
    except Exception as error:  # hub, configuration and file errors differ between libraries
        raise InputError(f"{spec}: {_reason(error)}") from error
    if is_folder:
        return PublishedModel(model.eval(), _digest(folder))
    file = importlib.import_module("huggingface_hub").try_to_load_from_cache(name, "config.json", revision=revision)
    return PublishedModel(model.eval(), Path(file).parent.name if isinstance(file, str) else revision or "unknown")


def _load_timm(library: Any, spec: str, name: str, revision: str | None) -> PublishedModel:
    """Build the model without weights and read its safetensors here, as timm itself falls back to pickles."""
    try:
        model = library.create_model(name, pretrained=False)
    except Exception as error:
        close = close_names(name, library.list_models())
        raise InputError(f"{spec}: timm cannot make it{close} ({_first_line(error)})") from error
    hub = importlib.import_module("huggingface_hub")
    hub_id = model.pretrained_cfg.get("hf_hub_id")
    if not hub_id:
        raise InputError(f"{spec}: timm knows no safetensors for it; expected one of timm.list_models(pretrained=True)")
    try:
        cached = not _hub_answers(hub_id, revision)
        file = Path(hub.hf_hub_download(hub_id, "model.safetensors", revision=revision, local_files_only=cached))
    except Exception as error:
        raise InputError(f"{spec}: {_reason(error)}") from error
    load_into(model, load_state(file), spec)
    return PublishedModel(model.eval(), file.parent.name)


def _hub_answers(name: str, revision: str | None) -> bool:
    """Ask the hub once whether it is there: without a network its library tries every file six times, within 23 seconds."""
    hub = importlib.import_module("huggingface_hub")
    try:
        hub.HfApi().model_info(name, revision=revision, timeout=ANSWER_SECONDS)
    except Exception as error:  # that of an unknown name is told when it is loaded
        return not _kinds(error) & UNREACHABLE
    return True


def _kinds(error: BaseException) -> set[str]:
    """Names of the classes of an error and of those that caused it."""
    return {kind.__name__ for cause in _chain(error) for kind in type(cause).__mro__}


def _reason(error: BaseException) -> str:
    """Reason why a model could not be loaded, in one line, from the chain of errors."""
    names = _kinds(error)
    if names & ABSENT:
        return "no such model or revision on the Hugging Face Hub, or one that needs a login; expected OWNER/NAME or a folder"
    if names & UNREACHABLE:
        return "not in the local cache, and the Hugging Face Hub cannot be reached; download it where there is a network"
    return _first_line(error)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def _digest(folder: Path) -> str:
    """SHA-256 of the configuration and weights in a folder."""
    hasher = hashlib.sha256()
    for file in (folder / "config.json", *sorted(folder.glob("*.safetensors"))):
        with file.open("rb") as stream:
            hasher.update(hashlib.file_digest(stream, "sha256").digest())
    return f"sha256:{hasher.hexdigest()}"
