"""The cells that are shipped with this package, found by name. Any other text is taken as the path of a cell file."""

from __future__ import annotations

from pathlib import Path

from soc.cell.parameters import CellParameters
from soc.cell.toml_file import load
from soc.errors import CellError

FOLDER = Path(__file__).parents[1] / "cells"


def names() -> list[str]:
    """Return the names of the shipped cells."""
    return sorted(path.stem for path in FOLDER.glob("*.toml"))


def path_of(name: str) -> Path:
    """Return the file of a shipped cell, or `name` itself as a path. Raises `CellError` if no such file exists."""
    path = Path(name) if name.endswith(".toml") else FOLDER / f"{name}.toml"
    if not path.is_file():
        raise CellError(
            f"no cell {name!r}: expected {', '.join(names()) or 'a shipped name'}, or the path of a .toml file"
        )
    return path


def cell(name: str) -> CellParameters:
    """Return the cell of this name or path. Raises `CellError` that names the file and each wrong key."""
    return load(path_of(name))
