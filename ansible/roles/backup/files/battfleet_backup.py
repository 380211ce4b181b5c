#!/usr/bin/python3
"""Back up the server, try whether a backup can be restored, restore it. Standard library only.

    battfleet-backup make              /var/backups/battfleet/<UTC time>.tar, only for root; the oldest go
    battfleet-backup check             restore the newest beside the real database, count, drop it again; exit code 1
                                       when points are missing
    battfleet-backup restore FILE      bring the database back; it must not exist on the server

A backup holds the database, Grafana's own database, the certificate authority (benches trust it), and `manifest.json`:
how many values each measurement had in the day before. InfluxDB 1.6 keeps users apart from databases, so they are not
in it; the play makes them again, with the same passwords. For InfluxDB 2, `influx backup` keeps them.

The administrator's password or token is the systemd credential `admin`, or /etc/battfleet/backup/admin for root.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import tarfile
import tempfile
import time
import urllib.parse
import urllib.request
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDER = Path("/var/backups/battfleet")
GRAFANA = Path("/var/lib/grafana/grafana.db")
TLS = Path("/etc/battfleet/tls")
SPARE = "battfleet_restore_check"
DAY_S = 86_400
DROPS = 10
SETTLE_S = 5.0
"""1.6 opens restored shards after `influxd restore` has ended; dropped in that moment, its index can crash it."""
PORT_1X = "127.0.0.1:8088"


class Failed(Exception):
    """It did not work; the text says what."""


@dataclass(frozen=True)
class Server:
    """The database and how to get in."""

    variant: str
    url: str
    database: str
    admin: str
    secret: str

    def query(self, statement: str, database: str = "") -> list[dict[str, Any]]:
        """Return the series of an InfluxQL statement."""
        body = urllib.parse.urlencode({"q": statement, "db": database or self.database, "epoch": "s"}).encode()
        basic = base64.b64encode(f"{self.admin}:{self.secret}".encode()).decode()
        login = f"Basic {basic}" if self.variant == "debian" else f"Token {self.secret}"
        request = urllib.request.Request(f"{self.url}/query", body, {"Authorization": login})  # noqa: S310 - http
        with urllib.request.urlopen(request, timeout=600) as response:  # noqa: S310
            (result,) = json.load(response)["results"]
        if "error" in result:
            raise Failed(f"{statement}: {result['error']}")
        found: list[dict[str, Any]] = result.get("series", [])
        return found

    def counts(self, from_s: int, to_s: int, database: str = "") -> dict[str, int]:
        """Return measurement to number of values in this stretch of time, of the default policy."""
        where = f"time >= {from_s}s AND time < {to_s}s"
        series = self.query(f"SELECT count(*) FROM /.*/ WHERE {where}", database)  # noqa: S608 - two whole numbers
        return {one["name"]: sum(int(value or 0) for value in one["values"][0][1:]) for one in series}


def run(*command: str, environment: dict[str, str] | None = None) -> None:
    """Run a program; Failed with its words."""
    done = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, **(environment or {})}, check=False
    )
    if done.returncode:
        raise Failed(f"{' '.join(command)}: {done.stderr.strip() or done.stdout.strip() or done.returncode}")


def make(server: Server, keep: int) -> Path:
    """Return the new backup; the oldest beyond `keep` are deleted after it is whole."""
    now_s = int(time.time())
    target = FOLDER / time.strftime("%Y-%m-%dT%H%M%SZ.tar", time.gmtime(now_s))
    with tempfile.TemporaryDirectory(dir=FOLDER, prefix="draft-") as draft:
        place = Path(draft)
        manifest = {"to_s": now_s, "database": server.database, "counts": server.counts(now_s - DAY_S, now_s)}
        (place / "manifest.json").write_text(json.dumps(manifest, indent=1))
        (place / "influxdb").mkdir()
        if server.variant == "debian":
            run(
                "influxd",
                "backup",
                "-portable",
                "-host",
                PORT_1X,
                "-database",
                server.database,
                str(place / "influxdb"),
            )
        else:
            run(
                "influx",
                "backup",
                "--host",
                server.url,
                str(place / "influxdb"),
                environment={"INFLUX_TOKEN": server.secret},
            )
        if GRAFANA.exists():
            source, copy = sqlite3.connect(f"file:{GRAFANA}?mode=ro", uri=True), sqlite3.connect(place / "grafana.db")
            with closing(source), closing(copy):
                source.backup(copy)
        whole = target.with_suffix(".new")
        with tarfile.open(whole, "w") as archive:
            archive.add(place, arcname=".")
            if TLS.exists():
                archive.add(TLS, arcname="tls")
        with whole.open("rb") as file:
            os.fsync(file.fileno())
        whole.rename(target)
    for old in backups()[:-keep]:
        old.unlink()
    return target


def backups() -> list[Path]:
    """Return the backups, the newest last."""
    return sorted(FOLDER.glob("*Z.tar"))


def restore(server: Server, backup: Path, name: str) -> None:
    """Bring the database of a backup back under this name, which must be free."""
    with tempfile.TemporaryDirectory(dir=FOLDER, prefix="restore-") as scratch:
        with tarfile.open(backup) as archive:
            for member in archive:
                unpack(archive, member, Path(scratch))
        place, of = f"{scratch}/influxdb", json.loads((Path(scratch) / "manifest.json").read_text())["database"]
        if server.variant == "debian":
            run("influxd", "restore", "-portable", "-host", PORT_1X, "-db", of, "-newdb", name, place)
            time.sleep(SETTLE_S)
        else:
            for policy in policies(server)[: 1 if name == SPARE else None]:  # a check counts the default one
                bucket = ["--bucket", f"{of}/{policy}", "--new-bucket", f"{name}/{policy}"]
                command = ["influx", "restore", "--host", server.url, *bucket, place]
                run(*command, environment={"INFLUX_TOKEN": server.secret})


def policies(server: Server) -> list[str]:
    """Return the names of the database's retention policies, the default one first."""
    (series,) = server.query("SHOW RETENTION POLICIES")
    rows = [dict(zip(series["columns"], row, strict=True)) for row in series["values"]]
    return [row["name"] for row in sorted(rows, key=lambda row: not row["default"])]


def unpack(archive: tarfile.TarFile, member: tarfile.TarInfo, folder: Path) -> None:
    """Write a file of the database's part; Debian 12's tarfile has no safe way to take out many at once."""
    target = folder / member.name
    content = archive.extractfile(member)
    if content is None or ".." in target.parts or not member.name.startswith(("./manifest.json", "./influxdb/")):
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    with content, target.open("wb") as file:
        shutil.copyfileobj(content, file)


def check(server: Server) -> str:
    """Return what was found right; Failed when the newest backup does not bring every point back."""
    if not backups():
        raise Failed(f"{FOLDER}: there is no backup; run `battfleet-backup make`")
    newest = backups()[-1]
    with tarfile.open(newest) as archive:
        member = archive.extractfile("./manifest.json")
        assert member is not None
        manifest = json.load(member)
    drop(server, SPARE)
    restore(server, newest, SPARE)
    try:
        found = server.counts(manifest["to_s"] - DAY_S, manifest["to_s"], SPARE)
    finally:
        drop(server, SPARE)
    missing = {
        name: count - found.get(name, 0) for name, count in manifest["counts"].items() if found.get(name, 0) < count
    }
    if missing:
        raise Failed(f"{newest}: after a restore, values are missing: {missing}")
    return f"{newest}: {sum(found.values())} values of its last day came back, none is missing"


def drop(server: Server, name: str) -> None:
    """Remove the database that a check made, where there is one."""
    if server.variant == "debian":
        for left in reversed(range(DROPS)):  # 1.6 trips over files that it is still making for what was just restored
            try:
                server.query(f'DROP DATABASE "{name}"')
                return
            except Failed as failed:
                if "directory not empty" not in str(failed) or not left:
                    raise
                time.sleep(1)
    command = ["influx", "bucket", "list", "--host", server.url, "--json"]
    environment = {**os.environ, "INFLUX_TOKEN": server.secret}
    listed = subprocess.run(command, capture_output=True, text=True, env=environment, check=True).stdout
    for bucket in json.loads(listed):
        if bucket["name"].partition("/")[0] == name:
            run("influx", "bucket", "delete", "--host", server.url, "--id", bucket["id"], environment=environment)


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Return what the command line asks for."""
    parser = argparse.ArgumentParser(prog="battfleet-backup", description="Back up the server, and restore it.")
    parser.add_argument("action", choices=("make", "check", "restore"))
    parser.add_argument("file", nargs="?", type=Path, help="restore: a backup in /var/backups/battfleet")
    parser.add_argument("--variant", choices=("debian", "vendor"), default="debian")
    parser.add_argument("--url", default="http://127.0.0.1:8086")
    parser.add_argument("--database", default="bat")
    parser.add_argument("--admin", default="admin")
    parser.add_argument("--keep", type=int, default=14)
    given = parser.parse_args(arguments)
    if (given.action == "restore") != (given.file is not None):
        parser.error("restore needs a FILE, and nothing else takes one")
    return given


def main(arguments: Sequence[str]) -> int:
    """Do it; return the exit code: 0, or 1 with what went wrong."""
    given = parse(arguments)
    credentials = Path(os.environ.get("CREDENTIALS_DIRECTORY", "/etc/battfleet/backup"))
    try:
        secret = (credentials / "admin").read_text().strip()
        server = Server(given.variant, given.url, given.database, given.admin, secret)
        if given.action == "make":
            print(make(server, given.keep))
        elif given.action == "check":
            print(check(server))
        else:
            restore(server, given.file, given.database)
            print(f"{given.database} is back from {given.file}; now run ansible/playbooks/server.yml for its users")
    except (Failed, OSError, sqlite3.Error, tarfile.TarError) as error:
        print(f"battfleet-backup: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
