"""Journal on the disk to rows in a real InfluxDB 1.6: lines per second, processor time per line, memory.

    .venv/bin/python benchmarks/shipping.py [ROWS]

Goal: at least 80 000 lines of 10 fields per second, 45 MB. Server and shipper share this machine's cores, so the
rate is the server's as much as ours; the processor times tell them apart.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from collectors.host.clock import FakeClock
from collectors.journal.committer import Committer
from collectors.journal.reader import JournalReader
from collectors.journal.settings import JournalSettings
from collectors.reading import Reading as Sample
from collectors.shipper.config import SinkConfig
from collectors.shipper.cursors import ShipStore
from collectors.shipper.influxdb.client import InfluxClient
from collectors.shipper.journal_source import JournalSource
from collectors.shipper.worker import SinkWorker

sys.path.insert(0, str(Path(__file__).parents[1]))
from tests.testing.influx import Influx, running

ROWS, COMMIT_ROWS, GOAL, GOAL_MB = 300_000, 1000, 80_000, 45
FIELDS = (
    "voltage_v", "current_a", "power_w", "temperature_degc", "soc", "soh", "usable_capacity_ah", "charged_today_wh",
    "discharged_today_wh", "full_charge_count",
)  # fmt: skip
TAGS = {"bench": "bench-1", "device": "mppt", "kind": "libresolar_mppt"}


def write_journal(state: Path, rows: int) -> float:
    """Write the journal through the collector's own door; return how long that took, in s."""
    started_s = time.perf_counter()
    clock = FakeClock(offset_ns=time.time_ns() - rows * 10**9)
    settings = JournalSettings(commit_window_s=0.01, compact_s=0.5)
    committer = Committer(state, "mppt", TAGS, settings, clock)
    committer.start()
    values = np.round(np.random.default_rng(1).normal(12.8, 3.0, (rows, len(FIELDS))), 3).tolist()
    for row in range(rows):
        committer.put(Sample("battery", row * 10**9, dict(zip(FIELDS, values[row], strict=True))))
        while row % COMMIT_ROWS == 0 and committer.queue_rows:  # no instrument brings more in one commit
            time.sleep(0.001)
    committer.stop(300)
    return time.perf_counter() - started_s


def server_cpu_s(influx: Influx) -> float:
    """Return the processor time that the server has used."""
    assert influx.process is not None
    fields = Path(f"/proc/{influx.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def ship(state: Path, influx: Influx, gzip_level: int) -> tuple[float, float, float, int]:
    """Return wall time, our and the server's processor time, and how many lines were confirmed."""
    database = influx.create_database()
    sink = SinkConfig("lab", "influxdb1", influx.url, database, user="writer", password_file="-", gzip_level=gzip_level)
    (state / "ship.db").unlink(missing_ok=True)
    store, post = ShipStore(state / "ship.db"), InfluxClient(sink, influx.password)
    courier = SinkWorker("lab", store, post)
    courier.add(JournalSource("mppt", JournalReader(state / "mppt"), store, "lab", courier.types))
    before = time.perf_counter(), time.process_time(), server_cpu_s(influx)
    courier.run_once()
    wall_s, cpu_s = time.perf_counter() - before[0], time.process_time() - before[1]
    server_s = server_cpu_s(influx) - before[2]
    assert influx.count(database, "voltage_v") == courier.lines_sent
    post.close()
    store.close()
    return wall_s, cpu_s, server_s, courier.lines_sent


def memory_mb(state: Path, influx: Influx) -> float:
    """Return the greatest resident memory of a `collectors ship` process that catches up with all of it."""
    (state / "ship.db").unlink(missing_ok=True)
    (state / "password").write_text(influx.password)
    (state / "ship.toml").write_text(
        f'[ship]\nbench = "bench-1"\nstate_dir = "{state}"\n[[sink]]\nname = "lab"\ndialect = "influxdb1"\n'
        f'url = "{influx.url}"\ndatabase = "{influx.create_database()}"\nuser = "writer"\npassword_file = "password"\n'
    )
    process = subprocess.Popen([sys.executable, "-m", "collectors", "ship", str(state / "ship.toml"), "--once"])
    peak_kb = 0
    while process.poll() is None:  # not getrusage: that counts this process's own memory, from before the exec
        found = re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{process.pid}/status").read_text())
        peak_kb = int(found[1]) if found else peak_kb
        time.sleep(0.01)
    assert process.returncode == 0
    return peak_kb * 1024 / 1e6


def main() -> None:
    """Print the table."""
    rows = int(sys.argv[1]) if len(sys.argv) > 1 else ROWS
    with tempfile.TemporaryDirectory() as folder, running(Path(folder) / "influxdb") as influx:
        state = Path(folder) / "state"
        state.mkdir()
        print(f"{rows} rows of {len(FIELDS)} fields; journal written in {write_journal(state, rows):.1f} s")
        print(f"{'':8} {'lines/s':>9} {'our CPU µs/line':>16} {'server CPU µs/line':>19}")
        rates = []
        for level in (0, 1, 1):
            wall_s, cpu_s, server_s, lines = ship(state, influx, level)
            rates.append(lines / wall_s)
            print(f"gzip {level}   {lines / wall_s:9,.0f} {cpu_s / lines * 1e6:16.2f} {server_s / lines * 1e6:19.2f}")
        print(f"goal {GOAL:,} lines/s: {'met' if max(rates) >= GOAL else 'MISSED'}")
        peak_mb = memory_mb(state, influx)
        verdict = "met" if peak_mb <= GOAL_MB else "MISSED"
        print(f"peak memory of `collectors ship` {peak_mb:.1f} MB; goal {GOAL_MB} MB: {verdict}")


if __name__ == "__main__":
    main()
