"""Resident memory of every process of a bench, beside what a plain client of the usual libraries takes.

    python benchmarks/memory.py                 30 s of the virtual bench: three collectors and the shipper
    python benchmarks/memory.py --seconds 300

Goal: at most 45 MB for each collector. The figure is VmHWM, the most that the process ever held.
The peer imports what is commonly used for the same job: influxdb-client with its Point and batching API.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

LIMIT_MB = 45.0
PEER = """
import asyncio, sqlite3, serial
from influxdb_client import InfluxDBClient, Point
from influxdb_client.client.write_api import WriteOptions
print(next(l for l in open('/proc/self/status') if l.startswith('VmHWM')).split()[1])
"""


def children(pid: int) -> list[int]:
    """Return the process ids of all descendants."""
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in map(int, task.read_text().split()):
            found += [child, *children(child)]
    return found


def peak_mb(pid: int) -> float:
    """Return the most resident memory that the process ever held, in MB of 1e6 bytes."""
    status = Path(f"/proc/{pid}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")) * 1024 / 1e6


def main() -> None:
    """Run the virtual bench, look at its processes just before it ends, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=30.0)
    seconds = parser.parse_args().seconds
    found: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "collectors", "bench", "--for", str(seconds + 5), "--state", folder]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as bench:
            time.sleep(seconds)
            for pid in children(bench.pid):
                words = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
                for verb in ("run", "ship"):
                    if verb in words:
                        found[f"{verb} {Path(words[words.index(verb) + 1]).stem}"] = peak_mb(pid)
    peer = int(subprocess.run([sys.executable, "-c", PEER], capture_output=True, text=True, check=True).stdout) / 1000
    print(f"{'process':<24} peak MB   goal   of the peer")
    for name, megabytes in sorted(found.items()):
        print(f"{name:<24} {megabytes:7.1f}   {'met' if megabytes <= LIMIT_MB else 'missed':<6} {megabytes / peer:.2f}")
    print(f"{'peer: client library':<24} {peer:7.1f}   -      1.00   (imports only, idle)")


if __name__ == "__main__":
    main()
