"""`ship --once` and `status` name what was not shipped or read, and why; all other journals continue."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from collectors.cli.note import bench_of
from collectors.cli.ship import COMMAND as SHIP
from collectors.cli.status import COMMAND as STATUS
from collectors.errors import ClockUnknown, JournalError
from collectors.host.clock import FileClock, write_clock_file
from collectors.journal.reader import JournalReader
from collectors.journal.records import SYNCHRONISED, UNSYNCHRONISED
from collectors.journal.schema import path_of
from collectors.journal.settings import JournalSettings
from collectors.journal.writer import JournalWriter
from collectors.shipper.cursors import Cursors, ShipStore
from collectors.shipper.journal_source import collectors_of
from tests.testing.influxdb2_stand_in import Api, serving
from tests.testing.journal import rows


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("COLLECTORS_CLOCK", str(tmp_path / "clock.json"))
    (tmp_path / "state").mkdir()
    return tmp_path / "state"


def journal(state: Path, name: str, clock_state: int = SYNCHRONISED, commits: int = 5) -> Path:
    """Write a journal of so many commits of one reading each."""
    told = state.parent / "clock.json"
    write_clock_file(told, state=clock_state)
    clock = FileClock(told)
    settings = JournalSettings(ballast_mib=0.0)
    writer = JournalWriter(state / name, {"bench": "b", "device": name}, settings, clock, lambda *_: None)
    for number in range(commits):
        writer.commit(rows({"voltage_v": float(number)}, clock.boottime_ns() + number))
    writer.close()
    return state / name


def make_newer(folder: Path) -> None:
    """Give the journal the format version of a later release."""
    with sqlite3.connect(path_of(folder, 1)) as connection:
        connection.execute("PRAGMA user_version=99")
    connection.close()


def configure(state: Path, server: Api) -> Path:
    (state.parent / "token").write_text(server.onboard("lab", "bat/raw"))
    path = state.parent / "ship.toml"
    path.write_text(
        f'[ship]\nbench = "b"\nstate_dir = "{state}"\n[[sink]]\nname = "lab"\ndialect = "influxdb2"\n'
        f'url = "{server.url}"\norg = "lab"\nbucket = "bat/raw"\ntoken_file = "token"\n'
    )
    return path


def test_once_is_no_success_while_the_time_of_samples_is_unknown(state: Path) -> None:
    journal(state, "mppt", UNSYNCHRONISED)
    with serving(Api()) as server:
        done = CliRunner().invoke(SHIP, [str(configure(state, server)), "--once", "--json"])
        assert not server.points("bat/raw")
    assert isinstance(done.exception, ClockUnknown)
    assert done.exception.exit_code == 69
    assert "5 commits of mppt" in str(done.exception)
    assert "collectors clock set" in str(done.exception)
    said = json.loads(done.stdout)
    assert (said["state"], said["unsent_rows"], said["waiting_for_clock"]) == ("hold", 5, {"mppt": 5})


def test_once_ships_the_others_and_names_a_journal_of_a_newer_version(state: Path) -> None:
    journal(state, "mppt")
    make_newer(journal(state, "load"))
    with serving(Api()) as server:
        done = CliRunner().invoke(SHIP, [str(configure(state, server)), "--once", "--json"])
        assert len(server.points("bat/raw")) == 5
    assert isinstance(done.exception, JournalError)
    assert "load" in str(done.exception)
    assert "version" in str(done.exception)
    said = json.loads(done.stdout)
    assert said["state"] == "hold"
    assert list(said["unreadable"]) == ["load"]


def test_status_shows_the_others_beside_a_journal_of_a_newer_version(state: Path) -> None:
    journal(state, "mppt")
    make_newer(journal(state, "load"))
    done = CliRunner().invoke(STATUS, ["--state", str(state), "--json"])
    said = json.loads(done.stdout)
    assert [found["collector"] for found in said["collectors"]] == ["mppt"]
    assert list(said["unreadable"]) == ["load"]
    assert done.exit_code == 74
    words = CliRunner().invoke(STATUS, ["--state", str(state)])
    assert "mppt: last sample" in words.stdout
    assert "load: unreadable:" in words.stderr


def test_a_journal_that_the_user_may_not_read_is_no_missing_journal(
    state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal(state, "mppt")
    journal(state, "load")
    (state / "lost+found").mkdir()
    real = Path.iterdir

    def iterdir(path: Path) -> Iterator[Path]:
        if path.name in ("load", "lost+found"):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(Path, "iterdir", iterdir)
    assert collectors_of(state) == ["load", "mppt"]
    done = CliRunner().invoke(STATUS, ["--state", str(state), "--json"])
    assert "sudo" in json.loads(done.stdout)["unreadable"]["load"]
    assert done.exit_code == 74


def test_a_state_folder_that_the_user_may_not_read_is_a_named_error(
    state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def iterdir(path: Path) -> Iterator[Path]:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "iterdir", iterdir)
    with pytest.raises(JournalError, match="sudo"):
        collectors_of(state)


def test_numbers_that_were_left_out_after_a_damaged_file_are_not_unsent(state: Path) -> None:
    folder = journal(state, "mppt", commits=7)
    with ShipStore(state / "ship.db") as store:
        store.save("lab", {"mppt": Cursors(3)})
    path_of(folder, 1).rename(folder / "j-00000001.db.bad-1")
    (folder / "j-00000001.db.bad-1").write_bytes(b"no database")
    journal(state, "mppt", commits=2)
    reader = JournalReader(folder)
    assert reader.newest_seq() > 2**32
    assert reader.commits_between(3) <= 10
    said = json.loads(CliRunner().invoke(STATUS, ["--state", str(state), "--json"]).stdout)
    assert said["collectors"][0]["unsent"] == {"lab": reader.commits_between(3)}


def test_commits_are_counted_over_files_and_parts_of_them(state: Path) -> None:
    folder = journal(state, "mppt", commits=3)
    journal(state, "mppt", commits=4)
    reader = JournalReader(folder)
    newest = reader.newest_seq()
    assert reader.commits_between(0, newest) == newest
    assert reader.commits_between(2, newest) == newest - 2
    assert reader.commits_between(2, 5) == 3
    assert reader.commits_between(newest, 2**62) == 0


def test_a_note_is_written_beside_a_journal_of_a_newer_version(state: Path) -> None:
    journal(state, "mppt")
    make_newer(journal(state, "load"))
    assert bench_of(state) == "b"
