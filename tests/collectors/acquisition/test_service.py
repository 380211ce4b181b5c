"""`collectors run` as a process, started as systemd starts it, against fake instruments on pseudo-terminals."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from collectors import devices, fakes
from collectors.acquisition.service import Totals, processor_share
from collectors.cli.tail import row_objects
from collectors.fakes.faults import parse_fault
from collectors.fakes.serve import Server, Station, serving
from collectors.host.clock import FileClock, write_clock_file
from collectors.journal import notes
from collectors.journal.reader import JournalReader
from tests.testing.journal import fill

LIVENESS_S = 20.0
WORLD = {"load.voltage_v": 13.2, "load.current_a": 6.0}


def wait_for(what: Callable[[], Any], seconds: float = LIVENESS_S) -> Any:
    end = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < end, f"not within {seconds} s: {what}"
        time.sleep(0.02)
    return found


@pytest.fixture
def load(tmp_path: Path) -> Iterator[Station]:
    """An electronic load on a pty at tmp_path/ttyLOAD."""
    kind = fakes.load("ea_el3000a")
    station = Station("load", kind, lambda _: WORLD, kind.options())
    server = Server()
    server.add_pty(station, tmp_path / "ttyLOAD", devices.load("ea_el3000a").line)
    with serving(server):
        station.server = server  # type: ignore[attr-defined]
        yield station


def write_config(tmp_path: Path, **collector: object) -> Path:
    table = {
        "name": "load", "bench": "b", "kind": "ea_el3000a", "link": f"serial:{tmp_path}/ttyLOAD",
        "period_s": 0.2, "report_s": 0.5, "state_dir": str(tmp_path / "state"),
    } | collector  # fmt: skip
    lines = [
        f"{key} = {str(value).lower() if isinstance(value, bool) else repr(value)}" for key, value in table.items()
    ]
    path = tmp_path / "load.toml"
    path.write_text(
        "[collector]\n" + "\n".join(lines) + "\n[device]\npause_s = 0.005\n[journal]\ncommit_window_s = 0.1\n"
    )
    return path


@contextlib.contextmanager
def running(path: Path, **environment: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "collectors", "run", str(path)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=os.environ | environment)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def rows(tmp_path: Path, measurement: str = "load") -> int:
    reader = JournalReader(tmp_path / "state" / "load")
    if not reader.directory.exists():
        return 0
    return sum(len(c.boottime_ns) for c in reader.chunks_after(0, 10**6) if c.stream.measurement == measurement)


def event_kinds(tmp_path: Path) -> list[str]:
    return [event.kind for event in JournalReader(tmp_path / "state" / "load").events_after(0)]


def test_it_collects_and_a_stop_commits_everything_within_two_seconds(tmp_path: Path, load: Station) -> None:
    with running(write_config(tmp_path)) as process:
        wait_for(lambda: rows(tmp_path) >= 3)
        asked = time.monotonic()
        process.send_signal(signal.SIGTERM)
        _, log = process.communicate(timeout=LIVENESS_S)
        took_s = time.monotonic() - asked
    assert process.returncode == 0, log
    assert took_s < 2.0  # what the unit file states to the service manager
    assert rows(tmp_path) == len(load.sent.boottime_ns)
    assert event_kinds(tmp_path)[-1] == "collector_stop"
    assert rows(tmp_path, "collector") > 0


def test_it_reports_its_own_metrics_as_signals_of_the_vocabulary(tmp_path: Path, load: Station) -> None:
    with running(write_config(tmp_path)):
        wait_for(lambda: rows(tmp_path, "collector") >= 3)
    reader = JournalReader(tmp_path / "state" / "load")
    fields = {f.name for s in reader.streams() if s.measurement == "collector" for f in s.fields}
    assert {"samples", "skipped", "errors", "queue_rows", "memory_bytes", "clock_state", "outcomes"} <= fields
    tags = [s.tags for s in reader.streams() if s.measurement == "load"]
    assert tags
    assert all(t == {"bench": "b", "device": "load", "kind": "ea_el3000a"} for t in tags)
    own = [c for c in reader.chunks_after(0, 10**6) if c.stream.measurement == "collector"]
    shares = [
        row["values"].get("cpu_share") for c in own for row in row_objects(reader, c) if "outcome" not in row["tags"]
    ]
    assert shares[0] is None, "one reading of the processor's time is no share"
    assert all(0.0 <= share <= (os.cpu_count() or 1) for share in shares[1:])


def test_a_share_of_processor_time_needs_two_reports() -> None:
    first, second = Totals(10.0, 1.5, 0, 0.0, 0), Totals(12.0, 1.6, 9, 0.1, 0)
    assert processor_share(None, first) is None
    assert processor_share(first, first) is None
    assert processor_share(first, second) == pytest.approx(0.05)


def test_notes_get_their_time_when_the_clock_is_set(tmp_path: Path, load: Station) -> None:
    told, state = tmp_path / "clock.json", tmp_path / "state"
    write_clock_file(told, 10**18, state=0)
    notes.write(state, "b", "deploy", "before the time was known", {}, FileClock(told))
    assert list(JournalReader(state / notes.NAME).event_spans(0, 2**62)) == []
    with running(write_config(tmp_path), COLLECTORS_CLOCK=str(told)):
        wait_for(lambda: rows(tmp_path, "collector") >= 2)
        write_clock_file(told, time.time_ns() - time.clock_gettime_ns(time.CLOCK_BOOTTIME), state=1)
        (span,) = wait_for(lambda: list(JournalReader(state / notes.NAME).event_spans(0, 2**62)))
    assert abs(int(span.wall_ns[0]) - time.time_ns()) < 120 * 10**9


def test_systemd_is_notified_of_readiness_watchdog_and_status(tmp_path: Path, load: Station) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(LIVENESS_S)
        told = []
        with running(
            write_config(tmp_path), NOTIFY_SOCKET=str(tmp_path / "notify"), WATCHDOG_USEC="1000000"
        ) as process:
            while not any("WATCHDOG=1" in t and "STATUS=reading EL 3160-60A" in t for t in told):
                told.append(manager.recv(4096).decode())
            process.terminate()
            process.wait(LIVENESS_S)
            while "STOPPING=1" not in told:
                told.append(manager.recv(4096).decode())
    assert told[0].startswith("READY=1")


def test_an_unplugged_instrument_is_read_again_within_two_seconds(tmp_path: Path, load: Station) -> None:
    with running(write_config(tmp_path)):
        wait_for(lambda: rows(tmp_path) >= 2)
        server: Server = load.server  # type: ignore[attr-defined]
        start = server.now_s()
        server.misbehave(*parse_fault(f"load:unplug@{start:.3f}+1.5"))
        wait_for(lambda: "link_down" in event_kinds(tmp_path))
        wait_for(lambda: event_kinds(tmp_path).count("link_up") == 2)
        back_s = server.now_s() - (start + 1.5)
        before = rows(tmp_path)
        wait_for(lambda: rows(tmp_path) > before)
    assert back_s < 2.0


def test_a_late_instrument_is_waited_for(tmp_path: Path) -> None:
    with running(write_config(tmp_path)) as process:
        wait_for(lambda: (tmp_path / "state" / "load").exists() and "link_down" in event_kinds(tmp_path))
        assert process.poll() is None


def test_a_second_collector_of_the_same_name_is_refused(tmp_path: Path, load: Station) -> None:
    path = write_config(tmp_path)
    with running(path):
        wait_for(lambda: rows(tmp_path) >= 1)
        with running(path) as second:
            _, log = second.communicate(timeout=LIVENESS_S)
    assert second.returncode == 75, log
    assert "state/load" in log


def test_a_device_of_another_kind_stops_the_service_with_its_own_exit_code(tmp_path: Path) -> None:
    kind = fakes.load("ea_el3000a")
    station = Station("load", kind, lambda _: WORLD, kind.options(model="PS 2042-20B"))
    server = Server()
    server.add_pty(station, tmp_path / "ttyLOAD", devices.load("ea_el3000a").line)
    with serving(server), running(write_config(tmp_path)) as process:
        _, log = process.communicate(timeout=LIVENESS_S)
    assert process.returncode == 76, log
    assert "PS 2042-20B" in log


def test_under_systemd_a_device_of_another_kind_is_retried_slowly(tmp_path: Path) -> None:
    kind = fakes.load("ea_el3000a")
    station = Station("load", kind, lambda _: WORLD, kind.options(model="PS 2042-20B"))
    server = Server()
    server.add_pty(station, tmp_path / "ttyLOAD", devices.load("ea_el3000a").line)
    with serving(server), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(LIVENESS_S)
        with running(write_config(tmp_path), NOTIFY_SOCKET=str(tmp_path / "notify")) as process:
            pings = 0
            while pings < 3:
                pings += "PS 2042-20B" in (told := manager.recv(4096).decode()) and told.startswith("WATCHDOG=1")
                assert "STOPPING" not in told
            assert process.poll() is None
            assert event_kinds(tmp_path)[-1] == "collector_stop"
            process.terminate()
            asked_s = time.monotonic()
            assert process.wait(LIVENESS_S) == 76
            assert time.monotonic() - asked_s < 3.0


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to mount a small file system")
def test_a_read_only_disk_is_reported_at_start(tmp_path: Path, load: Station) -> None:
    state = tmp_path / "state"
    state.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "ro,size=1m", "none", str(state)], check=False).returncode:
        pytest.skip("this machine lets nobody mount")
    try:
        with running(write_config(tmp_path)) as process:
            _, log = process.communicate(timeout=LIVENESS_S)
    finally:
        subprocess.run(["umount", str(state)], check=True)
    assert process.returncode == 74, log
    assert str(state) in log


@pytest.fixture
def small_state(tmp_path: Path) -> Iterator[Path]:
    """A state folder on a disk of 1.5 MB."""
    state = tmp_path / "state"
    state.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1500k", "none", str(state)], check=False).returncode:
        pytest.skip("this machine lets nobody mount")
    yield state
    subprocess.run(["umount", "-l", str(state)], check=True)


def collectors(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "collectors", *arguments], capture_output=True, text=True, check=False, timeout=60
    )


def status(state: Path) -> dict[str, Any]:
    found = json.loads(collectors("status", "--json", "--state", str(state)).stdout)["collectors"]
    return dict(next(row for row in found if row["collector"] == "load"))


def test_a_stop_on_a_full_disk_fails_and_every_command_reports_the_loss(
    small_state: Path, tmp_path: Path, load: Station
) -> None:
    path = write_config(tmp_path)
    with running(path) as process:
        wait_for(lambda: rows(tmp_path) >= 2)
        filler = fill(small_state)
        wait_for(lambda: (status(small_state)["held"] or {}).get("rows", 0) > 0)
        shown = collectors("status", "--state", str(small_state)).stdout
        assert "THE DISK TAKES NOTHING" in shown
        assert "disk nearly full: 0.0 MB free" in shown
        noted = collectors("note", "deploy", "x", "--state", str(small_state))
        assert (noted.returncode, "disk full" in noted.stderr, "the note is not kept" in noted.stderr) == (
            74,
            True,
            True,
        )
        assert "in memory" not in noted.stderr
        process.terminate()
        _, log = process.communicate(timeout=LIVENESS_S)
    assert process.returncode == 74, log
    lost = lost_readings(log)
    assert "LOST at the last stop: " in collectors("status", "--state", str(small_state)).stdout
    with running(path) as process:  # its record of the run before must survive this one, too
        wait_for(lambda: "THE DISK TAKES NOTHING" in collectors("status", "--state", str(small_state)).stdout)
        process.terminate()
        _, log = process.communicate(timeout=LIVENESS_S)
    assert process.returncode == 74, log
    lost += lost_readings(log)
    filler.unlink()
    with running(path):
        wait_for(lambda: "samples_dropped" in event_kinds(tmp_path))
        wait_for(lambda: status(small_state)["held"] is None)
    told = [e for e in JournalReader(small_state / "load").events_after(0) if e.kind == "samples_dropped"]
    assert sum(int(e.detail.split()[0]) for e in told) == lost
    lost_samples = sum(int(e.detail.split()[0]) for e in told if "rows of load " in e.detail)
    assert 0 < lost_samples < len(load.sent.boottime_ns)


def lost_readings(log: str) -> int:
    said = re.search(r"(\d+) readings and \d+ events are lost; the next start tells of it", log)
    assert said, log
    return int(said[1])
