"""Every notebook runs from its first cell to its last, and is committed with its outputs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
ALL = sorted(NOTEBOOKS.glob("*.ipynb"))


def test_there_are_notebooks() -> None:
    assert len(ALL) >= 4


@pytest.mark.parametrize("path", ALL, ids=lambda path: path.stem)
def test_a_notebook_is_committed_with_the_outputs_of_a_run(path: Path) -> None:
    cells = json.loads(path.read_text())["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1)), "run it from top to bottom"
    kinds = [output["output_type"] for cell in code for output in cell["outputs"]]
    assert not {"error"} & set(kinds)
    assert any("image/png" in output.get("data", {}) for cell in code for output in cell["outputs"])
    assert cells[0]["cell_type"] == "markdown" and cells[0]["source"][0].startswith("# ")


@pytest.mark.parametrize("path", ALL, ids=lambda path: path.stem)
def test_a_notebook_stays_small_and_names_nothing_of_its_machine(path: Path) -> None:
    assert path.stat().st_size < 600_000
    texts = [text for cell in json.loads(path.read_text())["cells"] for text in _texts(cell)]
    places = ("/tmp/", "/home/", "/root/", "site-packages")
    assert not [text for text in texts if any(place in text for place in places)]


def _texts(cell: dict[str, Any]) -> Iterator[str]:
    for output in cell.get("outputs", []):
        yield "".join(output.get("text", []))
        yield "".join(output.get("data", {}).get("text/plain", []))


@pytest.mark.parametrize("path", ALL, ids=lambda path: path.stem)
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the Jupyter client, about its own future
@pytest.mark.filterwarnings("ignore::ResourceWarning")  # its sockets, closed after the kernel has ended
def test_a_notebook_runs(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nbclient = pytest.importorskip("nbclient", reason="needs the notebooks extra")
    nbformat = pytest.importorskip("nbformat", reason="needs the notebooks extra")
    pytest.importorskip("ipykernel", reason="needs the notebooks extra")
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    book = nbformat.read(path, as_version=4)
    nbclient.NotebookClient(book, timeout=240, resources={"metadata": {"path": str(tmp_path)}}).execute()
    pictures = [
        output for cell in book.cells for output in cell.get("outputs", []) if "image/png" in output.get("data", {})
    ]
    assert pictures, "shows nothing"
