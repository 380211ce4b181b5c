"""A real InfluxDB 1.6 (Debian's `influxdb`) as a plain process: loopback, free ports, own folder, own passwords.

    def test_something(influx):                      # the fixture in tests/conftest.py: one server for the session
        database = influx.create_database()          # a new one for every test
        influx.query("SELECT …", database)

    with running(tmp_path) as influx: …              # a server of one's own, for example to stop and start it

Tests that need it are skipped with a clear reason where `influxd` is not installed; `scripts/test` installs it.
"""

from __future__ import annotations

import base64
import itertools
import json
import os
import re
import secrets
import shutil
import signal
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

INFLUXD = shutil.which("influxd")
MISSING = "needs Debian's `influxdb` (apt-get install influxdb); scripts/test installs it"
START_S = 30.0

CONFIG = """
reporting-disabled = true
bind-address = "127.0.0.1:0"
[meta]
dir = "{folder}/meta"
[data]
dir = "{folder}/data"
wal-dir = "{folder}/wal"
index-version = "{index}"
[monitor]
store-enabled = false
[http]
bind-address = "127.0.0.1:{port}"
auth-enabled = true
log-enabled = false
[subscriber]
enabled = false
[continuous_queries]
enabled = false
"""


class Influx:
    """A running server. `admin` and `writer` are users; the writer may write to every database made here.

    Without `auth` it has no users and accepts every request.
    """

    def __init__(self, folder: Path, index: str = "inmem", *, auth: bool = True) -> None:
        """Make a server in this folder; `start` starts it."""
        self.folder = folder
        self.port = 0
        self.admin, self.writer = "admin", "writer"
        self.password = secrets.token_urlsafe(16)
        self.process: subprocess.Popen[bytes] | None = None
        self._index = index
        self._auth = auth
        self._numbers = itertools.count(1)

    @property
    def url(self) -> str:
        """Return its URL."""
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it, on the same port as before if it ran before, and create the users if they do not exist yet."""
        assert INFLUXD is not None, MISSING
        self.folder.mkdir(parents=True, exist_ok=True)
        config, log = self.folder / "influxdb.conf", self.folder / "influxd.log"
        text = CONFIG.format(folder=self.folder, port=self.port, index=self._index)
        config.write_text(
            text if self._auth else text.replace("auth-enabled = true", "auth-enabled = false"), encoding="utf-8"
        )
        log.write_bytes(b"")
        environment = {"PATH": os.defpath, "HOME": str(self.folder), "GOMAXPROCS": "2"}
        with log.open("ab") as output:
            self.process = subprocess.Popen([INFLUXD, "-config", str(config)], stderr=output, env=environment)
        try:
            self.port = self._await_port(log)
            if self._auth:
                self._await_users()
        except BaseException:
            self.stop()
            raise

    def _await_port(self, log: Path) -> int:
        assert self.process is not None
        deadline_s = time.monotonic() + START_S
        while time.monotonic() < deadline_s:
            words = log.read_text(encoding="utf-8", errors="replace")
            if found := re.search(r"Listening on HTTP.*addr=127\.0\.0\.1:(\d+)", words):
                return int(found.group(1))
            if self.process.poll() is not None:
                raise RuntimeError(f"influxd ended with {self.process.returncode}:\n{words}")
            time.sleep(0.02)
        raise TimeoutError(f"influxd did not listen within {START_S} s:\n{log.read_text(encoding='utf-8')}")

    def _await_users(self) -> None:
        """The first user can be created without credentials, and no other request is accepted without them."""
        try:
            self.query(f"CREATE USER {self.admin} WITH PASSWORD '{self.password}' WITH ALL PRIVILEGES", user="")
            self.query(f"CREATE USER {self.writer} WITH PASSWORD '{self.password}'")
        except urllib.error.HTTPError as error:
            error.close()
            if error.code != 401:  # 401: restarted, the users exist
                raise

    def stop(self) -> None:
        """Stop it and wait for its end; the data stays."""
        if self.process is not None:
            self.process.terminate()
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
            self.process = None

    def freeze(self) -> None:
        """Suspend it: connections are accepted, no request gets a response. `thaw` resumes it."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)
        status = Path(f"/proc/{self.process.pid}/status")
        while not re.search(r"^State:\s+T", status.read_text(encoding="utf-8"), re.MULTILINE):
            time.sleep(0.001)

    def thaw(self) -> None:
        """Resume it."""
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)

    def create_database(self, retention: str = "") -> str:
        """Return the name of a new database, with a default policy of this duration ("1d") if one is given."""
        name = f"db{next(self._numbers)}"
        policy = f' WITH DURATION {retention} NAME "raw"' if retention else ""
        self.query(f'CREATE DATABASE "{name}"{policy}')
        self.query(f'GRANT WRITE ON "{name}" TO "{self.writer}"')
        return name

    def query(self, statement: str, database: str = "", *, user: str | None = None) -> list[dict[str, Any]]:
        """Return the series of an InfluxQL statement, times as ns; RuntimeError with the server's message."""
        parts = {"q": statement, "epoch": "ns"} | ({"db": database} if database else {})
        request = urllib.request.Request(f"{self.url}/query", urllib.parse.urlencode(parts).encode())
        name = self.admin if user is None else user
        if name:
            credentials = base64.b64encode(f"{name}:{self.password}".encode()).decode()
            request.add_header("Authorization", f"Basic {credentials}")
        with urllib.request.urlopen(request, timeout=60) as response:
            (result,) = json.load(response)["results"]
        if "error" in result:
            raise RuntimeError(f"{statement}: {result['error']}")
        series: list[dict[str, Any]] = result.get("series", [])
        return series

    def count(self, database: str, field: str, measurement: str = "/.*/") -> int:
        """Return how many points have this field, over all series of the measurement."""
        found = self.query(f'SELECT count("{field}") FROM {measurement}', database)
        return sum(row[1] for series in found for row in series["values"])


@contextmanager
def running(folder: Path, index: str = "inmem", *, auth: bool = True) -> Iterator[Influx]:
    """Give a server that ends with the block."""
    influx = Influx(folder, index, auth=auth)
    influx.start()
    try:
        yield influx
    finally:
        if influx.process is not None:
            influx.thaw()
        influx.stop()
