"""examples/quickstart.ipynb: its outputs are stored, and it runs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

NOTEBOOK = Path(__file__).parents[2] / "examples" / "quickstart.ipynb"


def outputs(cells: list[dict]) -> list[dict]:
    return [output for cell in cells for output in cell.get("outputs", [])]


def test_its_outputs_are_stored():
    cells = json.loads(NOTEBOOK.read_text())["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    assert sum("image/png" in output.get("data", {}) for output in outputs(cells)) == 2
    assert not any(output["output_type"] == "error" for output in outputs(cells))
    assert NOTEBOOK.stat().st_size < 300_000


@pytest.mark.slow
def test_it_runs(tmp_path):
    reason = "needs nbclient and ipykernel: pip install 'lcg[notebook]'"
    nbclient = pytest.importorskip("nbclient", reason=reason)
    pytest.importorskip("ipykernel", reason=reason)
    import nbformat

    notebook = nbformat.read(NOTEBOOK, as_version=4)
    where = {"metadata": {"path": str(tmp_path)}}
    nbclient.NotebookClient(notebook, timeout=3600, resources=where).execute()  # raises on errors
    assert sum("image/png" in output.get("data", {}) for output in outputs(notebook.cells)) == 2
    assert len(list((tmp_path / "runs").iterdir())) == 2
