"""The notebooks run from their text form, at reduced size; what is committed as .ipynb was made from that text."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(
    not all(find_spec(name) for name in ("jupytext", "nbclient", "transformers", "ipykernel")), reason="no notebooks here"
)

FOLDER = Path(__file__).resolve().parents[1] / "docs" / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.py"))
LARGEST = 1_500_000  # bytes


@pytest.mark.slow
@pytest.mark.parametrize("source", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_runs(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    jupytext, nbclient = import_module("jupytext"), import_module("nbclient")

    monkeypatch.setenv("KAGSCOPE_QUICK", "1")
    notebook = jupytext.read(source)
    nbclient.NotebookClient(notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": str(FOLDER)}}).execute()
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    assert not [output for output in outputs if output.output_type == "error"]
    assert any("image/png" in output.get("data", {}) for output in outputs)


@pytest.mark.parametrize("source", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_executed_notebook_is_that_of_the_text(source: Path) -> None:
    jupytext = import_module("jupytext")
    written = source.with_suffix(".ipynb")
    assert written.stat().st_size < LARGEST
    cells = jupytext.read(written).cells
    assert [(cell.cell_type, cell.source) for cell in cells] == [
        (cell.cell_type, cell.source) for cell in jupytext.read(source).cells
    ]
    code = [cell for cell in cells if cell.cell_type == "code"]
    assert all(cell.execution_count for cell in code)
    assert not [output for cell in code for output in cell.outputs if output.output_type == "error"]
