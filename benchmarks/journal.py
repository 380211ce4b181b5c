"""What the journal costs: bytes per value, a month's chart, a commit, a compaction, memory; beside plain SQLite rows.

    .venv/bin/python benchmarks/journal.py [--days 30] [--quick]

The named peer is what most loggers do: one wide row per sample in SQLite (WAL, FULL, an index on time), same data, same
run. Data: 1 Hz of a battery with 10 fields, simulated, noisy, quantised as instruments do (0.01 V, 0.01 A, …), stamped
with some jitter; and the recording in ../shared/data/bench where it is.
"""

from __future__ import annotations

import argparse
import csv
import resource
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from collectors.host.clock import FakeClock
from collectors.journal.backlog import Row, Work
from collectors.journal.reader import JournalReader
from collectors.journal.schema import journal_files
from collectors.journal.settings import JournalSettings
from collectors.journal.writer import JournalWriter

SECOND = 10**9
WALL_0 = 1_700_000_000 * SECOND
RECORDING = Path(__file__).parents[2] / "shared" / "data" / "bench" / "bench-2021-05-28.csv"
QUIET = JournalSettings(ballast_mib=0.0, min_free_mib=0.0)
NAMES = (
    "voltage_v", "current_a", "power_w", "temperature_degc", "charge_ah", "energy_wh", "internal_temperature_degc",
    "solar_voltage_v", "solar_current_a", "load_current_a",
)  # fmt: skip

Rows = Sequence[tuple[int, Mapping[str, float | None]]]


def simulated(seconds: int, seed: int = 1) -> Rows:
    """Return one row a second: a day's sun and loads, an ordinary instrument's noise and steps, 0.1 ms jitter."""
    noise = np.random.default_rng(seed)
    t = np.arange(seconds)
    sun = np.maximum(0.0, np.sin(2 * np.pi * t / 86_400)) * (0.8 + 0.2 * np.sin(t / 300))
    load = np.where(noise.random(seconds) < 0.002, 1.0, 0.0).cumsum() % 5 * 0.8
    current = 6.0 * sun - load + noise.normal(0, 0.02, seconds)
    charge = np.cumsum(current) / 3600
    voltage = 13.2 + 0.01 * current + 0.002 * charge + noise.normal(0, 0.004, seconds)
    columns = (
        np.round(voltage, 2), np.round(current, 2), np.round(voltage * current, 1),
        np.round(25 + 5 * sun + noise.normal(0, 0.05, seconds), 1), np.round(charge, 3),
        np.round(np.cumsum(voltage * current) / 3600, 2), np.round(30 + 8 * sun + noise.normal(0, 0.1, seconds), 1),
        np.round(18 + 2 * sun + noise.normal(0, 0.02, seconds), 2),
        np.round(4 * sun + noise.normal(0, 0.01, seconds), 2),
        np.round(load + noise.normal(0, 0.01, seconds), 2),
    )  # fmt: skip
    stamps = 10 * SECOND + t * SECOND + np.abs(noise.normal(0, 1e5, seconds)).astype(np.int64)
    table = (np.array(columns).T + 0.0).tolist()  # no instrument's driver gives −0.0
    return [(stamp, dict(zip(NAMES, row, strict=True))) for stamp, row in zip(stamps.tolist(), table, strict=True)]


def counts_of_a_nominal_value(seconds: int) -> Rows:
    """Return what an instrument gives that counts in 1/25600 of 60 A and 160 V: no short decimals."""
    noise = np.random.default_rng(2)
    current = np.round(np.abs(noise.normal(1000, 3, seconds))) * 60.0 / 25600
    voltage = np.round(noise.normal(2100, 2, seconds)) * 160.0 / 25600
    stamps = (10 + np.arange(seconds)) * SECOND + np.abs(noise.normal(0, 1e5, seconds)).astype(np.int64)
    return [
        (stamp, {"voltage_v": v, "current_a": a})
        for stamp, v, a in zip(stamps.tolist(), voltage.tolist(), current.tolist(), strict=True)
    ]


def volts_without_steps(seconds: int) -> Rows:
    """Return what a 24-bit converter gives: every value new."""
    noise = np.random.default_rng(3)
    values = (13.2 + noise.normal(0, 0.001, (seconds, 2))).astype(np.float32).astype(np.float64)
    pairs = list(zip(values[:, 0].tolist(), values[:, 1].tolist(), strict=True))
    return [((10 + i) * SECOND, {"voltage_v": pair[0], "current_a": pair[1]}) for i, pair in enumerate(pairs)]


def recorded() -> Rows:
    """Return the recording's rows, at most one a second; missing samples are missing."""
    with RECORDING.open(encoding="utf-8-sig", newline="") as file:
        _, *lines = csv.reader(file)
    by_time = {int(line[0]): line[1:] for line in lines if line}
    first = min(by_time)
    return [
        ((10_000 + stamp - first) * 10**6, {f"c{i}": float(text) if text else None for i, text in enumerate(texts)})
        for stamp, texts in sorted(by_time.items())
    ]


def write(directory: Path, rows: Rows, compact_every: int = 600, roll_every: int = 86_400) -> float:
    """Write the rows, one commit for 60 of them, compacting and rolling as at 1 Hz; return the seconds it took."""
    clock = FakeClock(10 * SECOND, WALL_0)
    began = time.perf_counter()
    writer = JournalWriter(directory, {"device": "bench"}, QUIET, clock, lambda *_: None)
    for start in range(0, len(rows), 60):
        group = [Row(stamp, values) for stamp, values in rows[start : start + 60]]
        writer.commit(Work({("battery", '{"device":"bench"}'): group}))
        if start % compact_every == compact_every - 60:
            writer.compact()
        if start % roll_every == roll_every - 60:
            writer.roll()
    writer.roll()
    writer.close()
    return time.perf_counter() - began


def write_peer(path: Path, rows: Rows) -> sqlite3.Connection:
    """Write the rows as wide SQLite rows, with an index on time; return the connection."""
    names = list(dict.fromkeys(name for _, values in rows[:1] for name in values))
    connection = sqlite3.connect(path, isolation_level=None)
    for pragma in ("journal_mode=WAL", "synchronous=FULL"):
        connection.execute(f"PRAGMA {pragma}")
    connection.execute(f"CREATE TABLE sample (time INTEGER, device TEXT, {', '.join(f'{n} REAL' for n in names)})")
    connection.execute("CREATE INDEX sample_time ON sample(time)")
    marks = ",".join("?" * (2 + len(names)))
    for start in range(0, len(rows), 86_400):
        connection.execute("BEGIN")
        connection.executemany(
            f"INSERT INTO sample VALUES ({marks})",
            [(stamp + WALL_0, "bench", *(values[n] for n in names)) for stamp, values in rows[start : start + 86_400]],
        )
        connection.execute("COMMIT")
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return connection


def timed(action: Callable[[], object], times: int) -> float:
    """Return the median duration in ms."""
    durations = []
    for _ in range(times):
        began = time.perf_counter()
        action()
        durations.append((time.perf_counter() - began) * 1e3)
    return statistics.median(durations)


def say(what: str, ours: float, unit: str, peer: float | None = None, goal: str = "") -> None:
    """Print a line of the table."""
    beside = "" if peer is None else f"{peer:11.3f}  {peer / ours:8.1f}×"
    print(f"{what:58s} {ours:10.3f} {unit:9s}{beside:24s}{goal}", flush=True)


def sealed_bytes(directory: Path) -> int:
    """Return the size of the sealed files; the live one is empty."""
    return sum(path.stat().st_size for path in journal_files(directory)[:-1])


def storage(root: Path, title: str, rows: Rows, goal: str = "") -> None:
    """Print bytes per present value, whole files, roll-ups and indices included."""
    ours, peer = root / title / "bench", root / f"{title}.db"
    write(ours, rows)
    write_peer(peer, rows).close()
    values = sum(value is not None for _, row in rows for value in row.values())
    say(f"bytes per value: {title}", sealed_bytes(ours) / values, "B", peer.stat().st_size / values, goal)


def chart(root: Path, days: int) -> None:
    """Print how long a chart of 500 points over all days takes: from roll-ups, and by GROUP BY over the peer's rows."""
    rows = simulated(days * 86_400)
    directory, peer_path = root / "month" / "bench", root / "month.db"
    seconds = write(directory, rows)
    peer = write_peer(peer_path, rows)
    reader = JournalReader(directory)
    start, end = WALL_0, WALL_0 + (days * 86_400 + 10) * SECOND
    width = (end - start) // 500

    def points() -> int:
        (found,) = reader.rollups(start, end, 3600, "battery", "voltage_v")
        return len(np.unique((found.wall_ns - start) // width))

    query = (
        "SELECT (time-?)/?, min(voltage_v), max(voltage_v), avg(voltage_v) FROM sample "
        "WHERE time BETWEEN ? AND ? GROUP BY 1"
    )
    peer_ms = timed(lambda: peer.execute(query, (start, width, start, end)).fetchall(), 3)
    say(f"chart of {points()} points, {days} days, from 1 h roll-ups", timed(points, 9), "ms", peer_ms, "≤ 100 ms")
    minute_ms = timed(lambda: reader.rollups(start, end, 60, "battery", "voltage_v"), 3)
    say(f"{days} days of 60 s roll-ups, one field", minute_ms, "ms", peer_ms)
    minute_ms = timed(lambda: reader.rollups(start, end, 60, "battery"), 3)
    say(f"{days} days of 60 s roll-ups, all 10 fields", minute_ms, "ms", peer_ms)
    day_ms = timed(lambda: reader.rollups(end - 86_400 * SECOND, end, 60, "battery"), 5)
    say("one day of 60 s roll-ups, all 10 fields", day_ms, "ms")
    scan_ms = timed(lambda: sum(len(s.wall_ns) for s in reader.range(start, end)), 1)
    peer_scan_ms = timed(lambda: len(peer.execute("SELECT * FROM sample").fetchall()), 1)
    say(f"reading every row of {days} days", scan_ms, "ms", peer_scan_ms)
    say(f"bytes per value over {days} days, files of one day", sealed_bytes(directory) / len(rows) / 10, "B",
        peer_path.stat().st_size / len(rows) / 10, "≤ 1.0 B")  # fmt: skip
    say("writing, rows per second (60 per commit)", len(rows) / seconds, "rows/s")
    peer.close()


def commits(root: Path) -> None:
    """Print what one commit of one row costs, and one compaction of 600 rows of 10 fields."""
    rows = simulated(1200)
    writer = JournalWriter(root / "commits" / "bench", {}, QUIET, FakeClock(10 * SECOND, WALL_0), lambda *_: None)
    peer = sqlite3.connect(root / "commits.db", isolation_level=None)
    peer.execute("PRAGMA journal_mode=WAL")
    peer.execute("PRAGMA synchronous=FULL")
    peer.execute(f"CREATE TABLE sample (time INTEGER, {', '.join(f'{n} REAL' for n in NAMES)})")
    peer.execute("CREATE INDEX sample_time ON sample(time)")
    ours_ms, peer_ms = [], []
    for i, (stamp, values) in enumerate(rows):
        work = Work({("battery", "{}"): [Row(stamp, values)]})
        ours_ms.append(timed(lambda work=work: writer.commit(work), 1))  # type: ignore[misc]
        row = (stamp, *values.values())
        peer_ms.append(timed(lambda row=row: peer.execute(f"INSERT INTO sample VALUES ({','.join('?' * 11)})", row), 1))  # type: ignore[misc]
        if i == 599:
            say("compaction of 600 rows × 10 fields", timed(writer.compact, 1), "ms")
    ours_ms.sort()
    peer_ms.sort()
    say("commit of one row, median", ours_ms[600], "ms", peer_ms[600])
    say("commit of one row, 99 %", ours_ms[1188], "ms", peer_ms[1188])
    used = resource.getrusage(resource.RUSAGE_SELF)
    began = used.ru_utime + used.ru_stime
    for i in range(1000):
        writer.commit(Work({("battery", "{}"): [Row((10_000 + i) * SECOND, rows[0][1])]}))
    used = resource.getrusage(resource.RUSAGE_SELF)
    say("commit of one row, processor time", used.ru_utime + used.ru_stime - began, "ms")
    writer.close()
    peer.close()


MEMORY = """
import sys, time
from pathlib import Path
from collectors.host.clock import SystemClock
from collectors.journal.committer import Committer
from collectors.journal.settings import JournalSettings
from collectors.reading import Reading
def rss(): return next(int(l.split()[1]) for l in open("/proc/self/status") if l.startswith("VmRSS")) / 1024
clock = SystemClock()
committer = Committer(Path(sys.argv[1]), "bench", {}, JournalSettings(commit_window_s=0.02, compact_s=0.5), clock)
committer.start()
for i in range(int(sys.argv[2])):
    for cell in sys.argv[3]:
        values = {f"f{k}": i % 100 / 10 + k for k in range(10)}
        committer.put(Reading("battery", clock.boottime_ns(), values, {"cell": cell}))
    time.sleep(0.0002)
committer.stop(10)
print(rss())
"""


def memory(root: Path) -> None:
    """Print the resident memory of a process that only journals, after many commits and compactions."""
    for title, count, cells in (("1 series", "4000", "1"), ("8 series, 100× as many rows", "8000", "12345678")):
        command = [sys.executable, "-c", MEMORY, str(root / title), count, cells]
        found = subprocess.run(command, capture_output=True, text=True, check=True)
        say(f"resident memory of a journalling process, {title}", float(found.stdout), "MiB", goal="≤ 45 MB")


def main() -> None:
    """Run everything and print one table."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--days", type=int, default=30, help="length of the chart's history")
    options.add_argument("--quick", action="store_true", help="3 days, for a look")
    chosen = options.parse_args()
    days = 3 if chosen.quick else chosen.days
    print(f"{'':58s} {'journal':>10s} {'':9s}{'wide rows':>11s}  {'ratio':>9s}  goal")
    with tempfile.TemporaryDirectory(prefix="journal-benchmark-") as place:
        root = Path(place)
        storage(root, "1 Hz battery, 10 fields, one day", simulated(86_400), "≤ 1.0 B")
        storage(root, "counts of a nominal value, 2 fields", counts_of_a_nominal_value(86_400))
        storage(root, "24-bit volts, every value new, 2 fields", volts_without_steps(86_400))
        if RECORDING.exists():
            storage(root, "the recording, 5 fields", recorded())
        commits(root)
        chart(root, days)
        memory(root)


if __name__ == "__main__":
    main()
