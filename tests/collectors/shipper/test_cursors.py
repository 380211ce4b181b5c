"""ship.db: cursors may lag but never lead; dead letters are stored once and for a limited time."""

from __future__ import annotations

import sqlite3
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collectors.errors import JournalError, JournalNewer
from collectors.journal.records import ClockStep
from collectors.journal.shipper_state import read_cursors, read_frozen
from collectors.shipper import cursors as module
from collectors.shipper.cursors import BacklogRange, Cursors, Health, ShipStore
from collectors.shipper.retry import Refusal


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ShipStore]:
    opened = ShipStore(tmp_path / "ship.db")
    yield opened
    opened.close()


@given(st.lists(st.tuples(st.sampled_from(["live", "split", "drain", "hold"]), st.integers(1, 8)), max_size=30))
def test_confirmed_cursors_never_lead_the_rows_that_are_done(steps: list[tuple[str, int]]) -> None:
    """Rows are done one by one; a row is done, in a backlog range, or behind `live`."""
    marks, done, held = Cursors(), set[int](), set[int]()
    newest = 0
    for what, count in steps:
        newest += count
        if what == "live":
            done |= set(range(marks.live + 1, marks.live + count + 1))
            marks.advance(None, marks.live + count)
        elif what == "split":
            marks.split(max(newest, marks.live))
        elif what == "hold":
            rows = range(marks.live + 1, marks.live + count + 1)
            marks.advance(None, marks.live + count)
            marks.hold(rows[0], rows[-1], "boot")
            held |= set(rows)
        elif spans := [span for span in marks.spans if span.boot_id is None]:
            span = spans[0]
            upto = min(span.after + count, marks.live)
            done |= set(range(span.after + 1, upto + 1))
            marks.advance(span, upto)
        newest = max(newest, marks.live)
        covered = {row for span in marks.spans for row in range(span.after + 1, span.upto + 1)}
        assert set(range(1, marks.live + 1)) <= done | covered
        assert held <= covered | done
        assert set(range(1, marks.confirmed + 1)) <= done


def test_cursors_and_backlog_ranges_are_saved_atomically_and_readable_by_collectors(store: ShipStore) -> None:
    marks = {"mppt": Cursors(50, [BacklogRange(10, 30), BacklogRange(35, 40, "boot-1")]), "t7": Cursors(7)}
    store.save("lab", marks)
    store.save("cloud", {"mppt": Cursors(5)})
    assert store.marks("lab") == marks
    assert read_cursors(store.path, "mppt") == {"lab": 10, "cloud": 5}
    with ShipStore(store.path) as again:
        assert again.marks("cloud") == {"mppt": Cursors(5)}


def test_a_collector_of_another_user_can_read_cursors_after_the_shipper_ended(tmp_path: Path) -> None:
    closed = ShipStore(tmp_path / "ship.db")
    closed.save("lab", {"mppt": Cursors(9)})
    closed.close()
    assert [path.name for path in tmp_path.iterdir() if path.stat().st_size] == ["ship.db"]
    tmp_path.chmod(stat.S_IRUSR | stat.S_IXUSR)
    try:
        assert read_cursors(tmp_path / "ship.db", "mppt") == {"lab": 9}
    finally:
        tmp_path.chmod(stat.S_IRWXU)


def test_the_first_frozen_offset_is_never_replaced(store: ShipStore) -> None:
    store.freeze("mppt", "boot-1", [ClockStep(0, 111, 1, frozen=True)])
    store.freeze("mppt", "boot-1", [ClockStep(0, 222, 2, frozen=True), ClockStep(5, 333, 2, frozen=True)])
    assert read_frozen(store.path, "mppt") == {
        "boot-1": [ClockStep(0, 111, 1, frozen=True), ClockStep(5, 333, 2, frozen=True)]
    }


def test_a_line_rejected_again_is_one_dead_letter_with_one_more_attempt(store: ShipStore) -> None:
    store.add_dead("lab", "mppt", 3, [Refusal("m v=1 1", 400, "refused", "no")])
    store.add_dead(
        "lab", "mppt", 3, [Refusal("m v=1 1", 422, "refused", "still no"), Refusal("m v=2 2", None, "type", "")]
    )
    store.add_dead("cloud", "mppt", 3, [Refusal("m v=1 1", 400, "refused", "no")])
    assert [(x.sink, x.line, x.status, x.error, x.tries) for x in store.dead()] == [
        ("lab", "m v=1 1", 422, "still no", 2),
        ("lab", "m v=2 2", None, "", 1),
        ("cloud", "m v=1 1", 400, "no", 1),
    ]
    assert store.dead_count("lab") == 2
    assert [x.line for x in store.dead(sink="lab", reason="type")] == ["m v=2 2"]


def test_dead_letters_are_kept_90_days_and_64_mib_and_expired_ones_are_deleted_first(
    store: ShipStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number, reason in enumerate(["refused", "expired", "expired", "refused"]):
        store.add_dead("lab", "mppt", number, [Refusal(f"m v={number} {'x' * 1000}", 400, reason, "")])
    assert store.trim_dead() == 0
    monkeypatch.setattr(module, "DEAD_KEPT_BYTES", 3500)
    assert store.trim_dead() == 1
    assert [(x.seq, x.reason) for x in store.dead()] == [(0, "refused"), (2, "expired"), (3, "refused")]
    monkeypatch.setattr(module, "DEAD_KEPT_DAYS", -1.0)
    assert store.trim_dead() == 3


def test_types_and_health_are_remembered(store: ShipStore) -> None:
    store.set_types("lab", {("battery", "soc"): "f", ("load", "mode"): "i"})
    store.forget_types("lab", "load")
    assert store.types("lab") == {("battery", "soc"): "f"}
    assert store.health("lab") is None
    store.set_health("lab", Health("hold", "401", 17, 5))
    assert store.health("lab") == Health("hold", "401", 17, 5)


def test_a_newer_file_is_not_changed_and_a_bad_folder_is_named(tmp_path: Path) -> None:
    path = tmp_path / "ship.db"
    ShipStore(path).close()
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version=99")
    connection.close()
    before = path.read_bytes()
    with pytest.raises(JournalNewer, match="version 99"):
        ShipStore(path)
    assert path.read_bytes() == before
    with pytest.raises(JournalError, match="not_there"):
        ShipStore(tmp_path / "not_there" / "ship.db")
    path.write_bytes(b"this is no database, but long enough to look at" * 100)
    with pytest.raises(JournalError, match=r"ship\.db"):
        ShipStore(path)
