"""A manually set time applies to the whole boot, also to later journals; an unreadable journal stops no other."""

from __future__ import annotations

import json
import os
import sqlite3
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from collectors.cli import cli
from collectors.errors import ClockUnknown, CollectorError, JournalError
from collectors.host.clock import SET_BY_PERSON, SYNCHRONISED, UNSYNCHRONISED, FileClock, system_clock, write_clock_file
from collectors.journal import clock_request, notes
from collectors.journal.reader import JournalReader
from collectors.journal.schema import journal_files
from collectors.journal.settings import JournalSettings
from collectors.journal.writer import JournalWriter
from tests.testing.journal import rows

SECOND = 10**9
SET_S = 1_789_997_600
"""2026-09-21T13:33:20 in UTC."""
SETTINGS = JournalSettings(ballast_mib=0.0)


@pytest.fixture
def told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine whose clock no time service has set."""
    path = tmp_path / "clock.json"
    write_clock_file(path, 10**18, state=UNSYNCHRONISED)
    monkeypatch.setenv("COLLECTORS_CLOCK", str(path))
    return path


@pytest.fixture
def state(tmp_path: Path) -> Path:
    path = tmp_path / "state"
    path.mkdir()
    return path


def run(command: str, state: Path, *arguments: str) -> Result:
    return CliRunner().invoke(cli, [*command.split(), "--state", str(state), *arguments])


def set_clock(state: Path, *arguments: str) -> Result:
    return CliRunner().invoke(cli, ["clock", "--state", str(state), "set", "2026-09-21T13:33:20", "--yes", *arguments])


def collect(state: Path, name: str = "load") -> JournalReader:
    """Write one row as a collector does, and return the reader of its journal."""
    clock = system_clock()
    writer = JournalWriter(state / name, {"bench": "b", "device": name}, SETTINGS, clock, lambda *_: None)
    writer.commit(rows({"voltage_v": 1.0}, clock.boottime_ns()))
    writer.close()
    return JournalReader(state / name)


def times_s(reader: JournalReader) -> list[float]:
    """Return the wall times in s of all rows whose time is known."""
    return [t / SECOND for span in reader.range(0, 2**62) for t in span.wall_ns.tolist()]


def failure(result: Result) -> CollectorError:
    assert isinstance(result.exception, CollectorError), (result.output, result.exception)
    return result.exception


def spoil(reader: JournalReader) -> None:
    """Give the journal a newer format version."""
    with sqlite3.connect(journal_files(reader.directory)[-1]) as connection:
        connection.execute("PRAGMA user_version=99")
    connection.close()


def test_collectors_and_notes_that_begin_after_the_clock_was_set_have_the_time(told: Path, state: Path) -> None:
    before = collect(state)
    assert times_s(before) == []
    done = set_clock(state)
    assert done.exit_code == 0, done.output
    assert "what begins later in this boot takes it, too" in done.output
    later = collect(state, "later")
    said = run("note", state, "deploy", "after the clock was set")
    assert "the time is not known yet" not in said.output
    exported = run("export", state, "notes")
    assert exported.exit_code == 0, exported.exception
    assert "after the clock was set" in exported.output
    for reader in (before, later):
        (found_s,) = times_s(reader)
        assert abs(found_s - SET_S) < 60


def test_it_can_be_set_before_anything_has_begun(told: Path, state: Path) -> None:
    assert set_clock(state).exit_code == 0
    (found_s,) = times_s(collect(state))
    assert abs(found_s - SET_S) < 60


def test_the_newest_clock_setting_applies_and_one_for_a_journal_stays_with_that_journal(
    told: Path, state: Path
) -> None:
    one, other = collect(state, "one"), collect(state, "other")
    set_clock(state)
    CliRunner().invoke(cli, ["clock", "--state", str(state), "set", "2027-01-01", "--yes", "one"])
    for _ in range(2):
        collect(state, "one")
        collect(state, "other")
    steps = one.clock_steps(system_clock().boot_id)
    assert [s.state for s in steps].count(SET_BY_PERSON) == 2, "neither word is said again and again"
    assert all(t > SET_S + 8e6 for t in times_s(one))
    assert all(abs(t - SET_S) < 60 for t in times_s(other))


def test_a_time_service_takes_precedence_and_settings_of_another_boot_are_ignored(told: Path, state: Path) -> None:
    set_clock(state)
    look = system_clock().look()
    write_clock_file(told, 1_780_000_000 * SECOND - look.boottime_ns, state=SYNCHRONISED)
    (found_s,) = times_s(collect(state))
    assert abs(found_s - 1_780_000_000) < 60
    write_clock_file(told, 10**18, state=UNSYNCHRONISED)
    clock_request.leave_for_host(state, clock_request.ClockRequest("another boot", 1, 2))
    assert times_s(collect(state, "later")) == []
    (state / clock_request.NAME).write_text("no JSON")
    assert times_s(collect(state, "latest")) == []


def test_no_clock_file_is_written_where_a_time_service_has_set_the_clock(told: Path, state: Path) -> None:
    write_clock_file(told, 10**18, state=SYNCHRONISED)
    collect(state)
    assert set_clock(state).exit_code == 0
    assert not (state / clock_request.NAME).exists()


def test_a_running_collector_applies_a_clock_setting_of_the_host(told: Path, state: Path) -> None:
    clock = FileClock(told)
    writer = JournalWriter(state / "load", {}, SETTINGS, clock, lambda *_: None)
    writer.commit(rows({"voltage_v": 1.0}, clock.boottime_ns()))
    look = clock.look()
    clock_request.leave_for_host(
        state, clock_request.ClockRequest(clock.boot_id, look.boottime_ns, SET_S * SECOND - look.boottime_ns)
    )
    writer.commit(rows({"voltage_v": 2.0}, clock.boottime_ns()))
    assert writer.clock_state == SET_BY_PERSON
    writer.close()
    assert len(times_s(JournalReader(state / "load"))) == 2


def test_export_explains_an_empty_result_when_no_time_is_known(told: Path, state: Path) -> None:
    notes.write(state, "b", "deploy", "early", {}, system_clock())
    for arguments in (["notes"], ["notes", "--measurement", "event"]):
        error = failure(run("export", state, *arguments))
        assert isinstance(error, ClockUnknown)
        assert "collectors clock set" in str(error)


def test_a_journal_of_a_newer_version_stops_no_command_for_the_others(told: Path, state: Path) -> None:
    good = collect(state, "good")
    spoil(collect(state, "newer"))
    done = set_clock(state)
    assert failure(done).exit_code == 74
    assert "newer" in str(failure(done))
    assert len(times_s(good)) == 1, "the healthy one is set"
    for command, shown in (("tail", "voltage_v=1"), ("export", ",voltage_v\n"), ("clock", "good:\n")):
        done = run(command, state)
        assert failure(done).exit_code == 74
        assert "newer/j-00000001.db: format 99" in str(failure(done))
        assert shown in done.output
    assert json.loads(run("clock --json", state).stdout)["collectors"].keys() == {"good"}
    assert run("note", state, "deploy", "x").exit_code == 0


def test_the_reason_is_reported_where_no_journal_can_be_read(told: Path, state: Path) -> None:
    spoil(collect(state, "newer"))
    for arguments in (("export",), ("tail",), ("clock",), ("note", "deploy", "x"), ("export", "newer")):
        error = failure(run(arguments[0], state, *arguments[1:]))
        assert isinstance(error, JournalError)
        assert "format 99" in str(error)


@pytest.fixture
def open_state(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A state folder in a place that every user may look into, which pytest's own is not."""
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        place.chmod(0o755)
        write_clock_file(place / "clock.json", 10**18, state=SYNCHRONISED)
        monkeypatch.setenv("COLLECTORS_CLOCK", str(place / "clock.json"))
        (place / "state").mkdir(mode=0o755)
        yield place / "state"


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, who may become another")
def test_a_journal_that_the_user_may_not_read_is_named_and_not_missing(open_state: Path) -> None:
    for name, folder_mode, file_mode in (("good", 0o755, 0o644), ("closed", 0o700, 0o644), ("file", 0o755, 0o600)):
        reader = collect(open_state, name)
        journal_files(reader.directory)[0].chmod(file_mode)
        reader.directory.chmod(folder_mode)
    for command, shown in (("tail", "  good  "), ("export", ",voltage_v\n"), ("clock", "good:\n")):
        done = as_nobody(command, open_state)
        assert failure(done).exit_code == 74, done.output
        assert shown in done.output
        assert str(failure(done)).count("this user may not read it; run the command with sudo") == 2, command
        assert "closed: " in str(failure(done))
        assert "file: " in str(failure(done))


def as_nobody(command: str, state: Path) -> Result:
    """Run the command as a user who owns nothing here."""
    os.seteuid(65534)
    try:
        return run(command, state)
    finally:
        os.seteuid(0)
