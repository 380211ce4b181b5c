"""The command as a shell calls it, and a simulated recording as its input."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from soc import simulate
from soc.cell import toml_file
from soc.cell.ocv import Ocv
from soc.cell.parameters import CellParameters
from soc.cli import main

Array = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True)
class Called:
    """The outputs and exit code of a command."""

    code: int
    out: str
    err: str

    @property
    def told(self) -> list[dict[str, Any]]:
        """The JSON lines on standard error."""
        return [json.loads(line) for line in self.err.splitlines() if line.startswith("{")]


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Callable[..., Called]:
    """Calls `soc …` in this process."""

    def run(*arguments: object) -> Called:
        monkeypatch.setattr("sys.argv", ["soc", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        said = capfd.readouterr()
        code = ended.value.code
        return Called(code if isinstance(code, int) else 0, said.out, said.err)

    return run


@pytest.fixture(scope="session")
def cell() -> CellParameters:
    """A 3 Ah cell whose OCV curve is nowhere flat."""
    curve = Ocv.of_points([0, 0.1, 0.5, 0.9, 1], [3.0, 3.4, 3.7, 4.05, 4.2])
    return CellParameters.plain("toy", 3.0, curve, 0.02, [(0.015, 20.0), (0.01, 200.0)], m_v=0.005, gamma=100.0)


@pytest.fixture(scope="session")
def cell_file(cell: CellParameters, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("cells") / "toy.toml"
    toml_file.save(cell, path)
    return path


@pytest.fixture(scope="session")
def truth(cell: CellParameters) -> dict[str, Array]:
    """Half an hour of changing load, from 80 % state of charge."""
    time_s = np.arange(1800.0)
    current_a = np.select([time_s % 60 < 20, time_s % 60 < 40], [-3.0, 1.0], -0.5)
    series, soc = simulate(cell, time_s, current_a, 25.0, 0.8)
    names = ("time_s", "current_a", "voltage_v", "temperature_degc")
    return {**{name: getattr(series, name).copy() for name in names}, "soc_ref": soc}


@pytest.fixture
def recording(truth: dict[str, Array], tmp_path: Path) -> Callable[..., Path]:
    """Writes the recording as CSV, with other columns where they are given (None: without it)."""

    def write(name: str = "drive.csv", header: dict[str, Any] | None = None, **other: Array | None) -> Path:
        columns = {key: value for key, value in {**truth, **other}.items() if value is not None}
        lines = [f"# {json.dumps(header)}"] if header is not None else []
        lines.append(",".join(columns))
        lines += [",".join(f"{v:.9g}" for v in row) for row in zip(*columns.values(), strict=True)]
        path = tmp_path / name
        path.write_text("\n".join(lines) + "\n")
        return path

    return write
