"""Notes are stored as samples are: committed, through kills, in order, with the true time."""

from __future__ import annotations

import csv
import io
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from collectors.cli import cli
from collectors.config import TAKEN
from collectors.errors import ConfigError, JournalError, JournalLocked
from collectors.host.clock import SYNCHRONISED, UNSYNCHRONISED, FakeClock, system_clock, write_clock_file
from collectors.journal import notes
from collectors.journal.backlog import Row, Work
from collectors.journal.directory import lock
from collectors.journal.reader import JournalReader
from collectors.journal.records import EventRecord
from collectors.journal.schema import FileSuspect, connect_reader, journal_files
from collectors.journal.settings import JournalSettings
from collectors.journal.writer import JournalWriter
from collectors.shipper.config import load
from collectors.shipper.service import OWN_NAME, Service
from collectors.signals import HUMAN_EVENTS
from tests.testing.influx import Influx
from tests.testing.line_protocol import parse

SECOND = 10**9
START_S = 1_795_000_000
KILLS = int(os.environ.get("BATTFLEET_KILLS", "20"))
SEED = 20261125


def run(*arguments: str) -> Result:
    result = CliRunner().invoke(cli, list(arguments))
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def note(state: Path, *arguments: str) -> Result:
    return run("note", "--state", str(state), *arguments)


def process(state: Path, *arguments: str, **environment: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "collectors", "note", "--state", str(state), *arguments]
    return subprocess.Popen(
        command, env={**os.environ, **environment}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def result_of(running: subprocess.Popen[str]) -> tuple[int, str, str]:
    """Return exit code, output and errors of a process that ends by itself."""
    output, errors = running.communicate(timeout=60)
    return running.returncode, output, errors


def events(state: Path) -> list[EventRecord]:
    return JournalReader(state / notes.NAME).events_after(0)


def collect(state: Path, name: str = "mppt", bench: str = "bench-1") -> None:
    """Write a collector's journal."""
    tags = {"bench": bench, "device": name}
    writer = JournalWriter(state / name, tags, JournalSettings(ballast_mib=0.0), FakeClock(), lambda *_: None)
    writer.commit(Work({("battery", json.dumps(tags)): [Row(1, {"voltage_v": 13.0})]}))
    writer.close()


def test_a_note_is_an_event_of_the_bench_whose_journals_are_here(tmp_path: Path) -> None:
    collect(tmp_path)
    said = note(tmp_path, "deploy", "  0.2.0,\n on this host ").output
    assert said.startswith("noted for bench-1: deploy: 0.2.0, on this host")
    (event,) = events(tmp_path)
    assert (event.kind, event.detail, event.tags) == ("deploy", "0.2.0, on this host", {})
    assert JournalReader(tmp_path / notes.NAME).tags() == {"bench": "bench-1"}
    assert abs(event.boottime_ns - time.clock_gettime_ns(time.CLOCK_BOOTTIME)) < 60 * SECOND


@pytest.mark.parametrize("kind", HUMAN_EVENTS)
def test_every_manual_event_kind_is_accepted(tmp_path: Path, kind: str) -> None:
    note(tmp_path, kind, "x", "--bench", "b")
    assert [event.kind for event in events(tmp_path)] == [kind]


def test_device_and_bench_options_are_tags_of_that_note_alone(tmp_path: Path) -> None:
    note(tmp_path, "calibration", "one", "--bench", "b", "--device", "t7")
    note(tmp_path, "calibration", "two")
    note(tmp_path, "calibration", "three", "--bench", "renamed")
    assert [event.tags for event in events(tmp_path)] == [{"device": "t7"}, {}, {"bench": "renamed"}]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["painted", "x"], "'painted' is not one of 'calibration', 'deploy', 'flash', 'test_start', 'test_stop'"),
        (["deploy", " \n "], "expected 1 to 2000 printable letters"),
        (["deploy", "x" * 2001], "expected 1 to 2000 printable letters"),
        (["deploy", "a\x1bb"], "expected 1 to 2000 printable letters"),
        (["deploy", "caf\udce9"], "expected 1 to 2000 printable letters"),
        (["deploy", "x", "--device", "a b"], "expected letters, digits, '.', '_' or '-', got 'a b'"),
    ],
    ids=["unknown kind", "nothing", "too much", "control character", "not UTF-8", "no name"],
)
def test_an_invalid_note_is_rejected_and_no_file_is_created(tmp_path: Path, arguments: list[str], words: str) -> None:
    result = note(tmp_path, *arguments, "--bench", "b")
    assert result.exit_code == 2
    assert words in " ".join(result.output.replace("│", " ").split())
    assert list(tmp_path.iterdir()) == []


def test_a_folder_without_a_known_bench_needs_the_bench_option(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="the journals here are of no bench; say --bench NAME"):
        note(tmp_path, "deploy", "x")
    collect(tmp_path, "a", "one")
    collect(tmp_path, "b", "two")
    with pytest.raises(ConfigError, match="are of one, two; say --bench NAME"):
        note(tmp_path, "deploy", "x")
    with pytest.raises(JournalError, match="no such folder; name the one of the journals with --state"):
        note(tmp_path / "not-here", "deploy", "x", "--bench", "b")


def test_no_instrument_takes_the_name_of_a_journal_that_every_host_has() -> None:
    assert set(TAKEN) == {notes.NAME, OWN_NAME}


def test_it_waits_for_another_writer_for_a_limited_time(tmp_path: Path) -> None:
    held = lock(tmp_path / notes.NAME)
    try:
        with pytest.raises(JournalLocked, match=r"other notes were being written for 0\.1 s; try again"):
            notes.write(tmp_path, "b", "deploy", "x", {}, FakeClock(), wait_s=0.1)
        waiting = process(tmp_path, "deploy", "patient", "--bench", "b")
        time.sleep(0.5)
        assert waiting.poll() is None
    finally:
        os.close(held)
    assert result_of(waiting)[0] == 0
    assert [event.detail for event in events(tmp_path)] == ["patient"]


def test_notes_written_at_once_are_all_kept(tmp_path: Path) -> None:
    writers = [process(tmp_path, "flash", f"number {n}", "--bench", "b", "--device", f"d{n}") for n in range(6)]
    for writer in writers:
        code, _, errors = result_of(writer)
        assert code == 0, errors
    found = {(event.detail, event.tags["device"]) for event in events(tmp_path)}
    assert found == {(f"number {n}", f"d{n}") for n in range(6)}
    assert len(events(tmp_path)) == 6


@pytest.mark.slow
def test_kill_9_tears_no_row_and_loses_no_acknowledged_note(tmp_path: Path) -> None:
    chance = random.Random(SEED)
    note(tmp_path, "deploy", "first", "--bench", "b")
    began_s = time.monotonic()
    assert result_of(process(tmp_path, "deploy", "timed"))[0] == 0
    took_s = time.monotonic() - began_s
    kept, killed = ["first", "timed"], 0
    for n in range(KILLS):
        writer = process(tmp_path, "deploy", f"number {n} {'x' * 500}")
        time.sleep(took_s * chance.uniform(0.5, 1.1))
        writer.kill()
        said, _ = writer.communicate()
        killed += writer.returncode == -signal.SIGKILL
        kept += [f"number {n} {'x' * 500}"] if said.startswith("noted") else []
    assert killed, "no note was killed: the delays are wrong"
    note(tmp_path, "deploy", "last")
    found = [event.detail for event in events(tmp_path)]
    assert [detail for detail in found if detail in kept] == kept, SEED
    assert len(set(found)) == len(found)
    assert all(detail in ("first", "timed", "last") or detail.endswith("x" * 500) for detail in found)
    for path in journal_files(tmp_path / notes.NAME):
        connection = connect_reader(path)
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        connection.close()


def test_a_note_of_an_unknown_time_gets_it_when_a_collector_sees_the_clock_set(tmp_path: Path) -> None:
    clock = FakeClock(100 * SECOND, 5 * SECOND, UNSYNCHRONISED)
    assert notes.write(tmp_path, "b", "deploy", "early", {}, clock) == UNSYNCHRONISED
    reader = JournalReader(tmp_path / notes.NAME)
    assert list(reader.event_spans(0, 2**62)) == [], "nothing is invented"
    follow = notes.TailingReader(tmp_path, clock)
    follow(UNSYNCHRONISED)
    clock.sleep_s(50)
    clock.synchronise(START_S * SECOND)
    follow(UNSYNCHRONISED)
    assert list(reader.event_spans(0, 2**62)) == [], "the caller has not seen it yet"
    follow(SYNCHRONISED)
    (span,) = reader.event_spans(0, 2**62)
    assert abs(span.wall_ns[0] - (START_S + 100) * SECOND) < 1000


def test_following_creates_no_journal_and_survives_read_errors(tmp_path: Path) -> None:
    notes.TailingReader(tmp_path, FakeClock())(SYNCHRONISED)
    assert list(tmp_path.iterdir()) == []
    notes.write(tmp_path, "b", "deploy", "x", {}, FakeClock())
    held = lock(tmp_path / notes.NAME)
    notes.TailingReader(tmp_path, FakeClock())(SYNCHRONISED)
    os.close(held)
    (path,) = journal_files(tmp_path / notes.NAME)
    path.write_bytes(b"no journal" * 100)
    notes.TailingReader(tmp_path, FakeClock())(SYNCHRONISED)


def test_a_damaged_journal_is_quarantined_and_its_notes_are_recovered_with_their_tags(tmp_path: Path) -> None:
    for n in range(3):
        notes.write(tmp_path, "b", "flash", f"number {n}", {"device": f"d{n}"}, FakeClock())
    writer = JournalWriter(tmp_path / notes.NAME, {"bench": "b"}, notes.SETTINGS, FakeClock(), lambda *_: None)
    writer.replace_live(FileSuspect("the disk failed"))
    writer.close()
    for n in range(6):  # each recovers a part of what the file still holds
        notes.write(tmp_path, "b", "deploy", f"after {n}", {}, FakeClock())
    found = [(event.detail, dict(event.tags)) for event in events(tmp_path) if event.kind == "flash"]
    assert found == [(f"number {n}", {"device": f"d{n}"}) for n in range(3)]
    assert "file_salvaged" in {event.kind for event in events(tmp_path)}
    assert sum(event.kind == "deploy" for event in events(tmp_path)) == 6


def test_status_shows_the_newest_note_and_does_not_wait_for_the_next(tmp_path: Path) -> None:
    note(tmp_path, "deploy", "0.2.0", "--bench", "b")
    assert run("status", "--state", str(tmp_path)).exit_code == 69, "there is no collector"
    clock = FakeClock(time.clock_gettime_ns(time.CLOCK_BOOTTIME), 0, SYNCHRONISED)
    boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    clock.boot_id = boot
    writer = JournalWriter(tmp_path / "load", {}, JournalSettings(ballast_mib=0.0), clock, lambda *_: None)
    writer.commit(Work({("load", "{}"): [Row(clock.boottime_ns(), {"voltage_v": 1.0})]}))
    writer.close()
    result = run("status", "--state", str(tmp_path))
    assert result.exit_code == 0, result.output
    assert "notes: what people and tools did\n  deploy: 0.2.0\n" in result.output
    rows = json.loads(run("status", "--json", "--state", str(tmp_path)).output)["collectors"]
    assert {row["collector"]: row["state"] for row in rows} == {"load": None, "notes": "deploy: 0.2.0"}


def test_notes_are_exported_as_a_table_and_as_the_lines_that_are_shipped(tmp_path: Path) -> None:
    clock = FakeClock(0, START_S * SECOND)
    notes.write(tmp_path, "b", "flash", 'said "x", done', {"device": "mppt"}, clock)
    collect(tmp_path)
    text = run("export", "notes", "--measurement", "event", "--state", str(tmp_path)).output
    (row,) = csv.DictReader(io.StringIO(text))
    assert row == {
        "time": "2026-11-18T11:06:40.000000001Z", "measurement": "event", "bench": "b", "device": "mppt",
        "kind": "flash", "detail": 'said "x", done',
    }  # fmt: skip
    lines = run("export", "--format", "lp", "--state", str(tmp_path)).output
    (point,) = [point for point in parse(lines) if point.measurement == "event"]
    assert point.tags == {"bench": "b", "device": "mppt", "kind": "flash"}
    assert point.stamp_ns == START_S * SECOND + 1
    assert "event" not in run("export", "--state", str(tmp_path)).output, "a table of numbers has no events"


def test_notes_are_exported_to_parquet(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    notes.write(tmp_path, "b", "flash", "x", {"device": "mppt"}, FakeClock(0, START_S * SECOND))
    run("export", "--measurement", "event", "-o", str(tmp_path / "x.parquet"), "--state", str(tmp_path))
    assert parquet.read_table(tmp_path / "x.parquet").column("detail").to_pylist() == ["x"]


def test_tail_shows_the_device_of_a_note(tmp_path: Path) -> None:
    from collectors.cli.tail import event_object

    notes.write(tmp_path, "b", "flash", "x", {"device": "mppt"}, FakeClock(0, START_S * SECOND))
    reader = JournalReader(tmp_path / notes.NAME)
    assert event_object(reader, reader.events_after(0)[0])["tags"] == {"device": "mppt"}


def test_notes_reach_the_database_and_one_without_a_time_when_its_time_is_known(tmp_path: Path, influx: Influx) -> None:
    state, told, config = tmp_path / "state", tmp_path / "clock.json", tmp_path / "ship.toml"
    state.mkdir()
    database = influx.create_database()
    (tmp_path / "password").write_text(influx.password, encoding="utf-8")
    config.write_text(
        f'[ship]\nbench = "b"\nstate_dir = "{state}"\ninterval_s = 0.05\nreport_s = 0.2\n'
        f'[[sink]]\nname = "lab"\ndialect = "influxdb1"\nurl = "{influx.url}"\ndatabase = "{database}"\n'
        'user = "writer"\npassword_file = "password"\n',
        encoding="utf-8",
    )
    write_clock_file(told, 10**18, state=0)
    text = "before the time was known"
    code, said, errors = result_of(process(state, "test_start", text, "--bench", "b", COLLECTORS_CLOCK=str(told)))
    assert code == 0, errors
    assert "the time is not known yet" in said
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLLECTORS_CLOCK", str(told))
        service = Service(load(config), system_clock(), lambda _facts: None)
        began_s = time.monotonic()

        def stopping() -> bool:
            age_s = time.monotonic() - began_s
            if age_s > 2 and json.loads(told.read_text())["state"] == 0:
                rows = influx.query("SELECT count(detail) FROM event WHERE kind = 'test_start'", database)
                assert rows == [], "nothing is sent before its time is known"
                write_clock_file(told, time.time_ns() - time.clock_gettime_ns(time.CLOCK_BOOTTIME), state=1)
                notes.write(state, "b", "test_stop", "after", {"device": "mppt"}, system_clock())
            return age_s > 30 or influx.count(database, "detail", "event") >= 3

        service.run(stopping)
        service.close()
    (series,) = influx.query("SELECT detail, kind, device FROM event WHERE kind =~ /^test_/", database)
    assert [row[1:] for row in series["values"]] == [
        ["before the time was known", "test_start", None],
        ["after", "test_stop", "mppt"],
    ]
    assert all(abs(row[0] - time.time_ns()) < 120 * SECOND for row in series["values"])


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, who may become another")
def test_root_writes_as_the_owner_of_the_folder_even_below_a_folder_of_root_alone(tmp_path: Path) -> None:
    private, user = tmp_path / "private", 61234
    private.mkdir(mode=0o700)
    state = private / "collectors"
    state.mkdir(mode=0o750)
    os.chown(state, user, user)
    (tmp_path / "state").symlink_to(state)
    for n in range(2):
        code, _, errors = result_of(process(tmp_path / "state", "deploy", f"number {n}", "--bench", "b"))
        assert code == 0, errors
    found = [state / "notes", *(state / "notes").iterdir()]
    assert {(path.stat().st_uid, path.stat().st_gid) for path in found} == {(user, user)}
    assert [event.detail for event in events(state)] == ["number 0", "number 1"]


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, who may become another")
def test_root_does_not_write_where_the_owner_may_not(tmp_path: Path) -> None:
    """A service that was taken over may put a link into its own folder; root must not follow it."""
    state, prey = tmp_path / "state", tmp_path / "prey"
    state.mkdir(mode=0o750)
    prey.mkdir(mode=0o700)
    (state / "notes").symlink_to(prey)
    os.chown(state, 61234, 61234)
    code, _, errors = result_of(process(state, "deploy", "x", "--bench", "b"))
    assert code == 74, errors
    assert list(prey.iterdir()) == []
