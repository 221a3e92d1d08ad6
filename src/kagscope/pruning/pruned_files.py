"""Write a pruned model to files that load without kagscope."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import nn

from kagscope.base.errors import OutputError
from kagscope.base.files import atomic_path, atomic_write, make_folder
from kagscope.base.messages import reason_of
from kagscope.jacobians.inputs import Inputs
from kagscope.jacobians.model_checks import short
from kagscope.loading.weights import save_weights
from kagscope.pruning.pruning import Pruning
from kagscope.pruning.surgery import SIZES

WEIGHTS, REPORT, PROGRAM, REBUILD = "weights.safetensors", "report.json", "model.pt2", "model.py"

REBUILDER = '''"""The pruned model, rebuilt from the one it was made from. Needs torch and safetensors, nothing else.

    import model
    smaller = model.load(my_model())   # my_model() returns the original architecture; its weights do not matter
"""

from pathlib import Path

from safetensors.torch import load_file
from torch import nn

PARAMETERS = {parameters}
SIZES = {sizes}


def load(original, weights=Path(__file__).with_name("{weights}")):
    """Change ``original`` in place into the pruned model, with its weights, and return it."""
    state = load_file(weights)
    for name, tensor in state.items():
        path, _, attribute = name.rpartition(".")
        owner = original.get_submodule(path)
        old = getattr(owner, attribute)
        if old is None or old.shape != tensor.shape:
            setattr(owner, attribute, nn.Parameter(tensor) if name in PARAMETERS else tensor)
    for path, sizes in SIZES.items():
        for attribute, size in sizes.items():
            setattr(original.get_submodule(path), attribute, size)
    original.load_state_dict(state)
    return original
'''


def save_pruned(
    folder: str | os.PathLike[str], smaller: nn.Module, pruning: Pruning, curve: pd.DataFrame | None = None
) -> dict[str, Any]:
    """Write a pruned model and its report.

    The folder will hold ``weights.safetensors``; ``model.py``, which turns the original architecture into the smaller one and
    loads these weights; ``model.pt2``, a program for ``torch.export.load`` that needs no code of the model (inference, in eval
    mode, any number of points), if PyTorch can export the model; and ``report.json``.

    Args:
        folder: a new or empty folder.
        smaller: the model returned by :func:`~kagscope.pruning.prune.prune`, not changed.
        pruning: the report returned with it.
        curve: curve of the report, to be included.

    Returns:
        Content of ``report.json``: the report's numbers, and the name of the exported program or the reason for its absence.

    Raises:
        OutputError: the folder is not empty or cannot be written.
    """
    folder = make_folder(check_new(folder))
    traced = pruning.traced
    state = {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format) for name, tensor in smaller.state_dict().items()
    }
    save_weights(folder / WEIGHTS, state)
    parameters = {name for name, _ in smaller.named_parameters(remove_duplicate=False)} & set(state)
    sizes = _table(_changed_sizes(traced.source, smaller))
    text = REBUILDER.format(parameters=_set_literal(parameters), sizes=sizes, weights=WEIGHTS)
    atomic_write(folder / REBUILD, text)
    failure = _export(folder / PROGRAM, smaller, traced.sample)
    report = pruning.as_json() | {
        "program": PROGRAM if not failure else None,
        "program_failure": failure,
        "curve": None if curve is None else json.loads(curve.to_json(orient="records", double_precision=15)),
    }
    atomic_write(folder / REPORT, json.dumps(report, indent=1, allow_nan=False) + "\n")
    return report


def check_new(folder: str | os.PathLike[str]) -> Path:
    """Check that the folder is empty or missing, without creating it. Raises :class:`OutputError`."""
    folder = Path(folder)
    try:
        str(folder).encode()
        if folder.exists() and any(folder.iterdir()):
            raise OutputError(f"{folder}: holds files already; choose a new or an empty folder")
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name, or undecodable bytes
        raise OutputError(f"{folder}: {reason_of(error)}; choose a new or an empty folder") from error
    return folder


def _changed_sizes(before: nn.Module, after: nn.Module) -> dict[str, dict[str, int]]:
    """Size attributes that differ, by module name."""
    old = dict(before.named_modules())
    sizes: dict[str, dict[str, int]] = {}
    for name, module in after.named_modules():
        for attribute in (*SIZES["made"], *SIZES["read"]):
            size = getattr(module, attribute, None)
            if isinstance(size, int) and size != getattr(old[name], attribute):
                sizes.setdefault(name, {})[attribute] = size
    return sizes


def _set_literal(names: set[str]) -> str:
    return "{\n" + "".join(f"    {name!r},\n" for name in sorted(names)) + "}"


def _table(entries: dict[str, Any]) -> str:
    return "{\n" + "".join(f"    {name!r}: {value!r},\n" for name, value in entries.items()) + "}"


def _export(target: Path, model: nn.Module, sample: Inputs) -> str:
    """Write an exported program; return the reason if PyTorch cannot export the model."""
    modes = {name: module.training for name, module in model.named_modules()}
    model.eval()
    batch = torch.export.Dim("points")

    if sample.count == 1:  # an axis of length 1 would be fixed in the program
        sample = sample.take([0, 0])

    def axes(value: Any) -> Any:
        return {0: batch} if isinstance(value, torch.Tensor) else None

    named = {name: axes(value) for name, value in sample.kwargs.items()}
    try:
        with torch.no_grad():
            program = torch.export.export(
                model, sample.args, sample.kwargs, dynamic_shapes=named or tuple(map(axes, sample.args))
            )
        with atomic_path(target) as temporary:
            torch.export.save(program, temporary)
    except Exception as error:
        if isinstance(error, OutputError):
            raise
        return f"PyTorch cannot export this model: {short(error, 300)}"
    finally:
        for name, module in model.named_modules():
            module.training = modes[name]
    return ""
