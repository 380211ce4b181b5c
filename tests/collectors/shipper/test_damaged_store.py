"""A damaged ship.db is quarantined and everything is shipped again without an operator; `status` continues to work."""

from __future__ import annotations

import json
import random
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from collectors.cli.status import COMMAND as STATUS
from collectors.errors import JournalError
from collectors.host.clock import FileClock, write_clock_file
from collectors.journal.reader import JournalReader
from collectors.journal.settings import JournalSettings
from collectors.journal.shipper_state import shipped_seq
from collectors.journal.writer import JournalWriter
from collectors.shipper import config as ship_config
from collectors.shipper import service
from collectors.shipper.cursors import (
    BAD_FILES_KEPT,
    ShipStore,
    StoreDamaged,
    StoreUnavailable,
    open_existing,
    put_aside,
    translated,
)
from collectors.shipper.retry import Refusal
from tests.testing.influxdb2_stand_in import Api, serving
from tests.testing.journal import rows

PAGE_BYTES = 4096
COMMITS = 40


@dataclass
class Bench:
    """A host with one journal, a shipper and the server that it ships to."""

    state: Path
    config: Path
    server: Api

    def ship_once(self) -> None:
        service.run(ship_config.load(self.config), once=True)

    def arrived(self) -> int:
        """Return how many readings the server has stored."""
        return len(self.server.points("bat/raw"))

    @property
    def ship_db(self) -> Path:
        return self.state / "ship.db"


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    told = tmp_path / "clock.json"
    write_clock_file(told, state=1)
    monkeypatch.setenv("COLLECTORS_CLOCK", str(told))
    state = tmp_path / "state"
    clock = FileClock(told)
    settings = JournalSettings(ballast_mib=0.0)
    writer = JournalWriter(state / "mppt", {"bench": "b", "device": "mppt"}, settings, clock, lambda *_: None)
    for number in range(COMMITS):
        writer.commit(rows({"voltage_v": float(number)}, clock.boottime_ns() + number))
    writer.close()
    with serving(Api()) as server:
        (tmp_path / "token").write_text(server.onboard("lab", "bat/raw"))
        path = tmp_path / "ship.toml"
        path.write_text(f"""
            [ship]
            bench = "b"
            state_dir = "{state}"
            [[sink]]
            name = "lab"
            dialect = "influxdb2"
            url = "{server.url}"
            org = "lab"
            bucket = "bat/raw"
            token_file = "token"
        """)
        yield Bench(state, path, server)


def filled(bench: Bench) -> bytes:
    """Ship everything, add some dead letters, and return the content of ship.db."""
    bench.ship_once()
    with ShipStore(bench.ship_db) as store:
        letters = [Refusal(f"m v={number} {'x' * 300}", 400, "refused", "no") for number in range(200)]
        store.add_dead("lab", "mppt", 1, letters)
    return bench.ship_db.read_bytes()


@pytest.mark.parametrize("kind", ["zeros", "noise", "half", "text", "empty"])
def test_damage_of_every_kind_costs_only_a_resend(bench: Bench, kind: str) -> None:
    good = filled(bench)
    spoiled = {
        "zeros": good[:PAGE_BYTES] + bytes(len(good) - PAGE_BYTES),
        "noise": random.Random(1).randbytes(len(good)),
        "half": good[: len(good) // 2],
        "text": b"this is no database " * 1000,
        "empty": b"",
    }[kind]
    bench.ship_db.write_bytes(spoiled)
    bench.server.stored.clear()
    status = CliRunner().invoke(STATUS, ["--state", str(bench.state), "--json"])
    assert [found["collector"] for found in json.loads(status.stdout)["collectors"]] == ["mppt"]
    bench.ship_once()
    assert bench.arrived() == COMMITS
    assert [path.read_bytes() for path in bench.state.glob("ship.db.bad-*") if path.suffix == ".bad-1"] == [spoiled]
    bench.server.stored.clear()
    bench.ship_once()
    assert bench.arrived() == 0, "the new ship.db remembers"


@given(st.data())
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_overwritten_page_stops_shipping_or_status(bench: Bench, data: st.DataObject) -> None:
    for path in bench.state.glob("ship.db*"):
        path.unlink()
    good = bytearray(filled(bench))
    pages = data.draw(st.sets(st.integers(0, len(good) // PAGE_BYTES - 1), min_size=1, max_size=4), label="pages")
    seed = data.draw(st.integers(0, 2**32), label="seed")
    for page in pages:
        width = data.draw(st.sampled_from([1, 16, 200, PAGE_BYTES]), label="width")
        at = page * PAGE_BYTES + data.draw(st.integers(0, PAGE_BYTES - width), label="at")
        good[at : at + width] = random.Random(seed).randbytes(width)
    bench.ship_db.write_bytes(good)
    bench.server.stored.clear()
    status = CliRunner().invoke(STATUS, ["--state", str(bench.state), "--json"])
    assert [found["collector"] for found in json.loads(status.stdout)["collectors"]] == ["mppt"]
    assert shipped_seq(bench.ship_db, "mppt", ["lab"]) >= 0
    try:
        bench.ship_once()
    except StoreDamaged as error:
        pytest.fail(f"a person would have to act: {error}")
    with ShipStore(bench.ship_db, check=True) as store:
        is_new = bool(list(bench.state.glob("ship.db.bad-*")))
        assert bench.arrived() == COMMITS or not is_new
        assert store.marks("lab")["mppt"].confirmed >= COMMITS or is_new


def test_a_journal_that_ends_before_its_cursor_is_read_from_its_beginning(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another journal under the same name, or a damaged cursor: otherwise no row would be shipped or reported."""
    bench.ship_once()
    with sqlite3.connect(bench.ship_db) as connection:
        connection.execute("UPDATE cursor SET live=10000, seq=10000")
    connection.close()
    bench.server.stored.clear()
    with pytest.raises(Exception, match="another one than before"):
        bench.ship_once()
    monkeypatch.setattr("collectors.shipper.worker.BEYOND_S", 0.0)
    bench.ship_once()
    assert bench.arrived() == COMMITS


def test_only_the_newest_damaged_files_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "ship.db"
    for number in range(BAD_FILES_KEPT + 2):
        path.write_text(str(number))
        path.with_name("ship.db-journal").write_text(str(number))
        put_aside(path)
    kept = sorted(p.name for p in tmp_path.iterdir())
    assert kept == sorted(f"ship.db.bad-{number}{suffix}" for number in (3, 4, 5) for suffix in ("", "-journal"))


def test_the_first_error_is_reported_and_a_full_disk_is_no_damage(tmp_path: Path) -> None:
    with ShipStore(tmp_path / "ship.db") as store:
        store._db.execute("PRAGMA max_page_count=1")  # SQLite's own limit gives the same error as a full disk
        with pytest.raises(StoreUnavailable, match="full"):
            for number in range(100):
                store.add_dead("lab", "mppt", 1, [Refusal(f"{number} {'x' * 5000}", 400, "refused", "")])
        store._db.execute("PRAGMA max_page_count=1000000")
        store.set_types("lab", {("m", "f"): "f"})
        assert store.types("lab") == {("m", "f"): "f"}


def test_an_unreadable_journal_file_delays_no_other_journal(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_self: Path, *_args: object, **_options: object) -> None:
        raise OSError(5, "Input/output error")

    (bench.state / "load").mkdir()
    (bench.state / "load" / "j-00000001.db").write_bytes(b"")
    monkeypatch.setattr("collectors.journal.schema.read_header", fail)
    reader = JournalReader(bench.state / "load")
    with pytest.raises(Exception, match="Input/output error") as caught:
        reader.newest_seq()
    assert type(caught.value).__name__ == "JournalError"


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("SQLITE_CORRUPT", StoreDamaged), ("SQLITE_NOTADB", StoreDamaged), ("SQLITE_IOERR_READ", StoreDamaged),
        ("SQLITE_IOERR_SHORT_READ", StoreDamaged), ("SQLITE_FULL", StoreUnavailable), ("SQLITE_BUSY", StoreUnavailable),
        ("SQLITE_IOERR_WRITE", StoreUnavailable), ("SQLITE_IOERR_FSYNC", StoreUnavailable),
        ("SQLITE_READONLY", StoreUnavailable),
    ],
)  # fmt: skip
def test_read_errors_are_damage_and_write_errors_are_not(name: str, kind: type[Exception]) -> None:
    error = sqlite3.OperationalError("disk I/O error")
    error.sqlite_errorcode, error.sqlite_errorname = getattr(sqlite3, name), name
    assert type(translated(error, Path("ship.db"))) is kind


def test_a_file_that_fails_during_use_is_quarantined_in_the_same_run(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    save, failed = ShipStore.save, list[str]()

    def fail_once(store: ShipStore, *arguments: Any) -> None:
        if not failed:
            failed.append("disk I/O error")
            raise StoreDamaged(f"{store.path}: damaged: disk I/O error (SQLITE_IOERR_READ)")
        save(store, *arguments)

    monkeypatch.setattr(ShipStore, "save", fail_once)
    bench.ship_once()
    assert failed
    assert (bench.state / "ship.db.bad-1").exists()
    with ShipStore(bench.ship_db, check=True) as store:
        assert store.marks("lab")["mppt"].confirmed == COMMITS


def test_a_disk_that_corrupts_every_new_file_stops_the_shipper(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(store: ShipStore, *_: Any) -> None:
        raise StoreDamaged(f"{store.path}: damaged")

    monkeypatch.setattr(ShipStore, "save", fail)
    with pytest.raises(StoreDamaged):
        bench.ship_once()


def test_commands_do_not_change_a_damaged_file(tmp_path: Path) -> None:
    (tmp_path / "ship.db").write_bytes(b"no database" * 1000)
    with pytest.raises(JournalError, match="next start"):
        open_existing(tmp_path / "ship.db")
    assert (tmp_path / "ship.db").exists()
