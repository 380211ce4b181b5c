"""Read and write one cell as a TOML file. The file is readable, and values are read back with the same bits.

format = 1; name, chemistry, nominal_ah, voltage_min_v, voltage_max_v, source, procedure
[grid]         temperature_degc, soc_knots                  rows and columns of everything below
[capacity]     capacity_ah, efficiency                      [T]
[ocv]          ocv0_v, ocvrel_v_per_k (201 each), shift_v   the shift is [T, z]
[dynamics]     r0_ohm, m_v, m0_v [T, z]; gamma, charge_transfer_a [T]; r_ohm [pair, T, z], tau_s [pair, T]
[noise]        model errors: see `soc.cell.parameters.Noise`
[uncertainty]  standard deviation of any value above, under its name and in its shape; may be absent
"""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from soc.cell.ocv import Ocv
from soc.cell.parameters import SHAPES, CellParameters, Noise, value_of
from soc.errors import CellError
from soc.files import shown, whole_file
from soc.tomlfile import document_of, is_number, parsed, short

FORMAT = 1
TEXTS = ("name", "chemistry", "source", "procedure")
SECTIONS: dict[str, tuple[str, ...]] = {
    "": ("name", "chemistry", "nominal_ah", "voltage_min_v", "voltage_max_v", "source", "procedure"),
    "grid": ("temperature_degc", "soc_knots"),
    "capacity": ("capacity_ah", "efficiency"),
    "ocv": ("ocv0_v", "ocvrel_v_per_k", "shift_v"),
    "dynamics": ("r0_ohm", "r_ohm", "tau_s", "m_v", "m0_v", "gamma", "charge_transfer_a"),
    "noise": tuple(f.name for f in fields(Noise)),
}
UNCERTAINTY = "uncertainty"
NESTED = {1: "a list of numbers", 2: "a list of lists of numbers", 3: "three levels of lists of numbers"}


def load(path: str | Path) -> CellParameters:
    """Return the cell in this file. Raises `CellError` naming file and key; `FileError` if the file cannot be read."""
    document = document_of(path)
    try:
        return _of_document(document)
    except CellError as error:
        raise CellError([f"{shown(path)}: {p}" for p in error.problems]) from error


def save(cell: CellParameters, path: str | Path) -> None:
    """Write the cell to this file. The file is replaced as a whole or not changed. Raises `FileError`."""
    with whole_file(path, "w") as file:
        file.write(dump(cell))


def parse(text: str) -> CellParameters:
    """Return the cell that this TOML describes. Raises `CellError` with every missing, unknown and implausible key."""
    return _of_document(parsed(text))


def _of_document(document: dict[str, Any]) -> CellParameters:
    """Return the cell that a document describes; empties the document."""
    if document.pop("format", None) != FORMAT:
        raise CellError(f"format: expected {FORMAT}, the cell file format that this version reads")
    problems = [
        f"[{section}]: expected a table, got {short(document.pop(section))}"
        for section in (*SECTIONS, UNCERTAINTY)
        if section and not isinstance(document.get(section, {}), dict)
    ]
    sd = document.pop(UNCERTAINTY, {})
    values: dict[str, Any] = {}
    for section, keys in SECTIONS.items():
        table = document.pop(section, {}) if section else {k: document.pop(k) for k in keys if k in document}
        prefix = f"[{section}] " if section else ""
        values |= {key: table.get(key) for key in keys}
        problems += [f"{prefix}{key}: {p}" for key in keys if (p := _raw_problem(key, table.get(key)))]
        problems += [f"{prefix}{key}: unknown key" for key in table if key not in keys]
    problems += [f"{key}: unknown section or key" for key in document]
    problems += [f"[{UNCERTAINTY}] {key}: {p}" for key, value in sd.items() if (p := _raw_problem(key, value))]
    if problems:
        raise CellError(problems)
    return _cell(values, sd)


def _raw_problem(key: str, value: Any) -> str | None:
    """Describe what is wrong with a raw value of the file, before shape and range are checked, if anything."""
    if value is None:
        return "missing"
    if key in TEXTS:
        return None if isinstance(value, str) else f"expected text, got {short(value)}"
    if key not in SHAPES:
        return "no such parameter"
    if SHAPES[key][0] == "":
        return None if is_number(value) else f"expected a number, got {short(value)}"
    axes = SHAPES[key][0]
    depth = 1 if axes == "grid" else len(axes)
    try:
        array = np.array(value, dtype=np.float64)
    except (TypeError, ValueError, OverflowError, RecursionError):
        return "expected numbers, in rows of one length"
    return None if array.ndim == depth else f"expected {NESTED[depth]}, got {short(value)}"


def _cell(values: dict[str, Any], sd: dict[str, Any]) -> CellParameters:
    """Return the cell with these values, keyed by field."""
    numbers: dict[str, Any] = {k: float(v) if k in SHAPES and SHAPES[k][0] == "" else v for k, v in values.items()}
    parts: dict[type, dict[str, Any]] = {
        part: {f.name: numbers.pop(f.name) for f in fields(part)} for part in (Ocv, Noise)
    }
    try:
        ocv = Ocv(**parts[Ocv])
    except ValueError as error:
        raise CellError(f"[ocv] {error}") from error
    return CellParameters(ocv=ocv, noise=Noise(**parts[Noise]), sd=sd, **numbers)


def dump(cell: CellParameters) -> str:
    """Return the cell as TOML; `parse` returns the same bits."""
    lines = [f"format = {FORMAT}"]
    for section, keys in SECTIONS.items():
        lines += ["", f"[{section}]"] if section else []
        lines += [f"{key} = {_text(value_of(cell, key))}" for key in keys]
    if cell.sd:
        lines += ["", f"[{UNCERTAINTY}]", *(f"{key} = {_text(value)}" for key, value in cell.sd.items())]
    return "\n".join(lines) + "\n"


def _text(value: Any) -> str:
    """Format a TOML value: text, number, row of numbers (ten on a line) or rows of rows."""
    if isinstance(value, str):
        return _string(value)
    if np.ndim(value) == 0:
        return repr(float(value))
    if np.ndim(value) > 1:
        rows = [_text(row) for row in value]
        if not any("\n" in row for row in rows) and sum(map(len, rows)) < 90:
            return f"[{', '.join(rows)}]"
        return "[\n  " + ",\n  ".join(row.replace("\n", "\n  ") for row in rows) + ",\n]"
    numbers = [repr(float(x)) for x in value]
    if len(numbers) <= 10:
        return f"[{', '.join(numbers)}]"
    tens = [", ".join(numbers[k : k + 10]) for k in range(0, len(numbers), 10)]
    return "[\n  " + ",\n  ".join(tens) + ",\n]"


def _string(value: str) -> str:
    """Format a TOML basic string; multi-line if the text has several lines."""
    text = value.replace("\\", "\\\\").replace('"', '\\"').replace("\t", "\\t").replace("\r", "\\r")
    return f'"""\n{text}"""' if "\n" in value else f'"{text}"'
