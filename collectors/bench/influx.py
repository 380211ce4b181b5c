"""The bench's database: an existing InfluxDB, or a private 1.x that runs as a child process on a free loopback port.

A 1.x must be without users. A 2.x needs a token, which the shipper gets as a file that only its owner may read.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

from collectors.bench.processes import DIE_WITH_PARENT
from collectors.bench.reconciliation import SeriesKey
from collectors.errors import ConfigError, LinkDown
from collectors.shipper.influxdb.detect import detect

LOCAL = "http://127.0.0.1:8086"
DATABASE = "battfleet_bench"
START_S = 30.0
STOP_S = 10.0

CONFIG = """\
reporting-disabled = true
bind-address = "127.0.0.1:0"
[meta]
  dir = "{folder}/meta"
[data]
  dir = "{folder}/data"
  wal-dir = "{folder}/wal"
  query-log-enabled = false
[monitor]
  store-enabled = false
[http]
  bind-address = "127.0.0.1:{port}"
  log-enabled = false
[subscriber]
  enabled = false
[continuous_queries]
  enabled = false
"""


class Unreachable(Exception):
    """No InfluxDB responds at this address, or it rejects a request of the bench."""


@dataclass(frozen=True, slots=True)
class Access:
    """The user's credentials for a server that requires them (2.x)."""

    token: Callable[[str], str]
    """Return the token for the server at this URL; empty when there is none. Called only when one is needed."""
    org: str = ""
    """The organisation; empty: the only one that the token can read."""


class Influx:
    """One server 1.x without users, over HTTP."""

    def __init__(self, url: str) -> None:
        """Raise ConfigError when the URL is invalid."""
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.path.strip("/") or parts.username:
            raise ConfigError(f"influx: expected auto, none, private or http[s]://HOST:PORT, got {url!r}")
        self.url = url.rstrip("/")
        self._address = parts.hostname, parts.port or 8086
        self._connect = HTTPSConnection if parts.scheme == "https" else HTTPConnection

    def _request(self, method: str, path: str, body: str | None = None) -> tuple[int, str]:
        """Return status and text of a response; Unreachable when there is none."""
        connection = self._connect(*self._address, timeout=60)
        try:
            connection.request(method, path, body, self._headers())
            response = connection.getresponse()
            return response.status, response.read().decode(errors="replace").strip()
        except (OSError, HTTPException, ValueError) as error:
            raise Unreachable(f"{self.url}: {error}") from error
        finally:
            connection.close()

    def _headers(self) -> dict[str, str]:
        return {}

    def query(self, statement: str, database: str = "") -> list[dict[str, Any]]:
        """Return the series of an InfluxQL statement, time stamps in ns; Unreachable when the query fails."""
        arguments = urlencode({"q": statement, "db": database, "epoch": "ns"})
        status, text = self._request("POST", f"/query?{arguments}")
        if status != 200:
            raise Unreachable(f"{self.url}: {status} {text}")
        try:
            [result] = json.loads(text)["results"]
        except (ValueError, KeyError) as error:
            raise Unreachable(f"{self.url}: expected the result of a query, got {text[:200]!r}") from error
        if "error" in result:
            raise Unreachable(f"{self.url}: {result['error']}")
        series: list[dict[str, Any]] = result.get("series", [])
        return series

    def prepare(self, database: str) -> bool:
        """Create the database; return whether it was missing."""
        names = [row[0] for series in self.query("SHOW DATABASES") for row in series.get("values", [])]
        if database not in names:
            self.query(f'CREATE DATABASE "{database}"')
        return database not in names

    def drop(self, database: str) -> None:
        """Delete the database with its content."""
        self.query(f'DROP DATABASE "{database}"')

    def sink(self, database: str, folder: Path) -> dict[str, str]:
        """Return the [[sink]] keys for a shipper; `folder` is the directory for secrets."""
        del folder  # no secret is needed
        return {"dialect": "influxdb1", "url": self.url, "database": database}

    def is_there(self) -> bool:
        """Return whether the server responds."""
        try:
            self.query("SHOW DATABASES")
        except Unreachable:
            return False
        return True

    def rows(self, database: str, measurement: str, device: str, span_ns: tuple[int, int]) -> dict[SeriesKey, Any]:
        """Return one device's rows of a measurement between two times: series to {time stamp: {field: value}}."""
        found: dict[SeriesKey, dict[int, dict[str, Any]]] = {}
        statement = (
            f'SELECT * FROM "{measurement}" WHERE "device" = \'{device}\''  # noqa: S608 - names are the bench's own
            f" AND time >= {span_ns[0]} AND time <= {span_ns[1]} GROUP BY *"
        )
        for series in self.query(statement, database):
            tags = tuple(sorted((k, v) for k, v in series.get("tags", {}).items() if v))
            names = series["columns"][1:]
            points = found.setdefault((measurement, tags), {})
            for stamp, *values in series["values"]:
                points[stamp] = {n: v for n, v in zip(names, values, strict=True) if v is not None}
        return found


class Influx2(Influx):
    """One server 2.x: buckets over its API, InfluxQL over its automatic mapping of a bucket without a policy."""

    def __init__(self, url: str, token: str, org: str) -> None:
        """Find the organisation; Unreachable when the token is rejected, ConfigError when none or several match."""
        super().__init__(url)
        self._token = token
        self._bucket_id = ""
        found = {each["name"]: each["id"] for each in self._ask("GET", "/api/v2/orgs?limit=100").get("orgs", [])}
        if org and org not in found:
            raise ConfigError(f"influx: {url}: this token sees no organisation {org!r}; it sees: {', '.join(found)}")
        if not org and len(found) != 1:
            seen = ", ".join(found) or "none"
            raise ConfigError(f"influx: {url}: name the organisation with --influx-org; this token sees: {seen}")
        self._org = org or next(iter(found))
        self._org_id = found[self._org]

    def _headers(self) -> dict[str, str]:
        return {"Authorization": f"Token {self._token}"}

    def _ask(
        self, method: str, path: str, body: Mapping[str, Any] | None = None, missing_is_empty: bool = False
    ) -> Any:
        """Return the JSON of a response, or {} when it is empty; Unreachable with the response's text otherwise."""
        status, text = self._request(method, path, None if body is None else json.dumps(body))
        if status == 404 and missing_is_empty:
            return {}
        if status >= 300:
            raise Unreachable(f"{self.url}: {method} {path}: {status} {text}")
        try:
            return json.loads(text) if text else {}
        except ValueError as error:
            raise Unreachable(f"{self.url}: {method} {path}: expected JSON, got {text[:200]!r}") from error

    def prepare(self, database: str) -> bool:
        """Create a bucket of this name; return whether it was missing."""
        asked = urlencode({"name": database, "orgID": self._org_id})
        buckets = self._ask("GET", f"/api/v2/buckets?{asked}", missing_is_empty=True).get("buckets", [])
        if buckets:
            self._bucket_id = buckets[0]["id"]
            return False
        new = {"orgID": self._org_id, "name": database, "retentionRules": []}
        self._bucket_id = self._ask("POST", "/api/v2/buckets", new)["id"]
        return True

    def drop(self, database: str) -> None:
        """Delete the bucket that `prepare` found or created, with its content."""
        del database
        self._ask("DELETE", f"/api/v2/buckets/{self._bucket_id}")

    def sink(self, database: str, folder: Path) -> dict[str, str]:
        """Return the [[sink]] keys for a shipper; the token is written to a file in `folder`."""
        file = folder / "token"
        file.touch(mode=0o600)
        file.write_text(self._token, encoding="utf-8")
        return {
            "dialect": "influxdb2",
            "url": self.url,
            "org": self._org,
            "bucket": database,
            "token_file": str(file),
        }


class PrivateInflux(Influx):
    """A private server with a directory of its own; it can be stopped and started again on the same port."""

    def __init__(self, folder: Path) -> None:
        """Raise ConfigError when influxd is not installed."""
        program = shutil.which("influxd")
        if program is None:
            raise ConfigError("influxd is not installed; on Debian run: sudo apt-get install influxdb")
        self._program = program
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self._port = 0
        super().__init__(LOCAL)

    def start(self) -> None:
        """Start the server and wait until it responds; Unreachable with the last line of its log when it does not."""
        if self._process is not None:
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        config, log = self._folder / "influxdb.conf", self._folder / "influxd.log"
        config.write_text(CONFIG.format(folder=self._folder, port=self._port), encoding="utf-8")
        with log.open("wb") as words:
            command = [*DIE_WITH_PARENT, self._program, "-config", str(config)]
            self._process = subprocess.Popen(command, stdout=words, stderr=words, start_new_session=True)
        deadline_s = time.monotonic() + START_S
        while not self._find_port(log) or not self.is_there():
            if self._process.poll() is not None or time.monotonic() > deadline_s:
                self.stop()
                last = log.read_text(encoding="utf-8", errors="replace").splitlines()[-1:]
                raise Unreachable(f"influxd did not start: {' '.join(last)}; see {log}")
            time.sleep(0.05)

    def _find_port(self, log: Path) -> bool:
        found = re.search(
            r"Listening on HTTP.*addr=127\.0\.0\.1:(\d+)", log.read_text(encoding="utf-8", errors="replace")
        )
        if not found:
            return False
        self._port = int(found[1])
        self._address = "127.0.0.1", self._port
        self.url = f"http://127.0.0.1:{self._port}"
        return True

    def stop(self) -> None:
        """Stop the server; its data stays in its directory."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None


def find(choice: str, folder: Path, access: Access | None = None) -> Influx | None:
    """Return the chosen database: a URL, "none", "private", or "auto": local 1.x, else private, else none.

    Unreachable when a URL was given and no server responds there; ConfigError when a private server is not available,
    or a server needs a token and there is none.
    """
    if choice == "none":
        return None
    if choice not in ("auto", "private"):
        return _named(choice, access)
    if choice == "auto":
        local = Influx(LOCAL)
        if local.is_there():
            return local
        if shutil.which("influxd") is None:
            return None
    private = PrivateInflux(folder)
    private.start()
    return private


def _named(url: str, access: Access | None) -> Influx:
    named = Influx(url)
    try:
        found = detect(url)
    except LinkDown as error:
        raise Unreachable(str(error)) from error
    if found.dialect == "influxdb2":
        token = access.token(url) if access else ""
        if not token or access is None:
            raise ConfigError(
                f"influx: {url} is InfluxDB 2.x and needs a token: give --influx-token-file or INFLUX_TOKEN"
            )
        return Influx2(url, token, access.org)
    named.query("SHOW DATABASES")
    return named
