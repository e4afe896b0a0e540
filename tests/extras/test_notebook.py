"""The Python API in a real notebook kernel."""

from pathlib import Path

import pytest

from tests.conftest import Draw


def outputs_of(code: str) -> str:
    """Everything that a notebook of one cell shows, as text."""
    client = pytest.importorskip("nbclient", reason="nbclient is not installed")
    nbformat = pytest.importorskip("nbformat", reason="nbformat is not installed")
    pytest.importorskip("ipykernel", reason="ipykernel is not installed")
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)])
    client.NotebookClient(notebook, timeout=600, startup_timeout=600, iopub_timeout=600).execute()
    return str(notebook.cells[0].outputs)


def test_a_notebook_shows_a_progress_bar_and_the_table(tiny_engine: Path, tmp_path: Path, field: Draw) -> None:
    for number in range(3):
        field(tmp_path / "slides" / f"{number}.jpg", number)

    shown = outputs_of(
        "from batchcls import Engine, run\n"
        f"with Engine.load({str(tiny_engine)!r}, device='cpu') as engine:\n"
        f"    table = engine.predict([{str(tmp_path / 'slides' / '0.jpg')!r}] * 5)\n"
        f"stats = run({str(tmp_path / 'slides')!r}, engine={str(tiny_engine)!r}, "
        f"out={str(tmp_path / 'o.parquet')!r}, device='cpu')\n"
        "print(len(table), 'rows and', stats.rows)"
    )

    assert '<progress value="5" max="5">' in shown
    assert "5 rows and 3" in shown
    assert "Traceback" not in shown
