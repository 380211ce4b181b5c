"""The bench's database: an InfluxDB 1.x that is there, or a private one as a plain process on a free loopback port.

Only servers without users are taken: the bench has no passwords to give.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import time
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

from collectors.bench.ledger import SeriesKey
from collectors.bench.processes import DIE_WITH_PARENT
from collectors.errors import ConfigError

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
    """No InfluxDB 1.x without users answers at this address."""


class Influx:
    """One server, asked over HTTP."""

    def __init__(self, url: str) -> None:
        """ConfigError when the address is none."""
        parts = urlsplit(url)
        if parts.scheme != "http" or not parts.hostname or parts.path.strip("/"):
            raise ConfigError(f"influx: expected auto, none, private or http://HOST:PORT, got {url!r}")
        self.url = url.rstrip("/")
        self._address = parts.hostname, parts.port or 8086

    def query(self, statement: str, database: str = "") -> list[dict[str, Any]]:
        """Return the series that an InfluxQL statement gives, stamps in ns; Unreachable when it cannot be asked."""
        connection = HTTPConnection(*self._address, timeout=60)
        arguments = urlencode({"q": statement, "db": database, "epoch": "ns"})
        try:
            connection.request("POST", f"/query?{arguments}")
            response = connection.getresponse()
            text = response.read()
            if response.status != 200:
                raise Unreachable(f"{self.url}: {response.status} {text.decode(errors='replace').strip()}")
            [result] = json.loads(text)["results"]
        except (OSError, HTTPException, ValueError, KeyError) as error:
            raise Unreachable(f"{self.url}: {error}") from error
        finally:
            connection.close()
        if "error" in result:
            raise Unreachable(f"{self.url}: {result['error']}")
        series: list[dict[str, Any]] = result.get("series", [])
        return series

    def is_there(self) -> bool:
        """Return whether it answers now."""
        try:
            self.query("SHOW DATABASES")
        except Unreachable:
            return False
        return True

    def rows(self, database: str, measurement: str, device: str, span_ns: tuple[int, int]) -> dict[SeriesKey, Any]:
        """Return what it holds of one device's measurement between two times: series to {stamp: {field: value}}."""
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


class PrivateInflux(Influx):
    """A server of one's own, in a folder of its own; it can be stopped and started again on the same port."""

    def __init__(self, folder: Path) -> None:
        """Prepare it; ConfigError when influxd is not installed."""
        program = shutil.which("influxd")
        if program is None:
            raise ConfigError("influxd is not installed; on Debian run: sudo apt-get install influxdb")
        self._program = program
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self._port = 0
        super().__init__(LOCAL)

    def start(self) -> None:
        """Start it and wait until it answers; Unreachable with its last words when it does not."""
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
        """Stop it; what it holds stays in its folder."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None


def find(choice: str, folder: Path) -> Influx | None:
    """Return the database that is meant: a URL, "none", "private", or "auto": local, else private, else none.

    Unreachable when a URL was named and nothing answers there; ConfigError when a private one cannot be had.
    """
    if choice == "none":
        return None
    if choice not in ("auto", "private"):
        named = Influx(choice)
        named.query("SHOW DATABASES")
        return named
    if choice == "auto":
        local = Influx(LOCAL)
        if local.is_there():
            return local
        if shutil.which("influxd") is None:
            return None
    private = PrivateInflux(folder)
    private.start()
    return private
