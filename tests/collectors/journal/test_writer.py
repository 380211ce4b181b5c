"""The writer keeps every acknowledged row or refuses to start; damage and full disks cost the least possible."""

from __future__ import annotations

import sqlite3
import stat
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from collectors.errors import JournalError, JournalLocked, JournalNewer, JournalReadOnly
from collectors.host.clock import FakeClock
from collectors.journal import schema
from collectors.journal.backlog import Row, Work
from collectors.journal.directory import LEAP
from collectors.journal.reader import JournalReader
from collectors.journal.schema import DiskFull, FileSuspect, bad_files, journal_files, kept_files, path_of, read_header
from collectors.journal.settings import JournalSettings
from collectors.journal.writer import seal
from tests.testing.journal import QUIET, SECOND, Bench, column, event, fill, read_all, rows


def test_every_commit_is_flushed_and_the_settings_are_read_back(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = bench.open()
    connection = writer._live.connection
    found = [connection.execute(f"PRAGMA {p}").fetchone()[0] for p in ("journal_mode", "synchronous", "page_size")]
    assert found == ["wal", 2, 4096]

    class Careless(sqlite3.Connection):
        def execute(self, sql: str, *arguments: Any) -> sqlite3.Cursor:
            return super().execute(sql.replace("synchronous=FULL", "synchronous=NORMAL"), *arguments)

    real = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda *a, **k: real(*a, **k, factory=Careless))
    with pytest.raises(JournalError, match=r"synchronous=1; expected wal, 2"):
        schema.connect_writer(writer._live.path)


def test_a_second_writer_is_refused(bench: Bench) -> None:
    bench.open()
    with pytest.raises(JournalLocked, match="another process writes this journal"):
        bench.open()


def test_a_newer_journal_is_rejected_and_not_changed(bench: Bench) -> None:
    bench.close(bench.open())
    path = journal_files(bench.directory)[0]
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version=2")
    connection.close()
    before = {p.name: p.read_bytes() for p in bench.directory.iterdir()}
    with pytest.raises(JournalNewer, match=r"00001\.db: format 2, this program knows up to 1; nothing was touched"):
        bench.open()
    with pytest.raises(JournalNewer):
        bench.reader.newest_seq()
    assert {p.name: p.read_bytes() for p in bench.directory.iterdir()} == before


def test_a_read_only_folder_is_named(small_disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(JournalReadOnly, match="cannot be written"):
        Bench(small_disk).open()


def test_a_full_disk_loses_nothing_and_commits_go_on_when_there_is_room(small_disk: Path) -> None:
    bench = Bench(small_disk)
    writer = bench.open(JournalSettings(ballast_mib=0.25, min_free_mib=0.0))
    bench.write(writer, 5)
    assert (bench.directory / "ballast").stat().st_size == 2**18
    filler = fill(small_disk)
    value = 5
    with pytest.raises(DiskFull, match="disk full"):
        for value in range(6, 5000):
            writer.commit(rows({"voltage_v": float(value)}, value * SECOND * 100))
    assert bench.values()[:5] == [1.0, 2.0, 3.0, 4.0, 5.0], "committed rows stay readable"
    waiting = rows({"voltage_v": float(value)}, value * SECOND * 100)
    writer.make_room()
    assert not (bench.directory / "ballast").exists()
    writer.commit(waiting)
    filler.unlink()
    assert bench.values() == [float(i + 1) for i in range(value)]
    bench.close(writer)


def test_stamps_of_a_series_always_rise(bench: Bench) -> None:
    writer = bench.open()
    writer.commit(rows({"voltage_v": 1.0}, 5, 5, 5))
    writer.commit(rows({"voltage_v": 2.0}, 5, 9))
    bench.close(writer)
    writer = bench.open()
    writer.commit(rows({"voltage_v": 3.0}, 9))
    writer.commit(rows({"voltage_v": 4.0}, 9, cell="1"))
    by_cell: dict[str, list[int]] = {}
    for chunk in read_all(bench.reader):
        by_cell.setdefault(chunk.stream.tags.get("cell", ""), []).extend(chunk.boottime_ns.tolist())
    assert by_cell == {"": [5, 6, 7, 8, 9, 10], "1": [9]}


def test_rows_that_arrive_much_too_late_are_an_event(bench: Bench) -> None:
    writer = bench.open()
    writer.commit(rows({"voltage_v": 1.0}, 5 * SECOND))
    writer.commit(rows({"voltage_v": 2.0}, 3 * SECOND))
    assert [(e.kind, e.boottime_ns) for e in bench.reader.events_after(0)] == [("late_rows", 5 * SECOND + 1)]


def test_a_failed_commit_changes_nothing_and_can_be_repeated(bench: Bench) -> None:
    writer = bench.open()
    bench.write(writer, 2)
    work = rows({"new_name": 7.0}, 60 * SECOND)
    writer._live.connection.set_authorizer(
        lambda action, table, *_: sqlite3.SQLITE_DENY if table == "hot" and action == 18 else sqlite3.SQLITE_OK
    )
    with pytest.raises(JournalReadOnly):
        writer.commit(work)
    writer._live.connection.set_authorizer(None)
    assert writer.commit(work) == 3
    assert [c.boottime_ns.tolist() for c in read_all(bench.reader)][-1] == [60 * SECOND]
    assert bench.values("new_name") == [7.0]


def test_a_new_field_makes_a_new_stream_that_has_all_fields(bench: Bench) -> None:
    writer = bench.open()
    writer.commit(rows({"voltage_v": 1.0}, 1))
    writer.commit(rows({"current_a": 2.0}, 2))
    writer.commit(rows({"voltage_v": 3.0}, 3))
    streams = [[f.name for f in c.stream.fields] for c in read_all(bench.reader)]
    assert streams == [["voltage_v"], ["voltage_v", "current_a"], ["voltage_v", "current_a"]]
    assert bench.values() == [1.0, 3.0]
    assert [f.unit for f in bench.reader.streams()[1].fields] == ["V", "A"]


def test_roll_over_seals_the_file_permanently(bench: Bench) -> None:
    writer = bench.open()
    bench.write(writer, 5)
    writer.roll()
    bench.write(writer, 5, value=6.0)
    sealed = journal_files(bench.directory)[0]
    header = read_header(sealed)
    assert header is not None
    assert not header.is_wal
    assert stat.S_IMODE(sealed.stat().st_mode) == 0o440
    assert not Path(f"{sealed}-wal").exists()
    connection = sqlite3.connect(f"{sealed.as_uri()}?mode=ro", uri=True)
    assert connection.execute("SELECT count(*) FROM hot").fetchone() == (0,)
    connection.close()
    assert bench.values() == [float(i + 1) for i in range(10)]


def test_a_file_rolls_by_size_and_by_age_over_restarts(bench: Bench) -> None:
    old = JournalSettings(ballast_mib=0.0, min_free_mib=0.0, roll_s=100.0, compact_s=5.0)
    writer = bench.open(old)
    bench.write(writer, 60)
    bench.close(writer)
    writer = bench.open(old)
    bench.write(writer, 30)
    writer.upkeep()
    assert len(journal_files(bench.directory)) == 1
    bench.write(writer, 20)
    writer.upkeep()
    assert len(journal_files(bench.directory)) == 2
    bench.close(writer)
    writer = bench.open(JournalSettings(ballast_mib=0.0, min_free_mib=0.0, roll_mib=0.05, compact_s=5.0))
    bench.write(writer, 60)
    writer.upkeep()
    assert len(journal_files(bench.directory)) == 3


def test_a_file_that_could_not_be_sealed_is_sealed_later(bench: Bench) -> None:
    writer = bench.open()
    bench.write(writer, 3)
    path = journal_files(bench.directory)[0]
    busy = schema.connect_reader(path)
    busy.execute("BEGIN")
    busy.execute("SELECT * FROM hot").fetchall()
    writer.roll()
    assert read_header(path).is_wal  # type: ignore[union-attr]
    assert not seal(path, 0, bench.report)
    busy.close()
    bench.close(writer)
    writer = bench.open()
    bench.clock.sleep_s(60)
    writer.upkeep()
    assert not read_header(path).is_wal  # type: ignore[union-attr]
    assert bench.values() == [1.0, 2.0, 3.0]


def test_sequence_numbers_continue_after_every_sinks_cursor(bench: Bench, tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "ship.db") as connection:
        connection.execute("CREATE TABLE cursor(sink TEXT, collector TEXT, seq INTEGER, live INTEGER)")
        connection.execute("INSERT INTO cursor VALUES ('lab', 'load', 5000, 5000)")
    connection.close()
    assert bench.write(bench.open()) == 5001, "else a shipper that knew a deleted journal would skip the new rows"


def spoil(path: Path, at: int, size: int) -> None:
    path.chmod(0o640)
    with path.open("r+b") as file:
        file.seek(at)
        file.write(b"\xa5" * size)


def test_a_file_damaged_at_its_head_is_quarantined_and_a_new_one_is_created(bench: Bench) -> None:
    writer = bench.open()
    bench.write(writer, 3)
    bench.close(writer)
    spoil(path_of(bench.directory, 1), 0, 4096)
    writer = bench.open()
    assert bench.kinds() == ["file_quarantined"]
    assert bench.write(writer, 1, value=9.0) > LEAP
    for _ in range(5):
        writer.upkeep()
    assert bench.values() == [9.0]
    assert bench.kinds() == ["file_quarantined", "file_salvaged"]
    assert "0 points copied, at least 3 rows could not be read" in bench.events[-1][1]
    assert bad_files(bench.directory) == []


def test_the_readable_rows_of_a_file_damaged_in_the_middle_are_recovered(bench: Bench) -> None:
    writer = bench.open()
    values = np.random.default_rng(1).random(16_000).tolist()
    for start in range(0, 16_000, 3200):
        group = [Row((1 + i) * SECOND, {"voltage_v": values[i]}) for i in range(start, start + 3200)]
        writer.commit(Work({("battery", "{}"): group}))
        writer.compact()
    writer.commit(event("kept", boottime_ns=7))
    path = path_of(bench.directory, 1)
    payload = writer._live.connection.execute("SELECT payload FROM blk ORDER BY id LIMIT 1 OFFSET 2").fetchone()[0]
    bench.close(writer)
    spoil(path, path.read_bytes().index(payload[9000:9050]) // 4096 * 4096, 4096)
    writer = bench.open()
    assert bench.events == [], "nothing notices before it is read"
    writer.replace_live(FileSuspect("the test says so"))
    for _ in range(20):
        writer.upkeep()
    assert bench.values() == values[:6400] + values[9600:]
    assert bench.kinds() == ["file_quarantined", "file_salvaged"]
    assert "12800 points copied, at least 1 rows could not be read" in bench.events[-1][1]
    assert len(kept_files(bench.directory)) == 1
    assert [e.kind for e in bench.reader.events_after(0)] == ["kept"]


def test_a_row_whose_checksum_fails_is_left_out_and_reported(bench: Bench) -> None:
    writer = bench.open()
    bench.write(writer, 5)
    bench.close(writer)
    with sqlite3.connect(path_of(bench.directory, 1)) as connection:
        connection.execute("UPDATE hot SET payload = zeroblob(length(payload)) WHERE seq=3")
    connection.close()
    assert bench.values() == [1.0, 2.0, 4.0, 5.0]
    assert [(d.table, d.row) for d in bench.reader.take_damage()] == [("hot", 3)]
    assert bench.reader.take_damage() == []
    writer = bench.open()
    assert bench.kinds() == ["row_damaged"]
    writer.compact()
    assert bench.kinds() == ["row_damaged"] * 2
    assert bench.values() == [1.0, 2.0, 4.0, 5.0]


def test_an_io_error_loses_and_duplicates_no_acknowledged_row(bench: Bench) -> None:
    writer = bench.open()
    bench.write(writer, 4)
    writer.compact()
    bench.write(writer, 3, value=5.0)
    writer.commit(event("before"))
    writer.replace_live(FileSuspect("disk I/O error"))
    bench.write(writer, 2, value=8.0)
    for _ in range(6):
        writer.upkeep()
    assert sorted(bench.values()) == [float(i) for i in range(1, 10)]
    assert [e.kind for e in bench.reader.events_after(0)] == ["before"]
    assert bench.kinds() == ["file_quarantined", "file_salvaged"]
    assert bad_files(bench.directory) + kept_files(bench.directory) == []
    assert sorted(bench.walls()) == [1_700_000_011.0 + i for i in range(9)]


def test_an_interrupted_recovery_is_resumed(bench: Bench) -> None:
    writer = bench.open()
    for i in range(120):
        bench.write(writer, 1, value=float(i))
        writer.compact()
    writer.replace_live(FileSuspect("disk I/O error"))
    writer.upkeep()
    bench.close(writer)
    writer = bench.open()
    writer.roll()
    for _ in range(10):
        writer.upkeep()
    assert sorted(bench.values()) == [float(i) for i in range(120)]


def test_a_file_of_another_program_is_not_taken_for_a_journal(bench: Bench) -> None:
    bench.directory.mkdir(parents=True)
    path_of(bench.directory, 3).write_bytes(b"hello")
    with sqlite3.connect(path_of(bench.directory, 4)) as connection:
        connection.execute("CREATE TABLE other(x)")
    connection.close()
    writer = bench.open()
    assert bench.kinds() == ["file_quarantined"]
    bench.write(writer, 1)
    bench.clock.sleep_s(60)
    writer.upkeep()
    assert bench.values() == [1.0]
    assert journal_files(bench.directory) == [path_of(bench.directory, 5)]


def test_another_boot_keeps_its_own_stamps(bench: Bench) -> None:
    writer = bench.open()
    bench.write(writer, 2)
    bench.close(writer)
    bench.clock = FakeClock(SECOND, 1_800_000_000 * SECOND, boot_id="second")
    bench.write(bench.open(QUIET), 1, value=3.0)
    assert [(c.boot_id, c.boottime_ns.tolist(), column(c, "voltage_v")) for c in read_all(bench.reader)] == [
        ("fake-boot", [11 * SECOND], [1.0]), ("fake-boot", [12 * SECOND], [2.0]), ("second", [2 * SECOND], [3.0]),
    ]  # fmt: skip
    assert [b.boot_id for b in bench.reader.boots()] == ["fake-boot", "second"]
    assert JournalReader(bench.directory).tags() == {"device": "load"}
