"""The committer never blocks the sampler, bounds and reports losses, and stops quickly."""

from __future__ import annotations

import errno
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from collectors.errors import JournalLocked, JournalNewer, JournalReadOnly
from collectors.host.clock import FakeClock, SystemClock
from collectors.journal.backlog import Backlog, EventAt, Row
from collectors.journal.committer import Committer
from collectors.journal.reader import JournalReader
from collectors.journal.schema import journal_files
from collectors.journal.settings import JournalSettings
from collectors.journal.writer import JournalWriter
from collectors.reading import Event, Reading
from tests.testing.journal import column, fill, read_all

TAGS = {"bench": "b1", "device": "load"}
FAST = JournalSettings(commit_window_s=0.02, ballast_mib=0.0, min_free_mib=0.0)


def eventually(holds: Callable[[], bool], patience_s: float = 20.0) -> None:
    end_s = time.monotonic() + patience_s
    while not holds():
        assert time.monotonic() < end_s, "did not come true in time"
        time.sleep(0.01)


@pytest.fixture
def committers() -> Iterator[Callable[..., Committer]]:
    made: list[Committer] = []

    def make(state: Path, settings: JournalSettings = FAST) -> Committer:
        made.append(Committer(state, "load", TAGS, settings, SystemClock()))
        return made[-1]

    yield make
    for committer in made:
        if committer.failure is None:
            committer.stop(10.0)


def test_readings_and_events_are_committed_within_the_window(
    committers: Callable[..., Committer], tmp_path: Path
) -> None:
    committer = committers(tmp_path)
    committer.start()
    committer.put(Reading("battery", 100, {"voltage_v": 13.2, "current_a": None}))
    committer.put(Reading("cell", 100, {"voltage_v": 3.3}, {"cell": "2"}))
    committer.put(Reading("battery", 200, {}))
    committer.put(Event("link_down", "tty gone"))
    eventually(lambda: committer.queue_rows == 0 and committer.acknowledged_seq == 3)
    reader = JournalReader(tmp_path / "load")
    chunks = read_all(reader)
    assert [dict(c.stream.tags) for c in chunks] == [TAGS, {**TAGS, "cell": "2"}]
    assert [column(c, "voltage_v") for c in chunks] == [[13.2], [3.3]]
    assert column(chunks[0], "current_a") == []
    assert [e.kind for e in reader.events_after(0)] == ["link_down"]
    assert reader.events_after(0)[0].boottime_ns > 200, "an event without a stamp happened now"
    assert committer.failure is None
    assert committer.disk_free_bytes > 0


def test_a_stop_commits_everything(committers: Callable[..., Committer], tmp_path: Path) -> None:
    committer = committers(tmp_path, JournalSettings(commit_window_s=60.0, ballast_mib=0.0))
    committer.start()
    for i in range(1000):
        committer.put(Reading("battery", i + 1, {"voltage_v": float(i)}))
    committer.stop(10.0)
    values = [v for c in read_all(JournalReader(tmp_path / "load")) for v in column(c, "voltage_v")]
    assert values == [float(i) for i in range(1000)]
    assert committer.queue_rows == 0


def test_a_large_queue_is_committed_before_the_window_is_over(
    committers: Callable[..., Committer], tmp_path: Path
) -> None:
    committer = committers(tmp_path, JournalSettings(commit_window_s=60.0, commit_bytes=1024, ballast_mib=0.0))
    committer.start()
    for i in range(100):
        committer.put(Reading("battery", i + 1, {"voltage_v": float(i)}))
    eventually(lambda: committer.acknowledged_seq > 0)


def test_commits_begin_one_window_apart_however_long_each_takes(tmp_path: Path) -> None:
    """So a sample that just missed a commit is on the disk after one window and one commit."""
    clock = FakeClock(100 * 10**9)
    committer = Committer(tmp_path, "load", TAGS, JournalSettings(commit_window_s=1.0), clock)
    began_s = clock.monotonic_s()
    clock.sleep_s(0.3)
    assert committer._rest_of_window_s(began_s) == pytest.approx(0.7)
    clock.sleep_s(5.0)
    assert committer._rest_of_window_s(began_s) == 0.0


def test_a_stopped_journal_is_readable_without_write_access(
    committers: Callable[..., Committer], tmp_path: Path
) -> None:
    committer = committers(tmp_path)
    committer.start()
    committer.put(Reading("battery", 1, {"voltage_v": 1.0}))
    committer.stop(10.0)
    (path,) = journal_files(tmp_path / "load")
    assert sorted(p.name for p in path.parent.iterdir()) == [path.name, "lock"]
    connection = sqlite3.connect(f"{path.as_uri()}?immutable=1", uri=True)
    assert connection.execute("SELECT count(*) FROM hot").fetchone() == (1,)
    connection.close()


def test_a_journal_that_cannot_be_opened_is_an_error_at_the_start(
    committers: Callable[..., Committer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = committers(tmp_path)
    first.start()
    with pytest.raises(JournalLocked):
        committers(tmp_path).start()
    first.stop(10.0)
    with sqlite3.connect(journal_files(tmp_path / "load")[0]) as connection:
        connection.execute("PRAGMA user_version=9")
    connection.close()
    with pytest.raises(JournalNewer):
        committers(tmp_path).start()
    (tmp_path / "file").write_text("")
    with pytest.raises(Exception, match="file"):
        committers(tmp_path / "file").start()


def test_commits_are_retried_while_the_disk_cannot_be_written(
    committers: Callable[..., Committer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("collectors.journal.committer.RETRY_S", 0.02)
    committer = committers(tmp_path)
    committer.start()
    for error in (JournalReadOnly("remounted read-only"), JournalLocked("a shell has it"), OSError(errno.EIO, "no")):
        with monkeypatch.context() as patch:
            patch.setattr(JournalWriter, "commit", raising(error))
            committer.put(Reading("battery", 1, {"voltage_v": 1.0}))
            eventually(lambda: committer.trouble != "")
            assert committer.queue_rows == 1
        eventually(lambda: committer.trouble == "")
        eventually(lambda: committer.queue_rows == 0)
    assert committer.failure is None
    committer.stop(10.0)
    kinds = [e.kind for e in JournalReader(tmp_path / "load").events_after(0)]
    assert kinds == ["disk_error", "disk_error_over"] * 3


def raising(error: Exception) -> Callable[..., int]:
    """Return a function that raises this for any arguments."""

    def fail(*_: object) -> int:
        raise error

    return fail


def test_a_bug_ends_the_thread_with_a_traceback(
    committers: Callable[..., Committer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    traces: list[threading.ExceptHookArgs] = []
    monkeypatch.setattr(threading, "excepthook", traces.append)
    committer = committers(tmp_path)
    committer.start()
    monkeypatch.setattr(JournalWriter, "commit", lambda *_: 1 / 0)
    committer.put(Reading("battery", 1, {"voltage_v": 1.0}))
    eventually(lambda: bool(traces))
    assert isinstance(committer.failure, ZeroDivisionError)
    with pytest.raises(ZeroDivisionError):
        committer.stop(10.0)


def test_a_file_that_was_deleted_is_noticed_and_replaced(committers: Callable[..., Committer], tmp_path: Path) -> None:
    committer = committers(tmp_path)
    committer.start()
    committer.put(Reading("battery", 1, {"voltage_v": 1.0}))
    eventually(lambda: committer.acknowledged_seq >= 1)
    journal_files(tmp_path / "load")[0].unlink()
    committer.put(Reading("battery", 2, {"voltage_v": 2.0}))
    eventually(lambda: committer.queue_rows == 0)
    committer.stop(10.0)
    reader = JournalReader(tmp_path / "load")
    assert committer.failure is None
    assert [v for c in read_all(reader) for v in column(c, "voltage_v")] == [2.0]
    assert "was moved or deleted" in reader.events_after(0)[0].detail


def test_a_full_disk_keeps_rows_in_memory_then_drops_and_counts_and_recovers(
    committers: Callable[..., Committer], small_disk: Path
) -> None:
    settings = JournalSettings(commit_window_s=0.02, ballast_mib=0.25, min_free_mib=0.0, queue_mib=0.5)
    committer = committers(small_disk, settings)
    committer.start()
    filler = fill(small_disk)
    put = 0
    while committer.dropped < 10:
        for _ in range(100):
            put += 1
            committer.put(Reading("battery", put, {"voltage_v": float(put)}))
        time.sleep(0.002)
    assert committer.failure is None
    filler.unlink()
    eventually(lambda: committer.queue_rows == 0)
    committer.stop(10.0)
    reader = JournalReader(small_disk / "load")
    found = [v for c in read_all(reader, 100_000) for v in column(c, "voltage_v")]
    events = reader.events_after(0)
    assert len(found) == len(set(found)) == put - committer.dropped
    assert {"disk_full", "disk_full_over", "samples_dropped"} <= {e.kind for e in events}
    assert sum(int(e.detail.split()[0]) for e in events if e.kind == "samples_dropped") == committer.dropped


def test_the_backlog_drops_the_oldest_of_the_largest_series() -> None:
    backlog = Backlog(limit_bytes=10 * 206)
    for i in range(12):
        backlog.put_row(("battery", "big"), Row(i, {"v": 1.0}))
        if i < 2:
            backlog.put_row(("battery", "small"), Row(i, {"v": 1.0}))
    assert (backlog.rows, backlog.dropped) == (10, 4)
    work = backlog.take()
    assert [r.boottime_ns for r in work.rows["battery", "big"]] == [4, 5, 6, 7, 8, 9, 10, 11]
    assert len(work.rows["battery", "small"]) == 2
    assert [(e.kind, e.detail.split(":")[0]) for e in work.events] == [
        ("samples_dropped", "4 rows of battery big from boottime 0 to 3 ns")
    ]


def test_rows_of_a_failed_commit_come_first_and_are_never_dropped_during_a_commit() -> None:
    backlog = Backlog(limit_bytes=10 * 206)
    for i in range(8):
        backlog.put_row(("m", ""), Row(i, {"v": 1.0}))
    backlog.put_event(EventAt(1, "a", ""))
    work = backlog.take()
    for i in range(8, 16):
        backlog.put_row(("m", ""), Row(i, {"v": 1.0}))
    assert len(work.rows["m", ""]) == 8
    backlog.put_event(EventAt(2, "b", ""))
    backlog.give_back()
    again = backlog.take()
    stamps = [r.boottime_ns for r in again.rows["m", ""]]
    assert stamps == sorted(stamps)
    assert stamps[:2] == [0, 1], "rows in work are not dropped for new ones"
    assert [e.kind for e in again.events][:2] == ["a", "b"]
    backlog.done()
    assert (backlog.rows, backlog.fill, backlog.payload_bytes) == (0, 0.0, 0)


def test_events_are_bounded_and_their_loss_is_an_event() -> None:
    backlog = Backlog(1000)
    for i in range(1003):
        backlog.put_event(EventAt(i, "x", str(i)))
    events = backlog.take().events
    assert (events[0].detail, events[-1].kind, events[-1].boottime_ns) == ("3", "events_dropped", 2)
    assert events[-1].detail.startswith("3 events x from boottime 0 to 2 ns: ")


def test_a_collector_stays_small() -> None:
    code = (
        "import sys; from collectors.host.clock import SystemClock; from collectors.journal.committer import Committer;"
        "print([m for m in ('asyncio', 'ssl', 'pandas', 'rich', 'pyarrow') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"
