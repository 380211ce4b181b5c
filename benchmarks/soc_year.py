"""A year of one cell at 1 Hz (31.5 million samples), estimated from Parquet by `soc estimate`: time and peak memory.

    python benchmarks/soc_year.py [--days 365] [--cell lg_hg2] [--filter spkf]

The year is simulated: a house's sun and load, each day bringing the cell to another state of charge, seasons from 0 to
30 °C, noise on both sensors. It is written and read in pieces; the estimate runs in a process of its own, and what the
system says about that process is the result. Goals: 60 s, 1 GB.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from soc.cell import library
from soc.cell.parameters import CellParameters
from soc.simulation.profiles import solar
from soc.simulation.simulate import Faults, measured, simulate

DAY = 86_400
PIECE_DAYS = 10
FAULTS = Faults(voltage_sd_v=0.002, current_sd_a=0.01, current_offset_a=0.003)


def pieces(cell: CellParameters, days: int) -> Iterator[pa.Table]:
    """Ten days at a time, beginning at rest: a slow step of a few mV every ten days is all that this costs."""
    random = np.random.default_rng(1)
    soc = 0.6
    for begin in range(0, days, PIECE_DAYS):
        count = min(PIECE_DAYS, days - begin)
        time_s = np.arange(count * DAY, dtype=np.float64) + begin * DAY
        current_a = cell.nominal_ah * solar(time_s - time_s[0], random)
        ends = np.concatenate(([soc], random.uniform(0.35, 0.7, count)))
        current_a += np.repeat(cell.nominal_ah * np.diff(ends) / 24 - current_a.reshape(count, DAY).mean(axis=1), DAY)
        degc = 15.0 - 12.0 * np.cos(2 * np.pi * time_s / (365 * DAY)) + 3.0 * np.sin(2 * np.pi * time_s / DAY)
        truth, reference = simulate(cell, time_s, current_a, degc, soc)
        shown = measured(truth, FAULTS, seed=begin)
        soc = float(reference[-1])
        names = ("time_s", "current_a", "voltage_v", "temperature_degc")
        yield pa.table({**{name: getattr(shown, name) for name in names}, "soc_ref": reference})


def write(path: Path, cell: CellParameters, days: int) -> int:
    """Write the year; give back how many samples it has."""
    writer, rows = None, 0
    for table in pieces(cell, days):
        writer = writer or pq.ParquetWriter(path, table.schema, compression="zstd")
        writer.write_table(table)
        rows += table.num_rows
    if writer is not None:
        writer.close()
    return rows


def error(recording: Path, result: Path) -> tuple[float, float]:
    """The rms error and the coverage of the 3σ bounds, a piece at a time."""
    truth = pq.ParquetFile(recording).iter_batches(1 << 20, columns=["soc_ref"])
    found = pq.ParquetFile(result).iter_batches(1 << 20, columns=["soc", "soc_lo", "soc_hi"])
    squares, inside, count = 0.0, 0, 0
    for a, b in zip(truth, found, strict=True):
        reference, soc, low, high = (column.to_numpy() for column in (a.column(0), *b.columns))
        squares += float(((soc - reference) ** 2).sum())
        inside += int(((low <= reference) & (reference <= high)).sum())
        count += len(soc)
    return (squares / count) ** 0.5, inside / count


def main() -> None:
    """Print one line of results, and exit 1 if a goal was missed with a whole year."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--days", type=int, default=365)
    parser.add_argument("--cell", default="lg_hg2")
    parser.add_argument("--filter", default="spkf")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        recording, result = Path(folder, "year.parquet"), Path(folder, "out.parquet")
        rows = write(recording, library.cell(asked.cell), asked.days)
        print(
            f"{rows / 1e6:.1f} M samples, {recording.stat().st_size / 1e6:.0f} MB, {os.cpu_count()} processors",
            flush=True,
        )
        begun = time.perf_counter()
        command = [sys.executable, "-m", "soc", "estimate", str(recording), "--out", str(result), "--json"]
        command += ["--cell", asked.cell, "--filter", asked.filter]
        done = subprocess.run(command, check=True, stderr=subprocess.PIPE, text=True)
        took_s = time.perf_counter() - begun
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        peak_mb, cpu_s = used.ru_maxrss / 1024, used.ru_utime + used.ru_stime
        told = json.loads(done.stderr.splitlines()[-1])
        rms, coverage = error(recording, result)
    per_us = 1e6 * took_s / rows
    print(f"{asked.filter}: {took_s:.1f} s ({cpu_s:.1f} s of processor), {per_us:.2f} µs/sample, peak {peak_mb:.0f} MB")
    print(f"rms error {100 * rms:.2f} %, inside 3σ {100 * coverage:.1f} %, health {told['health']}")
    if asked.days >= 365 and (took_s > 60 or peak_mb > 1000):
        sys.exit("goal missed: 60 s, 1000 MB")


if __name__ == "__main__":
    main()
