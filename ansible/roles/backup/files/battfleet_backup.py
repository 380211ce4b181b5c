#!/usr/bin/python3
"""Back up the server, try whether a backup can be restored, restore it. Standard library only.

    battfleet-backup make              /var/backups/battfleet/<UTC time>.tar, only for root; the oldest go
    battfleet-backup check             restore the newest beside the real database, count, drop it again; exit code 1
                                       when values are missing
    battfleet-backup restore FILE      bring the database back

A backup holds the database, Grafana's own database, the certificate authority (benches trust it), and `manifest.json`:
how many values each field of each measurement and retention policy had in the day before, or at all if there was none
in that day. A check fails when fewer come back.

InfluxDB 1.6 keeps users apart from databases, so they are not in it; the play makes them again, with the same
passwords. The database must not exist on the server.

InfluxDB 2: `influx backup` saves every bucket of the server, and its users and tokens. A restore brings the buckets of
the database back, each mapped (DBRP) for InfluxQL. The organisation is made where it is missing. A bucket of the same
name that is there already, as server.yml makes them, is renamed first; what it holds is copied into the restored one
before it is deleted, so that points which benches have sent to a new server stay. Buckets that are made anew have other
ids: the play gives the users their permissions again.

The administrator's password or token is the systemd credential `admin`, or /etc/battfleet/backup/admin for root.
Sources: `influx backup`, `influx restore` of influxdata/influx-cli; the API of InfluxDB 2.7.12.
"""

from __future__ import annotations

import argparse
import base64
import csv
import http.client
import io
import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
import tarfile
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDER = Path("/var/backups/battfleet")
GRAFANA = Path("/var/lib/grafana/grafana.db")
TLS = Path("/etc/battfleet/tls")
SPARE = "battfleet_restore_check"
ASIDE = "battfleet_aside"
DEFAULT_POLICY = "raw"
"""The default policy of backups whose manifest does not say it."""
PAGE = 100
SPACE = 3
"""Free space that a backup's size is multiplied with: it is unpacked and restored beside what is there."""
DAY_S = 86_400
DROPS = 10
SETTLE_S = 5.0
"""1.6 opens restored shards after `influxd restore` has ended; dropped in that moment, its index can crash it."""
PORT_1X = "127.0.0.1:8088"
TIMEOUT_S = 600.0
COPY_TIMEOUT_S = 86_400.0
"""Copying points answers nothing until it is done."""
OLDEST, NEWEST = "1678-01-01T00:00:00Z", "2262-01-01T00:00:00Z"
"""Times that InfluxDB 2 can store."""


class Failed(Exception):
    """It did not work; the text says what."""


class Missing(Failed):
    """InfluxDB 2 does not know what was asked for by name or id."""


Counts = dict[str, dict[str, dict[str, int]]]
"""Retention policy, measurement, field: number of values."""


@dataclass(frozen=True)
class Server:
    """The database and how to get in; `org` is InfluxDB 2's organisation."""

    variant: str
    url: str
    database: str
    admin: str
    secret: str
    org: str = ""

    def query(self, statement: str) -> list[dict[str, Any]]:
        """Return the series of an InfluxQL statement; of 1.6 only."""
        body = urllib.parse.urlencode({"q": statement, "db": self.database, "epoch": "s"}).encode()
        basic = base64.b64encode(f"{self.admin}:{self.secret}".encode()).decode()
        (result,) = json.loads(self._send("POST", "/query", body, {"Authorization": f"Basic {basic}"}))["results"]
        if "error" in result:
            raise Failed(f"{statement}: {result['error']}")
        found: list[dict[str, Any]] = result.get("series", [])
        return found

    def api(self, method: str, path: str, **content: Any) -> dict[str, Any]:
        """Return what InfluxDB 2 answers to a JSON request; Missing when what it names is not there."""
        body = json.dumps(content).encode() if content else None
        headers = {"Authorization": f"Token {self.secret}", "Content-Type": "application/json"}
        text = self._send(method, path, body, headers)
        found: dict[str, Any] = json.loads(text) if text else {}
        return found

    def flux(self, text: str, timeout_s: float = TIMEOUT_S) -> list[dict[str, str]]:
        """Return the rows of what a Flux script of InfluxDB 2 yields, of tables that all have the same columns."""
        headers = {"Authorization": f"Token {self.secret}", "Content-Type": "application/vnd.flux"}
        path = f"/api/v2/query?{urllib.parse.urlencode({'org': self.org})}"
        answer = self._send("POST", path, text.encode(), headers, timeout_s)
        lines = answer.decode("utf-8", "replace")
        if re.search(r"^,?error,reference", lines, re.MULTILINE):  # it failed after the status was sent
            raise Failed(f"{text}: {lines.strip()}")
        rows = [row for row in csv.reader(io.StringIO(lines)) if row]
        return [dict(zip(rows[0], row, strict=True)) for row in rows[1:] if row != rows[0]]

    def _send(
        self, method: str, path: str, body: bytes | None, headers: dict[str, str], timeout_s: float = TIMEOUT_S
    ) -> bytes:
        request = urllib.request.Request(self.url + path, body, headers, method=method)  # noqa: S310 - http
        try:
            with urllib.request.urlopen(request, timeout=timeout_s) as response:  # noqa: S310
                text: bytes = response.read()
                return text
        except urllib.error.HTTPError as error:
            words = error.read().decode("utf-8", "replace").strip()
            kind = Missing if error.headers.get("X-Platform-Error-Code") == "not found" else Failed
            raise kind(f"{self.url}: {method} {path.partition('?')[0]}: {error.code} {words}") from error
        except (OSError, http.client.HTTPException) as error:
            raise Failed(f"{self.url} does not answer: {error}") from error

    def policies(self, database: str = "") -> dict[str, str]:
        """Return name to bucket of a database's retention policies, the default one first; 1.6 has no buckets."""
        name = database or self.database
        if self.variant == "vendor":  # /query knows the token's organisation only
            query = urllib.parse.urlencode({"orgID": self.org_id(), "db": name})
            rows = self.api("GET", f"/api/v2/dbrps?{query}")["content"]
            named = [(not row["default"], row["retention_policy"], row["bucketID"]) for row in rows]
        else:
            rows = [
                dict(zip(series["columns"], row, strict=True))
                for series in self.query(f'SHOW RETENTION POLICIES ON "{name}"')
                for row in series.get("values", [])
            ]
            named = [(not row["default"], row["name"], "") for row in rows]
        return {policy: bucket for _, policy, bucket in sorted(named)}

    def counts(self, from_s: int, to_s: int, database: str = "") -> Counts:
        """Return the number of values of each policy, measurement and field in this stretch of time."""
        found: Counts = {}
        for policy, bucket in self.policies(database).items():
            counted = self._counts_2x if self.variant == "vendor" else self._counts_1x
            if fields := counted(bucket or f'"{database or self.database}"."{policy}"', from_s, to_s):
                found[policy] = fields
        return found

    def _counts_1x(self, place: str, from_s: int, to_s: int) -> dict[str, dict[str, int]]:
        where = f"time >= {from_s}s AND time < {to_s}s"
        found: dict[str, dict[str, int]] = {}
        for one in self.query(f"SELECT count(*) FROM {place}./.*/ WHERE {where}"):  # noqa: S608 - two whole numbers
            fields = [column.removeprefix("count_") for column in one["columns"][1:]]
            numbers = [int(value or 0) for value in one["values"][0][1:]]  # 0: a field of another measurement
            found[one["name"]] = {field: number for field, number in zip(fields, numbers, strict=True) if number}
        return found

    def _counts_2x(self, bucket: str, from_s: int, to_s: int) -> dict[str, dict[str, int]]:
        text = f'from(bucketID: "{bucket}") |> range(start: {from_s}, stop: {to_s}) |> count()'
        found: dict[str, dict[str, int]] = {}
        for row in self.flux(f'{text} |> group(columns: ["_measurement", "_field"]) |> sum()'):
            found.setdefault(row["_measurement"], {})[row["_field"]] = int(row["_value"])
        return found

    def buckets(self) -> Iterator[dict[str, Any]]:
        """Return the buckets of InfluxDB 2's organisation, page by page."""
        offset = 0
        while True:
            page = {"orgID": self.org_id(), "limit": PAGE, "offset": offset}
            found = self.api("GET", f"/api/v2/buckets?{urllib.parse.urlencode(page)}")["buckets"]
            yield from found
            if len(found) < PAGE:
                return
            offset += PAGE

    def org_id(self) -> str:
        """Return the id of InfluxDB 2's organisation."""
        found = self.api("GET", f"/api/v2/orgs?{urllib.parse.urlencode({'org': self.org})}")["orgs"]
        return str(found[0]["id"])


def run(*command: str, environment: dict[str, str] | None = None) -> None:
    """Run a program; Failed with its words."""
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, env={**os.environ, **(environment or {})}, check=False
        )
    except FileNotFoundError as error:
        raise Failed(f"{command[0]} is not installed (packages influxdb, or influxdb2-cli of the vendor)") from error
    if done.returncode:
        raise Failed(f"{' '.join(command)}: {done.stderr.strip() or done.stdout.strip() or done.returncode}")


def influx(server: Server, folder: Path, *command: str) -> None:
    """Run the command line of InfluxDB 2 on this server; nobody's own configuration of it counts."""
    none = str(folder / "no-configuration")
    run(
        "influx",
        *command,
        environment={"INFLUX_TOKEN": server.secret, "INFLUX_HOST": server.url, "INFLUX_CONFIGS_PATH": none},
    )


def make(server: Server, keep: int) -> Path:
    """Return the new backup; the oldest beyond `keep` are deleted after it is whole."""
    now_s = int(time.time())
    target = FOLDER / time.strftime("%Y-%m-%dT%H%M%SZ.tar", time.gmtime(now_s))
    if backups():
        need_space(backups()[-1])
    with tempfile.TemporaryDirectory(dir=FOLDER, prefix="draft-") as draft:
        place = Path(draft)
        (place / "manifest.json").write_text(json.dumps(manifest_of(server, now_s), indent=1))
        (place / "influxdb").mkdir()
        saved = str(place / "influxdb")
        if server.variant == "debian":
            run("influxd", "backup", "-portable", "-host", PORT_1X, "-database", server.database, saved)
        else:
            influx(server, place, "backup", saved)
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


def manifest_of(server: Server, now_s: int) -> dict[str, Any]:
    """Return what a backup of now must bring back at least."""
    policies = list(server.policies())
    from_s = now_s - DAY_S
    fields = server.counts(from_s, now_s)
    if not fields:
        from_s = 0
        fields = server.counts(from_s, now_s)
    default = fields.get(policies[0], {}) if policies else {}
    return {
        "from_s": from_s,
        "to_s": now_s,
        "database": server.database,
        "org": server.org,
        "policies": policies,
        "counts": {measurement: sum(values.values()) for measurement, values in default.items()},
        "fields": fields,
    }


def need_space(backup: Path) -> None:
    """Return when there is room to work on a backup of this size; a full disk would hurt the database itself."""
    free, size = shutil.disk_usage(FOLDER).free, backup.stat().st_size
    if free < SPACE * size:
        raise Failed(
            f"{FOLDER}: {free // 2**20} MiB are free, expected {SPACE} times the {size // 2**20} MiB of {backup}"
        )


def backups() -> list[Path]:
    """Return the backups, the newest last."""
    return sorted(FOLDER.glob("*Z.tar"))


def restore(server: Server, backup: Path, name: str) -> list[str]:
    """Bring the database of a backup back under this name; return what else was done, in words."""
    need_space(backup)
    with tempfile.TemporaryDirectory(dir=FOLDER, prefix="restore-") as scratch:
        folder = Path(scratch)
        with tarfile.open(backup) as archive:
            for member in archive:
                unpack(archive, member, folder)
        manifest = read_manifest(backup)
        if server.variant == "vendor":
            return restore_buckets(server, folder, manifest, name)
        of, place = manifest["database"], str(folder / "influxdb")
        run("influxd", "restore", "-portable", "-host", PORT_1X, "-db", of, "-newdb", name, place)
        time.sleep(SETTLE_S)
        return []


def restore_buckets(server: Server, folder: Path, manifest: dict[str, Any], name: str) -> list[str]:
    """Bring the buckets of a database back under another or the same name; all of them, or none and Failed."""
    org, saved = saved_buckets(folder / "influxdb", manifest["database"], manifest.get("org", ""))
    stamp = time.strftime("%Y-%m-%dT%H%M%SZ", time.gmtime())
    try:
        there = {bucket["name"]: bucket["id"] for bucket in server.buckets()}
    except Missing:  # the organisation; a restore makes it
        there = {}
    aside: dict[str, str] = {}
    done: list[str] = []
    try:
        for policy, bucket in saved.items():
            new = f"{name}/{policy}"
            if new in there:
                server.api("PATCH", f"/api/v2/buckets/{there[new]}", name=f"{ASIDE} {stamp}/{policy}")
                aside[new] = there[new]
            done.append(new)
            which = ["--org", org, "--new-org", server.org, "--bucket", bucket, "--new-bucket", new]
            influx(server, folder, "restore", *which, str(folder / "influxdb"))
    except Failed:
        for bucket in list(server.buckets()) if aside else []:
            if bucket["name"] in done and bucket["id"] not in aside.values():
                server.api("DELETE", f"/api/v2/buckets/{bucket['id']}")
        for new, number in aside.items():
            server.api("PATCH", f"/api/v2/buckets/{number}", name=new)
        raise
    restored = {bucket["name"]: bucket["id"] for bucket in server.buckets()}
    default = (manifest.get("policies") or [DEFAULT_POLICY])[0]
    for policy in sorted(saved, key=lambda policy: policy != default):  # the first of a database becomes its default
        remap(server, name, policy, restored[f"{name}/{policy}"], is_default=policy == default)
    words = [copy_back(server, new, restored[new], number) for new, number in aside.items()]
    return words + [left for new, number in aside.items() if (left := delete(server, new, number))]


def saved_buckets(folder: Path, database: str, org: str) -> tuple[str, dict[str, str]]:
    """Return organisation, and policy to name of the buckets of a database, from the manifest of `influx backup`."""
    found: dict[str, dict[str, str]] = {}
    for file in sorted(folder.glob("*.manifest")):
        for bucket in json.loads(file.read_text())["buckets"]:
            start, cut, policy = bucket["bucketName"].partition("/")
            if cut and start == database and org in ("", bucket["organizationName"]):
                found.setdefault(bucket["organizationName"], {})[policy] = bucket["bucketName"]
    if len(found) != 1:
        there = f"organisations {', '.join(found)}" if found else "no organisation"
        raise Failed(f"the backup has buckets {database}/… in {there}, expected one")
    return found.popitem()


def remap(server: Server, database: str, policy: str, bucket: str, *, is_default: bool) -> None:
    """Let InfluxQL's names mean this bucket; one that they meant before is forgotten."""
    org = server.org_id()
    query = urllib.parse.urlencode({"orgID": org, "db": database, "rp": policy})
    for mapping in server.api("GET", f"/api/v2/dbrps?{query}")["content"]:
        if not mapping.get("virtual"):
            server.api("DELETE", f"/api/v2/dbrps/{mapping['id']}?orgID={org}")
    names = {"database": database, "retention_policy": policy, "default": is_default}
    server.api("POST", "/api/v2/dbrps", orgID=org, bucketID=bucket, **names)


def copy_back(server: Server, name: str, restored: str, aside: str) -> str:
    """Copy what the bucket of this name held before into the restored one; return that in words."""
    # What is copied is counted, so that the answer is short.
    copy = f'from(bucketID: "{aside}") |> range(start: {OLDEST}, stop: {NEWEST})'
    copy += f' |> to(bucketID: "{restored}", orgID: "{server.org_id()}") |> count() |> group() |> sum()'
    try:
        number = sum(int(row["_value"]) for row in server.flux(copy, COPY_TIMEOUT_S))
    except Failed as failed:
        raise Failed(
            f"{name} is back; what it held before is still in bucket {aside}, not copied: {failed}"
        ) from failed
    return f"{name}: {number} values that it held already were kept"


def delete(server: Server, name: str, aside: str) -> str:
    """Delete a bucket that was copied; return "", or in words that it is still there.

    Nothing is lost by that: 2.7.12 does not delete what a query that failed has left open, until it is restarted.
    """
    try:
        server.api("DELETE", f"/api/v2/buckets/{aside}")
    except Failed as failed:
        return f"{name}: bucket {aside} was copied and can be deleted after a restart of the server; now: {failed}"
    return ""


def read_manifest(backup: Path) -> dict[str, Any]:
    """Return what a backup says of itself."""
    with tarfile.open(backup) as archive:
        try:
            member = archive.extractfile("./manifest.json")
        except KeyError:
            member = None
        if member is None:
            raise Failed(f"{backup}: there is no manifest.json in it, so it is no backup of battfleet-backup")
        try:
            found: dict[str, Any] = json.load(member)
        except ValueError as error:
            raise Failed(f"{backup}: manifest.json: {error}") from error
        return found


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
    """Return what was found right; Failed when the newest backup does not bring every value back."""
    if not backups():
        raise Failed(f"{FOLDER}: there is no backup; run `battfleet-backup make`")
    newest = backups()[-1]
    manifest = read_manifest(newest)
    from_s, to_s = manifest.get("from_s", manifest["to_s"] - DAY_S), manifest["to_s"]
    drop(server, SPARE)
    try:
        restore(server, newest, SPARE)
        found = server.counts(from_s, to_s, SPARE)
        default = list(server.policies(SPARE))[:1]
    finally:
        drop(server, SPARE)
    if missing := missing_in(found, manifest, default):
        raise Failed(f"{newest}: after a restore, values are missing: {', '.join(missing)}")
    number = sum(n for measurements in found.values() for fields in measurements.values() for n in fields.values())
    since = "its last day" if from_s else "it"
    return f"{newest}: {number} values of {since} came back in {len(found)} retention policies, none is missing"


def missing_in(found: Counts, manifest: dict[str, Any], default: list[str]) -> list[str]:
    """Return in words what a restored database has less of than its manifest says; older ones count measurements."""
    wanted: Counts = manifest.get("fields") or {}
    missing = []
    for policy, measurements in wanted.items():
        for measurement, fields in measurements.items():
            for field, number in fields.items():
                come = found.get(policy, {}).get(measurement, {}).get(field, 0)
                if come < number:
                    missing.append(f"{policy}.{measurement}.{field} {number - come} of {number}")
    restored = found.get(default[0], {}) if default else {}
    for measurement, number in manifest["counts"].items() if not wanted else ():
        come = sum(restored.get(measurement, {}).values())
        if come < number:
            missing.append(f"{measurement} {number - come} of {number}")
    return missing


def drop(server: Server, name: str) -> None:
    """Remove the database that a check made, where there is one."""
    if server.variant == "vendor":
        try:
            there = list(server.buckets())
        except Missing:  # the organisation
            there = []
        for bucket in there:
            if bucket["name"].partition("/")[0] == name:
                server.api("DELETE", f"/api/v2/buckets/{bucket['id']}")
        return
    for left in reversed(range(DROPS)):  # 1.6 trips over files that it is still making for what was just restored
        try:
            server.query(f'DROP DATABASE "{name}"')
            return
        except Failed as failed:
            if "directory not empty" not in str(failed) or not left:
                raise
            time.sleep(1)


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Return what the command line asks for."""
    parser = argparse.ArgumentParser(prog="battfleet-backup", description="Back up the server, and restore it.")
    parser.add_argument("action", choices=("make", "check", "restore"))
    parser.add_argument("file", nargs="?", type=Path, help="restore: a backup in /var/backups/battfleet")
    parser.add_argument("--variant", choices=("debian", "vendor"), default="debian")
    parser.add_argument("--url", default="http://127.0.0.1:8086")
    parser.add_argument("--database", default="bat")
    parser.add_argument("--org", default="lab", help="vendor: name of the organisation")
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
        server = Server(given.variant, given.url, given.database, given.admin, secret, given.org)
        if given.action == "make":
            print(make(server, given.keep))
        elif given.action == "check":
            print(check(server))
        else:
            print(*restore(server, given.file, given.database), sep="\n")
            print(f"{given.database} is back from {given.file}; now run ansible/playbooks/server.yml for its users")
    except (Failed, OSError, sqlite3.Error, tarfile.TarError) as error:
        print(f"battfleet-backup: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
