"""The cells that come with this package, by name; anything else is a path to a cell file."""

from __future__ import annotations

from pathlib import Path

from soc.cell.parameters import CellParameters
from soc.cell.toml_file import load
from soc.errors import CellError

FOLDER = Path(__file__).parents[1] / "cells"


def names() -> list[str]:
    """The names of the shipped cells."""
    return sorted(path.stem for path in FOLDER.glob("*.toml"))


def path_of(name: str) -> Path:
    """The file of a shipped cell, or the file that `name` is the path of. Raises `CellError` if there is neither."""
    path = Path(name) if name.endswith(".toml") else FOLDER / f"{name}.toml"
    if not path.is_file():
        raise CellError(
            f"no cell {name!r}: expected {', '.join(names()) or 'a shipped name'}, or the path of a .toml file"
        )
    return path


def cell(name: str) -> CellParameters:
    """The cell of this name or path. Raises `CellError` naming the file and each wrong key."""
    return load(path_of(name))
