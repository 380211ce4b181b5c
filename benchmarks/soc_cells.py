"""Identify the shipped cells anew and write their files: python benchmarks/soc_cells.py [cell …] [--report DIR]."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from lab_data import CELLS, recipe

from soc.cell.toml_file import save
from soc.identify import identify

SHIPPED = Path(__file__).resolve().parents[1] / "soc" / "cells"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cell", nargs="*", default=CELLS)
    parser.add_argument("--out", type=Path, default=SHIPPED, help="folder of the cell files")
    for_what = parser.parse_args()
    for name in for_what.cell:
        made = recipe(name)
        begun = time.perf_counter()
        found = identify(made.runs, made.ocv, made.about, made.settings)
        save(found.cell, for_what.out / f"{name}.toml")
        print(f"{name}: {time.perf_counter() - begun:.1f} s, {found.cell.id}")
        for error in found.held_out:
            print(f"  {error.run.name}: {1e3 * error.rms_v:.1f} mV without its {error.how}")
        for warning in found.warnings:
            print(f"  {warning}")


if __name__ == "__main__":
    main()
