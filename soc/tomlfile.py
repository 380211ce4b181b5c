"""Read hand-written TOML files: the result is a document, or an error that names the file."""

from __future__ import annotations

import tomllib
from typing import Any

from soc.errors import CellError
from soc.files import PathLike, shown, text_of

SHOWN_CHARACTERS = 60


def document_of(path: PathLike) -> dict[str, Any]:
    """Return the document in this file. Raises `CellError` if it is not TOML, `FileError` if it cannot be read."""
    try:
        return parsed(text_of(path))
    except (CellError, UnicodeDecodeError) as error:
        raise CellError(f"{shown(path)}: not TOML: {error}") from error


def parsed(text: str) -> dict[str, Any]:
    """Return the document in this text. Raises `CellError` with the position where it is not TOML."""
    try:
        return tomllib.loads(text)
    except RecursionError as error:
        raise CellError("nested too deeply") from error
    except ValueError as error:  # TOMLDecodeError, and numbers of thousands of digits
        raise CellError(str(error)) from error


def is_number(value: object) -> bool:
    """Return whether a value of a document is a number that a double can hold."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= 1.7e308


def short(value: object) -> str:
    """Return a value for a message: not longer than a line."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # an integer of thousands of digits, a list in a thousand lists
        return f"a very long {type(value).__name__}"
    return text if len(text) <= SHOWN_CHARACTERS else text[:SHOWN_CHARACTERS] + "…"
