"""Every sample gets its true time once it is known, none is shipped before, and shipped stamps never change."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from collectors.host.clock import SET_BY_PERSON, SYNCHRONISED, UNSYNCHRONISED, ClockReading, FakeClock
from collectors.journal import clock_request
from collectors.journal.backlog import Work
from collectors.journal.records import ClockStep
from collectors.journal.shipper_state import read_cursors, read_frozen, shipped_seq
from collectors.journal.timeline import resolve, step_after, step_by_person, with_frozen
from tests.testing.journal import SECOND, Bench

TRUE_S, WRONG_S = 1_700_000_000, 1_600_000_000


def step(at: int, offset: int, state: int, frozen: bool = False) -> ClockStep:
    return ClockStep(at, offset, state, frozen)


def offsets(steps: Sequence[ClockStep], *stamps: int) -> list[int | None]:
    wall, known = resolve(steps).to_wall(np.array(stamps))
    return [w - s if k else None for w, s, k in zip(wall.tolist(), stamps, known.tolist(), strict=True)]


def test_without_a_table_no_time_is_known() -> None:
    assert offsets([], 5) == [None]


def test_an_unsynchronised_boot_has_no_time() -> None:
    assert offsets([step(0, 7, UNSYNCHRONISED), step(10, 8, UNSYNCHRONISED)], 5, 15) == [None, None]


def test_synchronisation_applies_back_to_the_last_known_time() -> None:
    steps = [
        step(0, 1, UNSYNCHRONISED), step(10, 2, SYNCHRONISED), step(20, 3, UNSYNCHRONISED),
        step(30, 4, UNSYNCHRONISED), step(40, 5, SYNCHRONISED), step(50, 6, UNSYNCHRONISED),
    ]  # fmt: skip
    assert offsets(steps, 0, 9, 10, 19, 20, 35, 40, 49, 50, 99) == [2, 2, 2, 2, 5, 5, 5, 5, None, None]


def test_a_manually_set_clock_applies_until_a_time_service_synchronises() -> None:
    said = [step(0, 1, UNSYNCHRONISED), step(10, 2, SET_BY_PERSON)]
    assert offsets(said, 5, 15) == [2, 2]
    assert offsets([*said, step(20, 3, SET_BY_PERSON)], 5, 15, 25) == [3, 3, 3]
    assert offsets([*said, step(20, 3, SYNCHRONISED)], 5, 15, 25) == [3, 3, 3]


def test_frozen_offsets_stay_and_the_rest_is_corrected() -> None:
    steps = [step(0, 1, UNSYNCHRONISED), step(10, 2, SET_BY_PERSON), step(20, 3, SYNCHRONISED)]
    frozen = with_frozen(steps, [step(0, 2, SET_BY_PERSON, True)])
    assert offsets(frozen, 5, 15, 25) == [2, 3, 3]
    assert resolve(frozen).used(np.array([5, 15])) == [step(10, 3, SYNCHRONISED, True)]


STEPS = st.lists(
    st.tuples(st.integers(0, 50), st.integers(-9, 9), st.integers(0, 2), st.booleans()), unique_by=lambda s: s[0]
).map(lambda found: [ClockStep(*s) for s in sorted(found)])


@settings(max_examples=200, deadline=None)
@given(STEPS, st.integers(0, 60))
def test_the_rules_hold_for_any_table(steps: list[ClockStep], stamp: int) -> None:
    before = [i for i, s in enumerate(steps) if s.boottime_ns <= stamp]
    at = before[-1] if before else 0
    rest = steps[at:]
    if rest and rest[0].frozen:
        rest = rest[:1]
    services = [s for s in rest if s.frozen or s.state == SYNCHRONISED]
    upto = rest.index(services[0]) if services else len(rest)
    persons = [s for s in rest[:upto] if s.state == SET_BY_PERSON]
    source = (services or persons[-1:])[:1]
    # A frozen row that has no time of its own cannot be, but must not invent one either.
    expected: list[int | None] = [s.offset_ns for s in source if s.state != UNSYNCHRONISED]
    assert offsets(steps, stamp) == (expected or [None])


@settings(max_examples=200, deadline=None)
@given(STEPS, st.integers(-20, 60), st.integers(0, 40), st.lists(st.integers(0, 70), max_size=20))
def test_intervals_are_the_inverse_of_the_wall_time_mapping(
    steps: list[ClockStep], start: int, width: int, stamps: list[int]
) -> None:
    timeline = resolve(steps)
    wall, known = timeline.to_wall(np.array(stamps, dtype=np.int64))
    intervals = timeline.intervals(start, start + width)
    for stamp, w, k in zip(stamps, wall.tolist(), known.tolist(), strict=True):
        inside = any(low <= stamp < high for low, high in intervals)
        assert inside == (k and start <= w < start + width)


def test_a_step_adds_a_row_and_jitter_or_a_silent_time_service_adds_none() -> None:
    last = step(0, 10 * SECOND, SYNCHRONISED)
    assert step_after(None, ClockReading(5, 1, UNSYNCHRONISED)) == step(5, 1, UNSYNCHRONISED)
    assert step_after(last, ClockReading(5, 10 * SECOND + 900_000, SYNCHRONISED)) is None
    assert step_after(last, ClockReading(5, 10 * SECOND, UNSYNCHRONISED)) is None
    assert step_after(last, ClockReading(5, 11 * SECOND, UNSYNCHRONISED)) == step(5, 11 * SECOND, UNSYNCHRONISED)
    said = step(0, 10 * SECOND, SET_BY_PERSON)
    assert step_after(said, ClockReading(5, 99 * SECOND, UNSYNCHRONISED)) is None
    assert step_after(said, ClockReading(5, 10 * SECOND, SYNCHRONISED)) == step(5, 10 * SECOND, SYNCHRONISED)
    assert step_by_person([step(7, 1, UNSYNCHRONISED)], 3, 9) == step(8, 9, SET_BY_PERSON)


def wrong_at_boot(bench: Bench) -> None:
    bench.clock = FakeClock(10 * SECOND, WRONG_S * SECOND, UNSYNCHRONISED)


def test_samples_before_synchronisation_wait_and_then_get_their_true_time(bench: Bench) -> None:
    wrong_at_boot(bench)
    writer = bench.open()
    bench.write(writer, 3)
    assert bench.walls() == []
    bench.clock.synchronise(TRUE_S * SECOND)
    bench.write(writer, 2)
    assert bench.walls() == [TRUE_S + s for s in (11, 12, 13, 14, 15)]


def test_late_synchronisation_applies_back_over_blocks_files_and_restarts(bench: Bench) -> None:
    wrong_at_boot(bench)
    writer = bench.open()
    bench.write(writer, 3)
    writer.compact()
    writer.roll()
    bench.write(writer, 2)
    bench.close(writer)
    writer = bench.open()
    bench.clock.synchronise(TRUE_S * SECOND)
    writer.commit(Work())
    assert bench.walls() == [TRUE_S + s for s in (11, 12, 13, 14, 15)]
    spans = list(bench.reader.range((TRUE_S + 12) * SECOND, (TRUE_S + 15) * SECOND))
    assert [w for span in spans for w in span.wall_ns.tolist()] == [(TRUE_S + s) * SECOND for s in (12, 13, 14)]


def test_a_backward_step_gives_no_two_rows_the_same_stamp(bench: Bench) -> None:
    writer = bench.open()
    bench.write(writer, 5)
    bench.clock.step_s(-3.0005)
    bench.write(writer, 5)
    walls = bench.walls()
    assert len(set(walls)) == 10
    assert walls[5] < walls[4]
    assert [s.state for s in bench.reader.clock_steps("fake-boot")] == [SYNCHRONISED] * 2


def test_rows_after_an_unsynchronised_step_wait_for_the_time_service(bench: Bench) -> None:
    writer = bench.open()
    bench.write(writer, 2)
    bench.clock.lose_synchronisation()
    bench.write(writer, 2)
    assert len(bench.walls()) == 4, "silence alone changes nothing"
    bench.clock.step_s(3600)
    bench.write(writer, 2)
    assert len(bench.walls()) == 4
    bench.clock.synchronise(TRUE_S * SECOND)
    bench.write(writer, 1)
    assert bench.walls() == [TRUE_S + s for s in range(11, 18)]


def test_the_clock_is_read_even_when_no_row_is_to_be_written(bench: Bench) -> None:
    wrong_at_boot(bench)
    writer = bench.open()
    bench.write(writer, 1)
    bench.clock.synchronise(TRUE_S * SECOND)
    writer.commit(Work())
    assert bench.walls() == [TRUE_S + 11]
    assert writer.clock_state == SYNCHRONISED


def ship_db(state: Path, cursor: int, *frozen: ClockStep) -> None:
    with sqlite3.connect(state / "ship.db") as connection:
        connection.executescript(
            "CREATE TABLE IF NOT EXISTS cursor(sink TEXT, collector TEXT, seq INTEGER, live INTEGER);"
            "CREATE TABLE IF NOT EXISTS frozen(collector TEXT, boot_id TEXT, bt INTEGER, off INTEGER, state INTEGER);"
            "DELETE FROM cursor; DELETE FROM frozen;"
        )
        connection.execute("INSERT INTO cursor VALUES ('lab', 'load', ?1, ?1)", (cursor,))
        for f in frozen:
            row = (f.boottime_ns, f.offset_ns, f.state)
            connection.execute("INSERT INTO frozen VALUES ('load', 'fake-boot', ?, ?, ?)", row)
    connection.close()


def test_a_shipped_offset_is_not_changed_by_a_later_synchronisation(bench: Bench, tmp_path: Path) -> None:
    wrong_at_boot(bench)
    writer = bench.open()
    bench.write(writer, 2)
    clock_request.leave(
        bench.directory, clock_request.ClockRequest("fake-boot", bench.clock.boottime_ns(), TRUE_S * SECOND)
    )
    bench.write(writer, 1)
    assert bench.walls() == [TRUE_S + s for s in (11, 12, 13)]
    ship_db(tmp_path, 3, *bench.reader.timeline("fake-boot").used(np.array([11 * SECOND, 13 * SECOND])))
    bench.clock.synchronise((TRUE_S + 60) * SECOND)
    bench.write(writer, 2)
    truth = [TRUE_S + s for s in (11, 12, 13, 74, 75)]
    assert bench.walls() == truth
    writer.compact()
    (tmp_path / "ship.db").unlink()
    assert bench.walls() == truth, "the collector has copied what was frozen"


def test_a_boot_that_never_synchronised_can_be_set_afterwards(bench: Bench) -> None:
    wrong_at_boot(bench)
    writer = bench.open()
    bench.write(writer, 2)
    bench.close(writer)
    bench.clock = FakeClock(SECOND, TRUE_S * SECOND, boot_id="next-boot")
    writer = bench.open()
    bench.write(writer, 1)
    clock_request.leave(bench.directory, clock_request.ClockRequest("fake-boot", 0, (TRUE_S - 500) * SECOND))
    writer.commit(Work())
    assert bench.walls() == [TRUE_S - 489, TRUE_S - 488, TRUE_S + 2]
    assert bench.reader.timeline("fake-boot").states(np.array([5])).tolist() == [SET_BY_PERSON]
    assert not clock_request.is_waiting(bench.directory)


def test_requests_for_a_known_clock_an_unknown_boot_or_invalid_ones_are_rejected_with_an_event(bench: Bench) -> None:
    writer = bench.open()
    bench.write(writer, 1)
    for wanted in (clock_request.ClockRequest("fake-boot", 0, 1), clock_request.ClockRequest("no-such-boot", 0, 1)):
        clock_request.leave(bench.directory, wanted)
        writer.commit(Work())
        assert not clock_request.is_waiting(bench.directory)
    (bench.directory / clock_request.NAME).write_text("{]")
    writer.commit(Work())
    assert bench.kinds() == ["clock_set_refused"] * 3
    assert "known already" in bench.events[0][1]
    assert "no-such-boot" in bench.events[1][1]


def test_a_request_that_is_applied_twice_changes_nothing(bench: Bench) -> None:
    wrong_at_boot(bench)
    writer = bench.open()
    bench.write(writer, 1)
    for _ in range(2):
        clock_request.leave(bench.directory, clock_request.ClockRequest("fake-boot", 0, TRUE_S * SECOND))
        writer.commit(Work())
    assert [s.state for s in bench.reader.clock_steps("fake-boot")] == [UNSYNCHRONISED, SET_BY_PERSON]


def test_an_unknown_shipper_state_counts_as_nothing_shipped(tmp_path: Path) -> None:
    path = tmp_path / "ship.db"
    assert (read_cursors(path, "load"), read_frozen(path, "load")) == ({}, {})
    sqlite3.connect(path).close()
    assert shipped_seq(path, "load", ["lab"]) == 0
    ship_db(tmp_path, 17)
    assert shipped_seq(path, "load", ["lab"]) == 17
    assert shipped_seq(path, "load", ["lab", "office"]) == 0, "every sink must have it"
    path.write_bytes(b"this is no database, it is only text that is long enough to be one" * 9)
    assert shipped_seq(path, "load", ["lab"]) == 0
