"""Outage drill of one bench, run on it as root. Standard library only.

    drill.py check                      exit code 0: everything collects and is sent; 2: says what does not
    drill.py run SECONDS CATCH_UP_S     cut the way to the database, wait, join, wait until all is confirmed; JSON

The cut is a firewall table that drops what goes out to the sinks of /etc/battfleet/ship.toml; a timer removes it, too,
should this program be killed.
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

SHIP = Path("/etc/battfleet/ship.toml")
STATE = "/var/lib/collectors"
TABLE = "battfleet_drill"
NO_INSTRUMENTS = ("shipper", "notes")
FRESH_S = 10.0


def run(*command: str, text: str | None = None) -> str:
    """Return a command's output; CalledProcessError when it fails."""
    return subprocess.run(command, input=text, capture_output=True, text=True, check=True).stdout


def status() -> dict[str, Any]:
    """Return what `collectors status` says; it ends with 69 when something is old, which is not its failure."""
    command = ["/usr/local/bin/collectors", "status", "--json", "--state", STATE]
    found: dict[str, Any] = json.loads(subprocess.run(command, capture_output=True, text=True, check=False).stdout)
    return found


def instruments(state: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the rows of status that are instruments, by name."""
    return {row["collector"]: row for row in state["collectors"] if row["collector"] not in NO_INSTRUMENTS}


def addresses() -> set[str]:
    """Return the addresses of all sinks."""
    hosts = [urlsplit(sink["url"]).hostname for sink in tomllib.loads(SHIP.read_text(encoding="utf-8"))["sink"]]
    return {str(info[4][0]) for host in hosts if host for info in socket.getaddrinfo(host, None)}


def complaints() -> list[str]:
    """Return what is not well: instruments without samples, sinks that do not take points."""
    if not SHIP.exists():
        return [f"{SHIP}: not there; nothing is sent from this bench, so there is nothing to drill"]
    state = status()
    old = [
        f"{name}: no sample in the last {FRESH_S:.0f} s"
        for name, row in instruments(state).items()
        if row["last_sample_age_s"] is None or row["last_sample_age_s"] > FRESH_S
    ]
    return old + [f"sink {sink['sink']}: {sink['state']}" for sink in state["sinks"] if sink["state"] != "ok"]


def cut(seconds: float) -> None:
    """Drop everything to the sinks; a timer ends it at the latest a minute after `seconds`."""
    undo = ["/usr/sbin/nft", "delete", "table", "inet", TABLE]
    run("systemd-run", "--quiet", "--collect", f"--unit={TABLE}", f"--on-active={seconds + 60:.0f}", *undo)
    drops = "".join(f"{'ip6' if ':' in address else 'ip'} daddr {address} drop; " for address in sorted(addresses()))
    chain = f"chain output {{ type filter hook output priority -10; {drops}}}"
    run("nft", "-f", "-", text=f"table inet {TABLE} {{\n{chain}\n}}\n")


def join() -> None:
    """End the cut."""
    run("nft", "delete", "table", "inet", TABLE)
    run("systemctl", "stop", f"{TABLE}.timer")


def waiting(marks: Mapping[str, int]) -> int:
    """Return how many of the commits up to these marks the slowest sink has not confirmed."""
    confirmed = [
        (name, row["newest_seq"] - unsent)
        for name, row in instruments(status()).items()
        for unsent in row["unsent"].values()
    ]
    return max((max(0, marks[name] - seq) for name, seq in confirmed), default=0)


def drill(seconds: float, catch_up_s: float) -> dict[str, Any]:
    """Return what happened; RuntimeError when something was lost or did not arrive in time."""
    before = {name: row["newest_seq"] for name, row in instruments(status()).items()}
    cut(seconds)
    try:
        time.sleep(seconds)
        marks = {name: row["newest_seq"] for name, row in instruments(status()).items()}
        backlog = waiting(marks)
    finally:
        join()
    joined_s = time.monotonic()
    while (left := waiting(marks)) and time.monotonic() - joined_s < catch_up_s:
        time.sleep(0.5)
    stood_still = [name for name, seq in before.items() if marks[name] <= seq]
    if left or stood_still:
        raise RuntimeError(f"{left} commits not confirmed in {catch_up_s:.0f} s; stood still: {stood_still or 'none'}")
    caught_up_s = time.monotonic() - joined_s
    return {
        "seconds": seconds,
        "backlog": backlog,
        "caught_up_s": round(caught_up_s, 1),
        "times_as_fast": round(seconds / caught_up_s),
    }


def main() -> int:
    """Do what the command line says; return the exit code."""
    if wrong := complaints():
        print("\n".join(wrong), file=sys.stderr)
        return 2
    if sys.argv[1] == "run":
        print(json.dumps(drill(float(sys.argv[2]), float(sys.argv[3]))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
