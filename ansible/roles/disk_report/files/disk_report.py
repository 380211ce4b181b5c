#!/usr/bin/python3
"""Write to the database how much room its own disk has. Standard library only.

    battfleet-disk-report --path /var/lib/influxdb --bench lab-server

One point of the measurement `collector`, field `disk_free_bytes` (B, what programs but root's may still take), tags
`bench` (this host) and `device` (`server`). A bench says the same of its own disk, so one rule (`disk-low`) and one
panel watch both. A database whose disk is full loses what it has confirmed already, so this has to be known early.

The password is the systemd credential `password`. Exit code 0, or 1 with what went wrong.
"""

from __future__ import annotations

import argparse
import base64
import os
import re
import sys
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Sequence
from pathlib import Path

ANSWER_S = 20.0


def line(path: str, bench: str) -> str:
    """Return the point in line protocol, without a time: the database's own is right."""
    disk = os.statvfs(path)
    tag = re.sub(r"([,= ])", r"\\\1", bench)
    return f"collector,bench={tag},device=server disk_free_bytes={float(disk.f_bavail * disk.f_frsize)}"


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Return what the command line says."""
    parser = argparse.ArgumentParser(prog="battfleet-disk-report", description="Write how much room this disk has.")
    parser.add_argument("--path", required=True, help="a folder on the disk")
    parser.add_argument("--bench", required=True, help="tag `bench`: this host")
    parser.add_argument("--url", default="http://127.0.0.1:8086")
    parser.add_argument("--database", default="bat")
    parser.add_argument("--policy", default="raw")
    parser.add_argument("--user", required=True)
    return parser.parse_args(arguments)


def main(arguments: Sequence[str]) -> int:
    """Write it once; return the exit code."""
    asked = parse(arguments)
    try:
        password = (Path(os.environ["CREDENTIALS_DIRECTORY"]) / "password").read_text(encoding="utf-8").strip()
        login = base64.b64encode(f"{asked.user}:{password}".encode()).decode()
        query = urllib.parse.urlencode({"db": asked.database, "rp": asked.policy})
        request = urllib.request.Request(  # noqa: S310 - http on loopback
            f"{asked.url}/write?{query}", line(asked.path, asked.bench).encode(), {"Authorization": f"Basic {login}"}
        )
        with urllib.request.urlopen(request, timeout=ANSWER_S):  # noqa: S310
            return 0
    except urllib.error.HTTPError as error:
        said = error.read(500).decode("utf-8", "replace")
        print(f"battfleet-disk-report: {asked.url}: {error.code} {said}", file=sys.stderr)
    except KeyError:
        print("battfleet-disk-report: no credential `password`; systemd starts this program", file=sys.stderr)
    except OSError as error:
        print(f"battfleet-disk-report: {error}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
