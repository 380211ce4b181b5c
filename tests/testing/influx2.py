"""A real InfluxDB 2 as a plain process on loopback, for tests that compare the stand-in and backups with it.

The vendor's packages `influxdb2` and `influxdb2-cli` are not in Debian. Tests are skipped where they are not installed;
`BATTFLEET_INFLUXD2` and `BATTFLEET_INFLUX2_CLI` name the two programs where they are not on the path.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

START_S = 60.0


def program(variable: str, name: str) -> str:
    """Return the path of a program of InfluxDB 2; skip the test where it is not installed."""
    found = os.environ.get(variable) or shutil.which(name)
    if found:
        said = subprocess.run([found, "version"], capture_output=True, text=True, timeout=60, check=False).stdout
        if said.startswith(("InfluxDB v2", "InfluxDB dev", "Influx CLI")):
            return found
    pytest.skip(f"needs `{name}` of InfluxDB 2 (the vendor's packages influxdb2 and influxdb2-cli), or {variable}")


def now_s() -> int:
    """Return the time in whole seconds."""
    return int(time.time())


@contextmanager
def running(folder: Path) -> Iterator[str]:
    """Give the URL of a fresh server that keeps its files in this folder."""
    influxd = program("BATTFLEET_INFLUXD2", "influxd")
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    paths = [f"--bolt-path={folder}/influxd.bolt", f"--engine-path={folder}/engine", f"--sqlite-path={folder}/sqlite"]
    command = [influxd, *paths, f"--http-bind-address=127.0.0.1:{port}", "--reporting-disabled"]
    with (folder / "influxd.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env={"HOME": str(folder)})
    try:
        deadline_s = time.monotonic() + START_S
        while not _is_ready(url):
            assert process.poll() is None and time.monotonic() < deadline_s, (folder / "influxd.log").read_text()
            time.sleep(0.1)
        yield url
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _is_ready(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/health", timeout=5) as response:
            return bool(response.status == 200)
    except OSError:
        return False
