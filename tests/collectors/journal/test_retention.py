"""Confirmed rows are deleted freely; all other rows are deleted last, in order, and with an event."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from collectors.journal.records import SYNCHRONISED
from collectors.journal.retention import DAY_NS
from collectors.journal.schema import journal_files
from collectors.journal.settings import JournalSettings
from collectors.journal.writer import JournalWriter
from tests.testing.journal import SECOND, Bench, rows


def settings(**changes: object) -> JournalSettings:
    return JournalSettings(**{"ballast_mib": 0.0, "min_free_mib": 0.0, "cap_mib": 1000.0, "roll_s": 1e9, **changes})  # type: ignore[arg-type]


def four_files(bench: Bench, wanted: JournalSettings) -> JournalWriter:
    """Three sealed files of 100 rows (seq 1, 2, 3) and an empty active one."""
    writer = bench.open(wanted)
    for number in range(3):
        stamps = [bench.clock.boottime_ns() + (i + 1) * SECOND for i in range(100)]
        bench.clock.sleep_s(100)
        writer.commit(rows({"voltage_v": float(number)}, *stamps))
        writer.roll()
    return writer


def shipped(state: Path, **cursors: int) -> None:
    with sqlite3.connect(state / "ship.db") as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS cursor(sink TEXT, collector TEXT, seq INTEGER, live INTEGER)")
        connection.executemany("INSERT INTO cursor VALUES (?1, 'load', ?2, ?2)", list(cursors.items()))
    connection.close()


def upkeep(bench: Bench, writer: JournalWriter) -> list[str]:
    bench.clock.sleep_s(60)
    writer.upkeep()
    return [p.name for p in journal_files(bench.directory)]


ALL = [f"j-0000000{i}.db" for i in (1, 2, 3, 4)]


def test_without_a_reason_nothing_is_deleted(bench: Bench, tmp_path: Path) -> None:
    writer = four_files(bench, settings(sinks=("lab",)))
    shipped(tmp_path, lab=3)
    assert upkeep(bench, writer) == ALL
    assert bench.events == []


def test_over_the_cap_only_rows_confirmed_by_every_sink_are_deleted(bench: Bench, tmp_path: Path) -> None:
    writer = four_files(bench, settings(sinks=("lab", "office"), cap_mib=0.2))
    shipped(tmp_path, lab=3, office=1)
    assert upkeep(bench, writer) == ALL[1:]
    assert bench.kinds() == ["file_deleted"]
    assert "j-00000001.db: seq 1 to 1, 100 points: shipped" in bench.events[0][1]


def test_over_the_cap_unshipped_rows_are_thinned_before_files_are_deleted_with_events(
    bench: Bench, tmp_path: Path
) -> None:
    writer = four_files(bench, settings(sinks=("lab",), cap_mib=0.15))
    shipped(tmp_path, lab=0)
    bench.clock.state = SYNCHRONISED
    left = upkeep(bench, writer)
    kinds = bench.kinds()
    assert kinds[:4] == ["journal_over_cap", "file_thinned", "file_thinned", "file_thinned"]
    assert kinds[4:] == ["file_dropped"] * (4 - len(left))
    assert "not every sink has it" in bench.events[-1][1]
    assert ALL[3] in left


def test_a_thinned_file_keeps_its_charts(bench: Bench) -> None:
    writer = four_files(bench, settings())
    before = bench.reader.rollups(0, 2**62, 60)
    assert len(before[0].wall_ns) > 4
    files = writer._retention._sealed()
    writer._retention._thin(files[0])
    after = bench.reader.rollups(0, 2**62, 60)
    assert after[0].mean.tolist() == before[0].mean.tolist()
    assert after[0].count.tolist() == before[0].count.tolist()
    assert bench.values() == [1.0] * 100 + [2.0] * 100


def test_without_sinks_only_age_and_cap_delete(bench: Bench) -> None:
    writer = four_files(bench, settings(keep_days=1.0))
    assert upkeep(bench, writer) == ALL
    bench.clock.sleep_s(86_400 - 150)
    assert upkeep(bench, writer) == ALL[2:]
    bench.clock.lose_synchronisation()
    bench.clock.step_s(1e6)
    assert upkeep(bench, writer) == ALL[2:], "nobody knows how old it is"


def test_unshipped_rows_are_kept_beyond_their_age(bench: Bench, tmp_path: Path) -> None:
    writer = four_files(bench, settings(keep_days=0.0, keep_confirmed_days=0.0, sinks=("lab",)))
    shipped(tmp_path, lab=1)
    assert upkeep(bench, writer) == ALL[1:]


def confirmed(state: Path, wall_ns: int, **cursors: int) -> None:
    """Record the cursors' positions, as the shipper does once a day."""
    shipped(state, **cursors)
    with sqlite3.connect(state / "ship.db") as connection:
        connection.execute(
            "CREATE TABLE IF NOT EXISTS confirmed(sink TEXT, collector TEXT, day INTEGER, seq INTEGER, wall_ns INTEGER)"
        )
        rows = [(sink, wall_ns // DAY_NS, seq, wall_ns) for sink, seq in cursors.items()]
        connection.executemany("INSERT INTO confirmed VALUES (?, 'load', ?, ?, ?)", rows)
    connection.close()


def test_confirmed_rows_are_kept_for_days_after_their_confirmation(bench: Bench, tmp_path: Path) -> None:
    """A database can lose what it has acknowledged; a backlog that was confirmed just now may be old."""
    writer = four_files(bench, settings(keep_days=1.0, keep_confirmed_days=14.0, sinks=("lab", "office")))
    bench.clock.sleep_s(30 * 86_400)
    look = bench.clock.look()
    confirmed(tmp_path, look.boottime_ns + look.offset_ns, lab=3, office=1)
    assert upkeep(bench, writer) == ALL, "confirmed just now"
    bench.clock.sleep_s(15 * 86_400)
    assert upkeep(bench, writer) == ALL[1:], "office has had file 1 for 15 days, and has not more"
    assert bench.events[-1][1].endswith("older than keep_days")


def test_a_full_disk_deletes_no_more_confirmed_files_than_needed(bench: Bench, tmp_path: Path) -> None:
    writer = four_files(bench, settings(sinks=("lab",)))
    shipped(tmp_path, lab=3)
    writer.make_room()
    assert [p.name for p in journal_files(bench.directory)] == ALL[1:]


def test_shipped_files_are_deleted_before_the_next_commit_when_the_disk_is_low(bench: Bench, tmp_path: Path) -> None:
    writer = four_files(bench, settings(sinks=("lab",), min_free_mib=2.0**40))
    shipped(tmp_path, lab=2)
    bench.write(writer)
    assert [p.name for p in journal_files(bench.directory)] == ALL[2:]
