"""`python -m grafana.downsampling install|backfill`: InfluxDB 1.x made ready for long ranges, and kept so.

    install     retention policies, continuous queries, choice of grains; a second run changes nothing
    backfill    finds hours whose sums miss late points and computes them again; for a timer, every 15 min or so

The password comes from a file (`--password-file`, for example a systemd credential), never from the command line.
"""

from __future__ import annotations

import argparse
import re
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from grafana.downsampling.backfill import backfill
from grafana.downsampling.influxdb1 import DATABASE
from grafana.downsampling.install import install
from grafana.downsampling.server import Refused, Server

SECONDS = {"h": 3600, "d": 86_400, "w": 7 * 86_400}


def duration_s(text: str) -> int:
    """Return seconds for "48h", "30d" or "12w"; argparse's error else."""
    if not (found := re.fullmatch(r"([1-9]\d*)([hdw])", text)):
        raise argparse.ArgumentTypeError(f"expected for example 48h, 30d or 12w, got {text!r}")
    return int(found[1]) * SECONDS[found[2]]


def parser() -> argparse.ArgumentParser:
    """Return the command's arguments."""
    made = argparse.ArgumentParser(prog="python -m grafana.downsampling", description="Downsampling in InfluxDB 1.x.")
    made.add_argument("action", choices=("install", "backfill"))
    made.add_argument("--url", default="http://127.0.0.1:8086")
    made.add_argument("--database", default=DATABASE)
    made.add_argument("--user", default="")
    made.add_argument("--password-file", type=Path, help="a file whose one line is the password")
    made.add_argument("--since", type=duration_s, default="48h", help="backfill: how far back to look (48h)")
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """Do it, print one line for each change, and return the exit code: 0, or 1 with the server's words."""
    given = parser().parse_args(arguments)
    password = given.password_file.read_text(encoding="utf-8").strip() if given.password_file else ""
    server = Server(given.url, given.database, given.user, password)
    try:
        if given.action == "install":
            changes = [f"made {what}" for what in install(server)]
        else:
            now_s = int(time.time())
            changes = [
                f"{s.grain.name} {s.measurement}: {_utc(s.from_s)} to {_utc(s.to_s)} computed again"
                for s in backfill(server, now_s - given.since, now_s)
            ]
    except Refused as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stdout.writelines(f"{line}\n" for line in changes)
    return 0


def _utc(time_s: int) -> str:
    return datetime.fromtimestamp(time_s, UTC).strftime("%Y-%m-%d %H:%M")


if __name__ == "__main__":
    sys.exit(main())
