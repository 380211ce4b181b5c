"""The shipper as a process, with real journals, a real InfluxDB, network faults and kills.

BATTFLEET_KILLS=200 makes the kill test longer; its seed is printed when it fails.
"""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from collectors.host.clock import FileClock, write_clock_file
from collectors.journal.committer import Committer
from collectors.journal.reader import JournalReader
from collectors.journal.settings import JournalSettings
from collectors.reading import Event, Reading
from collectors.shipper.config import load
from collectors.shipper.journal_source import collectors_of
from collectors.shipper.service import Service
from collectors.signals import find
from tests.testing.influx import Influx
from tests.testing.proxy import faults

KILLS = int(os.environ.get("BATTFLEET_KILLS", "20"))
SEED = int(os.environ.get("BATTFLEET_SEED", "20261121"))
FOREVER_NS = 2**62


@dataclass
class Host:
    """A state folder, a clock that is in sync, and the shipper's configuration."""

    folder: Path
    url: str
    database: str
    password: str

    def __post_init__(self) -> None:
        self.state.mkdir()
        write_clock_file(self.told, state=1)
        (self.folder / "password").write_text(f"{self.password}\n", encoding="utf-8")
        self.point_to(self.url)

    @property
    def state(self) -> Path:
        return self.folder / "state"

    @property
    def told(self) -> Path:
        return self.folder / "clock.json"

    @property
    def config(self) -> Path:
        return self.folder / "ship.toml"

    def point_to(self, url: str) -> None:
        self.config.write_text(
            f"""
            [ship]
            bench = "bench-1"
            state_dir = "{self.state}"
            interval_s = 0.05
            save_s = 0.2
            report_s = 0.3
            [[sink]]
            name = "lab"
            dialect = "influxdb1"
            url = "{url}"
            database = "{self.database}"
            user = "writer"
            password_file = "password"
            answer_s = 0.7
            """,
            encoding="utf-8",
        )

    def ship(self, *options: str, **environment: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "collectors", "ship", str(self.config), *options]
        env = {**os.environ, "COLLECTORS_CLOCK": str(self.told), **environment}
        return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def ship_once(self) -> dict[str, Any]:
        done = self.ship("--once", "--json")
        output, errors = done.communicate(timeout=120)
        assert done.returncode == 0, errors
        said: dict[str, Any] = json.loads(output)
        return said

    @contextmanager
    def collecting(self, every_s: float = 0.002) -> Iterator[list[int]]:
        """Let a collector write to its journal; yields how many rows it wrote."""
        clock = FileClock(self.told)
        settings = JournalSettings(commit_window_s=0.05, compact_s=0.7)
        committer = Committer(self.state, "mppt", {"bench": "bench-1", "device": "mppt"}, settings, clock)
        committer.start()
        stop, written = threading.Event(), [0]

        def collect() -> None:
            while not stop.wait(every_s):
                written[0] += 1
                values = {"voltage_v": written[0] / 7, "current_a": None if written[0] % 5 else float(written[0])}
                committer.put(Reading("battery", clock.boottime_ns(), values))
                if written[0] % 50 == 0:
                    committer.put(Event("out_of_range", f"number {written[0]}"))

        thread = threading.Thread(target=collect)
        thread.start()
        try:
            yield written
        finally:
            stop.set()
            thread.join()
            committer.stop(5)

    def in_journals(self) -> dict[tuple[str, int], dict[str, float]]:
        """Return every row of every journal: tags and stamp to values."""
        found: dict[tuple[str, int], dict[str, float]] = {}
        for name in collectors_of(self.state):
            for span in JournalReader(self.state / name).range(0, FOREVER_NS):
                for row, stamp in enumerate(span.wall_ns.tolist()):
                    values = {
                        spec.name: float(column.values[row])
                        for spec, column in zip(span.stream.fields, span.columns, strict=True)
                        if (column.missing is None or not column.missing[row]) and np.isfinite(column.values[row])
                    }
                    if values:
                        key = f"{span.stream.measurement} {sorted(span.stream.tags.items())}"
                        assert (key, stamp) not in found
                        found[key, stamp] = values
        return found

    def events(self) -> int:
        return sum(len(JournalReader(self.state / name).events_after(0, 10**6)) for name in collectors_of(self.state))


def on_server(influx: Influx, database: str) -> dict[tuple[str, int], dict[str, float]]:
    """Return every point except events in the same form."""
    found: dict[tuple[str, int], dict[str, float]] = {}
    for series in influx.query("SELECT * FROM /^(battery|collector)$/ GROUP BY *", database):
        tags = sorted((key, value) for key, value in series["tags"].items() if value)
        for stamp, *values in series["values"]:
            fields = dict(zip(series["columns"][1:], values, strict=True))
            found[f"{series['name']} {tags}", stamp] = {k: float(v) for k, v in fields.items() if v is not None}
    return found


@pytest.fixture
def host(tmp_path: Path, influx: Influx) -> Host:
    return Host(tmp_path, influx.url, influx.create_database(), influx.password)


def wait_for(condition: Any, what: str, seconds: float = 30.0) -> None:
    deadline_s = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline_s, f"not within {seconds} s: {what}"
        time.sleep(0.02)


def test_everything_arrives_and_a_stop_is_quick_and_clean(host: Host, influx: Influx) -> None:
    shipper = host.ship("--json")
    with host.collecting() as written:
        wait_for(lambda: influx.count(host.database, "voltage_v", "battery") > 200, "200 rows on the server")
        asked_s = time.monotonic()
        shipper.send_signal(signal.SIGTERM)
        output, errors = shipper.communicate(timeout=10)
        assert time.monotonic() - asked_s < 2.0
    assert shipper.returncode == 0, errors
    assert {json.loads(line)["state"] for line in output.splitlines()} == {"ok"}
    said = host.ship_once()
    assert (said["state"], said["unsent_rows"], said["dead_letters"]) == ("ok", 0, 0)
    assert influx.count(host.database, "voltage_v", "battery") == written[0]
    assert on_server(influx, host.database) == host.in_journals()
    assert influx.count(host.database, "detail", "event") == host.events()


def test_it_reports_its_own_metrics_and_those_of_its_host(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    wireless = host.folder / "wireless"
    wireless.write_text("head\nhead\n wlan0: 0000   54.  -56.  -256        0      0      0      0      0        0\n")
    monkeypatch.setattr("collectors.host.metrics.WIRELESS", wireless)
    service = Service(load(host.config), FileClock(host.told), lambda _facts: None)
    until_s = time.monotonic() + 1.0
    service.run(lambda: time.monotonic() > until_s)
    service.close()
    reports = [values for (key, _), values in host.in_journals().items() if "sink" not in key]
    wanted = {"memory_bytes", "cpu_share", "journal_bytes", "disk_free_bytes", "clock_state"}
    assert reports
    for values in reports:
        assert set(values) == wanted | {"wifi_signal_dbm", "wifi_quality"}
        assert all((signal := find("collector", name)) and signal.low <= x <= signal.high for name, x in values.items())
        assert values["wifi_signal_dbm"] == -56.0
        assert values["disk_free_bytes"] > 0


def test_a_second_shipper_is_refused(host: Host) -> None:
    first = host.ship()
    try:
        wait_for((host.state / "ship.db").exists, "the first shipper")
        second = host.ship()
        _, errors = second.communicate(timeout=20)
        assert second.returncode == 75
        assert "another shipper" in errors
    finally:
        first.terminate()
        first.communicate(timeout=10)


def test_once_ends_when_an_operator_is_needed_and_loses_nothing(host: Host, influx: Influx) -> None:
    there, host.database = host.database, "not_there"
    host.point_to(host.url)
    with host.collecting() as written:
        time.sleep(0.2)
    process = host.ship("--once", "--json")
    output, errors = process.communicate(timeout=20)
    assert process.returncode == 69
    assert "sink lab: 404" in errors
    assert "database not found" in errors
    assert json.loads(output)["state"] == "hold"
    host.database = there
    host.point_to(host.url)
    host.ship_once()
    assert influx.count(host.database, "voltage_v", "battery") == written[0]


def test_once_that_is_stopped_too_early_reports_it(host: Host) -> None:
    with host.collecting():
        time.sleep(0.2)
    with socket.create_server(("127.0.0.1", 0)) as listener:  # accepts every connection and never responds
        host.point_to(f"http://127.0.0.1:{listener.getsockname()[1]}")
        process = host.ship("--once")
        listener.settimeout(20)
        client, _ = listener.accept()
        with client:
            process.terminate()
            process.communicate(timeout=10)
    assert process.returncode == 128 + signal.SIGTERM


def test_systemd_is_notified_of_readiness_watchdog_and_a_held_sink(host: Host, tmp_path: Path) -> None:
    host.database = "not_there"
    host.point_to(host.url)
    with host.collecting():
        time.sleep(0.2)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(10)
        shipper = host.ship(NOTIFY_SOCKET=str(tmp_path / "notify"), WATCHDOG_USEC="400000")
        heard = ""
        try:
            while "hold" not in heard:
                heard += manager.recv(4096).decode() + "\n"
        finally:
            asked_s = time.monotonic()
            shipper.terminate()
            _, errors = shipper.communicate(timeout=10)
        assert time.monotonic() - asked_s < 2.0
    assert heard.startswith("READY=1\n")
    assert "WATCHDOG=1\nSTATUS=lab: hold" in heard
    assert "database not found" in heard
    assert "sink lab: hold 404" in errors
    assert host.password not in errors


def test_nothing_is_sent_before_its_time_is_known_and_then_all_of_it_at_the_true_time(
    host: Host, influx: Influx
) -> None:
    wrong_ns, true_ns = 10**18, time.time_ns() - time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    write_clock_file(host.told, wrong_ns, state=0)
    with host.collecting() as written:
        wait_for(lambda: JournalReader(host.state / "mppt").newest_seq() > 2, "some commits")
        waiting = host.ship("--once", "--json")
        output, errors = waiting.communicate(timeout=120)
        assert (waiting.returncode, json.loads(output)["lines_sent"]) == (69, 0)
        assert "collectors clock set" in errors
        write_clock_file(host.told, true_ns, state=1)
        early = written[0]
        wait_for(lambda: written[0] > early + 100, "rows after the step")
    host.ship_once()
    assert influx.count(host.database, "voltage_v", "battery") == written[0]
    (series,) = influx.query("SELECT voltage_v FROM battery", host.database)
    assert all(abs(row[0] - time.time_ns()) < 120 * 10**9 for row in series["values"])
    assert on_server(influx, host.database) == host.in_journals()


def test_an_endless_slow_response_is_aborted(host: Host) -> None:
    with host.collecting():
        time.sleep(0.2)
    seen: list[bytes] = []

    def serve() -> None:
        first, _ = listener.accept()
        with first:
            seen.append(first.recv(65536))
            try:
                while True:  # each byte arrives well within the time-out
                    first.sendall(b"H")
                    time.sleep(0.05)
            except OSError:
                pass
        second, _ = listener.accept()
        with second:
            while data := second.recv(65536):
                seen.append(data)
                second.sendall(b"HTTP/1.1 204 No Content\r\n\r\n")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        host.point_to(f"http://127.0.0.1:{listener.getsockname()[1]}")
        host.config.write_text(host.config.read_text().replace("answer_s = 0.7", "answer_s = 0.3\nconnect_s = 0.3"))
        said = host.ship_once()
        thread.join(10)
    assert said["state"] == "ok"
    assert said["lines_sent"] > 0
    assert len(seen) >= 2


def test_network_faults_lose_and_duplicate_nothing(host: Host, influx: Influx) -> None:
    with faults(influx.port, SEED) as proxy:
        host.point_to(proxy.url)
        shipper = host.ship()
        with host.collecting(0.005) as written:
            wait_for(lambda: sum(proxy.seen.values()) > 25, "25 requests", 60)
        shipper.terminate()
        shipper.communicate(timeout=10)
        host.ship_once()
    assert len(proxy.seen) > 4, proxy.seen
    assert influx.count(host.database, "voltage_v", "battery") == written[0]
    assert on_server(influx, host.database) == host.in_journals()


@pytest.mark.slow
def test_kill_9_at_any_moment_loses_and_duplicates_nothing(host: Host, influx: Influx) -> None:
    chance = random.Random(SEED)
    with faults(influx.port, SEED) as proxy, host.collecting(0.005) as written:
        host.point_to(proxy.url)
        for _ in range(KILLS):
            shipper = host.ship()
            time.sleep(chance.uniform(0.3, 1.2))
            shipper.kill()
            shipper.communicate()
    host.point_to(influx.url)
    said = host.ship_once()
    assert (said["dead_letters"], said["unsent_rows"]) == (0, 0), SEED
    assert influx.count(host.database, "voltage_v", "battery") == written[0], SEED
    assert on_server(influx, host.database) == host.in_journals(), SEED
    assert influx.count(host.database, "detail", "event") == host.events(), SEED
