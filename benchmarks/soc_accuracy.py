"""Accuracy of the estimators on recordings that the cell was not identified from: python benchmarks/soc_accuracy.py.

For every drive cycle the cell is identified without that cycle (or without its temperature, where that is all there
is), then estimated in every trial of `soc.estimation.score.TRIALS` by every filter with that one model. Prints a
Markdown table; `--out FILE` keeps it, and the numbers as JSON. Errors are in % SOC after the first 10 min.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from lab_data import CELLS, recipe

from soc.cell.parameters import CellParameters
from soc.estimation.estimator import estimate
from soc.estimation.score import TRIALS, Score, score
from soc.identify import identify
from soc.identify.result import cells_without
from soc.identify.runs import Run

FILTERS = ("spkf", "ekf", "filterpy_ukf", "coulomb")
QUICK_TRIALS = ("true start", "−30 %", "50 mA offset")
SLOW_FILTERS = ("filterpy_ukf",)  # 400 times slower: in one trial
SLOW_TRIALS = ("−30 %",)


HEAD = """# Accuracy on recordings that were not used for identification

Written by `benchmarks/soc_accuracy.py`. In each cell: rms error in % SOC after 10 min · share of time within ±3σ · mean
half width (3σ) in % SOC. Left out of the identification: the run itself, or its whole temperature where there is only
one run, or nothing at the lowest and highest such temperature. The start is given ± 1 % (true), ± 30 % (wrong), ± 5 %
(wrong but believed). Mean over the cycles of a temperature.

"""


@dataclass(frozen=True)
class Result:
    """One cell, temperature, trial and filter: the mean over its cycles."""

    cell: str
    temperature_degc: float
    left_out: str
    trial: str
    filter: str
    cycles: int
    rms: float
    worst: float
    converged_s: float
    coverage: float
    half_width: float
    nees: float
    nis: float
    colour: float


def judged(run: Run, cell: CellParameters, trial: str, name: str, options: dict[str, Any]) -> Score:
    """The score of one filter in one trial."""
    given = TRIALS[trial](run.series, run.soc)
    soc0 = min(max(given.soc0, 0.0), 1.0)
    made = estimate(given.series, cell, name, soc0=soc0, soc0_sd=given.soc0_sd, **options)
    return score(made.time_s, made.soc, made.sd, given.reference, made.innovation_v, made.innovation_sd_v)


def results(cell: str, trials: Iterable[str], filters: Iterable[str], options: dict[str, Any]) -> list[Result]:
    """All results of one cell."""
    made = recipe(cell)
    known = identify(made.runs, made.ocv, made.about, made.settings)
    scores: dict[tuple[float, str, str, str], list[Score]] = {}
    for run, without, how in cells_without(known, made.about):
        for trial, name in product(trials, filters):
            if name not in SLOW_FILTERS or trial in SLOW_TRIALS:
                key = (run.temperature_degc, how, trial, name)
                scores.setdefault(key, []).append(
                    judged(run, without, trial, name, options if name != "coulomb" else {})
                )
    return [Result(cell, *key, len(found), *_means(found)) for key, found in scores.items()]


def _means(found: list[Score]) -> list[float]:
    names = ("rms", "worst", "converged_s", "coverage", "half_width", "nees", "nis", "colour")
    return [float(np.mean([getattr(s, name) for s in found])) for name in names]


def table(found: list[Result]) -> str:
    """The results as a Markdown table: a row per cell, temperature and filter, a column per trial."""
    trials = list(dict.fromkeys(r.trial for r in found))
    lines = [
        "| cell, °C (left out) | filter | " + " | ".join(trials) + " |",
        "| --- | --- |" + " --- |" * len(trials),
    ]
    by_key = {(r.cell, r.temperature_degc, r.left_out, r.filter, r.trial): r for r in found}
    for cell, degc, how, name in dict.fromkeys(key[:4] for key in by_key):
        cells = [_text(by_key.get((cell, degc, how, name, trial))) for trial in trials]
        lines.append(f"| {cell} {degc:+g} ({how}) | {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _text(r: Result | None) -> str:
    if r is None:
        return ""
    return f"{100 * r.rms:.2f} · {r.coverage:.2f} · ±{100 * r.half_width:.1f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cell", nargs="*", default=CELLS)
    parser.add_argument("--quick", action="store_true", help="three trials, sigma-point filter and counting only")
    parser.add_argument("--out", type=Path, help="write the table here as .md, and all numbers beside it as .json")
    parser.add_argument("--filter", action="append", choices=FILTERS, help="only these; default all")
    parser.add_argument("--option", action="append", default=[], metavar="NAME=NUMBER", help="of soc.models.options")
    wanted = parser.parse_args()
    options = {name: float(value) for name, value in (text.split("=") for text in wanted.option)}
    trials = QUICK_TRIALS if wanted.quick else tuple(TRIALS)
    filters = wanted.filter or (("spkf", "coulomb") if wanted.quick else FILTERS)
    with ProcessPoolExecutor() as pool:
        jobs = [pool.submit(results, cell, trials, filters, options) for cell in wanted.cell]
        found = [result for job in jobs for result in job.result()]
    page = HEAD + table(found) + "\n"
    print(page)
    if wanted.out:
        wanted.out.with_suffix(".md").write_text(page, encoding="utf-8")
        wanted.out.with_suffix(".json").write_text(json.dumps([asdict(r) for r in found], indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
