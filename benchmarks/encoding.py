"""Lines per second: ours, column by column and row by row, against influxdb-client's Point. One process, same rows.

    .venv/bin/python benchmarks/encoding.py

Goal: at least 15 times the Points. Times are processor time, the best of several runs.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from importlib import import_module
from typing import Any

import numpy as np

from collectors.journal.records import Chunk, Column, FieldSpec, Stream
from collectors.line_protocol import encode_columns, encode_plain
from collectors.shipper.influxdb.client import body_of

influxdb_client: Any = import_module("influxdb_client")  # it has no types
ROWS, FIELDS, RUNS = 5000, 10, 5
GOAL = 15.0
TAGS = {"bench": "bench-1", "device": "mppt", "kind": "libresolar_mppt"}


def chunk() -> tuple[Chunk, np.ndarray]:
    """Return rows as a 1 Hz instrument gives them: three decimals, stamps of a second."""
    chance = np.random.default_rng(1)
    stream = Stream(1, "battery", TAGS, [FieldSpec(f"signal_{n}_v") for n in range(FIELDS)])
    columns = [Column(np.round(chance.normal(12.8, 3.0, ROWS), 3)) for _ in range(FIELDS)]
    stamps = np.arange(ROWS, dtype=np.int64) * 10**9
    return Chunk(1, ROWS, stream, "boot", stamps, columns), stamps + 1_795_000_000 * 10**9


def by_points(rows: Chunk, wall_ns: np.ndarray) -> list[str]:
    """Return the lines as the usual client library makes them."""
    names = [spec.name for spec in rows.stream.fields]
    columns = [np.asarray(column.values).tolist() for column in rows.columns]
    lines = []
    for stamp, *values in zip(wall_ns.tolist(), *columns, strict=True):
        point = influxdb_client.Point(rows.stream.measurement).time(stamp)
        for key, value in rows.stream.tags.items():
            point = point.tag(key, value)
        for name, value in zip(names, values, strict=True):
            point = point.field(name, value)
        lines.append(point.to_line_protocol())
    return lines


def best_us_per_line(job: Callable[[], object], runs: int = RUNS) -> float:
    """Return the least processor time of several runs, per line, in µs."""
    times = []
    for _ in range(runs):
        started_s = time.process_time()
        job()
        times.append(time.process_time() - started_s)
    return min(times) / ROWS * 1e6


def main() -> None:
    """Print the table."""
    rows, wall_ns = chunk()
    assert encode_columns(rows, wall_ns) == encode_plain(rows, wall_ns)
    lines = encode_columns(rows, wall_ns)
    points_us = best_us_per_line(lambda: by_points(rows, wall_ns), 3)
    print(f"{ROWS} lines of {FIELDS} fields, {sum(map(len, lines)) / ROWS:.0f} bytes each")
    print(f"{'':30} {'µs/line':>8} {'lines/s':>10} {'× Points':>9}")
    for name, us in (
        ("influxdb-client Point", points_us),
        ("encode_plain (the oracle)", best_us_per_line(lambda: encode_plain(rows, wall_ns))),
        ("encode_columns", best_us_per_line(lambda: encode_columns(rows, wall_ns))),
        ("  joined", best_us_per_line(lambda: body_of(lines, 0))),
        ("  joined, gzip level 1", best_us_per_line(lambda: body_of(lines, 1))),
        ("  joined, gzip level 6", best_us_per_line(lambda: body_of(lines, 6))),
    ):
        print(f"{name:30} {us:8.2f} {1e6 / us:10,.0f} {points_us / us:9.1f}")
    ratio = points_us / best_us_per_line(lambda: encode_columns(rows, wall_ns))
    print(f"goal {GOAL:.0f} × Points: {'met' if ratio >= GOAL else 'MISSED'} ({ratio:.1f})")


if __name__ == "__main__":
    main()
