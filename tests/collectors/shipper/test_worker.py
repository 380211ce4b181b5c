"""Rows from a journal to a sink: none twice, none lost, none before its time is known."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collectors.errors import JournalNewer
from collectors.journal.records import SET_BY_PERSON, SYNCHRONISED, UNSYNCHRONISED, ClockStep
from collectors.shipper.cursors import ShipStore, StoreUnavailable
from collectors.shipper.journal_source import JournalSource
from collectors.shipper.worker import LIVE_LAG, SinkWorker
from tests.testing.memory_sink import OFFSET_NS, TwinJournal, TwinServer

SECOND = 10**9


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ShipStore]:
    opened = ShipStore(tmp_path / "ship.db")
    yield opened
    opened.close()


def courier(
    store: ShipStore, server: TwinServer, *journals: TwinJournal, batch_lines: int = 100, interval_s: float = math.inf
) -> SinkWorker:
    """A worker as it is after a start of the program."""
    made = SinkWorker("lab", store, server, batch_lines=batch_lines, uniform=lambda _low, _high: 0.0)
    made.interval_s = interval_s
    for journal in journals:
        made.add(JournalSource(journal.name, journal, store, "lab", made.types))
    return made


def filled(store: ShipStore, commits: int) -> TwinJournal:
    """A journal whose clock is synchronised, with the given number of commits of one row each."""
    journal = TwinJournal(store.path)
    journal.sync()
    for n in range(commits):
        journal.append([n * SECOND])
    return journal


def test_every_row_and_event_arrives_once(store: ShipStore) -> None:
    journal, server = TwinJournal(store.path), TwinServer()
    journal.sync()
    for n in range(30):
        journal.append([n * SECOND, n * SECOND + 500])
    journal.event(5 * SECOND)
    journal.event(5 * SECOND)
    courier(store, server, journal).run_once()
    assert len(server.points) == journal.rows() == 62
    assert sum(map(len, server.requests)) == 62
    courier(store, server, journal).run_once()
    assert sum(map(len, server.requests)) == 62


def test_a_cursor_never_moves_without_a_204(store: ShipStore) -> None:
    journal = TwinJournal(store.path)
    journal.sync()
    journal.append([SECOND])
    server = TwinServer()
    carried = courier(store, server, journal)

    def lose_the_answer_and_stop(_lines: list[str]) -> str:
        carried.stop.set()
        return "silent"

    server.mood = lose_the_answer_and_stop
    carried.run(0.01)
    assert store.marks("lab")["mppt"].confirmed == 0
    server.mood = lambda _lines: "store"
    courier(store, server, journal).run_once()
    assert server.stamps() == [OFFSET_NS + SECOND]
    assert server.requests[0] == server.requests[1]
    assert store.marks("lab")["mppt"].confirmed == 1


def test_live_rows_go_first_while_a_backlog_drains(store: ShipStore) -> None:
    journal, server = filled(store, 1000), TwinServer()
    carried = courier(store, server, journal)
    assert not carried.live_round()
    assert carried.marks["mppt"].live == 1000
    journal.append([5000 * SECOND])
    assert carried.backlog_turn()
    assert carried.live_round()
    assert OFFSET_NS + 5000 * SECOND in server.stamps()
    assert len(server.points) < 1000
    while carried.backlog_turn():
        pass
    assert not carried.marks["mppt"].spans
    assert carried.marks["mppt"].confirmed == 1001
    assert len(server.points) == 1001


def test_live_rows_wait_for_one_request_of_the_backlog_only(store: ShipStore) -> None:
    journal, server = TwinJournal(store.path), TwinServer()
    journal.sync()
    journal.append([n * SECOND for n in range(1000)])
    for n in range(1, LIVE_LAG + 1):
        journal.append([(1000 + n) * SECOND])
    carried = courier(store, server, journal, interval_s=0.0)
    carried.live_round()  # all of it is backlog now
    live = itertools.count(5000)

    def go_on(_lines: list[str]) -> str:
        if len(server.requests) < 20:
            journal.append([next(live) * SECOND])
        return "store"

    server.mood = go_on
    while carried.backlog_turn():
        pass
    is_live = [
        min(int(line.rpartition(" ")[2]) for line in sent) >= OFFSET_NS + 5000 * SECOND for sent in server.requests
    ]
    assert is_live[:8] == [False, True] * 4, "a window is one block of ten requests"
    while carried.live_round():
        pass
    assert len(server.points) == journal.rows()


def test_rows_that_arrive_during_a_page_are_not_skipped(store: ShipStore) -> None:
    """A page leaves out rows behind the backlog's end, and its cursor passes them: they must not become backlog."""
    journal, server = filled(store, 100), TwinServer()
    carried = courier(store, server, journal, interval_s=0.0)
    carried.live_round()  # 1..100 are a backlog now
    for n in range(100, 110):
        journal.append([n * SECOND])  # behind its end, in the same page

    def grow(_lines: list[str]) -> str:
        if len(server.requests) == 1:
            for n in range(110, 110 + 2 * LIVE_LAG):
                journal.append([n * SECOND])
        return "store"

    server.mood = grow
    carried.backlog_turn()
    carried.run_once()
    assert len(server.points) == journal.rows() == 110 + 2 * LIVE_LAG


def test_a_block_that_joins_backlog_and_live_rows_is_not_skipped(store: ShipStore) -> None:
    journal, server = TwinJournal(store.path), TwinServer()
    journal.sync()
    for n in range(50):
        journal.append([n])
    for n in range(50):
        journal.append([100 + n], measurement="load")
    carried = courier(store, server, journal, batch_lines=20)
    carried.live_round()  # 1..100 are a backlog now
    for n in range(50):
        journal.append([200 + n], measurement="solar")
        journal.append([300 + n], measurement="load")
        carried.live_round()
    assert len(server.points) == 100
    journal.compact()  # battery 1..50, solar 101..199, load 51..200: begins in the backlog, ends last
    while carried.backlog_turn():
        pass
    assert len(server.points) == journal.rows() == 200


def test_a_crash_in_the_middle_of_a_backlog_costs_only_a_resend(store: ShipStore) -> None:
    journal, server = filled(store, 1000), TwinServer()
    crashed = courier(store, server, journal)
    crashed.live_round()
    crashed.backlog_turn()
    crashed.save()
    crashed.backlog_turn()  # confirmed, but not saved
    again = courier(store, server, journal)
    assert again.marks["mppt"].live == 1000
    assert again.marks["mppt"].confirmed == 200
    again.run_once()
    assert len(server.points) == 1000


def test_rows_without_a_clock_wait_and_later_rows_do_not_wait_for_them(store: ShipStore) -> None:
    journal, server = TwinJournal(store.path), TwinServer()
    journal.sync("boot-1", state=UNSYNCHRONISED)
    journal.append([SECOND, 2 * SECOND], boot_id="boot-1")
    journal.event(SECOND, boot_id="boot-1")
    journal.sync("boot-2")
    journal.append([SECOND], boot_id="boot-2")
    carried = courier(store, server, journal)
    carried.run_once()
    assert server.stamps() == [OFFSET_NS + SECOND]
    assert carried.marks["mppt"].confirmed == 0
    asked = len(server.requests)
    carried.run_once()
    assert len(server.requests) == asked
    journal.sync("boot-1", 3 * SECOND, 0, SET_BY_PERSON)
    carried.run_once()
    assert server.stamps() == [SECOND, SECOND + 2, 2 * SECOND, OFFSET_NS + SECOND]
    told = [
        fields.get("clock_state") for (measurement, *_), fields in server.points.items() if measurement == "battery"
    ]
    assert told == [None, 2.0, 2.0]
    assert carried.marks["mppt"].confirmed == 3


def test_an_offset_that_was_shipped_never_changes_again(store: ShipStore) -> None:
    journal, server = TwinJournal(store.path), TwinServer()
    journal.sync()
    journal.append([SECOND])
    courier(store, server, journal).live_round()  # confirmed, but never saved: it will be sent again
    journal.steps["boot-1"] = [ClockStep(0, OFFSET_NS + 777, SYNCHRONISED, frozen=False)]
    courier(store, server, journal).run_once()
    assert server.stamps() == [OFFSET_NS + SECOND]
    assert len(server.requests) == 2


def test_rejected_lines_are_kept_with_the_servers_message_and_delay_nothing(store: ShipStore) -> None:
    journal, server = TwinJournal(store.path), TwinServer()
    journal.sync()
    for n in range(50):
        journal.append([n])
    server.refuses = lambda line: "unable to parse" if line.endswith("17") else None
    carried = courier(store, server, journal)
    carried.run_once()
    (letter,) = store.dead()
    assert (letter.seq, letter.status, letter.error, letter.collector) == (
        18,
        400,
        '{"error": "unable to parse"}',
        "mppt",
    )
    assert letter.line.startswith("battery,device=mppt value=17.0 ")
    assert len(server.points) == 49
    assert carried.marks["mppt"].confirmed == 50


def test_lines_that_bisection_could_not_isolate_are_sent_one_by_one(store: ShipStore) -> None:
    journal, server = TwinJournal(store.path), TwinServer()
    journal.sync()
    journal.append(range(1000))
    server.refuses = lambda line: "no" if int(line.rpartition(" ")[2]) % 2 else None
    carried = courier(store, server, journal, batch_lines=1000)
    carried.run_once()
    assert len(store.dead(reason="refused")) == 500
    assert not store.dead(reason="unsorted")
    assert len(server.points) == 500


def test_a_field_of_another_type_is_rejected_without_a_request(store: ShipStore) -> None:
    journal, server = TwinJournal(store.path), TwinServer()
    journal.sync()
    journal.append([1])
    journal.append([2], kind="i")
    courier(store, server, journal).run_once()
    assert server.requests == [[f"battery,device=mppt value=1.0 {OFFSET_NS + 1}"]]
    (letter,) = store.dead()
    assert letter.reason == "type"
    assert letter.error == "field 'value' of 'battery' is integer, lab has it as float"


def test_the_servers_field_type_is_learnt_from_its_rejection(store: ShipStore) -> None:
    journal, server = TwinJournal(store.path), TwinServer()
    journal.sync()
    journal.append([1])
    words = 'partial write: field type conflict: input field "value" on measurement "battery" is type float, '
    server.refuses = lambda _line: words + "already exists as type integer dropped=1"
    carried = courier(store, server, journal)
    carried.run_once()
    journal.append([2])
    carried.run_once()
    assert len(server.requests) == 1
    assert [letter.reason for letter in store.dead()] == ["refused", "type"]
    assert courier(store, server, journal).types == {("battery", "value"): "i"}


def test_a_row_that_cannot_be_encoded_is_kept_and_delays_nothing(store: ShipStore) -> None:
    journal, server = TwinJournal(store.path), TwinServer()
    journal.sync()
    journal.append([1], measurement="bad\nname")
    journal.append([2])
    courier(store, server, journal).run_once()
    assert server.stamps() == [OFFSET_NS + 2]
    assert [(letter.reason, letter.seq) for letter in store.dead()] == [("unencodable", 1)]


def test_a_held_sink_reports_its_reason_and_a_stop_ends_the_hold_at_once(store: ShipStore) -> None:
    journal, server = TwinJournal(store.path), TwinServer(mood=lambda _lines: "404")
    journal.sync()
    journal.append([1])
    told: list[tuple[str, str]] = []

    def tell(kind: str, detail: str) -> None:
        told.append((kind, detail))
        carried.stop.set()

    carried = SinkWorker("lab", store, server, on_event=tell)
    carried.add(JournalSource("mppt", journal, store, "lab", carried.types))
    started_s = time.monotonic()
    carried.run(0.01)
    assert time.monotonic() - started_s < 30  # a hold is 60 s
    assert told == [("sink_hold", "lab: 404: 404")]
    health = store.health("lab")
    assert health is not None
    assert health.state == "hold"


def test_a_journal_that_is_far_ahead_does_not_fill_the_backlog_ranges(store: ShipStore) -> None:
    journal, server = TwinJournal(store.path), TwinServer()
    journal.sync()
    carried = courier(store, server, journal)
    for n in range(5 * (LIVE_LAG + 1)):
        journal.append([n])
        if n % (LIVE_LAG + 1) == LIVE_LAG:
            carried.live_round()
    assert len(carried.marks["mppt"].spans) == 1
    carried.run_once()
    assert len(server.points) == journal.rows()


def test_a_backlog_whose_files_are_deleted_ends(store: ShipStore) -> None:
    journal, server = TwinJournal(store.path), TwinServer()
    journal.sync()
    for n in range(100):
        journal.append([n])
    carried = courier(store, server, journal)
    carried.live_round()
    assert carried.marks["mppt"].spans
    journal.hot.clear()
    journal.seq = 0
    while carried.backlog_turn():
        pass
    assert not carried.marks["mppt"].spans
    assert carried.marks["mppt"].confirmed == 100


class Unreadable(TwinJournal):
    """A journal that a newer program wrote."""

    def newest_seq(self) -> int:
        """Refuse."""
        raise JournalNewer("j-00000001.db: version 99")


def test_a_journal_that_cannot_be_read_delays_no_other(store: ShipStore) -> None:
    told: list[tuple[str, str]] = []
    server = TwinServer()
    journals = [Unreadable(store.path, "a"), TwinJournal(store.path, "b")]
    carried = SinkWorker("lab", store, server, on_event=lambda *event: told.append(event))
    for journal in journals:
        carried.add(JournalSource(journal.name, journal, store, "lab", carried.types))
    journals[1].sync()
    journals[1].append([1])
    carried.run_once()
    carried.run_once()
    assert server.stamps() == [OFFSET_NS + 1]
    assert told == [("journal_unreadable", "lab: j-00000001.db: version 99")]
    assert carried.marks["a"].confirmed == 0


def test_a_full_disk_costs_only_a_resend(store: ShipStore, monkeypatch: pytest.MonkeyPatch) -> None:
    journal, server = TwinJournal(store.path), TwinServer()
    journal.sync()
    journal.append([1])
    carried = courier(store, server, journal)

    def full(*_: object) -> None:
        raise StoreUnavailable("database or disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(store, "save", full)
        carried.run_once()
    assert server.stamps() == [OFFSET_NS + 1]
    assert store.marks("lab") == {}
    carried.save()
    assert store.marks("lab")["mppt"].confirmed == 1


MOODS = ["store", "store", "store", "store and stay silent", "silent", "late", "503", "500", "429", "413"]
ACTION = st.sampled_from(
    ["append", "append", "many", "event", "unsynced boot", "sync", "compact", "ship", "save", "kill"]
)


@given(
    st.lists(ACTION, max_size=40),
    st.lists(st.sampled_from(MOODS), min_size=1, max_size=12),
    st.lists(st.sampled_from([0, 0, 1, 2 * LIVE_LAG]), min_size=1, max_size=5),
)
@settings(max_examples=150, deadline=None)
def test_after_any_faults_the_server_holds_exactly_the_journal(
    tmp_path_factory: pytest.TempPathFactory, actions: list[str], moods: list[str], growth: list[int]
) -> None:
    store = ShipStore(tmp_path_factory.mktemp("ship") / "ship.db")
    journal, server = TwinJournal(store.path), TwinServer()
    cycle, growing = itertools.cycle([*moods, "store"]), itertools.chain(growth * 5, itertools.repeat(0))
    journal.sync()
    boot, clock = "boot-1", itertools.count(1)

    def mood(sent: list[str]) -> str:
        for _ in range(next(growing)):
            journal.append([next(clock) * SECOND], boot_id=boot, measurement="solar")
        return next(cycle) if len(sent) > 1 else "store"

    server.mood = mood
    carried = courier(store, server, journal, interval_s=0.0)
    for action in actions:
        if action in ("append", "many"):
            for _ in range(1 if action == "append" else 150):
                journal.append([next(clock) * SECOND, next(clock) * SECOND], boot_id=boot)
                journal.append([next(clock) * SECOND], boot_id=boot, measurement="load")
        elif action == "event":
            journal.event(next(clock) * SECOND, boot_id=boot)
        elif action == "unsynced boot":
            boot = f"boot-{next(clock)}"
            journal.sync(boot, state=UNSYNCHRONISED, offset_ns=0)
        elif action == "sync" and journal.steps[boot][-1].state == UNSYNCHRONISED:
            journal.sync(boot, next(clock) * SECOND, OFFSET_NS)
        elif action == "compact":
            journal.compact()
        elif action == "ship":
            carried.live_round()
            carried.backlog_turn()
        elif action == "save":
            carried.save()
        elif action == "kill":
            carried = courier(store, server, journal, interval_s=0.0)
        assert not [stamp for stamp in server.stamps() if stamp < OFFSET_NS]
    for name, steps in journal.steps.items():
        if steps[-1].state == UNSYNCHRONISED:
            journal.sync(name, next(clock) * SECOND, OFFSET_NS)
    carried = courier(store, server, journal)
    carried.run_once()
    assert len(server.points) == journal.rows()
    assert carried.marks["mppt"].confirmed == journal.seq
    assert not store.dead()
    store.close()


def test_a_restarted_shipper_knows_a_line_that_the_sink_has_stored(store: ShipStore) -> None:
    """A batch that always fails is distinguished from a server that always fails, also right after a start."""
    journal, server = filled(store, 5), TwinServer()
    courier(store, server, journal).run_once()
    journal.append([100 * SECOND])
    server.mood = lambda sent: "500" if any(line.endswith(str(OFFSET_NS + 100 * SECOND)) for line in sent) else "store"
    courier(store, server, journal).run_once()
    assert [letter.reason for letter in store.dead("lab")] == ["fault"]
    assert len(server.points) == 5


def test_lines_that_are_sent_one_by_one_and_rejected_are_one_event(store: ShipStore) -> None:
    journal, server = filled(store, 1000), TwinServer(refuses=lambda _line: "no such thing")
    events: list[tuple[str, str]] = []
    carried = courier(store, server, journal, batch_lines=1000)
    carried._on_event = lambda kind, detail: events.append((kind, detail))
    carried.run_once()
    assert store.dead_count("lab") == 1000
    told = [int(detail.split(": ")[1].split()[0]) for kind, detail in events if kind == "lines_refused"]
    assert sum(told) == 1000
    assert len(told) <= 2
