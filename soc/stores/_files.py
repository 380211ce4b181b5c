"""The path of a file place, and the header line with which a file describes its recording."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from soc.stores._errors import StoreError

HEADER_KEYS = {"cell": str, "soc0": float, "soc0_sd": float, "temperature_degc": float}
"""The keys of a header; other keys are ignored."""


def path_of(place: str, store: str) -> Path:
    """Return the path of a file place, which may begin with the store's name and a colon."""
    return Path(place.removeprefix(f"{store}:"))


def parse_header(text: str, where: str) -> Mapping[str, Any]:
    """Return the header in this JSON text. Raises `StoreError` unless it is an object with values of right types."""
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:  # an integer of thousands of digits is a ValueError, too
        raise StoreError(f'{where}: the first line is not "# {{json}}": {error}') from error
    if not isinstance(values, dict):
        raise StoreError(f"{where}: expected a JSON object after #, got {text.strip()[:80]!r}")
    header = {}
    for key, kind in HEADER_KEYS.items():
        value = values.get(key)
        if value is None:
            continue
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if not (isinstance(value, str) if kind is str else is_number):
            raise StoreError(
                f"{where}: {key}: expected {'text' if kind is str else 'a number'}, got {repr(value)[:80]}"
            )
        header[key] = value if kind is str else _finite(value, f"{where}: {key}")
    return header


def _finite(value: float, where: str) -> float:
    """Return the number as a double. Raises `StoreError` if the value is not a number or too large."""
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise StoreError(f"{where}: expected a finite number, got {str(value)[:40]}")
    return number
