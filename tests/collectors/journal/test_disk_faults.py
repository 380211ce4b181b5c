"""A disk that is full or fails: every row is committed or reported as lost, and memory stays bounded."""

from __future__ import annotations

import errno
import os
import random
import shutil
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collectors.errors import JournalError
from collectors.host.clock import SystemClock
from collectors.journal import committer as committer_module
from collectors.journal import held_losses, recovery
from collectors.journal.active_file import ActiveFile
from collectors.journal.backlog import MOST_EVENTS, MOST_SERIES, OTHERS, Backlog, EventAt, Key, Loss, Losses, Row
from collectors.journal.committer import Committer
from collectors.journal.held_losses import Held
from collectors.journal.reader import JournalReader
from collectors.journal.records import EventRecord
from collectors.journal.schema import FileSuspect, bad_files
from collectors.journal.settings import JournalSettings
from collectors.journal.writer import JournalWriter
from collectors.reading import Event, Reading
from tests.testing.journal import QUIET, Bench, column, event, fill, read_all, rows

FAST = JournalSettings(commit_window_s=0.01, ballast_mib=0.0, min_free_mib=0.0)
FAULTS = Path(__file__).parents[2] / "disk_faults" / "disk_faults.c"
FAULTY_WRITER = Path(__file__).with_name("faulty_writer.py")
ROWS = 792
ROW_COST = 206
"""What the backlog counts for a row with one value."""
DAY_S = 86_400


def found(state: Path) -> list[float]:
    """Return the values of all rows in the journal."""
    return [v for chunk in read_all(JournalReader(state / "load"), 100_000) for v in column(chunk, "voltage_v")]


def events(state: Path) -> list[EventRecord]:
    return JournalReader(state / "load").events_after(0, 100_000)


def told_lost(state: Path, measurement: str = "battery") -> int:
    """Return how many rows the journal's events report as lost."""
    return sum(
        int(e.detail.split()[0])
        for e in events(state)
        if e.kind == "samples_dropped" and f"rows of {measurement} " in e.detail
    )


def collect(state: Path, settings: JournalSettings = FAST) -> Committer:
    return Committer(state, "load", {"device": "load"}, settings, SystemClock())


def restart(state: Path) -> None:
    """Let another run of the collector report what the run before left, and recover what it can."""
    committer = collect(state)
    committer.start()
    end_s = time.monotonic() + 60
    while bad_files(state / "load"):
        assert time.monotonic() < end_s, "salvage does not end"
        time.sleep(0.01)
    committer.stop(20.0)


# the backlog


def test_a_day_on_a_full_disk_is_one_loss_per_series_and_loses_no_rare_event() -> None:
    series: list[Key] = [("battery", f'{{"battery":"{n}"}}') for n in range(4)]
    backlog, put = Backlog(4 * 20 * ROW_COST), 0
    backlog.put_event(EventAt(5, "link_down", "unplugged"))
    backlog.put_event(EventAt(6, "disk_full", "no space"))
    for second in range(DAY_S):
        for key in series:
            backlog.put_row(key, Row(second, {"voltage_v": 1.0}))
            put += 1
        if second % 10 == 0:
            backlog.put_event(EventAt(second, "slots_skipped", "1 slots passed"))
        backlog.take()
        backlog.give_back()
    work = backlog.take()
    lost = [e for e in work.events if e.kind == "samples_dropped"]
    assert len(lost) == len(series)
    assert sum(int(e.detail.split()[0]) for e in lost) + sum(map(len, work.rows.values())) == put
    assert all(" from boottime 0 to " in e.detail for e in lost)
    assert len(work.events) <= MOST_EVENTS + len(series) + 1
    assert [e.kind for e in work.events[:2]] == ["link_down", "disk_full"], "many events of one kind push out no other"
    (dropped,) = [e for e in work.events if e.kind == "events_dropped"]
    assert int(dropped.detail.split()[0]) + sum(e.kind == "slots_skipped" for e in work.events) == DAY_S / 10
    assert dropped.detail.split()[1:3] == ["events", "slots_skipped"]


STEPS = st.lists(st.sampled_from(["row", "row", "row", "other", "event", "take", "done", "give_back"]), max_size=200)


@settings(max_examples=200, deadline=None)
@given(STEPS)
def test_every_row_is_committed_waiting_or_lost_and_no_range_runs_backwards(steps: list[str]) -> None:
    backlog, put, committed, busy = Backlog(5 * ROW_COST), 0, 0, False
    told: list[EventAt] = []
    for now, step in enumerate([*steps, "give_back", "take", "done"]):
        if step in ("row", "other"):
            backlog.put_row((step, ""), Row(now, {"v": 1.0}))
            put += 1
        elif step == "event":
            backlog.put_event(EventAt(now, "x", ""))
        elif step == "take" and not busy:
            work, busy = backlog.take(), True
        elif step == "done" and busy:
            backlog.done()
            committed, busy = committed + sum(map(len, work.rows.values())), False
            told += [e for e in work.events if e.kind == "samples_dropped"]
        elif step == "give_back" and busy:
            backlog.give_back()
            busy = False
        outstanding = backlog.outstanding()
        lost = sum(int(e.detail.split()[0]) for e in told)
        assert committed + lost + outstanding.row_count == put
    for loss in told:
        words = loss.detail.split(":")[0].split()
        first_ns, last_ns = int(words[-4]), int(words[-2])
        assert 0 <= first_ns <= last_ns == loss.boottime_ns


def test_losses_of_more_series_than_are_kept_apart_are_one_loss() -> None:
    losses = Losses()
    for n in range(MOST_SERIES + 50):
        losses.add_rows(("cell", str(n)), Loss(2, n, n + 1))
    assert len(losses.rows) == MOST_SERIES + 1
    assert losses.rows[OTHERS] == Loss(100, MOST_SERIES, MOST_SERIES + 50)
    assert losses.row_count == 2 * (MOST_SERIES + 50)


# the report of the next start

LOSSES = st.builds(Loss, st.integers(1, 2**40), st.integers(0, 2**60), st.integers(0, 2**60))
TEXTS = st.text(max_size=30)


@settings(max_examples=60, deadline=None)
@given(
    st.dictionaries(st.tuples(TEXTS, TEXTS), LOSSES, max_size=MOST_SERIES),
    st.dictionaries(TEXTS, LOSSES, max_size=20),
    st.lists(st.builds(EventAt, st.integers(0, 2**60), TEXTS, st.text(max_size=300), st.just(""), TEXTS), max_size=50),
    st.dictionaries(st.text("j-0123456789.db", min_size=14, max_size=14), st.integers(0, 2**62), max_size=99),
)
def test_a_record_has_a_fixed_size_and_holds_all_counts(
    rows_lost: dict[Key, Loss], events_lost: dict[str, Loss], earlier: list[EventAt], uptos: dict[str, int]
) -> None:
    record = Held("boot", 1, 2, "disk full " * 99, Losses(rows_lost, events_lost), True, uptos, tuple(earlier))
    text = record.text()
    assert len(text) == held_losses.SIZE
    read = held_losses.parse(text)
    assert read is not None
    assert read.losses.row_count == record.losses.row_count
    assert read.losses.event_count + len(read.earlier) == record.losses.event_count + len(earlier)
    assert (read.id, read.is_final) == (record.id, True)


def test_an_incomplete_record_is_none(tmp_path: Path) -> None:
    record = Held("boot", 1, 2, "why", Losses({("battery", "{}"): Loss(3, 1, 2)}), True)
    assert held_losses.read(tmp_path) is None
    held_losses.reserve(tmp_path)
    assert (tmp_path / held_losses.NAME).stat().st_size == held_losses.SIZE
    assert held_losses.read(tmp_path) is None
    held_losses.write(tmp_path, record)
    assert held_losses.read(tmp_path) == record
    text = record.text()
    for torn in (
        text[:40],
        text[:40].ljust(held_losses.SIZE),
        b"\xff" + text,
        b"[]",
        b"{}",
        b"[" * held_losses.SIZE,
        b'{"rows":[1]}',
    ):
        (tmp_path / held_losses.NAME).write_bytes(torn)
        assert held_losses.read(tmp_path) is None
    held_losses.write(tmp_path, record)
    held_losses.clear(tmp_path)
    assert held_losses.read(tmp_path) is None


def test_a_killed_run_is_reported_once_with_its_committed_rows(bench: Bench) -> None:
    first = bench.open()
    first.begin_run()
    bench.write(first, 3)
    newest_ns = bench.clock.boottime_ns()
    first.commit(rows({"voltage_v": 4.0}, newest_ns + 1, measurement="load"))
    bench.kill(first)
    bench.clock.boot_id = "next-boot"
    for _ in range(2):
        writer = bench.open()
        writer.begin_run()
        writer.commit(event("collector_start"))
        writer.end_run()
        bench.close(writer)
    told = [e for e in bench.reader.events_after(0) if e.kind == "run_cut_off"]
    assert [(e.boot_id, e.boottime_ns) for e in told] == [("fake-boot", newest_ns + 1)]
    assert f"committed up to boottime {newest_ns + 1} ns" in told[0].detail


def test_a_run_that_ended_cleanly_reports_nothing_and_leaves_no_file(tmp_path: Path) -> None:
    for _ in range(2):
        committer = collect(tmp_path)
        committer.start()
        committer.put(Reading("battery", 1, {"voltage_v": 1.0}))
        committer.stop(20.0)
    assert events(tmp_path) == [] or {e.kind for e in events(tmp_path)} == {"late_rows"}
    assert sorted(p.name for p in (tmp_path / "load").iterdir()) == ["j-00000001.db", "lock"]


def test_no_other_process_ends_the_run_of_a_killed_collector(bench: Bench) -> None:
    first = bench.open()
    first.begin_run()
    bench.write(first)
    bench.kill(first)
    other = bench.open()  # as `collectors clock set` does
    other.commit(event("x"))
    bench.close(other)
    writer = bench.open()
    writer.begin_run()
    writer.commit(event("collector_start"))
    assert [e.kind for e in bench.reader.events_after(0)] == ["x", "run_cut_off", "collector_start"]


def test_the_run_record_is_carried_over_a_roll_over(bench: Bench) -> None:
    first = bench.open()
    first.begin_run()
    bench.write(first)
    first.roll()
    bench.write(first)
    bench.kill(first)
    writer = bench.open()
    writer.begin_run()
    writer.commit(event("collector_start"))
    writer.end_run()
    bench.close(writer)
    assert [e.kind for e in bench.reader.events_after(0)].count("run_cut_off") == 1


# a full disk


def test_a_stop_on_a_full_disk_reports_the_loss_and_the_next_start_records_it(small_disk: Path) -> None:
    committer = collect(small_disk)
    committer.start()
    for k in range(100):
        committer.put(Reading("battery", SystemClock().boottime_ns(), {"voltage_v": float(k)}))
    eventually_committed(committer)
    filler = fill(small_disk)
    put = 100
    while not committer.trouble:
        committer.put(Reading("battery", SystemClock().boottime_ns(), {"voltage_v": float(put)}))
        put += 1
        time.sleep(0.001)
    committer.put(Event("collector_stop", "asked to stop"))
    waiting = committer.queue_rows
    with pytest.raises(JournalError, match=f"{waiting} readings and 2 events are lost; the next start tells of it"):
        committer.stop(20.0)
    assert put - waiting == len(found(small_disk))
    filler.unlink()
    restart(small_disk)
    assert told_lost(small_disk) == waiting
    kinds = Counter(e.kind for e in events(small_disk))
    assert kinds == {"samples_dropped": 1, "events_dropped": 2}
    restart(small_disk)
    assert Counter(e.kind for e in events(small_disk)) == kinds, "it is told once"


def test_a_journal_without_space_to_begin_is_not_reported_as_a_memory_error(small_disk: Path) -> None:
    fill(small_disk)
    with pytest.raises(JournalError, match=r"disk full .*; nothing is collected before there is space"):
        collect(small_disk).start()


def eventually_committed(committer: Committer) -> None:
    end_s = time.monotonic() + 20
    while committer.queue_rows:
        assert time.monotonic() < end_s
        time.sleep(0.005)


def test_the_ballast_suffices_to_commit_the_queue_at_a_stop(small_disk: Path) -> None:
    committer = collect(small_disk, JournalSettings(commit_window_s=60.0, ballast_mib=0.25, min_free_mib=0.0))
    committer.start()
    filler = fill(small_disk)
    for k in range(500):
        committer.put(Reading("battery", SystemClock().boottime_ns(), {"voltage_v": float(k)}))
    committer.stop(20.0)
    filler.unlink()
    assert found(small_disk) == [float(k) for k in range(500)]
    assert "disk_full_over" in {e.kind for e in events(small_disk)}


def test_a_collector_killed_on_a_full_disk_has_recorded_its_queue(
    small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(committer_module, "NOTE_S", 0.0)
    monkeypatch.setattr(committer_module, "RETRY_S", 0.01)
    committer = collect(small_disk)
    committer.start()
    committer.put(Reading("battery", SystemClock().boottime_ns(), {"voltage_v": 0.0}))
    eventually_committed(committer)
    filler = fill(small_disk)
    put = 1
    while (record := held_losses.read(small_disk / "load")) is None or record.losses.row_count < 50:
        committer.put(Reading("battery", SystemClock().boottime_ns(), {"voltage_v": float(put)}))
        put += 1
        time.sleep(0.001)
    killed = small_disk / "killed"
    filler.unlink()
    shutil.copytree(small_disk / "load", killed / "load")
    eventually_committed(committer)
    committer.stop(20.0)
    restart(killed)
    kinds = Counter(e.kind for e in events(killed))
    assert kinds["run_cut_off"] == 1
    assert told_lost(killed) >= 50
    assert told_lost(killed) + len(found(killed)) <= put
    assert told_lost(small_disk) == 0, "what was committed at last is not told as lost"


def test_losses_that_could_not_be_reported_at_one_start_are_reported_at_a_later_one(bench: Bench) -> None:
    record = Held("boot-1", 1, 2, "full", Losses({("battery", "{}"): Loss(7, 1, 2)}), True)
    bench.close(bench.open())
    held_losses.write(bench.directory, record)
    second = bench.open()
    second.begin_run()
    assert second.note_held(Losses({("battery", "{}"): Loss(5, 8, 9)}), 8, "still full", is_final=True)
    bench.close(second)
    third = bench.open()
    third.begin_run()
    third.commit(event("collector_start"))
    third.end_run()
    told = [(e.boot_id, e.detail.split()[0]) for e in bench.reader.events_after(0) if e.kind == "samples_dropped"]
    assert told == [("boot-1", "7"), ("fake-boot", "5")]


# I/O errors


@pytest.mark.parametrize("seed", range(3))
def test_errors_in_one_of_ten_commits_and_new_files_lose_nothing_silently(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    monkeypatch.setattr(committer_module, "RETRY_S", 0.01)
    chance, on = random.Random(seed), [False]
    commit, begin = ActiveFile.commit, JournalWriter._begin

    def commit_or_fail(live: ActiveFile, *arguments: object) -> int:
        when = chance.random() if on[0] else 1.0
        if when < 0.05:
            raise FileSuspect(f"{live.path}: disk I/O error", live.path)
        seq: int = commit(live, *arguments)  # type: ignore[arg-type]
        if when < 0.1:  # the error came after the rows were in the file
            live.acknowledged = acknowledged[0]
            raise FileSuspect(f"{live.path}: disk I/O error", live.path)
        acknowledged[0] = seq
        return seq

    def begin_or_fail(writer: JournalWriter, first_seq: int) -> ActiveFile:
        if on[0] and chance.random() < 0.3:
            raise OSError(errno.EIO, "Input/output error")
        return begin(writer, first_seq)

    acknowledged = [0]
    monkeypatch.setattr(ActiveFile, "commit", commit_or_fail)
    monkeypatch.setattr(JournalWriter, "_begin", begin_or_fail)
    committer = collect(tmp_path)
    committer.start()
    on[0] = True
    for k in range(ROWS):
        committer.put(Reading("battery", SystemClock().boottime_ns(), {"voltage_v": float(k)}))
        time.sleep(0.001)
    on[0] = False
    committer.stop(20.0)
    restart(tmp_path)
    assert sorted(found(tmp_path)) == [float(k) for k in range(ROWS)], f"seed {seed}"
    assert told_lost(tmp_path) == 0
    assert "file_quarantined" in {e.kind for e in events(tmp_path)}


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the library that makes system calls fail."""
    compiler = shutil.which("cc")
    if compiler is None or not sys.platform.startswith("linux"):
        pytest.skip("no C compiler (cc) to build the library with that makes the disk fail")
    path = tmp_path_factory.mktemp("faults") / "libdiskfaults.so"
    subprocess.run(
        [compiler, "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-o", str(path), str(FAULTS), "-ldl"], check=True
    )
    return path


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize(
    ("number", "per_mille"),
    [(errno.EIO, 10), (errno.EIO, 100), (errno.ENOSPC, 30)],
    ids=["EIO 1 %", "EIO 10 %", "full"],
)
def test_every_row_is_committed_or_reported_as_lost_when_system_calls_fail(
    library: Path, tmp_path: Path, number: int, per_mille: int, seed: int
) -> None:
    state, control = tmp_path / "state", tmp_path / "control"
    state.mkdir()
    environment = os.environ | {
        "LD_PRELOAD": str(library), "DISK_FAULTS_FOLDER": str(state), "DISK_FAULTS_CONTROL": str(control),
        "DISK_FAULTS_SEED": str(seed),
    }  # fmt: skip
    command = [sys.executable, str(FAULTY_WRITER), str(state), str(control), f"{number} {per_mille}", str(ROWS), "0"]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode in (0, 74), ended.stderr
    restart(state)
    values = found(state)
    assert all(value in range(ROWS) for value in values)
    assert len(set(values)) + told_lost(state) == ROWS, f"{ended.stdout}{[e.detail for e in events(state)]}"
    if "lost" in ended.stdout:
        assert ended.returncode == 74


def test_a_slice_that_is_unreadable_for_a_while_is_not_lost(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = bench.open()
    bench.write(writer, 5)
    writer.replace_live(FileSuspect("disk I/O error"))
    fail = iter([True] * 3 + [False] * 1000)

    def read_or_fail(path: Path) -> object:
        if next(fail):
            raise recovery.sqlite3.OperationalError("disk I/O error")
        return connect(path)

    connect = recovery.connect_reader
    error = recovery.sqlite3.OperationalError
    monkeypatch.setattr(recovery, "connect_reader", read_or_fail)
    monkeypatch.setattr(recovery, "_is_for_good", lambda found: not isinstance(found, error))
    for _ in range(12):
        writer.upkeep()
        bench.write(writer, 1, value=9.0)
    assert sorted(set(bench.values())) == [1.0, 2.0, 3.0, 4.0, 5.0, 9.0]
    assert [detail for kind, detail in bench.events if kind == "file_salvaged"] == [
        "j-00000001.db.bad-1: 5 points copied, nothing was lost"
    ]


def test_recovered_rows_are_recovered_again_when_the_next_file_fails_too(bench: Bench) -> None:
    writer = bench.open()
    bench.write(writer, 5)
    writer.replace_live(FileSuspect("disk I/O error"))
    writer.upkeep()
    writer.replace_live(FileSuspect("disk I/O error again"))
    for _ in range(12):
        writer.upkeep()
    assert bench.values() == [1.0, 2.0, 3.0, 4.0, 5.0]
    assert bad_files(bench.directory) == []


def test_files_without_an_acknowledged_row_do_not_accumulate(bench: Bench) -> None:
    writer = bench.open()
    bench.write(writer)
    for _ in range(10):
        writer.replace_live(FileSuspect("disk I/O error"))
    assert len(bad_files(bench.directory)) == 1
    assert len(list(bench.directory.glob("j-*.db"))) == 1


def test_an_interrupted_quarantine_is_resumed(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = bench.open()
    bench.write(writer, 3)
    rename, renamed = Path.rename, Counter[str]()

    def rename_or_fail(self: Path, target: Path) -> Path:
        renamed[self.name] += 1
        if self.name.endswith("-wal") and renamed[self.name] == 1:
            raise OSError(errno.EIO, "Input/output error")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", rename_or_fail)
    keep = writer._live.connection
    monkeypatch.setattr(writer._live, "connection", Unclosed(keep))
    with pytest.raises(JournalError):
        writer.replace_live(FileSuspect("disk I/O error"))
    writer.commit(event("x"))
    assert {p.name.split(".bad-")[1] for p in bench.directory.glob("*.bad-*")} >= {"1", "1-wal"}
    for _ in range(12):
        writer.upkeep()
    keep.close()
    assert bench.values() == [1.0, 2.0, 3.0]


class Unclosed:
    """A connection whose process was killed: its WAL stays."""

    def __init__(self, connection: object) -> None:
        self._connection = connection

    def close(self) -> None:
        """Leave the connection open."""

    def __getattr__(self, name: str) -> object:
        return getattr(self._connection, name)


def test_commits_that_failed_but_show_in_the_file_are_not_counted_twice(bench: Bench) -> None:
    writer = bench.open()
    writer.begin_run()
    bench.write(writer, 2)
    upto = writer.seq
    bench.write(writer, 1, value=3.0)
    record = Held("fake-boot", 1, 2, "EIO", Losses({("battery", "{}"): Loss(1, 1, 1)}), True, {"j-00000001.db": upto})
    bench.kill(writer)
    held_losses.write(bench.directory, record)
    again = bench.open(QUIET)
    again.begin_run()
    again.commit(event("collector_start"))
    for _ in range(12):
        again.upkeep()
    assert bench.values() == [1.0, 2.0]
    assert [e.detail.split()[0] for e in bench.reader.events_after(0) if e.kind == "samples_dropped"] == ["1"]
