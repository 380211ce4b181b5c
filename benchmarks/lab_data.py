"""The lab recordings beside the checkout, read for benchmarks: ../shared/data/cells."""

from __future__ import annotations

import csv
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from soc.identify import recipes
from soc.identify.recipes import Entry, Recipe

Array = NDArray[np.float64]

ROOT = Path(__file__).resolve().parents[2] / "shared" / "data" / "cells"
CELLS = ("lg_hg2", "a123_26650", "panasonic_18650pf", "lfp_1ah2")


def entries() -> list[Entry]:
    """All recordings of the index, but for the native 10 Hz ones."""
    if not ROOT.is_dir():
        raise SystemExit(f"{ROOT} not found: the recordings are not part of this repository, see docs on their sources")
    with (ROOT / "index.csv").open(encoding="utf-8", newline="") as file:
        return [recipes.entry(row) for row in csv.DictReader(file) if "10hz" not in row["id"]]


@cache
def read(path: str) -> dict[str, Array]:
    """The columns of one recording, as doubles."""
    table = pq.read_table(ROOT / path)
    return {name: table[name].to_numpy().astype(np.float64) for name in table.column_names}


def read_csv(path: str) -> dict[str, Array]:
    """The columns of a table with one header line."""
    text = np.genfromtxt(ROOT / path, delimiter=",", names=True)
    return {name: text[name].astype(np.float64) for name in text.dtype.names or ()}


def recipe(cell: str) -> Recipe:
    """How this cell is identified, with its recordings."""
    if cell == "lfp_1ah2":
        return recipes.lfp_1ah2(entries(), read, read_csv("lfp_1ah2/ocv_charge_discharge.csv"))
    made: dict[str, Callable[[list[Entry], Callable[[str], dict[str, Array]]], Recipe]] = {
        "lg_hg2": recipes.lg_hg2,
        "a123_26650": recipes.a123_26650,
        "panasonic_18650pf": recipes.panasonic_18650pf,
    }
    return made[cell](entries(), read)
